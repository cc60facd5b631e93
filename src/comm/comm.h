/* comm.h - a group of ranks that act together.
 *
 * All ranks of the group make the same calls in the same order. A failure, a missed deadline or a
 * raised stop word is remembered in comm->err; every later call does nothing. The step is then
 * worthless and its caller throws it away. Rows are shared out by share(): rank i of n owns the
 * rows share(m->n, n, i) of a mat.
 *
 * Memory: what sum, scatter_sum, gather, dispatch, combine and merge read from, and the `to` of sum
 * and join, lie in the rank's peer arena, which the other ranks of a host can read; the layout of
 * that arena is the same on every rank, so that a peer's mat is found at the same offset. Other
 * mats lie anywhere. So that all can find all planes, every rank fills planes.at[] for the rank
 * that has most of them, whatever its own planes.n. All numbers are NUM_F32, but for sums in fixed
 * point (base/whole.h): of these `to` and one plane per rank are NUM_I64. `to` overlaps nothing
 * that is read.
 *
 * Reuse: what sum, scatter_sum, gather, dispatch and combine read from, and the `to` of sum, must
 * not be written again before the next collective call on the group has returned; but the next sum
 * may have the same `to`. merge, join, send and recv are done with their mats on return.
 */
#ifndef TANDEM_COMM_H
#define TANDEM_COMM_H

#include "base/pulse.h"
#include "base/tree.h"

struct comm;

struct comm_ops {
    const char *name;
    void (*begin)(struct comm *); /* of a sum */
    void (*sum)(struct comm *, struct mat *to, const struct planes *from);
    void (*scatter_sum)(struct comm *, struct mat *to, const struct planes *from);
    void (*gather)(struct comm *, struct mat *m);
    void (*dispatch)(struct comm *, struct mat *m, const uint32_t *need);
    void (*combine)(struct comm *, struct mat *to, const struct mat *from, const uint32_t *need);
    void (*merge)(struct comm *, struct mat *to, const struct mat *from);
    void (*join)(struct comm *, struct mat *to, const struct mat *from, const int *col);
    void (*send)(struct comm *, int peer, const struct mat *m);
    void (*recv)(struct comm *, int peer, struct mat *m);
    void (*end)(struct comm *); /* NULL: calls are over when they return */
};

struct comm {
    const struct comm_ops *ops;
    int rank, size, err;
    const char *why; /* of err, in words that stay; NULL: none */
    void *ctx;
    uint64_t calls, bytes;     /* since the start; bytes this rank had to read from others */
    uint64_t wait_ns, move_ns; /* shm: waiting for others; reading and adding */
    _Atomic uint64_t *pulse;   /* of this rank; NULL: nobody looks */
};

/* Each call of a group is between these; false: it does nothing. */
static inline bool comm_enter(struct comm *c)
{
    if (c->size == 1 || c->err)
        return false;
    pulse_call(c->pulse);
    return true;
}

static inline void comm_leave(struct comm *c) { pulse_call(c->pulse); }

/* All-reduce in two halves, so that others may catch up meanwhile. begin: this rank's planes are
 * complete and stay as they are until end, which makes `to` the sum of all ranks' planes, by the
 * tree of base/tree.h. Up to COMM_SUMS sums may have begun; they end in the order in which they
 * began, and no other call comes between. */
enum { COMM_SUMS = 2 };
static inline void comm_sum_begin(struct comm *c)
{
    if (c->size > 1 && !c->err)
        c->ops->begin(c);
}

static inline void comm_sum_end(struct comm *c, struct mat *to, const struct planes *from)
{
    must(c->size > 1 || to->at == from->at[0].at);
    if (comm_enter(c)) {
        c->ops->sum(c, to, from);
        comm_leave(c);
    }
}

static inline void comm_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    comm_sum_begin(c);
    comm_sum_end(c, to, from);
}

/* Reduce-scatter: to (the whole mat) gets the sum in this rank's own rows only. */
static inline void comm_scatter_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    must(c->size > 1 || to->at == from->at[0].at);
    if (comm_enter(c)) {
        c->ops->scatter_sum(c, to, from);
        comm_leave(c);
    }
}

/* All-gather: every rank fills its own rows of m; all get everyone's. */
static inline void comm_gather(struct comm *c, struct mat *m)
{
    if (comm_enter(c)) {
        c->ops->gather(c, m);
        comm_leave(c);
    }
}

/* The two all-to-alls of expert parallelism. Bit r of need[t] says that rank r computes something
 * of row t; all ranks have the same need[m->n], so each knows how many rows come from where, and a
 * row keeps its place on every rank. dispatch: a row goes from its owner to the others that need
 * it, to each once (by NCCL to all). combine, the way back: the owner's row of `to` becomes the sum
 * of that row of `from` over the ranks that need it (NUM_I64; every row has one at least). Rows of
 * others are not touched. need lies where the numbers do: for a group on GPUs in the GPU's memory.
 */
static inline void comm_dispatch(struct comm *c, struct mat *m, const uint32_t *need)
{
    if (comm_enter(c)) {
        c->ops->dispatch(c, m, need);
        comm_leave(c);
    }
}

static inline void comm_combine(struct comm *c, struct mat *to, const struct mat *from,
                                const uint32_t *need)
{
    must(to->type == NUM_I64 && from->type == NUM_I64 && to->n == from->n && to->dim == from->dim);
    if (comm_enter(c)) {
        c->ops->combine(c, to, from, need);
        comm_leave(c);
    }
}

/* For every number at most one rank has non-zero bits: all get those bits (so -0 survives). */
static inline void comm_merge(struct comm *c, struct mat *to, const struct mat *from)
{
    must(c->size > 1 || to->at == from->at);
    if (comm_enter(c)) {
        c->ops->merge(c, to, from);
        comm_leave(c);
    }
}

/* Columns side by side at rank 0: rank i's from[n][col[i+1]-col[i]] becomes columns col[i]..
 * col[i+1] of to[n][col[size]] of rank 0; the others' `to` is not touched. */
static inline void comm_join(struct comm *c, struct mat *to, const struct mat *from, const int *col)
{
    must(c->size > 1 || to->at == from->at);
    if (comm_enter(c)) {
        c->ops->join(c, to, from, col);
        comm_leave(c);
    }
}

/* Point to point between two ranks of the group; the shapes agree. send returns when m may be
 * written again (it may buffer two messages). */
static inline void comm_send(struct comm *c, int peer, const struct mat *m)
{
    if (comm_enter(c)) {
        c->ops->send(c, peer, m);
        comm_leave(c);
    }
}

static inline void comm_recv(struct comm *c, int peer, struct mat *m)
{
    if (comm_enter(c)) {
        c->ops->recv(c, peer, m);
        comm_leave(c);
    }
}

/* Groups on devices only enqueue. The step's work is done (dev_fetch() has returned): what failed
 * in it is in c->err now. */
static inline void comm_end(struct comm *c)
{
    if (c->size > 1 && !c->err && c->ops->end)
        c->ops->end(c);
}

/* A group of one: nothing to do. */
extern const struct comm_ops comm_self;

#endif
