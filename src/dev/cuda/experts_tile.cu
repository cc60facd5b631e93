/* experts_tile.cu - products of experts that have many rows each, by bf16 and whole numbers: the
 * tiles of product_tile.h, those of all experts in one launch. The bits are those of
 * experts_stream.cu.
 */
#include "dev/cuda/experts.h"
#include "dev/cuda/product_tile.h"

/* Outputs of gate and up. */
template <class T> struct put_tile {
    const struct product &p;
    int end;

    __device__ void tile(const struct piece &k, struct sums<T> &s, int block, int row)
    {
        struct put_rows put = {p, end};
        each_output<T>(s, block, row,
                       [&](int i, int at, int o, float v) { put.sum(i, k, at, o, v); });
    }
};

template <class T> struct add_tile {
    struct add_terms<T::SUMS> terms;

    __device__ void tile(const struct piece &k, struct sums<T> &s, int block, int row)
    {
        each_output<T>(s, block, row,
                       [&](int i, int at, int o, float v) { terms.sum(i, k, at, o, v); });
    }
};

template <class T, bool DOWN>
__global__ static void __launch_bounds__(T::THREADS, DOWN ? 1 : 2)
    experts_kernel(const __grid_constant__ struct experts e)
{
    const struct expert_tile tile = e.tile[blockIdx.y];
    struct product *p = (struct product *)(gpu_shared<char>() + T::STAGES * T::STAGE_BYTES);
    struct where w = {{0, 0, 0}, 0, {tile.first, tile.end, DOWN ? NULL : e.source}};
    if (tile.expert < 0)
        return;
    if constexpr (DOWN) {
        w.duty = down_product(p, e, tile.expert, (int)blockIdx.x);
        w.block = w.duty.place * (T::OUTPUTS / 16);
        struct add_tile<T> add = {
            add_terms<T::SUMS>(e, tile.end)
        };
        do_tile<T>(*p, w, add);
    } else if (gate_product(p, e, tile.expert, (int)blockIdx.x, T::OUTPUTS, &w.duty)) {
        w.block = w.duty.place * (T::OUTPUTS / 16);
        struct put_tile<T> put = {
            *p, tile.end
        };
        do_tile<T>(*p, w, put);
    }
}

template <class T> static int launch(void *stream, const struct experts *e, bool down)
{
    const size_t shared = (size_t)T::STAGES * T::STAGE_BYTES + sizeof(struct product);
    const dim3 grid((unsigned)(down ? parts_of(e->dim, T::OUTPUTS) : gate_blocks(*e, T::OUTPUTS)),
                    (unsigned)e->tiles, down ? 1 : 2);
    static_assert(T::STAGES * T::STAGE_BYTES + sizeof(struct product) <= 99 << 10,
                  "the smallest of the GPUs has so much shared memory");
    return down ? LAUNCH((experts_kernel<T, true>), grid, dim3(T::THREADS), shared, stream, *e)
                : LAUNCH((experts_kernel<T, false>), grid, dim3(T::THREADS), shared, stream, *e);
}

template <enum num TYPE> static int choose(void *stream, const struct experts *e, bool down)
{
    typedef tile<TYPE, 4, 2, 1, 4, 4> large;
    typedef tile<TYPE, 2, 2, 1, 2, 6> small;
    static_assert(large::ROWS == TILE_ROWS && small::ROWS == TILE_ROWS / 2, "as rows are grouped");
    return e->tile_rows == large::ROWS ? launch<large>(stream, e, down)
                                       : launch<small>(stream, e, down);
}

int experts_tile(void *stream, const struct experts *e, bool down)
{
    return of_format(e->type, [&](auto kind) { return choose<kind()>(stream, e, down); });
}
