/* product_tile.cu - products of many rows by bf16 and whole numbers: see product_tile.h.
 *
 * A tile that sums shares keeps the left halves of the tree in memory of its block's own; a grid of
 * as many blocks as there is such memory for does all tiles in turns. Warpgroup instructions (wgmma
 * of sm_90) are not used.
 */
#include "dev/cuda/product_tile.h"

/* ------------------------------------------------------------------------------- trees */

/* The left halves of the tree above a leaf that is a right half are added to it. Returns the level
 * of what it is then. */
template <class T> GPU_INLINE int join_left(struct sums<T> &s, const float *stack, int leaf)
{
    float *all = &s.all[0][0][0][0];
    int level = 0;
    for (; leaf >> level & 1; level++)
#pragma unroll
        for (int i = 0; i < T::SUMS; i++)
            all[i] =
                __fadd_rn(stack[(level * T::SUMS + i) * T::THREADS + (int)threadIdx.x], all[i]);
    return level;
}

template <class T> GPU_INLINE void keep_left(const struct sums<T> &s, float *stack, int level)
{
    const float *all = &s.all[0][0][0][0];
#pragma unroll
    for (int i = 0; i < T::SUMS; i++)
        stack[(level * T::SUMS + i) * T::THREADS + (int)threadIdx.x] = all[i];
}

/* Joins the shares of a tile, and puts what they give. */
template <class T> struct put_tree {
    const struct product &p;
    float *stack;

    __device__ void tile(const struct piece &k, struct sums<T> &s, int block, int row)
    {
        const int level = join_left<T>(s, stack, k.leaf);
        if (!k.last)
            keep_left<T>(s, stack, level);
        else
            each_output<T>(s, block, row,
                           [&](int, int at, int o, float v) { put_output(p, k, at, o, v); });
    }
};

/* ------------------------------------------------------------------------------- tiles */

template <class T>
__global__ void __launch_bounds__(T::THREADS, T::OUTPUTS *T::ROWS > 128 * 64 ? 1 : 2)
    tile_kernel(const __grid_constant__ struct product p, int tiles, int row_tiles, float *stacks,
                int levels)
{
    after_previous();
    struct put_tree<T> put = {
        p, stacks + (size_t)blockIdx.x *(size_t)(levels *T::SUMS *T::THREADS)
    };
    for (int i = (int)blockIdx.x; i < tiles; i += (int)gridDim.x) {
        struct where w = {duty_of(p, i / row_tiles), 0, {i % row_tiles * T::ROWS, p.n, NULL}};
        w.block = w.duty.place * (T::OUTPUTS / 16);
        do_tile<T>(p, w, put);
    }
}

/* ------------------------------------------------------------------------------- launches */

template <class T>
static int launch(void *stream, const struct product *p, const struct gpu_room *left)
{
    struct product placed = *p;
    const int row_tiles = parts_of(p->n, T::ROWS), levels = levels_of(p);
    const int tiles = place_blocks(&placed, T::OUTPUTS) * row_tiles;
    const size_t stack = (size_t)levels * T::SUMS * T::THREADS * sizeof(float);
    const size_t most = stack ? left->bytes / stack : (size_t)tiles;
    if (!most)
        return GPU_NO_MEMORY;
    return LAUNCH_CHAINED(tile_kernel<T>,
                          dim3((unsigned)(most < (size_t)tiles ? most : (size_t)tiles)),
                          dim3(T::THREADS), (size_t)T::STAGES * T::STAGE_BYTES, stream, placed,
                          tiles, row_tiles, (float *)left->at, levels);
}

static int tiles_of(const struct product *p, int outputs, int rows)
{
    struct product placed = *p;
    return place_blocks(&placed, outputs) * parts_of(p->n, rows);
}

/* The largest tiles of which there is one for every multiprocessor: the larger, the less is read
 * twice. */
template <enum num TYPE>
static int choose(void *stream, const struct product *p, const struct gpu_room *left)
{
    if (p->n <= 32)
        return launch<tile<TYPE, 2, 2, 1, 2, 6>>(stream, p, left);
    if (p->n > 64 && tiles_of(p, 128, 128) >= left->sm)
        return launch<tile<TYPE, 2, 4, 2, 4, 3>>(stream, p, left);
    if (tiles_of(p, 128, 64) >= left->sm)
        return launch<tile<TYPE, 4, 2, 1, 4, 4>>(stream, p, left);
    return launch<tile<TYPE, 2, 2, 1, 4, 6>>(stream, p, left);
}

size_t product_stack_bytes(int sm) { return (size_t)sm * TREE_LEVELS * 128 * 128 * sizeof(float); }

int product_tile(void *stream, enum num type, const struct product *p, const struct gpu_room *left)
{
    return of_format(type, [&](auto kind) { return choose<kind()>(stream, p, left); });
}
