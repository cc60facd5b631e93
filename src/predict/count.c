/* count.c - see count.h. Speeds and times are not its business. */
#include "predict/count.h"
#include "predict/probe.h"

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
        tok[i] = 1 + i * 37 % STEP_WORDS;
        seq[i] = i / s.n_new;
        pos[i] = s.last - s.n_new + 1 + i % s.n_new;
        slot[i] = seq[i] * stride * KV_PAGE + pos[i];
    }
    for (int i = 0; i < s.n_seq; i++)
        out[i] = (i + 1) * s.n_new - 1;
    return (struct batch){n, s.n_seq, s.n_seq, tok, pos, slot, seq, page, stride, out, NULL, NULL};
}

void count_step(const struct plan *p, int rank, struct step_shape shape, struct step_cost *to)
{
    struct probe x;
    struct pool pool = {0};
    probe_open(&x, p, rank, &pool);
    struct batch b = step_batch(shape, &pool);
    forward(&x.rank, &b);
    must(!x.dev.err && !x.tp.err && !x.pp.err);
    *to = (struct step_cost){x.dev.count.flops, x.dev.count.bytes, x.tp.calls + x.pp.calls,
                             x.tp.bytes + x.pp.bytes};
    pool_free(&pool);
}
