/* nccl.c - see nccl.h. Finds out who is to get what, and enqueues it. */
#include "comm/nccl/nccl.h"
#include "comm/shots.h"
#include "dev/cuda/runtime.h"

#include <time.h>
#include <unistd.h>

enum {
    ALIGN = 256,
    ABORT_S = 2, /* an abort that takes longer ends the process */
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ------------------------------------------------------------------------------- waiting */

static struct CUstream_st *stream_of(const struct comm_nccl *p)
{
    return (struct CUstream_st *)p->opts.stream;
}

static bool stopped(const struct comm_nccl *p)
{
    const _Atomic uint32_t *stop = p->opts.wait.stop;
    return stop && atomic_load_explicit(stop, memory_order_relaxed);
}

static bool too_long(const struct comm_nccl *p)
{
    const int ms = p->opts.patience_ms ? p->opts.patience_ms : NCCL_PATIENCE_MS;
    return now_ns() - p->since_ns > (uint64_t)ms * 1000000;
}

/* Ends NCCL's kernels, here and nowhere else. */
static void give_up(struct comm *c, int err, const char *why)
{
    struct comm_nccl *p = c->ctx;
    c->err = err;
    c->why = why;
    if (!p->comm)
        return;
    alarm(ABORT_S);
    p->opts.library->CommAbort(p->comm);
    alarm(0);
    p->comm = NULL;
}

static unsigned state_of(const struct comm_nccl *p)
{
    unsigned state = NCCL_SUCCESS, rc = p->opts.library->CommGetAsyncError(p->comm, &state);
    return rc ? rc : state;
}

/* One look at an operation that NCCL has on its way. */
static void check(struct comm *c, unsigned result)
{
    const struct comm_nccl *p = c->ctx;
    if (stopped(p))
        give_up(c, -ECANCELED, "stopped");
    else if (result != NCCL_SUCCESS && result != NCCL_IN_PROGRESS)
        give_up(c, -EIO, p->opts.library->GetErrorString(result));
    else if (too_long(p))
        give_up(c, -ETIMEDOUT, "other ranks did not come in time");
}

/* Until NCCL has enqueued what it was told, or c->err. */
static void settle(struct comm *c, unsigned result)
{
    struct comm_nccl *p = c->ctx;
    p->since_ns = now_ns();
    for (int i = 0; !c->err && result != NCCL_SUCCESS; i++) {
        check(c, result);
        if (i > p->opts.wait.spins)
            sched_yield();
        if (!c->err)
            result = state_of(p);
    }
}

void comm_nccl_look(struct comm *c, bool begins)
{
    struct comm_nccl *p = c->ctx;
    if (begins)
        p->since_ns = now_ns();
    if (!c->err)
        check(c, state_of(p));
}

/* ------------------------------------------------------------------------------- calls */

/* Whether a call enqueues anything; it counts anyway. */
static bool enqueues(struct comm *c, size_t read_bytes)
{
    const struct comm_nccl *p = c->ctx;
    c->calls++;
    c->bytes += read_bytes;
    return !p->opts.replays || !*p->opts.replays;
}

static void note(struct comm *c, int code)
{
    if (code && !c->err)
        give_up(c, -EIO, "a kernel could not be launched");
}

static size_t numbers(const struct mat *m) { return (size_t)m->n * (size_t)m->dim; }

/* Numbers of a mat that each rank is to have: lo[r] .. hi[r]. */
struct ranges {
    size_t lo[NCCL_RANKS], hi[NCCL_RANKS];
};

static size_t length(const struct ranges *s, int r) { return s->hi[r] - s->lo[r]; }

static bool equal(const struct ranges *s, int size)
{
    for (int r = 1; r < size; r++)
        if (length(s, r) != length(s, 0))
            return false;
    return true;
}

static struct ranges everything(size_t n, int size)
{
    struct ranges s = {{0}, {0}};
    for (int r = 0; r < size; r++)
        s.hi[r] = n;
    return s;
}

/* Parts of a mat, which begin at multiples of 16 numbers. */
static struct ranges parts_of(size_t n, int size)
{
    struct ranges s = {{0}, {0}};
    for (int r = 0; r < size; r++) {
        s.lo[r] = r ? s.hi[r - 1] : 0;
        s.hi[r] = min_size((n + 15) / 16 * (size_t)(r + 1) / (size_t)size * 16, n);
    }
    return s;
}

static struct ranges rows_of(const struct mat *m, int size)
{
    struct ranges s = {{0}, {0}};
    for (int r = 0; r < size; r++) {
        const struct span rows = share(m->n, size, r);
        s.lo[r] = (size_t)rows.lo * (size_t)m->dim;
        s.hi[r] = (size_t)rows.hi * (size_t)m->dim;
    }
    return s;
}

/* NCCL counts words of four bytes; nothing is sent where there is nothing. What is wrong with a
 * call in a group, its end says. */
static void send_to(const struct comm_nccl *p, int peer, const void *from, size_t bytes)
{
    if (bytes)
        p->opts.library->Send(from, bytes / 4, NCCL_UINT32, peer, p->comm, stream_of(p));
}

static void take_from(const struct comm_nccl *p, int peer, void *to, size_t bytes)
{
    if (bytes)
        p->opts.library->Recv(to, bytes / 4, NCCL_UINT32, peer, p->comm, stream_of(p));
}

/* ------------------------------------------------------------------------------- bringing */

/* The planes of all ranks: how many each has, where they are here, how they are added. */
struct brought {
    int planes_of[NCCL_RANKS];
    bool single; /* one of each rank */
    struct nccl_terms terms;
};

static struct brought all_planes(const struct comm *c, enum num type)
{
    const struct comm_nccl *p = c->ctx;
    struct brought b = {.single = true, .terms.whole = type == NUM_I64};
    for (int r = 0; r < c->size; r++) {
        b.planes_of[r] = b.terms.whole ? 1 : p->sum.planes_of[r];
        b.terms.n_plane = (uint8_t)(b.terms.n_plane + b.planes_of[r]);
        b.single &= b.planes_of[r] == 1;
    }
    for (int i = 0; i < b.terms.n_plane; i++)
        b.terms.adds[i] = b.terms.whole ? i > 0 : p->adds[i];
    return b;
}

/* Every rank gets its numbers of all planes. */
static void bring_parts(struct comm *c, const struct planes *from, const struct ranges *want,
                        size_t size, struct brought *b)
{
    struct comm_nccl *p = c->ctx;
    const size_t mine = length(want, c->rank) * size;
    char *to = p->opts.memory;
    const void **plane = b->terms.plane;
    p->opts.library->GroupStart();
    for (int r = 0; r < c->size; r++) {
        const bool own = r == c->rank;
        for (int i = 0; !own && i < b->planes_of[c->rank]; i++)
            send_to(p, r, (char *)from->at[i].at + want->lo[r] * size, length(want, r) * size);
        for (int i = 0; i < b->planes_of[r]; i++) {
            *plane++ = own ? (char *)from->at[i].at + want->lo[r] * size : to;
            if (own)
                continue;
            take_from(p, r, to, mine);
            to += round_up(mine, ALIGN);
        }
    }
    must(to <= p->opts.memory + p->memory_bytes);
    settle(c, p->opts.library->GroupEnd());
}

/* One whole plane of every rank, to all. */
static void bring_whole(struct comm *c, const void *from, size_t bytes, struct brought *b)
{
    struct comm_nccl *p = c->ctx;
    must(bytes * (size_t)c->size <= p->memory_bytes);
    for (int r = 0; r < c->size; r++)
        b->terms.plane[r] = p->opts.memory + (size_t)r * bytes;
    settle(c, p->opts.library->AllGather(from, p->opts.memory, bytes / 4, NCCL_UINT32, p->comm,
                                         stream_of(p)));
}

/* Everyone gets the parts of m that the others have. */
static void spread(struct comm *c, struct mat *m, const struct ranges *have)
{
    struct comm_nccl *p = c->ctx;
    const size_t size = num_bytes(m->type), mine = length(have, c->rank) * size;
    char *at = m->at, *own = at + have->lo[c->rank] * size;
    if (equal(have, c->size)) {
        settle(c,
               p->opts.library->AllGather(own, at, mine / 4, NCCL_UINT32, p->comm, stream_of(p)));
        return;
    }
    p->opts.library->GroupStart();
    for (int r = 0; r < c->size; r++) {
        if (r == c->rank)
            continue;
        send_to(p, r, own, mine);
        take_from(p, r, at + have->lo[r] * size, length(have, r) * size);
    }
    settle(c, p->opts.library->GroupEnd());
}

/* ------------------------------------------------------------------------------- sums */

static void check_planes(const struct comm *c, const struct mat *to, const struct planes *from)
{
    const struct comm_nccl *p = c->ctx;
    must(to->type == NUM_I64 ? from->n == 1
                             : p->sum.n_plane > 0 && from->n == p->sum.planes_of[c->rank]);
    for (int i = 0; i < from->n; i++)
        must(from->at[i].n == to->n && from->at[i].dim == to->dim && from->at[i].type == to->type);
}

/* This rank's numbers of `to`, by the tree; whole: everyone's are all. */
static void sum_ranges(struct comm *c, struct mat *to, const struct planes *from,
                       const struct ranges *want, bool whole)
{
    const struct comm_nccl *p = c->ctx;
    const size_t size = num_bytes(to->type), mine = length(want, c->rank);
    struct brought b = all_planes(c, to->type);
    if (b.single && whole)
        bring_whole(c, from->at[0].at, mat_bytes(to), &b);
    else
        bring_parts(c, from, want, size, &b);
    if (!c->err)
        note(c,
             nccl_add(p->opts.stream, (char *)to->at + want->lo[c->rank] * size, mine, &b.terms));
}

/* The sum of this rank's own planes: the only one, or in `to`. */
static const void *own_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    const struct comm_nccl *p = c->ctx;
    struct nccl_terms own = {.n_plane = (uint8_t)from->n};
    if (from->n == 1)
        return from->at[0].at;
    for (int i = 0; i < from->n; i++)
        own.plane[i] = from->at[i].at, own.adds[i] = i > 0;
    note(c, from->n ? nccl_add(p->opts.stream, to->at, numbers(to), &own)
                    : gpu_clear(to->at, mat_bytes(to), p->opts.stream));
    return to->at;
}

static void sum_fast(struct comm *c, struct mat *to, const struct planes *from)
{
    const struct comm_nccl *p = c->ctx;
    const void *own = own_sum(c, to, from);
    if (!c->err)
        settle(c, p->opts.library->AllReduce(own, to->at, numbers(to), NCCL_FLOAT32, NCCL_SUM,
                                             p->comm, stream_of(p)));
}

static void scatter_fast(struct comm *c, struct mat *to, const struct planes *from,
                         const struct ranges *rows)
{
    const struct comm_nccl *p = c->ctx;
    const void *own = own_sum(c, to, from);
    if (!c->err)
        settle(c, p->opts.library->ReduceScatter(own, (float *)to->at + rows->lo[c->rank],
                                                 length(rows, c->rank), NCCL_FLOAT32, NCCL_SUM,
                                                 p->comm, stream_of(p)));
}

/* That the planes are complete is said by their place in the stream. */
static void nccl_begin(struct comm *c)
{
    struct comm_nccl *p = c->ctx;
    must(p->n_begun < COMM_SUMS);
    p->n_begun++;
}

static void nccl_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    struct comm_nccl *p = c->ctx;
    const bool parts = comm_nccl_two_shot(mat_bytes(to));
    const struct ranges want =
        parts ? parts_of(numbers(to), c->size) : everything(numbers(to), c->size);
    must(p->n_begun > 0);
    p->n_begun--;
    check_planes(c, to, from);
    if (!enqueues(c, mat_bytes(to) * (size_t)(c->size - 1) / (size_t)(parts ? c->size : 1)))
        return;
    if (p->opts.fast && to->type == NUM_F32) {
        sum_fast(c, to, from);
        return;
    }
    sum_ranges(c, to, from, &want, !parts);
    if (parts && !c->err)
        spread(c, to, &want);
}

static void nccl_scatter_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    const struct comm_nccl *p = c->ctx;
    const struct ranges rows = rows_of(to, c->size);
    check_planes(c, to, from);
    if (!enqueues(c, length(&rows, c->rank) * num_bytes(to->type) * (size_t)(c->size - 1)))
        return;
    if (p->opts.fast && to->type == NUM_F32 && equal(&rows, c->size))
        scatter_fast(c, to, from, &rows);
    else
        sum_ranges(c, to, from, &rows, false);
}

static void nccl_gather(struct comm *c, struct mat *m)
{
    const struct ranges rows = rows_of(m, c->size);
    if (enqueues(c, mat_bytes(m) - length(&rows, c->rank) * num_bytes(m->type)))
        spread(c, m, &rows);
}

/* ------------------------------------------------------------------------------- rows */

/* Who needs which row only the GPU knows, and what NCCL is to send the host says: so all rows go to
 * all ranks. */
static void nccl_rows_out(struct comm *c, struct mat *m, const uint32_t *need)
{
    (void)need;
    nccl_gather(c, m);
}

/* The way back: every rank's plane of a row to its owner, who adds those that count. */
static void nccl_rows_back(struct comm *c, struct mat *to, const struct mat *from,
                           const uint32_t *need)
{
    const struct comm_nccl *p = c->ctx;
    const struct ranges rows = rows_of(to, c->size);
    const struct planes own = {.n = 1, .at = {*from}};
    struct brought b = all_planes(c, NUM_I64);
    if (!enqueues(c, length(&rows, c->rank) * sizeof(int64_t) * (size_t)(c->size - 1)))
        return;
    b.terms.need = need + share(to->n, c->size, c->rank).lo, b.terms.dim = to->dim;
    bring_parts(c, &own, &rows, sizeof(int64_t), &b);
    if (!c->err)
        note(c, nccl_add(p->opts.stream, (int64_t *)to->at + rows.lo[c->rank],
                         length(&rows, c->rank), &b.terms));
}

/* ------------------------------------------------------------------------------- no sums */

/* Of numbers that one rank at most has, a sum of whole numbers is the bits, exactly. */
static void nccl_bits(struct comm *c, struct mat *to, const struct mat *from)
{
    const struct comm_nccl *p = c->ctx;
    must(to->type == NUM_F32 && numbers(to) == numbers(from) && to->at != from->at);
    if (enqueues(c, mat_bytes(from) * (size_t)(c->size - 1)))
        settle(c, p->opts.library->AllReduce(from->at, to->at, numbers(from), NCCL_UINT32, NCCL_SUM,
                                             p->comm, stream_of(p)));
}

/* Some rows of columns that rank 0 puts beside each other. */
static void columns(struct comm *c, struct mat *to, const struct mat *from, const int *col)
{
    const struct comm_nccl *p = c->ctx;
    const size_t rows = (size_t)from->n;
    char *at = p->opts.memory;
    p->opts.library->GroupStart();
    if (c->rank)
        send_to(p, 0, from->at, mat_bytes(from));
    for (int r = 1; !c->rank && r < c->size; r++)
        take_from(p, r, at + rows * (size_t)(col[r] - col[1]) * 4,
                  rows * (size_t)(col[r + 1] - col[r]) * 4);
    settle(c, p->opts.library->GroupEnd());
    for (int r = 0; !c->rank && !c->err && r < c->size; r++) {
        const void *columns = r ? at + rows * (size_t)(col[r] - col[1]) * 4 : from->at;
        note(c, nccl_columns(p->opts.stream, to->at, to->dim, col[r], columns, from->n,
                             col[r + 1] - col[r]));
    }
}

/* As many rows at a time as there is room for, the same number on all ranks. */
static void nccl_columns_in_turns(struct comm *c, struct mat *to, const struct mat *from,
                                  const int *col)
{
    const struct comm_nccl *p = c->ctx;
    const size_t row = (size_t)col[c->size] * 4;
    const int most = (int)min_size(p->memory_bytes / row, (size_t)from->n);
    must(from->dim == col[c->rank + 1] - col[c->rank] && to->dim == col[c->size]);
    must(to->n == from->n && from->type == NUM_F32 && (most > 0 || !from->n));
    if (!enqueues(c, c->rank ? 0 : mat_bytes(to) - mat_bytes(from)))
        return;
    for (int lo = 0; lo < from->n && !c->err; lo += most) {
        const struct span rows = {lo, min_int(lo + most, from->n)};
        struct mat part = mat_rows(to, rows), mine = mat_rows(from, rows);
        columns(c, &part, &mine, col);
    }
}

/* ------------------------------------------------------------------------------- messages */

static void nccl_message_out(struct comm *c, int peer, const struct mat *m)
{
    const struct comm_nccl *p = c->ctx;
    must(0 <= peer && peer < c->size && peer != c->rank && mat_bytes(m) % 4 == 0);
    if (enqueues(c, 0))
        settle(c, p->opts.library->Send(m->at, mat_bytes(m) / 4, NCCL_UINT32, peer, p->comm,
                                        stream_of(p)));
}

static void nccl_message_in(struct comm *c, int peer, struct mat *m)
{
    const struct comm_nccl *p = c->ctx;
    must(0 <= peer && peer < c->size && peer != c->rank && mat_bytes(m) % 4 == 0);
    if (enqueues(c, mat_bytes(m)))
        settle(c, p->opts.library->Recv(m->at, mat_bytes(m) / 4, NCCL_UINT32, peer, p->comm,
                                        stream_of(p)));
}

/* ------------------------------------------------------------------------------- the group */

static const struct comm_ops comm_nccl_ops = {
    .name = "nccl",
    .begin = nccl_begin,
    .sum = nccl_sum,
    .scatter_sum = nccl_scatter_sum,
    .gather = nccl_gather,
    .dispatch = nccl_rows_out,
    .combine = nccl_rows_back,
    .merge = nccl_bits,
    .join = nccl_columns_in_turns,
    .send = nccl_message_out,
    .recv = nccl_message_in,
};

size_t comm_nccl_bytes(const struct nccl_use *u)
{
    struct sum_program sum;
    if (!u->cut)
        return round_up(max_size((size_t)u->joined * 4, 1), ALIGN);
    sum_compile(&sum, u->size, u->cut);
    const size_t n = (size_t)u->rows * (size_t)u->dim, dim = (size_t)u->dim;
    const size_t part = n / (size_t)u->size + (dim > 16 ? dim : 16);
    const size_t f32 = max_size(part * 4, min_size(n * 4, NCCL_ONE_SHOT)) + ALIGN;
    const size_t whole = max_size(part * 8, min_size(n * 8, NCCL_ONE_SHOT)) + ALIGN;
    const size_t planes = max_size(f32 * (size_t)sum.n_plane, whole * (size_t)u->size);
    return round_up(max_size(planes, (size_t)u->joined * 4), ALIGN);
}

/* Rank 0's communicator has a name that all others need. It is made when all have come, however
 * long their weights take: NCCL's patience is for NCCL. */
static int meet(struct comm *c, struct nccl_id *id, struct err *e)
{
    struct comm_nccl *p = c->ctx;
    const struct comm_nccl_opts *o = &p->opts;
    struct nccl_card *card = o->card;
    if (o->rank)
        atomic_fetch_add(&card->come, 1);
    if (!(o->rank ? wait_for(&o->wait, &card->told, 1)
                  : wait_for(&o->wait, &card->come, (uint64_t)o->use.size - 1)))
        return c->err = err_set(e, -ECANCELED, "stopped while ranks were starting");
    if (!o->rank) {
        unsigned result = o->library->GetUniqueId(&card->id);
        if (result)
            return err_set(e, -EIO, "NCCL cannot begin a group of ranks: %s",
                           o->library->GetErrorString(result));
        atomic_store_explicit(&card->told, 1, memory_order_release);
    }
    *id = card->id;
    return 0;
}

int comm_nccl_open(struct comm *c, struct comm_nccl *p, const struct comm_nccl_opts *o,
                   struct err *e)
{
    struct nccl_config config = nccl_config();
    struct nccl_id id;
    must(0 < o->use.size && o->use.size <= NCCL_RANKS && 0 <= o->rank && o->rank < o->use.size);
    *p = (struct comm_nccl){.opts = *o, .memory_bytes = comm_nccl_bytes(&o->use)};
    *c = (struct comm){.ops = &comm_nccl_ops, .rank = o->rank, .size = o->use.size, .ctx = p};
    if (o->use.cut) {
        sum_compile(&p->sum, o->use.size, o->use.cut);
        sum_adds(&p->sum, p->adds);
    }
    int rc = meet(c, &id, e);
    if (rc)
        return rc;
    settle(c, o->library->CommInitRankConfig(&p->comm, o->use.size, id, o->rank, &config));
    return c->err ? err_set(e, c->err, "rank %d of %d could not join the others by NCCL: %s",
                            o->rank, o->use.size, c->why)
                  : 0;
}

void comm_nccl_close(struct comm_nccl *p)
{
    if (p->comm)
        p->opts.library->CommAbort(p->comm);
    p->comm = NULL;
}
