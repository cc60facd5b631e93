/* product_tile.h - products of many rows by bf16 and whole numbers: tiles of outputs times rows of
 * x made ready, through shared memory, several stages of copies ahead: what a block of threads
 * does, for product_tile.cu and experts_tile.cu. The bits are those of product_stream.h.
 *
 * A stage is 128 bytes of every row: 64 columns in bf16, otherwise 128.
 */
#ifndef TANDEM_CUDA_PRODUCT_TILE_H
#define TANDEM_CUDA_PRODUCT_TILE_H

#include "dev/cuda/product.h"

#include <type_traits>

enum { ROW_BYTES = 128, ROW_CHUNKS = ROW_BYTES / 16, STEPS = 4 };

/* A block has DOWN x ACROSS warps; a warp makes PAIRS pairs of blocks of 16 outputs of 8 * EIGHTS
 * rows. */
template <enum num FORMAT, int DOWN, int ACROSS, int PAIRS, int EIGHTS, int DEPTH> struct tile {
    static constexpr enum num TYPE = FORMAT;
    static constexpr bool WHOLE = format_whole(TYPE);
    static constexpr int STAGES = DEPTH, N_PAIR = PAIRS, N_EIGHT = EIGHTS;
    static constexpr int WARPS_DOWN = DOWN, THREADS = 32 * DOWN * ACROSS;
    static constexpr int OUTPUTS = 32 * DOWN * PAIRS, ROWS = 8 * ACROSS * EIGHTS;
    static constexpr int COLUMNS = WHOLE ? 128 : 64, STEP = COLUMNS / STEPS;
    static constexpr int GROUP = WHOLE ? format_group(TYPE) : TYPE == NUM_FP8 ? COLUMNS : 32;
    static constexpr int BLOCK_BYTES = COLUMNS * 2 * format_bits(TYPE); /* of 16 outputs */
    static constexpr int STAGE_BYTES = OUTPUTS / 16 * BLOCK_BYTES + ROWS * ROW_BYTES;
    static constexpr int SUMS = PAIRS * EIGHTS * 8; /* of a thread */
    typedef typename std::conditional<WHOLE, int, float>::type sum;
};

/* Which tile a block makes: its pieces, its outputs in blocks of 16, and its rows. */
struct where {
    struct duty duty;
    int block;
    struct some_rows at;
};

/* ------------------------------------------------------------------------------- copies */

/* Chunks of 16 bytes stand where no two of a quarter of a warp that reads them share banks. */
GPU_INLINE int weight_place(int chunk) { return chunk ^ (chunk >> 3 & 1) << 1; }
GPU_INLINE int x_place(int row, int chunk) { return row * ROW_CHUNKS + (chunk ^ (row & 7)); }

template <class T>
GPU_INLINE void fetch_weights(const struct piece &k, int block, int stage, char *to)
{
    enum { CHUNKS = T::BLOCK_BYTES / 16, ALL = T::OUTPUTS / 16 * CHUNKS };
    const int words = words_of(T::TYPE, k.cols) - stage * (CHUNKS / 4);
    const char *from = k.at + head_bytes(T::TYPE, k.cols) + (size_t)stage * T::BLOCK_BYTES;
    const size_t bytes = block_bytes(T::TYPE, k.cols);
#pragma unroll 1
    for (int i = 0; i < ALL / T::THREADS; i++) {
        const int at = i * T::THREADS + (int)threadIdx.x, b = at / CHUNKS, chunk = at % CHUNKS;
        copy_async(to + b * T::BLOCK_BYTES + weight_place(chunk) * 16,
                   from + (size_t)(block + b) * bytes + chunk * 16,
                   16 * (block + b) < k.rows && chunk / 4 < words);
    }
}

template <class T>
GPU_INLINE void fetch_x(const struct product &p, const struct piece &k,
                        const struct some_rows &rows, int stage, char *to)
{
#pragma unroll 1
    for (int i = 0; i < T::ROWS * ROW_CHUNKS / T::THREADS; i++) {
        const int at = i * T::THREADS + (int)threadIdx.x, r = at / ROW_CHUNKS, c = at % ROW_CHUNKS;
        const int row = rows.first + r;
        const char *from = p.ready + (size_t)row_of_x(rows, row) * (size_t)p.ready_row +
                           (size_t)(k.ready + stage * ROW_BYTES + c * 16);
        copy_async(to + x_place(r, c) * 16, from, row < rows.end);
    }
}

/* Begin to copy what is next, stage `*stage` of `*piece`, and go on to the one after. */
template <class T>
GPU_INLINE void fetch(const struct product &p, const struct where &w, int *piece, int *stage,
                      char *to)
{
    while (*piece < w.duty.end && *stage * T::COLUMNS >= p.piece[*piece].cols) {
        *stage = 0;
        ++*piece;
    }
    if (*piece < w.duty.end) {
        const struct piece &k = p.piece[*piece];
        fetch_weights<T>(k, w.block, *stage, to);
        fetch_x<T>(p, k, w.at, *stage, to + T::OUTPUTS / 16 * T::BLOCK_BYTES);
        ++*stage;
    }
    copy_commit();
}

/* ------------------------------------------------------------------------------- sums */

/* Sums of a thread. Of pair i and eight rows j, lane 4g + t of a warp has outputs 4g + o, o = 0 ..
 * 3, of rows 2t + r, r = 0, 1: sum[i][j][o / 2][o % 2 * 2 + r]. */
template <class T> struct sums {
    typename T::sum now[T::N_PAIR][T::N_EIGHT][2][4];
    float all[T::N_PAIR][T::N_EIGHT][2][4];
};

/* The matrices of a pair for a step, from shared memory. */
template <class T> GPU_INLINE void load_pair(uint32_t a[2][4], const char *block, int step)
{
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const uint4 *at = (const uint4 *)(block + g / 4 * T::BLOCK_BYTES);
    const int words = T::BLOCK_BYTES / 64 / STEPS, word = words * step + t;
    matrices_of<T::TYPE>(a, at[weight_place(word * 4 + g % 4)],
                         at[weight_place((word + words - 4) * 4 + g % 4)]);
}

/* One step of all matrices of a warp; `down` and `across` say which warp it is. */
template <class T>
GPU_INLINE void do_step(struct sums<T> &s, const char *stage, int down, int across, int step)
{
    const int lane = (int)threadIdx.x % 32;
    const uint4 *x = (const uint4 *)(stage + T::OUTPUTS / 16 * T::BLOCK_BYTES);
    uint32_t a[T::N_PAIR][2][4], b[T::N_EIGHT][2];
#pragma unroll
    for (int i = 0; i < T::N_PAIR; i++)
        load_pair<T>(a[i], stage + (down * T::N_PAIR + i) * 2 * T::BLOCK_BYTES, step);
#pragma unroll
    for (int j = 0; j < T::N_EIGHT; j += 2) {
        const int row = (across * T::N_EIGHT + j + lane / 16) * 8 + lane % 8;
        uint32_t r[4];
        load_matrix_x4(r, x + x_place(row, 2 * step + lane / 8 % 2));
        b[j][0] = r[0], b[j][1] = r[1], b[j + 1][0] = r[2], b[j + 1][1] = r[3];
    }
#pragma unroll
    for (int i = 0; i < T::N_PAIR; i++)
#pragma unroll
        for (int j = 0; j < T::N_EIGHT; j++) {
            multiply_matrix(s.now[i][j][0], a[i][0], b[j]);
            multiply_matrix(s.now[i][j][1], a[i][1], b[j]);
        }
}

/* A run has ended: it is added to those before. */
template <class T> GPU_INLINE void end_run(struct sums<T> &s, bool first)
{
    float *all = &s.all[0][0][0][0];
    typename T::sum *now = &s.now[0][0][0][0];
#pragma unroll
    for (int i = 0; i < T::SUMS; i++) {
        all[i] = first ? now[i] : __fadd_rn(all[i], now[i]);
        now[i] = 0;
    }
}

GPU_INLINE float number_of_four(uint2 four, int i)
{
    return from_f16((uint16_t)((i / 2 ? four.y : four.x) >> i % 2 * 16));
}

/* A group has ended: times its scales it is added to those before. */
template <class T>
GPU_INLINE void end_group(const struct product &p, const struct piece &k, struct sums<T> &s,
                          int block, const struct some_rows &rows, int row, int group)
{
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    struct x_scale x[T::N_EIGHT][2];
#pragma unroll
    for (int j = 0; j < T::N_EIGHT; j++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int at = row_of_x(rows, row + 8 * j + 2 * t + r);
            x[j][r] = p.scale[(size_t)(k.group + group) * (size_t)p.ready_rows + (size_t)at];
        }
#pragma unroll
    for (int i = 0; i < T::N_PAIR; i++) {
        const int b = min(block + 2 * i + g / 4, (k.rows - 1) / 16);
        const char *head = k.at + (size_t)b * block_bytes(T::TYPE, k.cols);
        const size_t at = (size_t)(group * 16 + g % 4 * 4) * 2; /* of four outputs */
        const uint2 scale = *(const uint2 *)(head + at);
        uint2 least = scale;
        if (format_least(T::TYPE))
            least = *(const uint2 *)(head + scale_bytes(T::TYPE, k.cols) + at);
#pragma unroll
        for (int o = 0; o < 4; o++) {
            const float w = number_of_four(scale, o), low = number_of_four(least, o);
#pragma unroll
            for (int j = 0; j < T::N_EIGHT; j++)
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    int *now = &s.now[i][j][o / 2][o % 2 * 2 + r];
                    float *all = &s.all[i][j][o / 2][o % 2 * 2 + r];
                    const int whole = *now - format_zero(T::TYPE) * x[j][r].total;
                    *all = __fmaf_rn((float)whole, __fmul_rn(w, x[j][r].scale), *all);
                    if (format_least(T::TYPE))
                        *all = __fmaf_rn(low, __fmul_rn(x[j][r].scale, (float)x[j][r].total), *all);
                    *now = 0;
                }
        }
    }
}

/* The same of e4m3. */
template <class T>
GPU_INLINE void end_scaled(const struct piece &k, struct sums<T> &s, int block, int group)
{
    const int lane = (int)threadIdx.x % 32, g = lane / 4;
#pragma unroll
    for (int i = 0; i < T::N_PAIR; i++) {
        const int b = min(block + 2 * i + g / 4, (k.rows - 1) / 16);
        const char *head = k.at + (size_t)b * block_bytes(T::TYPE, k.cols);
        const float4 four = *(const float4 *)(head + (size_t)(group * 16 + g % 4 * 4) * 4);
        const float scale[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int j = 0; j < T::N_EIGHT * 8; j++) {
            const int o = j / 2 % 4, r = j % 2, eight = j / 8;
            float *now = &s.now[i][eight][o / 2][o % 2 * 2 + r];
            float *all = &s.all[i][eight][o / 2][o % 2 * 2 + r];
            *all = __fmaf_rn(*now, scale[o], *all);
            *now = 0;
        }
    }
}

/* f(i, row, output, sum) for every sum of a thread; its number i is known to the compiler. */
template <class T, class F>
GPU_INLINE void each_output(const struct sums<T> &s, int block, int row, F f)
{
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < T::N_PAIR; i++)
#pragma unroll
        for (int j = 0; j < T::N_EIGHT; j++)
#pragma unroll
            for (int r = 0; r < 2; r++)
#pragma unroll
                for (int o = 0; o < 4; o++)
                    f(((i * T::N_EIGHT + j) * 2 + r) * 4 + o, row + 8 * j + 2 * t + r,
                      16 * (block + 2 * i) + 4 * g + o, s.all[i][j][o / 2][o % 2 * 2 + r]);
}

/* ------------------------------------------------------------------------------- tiles */

/* One stage of a piece, its sums perhaps not at their end. */
template <class T>
GPU_INLINE void do_stage(const struct product &p, const struct piece &k, struct sums<T> &s,
                         const char *at, int stage, int down, int across, int block,
                         const struct some_rows &rows, int row)
{
    const int run = run_columns(T::TYPE, k.cols);
#pragma unroll 2
    for (int step = 0; step < STEPS; step++) {
        const int column = stage * T::COLUMNS + step * T::STEP, end = column + T::STEP;
        if (column / T::GROUP * T::GROUP >= k.cols)
            break;
        do_step<T>(s, at, down, across, step);
        if constexpr (T::WHOLE) {
            if (end % T::GROUP == 0)
                end_group<T>(p, k, s, block, rows, row, column / T::GROUP);
        } else if constexpr (T::TYPE == NUM_FP8) {
            if (step == STEPS - 1 && (end % format_group(NUM_FP8) == 0 || end >= k.cols))
                end_scaled<T>(k, s, block, column / format_group(NUM_FP8));
        } else if (step % 2 && (end % run == 0 || end >= k.cols)) {
            end_run<T>(s, end <= run);
        }
    }
}

/* The sums of each piece go to take.tile(piece, sums, block, row), which may change them. */
template <class T, class TAKE>
GPU_INLINE void do_tile(const struct product &p, const struct where &w, TAKE &take)
{
    const int warp = (int)threadIdx.x / 32, down = warp % T::WARPS_DOWN,
              across = warp / T::WARPS_DOWN;
    const int block = w.block + 2 * T::N_PAIR * down, row = w.at.first + 8 * T::N_EIGHT * across;
    char *ring = gpu_shared<char>();
    int next_piece = w.duty.first, next_stage = 0, slot = 0;
    struct sums<T> s = {
    };

    for (int i = 0; i < T::STAGES - 1; i++)
        fetch<T>(p, w, &next_piece, &next_stage, ring + i * T::STAGE_BYTES);
    for (int piece = w.duty.first; piece < w.duty.end; piece++) {
        const struct piece &k = p.piece[piece];
#pragma unroll
        for (int i = 0; i < T::SUMS; i++)
            (&s.all[0][0][0][0])[i] = 0;
        for (int stage = 0; stage * T::COLUMNS < k.cols; stage++) {
            copy_wait<T::STAGES - 2>();
            __syncthreads(); /* all have copied this stage, and done with the one before */
            fetch<T>(p, w, &next_piece, &next_stage,
                     ring + (slot + T::STAGES - 1) % T::STAGES * T::STAGE_BYTES);
            do_stage<T>(p, k, s, ring + slot * T::STAGE_BYTES, stage, down, across, block, w.at,
                        row);
            slot = (slot + 1) % T::STAGES;
        }
        take.tile(k, s, block, row);
    }
    copy_wait<0>();
    __syncthreads(); /* the next tile begins with the same slots */
}

#endif
