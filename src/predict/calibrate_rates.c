/* calibrate_rates.c - what one core does while others do the same: products, attention, the other
 * operations, drawing. Shapes are those of a model of one billion parameters. See calibrate.h. */
#include "base/arena.h"
#include "predict/calibrate_inside.h"
#include "predict/fit.h"
#include "run/room.h"
#include "run/sample.h"

#include <math.h>

enum {
    HIDDEN = 2048,
    FF = 8192,
    HEADS_Q = 32,
    HEADS_KV = 8,
    DIM = 64, /* of a head */
    VOCABULARY = 128256,
    SHARES = 8,
    ROWS_MOST = 256,
    LAYER_OPS = 4, /* products of a layer, as operations */
    OTHER_OPS = 8, /* the rest of a layer, but attention */
    ROUNDS = 5,
    DRAW_ROWS = 32,    /* more than fits into a core's own caches */
    REGION = 256 << 20 /* a layer's weights in f32; several of them in smaller formats */
};

/* What a member works with. */
struct bench {
    struct member *m;
    struct dev dev;
    char *region; /* weights or keys: larger than a core's share of the last cache */
    struct mat x, h, k, v, angle, q, o, gate, up, y; /* of ROWS_MOST rows */
    struct mat norm;
    double op_s;
    struct pool pool;
};

static struct mat get_mat(struct bench *b, int n, int dim)
{
    struct mat m = {n, dim, NUM_F32, NULL};
    m.at = pool_get(&b->pool, mat_bytes(&m) + ARENA_ALIGN);
    m.at = (char *)m.at + (ARENA_ALIGN - (uintptr_t)m.at % ARENA_ALIGN) % ARENA_ALIGN;
    for (int64_t i = 0; i < (int64_t)n * dim; i++)
        ((float *)m.at)[i] = (float)(i % 2001 * 7919 % 2001 - 1000) * 1e-3f;
    return m;
}

static struct mat rows_of(const struct mat *m, int n) { return mat_rows(m, (struct span){0, n}); }

/* Medians of ROUNDS turns over n cases; each turn takes all cases, so that a machine that slows
 * down slows all of them. A case is timed for some milliseconds. */
static void time_cases(struct bench *b, member_call *call, void *const *arg, int n,
                       struct figure *to)
{
    const double least_s = 0.004;
    double s[16][ROUNDS];
    int calls[16];
    must(n <= 16);
    for (int i = 0; i < n; i++) {
        double first = member_time(b->m, call, arg[i], 1);
        double warm = first < least_s ? member_time(b->m, call, arg[i], 3) : first;
        calls[i] = warm * 1000 > least_s ? (int)(least_s / warm) + 1 : 1000;
    }
    for (int r = 0; r < ROUNDS; r++)
        for (int i = 0; i < n; i++)
            s[i][r] = member_time(b->m, call, arg[i], calls[i]);
    for (int i = 0; i < n; i++)
        to[i] = fit_median(s[i], ROUNDS);
}

/* ------------------------------------------------------------------------------- products */

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
    struct bench *b;
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

static void make_layer(struct bench *b, struct layer_weights *l, enum num type,
                       const struct mat *from)
{
    *l = (struct layer_weights){0};
    for (int i = 0; i < MATRICES; i++) {
        int n = shape[i].cut ? SHARES : 1;
        l->w[i] = (struct weight){type, shape[i].rows, shape[i].cols, 0, n, l->part[i]};
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

/* All products of a layer, on the next copy of the weights. */
static void call_products(void *arg, int i)
{
    static const struct mat none;
    struct product_case *c = arg;
    struct bench *b = c->b;
    struct weight *w = c->l->w;
    struct mat x = rows_of(&b->h, c->rows), q = rows_of(&b->q, c->rows),
               k = rows_of(&b->k, c->rows), v = rows_of(&b->v, c->rows),
               gate = rows_of(&b->gate, c->rows), up = rows_of(&b->up, c->rows);
    struct planes y = {.n = 1, .at[0] = rows_of(&b->y, c->rows)};
    const struct term qkv[] = {{&q, &w[Q], &none}, {&k, &w[K], &none}, {&v, &w[V], &none}};
    const struct term both[] = {{&gate, &w[GATE], &none}, {&up, &w[UP], &none}};
    place(c->l, b->region + (size_t)(i % c->l->copies) * c->l->bytes);
    dev_matmuls(&b->dev, &x, qkv, COUNT(qkv));
    dev_partial(&b->dev, &y, &x, &w[O]);
    dev_matmuls(&b->dev, &x, both, COUNT(both));
    dev_partial(&b->dev, &y, &up, &w[DOWN]);
}

static void measure_products(struct bench *b, enum num type, const struct mat *from,
                             struct curve *to)
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
    time_cases(b, call_products, arg, to->n, s);
    for (int i = 0; i < to->n; i++) {
        double fixed = fmin(LAYER_OPS * b->op_s, 0.5 * s[i].value);
        to->x[i] = rows[i];
        to->y[i] = (s[i].value - fixed) / l.numbers;
        to->error += s[i].error / to->n;
    }
}

/* ------------------------------------------------------------------------------- attention */

/* Sequences alike, the last `rows` tokens of each in the step. */
struct attend_case {
    struct bench *b;
    struct kv cache;
    struct heads heads;
    struct batch batch;
    struct mat q, y;
    int copies;
    size_t bytes; /* of the pages of all sequences */
    double read, madds;
};

static void call_attend(void *arg, int i)
{
    struct attend_case *c = arg;
    c->cache.at = c->b->region + (size_t)(i % c->copies) * c->bytes;
    dev_attend(&c->b->dev, &c->y, &c->q, &c->cache, &c->heads, &c->batch);
}

/* Pages of the region in no order; query heads: group for each of the cache's. */
static struct attend_case attend_case(struct bench *b, enum num type, int group, int n_seq,
                                      int rows, int context)
{
    int pages = (context + KV_PAGE - 1) / KV_PAGE, n = n_seq * rows, dim = HEADS_KV * group * DIM;
    int *pos = pool_get(&b->pool, (size_t)n * sizeof(int)),
        *seq = pool_get(&b->pool, (size_t)n * sizeof(int)),
        *page = pool_get(&b->pool, (size_t)(n_seq * pages) * sizeof(int));
    struct attend_case c = {.b = b,
                            .cache = {.type = type, .n_head = HEADS_KV, .head_dim = DIM},
                            .heads = {.head_dim = DIM, .group = group, .scale = 0.125f},
                            .q = {n, dim, NUM_F32, b->q.at},
                            .y = {n, dim, NUM_F32, b->o.at}};
    double pairs = 0;
    for (int i = 0; i < n_seq * pages; i++)
        page[i] = n_seq * pages - 1 - i;
    for (int i = 0; i < n; i++) {
        seq[i] = i / rows, pos[i] = context - rows + i % rows;
        pairs += pos[i] + 1;
    }
    c.batch = (struct batch){
        .n_tok = n, .n_seq = n_seq, .pos = pos, .seq = seq, .page = page, .stride = pages};
    c.cache.head_bytes = kv_head_bytes(type, DIM);
    c.cache.page_bytes = c.cache.head_bytes * HEADS_KV;
    c.bytes = c.cache.page_bytes * (size_t)(n_seq * pages);
    c.copies = (int)(REGION / c.bytes);
    c.read = (double)n_seq * context * HEADS_KV * (double)kv_row_bytes(type, DIM);
    c.madds = 2 * pairs * dim;
    must(c.copies > 0);
    return c;
}

/* Small numbers in all of the region. */
static void fill_keys(struct bench *b, enum num type)
{
    struct mat row = get_mat(b, 1, HEADS_KV * DIM);
    struct kv cache = {.type = type, .n_head = HEADS_KV, .head_dim = DIM, .at = b->region};
    cache.head_bytes = kv_head_bytes(type, DIM);
    cache.page_bytes = cache.head_bytes * HEADS_KV;
    for (int slot = 0; slot < KV_PAGE; slot++)
        dev_store(&b->dev, &cache, &row, &row, &slot);
    for (size_t at = cache.page_bytes; at + cache.page_bytes <= REGION; at += cache.page_bytes)
        memcpy(b->region + at, b->region, cache.page_bytes);
}

/* What a case costs beyond the operation and its rows. */
static double beyond(const struct bench *b, const struct attend_case *c, const struct figure *s,
                     double row_s)
{
    return s->value - b->op_s - row_s * c->q.n * c->q.dim / DIM;
}

/* Of a short and a long context: what each row of each head costs however short it is. */
static double row_seconds(const struct bench *b, const struct attend_case *c,
                          const struct figure *s)
{
    double slope = (s[1].value - s[0].value) / (c[1].madds - c[0].madds);
    double fixed = s[0].value - b->op_s - fmax(0, slope) * c[0].madds;
    return fmax(0, fixed) / ((double)c[0].q.n * c[0].q.dim / DIM);
}

static void measure_attention(struct bench *b, enum num type, struct figure *byte_s,
                              struct curve *madd_s, double *row_s)
{
    static const struct {
        int group, n_seq, rows, context;
    } is[] = {{1, 4, 1, 2048},  {4, 4, 1, 256},   {4, 4, 1, 2048},  {4, 1, 4, 256},
              {4, 1, 4, 2048},  {4, 1, 16, 256},  {4, 1, 16, 2048}, {4, 1, 64, 256},
              {4, 1, 64, 2048}, {4, 1, 256, 256}, {4, 1, 256, 2048}};
    struct attend_case c[COUNT(is)];
    struct figure s[COUNT(is)];
    void *arg[COUNT(is)];
    fill_keys(b, type);
    for (size_t i = 0; i < COUNT(is); i++) {
        c[i] = attend_case(b, type, is[i].group, is[i].n_seq, is[i].rows, is[i].context);
        arg[i] = &c[i];
    }
    time_cases(b, call_attend, arg, COUNT(is), s);
    *row_s = row_seconds(b, &c[1], &s[1]);
    *byte_s =
        (struct figure){beyond(b, &c[0], &s[0], *row_s) / c[0].read, s[0].error, SOURCE_MEASURED};
    *madd_s = (struct curve){.n = COUNT(is) / 2, .source = SOURCE_MEASURED};
    for (int i = 0; i < madd_s->n; i++) { /* short and long contexts count alike */
        const struct attend_case *pair = &c[2 * i + 1];
        const struct figure *took = &s[2 * i + 1];
        double near = fmax(1e-15, beyond(b, pair, took, *row_s) / pair[0].madds),
               far = fmax(1e-15, beyond(b, pair + 1, took + 1, *row_s) / pair[1].madds);
        madd_s->x[i] = is[2 * i + 1].rows;
        madd_s->y[i] = sqrt(near * far);
        madd_s->error += (fabs(near - far) / (near + far) + took->error) / madd_s->n;
    }
    madd_s->error = fmin(madd_s->error, FIT_ERROR_MOST);
}

/* ------------------------------------------------------------------------------- the rest */

struct other_case {
    struct bench *b;
    struct kv cache;
    int rows, slot[ROWS_MOST];
};

/* What a layer does beside products and attention. */
static void call_others(void *arg, int i)
{
    static const struct mat none;
    struct other_case *c = arg;
    struct bench *b = c->b;
    struct mat x = rows_of(&b->x, c->rows), h = rows_of(&b->h, c->rows),
               q = rows_of(&b->q, c->rows), k = rows_of(&b->k, c->rows),
               v = rows_of(&b->v, c->rows), gate = rows_of(&b->gate, c->rows),
               up = rows_of(&b->up, c->rows), angle = rows_of(&b->angle, c->rows);
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
    struct bench *b = arg;
    struct mat x = {1, DIM, NUM_F32, b->x.at}, h = {1, DIM, NUM_F32, b->h.at},
               norm = {1, DIM, NUM_F32, b->norm.at}, angle = rows_of(&b->angle, 1);
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

static void measure_fixed(struct bench *b, struct figure *op_s)
{
    void *arg[] = {b};
    time_cases(b, call_tiny, arg, 1, op_s);
    op_s->value /= OTHER_OPS;
}

/* By byte, beyond what is fixed: the middle of few and many rows, which are apart by the caches
 * that hold them. Angles of cosine 1 turn nothing, so numbers stay as small as they are. */
static void measure_others(struct bench *b, struct figure *byte_s)
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
    time_cases(b, call_others, arg, COUNT(rows), s);
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

static void measure_draw(struct bench *b, struct figure *to)
{
    struct mat logits = get_mat(b, DRAW_ROWS, VOCABULARY);
    for (int i = 0; i < DRAW_ROWS; i++)
        mat_row(&logits, i)[VOCABULARY / 2] = 2; /* the largest is found halfway */
    struct draw_case c = {logits.at, pool_get(&b->pool, sample_scratch(VOCABULARY))};
    void *arg[] = {&c};
    time_cases(b, call_draw, arg, 1, to);
    to->value /= VOCABULARY;
}

/* ------------------------------------------------------------------------------- together */

/* The device, its threads and what it works on. */
static int open_bench(struct bench *b, enum isa isa, int threads, const int *core, struct err *e)
{
    struct arena a = {0};
    int rc = map_memory(REGION, false, &b->region, e);
    if (!rc)
        rc = touch_memory(b->region, REGION, e);
    if (rc)
        return rc;
    dev_cpu_init(&b->dev, isa, ROWS_MOST, FF, threads, &a);
    char *scratch = aligned_alloc(ARENA_ALIGN, round_up(a.used, ARENA_ALIGN));
    must(scratch);
    a = (struct arena){.base = scratch, .size = a.used};
    dev_cpu_init(&b->dev, isa, ROWS_MOST, FF, threads, &a);
    dev_cpu_start(&b->dev, core);
    b->x = get_mat(b, ROWS_MOST, HIDDEN), b->h = get_mat(b, ROWS_MOST, HIDDEN);
    b->q = get_mat(b, ROWS_MOST, HIDDEN), b->o = get_mat(b, ROWS_MOST, HIDDEN);
    b->k = get_mat(b, ROWS_MOST, HEADS_KV * DIM), b->v = get_mat(b, ROWS_MOST, HEADS_KV * DIM);
    b->gate = get_mat(b, ROWS_MOST, FF), b->up = get_mat(b, ROWS_MOST, FF);
    b->y = get_mat(b, ROWS_MOST, HIDDEN);
    b->norm = get_mat(b, 1, HIDDEN);
    b->angle = get_mat(b, ROWS_MOST, DIM);
    for (int i = 0; i < b->angle.n * b->angle.dim; i++) /* cosines 1, sines 0 */
        ((float *)b->angle.at)[i] = i % DIM < DIM / 2;
    return 0;
}

static int rates_member(struct member *m, void *arg, struct err *e)
{
    static const enum num keys[] = {NUM_F32, NUM_BF16, NUM_INT8};
    const struct calibrate_opts *o = arg;
    struct bench b = {.m = m};
    double row_s[COUNT(keys)];
    struct rates ignored, *to = m->rank ? &ignored : (void *)m->shared;
    int rc = open_bench(&b, o->isa, 1, NULL, e);
    if (rc)
        return rc;
    struct mat from = get_mat(&b, 64, FF);
    measure_fixed(&b, &to->op_s);
    b.op_s = to->op_s.value;
    measure_others(&b, &to->byte_s);
    member_done(m);
    measure_draw(&b, &to->draw_s);
    member_done(m);
    for (int t = 0; t < NUM_COUNT; t++)
        if (t != NUM_I32 && (!o->only_one || t == (int)o->only)) {
            measure_products(&b, (enum num)t, &from, &to->product[t]);
            member_done(m);
        }
    for (size_t i = 0; i < COUNT(keys); i++) {
        measure_attention(&b, keys[i], &to->attend_byte_s[keys[i]], &to->attend_madd_s[keys[i]],
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
    struct bench *b = arg;
    (void)i;
    dev_together(&b->dev, no_work, NULL);
}

/* The threads of a rank come together and part. */
static void measure_meeting(struct bench *b, struct figure *to)
{
    void *arg[] = {b};
    time_cases(b, call_meeting, arg, 1, to);
}

struct split_work {
    enum isa isa;
    int threads, core[64];
};

static int split_member(struct member *m, void *arg, struct err *e)
{
    const struct split_work *w = arg;
    struct bench b = {.m = m};
    int rc = open_bench(&b, w->isa, w->threads, w->core, e);
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
    const double shared_out = (double)(LAYER_OPS + 1) / (LAYER_OPS + 1 + OTHER_OPS);
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
