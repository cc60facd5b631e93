/* ops.c - the operations of dev.h on a GPU: each hands its numbers to a kernel of kernels.h. */
#include "dev/cuda/cuda.h"
#include "dev/cuda/runtime.h"
#include "dev/profile.h"

void cuda_note(struct dev *d, int code)
{
    if (!code || d->err)
        return;
    d->err = -EIO;
    d->why = gpu_error(code);
}

/* Enqueue the kernels of an operation, unless the step is a replay of one that has them; then
 * nothing of the call is even looked at. */
#define ENQUEUE(op, call)                                                                          \
    do {                                                                                           \
        if (!cuda_of(d)->replays) {                                                                \
            gpu_span_begin(op_name(op));                                                           \
            cuda_note(d, call);                                                                    \
            gpu_span_end();                                                                        \
        }                                                                                          \
    } while (0)

/* The address of what a function returns. */
#define AT(type, value) ((type[]){value})

static void *stream_of(struct dev *d) { return cuda_of(d)->stream; }

static const float *bias_of(const struct mat *bias) { return bias->n ? bias->at : NULL; }

struct gpu_weight cuda_weight(const struct weight *w)
{
    struct gpu_weight to = {
        .type = w->type, .rows = w->rows, .cols = w->cols, .first = w->first, .n_part = w->n_part};
    must(w->n_part <= GPU_PARTS);
    for (int i = 0; i < w->n_part; i++)
        to.part[i] = (struct gpu_part){w->part[i].at, w->part[i].rows, w->part[i].cols};
    return to;
}

static struct gpu_kv kv_of(const struct kv *c)
{
    return (struct gpu_kv){.type = c->type,
                           .n_head = c->n_head,
                           .head_dim = c->head_dim,
                           .page_bytes = c->page_bytes,
                           .head_bytes = c->head_bytes,
                           .at = c->at};
}

static void cuda_embed(struct dev *d, struct mat *y, const struct weight *w, int first,
                       const int *tok)
{
    ENQUEUE(OP_EMBED, gpu_embed(stream_of(d), y->at, y->n, AT(struct gpu_weight, cuda_weight(w)),
                                first, tok));
}

static void cuda_norm(struct dev *d, struct mat *y, const struct mat *x, const struct mat *w,
                      float eps)
{
    ENQUEUE(OP_NORM, gpu_norm(stream_of(d), y->at, x->at, x->n, x->dim, w->at, w->dim, eps));
}

static struct gpu_runs runs_of(const struct runs *r, int n_plane)
{
    struct gpu_runs to = {.n = r->n};
    struct span tree[PLANES];
    must(r->n <= GPU_PARTS);
    must(tree_split((struct span){r->first, r->first + r->n}, tree) == n_plane);
    memcpy(to.begin, r->begin, (size_t)(r->n + 1) * sizeof(int));
    for (int i = 0; i < n_plane; i++)
        to.tree[i + 1] = tree[i].hi - r->first;
    return to;
}

static void cuda_squares(struct dev *d, struct planes *y, int column, const struct mat *x,
                         const struct runs *runs)
{
    float *plane[GPU_PLANES];
    must(y->n <= GPU_PLANES);
    for (int i = 0; i < y->n; i++)
        plane[i] = y->at[i].at;
    ENQUEUE(OP_SQUARES, gpu_squares(stream_of(d), plane, y->n, y->at[0].dim, column, x->at, x->n,
                                    x->dim, AT(struct gpu_runs, runs_of(runs, y->n))));
}

static void cuda_norm_by(struct dev *d, struct mat *x, const struct mat *sum, int column,
                         const struct mat *w, int dim, float eps)
{
    ENQUEUE(OP_NORM_BY, gpu_norm_by(stream_of(d), x->at, x->n, x->dim, sum->at, sum->dim, column,
                                    w->at, dim, eps));
}

static void cuda_clip(struct dev *d, struct mat *x, float limit)
{
    ENQUEUE(OP_CLIP, gpu_clip(stream_of(d), x->at, x->n, x->dim, limit));
}

static struct gpu_term term_of(const struct term *t)
{
    return (struct gpu_term){t->y->at, cuda_weight(t->w), bias_of(t->bias)};
}

static void cuda_matmul(struct dev *d, const struct mat *x, const struct term *term, int n)
{
    struct gpu_term to[GPU_TERMS];
    must(n <= GPU_TERMS);
    if (cuda_of(d)->replays || cuda_fast_matmul(d, x, term, n))
        return;
    for (int i = 0; i < n; i++)
        to[i] = term_of(&term[i]);
    ENQUEUE(OP_MATMUL, gpu_products(stream_of(d), x->at, x->n, x->dim, to, n, &cuda_of(d)->room));
}

static void cuda_partial(struct dev *d, struct planes *y, const struct mat *x,
                         const struct weight *w)
{
    float *plane[GPU_PLANES];
    must(y->n <= GPU_PLANES);
    if (cuda_of(d)->replays || cuda_fast_partial(d, y, x, w))
        return;
    for (int i = 0; i < y->n; i++)
        plane[i] = y->at[i].at;
    ENQUEUE(OP_PARTIAL, gpu_partial(stream_of(d), plane, y->n, x->at, x->n,
                                    AT(struct gpu_weight, cuda_weight(w)), &cuda_of(d)->room));
}

static void cuda_add(struct dev *d, struct mat *x, const struct mat *y, const struct mat *bias)
{
    ENQUEUE(OP_ADD, gpu_add(stream_of(d), x->at, y->at, bias_of(bias), x->n, x->dim));
}

static void cuda_rope(struct dev *d, struct mat *x, int head_dim, const struct mat *angle)
{
    ENQUEUE(OP_ROPE, gpu_rope(stream_of(d), x->at, x->n, x->dim, head_dim, angle->at));
}

static void cuda_store(struct dev *d, const struct kv *c, const struct mat *k, const struct mat *v,
                       const int *slot)
{
    ENQUEUE(OP_STORE,
            gpu_store(stream_of(d), AT(struct gpu_kv, kv_of(c)), k->at, v->at, k->n, slot));
}

static void cuda_attend(struct dev *d, struct mat *y, const struct mat *q, const struct kv *c,
                        const struct heads *h, const struct batch *b)
{
    const struct gpu_kv kv = kv_of(c);
    const struct gpu_heads heads = {.head_dim = h->head_dim,
                                    .group = h->group,
                                    .q_first = h->q_first,
                                    .kv_first = h->kv_first,
                                    .window = h->window,
                                    .scale = h->scale};
    const struct gpu_batch batch = {.n_tok = b->n_tok,
                                    .n_seq = b->n_seq,
                                    .stride = b->stride,
                                    .most_keys = cuda_of(d)->keys,
                                    .pos = b->pos,
                                    .slot = b->slot,
                                    .seq = b->seq,
                                    .page = b->page};
    ENQUEUE(OP_ATTEND,
            gpu_attend(stream_of(d), y->at, q->at, q->dim, &kv, &heads, &batch, &cuda_of(d)->room));
}

static void cuda_swiglu(struct dev *d, struct mat *gate, const struct mat *up)
{
    ENQUEUE(OP_SWIGLU, gpu_swiglu(stream_of(d), gate->at, up->at, gate->n, gate->dim));
}

static void cuda_add_norm(struct dev *d, struct mat *h, struct mat *x, const struct mat *y,
                          const struct mat *bias, const struct mat *w, float eps)
{
    ENQUEUE(OP_ADD_NORM, gpu_add_norm(stream_of(d), h->at, x->at, y->at, y->type == NUM_I64,
                                      bias_of(bias), x->n, x->dim, w->at, eps));
}

static void cuda_rope_store(struct dev *d, const struct kv *c, const struct qkv *m, const int *slot)
{
    const struct gpu_qkv to = {.q = m->q->at,
                               .k = m->k->at,
                               .v = m->v->at,
                               .q_norm = bias_of(m->q_norm),
                               .k_norm = bias_of(m->k_norm),
                               .angle = m->angle->at,
                               .eps = m->eps};
    ENQUEUE(OP_ROPE_STORE, gpu_rope_store(stream_of(d), AT(struct gpu_kv, kv_of(c)), &to, m->q->n,
                                          m->q->dim, slot));
}

static void cuda_glu(struct dev *d, const struct mat *x, const struct term both[2])
{
    if (cuda_of(d)->replays)
        return;
    if (cuda_fast_matmul(d, x, both, 2)) {
        cuda_swiglu(d, both[0].y, both[1].y);
        return;
    }
    const struct gpu_term to[2] = {term_of(&both[0]), term_of(&both[1])};
    ENQUEUE(OP_GLU, gpu_glu(stream_of(d), x->at, x->n, x->dim, to, &cuda_of(d)->room));
}

static void cuda_pick(struct dev *d, struct mat *y, const struct mat *x, const int *row)
{
    ENQUEUE(OP_PICK, gpu_pick(stream_of(d), y->at, x->at, row, y->n, y->dim));
}

/* How, is on the device since the step's begin. */
static bool cuda_draw(struct dev *d, struct mat *token, const struct mat *logits,
                      const struct draw_rows *rows)
{
    struct cuda *c = cuda_of(d);
    if (!c->draws.any)
        return false;
    c->token = token->at;
    cuda_step(c)->drawn = c->ask.draws ? rows : NULL;
    must(logits->dim == c->vocab.first[c->vocab.own + 1] - c->vocab.first[c->vocab.own]);
    ENQUEUE(OP_TOGETHER, gpu_draw(stream_of(d), token->at, logits->at, logits->n, &c->draws,
                                  &c->vocab, c->draw_room));
    return true;
}

static void cuda_route(struct dev *d, struct routed *to, const struct mat *logits,
                       const struct mat *gate, bool renorm)
{
    ENQUEUE(OP_ROUTE, gpu_route(stream_of(d), to->expert, to->weight, logits->at, logits->n,
                                logits->dim, to->top, to->shared, bias_of(gate), renorm, to->load));
}

static void cuda_deal(struct dev *d, struct routed *r, const struct deal *deal)
{
    const struct gpu_deal to = {.n_expert = deal->n_expert,
                                .n_run = deal->n_run,
                                .slices = deal->slices,
                                .rank = deal->rank,
                                .weights = deal->weights,
                                .tile = deal->tile,
                                .holders = deal->holders,
                                .need = deal->need,
                                .load = deal->load};
    ENQUEUE(OP_DEAL, gpu_deal_rows(stream_of(d), r->expert, r->n, r->top, r->shared, &to));
}

static void cuda_sum_experts(struct dev *d, struct mat *y, const struct mat *x,
                             const struct expert *expert, int n_expert, const struct routed *routed,
                             const struct expert_room *room)
{
    const struct cuda_experts *e = cuda_experts(d, expert, n_expert);
    (void)room;          /* the CPU's; kernels have a room of their own */
    must(!routed->turn); /* which is the host's */
    if (e->table)
        ENQUEUE(OP_EXPERTS, gpu_experts(stream_of(d), y->at, x->at, x->n, x->dim, e->table,
                                        n_expert, e->type, e->columns, e->parts, routed->expert,
                                        routed->weight, routed_row(routed), &cuda_of(d)->room));
}

static void cuda_settle(struct dev *d, struct mat *x, const struct mat *y)
{
    ENQUEUE(OP_SETTLE, gpu_settle(stream_of(d), x->at, y->at, x->n, x->dim));
}

static uint64_t cuda_waited_ns(struct dev *d) { return cuda_of(d)->waited_ns; }

const struct dev_ops cuda_ops = {
    .name = "cuda",
    .begin = cuda_begin,
    .end = cuda_end,
    .passed = cuda_passed,
    .fetch = cuda_fetch,
    .embed = cuda_embed,
    .norm = cuda_norm,
    .squares = cuda_squares,
    .norm_by = cuda_norm_by,
    .clip = cuda_clip,
    .matmul = cuda_matmul,
    .partial = cuda_partial,
    .add = cuda_add,
    .rope = cuda_rope,
    .store = cuda_store,
    .attend = cuda_attend,
    .swiglu = cuda_swiglu,
    .route = cuda_route,
    .deal = cuda_deal,
    .experts = cuda_sum_experts,
    .settle = cuda_settle,
    .pick = cuda_pick,
    .add_norm = cuda_add_norm,
    .rope_store = cuda_rope_store,
    .glu = cuda_glu,
    .draw = cuda_draw,
    .waited_ns = cuda_waited_ns,
    .lap = cuda_lap,
};

int cuda_plain(struct dev *d, const struct weight *w, bool columns, void *to, struct err *e)
{
    const struct gpu_weight from = cuda_weight(w);
    void *stream = stream_of(d);
    int rc = gpu_plain(stream, to, weight_plain_stride(w->cols), &from, columns);
    if (!rc)
        rc = gpu_wait(stream);
    return rc ? err_set(e, -EIO, "weights cannot be laid out for cuBLASLt: %s", gpu_error(rc)) : 0;
}
