/* count.c - see count.h.
 *
 * Seconds are those of the threads of a rank at work together: each does its part of what is
 * shared. A product takes what products with so many rows cost per weight. Attention takes the
 * longer of reading and multiplying. The rest is bound by memory. Every matrix is counted as read
 * or written once.
 */
#include "dev/count.h"
#include "dev/dev.h"

#include <math.h>

enum { GLU_ROWS = 16 }; /* GPUs stream weights past no more rows (dev/cuda/product.cu) */

static int threads_of(const struct costs *c) { return max_int(c->threads, 1); }

/* What every operation takes, however small. */
static double fixed_s(const struct costs *c)
{
    return c->rates->op_s.value + (threads_of(c) - 1) * c->rates->split_s.value;
}

static void count(struct dev *d, double flops, double bytes)
{
    d->count.flops += (uint64_t)flops;
    d->count.bytes += (uint64_t)bytes;
    d->count.calls++;
}

/* An operation that only reads and writes. */
static void pass(struct dev *d, double bytes)
{
    const struct costs *c = &d->count.costs;
    count(d, 0, bytes);
    if (c->rates)
        d->count.other_s += bytes * c->rates->byte_s.value / threads_of(c) + fixed_s(c);
}

/* Products of one x: one operation. */
static void multiply(struct dev *d, enum num type, int rows, double weights)
{
    const struct costs *c = &d->count.costs;
    if (c->rates)
        d->count.product_s +=
            weights * curve_at(&c->rates->product[type], rows) / threads_of(c) + fixed_s(c);
}

static double size(const struct mat *m) { return (double)mat_bytes(m); }

static double weight_bytes(const struct weight *w)
{
    double bytes = 0;
    for (int i = 0; i < w->n_part; i++)
        bytes += (double)part_bytes(w->type, w->part[i].rows, w->part[i].cols);
    return bytes;
}

static double weights(const struct weight *w) { return (double)w->rows * w->cols; }

static void count_embed(struct dev *d, struct mat *y, const struct weight *w, int first,
                        const int *tok)
{
    (void)first, (void)tok; /* a price for any words */
    pass(d, (double)y->n * (double)pack_block_bytes(w->type, w->cols) / PACK_ROWS + size(y));
}

static void count_norm(struct dev *d, struct mat *y, const struct mat *x, const struct mat *w,
                       float eps)
{
    (void)eps;
    pass(d, size(x) + size(y) + size(w));
}

static void count_squares(struct dev *d, struct planes *y, int column, const struct mat *x,
                          const struct runs *runs)
{
    (void)column, (void)runs;
    pass(d, size(x) + (double)y->n * x->n * sizeof(float));
}

static void count_norm_by(struct dev *d, struct mat *x, const struct mat *sum, int column,
                          const struct mat *w, int dim, float eps)
{
    (void)column, (void)dim, (void)eps;
    pass(d, 2 * size(x) + size(sum) + size(w));
}

static void count_clip(struct dev *d, struct mat *x, float limit)
{
    (void)limit;
    pass(d, 2 * size(x));
}

static void count_matmul(struct dev *d, const struct mat *x, const struct term *term, int n)
{
    double all = 0;
    for (const struct term *t = term; t < term + n; t++) {
        if (!t->y->dim || !x->n)
            continue;
        count(d, 2 * x->n * weights(t->w),
              weight_bytes(t->w) + size(x) + size(t->y) + size(t->bias));
        all += weights(t->w);
    }
    if (all > 0)
        multiply(d, term->w->type, x->n, all);
}

static void count_partial(struct dev *d, struct planes *y, const struct mat *x,
                          const struct weight *w)
{
    double bytes = weight_bytes(w) + size(x);
    for (int i = 0; i < y->n; i++)
        bytes += size(&y->at[i]);
    count(d, 2 * x->n * weights(w), bytes);
    multiply(d, w->type, x->n, weights(w));
}

static void count_add(struct dev *d, struct mat *x, const struct mat *y, const struct mat *bias)
{
    pass(d, 2 * size(x) + size(y) + size(bias));
}

static void count_rope(struct dev *d, struct mat *x, int head_dim, const struct mat *angle)
{
    (void)head_dim;
    pass(d, 2 * size(x) + size(angle));
}

static void count_store(struct dev *d, const struct kv *c, const struct mat *k, const struct mat *v,
                        const int *slot)
{
    (void)slot;
    double rows = (double)k->n * c->n_head;
    pass(d, size(k) + size(v) + rows * (double)kv_row_bytes(c->type, c->head_dim));
}

void attended_add(struct attended *a, int window, int pos, int n)
{
    struct seen *s = n == 1 ? &a->decode : &a->prompt;
    double last = pos + n, all = n * (double)pos + 0.5 * n * (n + 1.0);
    if (window && last > window) { /* rows that begin to leave keys out */
        double cut = last - max_int(pos, window);
        all -= cut * (max_int(pos, window) - window) + 0.5 * cut * (cut + 1);
    }
    s->pairs += all;
    s->keys += window ? last - max_int(0, pos + 1 - window) : last;
    s->rows += n;
    s->seqs++;
}

static double seen_seconds(const struct costs *c, const struct seen *s, const struct kv *kv,
                           int dim)
{
    if (!s->seqs)
        return 0;
    const struct rates *r = c->rates;
    double bytes = s->keys * kv->n_head * (double)kv_row_bytes(kv->type, kv->head_dim);
    double madds = 2 * s->pairs * dim;
    double read = bytes * r->attend_byte_s[kv->type].value;
    double math = madds * curve_at(&r->attend_madd_s[kv->type], (double)s->rows / s->seqs);
    double fixed = (double)s->rows * dim / kv->head_dim * r->attend_row_s.value;
    return ((read > math ? read : math) + fixed) / threads_of(c);
}

double attend_seconds(const struct costs *c, const struct attended *a, const struct kv *kv, int dim)
{
    return seen_seconds(c, &a->decode, kv, dim) + seen_seconds(c, &a->prompt, kv, dim) + fixed_s(c);
}

static void count_attend(struct dev *d, struct mat *y, const struct mat *q, const struct kv *kv,
                         const struct heads *h, const struct batch *b)
{
    struct attended a = {0};
    for (int t = 1, first = 0; t <= q->n; t++)
        if (t == q->n || b->seq[t] != b->seq[first]) {
            attended_add(&a, h->window, b->pos[first], t - first);
            first = t;
        }
    double per_key = kv->n_head * (double)kv_row_bytes(kv->type, kv->head_dim);
    count(d, 4 * (a.decode.pairs + a.prompt.pairs) * q->dim,
          (a.decode.keys + a.prompt.keys) * per_key + size(q) + size(y));
    if (d->count.costs.rates)
        d->count.attend_s += attend_seconds(&d->count.costs, &a, kv, q->dim);
}

static void count_swiglu(struct dev *d, struct mat *gate, const struct mat *up)
{
    pass(d, 2 * size(gate) + size(up));
}

static void count_route(struct dev *d, struct routed *to, const struct mat *logits,
                        const struct mat *gate, bool renorm)
{
    (void)renorm;
    pass(d, size(logits) + size(gate) +
                (double)to->n * routed_row(to) * (sizeof(int) + sizeof(float)));
}

/* Products of an expert with so many rows. */
static void count_expert(struct dev *d, const struct expert *e, double rows, double times)
{
    const struct costs *c = &d->count.costs;
    double all = weights(&e->gate) + weights(&e->up) + weights(&e->down);
    count(d, times * 2 * rows * all,
          times * (weight_bytes(&e->gate) + weight_bytes(&e->up) + weight_bytes(&e->down)));
    if (!c->rates)
        return;
    const struct curve *grouped = &c->rates->experts[e->gate.type];
    const struct curve *each = grouped->n ? grouped : &c->rates->product[e->gate.type];
    d->count.product_s += times * all * curve_at(each, rows) / threads_of(c);
}

/* All experts together are three passes: rows are put together, gate and up, down. Where rows go is
 * not known beforehand. Who takes turns says how many of each expert are expected; else it is as if
 * the router picked blindly: n rows then meet E (1 - (1 - k/E)^n) of E experts, k of them each. */
static void count_experts(struct dev *d, struct mat *y, const struct mat *x,
                          const struct expert *expert, int n_expert, const struct routed *routed,
                          const struct expert_room *room)
{
    const int n = n_expert - routed->shared;
    double top = routed->top, met = n * (1 - pow(1 - top / n, x->n)), rows = x->n * top;
    (void)room;
    if (d->count.costs.rates)
        d->count.product_s += 2 * fixed_s(&d->count.costs); /* the third is pass()'s */
    if (routed->turn)
        rows = 0;
    else if (met > 0)
        count_expert(d, &expert[0], rows / met, met);
    for (int e = 0, next; routed->turn && e < n; e = next) { /* those alike at once */
        int each = len(routed->turn[e]);
        for (next = e + 1; next < n && len(routed->turn[next]) == each; next++)
            ;
        if (each)
            count_expert(d, &expert[e], each, next - e);
        rows += (double)each * (next - e);
    }
    if (routed->shared) {
        int shared = routed->turn ? min_int(len(routed->turn[n]), x->n) : x->n;
        count_expert(d, &expert[n], shared, shared > 0);
        rows += shared;
    }
    pass(d, size(y) + 2 * rows * x->dim * (double)sizeof(float));
}

static void count_settle(struct dev *d, struct mat *x, const struct mat *y)
{
    pass(d, 2 * size(x) + size(y));
}

/* x is read and written once, and not read again for its norm. */
static void count_add_norm(struct dev *d, struct mat *h, struct mat *x, const struct mat *y,
                           const struct mat *bias, const struct mat *w, float eps)
{
    if (d->count.costs.at_once) {
        pass(d, 2 * size(x) + size(y) + size(bias) + size(w) + size(h));
        return;
    }
    pass(d, 2 * size(x) + size(y) + size(bias));
    count_norm(d, h, x, w, eps);
}

static void count_rope_store(struct dev *d, const struct kv *c, const struct qkv *m,
                             const int *slot)
{
    const double rows = (double)m->k->n * c->n_head;
    if (d->count.costs.at_once) {
        pass(d, 2 * size(m->q) + size(m->angle) + size(m->k) + size(m->v) + size(m->q_norm) +
                    size(m->k_norm) + rows * (double)kv_row_bytes(c->type, c->head_dim));
        return;
    }
    if (m->q_norm->n) {
        count_norm(d, m->q, m->q, m->q_norm, m->eps);
        count_norm(d, m->k, m->k, m->k_norm, m->eps);
    }
    count_rope(d, m->q, c->head_dim, m->angle);
    count_rope(d, m->k, c->head_dim, m->angle);
    count_store(d, c, m->k, m->v, slot);
}

/* Of few rows, at once, there is no up to write and read again. */
static void count_glu(struct dev *d, const struct mat *x, const struct term both[2])
{
    count_matmul(d, x, both, 2);
    if (!d->count.costs.at_once || x->n > GLU_ROWS)
        count_swiglu(d, both[0].y, both[1].y);
}

static void count_pick(struct dev *d, struct mat *y, const struct mat *x, const int *row)
{
    (void)x, (void)row;
    pass(d, 2 * size(y));
}

const struct dev_ops dev_count = {
    .name = "count",
    .embed = count_embed,
    .norm = count_norm,
    .squares = count_squares,
    .norm_by = count_norm_by,
    .clip = count_clip,
    .matmul = count_matmul,
    .partial = count_partial,
    .add = count_add,
    .rope = count_rope,
    .store = count_store,
    .attend = count_attend,
    .swiglu = count_swiglu,
    .route = count_route,
    .experts = count_experts,
    .settle = count_settle,
    .pick = count_pick,
    .add_norm = count_add_norm,
    .rope_store = count_rope_store,
    .glu = count_glu,
};
