/* missing.c - kernels that are not written yet: each fails when it is called. */
#include "dev/cuda/kernels.h"

enum { NOT_SUPPORTED = 801 };

#define MISSING(name, ...)                                                                         \
    __attribute__((weak)) int name(void *stream, __VA_ARGS__)                                      \
    {                                                                                              \
        (void)stream;                                                                              \
        return NOT_SUPPORTED;                                                                      \
    }

#pragma GCC diagnostic ignored "-Wunused-parameter"
MISSING(gpu_embed, float *y, int n, const struct gpu_weight *w, int first, const int *tok)
MISSING(gpu_norm, float *y, const float *x, int n, int dim, const float *w, int w_dim, float eps)
MISSING(gpu_add, float *x, const float *y, const float *bias, int n, int dim)
MISSING(gpu_rope, float *x, int n, int dim, int head_dim, const float *angle)
MISSING(gpu_store, const struct gpu_kv *c, const float *k, const float *v, int n, const int *slot)
MISSING(gpu_attend, float *y, const float *q, int dim, const struct gpu_kv *c,
        const struct gpu_heads *h, const struct gpu_batch *b, const struct gpu_room *room)
MISSING(gpu_swiglu, float *gate, const float *up, int n, int dim)
MISSING(gpu_pick, float *y, const float *x, const int *row, int n, int dim)
MISSING(gpu_route, int *expert, float *weight, const float *logits, int n, int experts, int top,
        bool shared, const float *gate, bool renorm)
MISSING(gpu_experts, int64_t *y, const float *x, int n, int dim, const struct gpu_weight *expert,
        int n_expert, const int *chosen, const float *weight, int per_row,
        const struct gpu_room *room)
MISSING(gpu_settle, float *x, const int64_t *y, int n, int dim)
