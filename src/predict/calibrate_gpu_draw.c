/* calibrate_gpu_draw.c - what a GPU takes to draw a step's tokens, and to hand them to the host. */
#include "predict/calibrate_gpu_core.h"
#include "predict/fit.h"

#include <math.h>

enum { ROWS_MOST = 64, TOP_K = 50 };

struct draw_case {
    struct gpu_core *c;
    struct mat token, logits;
    struct draw_row row[ROWS_MOST];
    struct draw_rows rows;
    int drawn[ROWS_MOST];
};

/* Words as often as in texts: the i-th likeliest in proportion to 1/i (Zipf). */
static void fill_logits(struct gpu_core *c, const struct mat *to)
{
    enum { APART = 7919 }; /* a prime: the likeliest words lie far from each other */
    float *row = pool_get(&c->pool, (size_t)to->dim * sizeof(float));
    for (int i = 0; i < to->dim; i++)
        row[(size_t)i * APART % (size_t)to->dim] = -logf((float)(i + 1));
    for (int r = 0; r < to->n; r++)
        gpu_core_load(c, mat_row(to, r), row, (size_t)to->dim * sizeof(float));
}

static void call_draw(void *arg, const struct batch *b, int i)
{
    struct draw_case *d = arg;
    (void)b, (void)i;
    dev_draw(&d->c->dev, &d->token, &d->logits, &d->rows);
}

/* Steps that draw so many rows by this rule: what they take once, and by row and word. */
static void measure(struct draw_case *d, int id, const struct sampling *how, struct figure *op_s,
                    struct figure *each_s)
{
    static const int rows[] = {1, 4, 16, ROWS_MOST};
    struct gpu_core *c = d->c;
    struct fit_point p[COUNT(rows)];
    double spread = 0, a = 0, b = 0, error = 0;
    int n = 0;
    for (int i = 0; i < ROWS_MOST; i++)
        d->row[i] =
            (struct draw_row){.sampling = *how, .position = (uint64_t)i, .given = -1, .n_top = -1};
    for (size_t i = 0; i < COUNT(rows) && rows[i] <= c->shape.rows_most && !gpu_core_rc(c); i++) {
        struct batch batch = gpu_core_batch(c, rows[i]);
        d->logits.n = d->token.n = d->rows.n = rows[i];
        batch.draws = &d->rows;
        c->fetched = d->logits;
        const struct figure s = gpu_core_time(c, &batch, id, call_draw, d);
        p[n++] = (struct fit_point){(double)rows[i] * d->logits.dim, s.value};
        spread = fmax(spread, s.error);
    }
    c->fetched.n = 0;
    if (n < 2 || !fit_line(p, n, &a, &b, &error))
        return;
    error = fmin(FIT_ERROR_MOST, fmax(error, spread));
    *op_s = (struct figure){a, error, SOURCE_MEASURED};
    *each_s = (struct figure){b, error, SOURCE_MEASURED};
}

void gpu_core_draw(struct gpu_core *c, struct rates *to)
{
    static const struct sampling likeliest = {.top_p = 1, .repetition = 1},
                                 ranked = {.temperature = 0.7f,
                                           .top_p = 0.9f,
                                           .top_k = TOP_K,
                                           .repetition = 1,
                                           .seed = 1};
    const int most = min_int(ROWS_MOST, c->shape.rows_most);
    struct draw_case *d = pool_get(&c->pool, sizeof(*d));
    *d = (struct draw_case){.c = c,
                            .token = {most, 1, NUM_F32, NULL},
                            .logits = {most, c->shape.words, NUM_F32, NULL},
                            .rows = {.row = d->row, .token = d->drawn}};
    d->token.at = gpu_core_memory(c, mat_bytes(&d->token));
    d->logits.at = gpu_core_memory(c, mat_bytes(&d->logits));
    fill_logits(c, &d->logits);
    measure(d, CASE_DRAW, &likeliest, &to->draw_op_s, &to->draw_s);
    measure(d, CASE_RANK, &ranked, &to->rank_op_s, &to->rank_s);
}
