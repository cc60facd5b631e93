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

int product_stream(void *stream, enum num type, const struct product *p)
{
    switch (type) {
    case NUM_BF16:
        return p->n <= 8 ? launch<NUM_BF16, 1>(stream, p) : launch<NUM_BF16, 2>(stream, p);
    case NUM_FP8: return p->n <= 8 ? launch<NUM_FP8, 1>(stream, p) : launch<NUM_FP8, 2>(stream, p);
    case NUM_INT8: return launch<NUM_INT8, 1>(stream, p);
    case NUM_INT4: return launch<NUM_INT4, 1>(stream, p);
    case NUM_INT8_G32: return launch<NUM_INT8_G32, 1>(stream, p);
    case NUM_INT4_G32: return launch<NUM_INT4_G32, 1>(stream, p);
    case NUM_INT4_G32Z: return launch<NUM_INT4_G32Z, 1>(stream, p);
    default: return launch<NUM_INT4_G128, 1>(stream, p);
    }
}
