/* calibrate_products.c - all products of a layer, on packed weights that come from memory. See
 * calibrate_core.h. */
#include "predict/calibrate_core.h"
#include "predict/fit.h"

#include <math.h>

enum { LAYER_OPS = 4 }; /* products of a layer, as operations */

/* A layer's matrices. */
enum { Q, K, V, O, GATE, UP, DOWN, MATRICES };

static const struct {
    int rows, cols;
    bool cut;
} shape[MATRICES] = {[Q] = {HIDDEN, HIDDEN, false},
                     [K] = {HEADS_KV * DIM, HIDDEN, false},
                     [V] = {HEADS_KV * DIM, HIDDEN, false},
                     [O] = {HIDDEN, HIDDEN, true},
                     [GATE] = {FF, HIDDEN, false},
                     [UP] = {FF, HIDDEN, false},
                     [DOWN] = {HIDDEN, FF, true}};

struct layer_weights {
    struct weight w[MATRICES];
    struct part part[MATRICES][SHARES];
    size_t bytes;
    double numbers;
    int copies;
};

struct product_case {
    struct core_bench *b;
    struct layer_weights *l;
    int rows;
};

static void place(struct layer_weights *l, char *at)
{
    for (int i = 0; i < MATRICES; i++)
        for (int p = 0; p < l->w[i].n_part; p++) {
            l->part[i][p].at = at;
            at += part_bytes(l->w[i].type, l->part[i][p].rows, l->part[i][p].cols);
        }
}

/* Pack a few rows and repeat them: every block of rows is as long as any other. */
static void fill_part(const struct part *p, enum num type, const struct mat *from)
{
    struct stored s = {.at = from->at, .type = NUM_F32, .stride = (size_t)from->dim};
    struct part few = {min_int(from->n, p->rows), p->cols, p->at};
    size_t block = pack_block_bytes(type, p->cols) * (size_t)(few.rows / PACK_ROWS);
    must(!part_pack(&few, type, &s));
    for (int row = few.rows; row < p->rows; row += few.rows)
        memcpy((char *)p->at + block * (size_t)(row / few.rows), p->at, block);
}

static void make_layer(struct core_bench *b, struct layer_weights *l, enum num type,
                       const struct mat *from)
{
    *l = (struct layer_weights){0};
    for (int i = 0; i < MATRICES; i++) {
        int n = shape[i].cut ? SHARES : 1;
        l->w[i] = (struct weight){type, shape[i].rows, shape[i].cols, 0, n, l->part[i], NULL};
        l->numbers += (double)shape[i].rows * shape[i].cols;
        for (int p = 0; p < n; p++) {
            l->part[i][p] = (struct part){shape[i].rows, shape[i].cols / n, NULL};
            l->bytes += part_bytes(type, shape[i].rows, shape[i].cols / n);
        }
    }
    must(l->bytes <= REGION);
    l->copies = (int)(REGION / l->bytes);
    place(l, b->region);
    for (int i = 0; i < MATRICES; i++)
        for (int p = 0; p < l->w[i].n_part; p++)
            fill_part(&l->part[i][p], type, from);
    for (int i = 1; i < l->copies; i++)
        memcpy(b->region + (size_t)i * l->bytes, b->region, l->bytes);
}

/* All products of a layer, on the next copy of the weights. Members meet where slices of a layer
 * would: whoever got less of the memory is waited for. */
static void call_products(void *arg, int i)
{
    static const struct mat none;
    struct product_case *c = arg;
    struct core_bench *b = c->b;
    struct weight *w = c->l->w;
    struct mat x = core_rows(&b->h, c->rows), q = core_rows(&b->q, c->rows),
               k = core_rows(&b->k, c->rows), v = core_rows(&b->v, c->rows),
               gate = core_rows(&b->gate, c->rows), up = core_rows(&b->up, c->rows);
    struct planes y = {.n = 1, .at[0] = core_rows(&b->y, c->rows)};
    const struct term qkv[] = {{&q, &w[Q], &none}, {&k, &w[K], &none}, {&v, &w[V], &none}};
    const struct term both[] = {{&gate, &w[GATE], &none}, {&up, &w[UP], &none}};
    place(c->l, b->region + (size_t)(i % c->l->copies) * c->l->bytes);
    dev_matmuls(&b->dev, &x, qkv, COUNT(qkv));
    dev_partial(&b->dev, &y, &x, &w[O]);
    member_meet(b->m);
    dev_matmuls(&b->dev, &x, both, COUNT(both));
    dev_partial(&b->dev, &y, &up, &w[DOWN]);
    member_meet(b->m);
}

void core_products(struct core_bench *b, enum num type, const struct mat *from, struct curve *to)
{
    static const int all[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256};
    static const int few[] = {1, 4, 12, 32, 64, 256};
    const bool usual = type == NUM_F32 || type == NUM_BF16 || type == NUM_INT8 || type == NUM_INT4;
    const int *rows = usual ? all : few;
    struct layer_weights l;
    struct product_case c[COUNT(all)];
    struct figure s[COUNT(all)];
    void *arg[COUNT(all)];
    make_layer(b, &l, type, from);
    *to = (struct curve){.n = usual ? COUNT(all) : COUNT(few), .source = SOURCE_MEASURED};
    for (int i = 0; i < to->n; i++) {
        c[i] = (struct product_case){b, &l, rows[i]};
        arg[i] = &c[i];
    }
    core_time(b, call_products, arg, to->n, s);
    for (int i = 0; i < to->n; i++) {
        double fixed = fmin(LAYER_OPS * b->op_s, 0.5 * s[i].value);
        to->x[i] = rows[i];
        to->y[i] = (s[i].value - fixed) / l.numbers;
        to->error += s[i].error / to->n;
    }
}
