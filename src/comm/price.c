/* price.c - see price.h. P ranks, N bytes of the mat, a = latency_s, B = bytes_s. The ring's forms
 * are those of Thakur, Rabenseifner and Gropp 2005; in shared memory a step is a meeting, however
 * many ranks meet.
 */
#include "comm/price.h"
#include "comm/shm.h"

static void price(struct comm *c, int steps, size_t bytes)
{
    const struct comm_price *p = c->ctx;
    *p->clock += steps * p->latency_s + (double)bytes / p->bytes_s;
    c->bytes += bytes;
    c->calls++;
}

/* Bytes of planes of other ranks, when each has `bytes`. */
static size_t others(const struct comm *c, size_t bytes)
{
    const struct comm_price *p = c->ctx;
    must(p->sum.size == c->size);
    return bytes * (size_t)(p->sum.n_plane - p->sum.planes_of[c->rank]);
}

/* Bytes of the share of n rows or lines of `unit` bytes that rank `rank` owns. */
static size_t own(const struct comm *c, int n, size_t unit)
{
    return (size_t)len(share(n, c->size, c->rank)) * unit;
}

static size_t row_bytes(const struct mat *m) { return mat_bytes(m) / (size_t)max_int(m->n, 1); }

/* One-shot: a + (P-1) N/B. Two-shot: 2a + 2 (P-1)/P N/B. Ring: 2 (P-1) a + 2 (P-1)/P N/B. */
static void price_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    const struct comm_price *p = c->ctx;
    size_t n = mat_bytes(to), mine = comm_shm_part(c->size, c->rank, n);
    enum price_as as = p->as;
    (void)from;
    if (as == PRICE_AS_SHM)
        as = comm_shm_two_shot(c->size, n) ? PRICE_TWO_SHOT : PRICE_ONE_SHOT;
    if (as == PRICE_RING)
        price(c, 2 * (c->size - 1), 2 * (n - n / (size_t)c->size));
    else if (as == PRICE_TWO_SHOT)
        price(c, 2, others(c, mine) + n - mine);
    else
        price(c, 1, others(c, n));
}

/* Half of the sum; every rank takes its own rows. */
static void price_scatter_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    const struct comm_price *p = c->ctx;
    size_t mine = own(c, to->n, row_bytes(to));
    (void)from;
    if (p->as == PRICE_RING)
        price(c, c->size - 1, mat_bytes(to) - mine);
    else
        price(c, 1, others(c, mine));
}

static void price_gather(struct comm *c, struct mat *m)
{
    const struct comm_price *p = c->ctx;
    size_t rest = mat_bytes(m) - own(c, m->n, row_bytes(m));
    price(c, p->as == PRICE_RING ? c->size - 1 : 1, rest);
}

/* A second step says that all have read. */
static void price_merge(struct comm *c, struct mat *to, const struct mat *from)
{
    (void)to;
    price(c, 2, mat_bytes(from) * (size_t)(c->size - 1));
}

/* Rank 0 keeps what it has; the others write theirs beside it at the same time. */
static void price_join(struct comm *c, struct mat *to, const struct mat *from, const int *col)
{
    (void)to, (void)col;
    price(c, 2, c->rank ? mat_bytes(from) : 0);
}

/* The receiver waits for the message; the sender goes on at once. */
static void price_send(struct comm *c, int peer, const struct mat *m)
{
    (void)peer, (void)m;
    price(c, 0, 0);
}

static void price_recv(struct comm *c, int peer, struct mat *m)
{
    (void)peer;
    price(c, 1, mat_bytes(m));
}

static const struct comm_ops comm_price_ops = {
    .name = "price",
    .sum = price_sum,
    .scatter_sum = price_scatter_sum,
    .gather = price_gather,
    .merge = price_merge,
    .join = price_join,
    .send = price_send,
    .recv = price_recv,
};

void comm_price_open(struct comm *c, struct comm_price *ctx, int rank, int size, const int *cut)
{
    must(0 <= rank && rank < size && ctx->bytes_s > 0 && ctx->latency_s >= 0 && ctx->clock);
    ctx->sum = (struct sum_program){0};
    if (cut)
        sum_compile(&ctx->sum, size, cut);
    *c = (struct comm){.ops = &comm_price_ops, .rank = rank, .size = size, .ctx = ctx};
}
