/* calibrate_rates.c - what one core does while others do the same: products and attention by their
 * own files, the other operations and drawing here. See calibrate.h. */
#include "predict/calibrate_core.h"
#include "predict/calibrate_inside.h"
#include "predict/fit.h"
#include "run/sample.h"

enum {
    VOCABULARY = 128256,
    DRAW_ROWS = 32, /* more than fits into a core's own caches */
    SHARED_OPS = 5, /* operations of a layer that a rank's threads share out: products, attention */
    OTHER_OPS = 8   /* the rest of a layer */
};

/* ------------------------------------------------------------------------------- the rest */

struct other_case {
    struct core_bench *b;
    struct kv cache;
    int rows, slot[ROWS_MOST];
};

/* What a layer does beside products and attention. */
static void call_others(void *arg, int i)
{
    static const struct mat none;
    struct other_case *c = arg;
    struct core_bench *b = c->b;
    struct mat x = core_rows(&b->x, c->rows), h = core_rows(&b->h, c->rows),
               q = core_rows(&b->q, c->rows), k = core_rows(&b->k, c->rows),
               v = core_rows(&b->v, c->rows), gate = core_rows(&b->gate, c->rows),
               up = core_rows(&b->up, c->rows), angle = core_rows(&b->angle, c->rows);
    (void)i;
    dev_norm(&b->dev, &h, &x, &b->norm, 1e-5f);
    dev_rope(&b->dev, &q, DIM, &angle);
    dev_rope(&b->dev, &k, DIM, &angle);
    dev_store(&b->dev, &c->cache, &k, &v, c->slot);
    dev_add(&b->dev, &x, &h, &none);
    dev_norm(&b->dev, &h, &x, &b->norm, 1e-5f);
    dev_swiglu(&b->dev, &gate, &up);
    dev_add(&b->dev, &x, &h, &none);
}

/* As dev/count.c counts them: everything read or written once. */
static double other_bytes(int rows)
{
    double row = 4.0 * HIDDEN, keys = 4.0 * HEADS_KV * DIM, angle = 4.0 * DIM;
    double norm = 2 * row * rows + row, add = 3 * row * rows;
    double rope = (2 * row + angle + 2 * keys + angle) * rows;
    double store = (2 * keys + HEADS_KV * (double)kv_row_bytes(NUM_BF16, DIM)) * rows;
    return 2 * norm + 2 * add + rope + store + 3 * 4.0 * FF * rows;
}

/* The same operations on next to nothing. */
static void call_tiny(void *arg, int i)
{
    static const struct mat none;
    struct core_bench *b = arg;
    struct mat x = {1, DIM, NUM_F32, b->x.at}, h = {1, DIM, NUM_F32, b->h.at},
               norm = {1, DIM, NUM_F32, b->norm.at}, angle = core_rows(&b->angle, 1);
    struct kv cache = {NUM_BF16, 1, DIM, kv_head_bytes(NUM_BF16, DIM), kv_head_bytes(NUM_BF16, DIM),
                       b->region};
    const int slot = 0;
    (void)i;
    dev_norm(&b->dev, &h, &x, &norm, 1e-5f);
    dev_rope(&b->dev, &h, DIM, &angle);
    dev_rope(&b->dev, &h, DIM, &angle);
    dev_store(&b->dev, &cache, &h, &h, &slot);
    dev_add(&b->dev, &x, &h, &none);
    dev_norm(&b->dev, &h, &x, &norm, 1e-5f);
    dev_swiglu(&b->dev, &h, &h);
    dev_add(&b->dev, &x, &h, &none);
}

static void measure_fixed(struct core_bench *b, struct figure *op_s)
{
    void *arg[] = {b};
    core_time(b, call_tiny, arg, 1, op_s);
    op_s->value /= OTHER_OPS;
}

/* By byte, beyond what is fixed: the middle of few and many rows, which are apart by the caches
 * that hold them. Angles of cosine 1 turn nothing, so numbers stay as small as they are. */
static void measure_others(struct core_bench *b, struct figure *byte_s)
{
    static const int rows[] = {1, 4, 16, 64};
    struct other_case *c = pool_get(&b->pool, COUNT(rows) * sizeof(*c));
    struct figure s[COUNT(rows)];
    double each[COUNT(rows)];
    void *arg[COUNT(rows)];
    for (size_t i = 0; i < COUNT(rows); i++) {
        c[i] = (struct other_case){
            .b = b,
            .cache = {.type = NUM_BF16, .n_head = HEADS_KV, .head_dim = DIM, .at = b->region},
            .rows = rows[i]};
        c[i].cache.head_bytes = kv_head_bytes(NUM_BF16, DIM);
        c[i].cache.page_bytes = c[i].cache.head_bytes * HEADS_KV;
        for (int r = 0; r < rows[i]; r++)
            c[i].slot[r] = r;
        arg[i] = &c[i];
    }
    core_time(b, call_others, arg, COUNT(rows), s);
    for (size_t i = 0; i < COUNT(rows); i++)
        each[i] = (s[i].value - OTHER_OPS * b->op_s) / other_bytes(rows[i]);
    *byte_s = fit_median(each, COUNT(rows));
}

struct draw_case {
    float *logits;
    void *scratch;
};

static void call_draw(void *arg, int i)
{
    static const struct sample_rules none;
    struct draw_case *c = arg;
    float *row = c->logits + (size_t)(i % DRAW_ROWS) * VOCABULARY;
    must(sample(row, VOCABULARY, &sampling_greedy, &none, (uint64_t)i, c->scratch) >= 0);
}

static void measure_draw(struct core_bench *b, struct figure *to)
{
    struct mat logits = mat_sample(&b->pool, DRAW_ROWS, VOCABULARY);
    for (int i = 0; i < DRAW_ROWS; i++)
        mat_row(&logits, i)[VOCABULARY / 2] = 2; /* the largest is found halfway */
    struct draw_case c = {logits.at, pool_get(&b->pool, sample_scratch(VOCABULARY))};
    void *arg[] = {&c};
    core_time(b, call_draw, arg, 1, to);
    to->value /= VOCABULARY;
}

/* ------------------------------------------------------------------------------- together */

static int rates_member(struct member *m, void *arg, struct err *e)
{
    static const enum num keys[] = {NUM_F32, NUM_BF16, NUM_INT8};
    const struct calibrate_opts *o = arg;
    struct core_bench b = {.m = m};
    double row_s[COUNT(keys)];
    struct rates ignored, *to = m->rank ? &ignored : (void *)m->shared;
    int rc = core_open(&b, o->isa, 1, NULL, e);
    if (rc)
        return rc;
    struct mat from = mat_sample(&b.pool, 64, FF);
    measure_fixed(&b, &to->op_s);
    b.op_s = to->op_s.value;
    measure_others(&b, &to->byte_s);
    member_done(m);
    measure_draw(&b, &to->draw_s);
    member_done(m);
    for (int t = 0; t < NUM_COUNT; t++)
        if (num_can_weigh((enum num)t)) {
            if (!o->only_one || t == (int)o->only)
                core_products(&b, (enum num)t, &from, &to->product[t]);
            member_done(m);
        }
    for (size_t i = 0; i < COUNT(keys); i++) {
        core_attention(&b, keys[i], &to->attend_byte_s[keys[i]], &to->attend_madd_s[keys[i]],
                       &row_s[i]);
        member_done(m);
    }
    to->attend_row_s = fit_median(row_s, COUNT(keys));
    return 0;
}

int calibrate_rates(struct members *g, struct rates *to, struct err *e)
{
    struct calibrate_opts opts = *g->opts;
    int rc = members_share(sizeof(*to), &g->shared, e);
    if (!rc)
        rc = members_run(g, rates_member, &opts, e);
    if (!rc) {
        memcpy(to, g->shared, sizeof(*to));
        to->active = g->n;
    }
    members_unshare(g->shared, sizeof(*to));
    g->done += RATES_STEPS;
    return rc;
}

static void no_work(void *arg, int thread, int n) { (void)arg, (void)thread, (void)n; }

static void call_meeting(void *arg, int i)
{
    struct core_bench *b = arg;
    (void)i;
    dev_together(&b->dev, no_work, NULL);
}

/* The threads of a rank come together and part. */
static void measure_meeting(struct core_bench *b, struct figure *to)
{
    void *arg[] = {b};
    core_time(b, call_meeting, arg, 1, to);
}

struct split_work {
    enum isa isa;
    int threads, core[64];
};

static int split_member(struct member *m, void *arg, struct err *e)
{
    const struct split_work *w = arg;
    struct core_bench b = {.m = m};
    int rc = core_open(&b, w->isa, w->threads, w->core, e);
    if (rc)
        return rc;
    measure_meeting(&b, (void *)m->shared);
    dev_cpu_stop(&b.dev);
    member_done(m);
    return 0;
}

int calibrate_split(struct members *g, int threads, struct figure *to, struct err *e)
{
    /* Products and attention are shared out; what only passes over a few rows is not. */
    const double shared_out = (double)SHARED_OPS / (SHARED_OPS + OTHER_OPS);
    struct split_work w = {.isa = g->opts->isa, .threads = threads};
    must(g->n == 1 && 1 < threads && threads <= (int)COUNT(w.core));
    host_run(g->host, g->host->core[0].cpu, threads, w.core);
    int rc = members_share(sizeof(*to), &g->shared, e);
    if (!rc)
        rc = members_run(g, split_member, &w, e);
    if (!rc) {
        memcpy(to, g->shared, sizeof(*to));
        to->value *= shared_out / (threads - 1);
    }
    members_unshare(g->shared, sizeof(*to));
    g->done++;
    return rc;
}
