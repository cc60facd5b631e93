/* product_wgmma.h - products by bf16 with the matrices of warpgroups: what the two kernels of
 * product_wgmma.cu and batch_wgmma.cu have in common. The bits are those of product.h, if the GPU
 * adds in wgmma as it does in mma.sync, which check.c finds out.
 *
 * Two warpgroups make OUTPUTS outputs of ROWS rows of x, 64 each; one thread more fetches. What it
 * fetches goes around a ring of slots in shared memory, each of SLOT columns: of every 16 outputs
 * as many successive bytes as the weights have there, and of every half a slot the bricks of x
 * (warpgroup.h). Bulk copies do all of that. Weights are a, and go through registers, since they
 * lie in words of two columns by 16 outputs: lane 4g + t of a warp reads the eight bytes of outputs
 * 2g and 2g + 1 of words t and t + 4, so that rows g and g + 8 of a are these two outputs.
 *
 * A group of products is half a slot, two steps. While one is multiplied the registers of the next
 * are read, so there is one in flight always, and two warpgroups take turns by themselves.
 */
#ifndef TANDEM_CUDA_PRODUCT_WGMMA_H
#define TANDEM_CUDA_PRODUCT_WGMMA_H

#include "dev/cuda/product.h"
#include "dev/cuda/ring.h"

enum { OUTPUTS = 128, SLOT = 64, HALF = 32, BRICKS = HALF / 8 * BRICK, CONSUMERS = 2 * WARPGROUP };

template <int MANY, int DEPTH> struct shape {
    static constexpr int ROWS = MANY, SLOTS = DEPTH, SUMS = MANY / 2; /* sums of a thread */
    static constexpr int BLOCK_BYTES = SLOT * 32;                     /* of 16 outputs */
    static constexpr int WEIGHT_BYTES = OUTPUTS / 16 * BLOCK_BYTES;
    static constexpr int HALF_BYTES = ROWS / 8 * BRICKS;
    static constexpr int BEFORE = 0, SLOT_BYTES = WEIGHT_BYTES + 2 * HALF_BYTES;
};

/* ------------------------------------------------------------------------------- fetching */

/* What a block of threads multiplies: outputs from 16 * block on, rows of x from `row` on. */
struct corner {
    int block, row;
};

/* Rows first .. first + n - 1 of a half in bricks, as far as they are there. */
template <class S>
GPU_INLINE int brick_bytes(const struct product &p, const struct corner &at, int first, int n)
{
    return max(min(n, p.ready_rows - at.row - first), 0) / 8 * BRICKS;
}

/* One half of a slot of x: of BLOCKS blocks of a cluster each fetches a part, for all of them. */
template <class S, int BLOCKS>
GPU_INLINE void fetch_half(const struct product &p, const struct piece &k, const struct corner &at,
                           int column, char *to, uint64_t *full)
{
    const int n = S::ROWS / BLOCKS, first = BLOCKS > 1 ? block_in_cluster() * n : 0;
    const int bytes = brick_bytes<S>(p, at, first, n);
    const size_t bricks =
        (size_t)(k.ready / (2 * HALF) + column / HALF) * (size_t)(p.ready_rows / 8) +
        (size_t)((at.row + first) / 8);
    to += first / 8 * BRICKS;
    if (!bytes)
        return;
    if (BLOCKS > 1)
        copy_bulk_to(to, p.ready + bricks * BRICKS, bytes, full, (1u << BLOCKS) - 1);
    else
        copy_bulk(to, p.ready + bricks * BRICKS, bytes, full);
}

/* By one thread: columns from .. to - 1 of a piece, `from` a multiple of HALF. */
template <class S, int BLOCKS>
GPU_INLINE void fetch_columns(const struct product &p, const struct piece &k,
                              const struct corner &at, int from, int to, struct turn *t)
{
    const int blocks = min(OUTPUTS / 16, parts_of(k.rows, 16) - at.block); /* perhaps none */
    const char *weights = k.at + (size_t)at.block * block_bytes(NUM_BF16, k.cols);
    for (int column = from; column < to; column += SLOT) {
        const int halves = column + HALF < to ? 2 : 1;
        const int bytes = parts_of(min((int)SLOT, to - column), 2) * 64;
        uint64_t *full = full_of<S>(t->slot);
        char *slot = slot_of<S>(*t);
        barrier_wait(empty_of<S>(t->slot), t->parity ^ 1);
        barrier_expect(full, max(blocks, 0) * bytes + halves * brick_bytes<S>(p, at, 0, S::ROWS));
        for (int b = 0; b < blocks; b++)
            copy_bulk(slot + b * S::BLOCK_BYTES,
                      weights + (size_t)b * block_bytes(NUM_BF16, k.cols) + (size_t)column * 32,
                      bytes, full);
        after_previous(); /* which has made x ready */
        for (int h = 0; h < halves; h++)
            fetch_half<S, BLOCKS>(p, k, at, column + h * HALF,
                                  slot + S::WEIGHT_BYTES + h * S::HALF_BYTES, full);
        next_turn<S>(t);
    }
}

/* ------------------------------------------------------------------------------- multiplying */

/* Sums of a thread: of lane 4g + t of warp w, sum[j][2i + r] is that of output 16w + 2g + i and row
 * 8j + 2t + r. */
template <class S> struct sums {
    float now[S::SUMS / 4][4], all[S::SUMS / 4][4];
    uint32_t a[2][2][4]; /* of a step of a half: products in flight read them */
    struct turn turn;
    int held; /* a slot that products in flight may still read; -1: none */
};

template <class S> GPU_INLINE void begin_sums(struct sums<S> &s)
{
    s.turn = {0, 0};
    s.held = -1;
#pragma unroll
    for (int i = 0; i < S::SUMS; i++)
        s.now[i / 4][i % 4] = 0;
}

/* The warp's matrices of a half. Of what lies behind the last word of columns nothing is known. */
GPU_INLINE void load_half(uint32_t a[2][4], const char *half, int words)
{
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const uint2 none = make_uint2(0, 0);
#pragma unroll
    for (int step = 0; step < 2; step++) {
        const uint2 *at = (const uint2 *)(half + step * 512 + t * 64) + g;
        const uint2 v = 8 * step + t < words ? at[0] : none;
        const uint2 u = 8 * step + t + 4 < words ? at[32] : none;
        a[step][0] = v.x, a[step][1] = v.y, a[step][2] = u.x, a[step][3] = u.y;
    }
}

/* The slot held may be filled again, in all blocks that fill it. */
template <class S, int BLOCKS> GPU_INLINE void give_back(struct sums<S> &s)
{
    if (s.held >= 0 && threadIdx.x % 32 == 0) {
        if (BLOCKS == 1)
            barrier_arrive(empty_of<S>(s.held));
        else
            for (int b = 0; b < BLOCKS; b++)
                barrier_arrive_in(empty_of<S>(s.held), b);
    }
    s.held = -1;
}

template <class S> GPU_INLINE void end_run(struct sums<S> &s)
{
    wgmma_wait<0>();
    wgmma_done(s.now);
#pragma unroll
    for (int i = 0; i < S::SUMS; i++)
        s.all[i / 4][i % 4] = __fadd_rn(s.all[i / 4][i % 4], s.now[i / 4][i % 4]);
}

/* s.all becomes the sum over columns from .. to - 1 of a piece, in runs; 0 when there are none. */
template <class S, int BLOCKS>
GPU_INLINE void add_columns(struct sums<S> &s, const struct piece &k, int from, int to)
{
    const int run = run_columns(NUM_BF16, k.cols), warp = (int)threadIdx.x / 32;
    const float nothing = from < to ? -0.0f : 0; /* -0 plus the first run is that run */
    int in_run = 0;                              /* columns of it so far */
#pragma unroll
    for (int i = 0; i < S::SUMS; i++)
        s.all[i / 4][i % 4] = nothing;
    for (int column = from; column < to; column += SLOT) {
        const char *slot = slot_of<S>(s.turn);
        const uint64_t x = matrix_at(slot + S::WEIGHT_BYTES, BRICKS);
        barrier_wait(full_of<S>(s.turn.slot), s.turn.parity);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int c = column + h * HALF;
            if (c >= to)
                break;
            load_half(s.a[h], slot + warp * S::BLOCK_BYTES + h * 1024, parts_of(to - c, 2));
            wgmma_begin();
#pragma unroll
            for (int step = 0; step < 2; step++)
                wgmma<S::ROWS, BY_COLUMN>(s.now, s.a[h][step],
                                          x + (unsigned)(h * S::HALF_BYTES + step * 2 * BRICK) / 16,
                                          in_run || step);
            wgmma_commit();
            wgmma_wait<1>();
            if (h == 0)
                give_back<S, BLOCKS>(s);
            in_run += HALF;
            if (in_run == run || c + HALF >= to) {
                end_run<S>(s);
                in_run = 0;
            }
        }
        s.held = s.turn.slot;
        next_turn<S>(&s.turn);
    }
    wgmma_wait<0>(); /* it was done: this is for the compiler */
}

/* Two successive outputs, from `o` on, of a row of x. */
GPU_INLINE void put_two(const struct product &p, const struct piece &k, int row, int o, float v,
                        float u)
{
    const struct target &to = p.to[k.to];
    float *y = to.y + (size_t)row * (size_t)to.stride + (size_t)(k.out + o);
    if (row >= p.n || o + 1 >= k.rows || (uintptr_t)y % sizeof(float2)) {
        put_output(p, k, row, o, v);
        put_output(p, k, row, o + 1, u);
        return;
    }
    if (to.bias) {
        v = __fadd_rn(v, to.bias[k.out + o]);
        u = __fadd_rn(u, to.bias[k.out + o + 1]);
    }
    *(float2 *)y = make_float2(v, u);
}

#endif
