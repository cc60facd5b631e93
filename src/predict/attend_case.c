/* attend_case.c - see attend_case.h. */
#include "predict/attend_case.h"

#include <math.h>

/* Pages of the region in no order. */
static struct batch batch_of(struct pool *pool, const struct attend_shape *s, int pages)
{
    const int n = s->n_seq * s->rows;
    int *pos = pool_get(pool, (size_t)n * sizeof(int)),
        *seq = pool_get(pool, (size_t)n * sizeof(int)),
        *page = pool_get(pool, (size_t)(s->n_seq * pages) * sizeof(int));
    for (int i = 0; i < s->n_seq * pages; i++)
        page[i] = s->n_seq * pages - 1 - i;
    for (int i = 0; i < n; i++)
        seq[i] = i / s->rows, pos[i] = s->context - s->rows + i % s->rows;
    return (struct batch){.n_tok = n,
                          .n_seq = s->n_seq,
                          .tok = seq,
                          .pos = pos,
                          .slot = seq,
                          .seq = seq,
                          .page = page,
                          .stride = pages};
}

struct attend_case attend_case(struct pool *pool, enum num type, struct attend_shape s,
                               size_t region)
{
    const int pages = (s.context + KV_PAGE - 1) / KV_PAGE, dim = s.heads_kv * s.group * s.dim;
    struct attend_case c = {
        .cache = {.type = type, .n_head = s.heads_kv, .head_dim = s.dim},
        .heads = {.head_dim = s.dim, .group = s.group, .scale = 1 / sqrtf((float)s.dim)}};
    double pairs = 0;
    c.cache.head_bytes = kv_head_bytes(type, s.dim);
    c.cache.page_bytes = c.cache.head_bytes * (size_t)s.heads_kv;
    s.n_seq = (int)min_size((size_t)s.n_seq, region / (c.cache.page_bytes * (size_t)pages));
    must(s.n_seq > 0);
    c.batch = batch_of(pool, &s, pages);
    for (int i = 0; i < c.batch.n_tok; i++)
        pairs += c.batch.pos[i] + 1;
    c.q = c.y = (struct mat){c.batch.n_tok, dim, NUM_F32, NULL};
    c.bytes = c.cache.page_bytes * (size_t)(s.n_seq * pages);
    c.copies = (int)(region / c.bytes);
    c.read = (double)s.n_seq * s.context * s.heads_kv * (double)kv_row_bytes(type, s.dim);
    c.madds = 2 * pairs * dim;
    return c;
}

void attend_case_turn(struct attend_case *c, char *region, int i)
{
    c->cache.at = region + (size_t)(i % c->copies) * c->bytes;
}
