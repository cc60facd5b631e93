/* delay.c - see delay.h. */
#include "comm/delay.h"

#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Add what the inner group spent since `before`, and then wait for so many latencies. */
static void finish(struct comm *c, const struct comm *before, int latencies)
{
    const struct comm_delay *d = c->ctx;
    const struct comm *in = d->inner;
    double bytes = latencies ? (double)(in->bytes - before->bytes) : 0;
    uint64_t begin = now_ns(),
             more = (uint64_t)(1e9 * (latencies * d->link.latency_s + bytes * d->link.byte_s));
    while (now_ns() - begin < more && !in->err)
        ;
    c->err = in->err;
    c->calls += in->calls - before->calls;
    c->bytes += in->bytes - before->bytes;
    c->wait_ns += in->wait_ns - before->wait_ns + more;
    c->move_ns += in->move_ns - before->move_ns;
}

/* The call on the inner group, which then took so many latencies. */
#define DELAYED(latencies, call)                                                                   \
    do {                                                                                           \
        struct comm *in = ((struct comm_delay *)c->ctx)->inner;                                    \
        const struct comm before = *in;                                                            \
        in->ops->call;                                                                             \
        finish(c, &before, latencies);                                                             \
    } while (0)

static void delay_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    DELAYED(1, sum(in, to, from));
}

static void delay_scatter_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    DELAYED(1, scatter_sum(in, to, from));
}

static void delay_gather(struct comm *c, struct mat *m) { DELAYED(1, gather(in, m)); }

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
    .sum = delay_sum,
    .scatter_sum = delay_scatter_sum,
    .gather = delay_gather,
    .merge = delay_merge,
    .join = delay_join,
    .send = delay_send,
    .recv = delay_recv,
};

void comm_delay_open(struct comm *c, struct comm_delay *ctx, struct comm *inner, struct link link)
{
    must(inner->size > 1 && link.latency_s >= 0 && link.byte_s >= 0);
    *ctx = (struct comm_delay){inner, link};
    *c =
        (struct comm){.ops = &comm_delay_ops, .rank = inner->rank, .size = inner->size, .ctx = ctx};
}
