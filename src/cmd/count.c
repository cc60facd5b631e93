/* count.c - see count.h. Speeds and times are not its business. */
#include "cmd/count.h"
#include "run/rank.h"

/* ----------------------------------------------------------- groups that only count. Volumes are
 * those of shared memory (comm/shm.h): a rank reads what the others hold. */

static void count(struct comm *c, size_t bytes)
{
    c->calls++;
    c->bytes += bytes;
}

static void count_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    (void)to;
    count(c, (size_t)(c->size - 1) * (size_t)from->n * mat_bytes(&from->at[0]));
}

static void count_scatter_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    (void)to;
    size_t rows = (size_t)len(share(from->at[0].n, c->size, c->rank));
    count(c, (size_t)(c->size - 1) * (size_t)from->n * rows * (size_t)from->at[0].dim *
                 num_bytes(from->at[0].type));
}

static void count_gather(struct comm *c, struct mat *m)
{
    size_t rows = (size_t)(m->n - len(share(m->n, c->size, c->rank)));
    count(c, rows * (size_t)m->dim * num_bytes(m->type));
}

static void count_merge(struct comm *c, struct mat *to, const struct mat *from)
{
    (void)to;
    count(c, (size_t)(c->size - 1) * mat_bytes(from));
}

/* Every rank but the first writes its columns into rank 0's mat. */
static void count_join(struct comm *c, struct mat *to, const struct mat *from, const int *col)
{
    (void)to, (void)col;
    count(c, c->rank ? mat_bytes(from) : 0);
}

static void count_send(struct comm *c, int peer, const struct mat *m)
{
    (void)peer, (void)m;
    count(c, 0);
}

static void count_recv(struct comm *c, int peer, struct mat *m)
{
    (void)peer;
    count(c, mat_bytes(m));
}

static const struct comm_ops counting = {
    .name = "count",
    .sum = count_sum,
    .scatter_sum = count_scatter_sum,
    .gather = count_gather,
    .merge = count_merge,
    .join = count_join,
    .send = count_send,
    .recv = count_recv,
};

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

void count_step(const struct plan *p, int rank, int pos, struct step_cost *to)
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
    struct comm tp = {.ops = &counting, .rank = plan_slice(p, rank), .size = p->tp};
    struct comm pp = {.ops = &counting, .rank = plan_stage(p, rank), .size = p->pp};
    r.dev = &dev, r.tp = &tp, r.pp = &pp;

    int zero = 0, pages = pos / KV_PAGE + 1;
    struct batch b = {.n_tok = 1, .n_seq = 1, .n_out = 1, .stride = pages};
    b.tok = b.seq = b.out = &zero;
    b.pos = b.slot = &pos;
    b.page = pool_get(&pool, (size_t)pages * sizeof(int));
    forward(&r, &b);
    must(!dev.err && !tp.err && !pp.err);

    *to = (struct step_cost){dev.flops, dev.bytes, tp.calls + pp.calls, tp.bytes + pp.bytes};
    pool_free(&pool);
}
