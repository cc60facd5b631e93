/* attend_wgmma.cu - attention over a bf16 cache for long runs of tokens on compute capability 9.0:
 * what attend_tiles.cu does, with the matrices of warpgroups. The arithmetic is that of
 * attend_bf16.h, if the GPU adds in wgmma as it does in mma.sync (check.c).
 *
 * A block does TILE_ROWS rows: two warpgroups 64 each, and a third fetches keys and values of the
 * blocks to come for both, into a ring. So one warpgroup multiplies while the other one turns
 * scores into weights. Keys and values lie in the cache as matrices want them but for their order
 * in sixteens of bytes, so small asynchronous copies bring each to its brick (warpgroup.h): b of
 * scores is dimensions by keys, b of outputs keys by values, in both sixteen bytes are eight
 * columns of one row.
 */
#include "dev/cuda/attend_kernels.h"
#include "dev/cuda/attend_rows.h"
#include "dev/cuda/ring.h"

enum { TILE_ROWS = 128, CONSUMERS = 2 * WARPGROUP, THREADS = CONSUMERS + WARPGROUP };
enum { AHEAD = 2, FEW = 56, MANY = 224 };

/* Shared memory: queries, then a ring of slots, keys and values in turns, and its barriers. */
template <int WIDE> struct ring {
    static constexpr int SLOTS = 6, SLOT_BYTES = BLOCK_KEYS * WIDE * 2;
    static constexpr int BEFORE = TILE_ROWS * (WIDE * 2 + PAD);
    static constexpr int COLUMNS = WIDE * 16; /* of keys: from eight keys to the next */
};

/* Does f(tile) for every tile of this block: of one sequence each, runs that are long. The last
 * rows have most to do: they come first. */
template <class F> GPU_INLINE void for_tiles(const struct attending &a, F f)
{
    const struct queries of = queries_of(&a.heads, a.n_head, blockIdx.y);
    int first = (gridDim.x - 1 - blockIdx.x) * TILE_ROWS;
    const int end = min(first + TILE_ROWS, a.batch.n_tok * of.n);
    while (first < end) {
        const int next = end_of_run(&a, of.n, first, end);
        if (in_long_run(&a, first / of.n))
            f(make_tile(&a, of, blockIdx.y, first, next));
        first = next;
    }
}

/* ------------------------------------------------------------------------------- fetching */

/* Keys from position `block` on, in bricks by row: [8 eights of keys][WIDE] times eight keys. What
 * is not there becomes zeros, as in fetch_keys(). */
template <int WIDE>
GPU_INLINE void copy_keys(char *to, const struct attending *a, const struct reading *r, int block)
{
    for (int i = threadIdx.x - CONSUMERS; i < BLOCK_PAGES * WIDE * 2; i += WARPGROUP) {
        const int page = i / (WIDE * 2), dim = i / 2 % WIDE, pos = block + page * KV_PAGE;
        const bool there =
            dim < a->cache.head_dim && pos + KV_PAGE > r->keys.lo && pos < r->keys.hi;
        const char *from =
            there ? page_of(a, r->seq, r->head, pos) + dim * KEY_ROW + i % 2 * 16 : a->cache.at;
        copy_async(to + ((page * 2 + i % 2) * WIDE + dim) * 16, from, there);
    }
}

/* Values, in bricks by row: [WIDE / 8][64 keys] times eight numbers. */
template <int WIDE>
GPU_INLINE void copy_values(char *to, const struct attending *a, const struct reading *r, int block)
{
    for (int i = threadIdx.x - CONSUMERS; i < BLOCK_KEYS * WIDE / 8; i += WARPGROUP) {
        const int row = i / (WIDE / 8), eight = i % (WIDE / 8), pos = block + row;
        const bool there = eight * 8 < a->wide && pos >= r->keys.lo && pos < r->keys.hi;
        const char *from = there ? page_of(a, r->seq, r->head, pos) + a->values_at +
                                       ((size_t)(pos % KV_PAGE) * a->wide + eight * 8) * 2
                                 : a->cache.at;
        copy_async(to + (eight * BLOCK_KEYS + row) * 16, from, there);
    }
}

/* What a thread that fetches has begun, and what it has said is there: AHEAD later. */
struct fetched {
    struct turn begun, said;
    int ahead;
};

template <int WIDE> GPU_INLINE void say_full(struct fetched *f)
{
    matrices_written();
    barrier_arrive(full_of<ring<WIDE>>(f->said.slot));
    next_turn<ring<WIDE>>(&f->said);
    f->ahead--;
}

template <int WIDE, bool KEYS>
GPU_INLINE void fetch_block(struct fetched *f, const struct attending *a, const struct tile &t,
                            int block)
{
    barrier_wait(empty_of<ring<WIDE>>(f->begun.slot), f->begun.parity ^ 1);
    if (KEYS)
        copy_keys<WIDE>(slot_of<ring<WIDE>>(f->begun), a, &t.read, block);
    else
        copy_values<WIDE>(slot_of<ring<WIDE>>(f->begun), a, &t.read, block);
    copy_commit();
    next_turn<ring<WIDE>>(&f->begun);
    if (++f->ahead > AHEAD) {
        copy_wait<AHEAD>();
        say_full<WIDE>(f);
    }
}

template <int WIDE> GPU_INLINE void fetch_tiles(const struct attending &a)
{
    struct fetched f = {{0, 0}, {0, 0}, 0};
    for_tiles(a, [&](const struct tile &t) {
        for (int block = t.read.keys.lo / BLOCK_KEYS * BLOCK_KEYS; block < t.read.keys.hi;
             block += BLOCK_KEYS) {
            fetch_block<WIDE, true>(&f, &a, t, block);
            fetch_block<WIDE, false>(&f, &a, t, block);
        }
    });
    copy_wait<0>();
    while (f.ahead)
        say_full<WIDE>(&f);
}

/* ------------------------------------------------------------------------------- multiplying */

/* Waits for all products, and gives their slot back. */
template <int WIDE> GPU_INLINE void end_products(struct turn *t)
{
    wgmma_commit();
    wgmma_wait<0>();
    if (my_lane() == 0)
        barrier_arrive(empty_of<ring<WIDE>>(t->slot));
    next_turn<ring<WIDE>>(t);
}

template <int WIDE>
GPU_INLINE void multiply_keys(float (&score)[SCORES][4], uint32_t query[WIDE / 16][4],
                              struct turn *t)
{
    const uint64_t keys = matrix_at(slot_of<ring<WIDE>>(*t), ring<WIDE>::COLUMNS);
    barrier_wait(full_of<ring<WIDE>>(t->slot), t->parity);
    wgmma_begin();
#pragma unroll
    for (int k = 0; k < WIDE / 16; k++)
        wgmma<BLOCK_KEYS, BY_ROW>(score, query[k], keys + k * 2 * BRICK / 16, k > 0);
    end_products<WIDE>(t);
    wgmma_done(score);
}

template <int WIDE>
GPU_INLINE void multiply_values(struct outputs<WIDE> *o, uint32_t p[BLOCK_PAGES][4], struct turn *t)
{
    const uint64_t values = matrix_at(slot_of<ring<WIDE>>(*t), BLOCK_KEYS * 16);
#pragma unroll
    for (int page = 0; page < BLOCK_PAGES; page++)
        add_ones(o->sum, p[page]);
    barrier_wait(full_of<ring<WIDE>>(t->slot), t->parity);
    wgmma_begin();
#pragma unroll
    for (int page = 0; page < BLOCK_PAGES; page++)
        wgmma<WIDE, BY_ROW>(o->out, p[page], values + page * 2 * BRICK / 16, true);
    end_products<WIDE>(t);
    wgmma_done(o->out);
}

/* A warp's queries, for it alone. */
template <int WIDE>
GPU_INLINE void load_queries(uint32_t query[WIDE / 16][4], const struct attending *a,
                             const struct tile &t)
{
    const int row = my_warp() * 16;
    char *queries = gpu_shared<char>();
    __syncwarp();
    fetch_queries<WIDE>(row_of<WIDE>(queries, row), a, &t.of, t.first + row, t.n - row, 16,
                        my_lane(), 32);
    __syncwarp();
#pragma unroll
    for (int k = 0; k < WIDE / 16; k++)
        load_a<WIDE>(query[k], queries, row, k);
}

template <int WIDE>
GPU_INLINE void attend_tile(const struct attending *a, const struct tile &t, struct turn *turn)
{
    const float c = exponent_unit(&a->heads);
    uint32_t query[WIDE / 16][4], p[BLOCK_PAGES][4];
    struct outputs<WIDE> one, all;

    load_queries<WIDE>(query, a, t);
    clear_outputs(&one), clear_outputs(&all);
    for (int block = t.read.keys.lo / BLOCK_KEYS * BLOCK_KEYS, next; block < t.read.keys.hi;
         block = next) {
        float score[SCORES][4];
        next = block + BLOCK_KEYS;
        multiply_keys<WIDE>(score, query, turn);
        if (block < t.common.lo || next > t.common.hi)
            hide(score, a, &t, block);
        soften(&one, p, score, c);
        multiply_values<WIDE>(&one, p, turn);
        if (next % SEGMENT_KEYS == 0 || next >= t.read.keys.hi) {
            join_outputs(&all, &one, c);
            clear_outputs(&one);
        }
    }
    write_rows(a, &t, 0, &all);
}

template <int WIDE> GPU_INLINE void attend_tiles(const struct attending &a)
{
    after_previous();
    if (threadIdx.x == 0)
        begin_ring<ring<WIDE>>(WARPGROUP, CONSUMERS / 32);
    __syncthreads();
    if (threadIdx.x >= CONSUMERS) {
        registers_less<FEW>();
        fetch_tiles<WIDE>(a);
    } else {
        struct turn turn = {0, 0};
        registers_more<MANY>();
        for_tiles(a, [&](const struct tile &t) { attend_tile<WIDE>(&a, t, &turn); });
    }
}

template <int WIDE>
__global__ void __launch_bounds__(THREADS, 1)
    attend_kernel(const __grid_constant__ struct attending a)
{
    ONLY_SM90A(attend_tiles<WIDE>(a);)
}

template <int WIDE> static int launch(void *stream, const struct attending *a)
{
    const int rows = a->batch.n_tok * (a->heads.group < a->n_head ? a->heads.group : a->n_head);
    const dim3 grid((unsigned)((rows + TILE_ROWS - 1) / TILE_ROWS), (unsigned)a->cache.n_head);
    return LAUNCH_CLUSTERS(attend_kernel<WIDE>, 1, grid, dim3(THREADS),
                           (size_t)ring_bytes<ring<WIDE>>(), stream, *a);
}

bool attend_wgmma_takes(const struct attending *a) { return a->wide == 64 || a->wide == 128; }

int attend_wgmma(void *stream, const struct attending *a)
{
    return a->wide == 64 ? launch<64>(stream, a) : launch<128>(stream, a);
}
