/* fast.c - products of many rows by cuBLASLt, of weights that lie on the device row by row as well;
 * of few rows our own are as fast as weights can be read. */
#include "dev/cuda/blas.h"
#include "dev/cuda/cuda.h"
#include "dev/cuda/runtime.h"

enum { FAST_ROWS = 64 };

static bool aligned(const void *at) { return (uintptr_t)at % BLAS_ALIGN == 0; }

/* What cuBLASLt makes of a term; NULL: not its business. */
static const struct blas_plan *plan_of(struct cuda *c, const struct mat *x, const struct mat *y,
                                       const struct weight *w, const struct mat *bias)
{
    const struct blas_shape shape = {.n = x->n,
                                     .rows = w->rows,
                                     .columns = w->cols,
                                     .w_stride = weight_plain_stride(w->cols),
                                     .x_stride = weight_plain_stride(x->dim),
                                     .y_stride = y->dim,
                                     .bias = bias && bias->n};
    if (!c->blas || x->n <= FAST_ROWS || !w->plain || !w->rows || !w->cols)
        return NULL;
    if (!aligned(y->at) || y->dim % 4 || (shape.bias && !aligned(bias->at)))
        return NULL;
    return blas_plan(c->blas, &shape);
}

/* Rows of x in bf16, in the room. */
static bool round_rows(struct dev *d, const struct mat *x)
{
    struct cuda *c = cuda_of(d);
    const int stride = weight_plain_stride(x->dim);
    must((size_t)x->n * (size_t)stride * 2 <= c->room.bytes);
    cuda_note(d, gpu_round_rows(c->stream, c->room.at, stride, x->at, x->n, x->dim));
    return !d->err;
}

static void multiply(struct dev *d, const struct blas_plan *p, const struct mat *y,
                     const struct weight *w, const struct mat *bias)
{
    struct cuda *c = cuda_of(d);
    if (d->err || !blas_multiply(c->blas, p, c->stream, y->at, c->room.at, w->plain,
                                 bias && bias->n ? bias->at : NULL))
        return;
    d->err = -EIO;
    d->why = "cuBLASLt failed to multiply";
}

bool cuda_fast_matmul(struct dev *d, const struct mat *x, const struct term *term, int n)
{
    const struct blas_plan *plan[GPU_TERMS];
    for (int i = 0; i < n; i++)
        if (!(plan[i] = plan_of(cuda_of(d), x, term[i].y, term[i].w, term[i].bias)))
            return false;
    if (round_rows(d, x))
        for (int i = 0; i < n; i++)
            multiply(d, plan[i], term[i].y, term[i].w, term[i].bias);
    return true;
}

/* All shares at once, in the first plane; the others are zeros. */
bool cuda_fast_partial(struct dev *d, struct planes *y, const struct mat *x, const struct weight *w)
{
    const struct blas_plan *plan = y->n ? plan_of(cuda_of(d), x, &y->at[0], w, NULL) : NULL;
    if (!plan)
        return false;
    if (round_rows(d, x))
        multiply(d, plan, &y->at[0], w, NULL);
    for (int i = 1; i < y->n; i++)
        cuda_note(d, gpu_clear(y->at[i].at, mat_bytes(&y->at[i]), cuda_of(d)->stream));
    return true;
}
