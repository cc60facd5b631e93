/* calibrate_attention.c - attention over short and long contexts, few and many rows. See
 * calibrate_core.h. */
#include "predict/attend_case.h"
#include "predict/calibrate_core.h"
#include "predict/fit.h"

#include <math.h>

struct core_case {
    struct core_bench *b;
    struct attend_case of;
};

static void call_attend(void *arg, int i)
{
    struct core_case *c = arg;
    struct attend_case *a = &c->of;
    attend_case_turn(a, c->b->region, i);
    dev_attend(&c->b->dev, &a->y, &a->q, &a->cache, &a->heads, &a->batch);
    member_meet(c->b->m);
}

static struct core_case core_case(struct core_bench *b, enum num type, int group, int n_seq,
                                  int rows, int context)
{
    const struct attend_shape s = {HEADS_KV, group, DIM, n_seq, rows, context};
    struct core_case c = {b, attend_case(&b->pool, type, s, REGION)};
    c.of.q.at = b->q.at, c.of.y.at = b->o.at;
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
static double row_seconds(const struct core_bench *b, const struct attend_case *near,
                          const struct attend_case *far, const struct figure *s)
{
    double slope = (s[1].value - s[0].value) / (far->madds - near->madds);
    double fixed = s[0].value - b->op_s - fmax(0, slope) * near->madds;
    return fmax(0, fixed) / ((double)near->q.n * near->q.dim / DIM);
}

void core_attention(struct core_bench *b, enum num type, struct figure *byte_s,
                    struct curve *madd_s, double *row_s)
{
    static const struct {
        int group, n_seq, rows, context;
    } is[] = {{1, 4, 1, 2048},  {4, 4, 1, 256},   {4, 4, 1, 2048},  {4, 1, 4, 256},
              {4, 1, 4, 2048},  {4, 1, 16, 256},  {4, 1, 16, 2048}, {4, 1, 64, 256},
              {4, 1, 64, 2048}, {4, 1, 256, 256}, {4, 1, 256, 2048}};
    struct core_case c[COUNT(is)];
    struct figure s[COUNT(is)];
    void *arg[COUNT(is)];
    fill_keys(b, type);
    for (size_t i = 0; i < COUNT(is); i++) {
        c[i] = core_case(b, type, is[i].group, is[i].n_seq, is[i].rows, is[i].context);
        arg[i] = &c[i];
    }
    core_time(b, call_attend, arg, COUNT(is), s);
    *row_s = row_seconds(b, &c[1].of, &c[2].of, &s[1]);
    *byte_s = (struct figure){beyond(b, &c[0].of, &s[0], *row_s) / c[0].of.read, s[0].error,
                              SOURCE_MEASURED};
    *madd_s = (struct curve){.n = COUNT(is) / 2, .source = SOURCE_MEASURED};
    for (int i = 0; i < madd_s->n; i++) { /* short and long contexts count alike */
        const struct attend_case *low = &c[2 * i + 1].of, *high = &c[2 * i + 2].of;
        const struct figure *took = &s[2 * i + 1];
        double near = fmax(1e-15, beyond(b, low, took, *row_s) / low->madds),
               far = fmax(1e-15, beyond(b, high, took + 1, *row_s) / high->madds);
        madd_s->x[i] = is[2 * i + 1].rows;
        madd_s->y[i] = sqrt(near * far);
        madd_s->error += (fabs(near - far) / (near + far) + took->error) / madd_s->n;
    }
    madd_s->error = fmin(madd_s->error, FIT_ERROR_MOST);
}
