/* bench_alltoall.c - `tandem bench alltoall`: the two all-to-alls of expert parallelism, beside
 * copying the same bytes, and beside what they replace: all rows to all ranks, and their sums. */
#include "base/arena.h"
#include "cmd/cmd.h"
#include "cmd/measure.h"
#include "comm/shm.h"
#include "predict/calibrate_ranks.h"
#include "run/room.h"

#include <jansson.h>

enum phase { DISPATCH, COMBINE, COPY, GATHER, SCATTER_SUM, WHATS };

struct line {
    int tokens, calls;
    double us[WHATS]; /* medians */
    double bytes;     /* that a rank reads of others, both ways, on the mean */
    double sent;      /* other ranks that a row goes to, on the mean */
};

/* One size. What the ranks see of each other is one arena each. */
struct run {
    int ranks, tokens, hidden, experts, top, calls;
    char *state, *peer[SHARES_MAX];
    size_t peer_bytes, copy_bytes;
};

/* In memory that all see; rank 0 writes it. */
struct result {
    double s[WHATS][ROUNDS_MAX];
    double sent;
    _Atomic uint64_t wrong;
};

struct bench {
    struct member *m;
    const struct run *run;
    struct comm comm;
    struct comm_shm shm;
    struct mat x, to;
    struct planes y; /* one, in fixed point */
    char *copy;      /* what others copy */
    char *copied;    /* where to: this rank's own */
    uint32_t *need;
    size_t read[2]; /* of the call: dispatch, combine */
    enum phase phase;
};

static void lay_out(const struct run *r, struct arena *peer, struct bench *b)
{
    const int n = r->tokens, h = r->hidden;
    b->x = (struct mat){n, h, NUM_F32, NULL};
    b->to = (struct mat){n, h, NUM_I64, NULL};
    b->y = (struct planes){1, {b->to}};
    b->x.at = arena_get(peer, mat_bytes(&b->x));
    b->to.at = arena_get(peer, mat_bytes(&b->to));
    b->y.at[0].at = arena_get(peer, mat_bytes(&b->to));
    b->copy = arena_get(peer, r->copy_bytes);
    b->copied = arena_get(peer, r->copy_bytes);
    b->need = arena_get(peer, (size_t)n * sizeof(*b->need));
}

/* ------------------------------------------------------------------------------- numbers */

/* Every row picks `top` experts blindly, which stand on runs of one rank, nearly even; the same on
 * all ranks. */
static void route(struct bench *b, int call)
{
    const struct run *r = b->run;
    uint32_t random = (uint32_t)call * 2654435761u + 1;
    for (int t = 0; t < r->tokens; t++) {
        bool taken[512] = {false};
        b->need[t] = 0;
        for (int k = 0; k < r->top;) {
            random = random * 1664525u + 1013904223u;
            int e = (int)((uint64_t)(random >> 8) * (uint64_t)r->experts >> 24);
            if (taken[e])
                continue;
            taken[e] = true, k++;
            b->need[t] |= (uint32_t)1 << e * r->ranks / r->experts;
        }
    }
}

static struct span mine(const struct bench *b)
{
    return share(b->run->tokens, b->m->n, b->m->rank);
}

static int64_t term(int rank, int row, int call) { return (int64_t)rank * 1000 + row * 7 + call; }

/* As after a norm, and after the experts: nobody else has these numbers in a cache. */
static void rewrite(struct bench *b, int call)
{
    const struct run *r = b->run;
    int64_t *y = b->y.at[0].at;
    for (int t = 0; t < r->tokens; t++) {
        bool own = t >= mine(b).lo && t < mine(b).hi;
        for (int k = 0; k < r->hidden && own; k++)
            mat_row(&b->x, t)[k] = (float)(t + call);
        for (int k = 0; k < r->hidden && b->need[t] >> b->m->rank & 1; k++)
            y[(size_t)t * (size_t)r->hidden + (size_t)k] = term(b->m->rank, t, call);
    }
    memset(b->copy, call, r->copy_bytes);
}

static void count_reads(struct bench *b)
{
    const size_t row = (size_t)b->run->hidden;
    const int rank = b->m->rank;
    b->read[0] = b->read[1] = 0;
    for (int t = 0; t < b->run->tokens; t++)
        if (t >= mine(b).lo && t < mine(b).hi)
            b->read[1] += row * sizeof(int64_t) *
                          (size_t)__builtin_popcount(b->need[t] & ~((uint32_t)1 << rank));
        else
            b->read[0] += row * sizeof(float) * (b->need[t] >> rank & 1);
}

static uint64_t wrong_rows(const struct bench *b, int call)
{
    uint64_t wrong = 0;
    for (int t = mine(b).lo; t < mine(b).hi; t++) {
        const int64_t *got = (int64_t *)b->to.at + (size_t)t * (size_t)b->run->hidden;
        int64_t want = 0;
        for (int r = 0; r < b->m->n; r++)
            want += b->need[t] >> r & 1 ? term(r, t, call) : 0;
        wrong += got[0] != want || got[b->run->hidden - 1] != want;
    }
    for (int t = 0; t < b->run->tokens; t++)
        if (b->need[t] >> b->m->rank & 1)
            wrong += mat_row(&b->x, t)[b->run->hidden - 1] != (float)(t + call);
    return wrong;
}

/* ------------------------------------------------------------------------------- ranks */

static void call_once(void *arg, int i)
{
    struct bench *b = arg;
    const char *next =
        b->run->peer[(b->m->rank + 1) % b->m->n] + (b->copy - b->run->peer[b->m->rank]);
    (void)i;
    switch (b->phase) {
    case DISPATCH: comm_dispatch(&b->comm, &b->x, b->need); break;
    case COMBINE: comm_combine(&b->comm, &b->to, &b->y.at[0], b->need); break;
    case COPY:
        memcpy(b->copied, next, min_size(b->run->copy_bytes, b->read[0] + b->read[1]));
        break;
    case GATHER: comm_gather(&b->comm, &b->x); break;
    case SCATTER_SUM: comm_scatter_sum(&b->comm, &b->to, &b->y); break;
    case WHATS: must(!"measured");
    }
}

/* Means over the calls, of what all ranks read. */
static void note(const struct bench *b, struct result *to)
{
    const struct run *r = b->run;
    if (b->m->rank)
        return;
    for (int owner = 0; owner < r->ranks; owner++)
        for (int t = share(r->tokens, r->ranks, owner).lo; t < share(r->tokens, r->ranks, owner).hi;
             t++)
            to->sent += (double)__builtin_popcount(b->need[t] & ~((uint32_t)1 << owner)) /
                        r->tokens / r->calls;
}

static int member(struct member *m, void *arg, struct err *e)
{
    const struct run *r = arg;
    struct result *to = (void *)m->shared;
    struct bench b = {.m = m, .run = r};
    struct arena peer = {.base = r->peer[m->rank], .size = r->peer_bytes};
    lay_out(r, &peer, &b);
    comm_shm_open(&b.comm, &b.shm, r->state, m->rank, m->n, NULL, r->peer, r->peer_bytes, 0,
                  m->wait);
    for (int call = -3; call < r->calls; call++) {
        route(&b, call);
        count_reads(&b);
        for (b.phase = DISPATCH; b.phase < WHATS; b.phase++) {
            if (b.phase != COMBINE)
                rewrite(&b, call);
            double s = member_time(m, call_once, &b, 1);
            if (b.phase == COMBINE)
                atomic_fetch_add(&to->wrong, wrong_rows(&b, call));
            if (call >= 0 && !m->rank)
                to->s[b.phase][call] = s;
        }
        if (call >= 0)
            note(&b, to);
    }
    return b.comm.err ? err_set(e, -EIO, "a group of %d ranks stopped", m->n) : 0;
}

/* ------------------------------------------------------------------------------- a size */

static void lay_out_all(struct run *r, struct arena *a, struct members *g)
{
    struct arena peer = {0};
    struct bench none = {.m = NULL};
    lay_out(r, &peer, &none);
    r->peer_bytes = peer.used;
    g->shared = arena_get(a, sizeof(struct result));
    r->state = arena_get(a, comm_shm_bytes(r->ranks, 0));
    for (int i = 0; i < r->ranks; i++)
        r->peer[i] = arena_get(a, r->peer_bytes);
}

static int measure(struct run *r, struct members *g, struct line *to, struct err *e)
{
    struct arena a = {0};
    /* no rank reads more: all rows of the others, and of its own from all others */
    r->copy_bytes = (size_t)r->tokens * (size_t)r->hidden * (sizeof(float) + sizeof(int64_t));
    lay_out_all(r, &a, g);
    const size_t bytes = a.used;
    if (bytes > memory_available())
        return err_set(e, -ENOMEM,
                       "bench alltoall: %d tokens over %d ranks take %zu MiB of memory, "
                       "but %zu are free; lower --tokens or --ranks",
                       r->tokens, r->ranks, bytes >> 20, memory_available() >> 20);
    a = (struct arena){.size = bytes};
    int rc = members_share(bytes, &a.base, e);
    if (rc)
        return rc;
    lay_out_all(r, &a, g);
    rc = members_run(g, member, r, e);
    const struct result *got = (void *)g->shared;
    if (!rc && got->wrong)
        rc = err_set(e, -EIO, "bench alltoall: %llu rows of %d tokens are wrong",
                     (unsigned long long)got->wrong, r->tokens);
    *to = (struct line){.tokens = r->tokens, .calls = r->calls, .sent = got->sent};
    to->bytes = got->sent * r->tokens * r->hidden * (sizeof(float) + sizeof(int64_t)) / r->ranks;
    for (int i = 0; i < WHATS && !rc; i++)
        to->us[i] = 1e6 * rounds_of(got->s[i], r->calls).median;
    members_unshare(a.base, bytes);
    return rc;
}

/* ------------------------------------------------------------------------------- printing */

static double both(const struct line *l) { return l->us[DISPATCH] + l->us[COMBINE]; }
static double all_rows(const struct line *l) { return l->us[GATHER] + l->us[SCATTER_SUM]; }

static void print_head(const struct options *o)
{
    printf("rows of %d numbers to the ranks of their %d of %d experts and back, %d processes in "
           "shared memory\n",
           o->hidden, o->top, o->experts, o->ranks);
    printf("tokens  sent to  dispatch us  combine us    both us  copying as much us  both / copy  "
           "all rows us\n");
}

static void print_line(const struct line *l)
{
    printf("%6d %8.2f %12.2f %11.2f %10.2f %19.2f %12.2f %12.2f\n", l->tokens, l->sent,
           l->us[DISPATCH], l->us[COMBINE], both(l), l->us[COPY], both(l) / l->us[COPY],
           all_rows(l));
    fflush(stdout);
}

static json_t *line_json(const struct line *l)
{
    return json_pack("{s:i,s:i,s:f,s:f,s:f,s:f,s:f,s:f}", "tokens", l->tokens, "calls", l->calls,
                     "sent_to", l->sent, "bytes", l->bytes, "dispatch_us", l->us[DISPATCH],
                     "combine_us", l->us[COMBINE], "copy_us", l->us[COPY], "all_rows_us",
                     all_rows(l));
}

static int refuse(const struct options *o, struct err *e)
{
    if (o->ranks < 2)
        return err_set(e, CMD_USAGE,
                       "bench alltoall: --ranks %d, but rows travel between 2 at least", o->ranks);
    if (o->experts < o->ranks || o->top > o->experts)
        return err_set(e, CMD_USAGE, "bench alltoall: %d of %d experts on %d ranks cannot be",
                       o->top, o->experts, o->ranks);
    return 0;
}

int cmd_bench_alltoall(const struct options *o, struct err *e)
{
    int tokens[LIST_MAX], n = 0, rc = refuse(o, e);
    struct host host;
    const struct calibrate_opts quiet = {.isa = ISA_REF};
    json_t *lines = json_array();
    host_read(&host, NULL);
    if (!rc)
        rc = read_numbers("tokens", o->tokens, tokens, &n, e);
    if (!rc && !n)
        rc = err_set(e, CMD_USAGE, "bench alltoall: --tokens %s: the list is empty", o->tokens);
    if (!rc && !o->json)
        print_head(o);
    for (int i = 0; i < n && !rc; i++) {
        struct members g = {.n = o->ranks, .host = &host, .stride = 1, .opts = &quiet};
        struct run r = {.ranks = o->ranks,
                        .tokens = tokens[i],
                        .hidden = o->hidden,
                        .experts = o->experts,
                        .top = o->top};
        struct line line = {.tokens = 0};
        r.calls =
            o->iters ? min_int(o->iters, ROUNDS_MAX) : max_int(20, min_int(500, 50000 / tokens[i]));
        rc = measure(&r, &g, &line, e);
        if (!rc && !o->json)
            print_line(&line);
        if (!rc)
            json_array_append_new(lines, line_json(&line));
    }
    if (!rc && o->json) {
        json_t *all = json_pack("{s:i,s:i,s:i,s:i,s:O}", "ranks", o->ranks, "hidden", o->hidden,
                                "experts", o->experts, "top", o->top, "sizes", lines);
        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(all);
    }
    json_decref(lines);
    return rc;
}
