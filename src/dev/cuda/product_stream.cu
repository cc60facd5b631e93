/* product_stream.cu - products of few rows by bf16 and whole numbers: see product_stream.h. */
#include "dev/cuda/product_stream.h"

template <enum num TYPE, int TILES>
__global__ void __launch_bounds__(STREAM_THREADS, 2)
    stream_kernel(const __grid_constant__ struct product p)
{
    const struct duty duty = duty_of(p, (int)blockIdx.x);
    const struct some_rows at = {(int)blockIdx.y * TILES * 8, p.n, NULL};
    struct put_shares<TILES> put(p);
    stream_rows<TYPE, TILES>(p, duty, at, put);
}

template <enum num TYPE, int TILES> static int launch(void *stream, const struct product *p)
{
    struct product placed = *p;
    const int blocks = place_blocks(&placed, PAIR);
    return LAUNCH_CHAINED(stream_kernel<TYPE, TILES>,
                          dim3((unsigned)blocks, (unsigned)parts_of(p->n, 8 * TILES)),
                          dim3(STREAM_THREADS), (stream_bytes<TYPE, TILES>()), stream, placed);
}

/* Of whole numbers eight rows at most are streamed. */
int product_stream(void *stream, enum num type, const struct product *p)
{
    return of_format(type, [&](auto kind) {
        constexpr int MOST = format_whole(kind()) ? 1 : 2;
        return p->n <= 8 ? launch<kind(), 1>(stream, p) : launch<kind(), MOST>(stream, p);
    });
}
