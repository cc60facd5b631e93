/* product_stream.cu - products of few rows by bf16 and whole numbers: see product_stream.h. */
#include "dev/cuda/number.h"
#include "dev/cuda/product_stream.h"

/* A gate, which comes first, waits for its up. */
template <int N> struct put_gated {
    const struct product &p;
    float gate[N];

    __device__ put_gated(const struct product &of) : p(of), gate() {}
    __device__ void sum(int i, const struct piece &k, int row, int o, float v)
    {
        const struct target &to = p.to[k.to], &gated = p.to[0];
        if (row >= p.n || o >= k.rows)
            return;
        if (to.bias)
            v = __fadd_rn(v, to.bias[k.out + o]);
        if (k.to == 0)
            gate[i] = v;
        else
            gated.y[(size_t)row * (size_t)gated.stride + (size_t)(k.out + o)] =
                num_swiglu(gate[i], v);
    }
};

template <enum num TYPE, int TILES, class PUT>
__global__ void __launch_bounds__(STREAM_THREADS, 2)
    stream_kernel(const __grid_constant__ struct product p)
{
    const struct duty duty = duty_of(p, (int)blockIdx.x);
    const struct some_rows at = {(int)blockIdx.y * TILES * 8, p.n, NULL};
    PUT put(p);
    stream_rows<TYPE, TILES>(p, duty, at, put);
}

template <enum num TYPE, int TILES> static int launch(void *stream, const struct product *p)
{
    struct product placed = *p;
    const int blocks = place_blocks(&placed, PAIR);
    const dim3 grid((unsigned)blocks, (unsigned)parts_of(p->n, 8 * TILES)), block(STREAM_THREADS);
    const size_t shared = stream_bytes<TYPE, TILES>();
    return p->gated ? LAUNCH_CHAINED((stream_kernel<TYPE, TILES, struct put_gated<TILES>>), grid,
                                     block, shared, stream, placed)
                    : LAUNCH_CHAINED((stream_kernel<TYPE, TILES, struct put_shares<TILES>>), grid,
                                     block, shared, stream, placed);
}

/* Of whole numbers eight rows at most are streamed. */
int product_stream(void *stream, enum num type, const struct product *p)
{
    return of_format(type, [&](auto kind) {
        constexpr int MOST = format_whole(kind()) ? 1 : 2;
        return p->n <= 8 ? launch<kind(), 1>(stream, p) : launch<kind(), MOST>(stream, p);
    });
}
