/* product_wgmma.cu - products of prompts by bf16 on compute capability 9.0: see product_wgmma.h.
 *
 * A tile is OUTPUTS x 192: sums of a run and of those before take 192 registers of a thread, which
 * the warps that fetch give away. Two blocks of a cluster make neighbouring outputs of the same
 * rows, each fetches half of x for both: 28 KiB of a slot's 40 KiB come from the level-2 cache for
 * 128 x 192 x 64 multiplications, so at 600 TFLOP/s 5.3 TB/s, where whole tiles would want 7.6.
 * As many clusters as there is room for do all tiles in turns. Tiles that sum shares keep
 * the left halves of the tree in memory of their block's own.
 */
#include "dev/cuda/product_wgmma.h"

enum { BLOCKS = 2, THREADS = CONSUMERS + WARPGROUP, FEW = 40, MANY = 232 };

typedef struct shape<192, 5> prompt;

/* Which tile a block makes, and how many tiles of rows there are. */
struct walk {
    int tiles, row_tiles, levels;
    float *stacks;
};

GPU_INLINE struct corner corner_of(const struct walk &w, const struct duty &duty, int tile)
{
    return {(duty.place * BLOCKS + block_in_cluster()) * (OUTPUTS / 16),
            tile % w.row_tiles * prompt::ROWS};
}

/* The tiles of a cluster. */
#define FOR_TILES(tile, w)                                                                         \
    for (int tile = (int)blockIdx.x / BLOCKS; tile < (w).tiles; tile += (int)gridDim.x / BLOCKS)

GPU_INLINE void fetch_tiles(const struct product &p, const struct walk &w)
{
    struct turn t = {0, 0};
    FOR_TILES(tile, w)
    {
        const struct duty duty = duty_of(p, tile / w.row_tiles);
        const struct corner at = corner_of(w, duty, tile);
        for (int i = duty.first; i < duty.end; i++)
            fetch_columns<prompt, BLOCKS>(p, p.piece[i], at, 0, p.piece[i].cols, &t);
    }
}

/* As product_tile.cu has them: halves of the tree, of all threads that multiply. */
GPU_INLINE float *place_in(float *stack, int level, int i)
{
    return stack + (level * prompt::SUMS + i) * CONSUMERS + (int)threadIdx.x;
}

GPU_INLINE int join_left(struct sums<prompt> &s, float *stack, int leaf)
{
    int level = 0;
    for (; leaf >> level & 1; level++)
#pragma unroll
        for (int i = 0; i < prompt::SUMS; i++)
            s.all[i / 4][i % 4] = __fadd_rn(*place_in(stack, level, i), s.all[i / 4][i % 4]);
    return level;
}

GPU_INLINE void put_sums(const struct product &p, const struct piece &k,
                         const struct sums<prompt> &s, const struct corner &at)
{
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int o = 16 * (at.block + (int)threadIdx.x / 32) + 2 * g;
#pragma unroll
    for (int j = 0; j < prompt::ROWS / 8; j++)
#pragma unroll
        for (int r = 0; r < 2; r++)
            put_two(p, k, at.row + 8 * j + 2 * t + r, o, s.all[j][r], s.all[j][2 + r]);
}

GPU_INLINE void multiply_tiles(const struct product &p, const struct walk &w)
{
    float *stack =
        w.stacks + (size_t)blockIdx.x * (size_t)w.levels * (size_t)(prompt::SUMS * CONSUMERS);
    struct sums<prompt> s;
    after_previous();
    begin_sums(s);
    FOR_TILES(tile, w)
    {
        const struct duty duty = duty_of(p, tile / w.row_tiles);
        const struct corner at = corner_of(w, duty, tile);
        for (int i = duty.first; i < duty.end; i++) {
            const struct piece &k = p.piece[i];
            add_columns<prompt, BLOCKS>(s, k, 0, k.cols);
            const int level = join_left(s, stack, k.leaf);
            if (k.last)
                put_sums(p, k, s, at);
            else
#pragma unroll
                for (int j = 0; j < prompt::SUMS; j++)
                    *place_in(stack, level, j) = s.all[j / 4][j % 4];
        }
    }
}

GPU_INLINE void do_tiles(const struct product &p, const struct walk &w)
{
    if (threadIdx.x == 0)
        begin_ring<prompt>(1, BLOCKS * CONSUMERS / 32);
    cluster_meet();
    if (threadIdx.x >= CONSUMERS) {
        registers_less<FEW>();
        if (threadIdx.x == CONSUMERS)
            fetch_tiles(p, w);
        __syncwarp();
    } else {
        registers_more<MANY>();
        multiply_tiles(p, w);
    }
    cluster_meet(); /* the other block may still copy here, and say what is empty */
}

__global__ void __launch_bounds__(THREADS, 1)
    prompt_kernel(const __grid_constant__ struct product p, const struct walk w)
{
    ONLY_SM90A(do_tiles(p, w);)
}

static int tiles_of(struct product *p)
{
    return place_blocks(p, BLOCKS * OUTPUTS) * parts_of(p->n, prompt::ROWS);
}

bool product_wgmma_fills(const struct product *p, int sm)
{
    struct product placed = *p;
    return 3 * tiles_of(&placed) >= sm;
}

int product_wgmma(void *stream, const struct product *p, const struct gpu_room *left)
{
    struct product placed = *p;
    const int levels = levels_of(p), tiles = tiles_of(&placed);
    const size_t stack = BLOCKS * sizeof(float) * (size_t)(levels * prompt::SUMS * CONSUMERS);
    const size_t most = stack ? left->bytes / stack : (size_t)tiles;
    const int clusters = min(min(tiles, max(left->sm / BLOCKS, 1)), (int)min(most, (size_t)tiles));
    const struct walk w = {tiles, parts_of(p->n, prompt::ROWS), levels, (float *)left->at};
    if (!most)
        return GPU_NO_MEMORY;
    return LAUNCH_CLUSTERS(prompt_kernel, BLOCKS, dim3((unsigned)(clusters * BLOCKS)),
                           dim3(THREADS), (size_t)ring_bytes<prompt>(), stream, placed, w);
}
