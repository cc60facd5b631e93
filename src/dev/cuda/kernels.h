/* kernels.h - every kernel of the CUDA device, as C calls it: one function enqueues one operation
 * of dev.h on a stream.
 *
 * For C and CUDA alike, so there is nothing here but numbers and pointers; `at` and other pointers
 * to numbers are the device's memory, structs are read before the call returns. A stream is a
 * cudaStream_t. Every function returns a cudaError_t as int; 0: enqueued.
 *
 * Numerics: weights and caches in f32, weights in f16 and whole numbers, and all row operations
 * give the CPU's bits (dev.h says which). Weights in bf16, and attention over a bf16 cache, are
 * tensor-core arithmetic of a class of its own: a product is a fixed sequence of m16n8k16 steps
 * over the columns of a share, cut and joined by the number of columns alone. No result depends on
 * the rows beside it, on the grid, or on which ranks there are.
 */
#ifndef TANDEM_CUDA_KERNELS_H
#define TANDEM_CUDA_KERNELS_H

#include "base/num.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { GPU_PARTS = 32, GPU_PLANES = 8, GPU_TERMS = 4 };

/* As struct weight of dev/weight.h, packed alike. */
struct gpu_part {
    const void *at;
    int rows, cols;
};
struct gpu_weight {
    enum num type;
    int rows, cols, first, n_part;
    struct gpu_part part[GPU_PARTS];
};

/* As struct kv, heads and batch; seq ascends. most_keys: no row of the batch sees more; it may be
 * rounded up. */
struct gpu_kv {
    enum num type;
    int n_head, head_dim;
    size_t page_bytes, head_bytes;
    char *at;
};
struct gpu_heads {
    int head_dim, group, q_first, kv_first, window;
    float scale;
};
struct gpu_batch {
    int n_tok, n_seq, stride, most_keys;
    const int *pos, *slot, *seq, *page;
};

/* y[n][w.rows] = x * w^T + bias (NULL: none). */
struct gpu_term {
    float *y;
    struct gpu_weight w;
    const float *bias;
};

/* What compute capability 9.0 may do by warpgroups (wgmma), where trying it gave the same bits. */
enum { WARPGROUP_PRODUCTS = 1, WARPGROUP_ATTENTION = 2, WARPGROUP_ALL = 3 };

/* Memory that kernels may use between the calls of one stream, of at least so many bytes as
 * gpu_room_bytes() says for the largest step; `sm` is the number of multiprocessors. */
struct gpu_room {
    void *at;
    size_t bytes;
    int sm;
    int warpgroups; /* what wgmma gives the bits of mma.sync for: WARPGROUP_* */
};
struct gpu_sizes {
    int max_tok, max_dim;             /* rows of a step, numbers of a row that is multiplied */
    int heads, head_dim, ctx;         /* query heads of the rank; the longest sequence */
    int experts, top, expert_columns; /* 0: none */
    int sm;
};
size_t gpu_room_bytes(const struct gpu_sizes *);

int gpu_embed(void *stream, float *y, int n, const struct gpu_weight *w, int first, const int *tok);
/* Runs of up to 25344 numbers, which lie in shared memory; add_norm: y of int64_t when `whole`. */
int gpu_norm(void *stream, float *y, const float *x, int n, int dim, const float *w, int w_dim,
             float eps);
int gpu_add_norm(void *stream, float *h, float *x, const void *y, bool whole, const float *bias,
                 int n, int dim, const float *w, float eps);
/* As dev_squares() and dev_norm_by(): runs of a row, share i from begin[i] on, and subtrees of
 * them, subtree i from share tree[i] on; planes and sum of `columns` columns. */
struct gpu_runs {
    int n, begin[GPU_PARTS + 1], tree[GPU_PLANES + 1];
};
int gpu_squares(void *stream, float *const plane[GPU_PLANES], int n_plane, int columns, int column,
                const float *x, int n, int dim, const struct gpu_runs *);
int gpu_norm_by(void *stream, float *x, int n, int part, const float *sum, int columns, int column,
                const float *w, int dim, float eps);
int gpu_clip(void *stream, float *x, int n, int dim, float limit);
/* Weights of up to so many rows are streamed, whole numbers' of fewer; those of more are tiles. */
enum { GPU_STREAMED = 16, GPU_STREAMED_WHOLE = 8 };
int gpu_products(void *stream, const float *x, int n, int dim, const struct gpu_term *term,
                 int n_term, const struct gpu_room *);
/* As dev_glu(); of few rows up is not written. */
int gpu_glu(void *stream, const float *x, int n, int dim, const struct gpu_term both[2],
            const struct gpu_room *);
/* to[rows][stride] of bf16 = w, whose parts hold successive rows, or columns; numbers behind the
 * last column of a row are left as they are. */
int gpu_plain(void *stream, void *to, int stride, const struct gpu_weight *w, bool columns);
/* to[n][stride] = x in bf16, zeros behind the last column; stride is even. */
int gpu_round_rows(void *stream, void *to, int stride, const float *x, int n, int dim);
/* plane[i] is the sum of the i-th complete subtree of the shares of w (base/tree.h). */
int gpu_partial(void *stream, float *const plane[GPU_PLANES], int n_plane, const float *x, int n,
                const struct gpu_weight *w, const struct gpu_room *);
int gpu_add(void *stream, float *x, const float *y, const float *bias, int n, int dim);
int gpu_rope(void *stream, float *x, int n, int dim, int head_dim, const float *angle);
int gpu_store(void *stream, const struct gpu_kv *, const float *k, const float *v, int n,
              const int *slot);
/* As dev_rope_store(): norms may be NULL, both; k stays as it is. */
struct gpu_qkv {
    float *q;
    const float *k, *v, *q_norm, *k_norm, *angle;
    float eps;
};
int gpu_rope_store(void *stream, const struct gpu_kv *, const struct gpu_qkv *, int n, int q_dim,
                   const int *slot);
int gpu_attend(void *stream, float *y, const float *q, int dim, const struct gpu_kv *,
               const struct gpu_heads *, const struct gpu_batch *, const struct gpu_room *);
int gpu_swiglu(void *stream, float *gate, const float *up, int n, int dim);
int gpu_pick(void *stream, float *y, const float *x, const int *row, int n, int dim);
/* load: [experts], the rows that chose each are added; or NULL. */
int gpu_route(void *stream, int *expert, float *weight, const float *logits, int n, int experts,
              int top, bool shared, const float *gate, bool renorm, uint64_t *load);
/* As dev_deal(): of chosen[n][top + shared], experts of the router and then the shared one, those
 * of other ranks become -1. At most 32 runs. */
struct gpu_deal {
    int n_expert, n_run, slices, rank, weights, tile;
    const uint64_t *holders; /* [n_expert] */
    uint32_t *need;          /* [n] or NULL */
    uint64_t *load;          /* [2] or NULL */
};
int gpu_deal_rows(void *stream, int *chosen, int n, int top, bool shared, const struct gpu_deal *);
/* y[n][dim], 64-bit fixed point. expert: n_expert times gate, up, down, in the device's memory, all
 * of `type`; none has more than `columns` columns, nor its gate or up more than `parts` parts. A
 * choice that is none of them adds nothing. */
int gpu_experts(void *stream, int64_t *y, const float *x, int n, int dim,
                const struct gpu_weight *expert, int n_expert, enum num type, int columns,
                int parts, const int *chosen, const float *weight, int per_row,
                const struct gpu_room *);
int gpu_settle(void *stream, float *x, const int64_t *y, int n, int dim);

/* How the token after a row is drawn, as struct draw_row of dev/draw.h; and its draw, u. */
struct gpu_draw_row {
    double u;
    float scale; /* 1 / temperature; 0: the likeliest */
    float top_p, min_p, repetition, presence, frequency;
    int top_k;                                /* 0: off */
    int seen, n_seen, n_prompt, bias, n_bias; /* runs of struct gpu_draw_rows' arrays */
    int allow;                                /* from this word on; -1: all are allowed */
    bool skip;                                /* this row is left alone */
};
struct gpu_bias {
    int token;
    float value;
};
/* All in the device's memory. What no row has is not looked for. */
struct gpu_draw_rows {
    const struct gpu_draw_row *row;
    const int *seen;
    const struct gpu_bias *bias;
    const uint64_t *allow;
    bool any;                 /* row that is not skipped */
    bool rules, warm, ranked; /* penalties or biases; temperatures; top-k or top-p */
};
/* Of tok[n], ~i becomes token[i]. */
int gpu_feed(void *stream, int *tok, int n, const int *token);
/* The words of rows of logits in slices, one on each of n GPUs that read each other's memory; this
 * is slice `own`. Slice i has words first[i] .. first[i + 1] - 1, and for what is at p here its own
 * is at p + away[i]. meet(arg) enqueues a meeting (comm/peer): what stands before it in the streams
 * of all of them is done then. Alone: n is 1. */
enum { GPU_SLICES = 32 };
struct gpu_vocab {
    int n, own, first[GPU_SLICES + 1];
    ptrdiff_t away[GPU_SLICES];
    int (*meet)(void *arg);
    void *arg;
};
/* token[n]: what sample() of run/sample.h draws from n rows of logits, of which logits[n][words of
 * the slice] are here and are overwritten; the same on all slices. At most GPU_DRAW_WORDS in all.
 * room: gpu_draw_bytes() for the words of the longest slice, zeroed once before the first call, and
 * of this stream's calls only; away[] holds for it and for logits. */
enum { GPU_DRAW_WORDS = 1 << 20 };
size_t gpu_draw_bytes(int n, int words);
int gpu_draw(void *stream, int *token, float *logits, int n, const struct gpu_draw_rows *,
             const struct gpu_vocab *, void *room);

/* check.c: whether products, or attention, by warpgroups give the bits of those without on the GPU
 * in use, of compute capability 9.0: some are computed both ways. Takes milliseconds and 20 MiB. A
 * failure may leave the process without its GPU, so ask in one of its own. */
int gpu_check_products(bool *same);
int gpu_check_attention(bool *same);

#ifdef __cplusplus
}
#endif

#endif
