/* count.c - a device that computes nothing and prices everything.
 *
 * The planner runs the real forward pass over it, so the operations that it prices are those that
 * will run. An operation takes the longer of its arithmetic and its memory traffic, plus a fixed
 * overhead. Arithmetic counts products and attention only; the rest is bound by memory. Every
 * matrix is counted as read or written once.
 */
#include "dev/dev.h"

static void price(struct dev *d, double flops, double bytes)
{
    double compute = flops / d->speed.flops_s, memory = bytes / d->speed.bytes_s;
    d->clock += (compute > memory ? compute : memory) + d->speed.overhead_s;
    d->flops += (uint64_t)flops;
    d->bytes += (uint64_t)bytes;
    d->calls++;
}

static double size(const struct mat *m) { return (double)mat_bytes(m); }

static double weight_bytes(const struct weight *w)
{
    double bytes = 0;
    for (int i = 0; i < w->n_part; i++)
        bytes += (double)part_bytes(w->type, w->part[i].rows, w->part[i].cols);
    return bytes;
}

static double product_flops(const struct mat *x, const struct weight *w)
{
    return 2.0 * x->n * w->rows * w->cols;
}

static void count_embed(struct dev *d, struct mat *y, const struct weight *w, int first,
                        const int *tok)
{
    (void)first, (void)tok; /* a price for any words */
    price(d, 0, (double)y->n * (double)pack_block_bytes(w->type, w->cols) / PACK_ROWS + size(y));
}

static void count_norm(struct dev *d, struct mat *y, const struct mat *x, const struct mat *w,
                       float eps)
{
    (void)eps;
    price(d, 0, size(x) + size(y) + size(w));
}

static void count_matmul(struct dev *d, const struct mat *x, const struct term *term, int n)
{
    for (const struct term *t = term; t < term + n; t++)
        if (t->y->dim)
            price(d, product_flops(x, t->w),
                  weight_bytes(t->w) + size(x) + size(t->y) + size(t->bias));
}

static void count_partial(struct dev *d, struct planes *y, const struct mat *x,
                          const struct weight *w)
{
    double bytes = weight_bytes(w) + size(x);
    for (int i = 0; i < y->n; i++)
        bytes += size(&y->at[i]);
    price(d, product_flops(x, w), bytes);
}

static void count_add(struct dev *d, struct mat *x, const struct mat *y, const struct mat *bias)
{
    price(d, 0, 2 * size(x) + size(y) + size(bias));
}

static void count_rope(struct dev *d, struct mat *x, int head_dim, const struct mat *angle)
{
    (void)head_dim;
    price(d, 0, 2 * size(x) + size(angle));
}

static void count_store(struct dev *d, const struct kv *c, const struct mat *k, const struct mat *v,
                        const int *slot)
{
    (void)slot;
    double rows = (double)k->n * c->n_head;
    price(d, 0, size(k) + size(v) + rows * (double)kv_row_bytes(c->type, c->head_dim));
}

/* The keys and values that the tokens of one sequence see are read once for all of them. */
static void count_attend(struct dev *d, struct mat *y, const struct mat *q, const struct kv *c,
                         const struct heads *h, const struct batch *b)
{
    double pairs = 0, read = 0;
    for (int t = 0, first = 0; t < q->n; t++) {
        int seen = b->pos[t] + 1;
        pairs += h->window ? min_int(seen, h->window) : seen;
        if (t + 1 < q->n && b->seq[t + 1] == b->seq[t])
            continue;
        read += h->window ? seen - max_int(0, b->pos[first] + 1 - h->window) : seen;
        first = t + 1;
    }
    double per_key = c->n_head * (double)kv_row_bytes(c->type, c->head_dim);
    price(d, 4 * pairs * q->dim, read * per_key + size(q) + size(y));
}

static void count_swiglu(struct dev *d, struct mat *gate, const struct mat *up)
{
    price(d, 0, 2 * size(gate) + size(up));
}

static void count_pick(struct dev *d, struct mat *y, const struct mat *x, const int *row)
{
    (void)x, (void)row;
    price(d, 0, 2 * size(y));
}

const struct dev_ops dev_count = {
    .name = "count",
    .embed = count_embed,
    .norm = count_norm,
    .matmul = count_matmul,
    .partial = count_partial,
    .add = count_add,
    .rope = count_rope,
    .store = count_store,
    .attend = count_attend,
    .swiglu = count_swiglu,
    .pick = count_pick,
};
