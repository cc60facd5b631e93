/* calibrate_attention.c - attention over short and long contexts, few and many rows. See
 * calibrate_core.h. */
#include "predict/calibrate_core.h"
#include "predict/fit.h"

#include <math.h>

/* Sequences alike, the last `rows` tokens of each in the step. */
struct attend_case {
    struct core_bench *b;
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
    member_meet(c->b->m);
}

/* Pages of the region in no order; query heads: group for each of the cache's. */
static struct attend_case attend_case(struct core_bench *b, enum num type, int group, int n_seq,
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
static void fill_keys(struct core_bench *b, enum num type)
{
    struct mat row = mat_sample(&b->pool, 1, HEADS_KV * DIM);
    struct kv cache = {.type = type, .n_head = HEADS_KV, .head_dim = DIM, .at = b->region};
    cache.head_bytes = kv_head_bytes(type, DIM);
    cache.page_bytes = cache.head_bytes * HEADS_KV;
    for (int slot = 0; slot < KV_PAGE; slot++)
        dev_store(&b->dev, &cache, &row, &row, &slot);
    for (size_t at = cache.page_bytes; at + cache.page_bytes <= REGION; at += cache.page_bytes)
        memcpy(b->region + at, b->region, cache.page_bytes);
}

/* What a case costs beyond the operation and its rows. */
static double beyond(const struct core_bench *b, const struct attend_case *c,
                     const struct figure *s, double row_s)
{
    return s->value - b->op_s - row_s * c->q.n * c->q.dim / DIM;
}

/* Of a short and a long context: what each row of each head costs however short it is. */
static double row_seconds(const struct core_bench *b, const struct attend_case *c,
                          const struct figure *s)
{
    double slope = (s[1].value - s[0].value) / (c[1].madds - c[0].madds);
    double fixed = s[0].value - b->op_s - fmax(0, slope) * c[0].madds;
    return fmax(0, fixed) / ((double)c[0].q.n * c[0].q.dim / DIM);
}

void core_attention(struct core_bench *b, enum num type, struct figure *byte_s,
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
    core_time(b, call_attend, arg, COUNT(is), s);
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
