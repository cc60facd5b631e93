/* shm.c - see shm.h.
 *
 * Shared state: one line per rank with counters that only this rank writes. Invariants:
 *   1. arrived[r] counts the meetings rank r has come to; meeting n is over for a rank when it has
 *      seen arrived >= n of all. What a rank wrote before coming, the others may read after.
 *   2. A call is one meeting (one-shot sum, scatter_sum, gather), or two (two-shot sum, merge,
 *      join), the second so that the mats are free or complete on return.
 *   3. sent and taken of a pair (r, p) count messages from r to p; the outbox of r has two slots,
 *      used in turn, and is refilled only when the message two before was taken. So a rank sends
 *      to one peer only: the next stage.
 */
#include "comm/shm.h"

#include <time.h>

enum {
    LINE = 64,
    /* Below this many bytes every rank adds everything; above, each adds its part and copies the
     * others'. One-shot saves a meeting, two-shot halves the adding: see bench allreduce. */
    TWO_SHOT_BYTES = 128 << 10,
    STRIP = 64, /* floats added at a time: they stay in registers and first-level cache */
    ADD = -1,   /* in the program; anything else is a plane to push */
};

struct line {
    _Alignas(LINE) _Atomic uint64_t arrived;
};

static size_t counters_bytes(int size)
{
    return round_up((size_t)size * (size_t)size * LINE, LINE);
}

size_t comm_shm_bytes(int size, size_t outbox_bytes)
{
    return (size_t)size * sizeof(struct line) + 2 * counters_bytes(size) +
           2 * (size_t)size * round_up(outbox_bytes, LINE);
}

static struct line *line_of(const struct comm_shm *s, int rank)
{
    return (struct line *)s->state + rank;
}

/* A counter a line of its own, so that pairs do not disturb each other. */
static _Atomic uint64_t *counter(const struct comm *c, bool taken, int from, int to)
{
    const struct comm_shm *s = c->ctx;
    char *at = (char *)s->state + (size_t)c->size * sizeof(struct line) +
               (taken ? counters_bytes(c->size) : 0);
    return (_Atomic uint64_t *)(void *)(at + (size_t)(from * c->size + to) * LINE);
}

static char *outbox(const struct comm *c, int rank, uint64_t message)
{
    const struct comm_shm *s = c->ctx;
    char *at =
        (char *)s->state + (size_t)c->size * sizeof(struct line) + 2 * counters_bytes(c->size);
    return at + (2 * (size_t)rank + message % 2) * round_up(s->outbox_bytes, LINE);
}

/* ------------------------------------------------------------------------------- meeting */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static bool wait_word(struct comm *c, const _Atomic uint64_t *word, uint64_t at)
{
    const struct comm_shm *s = c->ctx;
    if (wait_for(&s->wait, word, at))
        return true;
    c->err = -ECANCELED;
    return false;
}

/* Come to the next meeting and wait for the others. The time spent waiting is counted only when
 * there is any: a clock read costs as much as a small sum. */
static bool meet(struct comm *c)
{
    struct comm_shm *s = c->ctx;
    uint64_t turn = ++s->turn, begin = 0;
    atomic_store_explicit(&line_of(s, c->rank)->arrived, turn, memory_order_release);
    for (int r = 0; r < c->size; r++) {
        const _Atomic uint64_t *word = &line_of(s, r)->arrived;
        if (r == c->rank || atomic_load_explicit(word, memory_order_acquire) >= turn)
            continue;
        if (!begin)
            begin = now_ns();
        if (!wait_word(c, word, turn))
            return false;
    }
    if (begin)
        c->wait_ns += now_ns() - begin;
    return true;
}

/* The mat of another rank that lies where m lies here. */
static const float *of_peer(const struct comm *c, int rank, const struct mat *m)
{
    const struct comm_shm *s = c->ctx;
    size_t at = (size_t)((char *)m->at - s->peer[c->rank]);
    must(m->type == NUM_F32 && at + mat_bytes(m) <= s->peer_bytes);
    return (const float *)(const void *)(s->peer[rank] + at);
}

static size_t numbers(const struct mat *m) { return (size_t)m->n * (size_t)m->dim; }

/* ------------------------------------------------------------------------------- the tree */

/* Compile the balanced tree over shares [lo, hi) down to the ranks' planes, in postfix order. */
static void compile(struct comm_shm *s, const struct span *tree, int n, int lo, int hi)
{
    for (int i = 0; i < n; i++)
        if (tree[i].lo == lo && tree[i].hi == hi) {
            s->program[s->n_step++] = (int8_t)i;
            return;
        }
    must(hi - lo > 1);
    compile(s, tree, n, lo, (lo + hi) / 2);
    compile(s, tree, n, (lo + hi) / 2, hi);
    s->program[s->n_step++] = ADD;
}

static void compile_all(struct comm_shm *s, int size, const int *cut)
{
    struct span tree[SHARES_MAX * 2];
    int n = 0;
    for (int r = 0; r < size; r++) {
        s->n_plane[r] = tree_split((struct span){cut[r], cut[r + 1]}, tree + n);
        n += s->n_plane[r];
    }
    must(n <= (int)COUNT(tree));
    compile(s, tree, n, 0, cut[size]);
}

/* Where every plane of every rank is, in the order of the program's numbers. */
static void find_planes(const struct comm *c, const struct planes *from, const float **at)
{
    const struct comm_shm *s = c->ctx;
    int n = 0, most = 0;
    for (int r = 0; r < c->size; r++)
        most = max_int(most, s->n_plane[r]);
    for (int r = 0; r < c->size; r++)
        for (int i = 0; i < s->n_plane[r]; i++)
            at[n++] = of_peer(c, r, &from->at[i]);
    must(most <= PLANES);
}

static void add_two(float *to, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = a[i] + b[i];
}

/* to[i] for i in [lo, hi): run the program a strip at a time. */
static void add_planes(const struct comm_shm *s, float *to, const float *const *plane, size_t lo,
                       size_t hi)
{
    if (s->n_step == 3) {
        add_two(to + lo, plane[0] + lo, plane[1] + lo, hi - lo);
        return;
    }
    for (size_t at = lo; at < hi; at += STRIP) {
        float stack[8][STRIP];
        size_t n = hi - at < STRIP ? hi - at : STRIP;
        int top = 0;
        for (int i = 0; i < s->n_step; i++) {
            if (s->program[i] == ADD) {
                top--;
                add_two(stack[top - 1], stack[top - 1], stack[top], n);
            } else {
                memcpy(stack[top++], plane[s->program[i]] + at, n * sizeof(float));
            }
        }
        memcpy(to + at, stack[0], n * sizeof(float));
    }
}

/* ------------------------------------------------------------------------------- calls */

/* Elements of rank r's part of a two-shot sum: whole cache lines. */
static size_t part_begins(size_t n, int size, int r)
{
    size_t lines = (n + 15) / 16, at = lines * (size_t)r / (size_t)size * 16;
    return at < n ? at : n;
}

static void count(struct comm *c, size_t read_numbers)
{
    c->calls++;
    c->bytes += read_numbers * sizeof(float);
}

static void shm_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    const struct comm_shm *s = c->ctx;
    const float *plane[SHARES_MAX * 2];
    size_t n = numbers(to);
    bool two_shot = n * sizeof(float) >= TWO_SHOT_BYTES;

    must(from->n == s->n_plane[c->rank]);
    find_planes(c, from, plane);
    if (!meet(c))
        return;
    uint64_t begin = now_ns();
    if (!two_shot) {
        add_planes(s, to->at, plane, 0, n);
        c->move_ns += now_ns() - begin;
        count(c, n * (size_t)(c->size - 1));
        return;
    }
    add_planes(s, to->at, plane, part_begins(n, c->size, c->rank),
               part_begins(n, c->size, c->rank + 1));
    c->move_ns += now_ns() - begin;
    if (!meet(c))
        return;
    begin = now_ns();
    for (int r = 0; r < c->size; r++) {
        size_t lo = part_begins(n, c->size, r), hi = part_begins(n, c->size, r + 1);
        if (r != c->rank)
            memcpy((float *)to->at + lo, of_peer(c, r, to) + lo, (hi - lo) * sizeof(float));
    }
    c->move_ns += now_ns() - begin;
    count(c, 2 * n * (size_t)(c->size - 1) / (size_t)c->size);
}

static void shm_scatter_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    const struct comm_shm *s = c->ctx;
    const float *plane[SHARES_MAX * 2];
    struct span mine = share(to->n, c->size, c->rank);
    size_t dim = (size_t)to->dim;

    must(from->n == s->n_plane[c->rank]);
    find_planes(c, from, plane);
    if (!meet(c))
        return;
    uint64_t begin = now_ns();
    add_planes(s, to->at, plane, (size_t)mine.lo * dim, (size_t)mine.hi * dim);
    c->move_ns += now_ns() - begin;
    count(c, (size_t)len(mine) * dim * (size_t)(c->size - 1));
}

static void shm_gather(struct comm *c, struct mat *m)
{
    size_t dim = (size_t)m->dim;
    if (!meet(c))
        return;
    uint64_t begin = now_ns();
    for (int r = 0; r < c->size; r++) {
        struct span rows = share(m->n, c->size, r);
        size_t at = (size_t)rows.lo * dim, n = (size_t)len(rows) * dim;
        if (r == c->rank)
            continue;
        memcpy((float *)m->at + at, of_peer(c, r, m) + at, n * sizeof(float));
        count(c, n);
    }
    c->calls -= (uint64_t)(c->size - 2); /* one call, however many peers */
    c->move_ns += now_ns() - begin;
}

static void shm_merge(struct comm *c, struct mat *to, const struct mat *from)
{
    size_t n = numbers(from);
    must(numbers(to) == n);
    if (!meet(c))
        return;
    memmove(to->at, from->at, n * sizeof(float));
    for (int r = 0; r < c->size; r++) {
        const uint32_t *bits = (const uint32_t *)(const void *)of_peer(c, r, from);
        uint32_t *sum = to->at;
        for (size_t i = 0; r != c->rank && i < n; i++)
            sum[i] |= bits[i];
    }
    count(c, n * (size_t)(c->size - 1));
    meet(c);
}

static void shm_join(struct comm *c, struct mat *to, const struct mat *from, const int *col)
{
    const struct comm_shm *s = c->ctx;
    size_t at = (size_t)((char *)to->at - s->peer[c->rank]);
    float *root = (float *)(void *)(s->peer[0] + at);
    int lo = col[c->rank];

    must(from->dim == col[c->rank + 1] - lo && to->dim == col[c->size] && to->n == from->n);
    must(at + mat_bytes(to) <= s->peer_bytes);
    if (!meet(c)) /* rank 0 may still be reading the last one */
        return;
    for (int t = 0; t < from->n; t++)
        memcpy(root + (size_t)t * (size_t)to->dim + lo, mat_row(from, t),
               (size_t)from->dim * sizeof(float));
    count(c, numbers(from));
    meet(c);
}

static void shm_send(struct comm *c, int peer, const struct mat *m)
{
    const struct comm_shm *s = c->ctx;
    _Atomic uint64_t *sent = counter(c, false, c->rank, peer);
    uint64_t n = atomic_load_explicit(sent, memory_order_relaxed) + 1, begin = now_ns();

    must(peer != c->rank && mat_bytes(m) <= s->outbox_bytes);
    if (n > 2 && !wait_word(c, counter(c, true, c->rank, peer), n - 2))
        return;
    c->wait_ns += now_ns() - begin;
    memcpy(outbox(c, c->rank, n), m->at, mat_bytes(m));
    atomic_store_explicit(sent, n, memory_order_release);
    count(c, 0);
}

static void shm_recv(struct comm *c, int peer, struct mat *m)
{
    _Atomic uint64_t *taken = counter(c, true, peer, c->rank);
    uint64_t n = atomic_load_explicit(taken, memory_order_relaxed) + 1, begin = now_ns();

    if (!wait_word(c, counter(c, false, peer, c->rank), n))
        return;
    c->wait_ns += now_ns() - begin;
    memcpy(m->at, outbox(c, peer, n), mat_bytes(m));
    atomic_store_explicit(taken, n, memory_order_release);
    count(c, numbers(m));
}

static const struct comm_ops comm_shm_ops = {
    .name = "shm",
    .sum = shm_sum,
    .scatter_sum = shm_scatter_sum,
    .gather = shm_gather,
    .merge = shm_merge,
    .join = shm_join,
    .send = shm_send,
    .recv = shm_recv,
};

void comm_shm_open(struct comm *c, struct comm_shm *ctx, void *state, int rank, int size,
                   const int *cut, char *const *peer, size_t peer_bytes, size_t outbox_bytes,
                   struct wait wait)
{
    must(size > 1 && size <= 64 && 0 <= rank && rank < size);
    memset(ctx, 0, sizeof(*ctx));
    ctx->state = state;
    ctx->peer_bytes = peer_bytes;
    ctx->outbox_bytes = outbox_bytes;
    ctx->wait = wait;
    for (int r = 0; peer && r < size; r++)
        ctx->peer[r] = peer[r];
    if (cut)
        compile_all(ctx, size, cut);
    *c = (struct comm){.ops = &comm_shm_ops, .rank = rank, .size = size, .ctx = ctx};
}
