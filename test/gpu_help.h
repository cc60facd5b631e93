/* gpu_help.h - for tests of kernels on the model of a GPU: numbers go there and come back. */
#ifndef TANDEM_GPU_HELP_H
#define TANDEM_GPU_HELP_H

#include "dev_help.h"

#include "dev/cuda/kernels.h"
#include "dev/cuda/runtime.h"

enum { GPU_HELD = 256 };

/* What a test has on the GPU; gpu_help_end() gives it back. */
struct gpu {
    void *stream, *held[GPU_HELD];
    int n;
};

static inline struct gpu gpu_help_begin(void)
{
    struct gpu g = {0};
    assert_int_equal(gpu_stream(&g.stream), 0);
    return g;
}

/* A kernel was enqueued. */
static inline void gpu_ok(int error)
{
    if (error)
        print_error("%s\n", gpu_error(error));
    assert_int_equal(error, 0);
}

/* A copy of bytes of the host, or, from NULL, as many bytes of nothing: all are 0xff. */
static inline void *gpu_put(struct gpu *g, const void *from, size_t bytes)
{
    void *at;
    assert_true(g->n < GPU_HELD);
    assert_int_equal(gpu_alloc(&at, bytes ? bytes : 16), 0);
    if (from) {
        gpu_ok(gpu_copy_in(at, from, bytes, g->stream));
        gpu_ok(gpu_wait(g->stream)); /* `from` may change now */
    }
    return g->held[g->n++] = at;
}

static inline void *gpu_put_mat(struct gpu *g, const struct mat *m)
{
    return gpu_put(g, m->at, mat_bytes(m));
}

static inline void gpu_take(struct gpu *g, void *to, const void *from, size_t bytes)
{
    gpu_ok(gpu_copy_out(to, from, bytes, g->stream));
    gpu_ok(gpu_wait(g->stream));
}

/* What lies at `from` is, as a matrix, `want` bit by bit. */
static inline void gpu_same(struct gpu *g, struct help *h, const void *from, const struct mat *want)
{
    struct mat got = help_copy(h, want);
    memset(got.at, 0x55, mat_bytes(&got));
    gpu_take(g, got.at, from, mat_bytes(&got));
    assert_same(&got, want);
}

/* Allocations are given back, the stream stays. */
static inline void gpu_drop(struct gpu *g)
{
    gpu_ok(gpu_wait(g->stream));
    while (g->n)
        gpu_free(g->held[--g->n]);
}

/* Its parts follow each other, as those of help_weight() do. */
static inline struct gpu_weight gpu_put_weight(struct gpu *g, const struct weight *w)
{
    struct gpu_weight to = {w->type, w->rows, w->cols, w->first, w->n_part, {{0}}};
    const struct part *last = &w->part[w->n_part - 1];
    char *end = (char *)last->at + part_bytes(w->type, last->rows, last->cols);
    char *at = gpu_put(g, w->part[0].at, (size_t)(end - (char *)w->part[0].at));
    for (int i = 0; i < w->n_part; i++)
        to.part[i] = (struct gpu_part){at + ((char *)w->part[i].at - (char *)w->part[0].at),
                                       w->part[i].rows, w->part[i].cols};
    return to;
}

#endif
