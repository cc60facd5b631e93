/* product.h - what the kernels of products share: which parts of weights a launch multiplies, where
 * their numbers lie, and how the sums of shares are joined.
 *
 * All kernels give the same bits, so that which of them runs may depend on the number of rows:
 *   f32, f16: one chain of fused multiply-adds per output and part, columns ascending, as the CPU.
 *   whole numbers: x as quant_x() of dev/weight.h rounds it, products of a group added exactly,
 *     groups in f32, ascending, as the CPU.
 *   e4m3: x rounded to bf16, weights are bf16 too, exactly. A group of 128 columns is a chain of
 *     m16n8k16 steps from 0 on, ascending, up to whole 64 columns; the columns of a step in the
 *     order 0 1 4 5 8 9 12 13 2 3 6 7 10 11 14 15. Groups are added in f32, ascending:
 *     fma(chain, scale, sum).
 *   bf16: x rounded to bf16. The columns of a part are cut into runs of run_columns(), at most
 *     RUNS; a run is a chain of m16n8k16 steps from 0 on, ascending, columns in their order, an
 * even number of steps, zeros for columns that are missing. Runs are added in f32, ascending.
 *
 * A block of threads makes PAIR outputs: two blocks of 16 packed rows. Of the 16 bytes that hold
 * four rows of one word of columns, lane 4g + t of a warp reads those of rows 4g .. 4g + 3, so that
 * two matrices of 16 rows, rows in an order of their own, need no shuffling.
 */
#ifndef TANDEM_CUDA_PRODUCT_H
#define TANDEM_CUDA_PRODUCT_H

#include "dev/cuda/gpu.h"
#include "dev/cuda/kernels.h"

#include <type_traits>

enum {
    PAIR = 32,         /* outputs of a block of threads */
    RUNS = 8,          /* and its warps, each at a run of its own */
    UNIT = 512,        /* bits of a row that a warp multiplies at once: 32 bf16, 128 of four bits */
    UNIT_BYTES = 1024, /* the same of a block of 16 rows */
    X_BLOCK = 128,     /* columns of x that are rounded to whole numbers by one warp */
    TREE_LEVELS = 5
};

/* A part of a weight. Its columns begin at column x of x, at byte `ready` of a row made ready, and
 * at `group` of its groups. Its outputs go to columns `out` .. of to[to]. Of parts that are summed,
 * it is number `leaf` of a complete subtree, perhaps the last. */
struct piece {
    const char *at;
    int rows, cols, x, ready, group, out, to, leaf, first_block;
    bool last;
};

struct target {
    float *y;
    const float *bias;
    int stride;
};

/* The scale of a group of x, and the sum of its numbers. */
struct x_scale {
    float scale;
    int total;
};

/* together: every block sums all pieces; otherwise each makes outputs of one, of those from
 * first_block on. gated: of two that follow each other, of to[0] and to[1], and silu(one) * other
 * goes to to[0]. */
struct product {
    const float *x;
    char *ready; /* see product_prepare() */
    struct x_scale *scale;
    int n, dim, groups;
    int ready_rows, ready_row;    /* and bytes of a row */
    bool together, gated, bricks; /* bricks: rows made ready as warpgroups read them */
    int n_piece;
    struct target to[GPU_PLANES];
    struct piece piece[GPU_PARTS];
};

/* ------------------------------------------------------------------------------- formats */

#ifdef __CUDACC__
#define GPU_BOTH static __host__ __device__ __forceinline__
#else
#define GPU_BOTH static inline
#endif

GPU_BOTH constexpr int up_to(int n, int multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}
GPU_BOTH constexpr int parts_of(int n, int size) { return (n + size - 1) / size; }

GPU_BOTH constexpr int format_bits(enum num type)
{
    return type == NUM_F32                            ? 32
           : type == NUM_F16 || type == NUM_BF16      ? 16
           : type == NUM_INT8 || type == NUM_INT8_G32 ? 8
           : type == NUM_FP8                          ? 8
                                                      : 4;
}

/* In groups of columns with scales; and of whole numbers. */
GPU_BOTH constexpr bool format_grouped(enum num type) { return type >= NUM_INT8; }
GPU_BOTH constexpr bool format_whole(enum num type)
{
    return format_grouped(type) && type != NUM_FP8;
}
GPU_BOTH constexpr bool format_least(enum num type) { return type == NUM_INT4_G32Z; }

GPU_BOTH constexpr int format_group(enum num type)
{
    return type == NUM_INT8 || type == NUM_INT4_G128 || type == NUM_FP8 ? 128
           : type == NUM_INT4                                           ? 64
                                                                        : 32;
}

/* Of a number of x made ready. */
GPU_BOTH constexpr int ready_bytes(enum num type) { return format_whole(type) ? 1 : 2; }

GPU_BOTH constexpr int format_zero(enum num type)
{
    return format_least(type) ? 0 : format_bits(type) == 8 ? 128 : 8;
}

/* Columns of a run of a part: what a warp multiplies on its own. */
GPU_BOTH constexpr int run_columns(enum num type, int cols)
{
    return format_grouped(type) ? X_BLOCK : cols ? up_to(parts_of(cols, RUNS), 32) : 32;
}

/* As in dev/weight.h: the bytes of scales, of all before the numbers, and of a block of 16 rows. */
GPU_BOTH constexpr size_t scale_bytes(enum num type, int cols)
{
    return (size_t)up_to(parts_of(cols, format_group(type)) * (type == NUM_FP8 ? 64 : 32), 64);
}

GPU_BOTH constexpr size_t head_bytes(enum num type, int cols)
{
    return format_grouped(type) ? scale_bytes(type, cols) * (format_least(type) ? 2 : 1) : 0;
}

GPU_BOTH constexpr size_t block_bytes(enum num type, int cols)
{
    const int k = format_grouped(type) ? 8 : type == NUM_BF16 ? 2 : 1;
    return head_bytes(type, cols) + (size_t)up_to(cols, k) * 2 * (size_t)format_bits(type);
}

/* Words of columns in `cols` columns: what stands in 64 bytes of a block of 16 rows. */
GPU_BOTH constexpr int words_of(enum num type, int cols)
{
    return format_bits(type) == 16  ? parts_of(cols, 2)
           : format_bits(type) == 8 ? 2 * parts_of(cols, 8)
                                    : parts_of(cols, 8);
}

/* ------------------------------------------------------------------------------- blocks */

/* The pieces of a block of threads, and which of their outputs it makes: those from so many times
 * the outputs of a block on. */
struct duty {
    int first, end, place;
};

GPU_INLINE struct duty duty_of(const struct product &p, int block)
{
    const int each = p.gated ? 2 : 1;
    int k = 0;
    if (p.together)
        return {0, p.n_piece, block};
    while (k + each < p.n_piece && p.piece[k + each].first_block <= block)
        k += each;
    return {k, k + each, block - p.piece[k].first_block};
}

/* Shares blocks of threads of `outputs` each out to the pieces; returns how many there are. */
static inline int place_blocks(struct product *p, int outputs)
{
    int blocks = 0;
    if (p->together)
        return parts_of(p->piece[0].rows, outputs);
    for (int k = 0; k < p->n_piece; k += p->gated ? 2 : 1) {
        p->piece[k].first_block = blocks;
        blocks += parts_of(p->piece[k].rows, outputs);
    }
    return blocks;
}

/* One leaf after the other, ascending, into the balanced tree: level[l] waits for its right
 * neighbour. The value is that of the subtree which this leaf completes. */
GPU_INLINE float join_tree(float level[TREE_LEVELS], float leaf, int number)
{
    bool up = true;
#pragma unroll
    for (int l = 0; l < TREE_LEVELS; l++) {
        if (up && (number >> l & 1)) {
            leaf = __fadd_rn(level[l], leaf);
        } else if (up) {
            level[l] = leaf;
            up = false;
        }
    }
    return leaf;
}

/* Output `o` of a piece, row `row` of x. */
GPU_INLINE void put_output(const struct product &p, const struct piece &k, int row, int o, float v)
{
    const struct target &to = p.to[k.to];
    if (row < p.n && o < k.rows)
        to.y[(size_t)row * (size_t)to.stride + (size_t)(k.out + o)] =
            to.bias ? __fadd_rn(v, to.bias[k.out + o]) : v;
}

/* Joins the shares of a row of each of N tiles, and puts what they give. */
template <int N> struct put_shares {
    const struct product &p;
    float level[N][TREE_LEVELS];

    __device__ put_shares(const struct product &of) : p(of), level() {}
    __device__ void sum(int i, const struct piece &k, int row, int o, float v)
    {
        const float joined = join_tree(level[i], v, k.leaf);
        if (k.last)
            put_output(p, k, row, o, joined);
    }
};

/* Rows first .. end - 1 of outputs, of which a block of threads makes some from `first` on; they
 * are made of rows from[row] of x, or, when `from` is NULL, of rows of the same number. */
struct some_rows {
    int first, end;
    const int *from;
};

/* Rows that are not there count as the last one: what they give is not put anywhere. */
GPU_INLINE int row_of_x(const struct some_rows &at, int row)
{
    row = min(row, at.end - 1);
    return at.from ? at.from[row] : row;
}

/* c += a * b of either sort. */
GPU_INLINE void multiply_matrix(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    mma_bf16(c, a, b);
}

GPU_INLINE void multiply_matrix(int c[4], const uint32_t a[4], const uint32_t b[2])
{
    mma_u8s8(c, a, b);
}

/* e4m3 times 2^-120, in the upper byte of each half, as bf16; and itself. */
GPU_INLINE uint32_t pair_of_fp8(uint32_t w)
{
    return times_bf16x2((w & 0x80008000u) | (w & 0x7f007f00u) >> 4, 0x7b807b80u);
}

/* The registers of the two matrices of a pair, from a lane's chunks v and u of a step: of four
 * bits, and e4m3, u is not looked at. */
template <enum num TYPE> GPU_INLINE void matrices_of(uint32_t a[2][4], uint4 v, uint4 u)
{
    if (TYPE == NUM_FP8) {
        const uint4 even = make_uint4(v.x << 8, v.y << 8, v.z << 8, v.w << 8);
        u = make_uint4(pair_of_fp8(v.x), pair_of_fp8(v.y), pair_of_fp8(v.z), pair_of_fp8(v.w));
        v = make_uint4(pair_of_fp8(even.x), pair_of_fp8(even.y), pair_of_fp8(even.z),
                       pair_of_fp8(even.w));
    }
    if (format_bits(TYPE) == 4) {
        const unsigned low = 0x0f0f0f0f;
        u = make_uint4(v.x >> 4 & low, v.y >> 4 & low, v.z >> 4 & low, v.w >> 4 & low);
        v = make_uint4(v.x & low, v.y & low, v.z & low, v.w & low);
    }
    a[0][0] = v.x, a[0][1] = v.y, a[0][2] = u.x, a[0][3] = u.y;
    a[1][0] = v.z, a[1][1] = v.w, a[1][2] = u.z, a[1][3] = u.w;
}

/* ------------------------------------------------------------------------------- launches */

template <enum num TYPE> using format = std::integral_constant<enum num, TYPE>;

/* f(format<type>()), of a type that matrices multiply. */
template <class F> static inline int of_format(enum num type, F f)
{
    switch (type) {
    case NUM_BF16: return f(format<NUM_BF16>());
    case NUM_FP8: return f(format<NUM_FP8>());
    case NUM_INT8: return f(format<NUM_INT8>());
    case NUM_INT4: return f(format<NUM_INT4>());
    case NUM_INT8_G32: return f(format<NUM_INT8_G32>());
    case NUM_INT4_G32: return f(format<NUM_INT4_G32>());
    case NUM_INT4_G32Z: return f(format<NUM_INT4_G32Z>());
    default: return f(format<NUM_INT4_G128>());
    }
}

/* Levels of the tree of shares whose left halves are kept. */
static inline int levels_of(const struct product *p)
{
    int levels = 0;
    for (int k = 0; k < p->n_piece; k++)
        while (p->piece[k].leaf >> levels)
            levels++;
    return levels;
}

/* What products need of the room. */
size_t product_room_bytes(int max_tok, int max_dim, int sm);
size_t product_stack_bytes(int sm); /* of it, for product_tile() */

/* Fills p->ready [ready_rows][ready_row], or in bricks [ready_row / 64][ready_rows / 8][4] of eight
 * columns by eight rows, 16 bytes of each row (warpgroup.h), and, of whole numbers, p->scale
 * [groups][ready_rows] for weights of `type`. Rows behind the last of x, and columns behind the
 * last of a piece up to whole blocks of X_BLOCK, become zeros. Numbers are in the order in which a
 * matrix wants them: of each 32 columns that are multiplied by four bits, first the even fours,
 * then the odd ones; of each 16 by e4m3 the first halves of all fours, then the second
 * ones. */
int product_prepare(void *stream, enum num type, const struct product *p);

/* Each enqueues what multiplies by weights of `type`: plain f32 and f16; stream bf16 and e4m3, x as
 * it is, and whole numbers made ready, perhaps gated; tile both made ready, with memory that is
 * left for halves of trees. */
int product_plain(void *stream, enum num type, const struct product *p);
int product_stream(void *stream, enum num type, const struct product *p);
int product_tile(void *stream, enum num type, const struct product *p, const struct gpu_room *left);

/* bf16 made ready in bricks, where struct gpu_room says so: for prompts, whose tiles should
 * fill the GPU, and for batches, whose tiles clusters share out; those do not take all. */
bool product_wgmma_fills(const struct product *p, int sm);
int product_wgmma(void *stream, const struct product *p, const struct gpu_room *left);
bool product_batch_takes(const struct product *p);
int product_batch(void *stream, const struct product *p);

#endif
