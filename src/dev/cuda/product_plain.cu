/* product_plain.cu - products by f32 and f16: one chain of fused multiply-adds per output and part,
 * the CPU's bits. A thread makes one output of ROWS rows; weights and x come through shared memory,
 * some columns at a time, the next ones while these are multiplied.
 */
#include "dev/cuda/product.h"

enum { THREADS = 256, COLUMNS = 64, STAGES = 3, X_ROW = COLUMNS + 4 };

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
    for (int i = (int)threadIdx.x; i < 2 * CHUNKS; i += THREADS) {
        const int half = i / CHUNKS, chunk = i % CHUNKS, block = 2 * pair + half;
        const char *from = k.at + ((size_t)block * (size_t)k.cols + (size_t)column) * 16 * BYTES;
        copy_async(to + half * BLOCK_NUMBERS * BYTES + chunk * 16, from + chunk * 16,
                   16 * block < k.rows && chunk < there);
    }
}

template <int ROWS>
GPU_INLINE void fetch_x(const struct product &p, const struct piece &k, int column, float *to)
{
    for (int i = (int)threadIdx.x; i < 8 * ROWS * COLUMNS; i += THREADS) {
        const int r = i / COLUMNS, c = i % COLUMNS, row = (int)blockIdx.y * 8 * ROWS + r;
        const bool there = row < p.n && column + c < k.cols;
        to[r * X_ROW + c] =
            there ? p.x[(size_t)row * (size_t)p.dim + (size_t)(k.x + column + c)] : 0;
    }
}

/* Begin to copy the stage that is next, of the piece and from the column on that `piece` and
 * `column` say, and go on to the one after. */
template <int BYTES, int ROWS>
GPU_INLINE void fetch(const struct product &p, const struct duty &duty, int *piece, int *column,
                      char *to)
{
    while (*piece < duty.end && *column >= p.piece[*piece].cols) {
        *column = 0;
        ++*piece;
    }
    if (*piece < duty.end) {
        const struct piece &k = p.piece[*piece];
        fetch_weights<BYTES>(k, duty.place, *column, to);
        fetch_x<ROWS>(p, k, *column, (float *)(to + 2 * BLOCK_NUMBERS * BYTES));
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

template <int BYTES, int ROWS>
__global__ void __launch_bounds__(THREADS, 2) plain_kernel(const __grid_constant__ struct product p)
{
    const struct duty duty = duty_of(p, (int)blockIdx.x);
    const int bytes = stage_bytes<BYTES>(ROWS);
    const int first = ((int)blockIdx.y * 8 + (int)threadIdx.x / 32) * ROWS;
    char *ring = gpu_shared<char>();
    float level[ROWS][TREE_LEVELS] = {};
    int stage = 0, next_piece = duty.first, next_column = 0;

    for (int i = 0; i < STAGES - 1; i++)
        fetch<BYTES, ROWS>(p, duty, &next_piece, &next_column, ring + i * bytes);
    for (int piece = duty.first; piece < duty.end; piece++) {
        const struct piece &k = p.piece[piece];
        float sum[ROWS] = {};
        for (int column = 0; column < k.cols; column += COLUMNS) {
            copy_wait<STAGES - 2>();
            __syncthreads(); /* all have copied this stage, and done with the one before */
            fetch<BYTES, ROWS>(p, duty, &next_piece, &next_column,
                               ring + (stage + STAGES - 1) % STAGES * bytes);
            multiply<BYTES, ROWS>(sum, ring + stage * bytes, min((int)COLUMNS, k.cols - column));
            stage = (stage + 1) % STAGES;
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const float v = join_tree(level[r], sum[r], k.leaf);
            if (k.last)
                put_output(p, k, first + r, duty.place * PAIR + (int)threadIdx.x % 32, v);
        }
    }
}

template <int BYTES, int ROWS> static int launch(void *stream, const struct product *p)
{
    struct product placed = *p;
    const int blocks = place_blocks(&placed, PAIR);
    const int shared = STAGES * stage_bytes<BYTES>(ROWS);
    return LAUNCH(plain_kernel<BYTES, ROWS>,
                  dim3((unsigned)blocks, (unsigned)parts_of(p->n, 8 * ROWS)), dim3(THREADS),
                  (size_t)shared, stream, placed);
}

int product_plain(void *stream, enum num type, const struct product *p)
{
    if (type == NUM_F32)
        return p->n <= 8 ? launch<4, 1>(stream, p) : launch<4, 4>(stream, p);
    return p->n <= 8 ? launch<2, 1>(stream, p) : launch<2, 4>(stream, p);
}
