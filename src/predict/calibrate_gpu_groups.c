/* calibrate_gpu_groups.c - what GPUs take to add, gather and send among them, and to bring rows to
 * experts and back, from 1 KiB to 64 MiB, by the group that the ranks of a model use. The twin of
 * calibrate_sums.c. */
#include "comm/comm.h"
#include "comm/shots.h"
#include "predict/calibrate_gpu_core.h"
#include "predict/fit.h"

#include <math.h>

enum { ROWS = 64, SIZES = 9, ROUNDS = 5, UNRECORDED_ROWS = 65 };
static const size_t least_bytes = 1 << 10, most_sent = 16 << 20;

/* In memory that all members share. */
struct groups_shared {
    char card[GPUS][GROUP_CARD];
    int n[COLLECTIVE_COUNT];
    size_t bytes[COLLECTIVE_COUNT][SIZES];
    struct figure s[COLLECTIVE_COUNT][SIZES];
    double pair_s[GPUS][GPUS];
    size_t pair_bytes;
};

/* The same for all members. */
struct groups_work {
    const struct gpus *gpus;
    enum group_kind kind;
    int n, cut[GPUS + 1];
    size_t most; /* bytes of the largest mat */
};

struct groups {
    struct member *m;
    const struct groups_work *w;
    struct dev dev;
    struct comm comm;
    struct mat to;
    struct planes from;
    struct mat whole, back; /* of experts: sums, and those that are added, in fixed point */
    uint32_t *need;         /* [ROWS] of the device: every row goes to all */
    int calls, number, sender, receiver;
    bool pairs; /* of which there are too many to record */
    enum collective_op op;
};

static size_t plane_bytes(const struct groups_work *w) { return round_up(w->most, 256); }

/* The mats of a size, at the same place in the peer arena of each: the sum, then planes, of which
 * experts' sums take two. */
static void lay_out(struct groups *b, char *arena, size_t bytes)
{
    struct span tree[PLANES];
    const int *cut = b->w->cut, most = PLANES - 1;
    struct mat m = {ROWS, (int)(bytes / ROWS / sizeof(float)), NUM_F32, arena};
    b->to = m;
    for (int i = 0; i < most; i++) {
        m.at = arena + (size_t)min_int(i + 1, 3) * plane_bytes(b->w);
        b->from.at[i] = m;
    }
    b->from.n = tree_split((struct span){cut[b->m->rank], cut[b->m->rank + 1]}, tree);
    b->whole = (struct mat){ROWS, m.dim / 2, NUM_I64, b->from.at[0].at};
    b->back = (struct mat){ROWS, m.dim / 2, NUM_I64, b->from.at[1].at};
}

static void call(struct groups *b)
{
    switch (b->op) {
    case COLLECTIVE_SUM: comm_sum(&b->comm, &b->to, &b->from); break;
    case COLLECTIVE_SCATTER_SUM: comm_scatter_sum(&b->comm, &b->to, &b->from); break;
    case COLLECTIVE_GATHER: comm_gather(&b->comm, &b->to); break;
    case COLLECTIVE_SEND:
        if (b->m->rank == b->sender)
            comm_send(&b->comm, b->receiver, &b->to);
        else if (b->m->rank == b->receiver)
            comm_recv(&b->comm, b->sender, &b->to);
        break;
    case COLLECTIVE_ALL_TO_ALL: /* of one mat there and of another as large back */
        comm_dispatch(&b->comm, &b->to, b->need);
        comm_combine(&b->comm, &b->back, &b->whole, b->need);
        break;
    case COLLECTIVE_COUNT: must(!"measured");
    }
}

/* A step of so many calls, recorded by its number of wanted rows as in calibrate_gpu_core.c. */
static void call_step(void *arg, int i)
{
    static const int zero[GPU_CASES];
    static const struct mat none;
    struct groups *b = arg;
    struct batch one = {.n_tok = b->pairs ? UNRECORDED_ROWS : 1,
                        .n_seq = 1,
                        .n_out = b->number,
                        .tok = zero,
                        .pos = zero,
                        .slot = zero,
                        .seq = zero,
                        .page = zero,
                        .out = zero,
                        .stride = 1};
    (void)i;
    dev_begin(&b->dev, &one);
    for (int k = 0; k < b->calls; k++)
        call(b);
    dev_fetch(&b->dev, &none);
    comm_end(&b->comm);
}

/* Seconds of a call: steps of many less steps of one, so that what a step takes is in neither. An
 * all-to-all is the mean of both ways. */
static struct figure measure(struct groups *b, int number, size_t bytes)
{
    const int many = bytes < (1 << 20) ? 17 : 5;
    double s[ROUNDS];
    for (int i = -3; i < ROUNDS; i++) { /* met, recorded, replayed */
        b->calls = 1, b->number = 2 * number;
        double one = member_time(b->m, call_step, b, 1);
        b->calls = many, b->number = 2 * number + 1;
        double all = member_time(b->m, call_step, b, 1);
        if (i >= 0)
            s[i] = fmax(1e-9, (all - one) / (many - 1) / (b->op == COLLECTIVE_ALL_TO_ALL ? 2 : 1));
    }
    return fit_median(s, ROUNDS);
}

static void measure_ops(struct groups *b, char *arena, struct groups_shared *out)
{
    static const enum collective_op ops[] = {COLLECTIVE_SUM, COLLECTIVE_SCATTER_SUM,
                                             COLLECTIVE_GATHER, COLLECTIVE_ALL_TO_ALL,
                                             COLLECTIVE_SEND};
    int number = 0;
    b->sender = 0, b->receiver = 1;
    for (size_t k = 0; k < COUNT(ops); k++) {
        b->op = ops[k];
        int n = 0;
        for (size_t bytes = least_bytes; bytes <= b->w->most && n < SIZES && !b->comm.err;
             bytes *= 4) {
            if (b->op == COLLECTIVE_SEND && bytes > most_sent)
                break;
            lay_out(b, arena, bytes);
            struct figure f = measure(b, number++, bytes);
            if (!b->m->rank)
                out->s[b->op][n] = f, out->bytes[b->op][n] = bytes, out->n[b->op] = ++n;
            else
                n++;
        }
        member_done(b->m);
    }
    b->pairs = true;
    b->op = COLLECTIVE_SEND;
    out->pair_bytes = min_size(b->w->most, most_sent);
    lay_out(b, arena, out->pair_bytes);
    for (b->sender = 0; b->sender < b->w->n; b->sender++)
        for (b->receiver = 0; b->receiver < b->w->n && !b->comm.err; b->receiver++)
            if (b->sender != b->receiver) {
                struct figure f = measure(b, 0, out->pair_bytes);
                out->pair_s[b->receiver][b->sender] = f.value;
            }
}

/* Which ranks need a row: all. */
static int load_need(struct groups *b, const struct plugin *plugin, struct err *e)
{
    uint32_t need[ROWS];
    char *at = NULL;
    for (int i = 0; i < ROWS; i++)
        need[i] = UINT32_MAX >> (32 - b->w->n);
    int rc = plugin->memory(&b->dev, sizeof(need), &at, e);
    b->need = (uint32_t *)(void *)at;
    return rc ? rc : plugin->load(&b->dev, 0, at, need, sizeof(need), e);
}

static int groups_member(struct member *m, void *arg, struct err *e)
{
    const struct groups_work *w = arg;
    const struct plugin *plugin = w->gpus->plugin;
    struct groups_shared *out = (void *)m->shared;
    struct groups b = {.m = m, .w = w};
    const size_t peer = 4 * plane_bytes(w);
    struct group_ask group = {.kind = w->kind,
                              .rank = m->rank,
                              .size = w->n,
                              .rows = 1,
                              .dim = (int)(plane_bytes(w) / sizeof(float)),
                              .cut = w->cut,
                              .cards = out->card,
                              .peer_bytes = peer,
                              .outbox_bytes = min_size(w->most, most_sent),
                              .wait = m->wait};
    const size_t head = plugin->group_bytes(&group);
    const struct gpu_ask ask = {.gpu = m->rank,
                                .max_tok = UNRECORDED_ROWS,
                                .max_seq = 1,
                                .max_out = GPU_CASES,
                                .ctx = 512,
                                .max_dim = 64,
                                .words = 64,
                                .heads = 1,
                                .head_dim = 64,
                                .records = true};
    char *memory = NULL;
    int rc = plugin->open(&b.dev, &ask, e);
    if (!rc)
        rc = plugin->memory(&b.dev, head + peer, &memory, e);
    group.memory = memory;
    if (!rc)
        rc = load_need(&b, plugin, e);
    if (!rc)
        rc = plugin->group(&b.dev, &b.comm, &group, e);
    if (rc)
        return rc;
    measure_ops(&b, memory + head, out);
    if (b.comm.err || b.dev.err)
        return err_set(e, -EIO, "a group of %d GPUs stopped: %s", w->n,
                       b.dev.why ? b.dev.why : "a rank did not come");
    return 0;
}

/* ------------------------------------------------------------------------------- the fit */

static bool two_shot(const struct groups_work *w, enum collective_op op, size_t bytes)
{
    return op == COLLECTIVE_SUM &&
           (w->kind == GROUP_PEER ? comm_peer_two_shot(w->n, bytes) : comm_nccl_two_shot(bytes));
}

/* The sizes at which the group takes this way. */
static void add(struct level *to, const struct groups_shared *s, const struct groups_work *w,
                enum collective_op op, enum collective_way way)
{
    const int n = w->n;
    const struct gang g = {.ranks = n, .stride = 1};
    struct collective c = {.op = op, .way = way, .ranks = n};
    struct fit_point p[SIZES];
    double spread = 0;
    int points = 0;
    for (int i = 0; i < s->n[op]; i++) {
        if (two_shot(w, op, s->bytes[op][i]) != (way == WAY_TWO_SHOT))
            continue;
        p[points].w = collective_reads(op, way, &g, (double)s->bytes[op][i]);
        p[points++].y = s->s[op][i].value;
        spread = fmax(spread, s->s[op][i].error);
    }
    if (points < 2 || to->n_collective == COLLECTIVES_MAX || (op == COLLECTIVE_SEND && n > 2))
        return;
    fit_collective(p, points, fmin(spread, FIT_ERROR_MOST), &c);
    to->collective[to->n_collective++] = c;
}

int calibrate_gpu_groups(struct members *g, const struct gpus *gpus, struct level *to,
                         struct gpu_links *links, struct err *e)
{
    struct groups_work w = {
        .gpus = gpus, .kind = gpus_reach(gpus, g->n) ? GROUP_PEER : GROUP_NCCL, .n = g->n};
    w.most = gpus->gpu[0].memory_free > (size_t)32 << 30 ? 64 << 20 : 64 << 10;
    for (int r = 0; r < w.n; r++)
        w.cut[r + 1] = share(w.n <= 8 ? 8 : 32, w.n, r).hi;
    int rc = members_share(sizeof(struct groups_shared), &g->shared, e);
    if (!rc)
        rc = members_run(g, groups_member, &w, e);
    const struct groups_shared *s = (void *)g->shared;
    to->all_rows = w.kind == GROUP_NCCL; /* what it sends the host says, which knows of no need */
    for (int op = 0; !rc && op < COLLECTIVE_COUNT; op++)
        for (int way = WAY_ONE_SHOT; way <= WAY_TWO_SHOT; way++)
            add(to, s, &w, (enum collective_op)op, (enum collective_way)way);
    for (int i = 0; !rc && i < w.n; i++)
        for (int k = 0; k < w.n; k++)
            links->bytes_s[i][k] = i == k ? 0 : (double)s->pair_bytes / s->pair_s[i][k];
    members_unshare(g->shared, sizeof(struct groups_shared));
    return rc;
}
