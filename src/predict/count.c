/* count.c - see count.h. Speeds and times are not its business. */
#include "predict/count.h"
#include "comm/price.h"
#include "run/rank.h"

/* ----------------------------------------------------------- a rank without numbers */

/* Lay the rank out with its tables in `host` and no memory for numbers. */
static void lay_out(struct rank *r, const struct plan *p, int id, struct arena *host)
{
    struct arena dev = {0}, peer = {0}, data = {0};
    rank_lay_out(r, p, id, host, &dev, &peer);
    weights_lay_out(&r->weights, p, id, host, &data);
    for (int l = r->layers.lo; r->kv && l < r->layers.hi; l++)
        r->kv[l] = (struct kv){.type = p->kv,
                               .n_head = len(plan_share(p, id, KVHEADS)),
                               .head_dim = p->model.head_dim};
}

struct batch step_batch(struct step_shape s, struct pool *pool)
{
    int n = s.n_seq * s.n_new, stride = s.last / KV_PAGE + 1;
    int *tok = pool_get(pool, (size_t)n * sizeof(int)),
        *pos = pool_get(pool, (size_t)n * sizeof(int));
    int *slot = pool_get(pool, (size_t)n * sizeof(int)),
        *seq = pool_get(pool, (size_t)n * sizeof(int));
    int *page = pool_get(pool, (size_t)s.n_seq * (size_t)stride * sizeof(int));
    int *out = pool_get(pool, (size_t)s.n_seq * sizeof(int));
    for (int i = 0; i < s.n_seq * stride; i++)
        page[i] = i;
    for (int i = 0; i < n; i++) {
        tok[i] = 1;
        seq[i] = i / s.n_new;
        pos[i] = s.last - s.n_new + 1 + i % s.n_new;
        slot[i] = seq[i] * stride * KV_PAGE + pos[i];
    }
    for (int i = 0; i < s.n_seq; i++)
        out[i] = (i + 1) * s.n_new - 1;
    return (struct batch){n, s.n_seq, s.n_seq, tok, pos, slot, seq, page, stride, out};
}

void count_step(const struct plan *p, int rank, struct step_shape shape, struct step_cost *to)
{
    struct rank r;
    struct pool pool = {0};
    struct arena host = {0};
    lay_out(&r, p, rank, &host); /* over nothing: how large are the tables? */
    char *base = pool_get(&pool, host.used + ARENA_ALIGN);
    base += (ARENA_ALIGN - (uintptr_t)base % ARENA_ALIGN) % ARENA_ALIGN;
    host = (struct arena){.base = base, .size = host.used};
    lay_out(&r, p, rank, &host);

    struct dev dev = {.ops = &dev_count, .speed = {1, 1, 0}};
    struct comm tp, pp;
    struct comm_price price[2] = {{.bytes_s = 1, .clock = &dev.clock},
                                  {.bytes_s = 1, .clock = &dev.clock}};
    comm_price_open(&tp, &price[0], plan_slice(p, rank), p->tp, p->cut);
    comm_price_open(&pp, &price[1], plan_stage(p, rank), p->pp, NULL);
    r.dev = &dev, r.tp = &tp, r.pp = &pp;

    struct batch b = step_batch(shape, &pool);
    forward(&r, &b);
    must(!dev.err && !tp.err && !pp.err);

    *to = (struct step_cost){dev.flops, dev.bytes, tp.calls + pp.calls, tp.bytes + pp.bytes};
    pool_free(&pool);
}
