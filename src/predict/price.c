/* price.c - see price.h.
 *
 * What a step takes is the sum of what its parts take: embedding, one layer of each kind times
 * their number, the head, the hops between stages. The forward pass is run over each part alone,
 * on a plan of one layer of each kind, for every number of rows once. Attention alone depends on
 * more than rows; it has the closed form that the counting device itself uses.
 */
#include "predict/price.h"
#include "predict/probe.h"

#include <errno.h>

/* ------------------------------------------------------------------------------- parts */

/* Of one rank, without attention. */
struct spent {
    double product_s, other_s, comm_s;
};

static double spent_s(const struct spent *a) { return a->product_s + a->other_s + a->comm_s; }

static void keep_slower(struct spent *to, const struct spent *a)
{
    if (spent_s(a) > spent_s(to))
        *to = *a;
}

/* What depends on the number of rows alone. The slices of a stage wait for each other, so the
 * slowest counts; of a layer that is known when its attention is. */
struct rows {
    struct spent embed;
    double hop_s;
    struct spent *layer; /* [slice][kind] */
};

struct head {
    uint64_t key; /* of n_tok and n_out; 0: free */
    struct spent part;
};

/* Prices while so many steps are under way. */
struct flight {
    struct rates rates;
    struct rows **rows; /* [max_tok + 1] NULL: not yet asked for */
    struct head *head;  /* [n_slot] a power of two; at most half of them used */
    int n_slot, n_head;
};

struct pricer {
    struct plan plan;
    struct hardware hardware;
    struct plan small; /* one layer of each kind, and two stages when there are several */
    int n_kind, n_of[PLAN_STAGES][MODEL_KINDS]; /* layers of each kind in a stage */
    int n_slice;                                /* slices that differ in what they hold */
    struct probe *first, *last;                 /* [n_slice] of the small plan's stages */
    struct flight *flight[PLAN_STAGES + 1];
    int *zero; /* [max_tok] for the arrays of a batch */
    struct pool pool;
};

/* The layers of a probe, for rows of which n_out have logits. */
static struct spent run(const struct pricer *x, struct probe *r, struct span layers, int n_tok,
                        int n_out)
{
    struct batch b = {.n_tok = n_tok,
                      .n_seq = 1,
                      .n_out = n_out,
                      .tok = x->zero,
                      .pos = x->zero,
                      .slot = x->zero,
                      .seq = x->zero,
                      .out = x->zero};
    struct counted *c = &r->dev.count;
    c->product_s = c->attend_s = c->other_s = 0;
    r->tp_price.seconds = r->pp_price.seconds = 0;
    r->rank.layers = layers;
    forward(&r->rank, &b);
    must(!r->dev.err && !r->tp.err && !r->pp.err);
    return (struct spent){c->product_s, c->other_s, r->tp_price.seconds};
}

static struct spent less(struct spent a, struct spent b)
{
    return (struct spent){a.product_s - b.product_s, a.other_s - b.other_s, a.comm_s - b.comm_s};
}

static const struct span no_layers = {0, 0};

/* ------------------------------------------------------------------------------- what is kept */

static void use_rates(const struct pricer *x, const struct rates *rates)
{
    for (int i = 0; i < x->n_slice; i++)
        x->first[i].dev.count.costs.rates = x->last[i].dev.count.costs.rates = rates;
}

/* From every stage to the next, on the mean. */
static double hop_s(const struct pricer *x, int n_tok)
{
    double all = 0;
    struct probe *r = &x->last[0];
    for (int s = 1; s < x->plan.pp; s++) {
        r->pp_price.gang.first = (s - 1) * r->pp_price.gang.stride;
        run(x, r, no_layers, n_tok, 0);
        all += r->pp_price.seconds;
    }
    return x->plan.pp > 1 ? all / (x->plan.pp - 1) : 0;
}

static const struct rows *rows_of(struct pricer *x, struct flight *f, int n_tok)
{
    must(0 < n_tok && n_tok <= x->plan.max_tok);
    if (f->rows[n_tok])
        return f->rows[n_tok];
    struct rows *to = f->rows[n_tok] = pool_get(&x->pool, sizeof(*to));
    to->layer = pool_get(&x->pool, (size_t)(x->n_slice * x->n_kind) * sizeof(*to->layer));
    use_rates(x, &f->rates);
    for (int i = 0; i < x->n_slice; i++) {
        struct spent embed = run(x, &x->first[i], no_layers, n_tok, 0);
        keep_slower(&to->embed, &embed);
        for (int k = 0; k < x->n_kind; k++) {
            struct span one = {k, k + 1};
            to->layer[i * x->n_kind + k] = less(run(x, &x->first[i], one, n_tok, 0), embed);
        }
    }
    to->hop_s = hop_s(x, n_tok);
    return to;
}

static struct head *find(const struct flight *f, uint64_t key)
{
    uint64_t at = key * 0x9e3779b97f4a7c15u >> 32;
    for (;; at++) {
        struct head *h = &f->head[at & (uint64_t)(f->n_slot - 1)];
        if (h->key == key || !h->key)
            return h;
    }
}

static void grow(struct flight *f)
{
    struct flight old = *f;
    f->n_slot = old.n_slot ? 2 * old.n_slot : 64;
    f->head = calloc((size_t)f->n_slot, sizeof(*f->head));
    must(f->head);
    for (int i = 0; i < old.n_slot; i++)
        if (old.head[i].key)
            *find(f, old.head[i].key) = old.head[i];
    free(old.head);
}

static const struct spent *head_of(struct pricer *x, struct flight *f, int n_tok, int n_out)
{
    uint64_t key = (uint64_t)n_tok << 32 | (uint64_t)n_out;
    struct head *h = find(f, key);
    if (h->key)
        return &h->part;
    if (2 * ++f->n_head > f->n_slot) {
        grow(f);
        h = find(f, key);
    }
    h->key = key;
    use_rates(x, &f->rates);
    for (int i = 0; i < x->n_slice; i++) {
        struct spent without = run(x, &x->last[i], no_layers, n_tok, 0);
        struct spent head = less(run(x, &x->last[i], no_layers, n_tok, n_out), without);
        keep_slower(&h->part, &head);
    }
    return &h->part;
}

static struct flight *flight_of(struct pricer *x, int n)
{
    const struct plan *p = &x->plan;
    n = x->hardware.n_rates > 1 ? max_int(1, min_int(n, p->pp)) : 1;
    if (x->flight[n])
        return x->flight[n];
    struct flight *f = x->flight[n] = pool_get(&x->pool, sizeof(*f));
    hardware_rates(&x->hardware, n * p->dp * p->tp * p->threads, &f->rates);
    f->rows = pool_get(&x->pool, ((size_t)p->max_tok + 1) * sizeof(struct rows *));
    grow(f);
    return f;
}

/* ------------------------------------------------------------------------------- a pricer */

static bool has_product(const struct rates *r, int t) { return r->product[t].n; }

static bool has_attention(const struct rates *r, int t)
{
    return r->attend_byte_s[t].source != SOURCE_NONE && r->attend_madd_s[t].n;
}

/* Refuse a format that the hardware has no speed of, naming those it has. */
static int check_format(const struct hardware *h, const char *what, enum num t,
                        bool (*has)(const struct rates *, int), struct err *e)
{
    char known[200] = "none";
    int at = 0;
    if (has(&h->rates[0], (int)t))
        return 0;
    for (int i = 0; i < NUM_COUNT; i++)
        if (has(&h->rates[0], i))
            at += snprintf(known + at, sizeof(known) - (size_t)at, "%s%s", at ? ", " : "",
                           num_name((enum num)i));
    return err_set(e, -ENOENT,
                   "the hardware %s has no speed of %s in %s, only of: %s; choose one of these, or "
                   "add the speed to the profile",
                   h->name, what, num_name(t), known);
}

static int check(const struct plan *p, const struct hardware *h, struct err *e)
{
    int rc = 0;
    if (h->n_rates < 1 || (plan_ranks(p) > 1 && h->n_level < 1))
        return err_set(e, -EINVAL, "the hardware %s has no speeds: measure it with tandem topo",
                       h->name);
    rc = check_format(h, "products with weights", p->weight, has_product, e);
    if (!rc && p->weight == NUM_FP8) /* the head is bf16 then */
        rc = check_format(h, "products with weights", NUM_BF16, has_product, e);
    return rc ? rc : check_format(h, "attention over keys and values", p->kv, has_attention, e);
}

/* One layer of each kind at stage 0; what comes after the layers at the last stage. */
static void make_small(struct pricer *x)
{
    const struct plan *p = &x->plan;
    struct plan *s = &x->small;
    *s = *p;
    for (int l = 0; l < p->model.n_layer; l++)
        x->n_kind = max_int(x->n_kind, p->model.kind_of[l] + 1);
    for (int stage = 0; stage < p->pp; stage++)
        for (int l = p->stage[stage].lo; l < p->stage[stage].hi; l++)
            x->n_of[stage][p->model.kind_of[l]]++;
    s->model.n_layer = x->n_kind;
    for (int k = 0; k < x->n_kind; k++)
        s->model.kind_of[k] = (uint8_t)k;
    s->pp = min_int(p->pp, 2);
    s->stage[0] = (struct span){0, x->n_kind};
    s->stage[1] = (struct span){x->n_kind, x->n_kind};
}

/* Do two slices hold equally much, and read equally much from the others? */
static bool alike(const struct plan *p, int a, int b)
{
    struct span tree[PLANES];
    if (tree_split((struct span){p->cut[a], p->cut[a + 1]}, tree) !=
        tree_split((struct span){p->cut[b], p->cut[b + 1]}, tree))
        return false;
    const struct placement held = placement_even(max_int(p->model.experts.n, 1), p->ep);
    if (placement_slots(&held, plan_run(p, a)) != placement_slots(&held, plan_run(p, b)))
        return false;
    for (int what = HEADS; what <= WORDS; what++)
        if (len(plan_share(p, a, (enum what)what)) != len(plan_share(p, b, (enum what)what)))
            return false;
    return true;
}

/* Of the stages, the one whose ranks stand farthest apart: its first device. */
static int worst_place(const struct pricer *x)
{
    const struct plan *p = &x->plan;
    const double bytes = 1 << 20;
    double worst = 0;
    int first = 0;
    for (int s = 0; s < p->pp; s++) {
        struct gang g = {.first = s * p->tp * p->threads, .ranks = p->tp, .stride = p->threads};
        double t = hardware_collective(&x->hardware, COLLECTIVE_SUM, &g, bytes);
        if (t > worst)
            worst = t, first = g.first;
    }
    return first;
}

static void place(struct pricer *x, struct probe *r, int tp_first)
{
    const struct plan *p = &x->plan;
    if (p->ep > 1 && x->hardware.kind == DEVICE_GPU) /* each holds experts of its own */
        r->rank.turns.placement = placement_even(p->model.experts.n, p->ep);
    r->dev.count.costs.threads = p->threads;
    r->dev.count.costs.at_once = x->hardware.kind == DEVICE_GPU;
    r->tp_price.hardware = r->pp_price.hardware = &x->hardware;
    r->tp_price.gang.first = tp_first;
    r->tp_price.gang.stride = p->threads;
    r->pp_price.gang.stride = p->tp * p->threads;
}

static void open_probes(struct pricer *x)
{
    const struct plan *p = &x->plan;
    int tp_first = worst_place(x), slice[SHARES_MAX];
    for (int t = 0; t < p->tp; t++) {
        bool known = false;
        for (int i = 0; i < x->n_slice; i++)
            known |= alike(p, slice[i], t);
        if (!known)
            slice[x->n_slice++] = t;
    }
    x->first = pool_get(&x->pool, (size_t)x->n_slice * sizeof(*x->first));
    x->last = pool_get(&x->pool, (size_t)x->n_slice * sizeof(*x->last));
    for (int i = 0; i < x->n_slice; i++) {
        probe_open(&x->first[i], &x->small, slice[i], &x->pool);
        probe_open(&x->last[i], &x->small, (x->small.pp - 1) * p->tp + slice[i], &x->pool);
        place(x, &x->first[i], tp_first);
        place(x, &x->last[i], tp_first);
    }
}

struct pricer *pricer_new(const struct plan *p, const struct hardware *h, struct err *e)
{
    if (check(p, h, e))
        return NULL;
    struct pricer *x = calloc(1, sizeof(*x));
    must(x);
    x->plan = *p;
    x->hardware = *h;
    x->zero = pool_get(&x->pool, (size_t)p->max_tok * sizeof(int));
    make_small(x);
    open_probes(x);
    return x;
}

void pricer_expect(struct pricer *x, const struct routing *known)
{
    for (int i = 0; i < x->n_slice; i++)
        x->first[i].rank.turns.known = x->last[i].rank.turns.known = known;
}

double pricer_lambda(const struct pricer *x)
{
    const struct rank_turns *t = &x->first[0].rank.turns;
    return t->known ? expect_lambda(t->known, &t->placement, x->plan.model.experts.top) : 1;
}

void pricer_free(struct pricer *x)
{
    for (int i = 0; x && i <= PLAN_STAGES; i++)
        if (x->flight[i])
            free(x->flight[i]->head);
    if (x)
        pool_free(&x->pool);
    free(x);
}

/* ------------------------------------------------------------------------------- a step */

void work_add(struct work *w, const struct model *m, int pos, int n, int n_out)
{
    w->n_tok += n;
    w->n_seq++;
    w->n_out += n_out;
    for (int k = 0; k < MODEL_KINDS; k++)
        attended_add(&w->seen[k], m->kind[k].window, pos, n);
}

struct work work_of(const struct model *m, int n_seq, int n_new, int last)
{
    struct work w = {0};
    for (int i = 0; i < n_seq; i++)
        work_add(&w, m, last - n_new + 1, n_new, 1);
    return w;
}

struct layer_price {
    struct spent rest;
    double attend_s, all_s;
};

/* A layer with its attention, by its slowest slice. */
static struct layer_price layer_of(const struct pricer *x, const struct flight *f,
                                   const struct rows *rows, const struct work *w, int kind)
{
    const struct costs costs = {.rates = &f->rates, .threads = x->plan.threads};
    struct layer_price slowest = {.all_s = -1};
    for (int i = 0; i < x->n_slice; i++) { /* waves attend one after the other: priced as one */
        const struct rank *r = &x->first[i].rank;
        struct layer_price l = {.rest = rows->layer[i * x->n_kind + kind]};
        l.attend_s = attend_seconds(&costs, &w->seen[kind], &r->kv[kind], r->room.q.dim);
        l.all_s = spent_s(&l.rest) + l.attend_s;
        if (l.all_s > slowest.all_s)
            slowest = l;
    }
    return slowest;
}

static void add_spent(struct step_price *to, double times, const struct spent *a)
{
    to->product_s += times * a->product_s;
    to->other_s += times * a->other_s;
    to->comm_s += times * a->comm_s;
}

static double host_s(const struct pricer *x, const struct work *w)
{
    return x->hardware.step_s.value + x->hardware.seq_s.value * w->n_seq;
}

static double draw_s(const struct pricer *x, const struct flight *f, const struct work *w)
{
    int rows = (w->n_out + x->plan.threads - 1) / x->plan.threads; /* whole rows are shared out */
    return (w->n_out ? f->rates.draw_op_s.value : 0) +
           f->rates.draw_s.value * rows * x->plan.model.n_vocab;
}

/* GPUs draw by themselves, at the end of the last stage. */
static void add_drawing(const struct pricer *x, struct step_price *to, double seconds)
{
    if (x->hardware.kind == DEVICE_GPU)
        to->stage_s[x->plan.pp - 1] += seconds, to->other_s += seconds;
    else
        to->host_s += seconds;
}

void pricer_step(struct pricer *x, const struct work *w, struct step_price *to)
{
    const struct plan *p = &x->plan;
    struct flight *f = flight_of(x, w->flight);
    const struct rows *rows = rows_of(x, f, w->n_tok);
    *to = (struct step_price){.hop_s = rows->hop_s, .host_s = host_s(x, w)};
    for (int k = 0; k < x->n_kind; k++) {
        const struct layer_price layer = layer_of(x, f, rows, w, k);
        int n = 0;
        for (int s = 0; s < p->pp; s++) {
            to->stage_s[s] += x->n_of[s][k] * layer.all_s;
            n += x->n_of[s][k];
        }
        add_spent(to, n, &layer.rest);
        to->attend_s += n * layer.attend_s;
    }
    to->stage_s[0] += spent_s(&rows->embed);
    add_spent(to, 1, &rows->embed);
    if (w->n_out) {
        const struct spent *head = head_of(x, f, w->n_tok, w->n_out);
        to->stage_s[p->pp - 1] += spent_s(head);
        add_spent(to, 1, head);
    }
    add_drawing(x, to, draw_s(x, f, w));
    to->comm_s += (p->pp - 1) * to->hop_s;
    to->all_s = to->host_s + (p->pp - 1) * to->hop_s;
    for (int s = 0; s < p->pp; s++)
        to->all_s += to->stage_s[s];
}

double pricer_chain(struct pricer *x, const struct work *w, int n)
{
    double done[PLAN_STAGES] = {0}, host = 0;
    for (int i = 0; i < n; i++) {
        struct step_price price;
        struct work one = w[i];
        one.flight = n;
        pricer_step(x, &one, &price);
        host = i ? host : price.host_s;
        for (int s = 0; s < x->plan.pp; s++) {
            double ready = s ? done[s - 1] + price.hop_s : 0;
            done[s] = (ready > done[s] ? ready : done[s]) + price.stage_s[s];
        }
    }
    return host + done[x->plan.pp - 1];
}
