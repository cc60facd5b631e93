/* attend_tiles.cu - attention over a bf16 cache for long runs of tokens, prompts: a block does
 * TILE_ROWS rows, sixteen to a warp, and all keys that any of them sees. The arithmetic is that of
 * attend_bf16.h.
 *
 * A warp's outputs, of this segment and of all, are in registers, VALUES numbers of each row; wider
 * heads are done by two blocks. Keys of the next block arrive while values are multiplied, and the
 * other way round.
 */
#include "dev/cuda/attend_kernels.h"
#include "dev/cuda/attend_rows.h"

enum { TILE_ROWS = 64 };

/* ------------------------------------------------------------------------------- a block of keys
 */

template <int WIDE>
GPU_INLINE void multiply_keys(float score[SCORES][4], uint32_t query[][4], char *queries,
                              char *keys)
{
#pragma unroll
    for (int i = 0; i < SCORES; i++)
        for (int e = 0; e < 4; e++)
            score[i][e] = 0;
#pragma unroll
    for (int k = 0; k < WIDE / 16; k++) {
        uint32_t own[4], *q = own, b[4];
        if (WIDE <= 128)
            q = query[k];
        else
            load_a<WIDE>(own, queries, my_warp() * 16, k);
#pragma unroll
        for (int page = 0; page < BLOCK_PAGES; page++) {
            load_keys<WIDE>(b, keys, page, k);
            mma_bf16(score[2 * page], q, b);
            mma_bf16(score[2 * page + 1], q, b + 2);
        }
    }
}

template <int VALUES>
GPU_INLINE void multiply_values(struct outputs<VALUES> *o, uint32_t p[BLOCK_PAGES][4], char *values)
{
#pragma unroll
    for (int page = 0; page < BLOCK_PAGES; page++) {
        add_ones(o->sum, p[page]);
#pragma unroll
        for (int k = 0; k < VALUES / 16; k++) {
            uint32_t b[4];
            load_values<VALUES>(b, values, page, k);
            mma_bf16(o->out[2 * k], p[page], b);
            mma_bf16(o->out[2 * k + 1], p[page], b + 2);
        }
    }
}

/* ------------------------------------------------------------------------------- a tile */

/* Shared memory. Where queries stay in registers, values take their place. */
template <int WIDE, int VALUES> struct places {
    static const int keys = 0, values = BLOCK_KEYS * WIDE * 2,
                     after = values + BLOCK_KEYS * (VALUES * 2 + PAD),
                     queries = WIDE <= 128 ? values : after,
                     bytes = WIDE <= 128 ? after : after + TILE_ROWS * (WIDE * 2 + PAD);
};

template <int WIDE, int VALUES>
GPU_INLINE void attend_tile(const struct attending *a, const struct tile *t, int value)
{
    typedef struct places<WIDE, VALUES> at;
    char *shared = gpu_shared<char>(), *keys = shared + at::keys, *values = shared + at::values;
    const float c = exponent_unit(&a->heads);
    const int begin = t->read.keys.lo / BLOCK_KEYS * BLOCK_KEYS;
    uint32_t query[WIDE <= 128 ? WIDE / 16 : 1][4], p[BLOCK_PAGES][4];
    struct outputs<VALUES> one, all;

    fetch_queries<WIDE>(shared + at::queries, a, &t->of, t->first, t->n, TILE_ROWS, threadIdx.x,
                        ATTEND_THREADS);
    __syncthreads();
    if (WIDE <= 128) {
#pragma unroll
        for (int k = 0; k < WIDE / 16; k++)
            load_a<WIDE>(query[k], shared + at::queries, my_warp() * 16, k);
        __syncthreads();
    }
    clear_outputs(&one), clear_outputs(&all);
    fetch_keys<WIDE>(keys, a, &t->read, begin);
    fetch_values<VALUES>(values, a, &t->read, begin, value);
    for (int block = begin, next; block < t->read.keys.hi; block = next) {
        float score[SCORES][4];
        next = block + BLOCK_KEYS;
        copy_wait<1>();
        __syncthreads();
        multiply_keys<WIDE>(score, query, shared + at::queries, keys);
        __syncthreads();
        fetch_keys<WIDE>(keys, a, &t->read, next);
        if (block < t->common.lo || next > t->common.hi)
            hide(score, a, t, block);
        soften(&one, p, score, c);
        copy_wait<1>();
        __syncthreads();
        multiply_values(&one, p, values);
        __syncthreads();
        fetch_values<VALUES>(values, a, &t->read, next, value);
        if (next % SEGMENT_KEYS == 0 || next >= t->read.keys.hi) {
            join_outputs(&all, &one, c);
            clear_outputs(&one);
        }
    }
    copy_wait<0>();
    __syncthreads();
    write_rows(a, t, value, &all);
}

/* The last rows have most to do: they come first. */
template <int WIDE, int VALUES>
__global__ static void __launch_bounds__(ATTEND_THREADS, 2) attend_tiles(struct attending a)
{
    const struct queries of = queries_of(&a.heads, a.n_head, blockIdx.y);
    int first = (gridDim.x - 1 - blockIdx.x) * TILE_ROWS;
    const int end = min(first + TILE_ROWS, a.batch.n_tok * of.n);
    while (first < end) {
        const int next = end_of_run(&a, of.n, first, end);
        if (in_long_run(&a, first / of.n)) {
            struct tile t = make_tile(&a, of, blockIdx.y, first, next);
            attend_tile<WIDE, VALUES>(&a, &t, blockIdx.z * VALUES);
        }
        first = next;
    }
}

template <int WIDE, int VALUES> static int launch(void *stream, const struct attending *a)
{
    const int rows = a->batch.n_tok * (a->heads.group < a->n_head ? a->heads.group : a->n_head);
    dim3 grid((rows + TILE_ROWS - 1) / TILE_ROWS, a->cache.n_head, WIDE / VALUES);
    return LAUNCH((attend_tiles<WIDE, VALUES>), grid, ATTEND_THREADS, (places<WIDE, VALUES>::bytes),
                  stream, *a);
}

int attend_long_runs(void *stream, const struct attending *a)
{
    return a->wide <= 32    ? launch<32, 32>(stream, a)
           : a->wide <= 64  ? launch<64, 64>(stream, a)
           : a->wide <= 80  ? launch<80, 80>(stream, a)
           : a->wide <= 96  ? launch<96, 96>(stream, a)
           : a->wide <= 128 ? launch<128, 128>(stream, a)
                            : launch<256, 128>(stream, a);
}
