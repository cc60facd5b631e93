/* delay.c - see delay.h. */
#include "comm/delay.h"

#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Add what the inner group spent since `before`, and then wait until so many latencies have passed
 * since `begun`: the link works while the rank computes. */
static void finish(struct comm *c, const struct comm *before, int latencies, uint64_t begun)
{
    const struct comm_delay *d = c->ctx;
    const struct comm *in = d->inner;
    double bytes = latencies ? (double)(in->bytes - before->bytes) : 0;
    double link_s = latencies * d->link.latency_s + bytes * d->link.byte_s;
    uint64_t now = now_ns(), end = begun + (uint64_t)(1e9 * link_s),
             waited = end > now ? end - now : 0;
    while (now_ns() < end && !in->err)
        ;
    c->err = in->err;
    c->calls += in->calls - before->calls;
    c->bytes += in->bytes - before->bytes;
    c->wait_ns += in->wait_ns - before->wait_ns + waited;
    c->move_ns += in->move_ns - before->move_ns;
}

/* The call on the inner group, which then took so many latencies. */
#define DELAYED(latencies, call)                                                                   \
    do {                                                                                           \
        struct comm *in = ((struct comm_delay *)c->ctx)->inner;                                    \
        const struct comm before = *in;                                                            \
        in->ops->call;                                                                             \
        finish(c, &before, latencies, now_ns());                                                   \
    } while (0)

static void delay_begin(struct comm *c)
{
    struct comm_delay *d = c->ctx;
    d->begun_ns[d->n_begun++ % COMM_SUMS] = now_ns();
    d->inner->ops->begin(d->inner);
}

static void delay_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    struct comm_delay *d = c->ctx;
    const struct comm before = *d->inner;
    d->inner->ops->sum(d->inner, to, from);
    bool waited = d->inner->wait_ns > before.wait_ns; /* the last one has only now come */
    uint64_t begun = d->begun_ns[d->n_ended++ % COMM_SUMS];
    finish(c, &before, 1, waited ? now_ns() : begun);
}

static void delay_scatter_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    DELAYED(1, scatter_sum(in, to, from));
}

static void delay_gather(struct comm *c, struct mat *m) { DELAYED(1, gather(in, m)); }

static void delay_dispatch(struct comm *c, struct mat *m, const uint32_t *need)
{
    DELAYED(1, dispatch(in, m, need));
}

static void delay_combine(struct comm *c, struct mat *to, const struct mat *from,
                          const uint32_t *need)
{
    DELAYED(1, combine(in, to, from, need));
}

/* Nobody goes on before all have read: that is news of its own, in these two. */
static void delay_merge(struct comm *c, struct mat *to, const struct mat *from)
{
    DELAYED(2, merge(in, to, from));
}

static void delay_join(struct comm *c, struct mat *to, const struct mat *from, const int *col)
{
    DELAYED(2, join(in, to, from, col));
}

static void delay_send(struct comm *c, int peer, const struct mat *m)
{
    DELAYED(0, send(in, peer, m));
}

static void delay_recv(struct comm *c, int peer, struct mat *m) { DELAYED(1, recv(in, peer, m)); }

static const struct comm_ops comm_delay_ops = {
    .name = "delay",
    .begin = delay_begin,
    .sum = delay_sum,
    .scatter_sum = delay_scatter_sum,
    .gather = delay_gather,
    .dispatch = delay_dispatch,
    .combine = delay_combine,
    .merge = delay_merge,
    .join = delay_join,
    .send = delay_send,
    .recv = delay_recv,
};

void comm_delay_open(struct comm *c, struct comm_delay *ctx, struct comm *inner, struct link link)
{
    must(inner->size > 1 && link.latency_s >= 0 && link.byte_s >= 0);
    *ctx = (struct comm_delay){.inner = inner, .link = link};
    *c =
        (struct comm){.ops = &comm_delay_ops, .rank = inner->rank, .size = inner->size, .ctx = ctx};
}
