/* calibrate_sums.c - what the ranks of a host take to add, gather, exchange and send, from 1 KiB to
 * 64 MiB. See calibrate.h. */
#include "base/arena.h"
#include "comm/shm.h"
#include "predict/calibrate_inside.h"
#include "predict/fit.h"
#include "run/room.h"

#include <math.h>

enum { ROWS = 64, SIZES_MAX = 20, REPEATS_MOST = FIT_REPEATS - 1, REPEATS_LEAST = 9 };
static const size_t least_bytes = 1 << 10, most_bytes = 64 << 20, most_sent = 16 << 20;

/* What was measured of an operation at each size. */
struct sizes {
    int n;
    size_t bytes[SIZES_MAX];
    struct figure s[SIZES_MAX];
};

/* In memory that all members share. */
struct sums_shared {
    struct sizes of[COLLECTIVE_COUNT];
};

/* The same for all members. */
struct sums_work {
    int n, cut[SHARES_MAX + 1];
    size_t most, sent; /* the largest mats */
    char *state, *peer[SHARES_MAX];
    size_t peer_bytes;
};

/* A member's mats, at the same place in the peer arena of each. */
struct sums_bench {
    struct member *m;
    const struct sums_work *w;
    struct comm comm;
    struct comm_shm shm;
    struct mat to;
    struct planes from;
    struct mat whole, back; /* in fixed point: to, as it comes back, and its sum */
    uint32_t need[ROWS];    /* every row goes to all */
    enum collective_op op;
};

static void lay_out(const struct sums_work *w, struct arena *a, struct sums_bench *b)
{
    struct sum_program program;
    int most = 1;
    sum_compile(&program, w->n, w->cut);
    for (int r = 0; r < w->n; r++)
        most = max_int(most, program.planes_of[r]);
    b->to.at = arena_get(a, w->most);
    for (int i = 0; i < most; i++)
        b->from.at[i].at = arena_get(a, w->most);
    b->whole.at = b->from.at[0].at;
    b->back.at = arena_get(a, w->most);
    b->from.n = b->m ? program.planes_of[b->m->rank] : 0;
}

/* Numbers that nobody else has in a cache, as after a product. */
static void rewrite(const struct mat *m)
{
    float *x = m->at;
    int64_t *whole = m->at;
    for (size_t i = 0; i < mat_bytes(m) / num_bytes(m->type); i++)
        if (m->type == NUM_I64)
            whole[i] = (int64_t)(i & 1023) << 32;
        else
            x[i] = (float)(i & 1023);
}

static void call_collective(void *arg, int i)
{
    struct sums_bench *b = arg;
    (void)i;
    switch (b->op) {
    case COLLECTIVE_SUM: comm_sum(&b->comm, &b->to, &b->from); break;
    case COLLECTIVE_SCATTER_SUM: comm_scatter_sum(&b->comm, &b->to, &b->from); break;
    case COLLECTIVE_GATHER: comm_gather(&b->comm, &b->to); break;
    case COLLECTIVE_SEND:
        if (b->m->rank == 0)
            comm_send(&b->comm, 1, &b->to);
        else if (b->m->rank == 1)
            comm_recv(&b->comm, 0, &b->to);
        break;
    case COLLECTIVE_ALL_TO_ALL: /* of one mat there and of another as large back */
        comm_dispatch(&b->comm, &b->to, b->need);
        comm_combine(&b->comm, &b->back, &b->whole, b->need);
        break;
    case COLLECTIVE_COUNT: must(!"measured");
    }
}

static struct figure measure_size(struct sums_bench *b, size_t bytes)
{
    const double budget_s = 0.03;
    double s[FIT_REPEATS];
    int n = REPEATS_LEAST;
    b->to.n = ROWS, b->to.dim = (int)(bytes / ROWS / sizeof(float));
    b->whole.type = b->back.type = NUM_I64;
    b->whole.n = b->back.n = ROWS, b->whole.dim = b->back.dim = b->to.dim / 2;
    for (int i = 0; i < SHARES_MAX && b->from.at[i].at; i++)
        b->from.at[i].n = ROWS, b->from.at[i].dim = b->to.dim;
    for (int i = -2; i < n; i++) { /* two to warm up, which also tell how many there is time for */
        rewrite(&b->to);
        for (int k = 0; k < b->from.n; k++)
            rewrite(&b->from.at[k]);
        if (b->op == COLLECTIVE_ALL_TO_ALL)
            rewrite(&b->whole); /* in the place of the first plane */
        double took = member_time(b->m, call_collective, b, 1);
        if (b->op == COLLECTIVE_ALL_TO_ALL)
            took /= 2; /* there and back are one each */
        if (i >= 0)
            s[i] = took;
        else
            n = max_int(REPEATS_LEAST,
                        min_int(REPEATS_MOST, (int)fmin(budget_s / took, REPEATS_MOST)));
    }
    return fit_median(s, n);
}

static int sums_member(struct member *m, void *arg, struct err *e)
{
    static const enum collective_op ops[SUMS_STEPS] = {COLLECTIVE_SUM, COLLECTIVE_SCATTER_SUM,
                                                       COLLECTIVE_GATHER, COLLECTIVE_ALL_TO_ALL,
                                                       COLLECTIVE_SEND};
    const struct sums_work *w = arg;
    struct sums_shared *out = (void *)m->shared;
    struct sums_bench b = {.m = m, .w = w};
    struct arena a = {.base = w->peer[m->rank], .size = w->peer_bytes};
    lay_out(w, &a, &b);
    memset(b.need, 0xff, sizeof(b.need));
    for (int i = 0; i < ROWS; i++)
        b.need[i] >>= SHARES_MAX - w->n;
    comm_shm_open(&b.comm, &b.shm, w->state, m->rank, w->n, w->cut, w->peer, w->peer_bytes, w->sent,
                  m->wait);
    for (int k = 0; k < SUMS_STEPS; k++) {
        b.op = ops[k];
        int n = 0;
        for (size_t bytes = least_bytes; bytes <= (b.op == COLLECTIVE_SEND ? w->sent : w->most);
             bytes *= 2, n++) {
            struct figure f = measure_size(&b, bytes);
            if (!m->rank)
                out->of[b.op].s[n] = f, out->of[b.op].bytes[n] = bytes, out->of[b.op].n = n + 1;
        }
        member_done(m);
    }
    return b.comm.err ? err_set(e, -EIO, "a group of %d ranks stopped", w->n) : 0;
}

/* ------------------------------------------------------------------------------- the fit */

/* The sizes at which the group takes this way. */
static void add_way(struct level *to, const struct sizes *all, enum collective_op op,
                    enum collective_way way, const struct gang *g)
{
    struct fit_point p[SIZES_MAX];
    struct collective c = {.op = op, .way = way, .ranks = g->ranks};
    double spread = 0;
    int n = 0;
    for (int i = 0; i < all->n; i++)
        if (op != COLLECTIVE_SUM ||
            comm_shm_two_shot(g->ranks, all->bytes[i]) == (way == WAY_TWO_SHOT)) {
            double w = collective_reads(op, way, g, (double)all->bytes[i]);
            p[n++] = (struct fit_point){w, all->s[i].value};
            spread += all->s[i].error;
        }
    if (n < 2 || to->n_collective == COLLECTIVES_MAX)
        return;
    fit_collective(p, n, spread / n, &c);
    to->collective[to->n_collective++] = c;
}

static void fit_all(const struct sums_work *w, const struct sums_shared *s, struct level *to)
{
    struct sum_program program;
    sum_compile(&program, w->n, w->cut);
    struct gang g = {.ranks = w->n, .stride = 1, .others = program.n_plane - program.planes_of[0]};
    add_way(to, &s->of[COLLECTIVE_SUM], COLLECTIVE_SUM, WAY_ONE_SHOT, &g);
    add_way(to, &s->of[COLLECTIVE_SUM], COLLECTIVE_SUM, WAY_TWO_SHOT, &g);
    add_way(to, &s->of[COLLECTIVE_SCATTER_SUM], COLLECTIVE_SCATTER_SUM, WAY_ONE_SHOT, &g);
    add_way(to, &s->of[COLLECTIVE_GATHER], COLLECTIVE_GATHER, WAY_ONE_SHOT, &g);
    add_way(to, &s->of[COLLECTIVE_ALL_TO_ALL], COLLECTIVE_ALL_TO_ALL, WAY_ONE_SHOT, &g);
    if (w->n == 2)
        add_way(to, &s->of[COLLECTIVE_SEND], COLLECTIVE_SEND, WAY_ONE_SHOT, &g);
}

/* ------------------------------------------------------------------------------- memory */

static void lay_out_all(struct sums_work *w, struct arena *a, struct members *g)
{
    struct arena peer = {0};
    struct sums_bench none = {.m = NULL};
    lay_out(w, &peer, &none);
    w->peer_bytes = peer.used;
    g->shared = arena_get(a, sizeof(struct sums_shared));
    w->state = arena_get(a, comm_shm_bytes(w->n, w->sent));
    for (int r = 0; r < w->n; r++)
        w->peer[r] = arena_get(a, w->peer_bytes);
}

int calibrate_sums(struct members *g, struct level *to, struct err *e)
{
    const int shares = g->n <= 8 ? 8 : g->n <= 16 ? 16 : SHARES_MAX;
    struct sums_work w = {.n = g->n, .most = most_bytes, .sent = g->n == 2 ? most_sent : 0};
    struct arena a = {0};
    must(2 <= g->n && g->n <= SHARES_MAX);
    for (int r = 0; r < w.n; r++)
        w.cut[r + 1] = share(shares, w.n, r).hi;
    for (; w.most > least_bytes; w.most /= 2) { /* less where memory is short */
        a.used = 0;
        lay_out_all(&w, &a, g);
        if (a.used < memory_available() / 2)
            break;
    }
    a = (struct arena){.size = a.used};
    const size_t bytes = a.size;
    int rc = members_share(bytes, &a.base, e);
    if (!rc) {
        lay_out_all(&w, &a, g);
        rc = members_run(g, sums_member, &w, e);
    }
    if (!rc)
        fit_all(&w, (void *)g->shared, to);
    members_unshare(a.base, bytes);
    g->done += SUMS_STEPS;
    return rc;
}
