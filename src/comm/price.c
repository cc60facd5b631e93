/* price.c - see price.h. */
#include "comm/price.h"
#include "comm/shm.h"

static void count(struct comm *c, size_t bytes)
{
    c->bytes += bytes;
    c->calls++;
}

/* Among the whole group, on a mat of so many bytes. */
static void spend(struct comm *c, enum collective_op op, size_t bytes)
{
    struct comm_price *p = c->ctx;
    if (p->hardware)
        p->seconds += hardware_collective(p->hardware, op, &p->gang, (double)bytes);
}

/* Bytes of planes of other ranks, when each has `bytes`: sums in fixed point have one each. */
static size_t others(const struct comm *c, const struct mat *to, size_t bytes)
{
    const struct comm_price *p = c->ctx;
    must(p->sum.size == c->size);
    return bytes * (size_t)(to->type == NUM_I64 ? c->size - 1 : p->gang.others);
}

/* Bytes of the rows of m that this rank owns. */
static size_t own(const struct comm *c, const struct mat *m)
{
    size_t row = mat_bytes(m) / (size_t)max_int(m->n, 1);
    return (size_t)len(share(m->n, c->size, c->rank)) * row;
}

/* What a link does meanwhile is not taken off. */
static void price_begin(struct comm *c) { (void)c; }

static void price_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    size_t n = mat_bytes(to), mine = comm_shm_part(c->size, c->rank, n, num_bytes(to->type));
    (void)from;
    count(c, comm_shm_two_shot(c->size, n) ? others(c, to, mine) + n - mine : others(c, to, n));
    spend(c, COLLECTIVE_SUM, n);
}

static void price_scatter_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    (void)from;
    count(c, others(c, to, own(c, to)));
    spend(c, COLLECTIVE_SCATTER_SUM, mat_bytes(to));
}

static void price_gather(struct comm *c, struct mat *m)
{
    count(c, mat_bytes(m) - own(c, m));
    spend(c, COLLECTIVE_GATHER, mat_bytes(m));
}

/* Who needs which rows is known only when they are routed: so many on the mean. */
static void price_exchange(struct comm *c, const struct mat *m, int rows)
{
    const struct comm_price *p = c->ctx;
    double row = (double)mat_bytes(m) / max_int(m->n, 1);
    double hit = p->hardware && hardware_all_rows(p->hardware, &p->gang) ? 1 : p->hit;
    count(c, (size_t)(hit * rows * row));
    spend(c, COLLECTIVE_ALL_TO_ALL, (size_t)(hit * (double)mat_bytes(m)));
}

static void price_dispatch(struct comm *c, struct mat *m, const uint32_t *need)
{
    (void)need;
    price_exchange(c, m, m->n - len(share(m->n, c->size, c->rank)));
}

static void price_combine(struct comm *c, struct mat *to, const struct mat *from,
                          const uint32_t *need)
{
    (void)from, (void)need;
    price_exchange(c, to, len(share(to->n, c->size, c->rank)) * (c->size - 1));
}

/* As a sum; it always joins all of the others' bits, and a further meeting says that all have. */
static void price_merge(struct comm *c, struct mat *to, const struct mat *from)
{
    (void)to;
    count(c, mat_bytes(from) * (size_t)(c->size - 1));
    spend(c, COLLECTIVE_SUM, mat_bytes(from));
    spend(c, COLLECTIVE_GATHER, 0);
}

/* Rank 0 keeps what it has; the others write theirs beside it at the same time. All wait. */
static void price_join(struct comm *c, struct mat *to, const struct mat *from, const int *col)
{
    (void)col;
    count(c, c->rank ? mat_bytes(from) : 0);
    spend(c, COLLECTIVE_GATHER, mat_bytes(to));
    spend(c, COLLECTIVE_GATHER, 0);
}

/* The receiver waits for the message; the sender goes on at once. */
static void price_send(struct comm *c, int peer, const struct mat *m)
{
    (void)peer, (void)m;
    count(c, 0);
}

static void price_recv(struct comm *c, int peer, struct mat *m)
{
    struct comm_price *p = c->ctx;
    struct gang g = p->gang;
    int lower = c->rank < peer ? c->rank : peer;
    count(c, mat_bytes(m));
    g = (struct gang){
        .first = g.first + lower * g.stride, .ranks = 2, .stride = abs(c->rank - peer) * g.stride};
    if (p->hardware)
        p->seconds += hardware_collective(p->hardware, COLLECTIVE_SEND, &g, (double)mat_bytes(m));
}

static const struct comm_ops comm_price_ops = {
    .name = "price",
    .begin = price_begin,
    .sum = price_sum,
    .scatter_sum = price_scatter_sum,
    .gather = price_gather,
    .dispatch = price_dispatch,
    .combine = price_combine,
    .merge = price_merge,
    .join = price_join,
    .send = price_send,
    .recv = price_recv,
};

void comm_price_open(struct comm *c, struct comm_price *ctx, int rank, int size, const int *cut)
{
    must(0 <= rank && rank < size);
    ctx->seconds = 0;
    ctx->sum = (struct sum_program){0};
    ctx->gang.ranks = size;
    ctx->gang.others = size - 1;
    if (cut) {
        sum_compile(&ctx->sum, size, cut);
        ctx->gang.others = ctx->sum.n_plane - ctx->sum.planes_of[rank];
    }
    *c = (struct comm){.ops = &comm_price_ops, .rank = rank, .size = size, .ctx = ctx};
}
