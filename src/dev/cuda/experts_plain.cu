/* experts_plain.cu - products of experts by f32 and f16: see experts.h. */
#include "dev/cuda/experts.h"
#include "dev/cuda/product_plain.h"

template <int BYTES, int ROWS, bool DOWN>
__global__ static void __launch_bounds__(PLAIN_THREADS, 2)
    experts_kernel(const __grid_constant__ struct experts e)
{
    const struct expert_tile tile = e.tile[blockIdx.y];
    const struct some_rows at = {tile.first, tile.end, DOWN ? NULL : e.source};
    struct product *p = (struct product *)(gpu_shared<char>() + plain_bytes<BYTES, ROWS>());
    struct duty duty;
    if (tile.expert < 0)
        return;
    if constexpr (DOWN) {
        duty = down_product(p, e, tile.expert, (int)blockIdx.x);
        struct add_terms<ROWS> add(e, tile.end);
        plain_rows<BYTES, ROWS>(*p, duty, at, add);
    } else if (gate_product(p, e, tile.expert, (int)blockIdx.x, PAIR, &duty)) {
        struct put_rows put = {*p, tile.end};
        plain_rows<BYTES, ROWS>(*p, duty, at, put);
    }
}

template <int BYTES, int ROWS> static int launch(void *stream, const struct experts *e, bool down)
{
    const size_t shared = plain_bytes<BYTES, ROWS>() + sizeof(struct product);
    const dim3 grid((unsigned)(down ? parts_of(e->dim, PAIR) : gate_blocks(*e, PAIR)),
                    (unsigned)e->tiles, down ? 1 : 2);
    return down ? LAUNCH((experts_kernel<BYTES, ROWS, true>), grid, dim3(PLAIN_THREADS), shared,
                         stream, *e)
                : LAUNCH((experts_kernel<BYTES, ROWS, false>), grid, dim3(PLAIN_THREADS), shared,
                         stream, *e);
}

int experts_plain(void *stream, const struct experts *e, bool down)
{
    return e->type == NUM_F32 ? launch<4, 1>(stream, e, down) : launch<2, 1>(stream, e, down);
}
