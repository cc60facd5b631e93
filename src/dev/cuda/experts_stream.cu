/* experts_stream.cu - products of experts by bf16 and whole numbers: see experts.h. */
#include "dev/cuda/experts.h"
#include "dev/cuda/product_stream.h"

template <enum num TYPE, int TILES, bool DOWN>
__global__ static void __launch_bounds__(STREAM_THREADS, 2)
    experts_kernel(const __grid_constant__ struct experts e)
{
    const struct expert_tile tile = e.tile[blockIdx.y];
    const struct some_rows at = {tile.first, tile.end, DOWN ? NULL : e.source};
    struct product *p = (struct product *)(gpu_shared<char>() + stream_bytes<TYPE, TILES>());
    struct duty duty;
    if (tile.expert < 0)
        return;
    if constexpr (DOWN) {
        duty = down_product(p, e, tile.expert, (int)blockIdx.x);
        struct add_terms<TILES> add(e, tile.end);
        stream_rows<TYPE, TILES>(*p, duty, at, add);
    } else if (gate_product(p, e, tile.expert, (int)blockIdx.x, PAIR, &duty)) {
        struct put_rows put = {*p, tile.end};
        stream_rows<TYPE, TILES>(*p, duty, at, put);
    }
}

template <enum num TYPE, int TILES>
static int launch(void *stream, const struct experts *e, bool down)
{
    const size_t shared = stream_bytes<TYPE, TILES>() + sizeof(struct product);
    const dim3 grid((unsigned)(down ? parts_of(e->dim, PAIR) : gate_blocks(*e, PAIR)),
                    (unsigned)e->tiles, down ? 1 : 2);
    return down ? LAUNCH((experts_kernel<TYPE, TILES, true>), grid, dim3(STREAM_THREADS), shared,
                         stream, *e)
                : LAUNCH((experts_kernel<TYPE, TILES, false>), grid, dim3(STREAM_THREADS), shared,
                         stream, *e);
}

/* Whole numbers come by eight rows. */
int experts_stream(void *stream, const struct experts *e, bool down)
{
    return of_format(e->type, [&](auto kind) {
        constexpr int MOST = format_whole(kind()) ? 1 : 2;
        return e->tile_rows <= 8 ? launch<kind(), 1>(stream, e, down)
                                 : launch<kind(), MOST>(stream, e, down);
    });
}
