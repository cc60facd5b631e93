/* plan.c - who holds what. See plan.h. Pure arithmetic: no I/O, no clock, no allocation. */
#include "plan/plan.h"
#include "base/whole.h"
#include "dev/dev.h"
#include "plan/placement.h"
#include "plan/weights.h"

_Static_assert(MODEL_EXPERTS == (int)ROUTE_EXPERTS,
               "a device routes to as many as a model may have");
_Static_assert((MODEL_TOP + 1) * SHARES_MAX <= WHOLE_TERMS, "sums of experts cannot overflow");

struct plan plan_replica(const struct plan *p, int replica)
{
    struct plan one = *p;
    one.dp = 1;
    memcpy(one.core, p->core + replica * plan_ranks(p), (size_t)plan_ranks(p) * sizeof(int));
    return one;
}

int plan_ranks(const struct plan *p) { return p->pp * p->tp; }
bool plan_fast(const struct plan *p)
{
    const char *dash = strrchr(p->numerics, '-');
    return dash && !strcmp(dash, "-fast");
}

int plan_stage(const struct plan *p, int rank) { return rank / p->tp; }
int plan_slice(const struct plan *p, int rank) { return rank % p->tp; }
int plan_run(const struct plan *p, int rank) { return plan_slice(p, rank) / (p->tp / p->ep); }

/* Feed-forward columns of a kind; 0 for what is not a kind of columns. */
static int columns(const struct model *m, enum what what)
{
    return what == COLUMNS          ? m->n_ff
           : what == EXPERT_COLUMNS ? m->experts.ff
           : what == SHARED_COLUMNS ? m->experts.shared_ff
                                    : 0;
}

static int units(const struct plan *p, enum what what)
{
    const struct model *m = &p->model;
    switch (what) {
    case HEADS: return m->n_head;
    case KVHEADS: return m->n_kv;
    case COLUMNS:
    case EXPERT_COLUMNS:
    case SHARED_COLUMNS: return (columns(m, what) + p->ff_unit - 1) / p->ff_unit;
    case WORDS: return (m->n_vocab + WORD_UNIT - 1) / WORD_UNIT;
    }
    must(!"unknown share");
    return 0;
}

int plan_share_begins(const struct plan *p, enum what what, int s)
{
    int at = (int)((int64_t)s * units(p, what) / p->shares);
    if (what == WORDS)
        return min_int(at * WORD_UNIT, p->model.n_vocab);
    if (what == HEADS || what == KVHEADS)
        return at;
    return min_int(at * p->ff_unit, columns(&p->model, what));
}

static struct span shares_of(const struct plan *p, int rank, enum what what)
{
    if (rank == PLAN_WHOLE || (what == SHARED_COLUMNS && plan_dispatches(p)))
        return (struct span){0, p->shares};
    int i = plan_slice(p, rank), n = 1;
    if (what == EXPERT_COLUMNS)
        n = p->ep, i = i % (p->tp / n) * n;
    return (struct span){p->cut[i], p->cut[i + n]};
}

struct span plan_share(const struct plan *p, int rank, enum what what)
{
    struct span s = shares_of(p, rank, what);
    if (what != KVHEADS)
        return (struct span){plan_share_begins(p, what, s.lo), plan_share_begins(p, what, s.hi)};

    struct span heads = plan_share(p, rank, HEADS);
    int group = p->model.n_head / p->model.n_kv;
    if (!len(heads))
        return (struct span){0, 0};
    return (struct span){heads.lo / group, (heads.hi - 1) / group + 1};
}

/* Numbers along the cut axis per unit of plan_share(): a head is head_dim rows. */
static int scale(const struct plan *p, enum what what)
{
    return what == HEADS || what == KVHEADS ? p->model.head_dim : 1;
}

struct span plan_part(const struct plan *p, const struct piece *pc, int i)
{
    int at = pc->first + i, n = scale(p, pc->of);
    must(0 <= i && i < pc->n_part);
    if (pc->cut == CUT_NONE)
        return pc->row;
    if (pc->of == KVHEADS)
        return (struct span){at * n, (at + 1) * n};
    return (struct span){plan_share_begins(p, pc->of, at) * n,
                         plan_share_begins(p, pc->of, at + 1) * n};
}

static void cut_piece(const struct plan *p, int rank, struct piece *pc)
{
    pc->row = (struct span){0, pc->rows};
    pc->col = (struct span){0, pc->cols};
    pc->n_part = 1;
    if (pc->cut == CUT_NONE)
        return;

    struct span s = plan_share(p, rank, pc->of), shares = shares_of(p, rank, pc->of);
    int n = scale(p, pc->of);
    struct span *along = pc->cut == CUT_ROWS && pc->matrix ? &pc->row : &pc->col;
    *along = (struct span){s.lo * n, s.hi * n};
    pc->first = pc->of == KVHEADS ? s.lo : shares.lo;
    pc->n_part = pc->of == KVHEADS ? len(s) : len(shares);
}

/* The file's name for the tensor: the first "%d" in the pattern is the layer, the second the
 * expert. */
static void set_name(struct piece *pc, const char *pattern)
{
    const int number[] = {pc->layer, pc->expert};
    size_t n = 0;
    for (int i = 0; i < 2; i++) {
        const char *at = strstr(pattern, "%d");
        if (!at)
            break;
        n += (size_t)snprintf(pc->name + n, sizeof(pc->name) - n, "%.*s%d", (int)(at - pattern),
                              pattern, number[i]);
        must(n < sizeof(pc->name));
        pattern = at + 2;
    }
    snprintf(pc->name + n, sizeof(pc->name) - n, "%s", pattern);
}

/* Of experts with a holder of their own, whether the rank is it. */
static bool holds(const struct plan *p, int rank, int expert)
{
    if (rank == PLAN_WHOLE || p->ep == 1 || expert == p->model.experts.n)
        return true;
    return placement_even_run(p->model.experts.n, p->ep, expert) == plan_run(p, rank);
}

/* Which experts: those the rank holds, all that it sees, or the first of those it holds for all of
 * them, which are alike (and the shared one). */
enum which { HELD, SEEN, SAMPLE };

static void pieces(const struct plan *p, int rank, enum which which, plan_piece_fn *fn, void *arg)
{
    const struct model *m = &p->model;
    const int h = m->n_embd, H = m->n_head, K = m->n_kv, D = m->head_dim, F = m->n_ff;
    const int N = m->n_vocab, E = m->experts.n, X = m->experts.ff, Y = m->experts.shared_ff;
    const enum num FORMAT = p->weight, WIDE = NUM_F32;
    const enum num OUTER = FORMAT == NUM_FP8 ? NUM_BF16 : FORMAT; /* as files of fp8 have it */
    struct span stage = {0, m->n_layer};
    if (rank != PLAN_WHOLE)
        stage = p->stage[plan_stage(p, rank)];
    bool first = stage.lo == 0, last = stage.hi == m->n_layer;

    enum { ROWS = CUT_ROWS, COLS = CUT_COLS, NONE = CUT_NONE };
#define PIECE(owner, l, x, id, nm, is_matrix, format, r, c, along, what, when)                     \
    if (when) {                                                                                    \
        struct piece pc = {.layer = l,                                                             \
                           .expert = x,                                                            \
                           .field = offsetof(owner, id),                                           \
                           .matrix = is_matrix,                                                    \
                           .type = format,                                                         \
                           .cut = (enum cut)(along),                                               \
                           .of = what,                                                             \
                           .rows = r,                                                              \
                           .cols = c};                                                             \
        set_name(&pc, nm);                                                                         \
        cut_piece(p, rank, &pc);                                                                   \
        fn(arg, &pc);                                                                              \
    }
#define MODEL_M(id, nm, ...) PIECE(struct shared, -1, -1, id, nm, true, OUTER, __VA_ARGS__)
#define MODEL_F(id, nm, ...) PIECE(struct shared, -1, -1, id, nm, true, WIDE, __VA_ARGS__)
#define MODEL_V(id, nm, ...) PIECE(struct shared, -1, -1, id, nm, false, WIDE, 1, __VA_ARGS__)
#define LAYER_M(id, nm, ...) PIECE(struct layer, l, -1, id, nm, true, FORMAT, __VA_ARGS__)
#define LAYER_F(id, nm, ...) PIECE(struct layer, l, -1, id, nm, true, WIDE, __VA_ARGS__)
#define LAYER_V(id, nm, ...) PIECE(struct layer, l, -1, id, nm, false, WIDE, 1, __VA_ARGS__)
#define EXPERT_M(id, nm, ...) PIECE(struct expert, l, e, id, nm, true, FORMAT, __VA_ARGS__)

    MODEL_WEIGHTS(MODEL_M, MODEL_F, MODEL_V)
    for (int l = stage.lo; l < stage.hi; l++) {
        const bool sparse = model_sparse(m, l);
        LAYER_WEIGHTS(LAYER_M, LAYER_F, LAYER_V)
        for (int e = 0; sparse && e < model_experts(m); e++)
            if (which == SEEN || holds(p, rank, e)) {
                EXPERT_WEIGHTS(EXPERT_M)
                if (which == SAMPLE && e < E)
                    e = E - 1;
            }
    }
}

void plan_pieces(const struct plan *p, int rank, plan_piece_fn *fn, void *arg)
{
    pieces(p, rank, HELD, fn, arg);
}

void plan_seen(const struct plan *p, int rank, plan_piece_fn *fn, void *arg)
{
    pieces(p, rank, SEEN, fn, arg);
}

/* ------------------------------------------------------------------------------- sizes */

struct sizing {
    const struct plan *p;
    int held; /* experts of a layer, for each of which a sample stands */
    size_t bytes, chosen_bytes;
    uint64_t numbers;
    uint64_t chosen; /* of these, numbers of experts that a router picks from */
};

static void add_bytes(void *arg, const struct piece *pc)
{
    struct sizing *s = arg;
    const bool chosen = pc->expert >= 0 && pc->expert < s->p->model.experts.n;
    const size_t times = chosen ? (size_t)s->held : 1, before = s->bytes;
    uint64_t numbers = times * (uint64_t)len(pc->row) * (uint64_t)len(pc->col);
    s->numbers += numbers;
    if (chosen)
        s->chosen += numbers;
    if (!pc->matrix) {
        s->bytes += round_up((size_t)len(pc->col) * sizeof(float), 64);
        return;
    }
    for (int i = 0; i < pc->n_part; i++) {
        int n = len(plan_part(s->p, pc, i));
        s->bytes += times * (pc->cut == CUT_COLS ? part_bytes(pc->type, pc->rows, n)
                                                 : part_bytes(pc->type, n, pc->cols));
    }
    if (chosen)
        s->chosen_bytes += s->bytes - before;
}

int plan_slots(const struct plan *p, int rank)
{
    int held = 0;
    if (p->slots && rank != PLAN_WHOLE)
        return p->slots;
    for (int e = 0; e < p->model.experts.n; e++)
        held += holds(p, rank, e);
    return held;
}

static struct sizing size_pieces(const struct plan *p, int rank)
{
    struct sizing s = {.p = p, .held = plan_slots(p, rank)};
    pieces(p, rank, SAMPLE, add_bytes, &s);
    return s;
}

size_t plan_weight_bytes(const struct plan *p, int rank) { return size_pieces(p, rank).bytes; }

size_t plan_expert_bytes(const struct plan *p, int rank)
{
    return size_pieces(p, rank).chosen_bytes;
}

uint64_t plan_parameters(const struct plan *p) { return size_pieces(p, PLAN_WHOLE).numbers; }

uint64_t plan_active(const struct plan *p)
{
    const struct experts *x = &p->model.experts;
    const struct sizing s = size_pieces(p, PLAN_WHOLE);
    return x->n ? s.numbers - s.chosen + s.chosen / (uint64_t)x->n * (uint64_t)x->top : s.numbers;
}

size_t plan_kv_bytes(const struct plan *p, int rank)
{
    int layers = rank == PLAN_WHOLE ? p->model.n_layer : len(p->stage[plan_stage(p, rank)]);
    return (size_t)p->pages * (size_t)layers * (size_t)len(plan_share(p, rank, KVHEADS)) *
           kv_head_bytes(p->kv, p->model.head_dim);
}

/* ------------------------------------------------------------------------------- checks */

static int check_shape(const struct plan *p, struct err *e)
{
    const struct model *m = &p->model;
    if (p->shares != 8 && p->shares != 16 && p->shares != 32)
        return err_set(e, -EINVAL, "plan: shares=%d, but sums are cut in 8, 16 or 32", p->shares);
    if (p->ff_unit < 1 || p->ff_unit > m->n_ff)
        return err_set(e, -EINVAL, "plan: ff_unit=%d for %d feed-forward columns", p->ff_unit,
                       m->n_ff);
    if (p->tp < 1 || p->tp > p->shares)
        return err_set(e, -EINVAL,
                       "plan: tp=%d, but the model's sums are cut in %d shares: choose "
                       "tp up to %d%s",
                       p->tp, p->shares, p->shares,
                       p->shares < 32 ? " or more --shares (16, 32)" : "");
    if (p->tp > m->n_head)
        return err_set(e, -EINVAL, "plan: tp=%d exceeds the %d attention heads of the model", p->tp,
                       m->n_head);
    if (p->pp < 1 || p->pp > m->n_layer || p->pp > PLAN_STAGES)
        return err_set(e, -EINVAL, "plan: pp=%d stages for %d layers (at most %d stages)", p->pp,
                       m->n_layer, PLAN_STAGES);
    if (p->dp < 1 || p->dp > PLAN_REPLICAS || p->dp * p->pp * p->tp > PLAN_RANKS)
        return err_set(e, -EINVAL, "plan: %d replicas of %d ranks, more than %d in all", p->dp,
                       p->pp * p->tp, PLAN_RANKS);
    return 0;
}

static int check_experts(const struct plan *p, struct err *e)
{
    const struct experts *x = &p->model.experts;
    if (p->ep < 1 || p->ep > p->tp || p->tp % p->ep)
        return err_set(
            e, -EINVAL,
            "plan: ep=%d does not divide tp=%d: the slices of a stage form ep runs, each "
            "with experts of its own",
            p->ep, p->tp);
    if (p->ep > 1 && !x->n)
        return err_set(e, -EINVAL, "plan: ep=%d, but %s has no experts: leave out --ep", p->ep,
                       p->model.arch);
    if (p->ep > 1 && p->ep > x->n)
        return err_set(e, -EINVAL, "plan: ep=%d exceeds the %d experts of a layer", p->ep, x->n);
    const int even = (x->n + p->ep - 1) / p->ep;
    if (p->slots && (p->ep == 1 || p->slots < even || p->slots > x->n))
        return err_set(
            e, -EINVAL,
            "plan: slots=%d of a rank for experts of a layer must be %d to %d (with ep), "
            "or 0 when they stay",
            p->slots, even, x->n);
    return 0;
}

static int check_spans(const struct plan *p, struct err *e)
{
    int at = 0;
    for (int i = 0; i < p->pp; i++) {
        if (p->stage[i].lo != at || p->stage[i].hi <= at)
            return err_set(e, -EINVAL,
                           "plan: stage %d holds layers %d to %d, but layer %d is next "
                           "and a stage needs one at least",
                           i, p->stage[i].lo, p->stage[i].hi, at);
        at = p->stage[i].hi;
    }
    if (at != p->model.n_layer)
        return err_set(e, -EINVAL, "plan: the stages end at layer %d of %d", at, p->model.n_layer);

    for (int i = 0; i < p->tp; i++)
        if (p->cut[i] >= p->cut[i + 1])
            return err_set(e, -EINVAL, "plan: slice %d holds shares %d to %d: none", i, p->cut[i],
                           p->cut[i + 1]);
    if (p->cut[0] != 0 || p->cut[p->tp] != p->shares)
        return err_set(e, -EINVAL, "plan: the slices cover shares %d to %d of 0 to %d", p->cut[0],
                       p->cut[p->tp], p->shares);
    for (int i = 0; i < p->tp; i++)
        if (!len(plan_share(p, i, HEADS)))
            return err_set(e, -EINVAL,
                           "plan: slice %d (shares %d to %d) gets no attention head; "
                           "move its cuts",
                           i, p->cut[i], p->cut[i + 1]);
    return 0;
}

static int check_limits(const struct plan *p, struct err *e)
{
    const struct model *m = &p->model;
    if (!num_can_weigh(p->weight))
        return err_set(e, -EINVAL, "plan: weights cannot be %s", num_name(p->weight));
    if (!kv_can_be(p->kv))
        return err_set(e, -EINVAL, "plan: the KV cache must be f32, bf16 or int8");
    if (p->kv == NUM_INT8 && m->head_dim > KV_INT8_DIM)
        return err_set(e, -EINVAL,
                       "plan: heads of %d numbers do not fit a KV cache in int8 (at most %d): take "
                       "--kv bf16",
                       m->head_dim, KV_INT8_DIM);
    if (p->ctx < 1 || p->ctx > m->n_ctx)
        return err_set(e, -EINVAL, "plan: ctx=%d, but the model was made for 1 to %d positions",
                       p->ctx, m->n_ctx);
    if (p->max_tok < 1 || p->max_tok > 1 << 16)
        return err_set(e, -EINVAL, "plan: max_tok=%d of a step must be 1 to 65536", p->max_tok);
    if (p->max_seq < 1 || p->max_seq > p->max_tok || p->max_out < 1 || p->max_out > p->max_tok)
        return err_set(e, -EINVAL, "plan: max_seq=%d and max_out=%d must be 1 to max_tok=%d",
                       p->max_seq, p->max_out, p->max_tok);
    if ((int64_t)p->pages * KV_PAGE < p->ctx || p->pages > 1 << 26)
        return err_set(e, -EINVAL,
                       "plan: %d pages of %d tokens do not hold one sequence of ctx=%d: choose a "
                       "larger --kv-memory or a smaller --ctx",
                       p->pages, KV_PAGE, p->ctx);
    if (!strcmp(p->numerics, "bf16-dot") && p->weight != NUM_BF16 && p->weight != NUM_FP8)
        return err_set(e, -EINVAL, "plan: numerics bf16-dot is for bf16 and fp8 weights");
    if (strcmp(p->numerics, "bf16-dot") && strcmp(p->numerics, "f32-fma") &&
        strncmp(p->numerics, "cuda-sm", 7) != 0)
        return err_set(e, -EINVAL,
                       "plan: numerics \"%s\" is neither f32-fma nor bf16-dot nor of a GPU, as "
                       "cuda-sm90",
                       p->numerics);
    if (p->threads < 1 || p->threads > PLAN_THREADS)
        return err_set(e, -EINVAL, "plan: threads=%d of a rank must be 1 to %d", p->threads,
                       PLAN_THREADS);
    for (int r = 0; r < p->dp * plan_ranks(p); r++)
        if (p->core[r] < -1 || p->core[r] > 4095)
            return err_set(e, -EINVAL, "plan: rank %d on core %d", r, p->core[r]);
    return 0;
}

int plan_check(const struct plan *p, struct err *e)
{
    int rc = check_shape(p, e);
    if (!rc)
        rc = check_experts(p, e);
    if (!rc)
        rc = check_spans(p, e);
    return rc ? rc : check_limits(p, e);
}
