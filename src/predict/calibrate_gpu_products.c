/* calibrate_gpu_products.c - all products of a layer, on packed weights that come from a GPU's
 * memory. The twin of calibrate_products.c. */
#include "dev/cuda/kernels.h"
#include "predict/calibrate_gpu_core.h"
#include "predict/fit.h"

#include <math.h>

enum { LAYER_OPS = 4 };
enum { Q, K, V, O, GATE, UP, DOWN, MATRICES };

struct gpu_layer {
    struct gpu_core *c;
    int rows;
    struct weight w[MATRICES];
    struct part part[MATRICES][GPU_SHARES];
    size_t bytes;
    double numbers;
    int copies;
};

static void place(struct gpu_layer *l, char *at)
{
    for (int i = 0; i < MATRICES; i++)
        for (int p = 0; p < l->w[i].n_part; p++) {
            l->part[i][p].at = at;
            at += part_bytes(l->w[i].type, l->part[i][p].rows, l->part[i][p].cols);
        }
}

static void make_layer(struct gpu_layer *l, struct gpu_core *c, enum num type)
{
    const struct gpu_shape *s = &c->shape;
    const int kv = s->heads_kv * s->dim, q = kv * s->group;
    const int rows[MATRICES] = {q, kv, kv, s->hidden, s->ff, s->ff, s->hidden};
    const int cols[MATRICES] = {s->hidden, s->hidden, s->hidden, q, s->hidden, s->hidden, s->ff};
    const struct mat from = mat_sample(&c->pool, GPU_SAMPLE, max_int(s->ff, s->hidden));
    *l = (struct gpu_layer){.c = c};
    for (int i = 0; i < MATRICES; i++) {
        int n = i == O || i == DOWN ? GPU_SHARES : 1;
        l->w[i] = (struct weight){type, rows[i], cols[i], 0, n, l->part[i], NULL};
        l->numbers += (double)rows[i] * cols[i];
        for (int p = 0; p < n; p++) {
            l->part[i][p] = (struct part){rows[i], cols[i] / n, NULL};
            l->bytes += part_bytes(type, rows[i], cols[i] / n);
        }
    }
    must(l->bytes <= s->region);
    l->copies = (int)(s->region / l->bytes);
    for (int k = 0; k < l->copies; k++) {
        place(l, c->region + (size_t)k * l->bytes);
        for (int i = 0; i < MATRICES; i++)
            for (int p = 0; p < l->w[i].n_part; p++)
                gpu_core_part(c, &l->part[i][p], type, &from);
    }
}

static struct mat first(const struct mat *m, int n) { return mat_rows(m, (struct span){0, n}); }

static void call_products(void *arg, const struct batch *batch, int i)
{
    static const struct mat none;
    struct gpu_layer *l = arg;
    struct gpu_core *c = l->c;
    struct weight *w = l->w;
    const int n = l->rows;
    struct mat x = first(&c->h, n), q = first(&c->q, n), k = first(&c->k, n), v = first(&c->v, n);
    struct mat gate = first(&c->gate, n), up = first(&c->up, n);
    struct planes y = {.n = 1, .at[0] = first(&c->y, n)};
    const struct term qkv[] = {{&q, &w[Q], &none}, {&k, &w[K], &none}, {&v, &w[V], &none}};
    const struct term both[] = {{&gate, &w[GATE], &none}, {&up, &w[UP], &none}};
    (void)batch;
    place(l, c->region + (size_t)(i % l->copies) * l->bytes);
    dev_matmuls(&c->dev, &x, qkv, COUNT(qkv));
    dev_partial(&c->dev, &y, &q, &w[O]);
    dev_matmuls(&c->dev, &x, both, COUNT(both));
    dev_partial(&c->dev, &y, &up, &w[DOWN]);
}

void gpu_core_products(struct gpu_core *c, enum num type, struct curve *to, double *bytes_s,
                       double *flops_s)
{
    enum { WHOLE = GPU_STREAMED_WHOLE, ALL = GPU_STREAMED, SMALL = 32, RECORDED = 64 };
    static const int rows[] = {1,       2,   4,     WHOLE,     WHOLE + 1, 12,       ALL,
                               ALL + 1, 24,  SMALL, SMALL + 1, 48,        RECORDED, RECORDED + 1,
                               96,      128, 192,   256,       512,       1024,     2048};
    _Static_assert(COUNT(rows) <= CURVE_MAX, "a curve has room for them");
    struct gpu_layer *l = pool_get(&c->pool, sizeof(*l));
    *to = (struct curve){.source = SOURCE_MEASURED};
    *bytes_s = *flops_s = 0;
    make_layer(l, c, type);
    for (size_t i = 0; i < COUNT(rows) && rows[i] <= c->shape.rows_most && !gpu_core_rc(c); i++) {
        const struct batch b = gpu_core_batch(c, rows[i]);
        l->rows = rows[i];
        struct figure s = gpu_core_time(c, &b, CASE_PRODUCTS + (int)type, call_products, l);
        double took = s.value - fmin(LAYER_OPS * c->op_s, 0.5 * s.value);
        to->x[to->n] = rows[i];
        to->y[to->n++] = took / l->numbers;
        to->error = fmax(to->error, s.error);
        *bytes_s = fmax(*bytes_s, (double)l->bytes / s.value);
        *flops_s = fmax(*flops_s, 2 * l->numbers * rows[i] / s.value);
    }
}
