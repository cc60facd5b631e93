/* profile.c - see profile.h. */
#include "dev/profile.h"

#include <time.h>

const char *op_name(enum op op)
{
    static const char *const name[OP_COUNT] = {[OP_BEGIN] = "begin",
                                               [OP_FETCH] = "fetch",
                                               [OP_EMBED] = "embed",
                                               [OP_NORM] = "norm",
                                               [OP_MATMUL] = "matmul",
                                               [OP_PARTIAL] = "partial",
                                               [OP_ADD] = "add",
                                               [OP_ROPE] = "rope",
                                               [OP_STORE] = "store",
                                               [OP_ATTEND] = "attend",
                                               [OP_SWIGLU] = "swiglu",
                                               [OP_ROUTE] = "route",
                                               [OP_EXPERTS] = "experts",
                                               [OP_SETTLE] = "settle",
                                               [OP_PICK] = "pick",
                                               [OP_TOGETHER] = "draw",
                                               [OP_SQUARES] = "squares",
                                               [OP_NORM_BY] = "norm_by",
                                               [OP_CLIP] = "clip",
                                               [OP_DEAL] = "deal",
                                               [OP_ADD_NORM] = "add_norm",
                                               [OP_GLU] = "glu",
                                               [OP_ROPE_STORE] = "rope_store"};
    must(op >= 0 && op < OP_COUNT);
    return name[op];
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static struct dev *inner_of(struct dev *d) { return ((struct profile *)d->ctx)->inner; }

static void add(_Atomic uint64_t *to, uint64_t n)
{
    atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

/* When an operation began, and what had been waited until then. */
struct mark {
    uint64_t ns, wait_ns;
};

static struct mark mark(struct dev *d)
{
    struct dev *in = inner_of(d);
    if (in->ops->lap)
        in->ops->lap(in, NULL);
    return (struct mark){now_ns(), in->ops->waited_ns ? in->ops->waited_ns(in) : 0};
}

static void note(struct dev *d, enum op op, struct mark begin)
{
    struct op_time *to = &((struct profile *)d->ctx)->op[op];
    struct dev *in = inner_of(d);
    add(&to->calls, 1);
    if (in->ops->lap) {
        in->ops->lap(in, to);
    } else {
        struct mark end = mark(d);
        add(&to->ns, end.ns - begin.ns);
        add(&to->wait_ns, end.wait_ns - begin.wait_ns);
    }
    d->err = in->err;
    d->why = in->why;
}

/* One operation of the inner device, timed. */
#define TIMED(op, call)                                                                            \
    do {                                                                                           \
        struct dev *in = inner_of(d);                                                              \
        struct mark begin = mark(d);                                                               \
        in->ops->call;                                                                             \
        note(d, op, begin);                                                                        \
    } while (0)

static void profile_begin(struct dev *d, struct batch *b)
{
    struct mark begin = mark(d);
    dev_begin(inner_of(d), b);
    if (inner_of(d)->ops->begin)
        note(d, OP_BEGIN, begin);
}

static struct mat profile_fetch(struct dev *d, const struct mat *m)
{
    struct mark begin = mark(d);
    struct mat to = dev_fetch(inner_of(d), m);
    if (inner_of(d)->ops->fetch)
        note(d, OP_FETCH, begin);
    return to;
}

static void profile_embed(struct dev *d, struct mat *y, const struct weight *w, int first,
                          const int *tok)
{
    TIMED(OP_EMBED, embed(in, y, w, first, tok));
}

static void profile_norm(struct dev *d, struct mat *y, const struct mat *x, const struct mat *w,
                         float eps)
{
    TIMED(OP_NORM, norm(in, y, x, w, eps));
}

static void profile_squares(struct dev *d, struct planes *y, int column, const struct mat *x,
                            const struct runs *runs)
{
    TIMED(OP_SQUARES, squares(in, y, column, x, runs));
}

static void profile_norm_by(struct dev *d, struct mat *x, const struct mat *sum, int column,
                            const struct mat *w, int dim, float eps)
{
    TIMED(OP_NORM_BY, norm_by(in, x, sum, column, w, dim, eps));
}

static void profile_clip(struct dev *d, struct mat *x, float limit)
{
    TIMED(OP_CLIP, clip(in, x, limit));
}

static void profile_matmul(struct dev *d, const struct mat *x, const struct term *term, int n)
{
    TIMED(OP_MATMUL, matmul(in, x, term, n));
}

static void profile_partial(struct dev *d, struct planes *y, const struct mat *x,
                            const struct weight *w)
{
    TIMED(OP_PARTIAL, partial(in, y, x, w));
}

static void profile_add(struct dev *d, struct mat *x, const struct mat *y, const struct mat *bias)
{
    TIMED(OP_ADD, add(in, x, y, bias));
}

static void profile_rope(struct dev *d, struct mat *x, int head_dim, const struct mat *angle)
{
    TIMED(OP_ROPE, rope(in, x, head_dim, angle));
}

static void profile_store(struct dev *d, const struct kv *c, const struct mat *k,
                          const struct mat *v, const int *slot)
{
    TIMED(OP_STORE, store(in, c, k, v, slot));
}

static void profile_attend(struct dev *d, struct mat *y, const struct mat *q, const struct kv *c,
                           const struct heads *h, const struct batch *b)
{
    TIMED(OP_ATTEND, attend(in, y, q, c, h, b));
}

static void profile_swiglu(struct dev *d, struct mat *gate, const struct mat *up)
{
    TIMED(OP_SWIGLU, swiglu(in, gate, up));
}

static void profile_route(struct dev *d, struct routed *to, const struct mat *logits,
                          const struct mat *gate, bool renorm)
{
    TIMED(OP_ROUTE, route(in, to, logits, gate, renorm));
}

static void profile_deal(struct dev *d, struct routed *r, const struct deal *deal)
{
    TIMED(OP_DEAL, deal(in, r, deal));
}

static void profile_experts(struct dev *d, struct mat *y, const struct mat *x,
                            const struct expert *expert, int n_expert, const struct routed *routed,
                            const struct expert_room *room)
{
    TIMED(OP_EXPERTS, experts(in, y, x, expert, n_expert, routed, room));
}

static void profile_settle(struct dev *d, struct mat *x, const struct mat *y)
{
    TIMED(OP_SETTLE, settle(in, x, y));
}

static bool profile_draw(struct dev *d, struct mat *token, const struct mat *logits,
                         const struct draw_rows *rows)
{
    struct mark begin = mark(d);
    bool drawn = dev_draw(inner_of(d), token, logits, rows);
    if (drawn)
        note(d, OP_TOGETHER, begin);
    return drawn;
}

static void profile_pick(struct dev *d, struct mat *y, const struct mat *x, const int *row)
{
    TIMED(OP_PICK, pick(in, y, x, row));
}

static void profile_together(struct dev *d, dev_together_fn *fn, void *arg)
{
    struct mark begin = mark(d);
    dev_together(inner_of(d), fn, arg);
    note(d, OP_TOGETHER, begin);
}

static void profile_add_norm(struct dev *d, struct mat *h, struct mat *x, const struct mat *y,
                             const struct mat *bias, const struct mat *w, float eps)
{
    TIMED(OP_ADD_NORM, add_norm(in, h, x, y, bias, w, eps));
}

static void profile_rope_store(struct dev *d, const struct kv *c, const struct qkv *m,
                               const int *slot)
{
    TIMED(OP_ROPE_STORE, rope_store(in, c, m, slot));
}

static void profile_glu(struct dev *d, const struct mat *x, const struct term both[2])
{
    TIMED(OP_GLU, glu(in, x, both));
}

static uint64_t profile_waited_ns(struct dev *d)
{
    struct dev *in = inner_of(d);
    return in->ops->waited_ns ? in->ops->waited_ns(in) : 0;
}

static const struct dev_ops dev_profile = {
    .name = "profile",
    .begin = profile_begin,
    .fetch = profile_fetch,
    .embed = profile_embed,
    .norm = profile_norm,
    .squares = profile_squares,
    .norm_by = profile_norm_by,
    .clip = profile_clip,
    .matmul = profile_matmul,
    .partial = profile_partial,
    .add = profile_add,
    .rope = profile_rope,
    .store = profile_store,
    .attend = profile_attend,
    .swiglu = profile_swiglu,
    .route = profile_route,
    .deal = profile_deal,
    .experts = profile_experts,
    .settle = profile_settle,
    .pick = profile_pick,
    .add_norm = profile_add_norm,
    .rope_store = profile_rope_store,
    .glu = profile_glu,
    .draw = profile_draw,
    .together = profile_together,
    .waited_ns = profile_waited_ns,
};

void dev_profile_init(struct dev *d, struct profile *p)
{
    must(p->inner && p->op);
    const struct dev_ops *in = p->inner->ops;
    p->ops = dev_profile;
    if (!in->add_norm)
        p->ops.add_norm = NULL; /* timed one after the other, as they are done */
    if (!in->rope_store)
        p->ops.rope_store = NULL;
    if (!in->glu)
        p->ops.glu = NULL;
    *d = (struct dev){.ops = &p->ops, .ctx = p};
}
