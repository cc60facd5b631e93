/* product_plain.h - products by f32 and f16: one chain of fused multiply-adds per output and part,
 * the CPU's bits. For product_plain.cu and experts_plain.cu. A thread makes one output of ROWS
 * rows; weights and x come through shared memory, some columns at a time, the next ones while these
 * are multiplied.
 */
#ifndef TANDEM_CUDA_PRODUCT_PLAIN_H
#define TANDEM_CUDA_PRODUCT_PLAIN_H

#include "dev/cuda/product.h"

enum { PLAIN_THREADS = 256, COLUMNS = 64, STAGES = 3, X_ROW = COLUMNS + 4 };

template <int BYTES> struct number {
    typedef float type;
};
template <> struct number<2> {
    typedef uint16_t type;
};

GPU_INLINE float number_of(float f) { return f; }
GPU_INLINE float number_of(uint16_t h) { return from_f16(h); }

/* A stage of weights: two blocks of 16 rows, the second shifted to other banks. */
enum { BLOCK_NUMBERS = COLUMNS * 16 + 16 };

template <int BYTES> GPU_BOTH constexpr int stage_bytes(int rows)
{
    return 2 * BLOCK_NUMBERS * BYTES + 8 * rows * X_ROW * (int)sizeof(float);
}

template <int BYTES>
GPU_INLINE void fetch_weights(const struct piece &k, int pair, int column, char *to)
{
    enum { CHUNKS = COLUMNS * BYTES }; /* of 16 bytes, of a block */
    const int there = (k.cols - column) * BYTES;
    for (int i = (int)threadIdx.x; i < 2 * CHUNKS; i += PLAIN_THREADS) {
        const int half = i / CHUNKS, chunk = i % CHUNKS, block = 2 * pair + half;
        const char *from = k.at + ((size_t)block * (size_t)k.cols + (size_t)column) * 16 * BYTES;
        copy_async(to + half * BLOCK_NUMBERS * BYTES + chunk * 16, from + chunk * 16,
                   16 * block < k.rows && chunk < there);
    }
}

template <int ROWS>
GPU_INLINE void fetch_x(const struct product &p, const struct some_rows &at, const struct piece &k,
                        int column, float *to)
{
    for (int i = (int)threadIdx.x; i < 8 * ROWS * COLUMNS; i += PLAIN_THREADS) {
        const int r = i / COLUMNS, c = i % COLUMNS, row = at.first + r;
        const bool there = row < at.end && column + c < k.cols;
        to[r * X_ROW + c] =
            there ? p.x[(size_t)row_of_x(at, row) * (size_t)p.dim + (size_t)(k.x + column + c)] : 0;
    }
}

/* Begin to copy the stage that is next, of the piece and from the column on that `piece` and
 * `column` say, and go on to the one after. */
template <int BYTES, int ROWS>
GPU_INLINE void fetch(const struct product &p, const struct some_rows &at, const struct duty &duty,
                      int *piece, int *column, char *to)
{
    while (*piece < duty.end && *column >= p.piece[*piece].cols) {
        *column = 0;
        ++*piece;
    }
    if (*piece < duty.end) {
        const struct piece &k = p.piece[*piece];
        fetch_weights<BYTES>(k, duty.place, *column, to);
        fetch_x<ROWS>(p, at, k, *column, (float *)(to + 2 * BLOCK_NUMBERS * BYTES));
        *column += COLUMNS;
    }
    copy_commit();
}

template <int BYTES, int ROWS>
GPU_INLINE void multiply(float sum[ROWS], const char *stage, int columns)
{
    typedef typename number<BYTES>::type type;
    const int o = (int)threadIdx.x % 32, first = (int)threadIdx.x / 32 * ROWS;
    const type *w = (const type *)stage + o / 16 * BLOCK_NUMBERS + o % 16;
    const float *x = (const float *)(stage + 2 * BLOCK_NUMBERS * BYTES) + first * X_ROW;
    int c = 0;
    for (; c + 4 <= columns; c += 4) {
        const float w0 = number_of(w[c * 16]), w1 = number_of(w[c * 16 + 16]);
        const float w2 = number_of(w[c * 16 + 32]), w3 = number_of(w[c * 16 + 48]);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const float4 v = *(const float4 *)(x + r * X_ROW + c);
            sum[r] = __fmaf_rn(w1, v.y, __fmaf_rn(w0, v.x, sum[r]));
            sum[r] = __fmaf_rn(w3, v.w, __fmaf_rn(w2, v.z, sum[r]));
        }
    }
    for (; c < columns; c++)
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] = __fmaf_rn(number_of(w[c * 16]), x[r * X_ROW + c], sum[r]);
}

/* 8 * ROWS rows by a pair of blocks of outputs, with plain_bytes() of shared memory; each sum of a
 * piece goes to take.sum(row of the thread, piece, row, output, sum). */
template <int BYTES, int ROWS> GPU_BOTH constexpr size_t plain_bytes(void)
{
    return STAGES * (size_t)stage_bytes<BYTES>(ROWS);
}

template <int BYTES, int ROWS, class TAKE>
GPU_INLINE void plain_rows(const struct product &p, const struct duty &duty,
                           const struct some_rows &at, TAKE &take)
{
    const int bytes = stage_bytes<BYTES>(ROWS), first = (int)threadIdx.x / 32 * ROWS;
    char *ring = gpu_shared<char>();
    int stage = 0, next_piece = duty.first, next_column = 0;

    for (int i = 0; i < STAGES - 1; i++)
        fetch<BYTES, ROWS>(p, at, duty, &next_piece, &next_column, ring + i * bytes);
    for (int piece = duty.first; piece < duty.end; piece++) {
        const struct piece &k = p.piece[piece];
        float sum[ROWS] = {};
        for (int column = 0; column < k.cols; column += COLUMNS) {
            copy_wait<STAGES - 2>();
            __syncthreads(); /* all have copied this stage, and done with the one before */
            fetch<BYTES, ROWS>(p, at, duty, &next_piece, &next_column,
                               ring + (stage + STAGES - 1) % STAGES * bytes);
            multiply<BYTES, ROWS>(sum, ring + stage * bytes, min((int)COLUMNS, k.cols - column));
            stage = (stage + 1) % STAGES;
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            take.sum(r, k, at.first + first + r, duty.place * PAIR + (int)threadIdx.x % 32, sum[r]);
    }
}

#endif
