/* shm.c - see shm.h.
 *
 * Shared state: counters that only ever grow, each in a line that only one rank writes, and two
 * message slots per rank. Invariants:
 *   1. arrived of rank r counts the meetings r has come to; meeting n is over for a rank when it
 *      has seen arrived >= n of all. What a rank wrote before coming, the others may read after.
 *   2. A call is one meeting (one-shot sum, scatter_sum, gather, dispatch, combine), or two
 * (two-shot sum, merge, join). Nobody can be more than one meeting ahead, so a rank that returns
 * from the *next* call knows that all have finished reading what it published for this one.
 *   3. sent and taken of a pair (r, p) count the messages from r to p. A slot of r's outbox is
 *      written again only when the message that it held was taken, whoever that was for.
 *   4. slot[n % 2] of a pair says where message n lies. The slots of an outbox are used in turn,
 *      so message n - 2 of the pair was taken before message n is put anywhere: its entry is free.
 */
#include "base/whole.h"
#include "comm/shm_inside.h"

#include <time.h>

enum { LINE = 64 };

struct line {
    _Alignas(LINE) _Atomic uint64_t arrived;
};

struct pair {
    _Alignas(LINE) _Atomic uint64_t sent; /* written by the sender, as is slot */
    uint8_t slot[SHM_SLOTS];
    _Alignas(LINE) _Atomic uint64_t taken; /* written by the receiver */
};

static size_t lines_bytes(int size) { return (size_t)size * sizeof(struct line); }
static size_t pairs_bytes(int size) { return (size_t)(size * size) * sizeof(struct pair); }

size_t comm_shm_bytes(int size, size_t outbox_bytes)
{
    return lines_bytes(size) + pairs_bytes(size) +
           (size_t)(size * SHM_SLOTS) * round_up(outbox_bytes, LINE);
}

static struct line *line_of(const struct comm_shm *s, int rank)
{
    return (struct line *)s->state + rank;
}

static struct pair *pair_of(const struct comm *c, int from, int to)
{
    const struct comm_shm *s = c->ctx;
    must(0 <= from && from < c->size && 0 <= to && to < c->size && from != to);
    return (struct pair *)(void *)((char *)s->state + lines_bytes(c->size)) + from * c->size + to;
}

static char *slot_of(const struct comm *c, int rank, int slot)
{
    const struct comm_shm *s = c->ctx;
    return (char *)s->state + lines_bytes(c->size) + pairs_bytes(c->size) +
           (size_t)(rank * SHM_SLOTS + slot) * round_up(s->outbox_bytes, LINE);
}

/* ------------------------------------------------------------------------------- waiting */

/* Time is read only after a meeting, after the work, and when there is something to wait for: a
 * reading costs 28 ns, a sum of 4 KiB 300. */
uint64_t shm_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static bool wait_word(struct comm *c, const _Atomic uint64_t *word, uint64_t at)
{
    const struct comm_shm *s = c->ctx;
    if (atomic_load_explicit(word, memory_order_acquire) >= at)
        return true;
    uint64_t begin = shm_now_ns();
    if (!wait_for(&s->wait, word, at))
        c->err = -ECANCELED;
    c->wait_ns += shm_now_ns() - begin;
    return !c->err;
}

/* Come to the next meeting. */
static uint64_t come(struct comm *c)
{
    struct comm_shm *s = c->ctx;
    uint64_t turn = ++s->turn;
    atomic_store_explicit(&line_of(s, c->rank)->arrived, turn, memory_order_release);
    return turn;
}

static bool wait_all(struct comm *c, uint64_t turn)
{
    for (int i = 1; i < c->size; i++)
        if (!wait_word(c, &line_of(c->ctx, (c->rank + i) % c->size)->arrived, turn))
            return false;
    return true;
}

bool shm_meet(struct comm *c) { return wait_all(c, come(c)); }

/* ------------------------------------------------------------------------------- mats */

static size_t numbers(const struct mat *m) { return (size_t)m->n * (size_t)m->dim; }

void *shm_of_peer(const struct comm *c, int rank, const struct mat *m, size_t bytes)
{
    const struct comm_shm *s = c->ctx;
    size_t at = (size_t)((char *)m->at - s->peer[c->rank]);
    must(at <= s->peer_bytes && bytes <= s->peer_bytes - at);
    return s->peer[rank] + at;
}

/* The planes of all ranks, each of the shape of `to`, as the program numbers them. */
static void find_planes(const struct comm *c, const struct mat *to, const struct planes *from,
                        const void **plane)
{
    const struct comm_shm *s = c->ctx;
    bool whole = to->type == NUM_I64;
    must(whole ? from->n == 1 : s->sum.n_plane > 0 && from->n == s->sum.planes_of[c->rank]);
    for (int i = 0; i < from->n; i++)
        must(from->at[i].n == to->n && from->at[i].dim == to->dim && from->at[i].type == to->type);
    for (int r = 0; r < c->size; r++)
        for (int i = 0; i < (whole ? 1 : s->sum.planes_of[r]); i++)
            *plane++ = shm_of_peer(c, r, &from->at[i], mat_bytes(to));
}

void shm_count(struct comm *c, size_t read_bytes)
{
    c->calls++;
    c->bytes += read_bytes;
}

/* ------------------------------------------------------------------------------- sums */

/* Measured with 2 ranks on 2 cores of Zen 5, payloads rewritten before every call, medians of one
 * and two shots in us: 64 KiB 2.5 and 2.9, 256 KiB 9.5 and 10.0, 512 KiB 19 and 16, 1 MiB 38
 * and 26. Two ranks read the same number of bytes either way, and two shots only halve the
 * additions. With n > 2 they save (n-1)(n-2)/n of the mat's bytes at 27 bytes a ns, for 0.5 us that
 * the second meeting costs: worth it from 20 KiB with 3 ranks, 9 KiB with 4 (computed, not
 * measured). */
bool comm_shm_two_shot(int size, size_t bytes)
{
    return bytes >= (size_t)(size == 2 ? 512 : 16) << 10;
}

/* Where rank r's part of a two-shot sum of n numbers begins: whole cache lines. */
static size_t part_begins(size_t n, int size, int r)
{
    enum { PER_LINE = LINE / sizeof(float) };
    size_t at = (n + PER_LINE - 1) / PER_LINE * (size_t)r / (size_t)size * PER_LINE;
    return at < n ? at : n;
}

size_t comm_shm_part(int size, int rank, size_t bytes, size_t number)
{
    size_t n = bytes / number;
    return (part_begins(n, size, rank + 1) - part_begins(n, size, rank)) * number;
}

static void add_whole(int64_t *to, const int64_t *const *plane, int n, size_t lo, size_t hi)
{
    for (size_t i = lo; i < hi; i++) {
        int64_t sum = plane[0][i];
        for (int k = 1; k < n; k++)
            sum = whole_add(sum, plane[k][i]);
        to[i] = sum;
    }
}

/* Add [lo, hi) of all planes into `to`. */
static void add_part(struct comm *c, const struct mat *to, const void *const *plane, size_t lo,
                     size_t hi)
{
    const struct comm_shm *s = c->ctx;
    bool whole = to->type == NUM_I64;
    int others = whole ? c->size - 1 : s->sum.n_plane - s->sum.planes_of[c->rank];
    uint64_t begin = shm_now_ns();
    if (whole)
        add_whole(to->at, (const int64_t *const *)plane, c->size, lo, hi);
    else
        sum_run(&s->sum, to->at, (const float *const *)plane, lo, hi);
    c->move_ns += shm_now_ns() - begin;
    shm_count(c, (hi - lo) * (size_t)others * num_bytes(to->type));
}

/* Copy [lo, hi) of m from rank r. */
static void copy_part(struct comm *c, struct mat *m, int r, size_t lo, size_t hi)
{
    const size_t number = num_bytes(m->type);
    const char *from = shm_of_peer(c, r, m, mat_bytes(m));
    memcpy((char *)m->at + lo * number, from + lo * number, (hi - lo) * number);
    c->bytes += (hi - lo) * number;
}

static void shm_begin(struct comm *c)
{
    struct comm_shm *s = c->ctx;
    must(s->n_begun - s->n_ended < COMM_SUMS);
    s->begun[s->n_begun++ % COMM_SUMS] = come(c);
}

static void shm_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    struct comm_shm *s = c->ctx;
    const void *plane[SHARES_MAX];
    size_t n = numbers(to);

    must(s->n_ended < s->n_begun);
    find_planes(c, to, from, plane);
    if (!wait_all(c, s->begun[s->n_ended++ % COMM_SUMS]))
        return;
    if (!comm_shm_two_shot(c->size, mat_bytes(to))) {
        add_part(c, to, plane, 0, n);
        return;
    }
    add_part(c, to, plane, part_begins(n, c->size, c->rank), part_begins(n, c->size, c->rank + 1));
    if (!shm_meet(c))
        return;
    uint64_t begin = shm_now_ns();
    for (int i = 1; i < c->size; i++) { /* from the next rank on, so that not all read one rank */
        int r = (c->rank + i) % c->size;
        copy_part(c, to, r, part_begins(n, c->size, r), part_begins(n, c->size, r + 1));
    }
    c->move_ns += shm_now_ns() - begin;
}

static void shm_scatter_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    const void *plane[SHARES_MAX];
    struct span mine = share(to->n, c->size, c->rank);
    size_t dim = (size_t)to->dim;

    find_planes(c, to, from, plane);
    if (shm_meet(c))
        add_part(c, to, plane, (size_t)mine.lo * dim, (size_t)mine.hi * dim);
}

static void shm_gather(struct comm *c, struct mat *m)
{
    size_t dim = (size_t)m->dim;
    if (!shm_meet(c))
        return;
    uint64_t begin = shm_now_ns();
    for (int i = 1; i < c->size; i++) {
        int r = (c->rank + i) % c->size;
        struct span rows = share(m->n, c->size, r);
        copy_part(c, m, r, (size_t)rows.lo * dim, (size_t)rows.hi * dim);
    }
    c->move_ns += shm_now_ns() - begin;
    shm_count(c, 0);
}

/* ------------------------------------------------------------------------------- no sums */

/* Bits are joined, not numbers added: 0 + -0 is 0, and a NaN may lose its payload. */
static void shm_merge(struct comm *c, struct mat *to, const struct mat *from)
{
    size_t n = numbers(from);
    uint32_t *bits = to->at;

    must(to->type == NUM_F32 && numbers(to) == n && to->at != from->at);
    if (!shm_meet(c))
        return;
    uint64_t begin = shm_now_ns();
    memcpy(bits, from->at, mat_bytes(from));
    for (int i = 1; i < c->size; i++) {
        const uint32_t *other_bits = shm_of_peer(c, (c->rank + i) % c->size, from, mat_bytes(from));
        for (size_t k = 0; k < n; k++)
            bits[k] |= other_bits[k];
    }
    c->move_ns += shm_now_ns() - begin;
    shm_count(c, mat_bytes(from) * (size_t)(c->size - 1));
    shm_meet(c); /* `from` is free again */
}

/* Everyone writes its columns where rank 0 wants them. */
static void shm_join(struct comm *c, struct mat *to, const struct mat *from, const int *col)
{
    int lo = col[c->rank];
    size_t dim = (size_t)from->dim;
    float *root = shm_of_peer(c, 0, to, mat_bytes(to));

    must(from->dim == col[c->rank + 1] - lo && to->dim == col[c->size] && to->n == from->n);
    must(from->type == NUM_F32);
    if (!shm_meet(c)) /* rank 0 may still be reading what was joined last */
        return;
    uint64_t begin = shm_now_ns();
    for (int t = 0; t < from->n; t++)
        memcpy(root + (size_t)t * (size_t)to->dim + lo, mat_row(from, t), dim * sizeof(float));
    c->move_ns += shm_now_ns() - begin;
    shm_count(c, c->rank ? mat_bytes(from) : 0);
    shm_meet(c); /* complete at rank 0 */
}

/* ------------------------------------------------------------------------------- messages */

static void shm_send(struct comm *c, int peer, const struct mat *m)
{
    struct comm_shm *s = c->ctx;
    struct pair *pair = pair_of(c, c->rank, peer);
    uint64_t number = atomic_load_explicit(&pair->sent, memory_order_relaxed) + 1;
    int slot = (int)(s->n_sent % SHM_SLOTS);

    must(mat_bytes(m) <= s->outbox_bytes);
    if (s->slot[slot].number &&
        !wait_word(c, &pair_of(c, c->rank, s->slot[slot].to)->taken, s->slot[slot].number))
        return;
    uint64_t begin = shm_now_ns();
    memcpy(slot_of(c, c->rank, slot), m->at, mat_bytes(m));
    pair->slot[number % SHM_SLOTS] = (uint8_t)slot;
    atomic_store_explicit(&pair->sent, number, memory_order_release);
    c->move_ns += shm_now_ns() - begin;
    s->slot[slot].to = peer;
    s->slot[slot].number = number;
    s->n_sent++;
    shm_count(c, 0);
}

static void shm_recv(struct comm *c, int peer, struct mat *m)
{
    const struct comm_shm *s = c->ctx;
    struct pair *pair = pair_of(c, peer, c->rank);
    uint64_t number = atomic_load_explicit(&pair->taken, memory_order_relaxed) + 1;

    must(mat_bytes(m) <= s->outbox_bytes);
    if (!wait_word(c, &pair->sent, number))
        return;
    uint64_t begin = shm_now_ns();
    memcpy(m->at, slot_of(c, peer, pair->slot[number % SHM_SLOTS]), mat_bytes(m));
    atomic_store_explicit(&pair->taken, number, memory_order_release);
    c->move_ns += shm_now_ns() - begin;
    shm_count(c, mat_bytes(m));
}

/* ------------------------------------------------------------------------------- the group */

static const struct comm_ops comm_shm_ops = {
    .name = "shm",
    .begin = shm_begin,
    .sum = shm_sum,
    .scatter_sum = shm_scatter_sum,
    .gather = shm_gather,
    .dispatch = shm_dispatch,
    .combine = shm_combine,
    .merge = shm_merge,
    .join = shm_join,
    .send = shm_send,
    .recv = shm_recv,
};

void comm_shm_open(struct comm *c, struct comm_shm *ctx, void *state, int rank, int size,
                   const int *cut, char *const *peer, size_t peer_bytes, size_t outbox_bytes,
                   struct wait wait)
{
    must(1 < size && size <= SHM_RANKS_MAX && 0 <= rank && rank < size);
    must((uintptr_t)state % LINE == 0 && (!peer || size <= SHARES_MAX));
    *ctx = (struct comm_shm){
        .state = state, .peer_bytes = peer_bytes, .outbox_bytes = outbox_bytes, .wait = wait};
    for (int r = 0; peer && r < size; r++)
        ctx->peer[r] = peer[r];
    if (cut)
        sum_compile(&ctx->sum, size, cut);
    *c = (struct comm){.ops = &comm_shm_ops, .rank = rank, .size = size, .ctx = ctx};
}
