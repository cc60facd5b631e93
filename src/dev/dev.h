/* dev.h - the operations a device must offer, and nothing about how.
 *
 * Operations run in order and may be asynchronous. A failure is remembered in dev->err and every
 * later call does nothing, as with a FILE; ask once, at the end of a step. The wrappers check
 * shapes for all devices alike, so the counting device is also a type checker for plans.
 *
 * Numerics (see docs/NUMERICS.md): activations are f32. A row is computed in the same order
 * whatever stands beside it. Every dot product over `cols` is one chain of fused multiply-adds in
 * ascending order per output and share. Reductions over a whole row use 16 strided partial sums
 * joined by a fixed tree. exp is our own. So f32, f16 and widened bf16 arithmetic gives the same
 * bits on every instruction set; the bf16 dot instruction is a class of its own.
 */
#ifndef TANDEM_DEV_H
#define TANDEM_DEV_H

#include "base/arena.h"
#include "base/tree.h"
#include "dev/count.h"
#include "dev/draw.h"
#include "dev/kv.h"
#include "dev/weight.h"
#include "topo/limits.h"

/* One step of work, the same on every rank of a stage. Flat arrays; nothing is owned. The tokens
 * of one sequence stand together, in ascending position. */
struct batch {
    int n_tok, n_seq, n_out;
    const int *tok;  /* [n_tok]; ~i: what was drawn from row i in the step before, drawn[i] */
    const int *pos;  /* [n_tok] position in its sequence */
    const int *slot; /* [n_tok] where key and value go: page * KV_PAGE + pos % KV_PAGE */
    const int *seq;  /* [n_tok] which sequence */
    const int *page; /* [n_seq * stride] page of every KV_PAGE positions of a sequence */
    int stride;
    const int *out;                /* [n_out] tokens whose logits are wanted */
    const struct draw_rows *draws; /* of out; NULL: none */
    const int *drawn;              /* the device's memory, see dev_draw() */
};

/* Which heads an attention call is about. Query head i of the rank is head q_first + i of the
 * model; it reads key-value head (q_first + i) / group - kv_first of the rank. */
struct heads {
    int head_dim, group, q_first, kv_first;
    int window; /* 0: all positions; w: position p sees p-w+1 .. p */
    float scale;
};

/* One product of several of the same x: y = x * w^T + bias. */
struct term {
    struct mat *y;
    const struct weight *w;
    const struct mat *bias;
};

/* Queries, keys and values of a step's tokens, as their products have made them: norms of single
 * heads (n == 0: none) and the rotation are still to be done. */
struct qkv {
    struct mat *q, *k;
    const struct mat *v, *q_norm, *k_norm, *angle;
    float eps;
};

/* Where the shares of a cut row begin in a rank's part of it: share first + i holds the numbers
 * begin[i] .. begin[i + 1]. */
struct runs {
    int first, n;
    int begin[SHARES_MAX + 1];
};

/* Which experts rows go to: for every row `top` choices in the order of choice, and then the shared
 * expert, if there is one. Choice c of row t is number t * routed_row() + c. Of the rows that go to
 * an expert, in ascending order, this rank does those numbered turn[e].lo .. turn[e].hi - 1; other
 * ranks do the others. expert, weight and load are the device's memory, turn the host's. Nothing
 * is owned.
 */
enum { ROUTE_EXPERTS = 512 }; /* the most experts, beside a shared one */
struct routed {
    int n, top;
    bool shared;
    int *expert;
    float *weight;
    const struct span *turn; /* [n_expert], hi may be larger than there are rows; NULL: all rows */
    uint64_t *load; /* [n_expert] where a device that the host cannot watch adds the rows that chose
                       each; NULL: nobody asks */
};

static inline int routed_row(const struct routed *r) { return r->top + r->shared; }

/* Who computes what of a layer's experts where only the device sees the routing. The ranks of a
 * group form n_run runs of `slices` neighbours; this is rank `rank`. Pointers are the device's
 * memory. A row of an expert is computed by a run that holds it; of several the one with the least
 * to do takes all of its rows, or, from two tiles on, some sixteenths of them, those with a row
 * number of that remainder. Reading an expert's weights counts as `weights` rows. */
struct deal {
    int n_expert, n_run, slices, rank, weights, tile;
    const uint64_t *holders; /* [n_expert] bit r: run r holds it */
    uint32_t *need; /* [rows] to be filled for comm_dispatch(); NULL: all ranks have all rows, and
                       parts of the shared expert */
    uint64_t *load; /* [2] what the busiest run has to do, and all together, are added; or NULL */
};

/* Scratch for the experts of a step: of each row of x, and of what each choice has between up and
 * down, in the form that products want. */
enum { EXPERT_PAD = 8 };
struct expert_room {
    struct mat x;      /* [rows][hidden + EXPERT_PAD] */
    struct mat hidden; /* [choices + 1][columns of the rank + EXPERT_PAD * its shares] */
    int *row;          /* [choices] */
    float *weight;     /* [choices] */
};

struct dev;
struct op_time; /* dev/profile.h */
typedef void dev_together_fn(void *arg, int thread, int n);

struct dev_ops {
    const char *name;
    void (*begin)(struct dev *, struct batch *); /* NULL, as the next: memory is the host's */
    void (*end)(struct dev *, const struct mat *m);
    bool (*passed)(struct dev *);
    struct mat (*fetch)(struct dev *, const struct mat *m);
    void (*embed)(struct dev *, struct mat *y, const struct weight *w, int first, const int *tok);
    void (*norm)(struct dev *, struct mat *y, const struct mat *x, const struct mat *w, float eps);
    void (*squares)(struct dev *, struct planes *y, int column, const struct mat *x,
                    const struct runs *);
    void (*norm_by)(struct dev *, struct mat *x, const struct mat *sum, int column,
                    const struct mat *w, int dim, float eps);
    void (*clip)(struct dev *, struct mat *x, float limit);
    void (*matmul)(struct dev *, const struct mat *x, const struct term *term, int n);
    void (*partial)(struct dev *, struct planes *y, const struct mat *x, const struct weight *w);
    void (*add)(struct dev *, struct mat *x, const struct mat *y, const struct mat *bias);
    void (*rope)(struct dev *, struct mat *x, int head_dim, const struct mat *angle);
    void (*store)(struct dev *, const struct kv *, const struct mat *k, const struct mat *v,
                  const int *slot);
    void (*attend)(struct dev *, struct mat *y, const struct mat *q, const struct kv *,
                   const struct heads *, const struct batch *);
    void (*swiglu)(struct dev *, struct mat *gate, const struct mat *up);
    void (*route)(struct dev *, struct routed *to, const struct mat *logits, const struct mat *gate,
                  bool renorm);
    void (*deal)(struct dev *, struct routed *, const struct deal *); /* NULL: the host does it */
    void (*experts)(struct dev *, struct mat *y, const struct mat *x, const struct expert *expert,
                    int n_expert, const struct routed *, const struct expert_room *);
    void (*settle)(struct dev *, struct mat *x, const struct mat *y);
    void (*pick)(struct dev *, struct mat *y, const struct mat *x, const int *row);
    /* Several of the above at once. NULL: one after the other. */
    void (*add_norm)(struct dev *, struct mat *h, struct mat *x, const struct mat *y,
                     const struct mat *bias, const struct mat *w, float eps);
    void (*rope_store)(struct dev *, const struct kv *, const struct qkv *, const int *slot);
    void (*glu)(struct dev *, const struct mat *x, const struct term both[2]);
    bool (*draw)(struct dev *, struct mat *token, const struct mat *logits,
                 const struct draw_rows *);                         /* NULL: false */
    void (*together)(struct dev *, dev_together_fn *fn, void *arg); /* NULL: no host threads */
    uint64_t (*waited_ns)(struct dev *); /* how long the caller waited for the device's other
                                            threads, or for the device, since the beginning; NULL:
                                            there is nothing to wait for */
    /* What was enqueued since the last lap, or the step's begin, is of `of` (NULL: of nobody), to
     * which its nanoseconds are added by the first lap after fetch. NULL: what is called is done
     * when it returns. */
    void (*lap)(struct dev *, struct op_time *of);
};

struct dev {
    const struct dev_ops *ops;
    int err;         /* sticky */
    const char *why; /* of err, in words; NULL: strerror() tells */
    void *ctx;
    bool leads;           /* a step may begin while the one before it runs: dev_end() */
    struct counted count; /* the counting device only */
};

/* A step begins: the arrays of b are taken to the device, whose memory b then names, until the next
 * step. Every operation takes such a batch, and numbers in the device's memory. */
static inline void dev_begin(struct dev *d, struct batch *b)
{
    if (!d->err && d->ops->begin)
        d->ops->begin(d, b);
}

/* Of a device that leads: all of the step is told to it, and m, as dev_fetch() takes it, is on its
 * way. Another step may begin now, but no third before dev_fetch() has returned what came of this
 * one, and none whose rows the host fetches beside another one's. dev_passed(): it is all there. */
static inline void dev_end(struct dev *d, const struct mat *m)
{
    if (!d->err && d->leads)
        d->ops->end(d, m);
}

static inline bool dev_passed(struct dev *d) { return d->err || !d->leads || d->ops->passed(d); }

/* A step ends: wait until all of it is done. Returns m where the host may read and write it, until
 * the next step; of a mat without rows, only the wait is wanted, and of logits from which tokens
 * were drawn only those rows are there that were not. */
static inline struct mat dev_fetch(struct dev *d, const struct mat *m)
{
    return d->err || !d->ops->fetch ? *m : d->ops->fetch(d, m);
}

/* Copy the rows of words first .. first + w->rows that appear in tok; all other rows become zero
 * bits (a group's merge then completes them). */
static inline void dev_embed(struct dev *d, struct mat *y, const struct weight *w, int first,
                             const int *tok)
{
    must(y->type == NUM_F32 && y->dim == w->cols);
    if (!d->err)
        d->ops->embed(d, y, w, first, tok);
}

/* RMS norm of every run of w->dim numbers (a hidden state, or single heads): x / sqrt(mean(x*x) +
 * eps) * w. y may be x. */
static inline void dev_norm(struct dev *d, struct mat *y, const struct mat *x, const struct mat *w,
                            float eps)
{
    must(y->n == x->n && y->dim == x->dim && w->dim > 0 && x->dim % w->dim == 0);
    if (!d->err)
        d->ops->norm(d, y, x, w, eps);
}

/* Sums of squares of rows that ranks share out: column `column` of plane y->at[i] [n][columns] =
 * the sum over the i-th complete subtree of the shares in runs. A share's squares are added as
 * those of dev_norm() are. */
static inline void dev_squares(struct dev *d, struct planes *y, int column, const struct mat *x,
                               const struct runs *runs)
{
    must(y->n > 0 && y->at[0].n == x->n && 0 <= column && column < y->at[0].dim);
    must(runs->begin[runs->n] <= x->dim);
    if (!d->err)
        d->ops->squares(d, y, column, x, runs);
}

/* dev_norm() of rows of `dim` numbers in all, of which x [n][...] and w are the rank's part; the
 * squares of row t add up to sum[t][column]. */
static inline void dev_norm_by(struct dev *d, struct mat *x, const struct mat *sum, int column,
                               const struct mat *w, int dim, float eps)
{
    must(sum->n == x->n && 0 <= column && column < sum->dim && w->dim == x->dim && x->dim <= dim);
    if (!d->err)
        d->ops->norm_by(d, x, sum, column, w, dim, eps);
}

/* Numbers beyond -limit .. limit become the limit; a NaN stays. */
static inline void dev_clip(struct dev *d, struct mat *x, float limit)
{
    must(limit > 0);
    if (!d->err)
        d->ops->clip(d, x, limit);
}

/* Several products of one x, whose weights have one number format: what is done to x for them is
 * done once. Each is as dev_matmul() says. */
static inline void dev_matmuls(struct dev *d, const struct mat *x, const struct term *term, int n)
{
    for (int i = 0; i < n; i++) {
        const struct term *t = &term[i];
        must(t->y->n == x->n && x->dim == t->w->cols && t->y->dim == t->w->rows);
        must(t->w->type == term[0].w->type && (!t->bias->n || t->bias->dim == t->w->rows));
    }
    if (!d->err)
        d->ops->matmul(d, x, term, n);
}

/* y[n][rows] = x[n][cols] * w^T + bias, w cut by rows or whole. bias->n == 0: none; otherwise it
 * is the rank's slice [1][rows], added after the product. */
static inline void dev_matmul(struct dev *d, struct mat *y, const struct mat *x,
                              const struct weight *w, const struct mat *bias)
{
    dev_matmuls(d, x, &(struct term){y, w, bias}, 1);
}

/* The planes of x[n][cols] * w^T for a w cut by columns: y->at[i] is the sum of the i-th complete
 * subtree of shares w->first .. w->first + w->n_part. */
static inline void dev_partial(struct dev *d, struct planes *y, const struct mat *x,
                               const struct weight *w)
{
    must(y->n > 0 && y->at[0].n == x->n && x->dim == w->cols && y->at[0].dim == w->rows);
    if (!d->err)
        d->ops->partial(d, y, x, w);
}

/* x += y, a y in fixed point rounded once to f32; of others then += bias when bias->n. */
static inline void dev_add(struct dev *d, struct mat *x, const struct mat *y,
                           const struct mat *bias)
{
    must(x->n == y->n && x->dim == y->dim);
    must(!bias->n || (bias->dim == x->dim && y->type == NUM_F32));
    if (!d->err && y->type == NUM_I64)
        d->ops->settle(d, x, y);
    else if (!d->err)
        d->ops->add(d, x, y, bias);
}

/* Rotate every head of x: halves (i, i + head_dim/2). angle[n][head_dim]: head_dim/2 cosines, then
 * head_dim/2 sines of the row's position. */
static inline void dev_rope(struct dev *d, struct mat *x, int head_dim, const struct mat *angle)
{
    must(x->dim % head_dim == 0 && angle->n == x->n && angle->dim == head_dim);
    if (!d->err && x->dim)
        d->ops->rope(d, x, head_dim, angle);
}

/* Put k and v [n][n_head * head_dim] into their slots, rounded to the cache's format. */
static inline void dev_store(struct dev *d, const struct kv *c, const struct mat *k,
                             const struct mat *v, const int *slot)
{
    must(k->dim == c->n_head * c->head_dim && v->dim == k->dim && k->n == v->n);
    if (!d->err)
        d->ops->store(d, c, k, v, slot);
}

/* Causal attention of q [n_tok][heads * head_dim] over the cache; y has q's shape. Keys in
 * ascending blocks of KV_BLOCK anchored at position 0, online softmax per block; a segment of
 * KV_SEGMENT keys starts afresh and segments merge ascending; blocks wholly outside the window
 * are skipped. Of an int8 cache (kv.h) products are whole and exact:
 *     score = float(sum q k) * (key scale * (query scale * h->scale))
 *     output += float(sum over the block of w v) * (scale of w),  w of exp(score - max) * value
 * scale
 */
static inline void dev_attend(struct dev *d, struct mat *y, const struct mat *q, const struct kv *c,
                              const struct heads *h, const struct batch *b)
{
    must(y->n == q->n && y->dim == q->dim && q->dim % h->head_dim == 0 && q->n == b->n_tok);
    if (!d->err && q->dim)
        d->ops->attend(d, y, q, c, h, b);
}

/* gate = silu(gate) * up */
static inline void dev_swiglu(struct dev *d, struct mat *gate, const struct mat *up)
{
    must(gate->n == up->n && gate->dim == up->dim);
    if (!d->err)
        d->ops->swiglu(d, gate, up);
}

/* The largest `top` of logits[n][experts], ties by the lower number. Weights are the softmax over
 * all experts (its sum: 16 strided partial sums joined by the fixed tree), or with renorm over the
 * chosen (their sum in the order of choice). The shared expert has the number logits->dim and
 * weight 1, or the sigmoid of gate[n][1] when gate->n. A NaN among the logits makes the weights of
 * all that the row has chosen NaN, whichever they are; not the shared one's. */
static inline void dev_route(struct dev *d, struct routed *to, const struct mat *logits,
                             const struct mat *gate, bool renorm)
{
    must(to->n == logits->n && 0 < to->top && to->top <= logits->dim);
    must(logits->dim <= ROUTE_EXPERTS && (!gate->n || (gate->n == to->n && gate->dim == 1)));
    if (!d->err)
        d->ops->route(d, to, logits, gate, renorm);
}

/* Choices that other ranks compute are none from now on. All ranks of a group work out the same. */
static inline void dev_deal(struct dev *d, struct routed *r, const struct deal *deal)
{
    must(d->ops->deal && deal->n_run * deal->slices <= 32 && deal->rank < 32);
    if (!d->err)
        d->ops->deal(d, r, deal);
}

/* y[n][hidden] (NUM_I64, base/whole.h) = the sum over the experts that a row of x goes to, as far
 * as it is this rank's turn, and over the shares of the rank, of weight * (down_share *
 * (silu(gate_share * x) * (up_share * x))) where the product with each share of down is one f32
 * sum, and times the weight one f32 rounding. Nothing else is rounded, so experts and shares may be
 * anywhere. */
static inline void dev_experts(struct dev *d, struct mat *y, const struct mat *x,
                               const struct expert *expert, int n_expert,
                               const struct routed *routed, const struct expert_room *room)
{
    must(y->type == NUM_I64 && y->n == x->n && y->dim == x->dim && routed->n == x->n);
    must(room->x.n >= x->n && room->hidden.n > x->n * routed_row(routed));
    if (!d->err)
        d->ops->experts(d, y, x, expert, n_expert, routed, room);
}

/* ------------------------------------------------------------------------------- at once
 *
 * What stands between the products of a layer, as operations that a device may do each in one go:
 * of few rows they take no longer than it takes to begin one.
 */

/* dev_add(), and h is the norm of x. */
static inline void dev_add_norm(struct dev *d, struct mat *h, struct mat *x, const struct mat *y,
                                const struct mat *bias, const struct mat *w, float eps)
{
    must(h->n == x->n && h->dim == x->dim && w->dim == x->dim && y->n == x->n && y->dim == x->dim);
    must(!bias->n || (bias->dim == x->dim && y->type == NUM_F32));
    if (!d->err && d->ops->add_norm) {
        d->ops->add_norm(d, h, x, y, bias, w, eps);
        return;
    }
    dev_add(d, x, y, bias);
    dev_norm(d, h, x, w, eps);
}

/* Every head of q and k: its norm, if there is one, and dev_rope(); then dev_store() of k and v. k
 * is of no use afterwards. */
static inline void dev_rope_store(struct dev *d, const struct kv *c, const struct qkv *m,
                                  const int *slot)
{
    const int head_dim = c->head_dim, n = m->q->n;
    must(m->k->dim == c->n_head * head_dim && m->v->dim == m->k->dim && m->q->dim % head_dim == 0);
    must(m->k->n == n && m->v->n == n && m->angle->n == n && m->angle->dim == head_dim);
    must(!m->q_norm->n || (m->q_norm->dim == head_dim && m->k_norm->dim == head_dim));
    if (!d->err && d->ops->rope_store) {
        d->ops->rope_store(d, c, m, slot);
        return;
    }
    if (m->q_norm->n) {
        dev_norm(d, m->q, m->q, m->q_norm, m->eps);
        dev_norm(d, m->k, m->k, m->k_norm, m->eps);
    }
    dev_rope(d, m->q, head_dim, m->angle);
    dev_rope(d, m->k, head_dim, m->angle);
    dev_store(d, c, m->k, m->v, slot);
}

/* gate, the first of two products of x, becomes silu(gate) * up, of which the second is then of no
 * use. */
static inline void dev_glu(struct dev *d, const struct mat *x, const struct term both[2])
{
    const struct mat *gate = both[0].y, *up = both[1].y;
    must(gate->n == x->n && up->n == x->n && gate->dim == up->dim);
    must(both[0].w->cols == x->dim && both[1].w->cols == x->dim);
    must(both[0].w->rows == gate->dim && both[1].w->rows == up->dim);
    if (!d->err && d->ops->glu) {
        d->ops->glu(d, x, both);
        return;
    }
    dev_matmuls(d, x, both, 2);
    dev_swiglu(d, both[0].y, up);
}

/* ------------------------------------------------------------------------------- ends */

/* Row i of y = row row[i] of x. */
static inline void dev_pick(struct dev *d, struct mat *y, const struct mat *x, const int *row)
{
    must(y->dim == x->dim);
    if (!d->err)
        d->ops->pick(d, y, x, row);
}

/* Draw the tokens after rows of logits, which are no longer of use then, as sample() of
 * run/sample.h does: whole numbers in token[n][1], and in rows->token once dev_fetch() has
 * returned. Rows that draw_on_host() are left alone. False: the device does not draw, and the host
 * is to. rows: the batch's. */
static inline bool dev_draw(struct dev *d, struct mat *token, const struct mat *logits,
                            const struct draw_rows *rows)
{
    must(logits->n == rows->n && token->n == rows->n);
    return !d->err && d->ops->draw && d->ops->draw(d, token, logits, rows);
}

/* fn(arg, thread, n) on every host thread of the device at once, for work that is not an operation
 * (drawing tokens); returns when all have returned. */
static inline void dev_together(struct dev *d, dev_together_fn *fn, void *arg)
{
    if (d->err)
        return;
    if (d->ops->together)
        d->ops->together(d, fn, arg);
    else
        fn(arg, 0, 1);
}

/* A device that computes nothing and prices everything: the planner's. dev/count.h */
extern const struct dev_ops dev_count;

/* ------------------------------------------------------------------------------- the CPU */

/* The reference is the definition of every operation in plain C; the others compute the same bits
 * faster, but for ISA_AVX512_BF16 and ISA_AMX with bf16 weights. Each has what those before it
 * have. */
enum isa { ISA_REF, ISA_AVX2, ISA_AVX512, ISA_AVX512_BF16, ISA_AMX, ISA_COUNT };

enum isa isa_best(void); /* of this machine, by cpuid; environment TANDEM_ISA=name may lower it */
bool isa_here(enum isa isa); /* ISA_AMX: also asks Linux for the tiles, which it grants for good */
const char *isa_name(enum isa isa); /* "ref", "avx2", "avx512", "avx512-bf16", "amx" */

/* Which bits to expect: "f32-fma" or "bf16-dot". Part of the plan's hash. */
const char *isa_numerics(enum isa isa, enum num weight);

/* The instruction that products with such weights stand on: their limit. */
enum math isa_math(enum isa isa, enum num weight);

/* Set up d as a CPU device; its scratch for steps of up to max_tok rows of up to max_dim numbers
 * comes from the arena (which may be a measuring one: then d is not usable). */
void dev_cpu_init(struct dev *d, enum isa isa, int max_tok, int max_dim, int threads,
                  struct arena *a);
/* Start its other threads, thread i on core[i] (NULL: not pinned). Until then, and when threads
 * cannot be had, one does all. dev_cpu_stop() ends them. */
void dev_cpu_start(struct dev *d, const int *core);
void dev_cpu_stop(struct dev *d);

#endif
