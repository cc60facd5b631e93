/* product_stream.h - products of few rows by bf16 and whole numbers, as fast as weights can be
 * read: what a block of threads does, for product_stream.cu and experts_stream.cu.
 *
 * A warp multiplies one run of columns of 32 outputs. What it reads comes by asynchronous copies
 * into a ring of its own, in which every lane finds what it has fetched itself: no thread waits for
 * another one until all runs are summed, and the copies of the next sum are on their way by then.
 *
 * Bytes on their way. A stage is 2 KiB of a warp, so four stages ahead are 64 KiB of a block. An
 * H200 reads 4.8 TB/s, by its datasheet, at a latency of about 1 us: 4.8 MB on their way, 36 KiB of
 * each of 132 multiprocessors. 4096 outputs are 128 blocks, so 8.4 MB (two stages ahead were 4.2);
 * 6144: 192 blocks, 12.6 MB; 28672: 896 blocks, 264 at once, the last 104 of which have 6.8 MB;
 * 128256: 4008, the last 48 of which, 1 % of all, have 3.1 MB. Two tiles of rows, or groups of 64
 * and 32, have more sums to leave for each other, so three stages ahead must do, or two.
 */
#ifndef TANDEM_CUDA_PRODUCT_STREAM_H
#define TANDEM_CUDA_PRODUCT_STREAM_H

#include "dev/cuda/product.h"

#include <type_traits>

enum { STREAM_THREADS = RUNS * 32, CHUNKS = 4, SLOT_ROW = PAIR + 4 };

template <enum num TYPE> struct stream_of {
    static constexpr bool WHOLE = format_whole(TYPE);
    static constexpr int BITS = format_bits(TYPE), COLUMNS = UNIT / BITS;
    static constexpr int STEP = WHOLE ? 32 : 16, STEPS = COLUMNS / STEP;
    static constexpr int GROUPS = WHOLE ? X_BLOCK / format_group(TYPE) : 1; /* of a warp at once */
    typedef typename std::conditional<WHOLE, int, float>::type sum;
};

/* As many as fit the smallest GPUs beside the sums that warps leave for each other. */
template <enum num TYPE, int TILES> GPU_BOTH constexpr int stages_of(void)
{
    return stream_of<TYPE>::GROUPS * TILES == 1 ? 5 : stream_of<TYPE>::GROUPS * TILES == 2 ? 4 : 3;
}

/* Where a warp is on its way through its runs. */
struct walk {
    int piece, round, unit, units;
};

template <enum num TYPE> GPU_INLINE int rounds_of(int cols)
{
    const int n = parts_of(cols, RUNS * run_columns(TYPE, cols));
    return n ? n : 1;
}

/* The columns of a warp in a round, and how many units they are. */
template <enum num TYPE> GPU_INLINE int first_column(int cols, int round, int warp)
{
    return (round * RUNS + warp) * run_columns(TYPE, cols);
}

template <enum num TYPE> GPU_INLINE int units_of(int cols, int round, int warp)
{
    const int lo = first_column<TYPE>(cols, round, warp);
    const int n = min(run_columns(TYPE, cols), cols - lo);
    return n > 0 ? parts_of(n, stream_of<TYPE>::COLUMNS) : 0;
}

template <enum num TYPE>
GPU_INLINE void find_unit(const struct product &p, struct walk *w, int end, int warp)
{
    while (w->piece < end && w->unit == w->units) {
        if (++w->round >= rounds_of<TYPE>(p.piece[w->piece].cols)) {
            w->round = 0;
            w->piece++;
        }
        w->unit = 0;
        w->units = w->piece < end ? units_of<TYPE>(p.piece[w->piece].cols, w->round, warp) : 0;
    }
}

/* Begin to copy the unit that is next into a slot of the ring, and go on to the one after. */
template <enum num TYPE>
GPU_INLINE void fetch(const struct product &p, struct walk *w, const struct duty &duty, int warp,
                      int lane, uint4 *slot)
{
    const int g = lane / 4, t = lane % 4; /* chunk j is word 4j + t of the unit */
    find_unit<TYPE>(p, w, duty.end, warp);
    if (w->piece < duty.end) {
        const struct piece &k = p.piece[w->piece];
        const int block = 2 * duty.place + g / 4;
        const int unit =
            first_column<TYPE>(k.cols, w->round, warp) / stream_of<TYPE>::COLUMNS + w->unit;
        const int words = 16 * block < k.rows ? words_of(TYPE, k.cols) : 0;
        const char *from = k.at + (size_t)block * block_bytes(TYPE, k.cols) +
                           head_bytes(TYPE, k.cols) + (size_t)unit * UNIT_BYTES + g % 4 * 16;
#pragma unroll
        for (int j = 0; j < CHUNKS; j++) {
            const int word = 4 * j + t;
            copy_async(slot + j * 32 + lane, from + word * 64, 16 * unit + word < words);
        }
        w->unit++;
    }
    copy_commit();
}

/* ------------------------------------------------------------------------------- a unit */

GPU_INLINE uint32_t two_bf16(const float *x, int c, int cols)
{
    return x ? to_bf16x2(c < cols ? x[c] : 0, c + 1 < cols ? x[c + 1] : 0) : 0;
}

/* The sums of a warp for others to read: slot[row][output]. Lane 4g + t has outputs 4g .. 4g + 3 of
 * rows 2t and 2t + 1 of each tile; they begin again from 0. */
template <class T, int TILES> GPU_INLINE void leave(T sum[TILES][2][4], T *slot, int lane)
{
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < 2 * TILES; i++) {
        T(*from)[4] = sum[i / 2];
        T *to = slot + (i / 2 * 8 + 2 * t + i % 2) * SLOT_ROW + 4 * g;
        to[0] = from[0][i % 2], to[1] = from[0][2 + i % 2];
        to[2] = from[1][i % 2], to[3] = from[1][2 + i % 2];
    }
#pragma unroll
    for (int i = 0; i < 8 * TILES; i++)
        sum[i / 8][i / 4 % 2][i % 4] = 0;
}

/* What a lane knows of the rows of x that it multiplies: row g of each tile. ready NULL: e4m3 takes
 * them as they are. */
template <int TILES> struct rows {
    const float *x[TILES];
    const char *ready[TILES];
};

/* All units of a warp in one round. */
template <enum num TYPE, int TILES>
GPU_INLINE void do_round(const struct product &p, const struct piece &k, int round,
                         const struct rows<TILES> &rows, struct walk *ahead,
                         const struct duty &duty, uint4 *ring, int *stage,
                         typename stream_of<TYPE>::sum *slot)
{
    typedef stream_of<TYPE> S;
    constexpr int STAGES = stages_of<TYPE, TILES>();
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, t = lane % 4;
    const int units = units_of<TYPE>(k.cols, round, warp);
    const int first = first_column<TYPE>(k.cols, round, warp);
    typename S::sum sum[TILES][2][4] = {};
    for (int u = 0; u < units; u++) {
        copy_wait<STAGES - 2>();
        const uint4 *chunk = ring + *stage * CHUNKS * 32 + lane;
        fetch<TYPE>(p, ahead, duty, warp, lane,
                    ring + (*stage + STAGES - 1) % STAGES * CHUNKS * 32);
        *stage = (*stage + 1) % STAGES;
#pragma unroll
        for (int s = 0; s < S::STEPS; s++) {
            const int c = first + u * S::COLUMNS + s * S::STEP;
            uint32_t a[2][4], b[2];
            if (S::BITS == 4 || TYPE == NUM_FP8)
                matrices_of<TYPE>(a, chunk[s * 32], chunk[s * 32]);
            else
                matrices_of<TYPE>(a, chunk[2 * s * 32], chunk[(2 * s + 1) * 32]);
#pragma unroll
            for (int i = 0; i < TILES; i++) {
                if (S::WHOLE) {
                    const unsigned *q = (const unsigned *)(rows.ready[i] + k.ready + c + 4 * t);
                    b[0] = q[0], b[1] = q[4];
                } else if (TYPE == NUM_FP8 && rows.ready[i]) {
                    const unsigned *q = (const unsigned *)(rows.ready[i] + k.ready + 2 * c + 4 * t);
                    b[0] = q[0], b[1] = q[4];
                } else if (TYPE == NUM_FP8) { /* the order of pair_block() */
                    const float *x = rows.x[i] ? rows.x[i] + k.x : NULL;
                    b[0] = two_bf16(x, c + 4 * t, k.cols);
                    b[1] = two_bf16(x, c + 4 * t + 2, k.cols);
                } else {
                    const float *x = rows.x[i] ? rows.x[i] + k.x : NULL;
                    b[0] = two_bf16(x, c + 2 * t, k.cols);
                    b[1] = two_bf16(x, c + 2 * t + 8, k.cols);
                }
                multiply_matrix(sum[i][0], a[0], b);
                multiply_matrix(sum[i][1], a[1], b);
            }
            const int done = c + S::STEP - first;
            if (S::WHOLE && done % format_group(TYPE) == 0)
                leave<typename S::sum, TILES>(
                    sum, slot + (done / format_group(TYPE) - 1) * 8 * TILES * SLOT_ROW, lane);
        }
    }
    const int group = units * S::COLUMNS / format_group(TYPE);
    if (!S::WHOLE)
        leave<typename S::sum, TILES>(sum, slot, lane);
    else if (units * S::COLUMNS % format_group(TYPE))
        leave<typename S::sum, TILES>(sum, slot + group * 8 * TILES * SLOT_ROW, lane);
}

/* ------------------------------------------------------------------------------- sums */

/* Add the runs of a part, or the groups of a round, to the sum of an output: number `o` of the
 * pair, row `row` of the tile. */
template <int TILES>
GPU_INLINE float add_runs(const struct piece &k, const float *slot, int row, int o)
{
    const int n = parts_of(k.cols, run_columns(NUM_BF16, k.cols));
    float sum = 0;
    for (int r = 0; r < n; r++) {
        const float run = slot[(r * 8 * TILES + row) * SLOT_ROW + o];
        sum = r ? __fadd_rn(sum, run) : run;
    }
    return sum;
}

template <enum num TYPE>
GPU_INLINE float add_groups(const struct product &p, const struct piece &k, int pair, int round,
                            const int *slot, int row, int row_of_x, int o, float sum)
{
    const int first = round * RUNS * stream_of<TYPE>::GROUPS;
    const int n = min(parts_of(k.cols, format_group(TYPE)) - first, RUNS * stream_of<TYPE>::GROUPS);
    const int block = 2 * pair + o / 16;
    if (16 * block >= k.rows)
        return 0;
    const char *head = k.at + (size_t)block * block_bytes(TYPE, k.cols);
    const uint16_t *scale = (const uint16_t *)head + first * 16 + o % 16;
    const uint16_t *least =
        (const uint16_t *)(head + scale_bytes(TYPE, k.cols)) + first * 16 + o % 16;
    const struct x_scale *of_x =
        p.scale + (size_t)(k.group + first) * (size_t)p.ready_rows + row_of_x;
#pragma unroll 4
    for (int i = 0; i < n; i++) {
        const struct x_scale x = of_x[i * p.ready_rows];
        const int whole = slot[(i * 8 + row) * SLOT_ROW + o] - format_zero(TYPE) * x.total;
        sum = __fmaf_rn((float)whole, __fmul_rn(from_f16(scale[i * 16]), x.scale), sum);
        if (format_least(TYPE))
            sum = __fmaf_rn(from_f16(least[i * 16]), __fmul_rn(x.scale, (float)x.total), sum);
    }
    return sum;
}

/* The same of groups of e4m3, of 8 * TILES rows. */
template <int TILES>
GPU_INLINE float add_scaled(const struct piece &k, int pair, int round, const float *slot, int row,
                            int o, float sum)
{
    const int n = min(parts_of(k.cols, X_BLOCK) - round * RUNS, (int)RUNS);
    const int block = 2 * pair + o / 16;
    if (16 * block >= k.rows)
        return 0;
    const float *scale = (const float *)(k.at + (size_t)block * block_bytes(NUM_FP8, k.cols)) +
                         round * RUNS * 16 + o % 16;
#pragma unroll 4
    for (int i = 0; i < n; i++)
        sum = __fmaf_rn(slot[(i * 8 * TILES + row) * SLOT_ROW + o], scale[i * 16], sum);
    return sum;
}

/* ------------------------------------------------------------------------------- a block of
 * threads */

template <enum num TYPE, int TILES> GPU_BOTH constexpr size_t stream_bytes(void)
{
    return (size_t)RUNS * stages_of<TYPE, TILES>() * CHUNKS * 32 * sizeof(uint4) +
           (size_t)RUNS * stream_of<TYPE>::GROUPS * 8 * TILES * SLOT_ROW * 4;
}

/* 8 * TILES rows by a pair of blocks of outputs, with stream_bytes() of shared memory; each sum of
 * a piece goes to take.sum(tile, piece, row, output, sum). */
template <enum num TYPE, int TILES, class TAKE>
GPU_INLINE void stream_rows(const struct product &p, const struct duty &duty,
                            const struct some_rows &at, TAKE &take)
{
    typedef stream_of<TYPE> S;
    constexpr int STAGES = stages_of<TYPE, TILES>();
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    uint4 *ring = gpu_shared<uint4>() + warp * STAGES * CHUNKS * 32;
    typename S::sum *slots = (typename S::sum *)(gpu_shared<uint4>() + RUNS * STAGES * CHUNKS * 32);
    struct walk ahead = {duty.first, -1, 0, 0};
    struct rows<TILES> rows;
    float sum[TILES];
    int stage = 0;

    for (int i = 0; i < STAGES - 1; i++)
        fetch<TYPE>(p, &ahead, duty, warp, lane, ring + i * CHUNKS * 32);
    after_previous();
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        const int row = at.first + i * 8 + lane / 4;
        const size_t x = (size_t)row_of_x(at, row);
        rows.x[i] = row < at.end ? p.x + x * (size_t)p.dim : NULL;
        rows.ready[i] = p.ready ? p.ready + x * (size_t)p.ready_row : NULL;
    }
    for (int piece = duty.first; piece < duty.end; piece++) {
        const struct piece &k = p.piece[piece];
        const int rounds = rounds_of<TYPE>(k.cols);
#pragma unroll
        for (int i = 0; i < TILES; i++)
            sum[i] = 0;
        for (int round = 0; round < rounds; round++) {
            do_round<TYPE, TILES>(p, k, round, rows, &ahead, duty, ring, &stage,
                                  slots + warp * S::GROUPS * 8 * TILES * SLOT_ROW);
            __syncthreads();
#pragma unroll
            for (int i = 0; i < TILES; i++) {
                if constexpr (S::WHOLE)
                    sum[i] = add_groups<TYPE>(p, k, duty.place, round, slots, warp + 8 * i,
                                              row_of_x(at, at.first + warp + 8 * i), lane, sum[i]);
                else if constexpr (TYPE == NUM_FP8)
                    sum[i] =
                        add_scaled<TILES>(k, duty.place, round, slots, warp + 8 * i, lane, sum[i]);
                else
                    sum[i] = add_runs<TILES>(k, slots, warp + 8 * i, lane);
            }
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < TILES; i++)
            take.sum(i, k, at.first + i * 8 + warp, duty.place * PAIR + lane, sum[i]);
    }
}

#endif
