/* weights.c - see weights.h. */
#include "run/weights.h"

struct context {
    const struct plan *p;
    struct weights *to;
    const struct weights *whole;
    struct arena *host, *data;
    size_t bytes;
    struct span even; /* the experts of the rank's even share */
};

void *weights_field(const struct weights *w, const struct piece *pc)
{
    char *owner = pc->layer < 0    ? (char *)&w->shared
                  : pc->expert < 0 ? (char *)&w->layer[pc->layer]
                                   : (char *)&w->layer[pc->layer].expert[pc->expert];
    return owner + pc->field;
}

/* The structs, all empty; of layers in the rank's stage, those of the experts too. */
static void get_structs(struct weights *w, const struct plan *p, int rank, struct arena *host)
{
    const struct model *m = &p->model;
    struct span stage = {0, m->n_layer};
    size_t experts = (size_t)model_experts(m) * sizeof(struct expert);
    if (rank != PLAN_WHOLE)
        stage = p->stage[plan_stage(p, rank)];
    memset(w, 0, sizeof(*w));
    w->layer = arena_get(host, (size_t)m->n_layer * sizeof(*w->layer));
    if (w->layer)
        memset(w->layer, 0, (size_t)m->n_layer * sizeof(*w->layer));
    for (int l = stage.lo; l < stage.hi; l++) {
        void *at = model_sparse(m, l) ? arena_get(host, experts) : NULL;
        if (at)
            w->layer[l].expert = memset(at, 0, experts);
    }
}

static void place_matrix(struct context *c, const struct piece *pc, void *to)
{
    enum num type = pc->type;
    struct part *part = arena_get(c->host, (size_t)pc->n_part * sizeof(*part));
    for (int i = 0; i < pc->n_part; i++) {
        int n = len(plan_part(c->p, pc, i));
        bool cols = pc->cut == CUT_COLS;
        struct part one = {cols ? pc->rows : n, cols ? n : pc->cols, NULL};
        one.at = arena_get(c->data, part_bytes(type, one.rows, one.cols));
        if (part)
            part[i] = one;
    }
    if (part)
        *(struct weight *)to =
            (struct weight){type, len(pc->row), len(pc->col), pc->first, pc->n_part, part, NULL};
}

static void place(void *arg, const struct piece *pc)
{
    struct context *c = arg;
    if (pc->matrix) {
        place_matrix(c, pc, c->host->base ? weights_field(c->to, pc) : NULL);
        return;
    }
    struct mat m = {1, len(pc->col), NUM_F32, NULL};
    m.at = arena_get(c->data, mat_bytes(&m));
    if (c->host->base)
        *(struct mat *)weights_field(c->to, pc) = m;
}

/* The expert, which all are like, in every slot behind the even share. */
static void place_slots(void *arg, const struct piece *pc)
{
    struct context *c = arg;
    if (pc->expert != c->even.lo)
        return;
    for (int i = len(c->even); i < c->p->slots; i++) {
        struct expert *to = c->to->slot ? &c->to->slot[pc->layer * c->p->slots + i] : NULL;
        place_matrix(c, pc, to ? (char *)to + pc->field : NULL);
    }
}

static void lay_out_slots(struct context *c, int rank)
{
    const struct plan *p = c->p;
    struct weights *w = c->to;
    w->slot = arena_get(c->host, (size_t)p->model.n_layer * (size_t)p->slots * sizeof(*w->slot));
    if (w->slot)
        memset(w->slot, 0, (size_t)p->model.n_layer * (size_t)p->slots * sizeof(*w->slot));
    c->even = placement_even_span(p->model.experts.n, p->ep, plan_run(p, rank));
    plan_pieces(p, rank, place_slots, c);
    for (int l = 0; w->slot && l < p->model.n_layer; l++)
        for (int i = 0; w->layer[l].expert && i < len(c->even); i++)
            w->slot[l * p->slots + i] = w->layer[l].expert[c->even.lo + i];
}

void weights_lay_out(struct weights *w, const struct plan *p, int rank, struct arena *host,
                     struct arena *data)
{
    struct context c = {.p = p, .to = w, .host = host, .data = data};
    get_structs(w, p, rank, host);
    plan_pieces(p, rank, place, &c);
    if (p->slots && rank != PLAN_WHOLE)
        lay_out_slots(&c, rank);
}

static void view(void *arg, const struct piece *pc)
{
    struct context *c = arg;
    if (!c->host->base)
        return;
    if (!pc->matrix) {
        struct mat m = *(const struct mat *)weights_field(c->whole, pc);
        *(struct mat *)weights_field(c->to, pc) =
            (struct mat){1, len(pc->col), NUM_F32, (float *)m.at + pc->col.lo};
        return;
    }
    struct weight w = *(const struct weight *)weights_field(c->whole, pc);
    w.rows = len(pc->row), w.cols = len(pc->col);
    w.first = pc->first, w.n_part = pc->n_part, w.part += pc->first;
    *(struct weight *)weights_field(c->to, pc) = w;
}

void weights_view(struct weights *to, const struct weights *whole, const struct plan *p, int rank,
                  struct arena *host)
{
    get_structs(to, p, rank, host);
    plan_seen(p, rank, view, &(struct context){.p = p, .to = to, .whole = whole, .host = host});
}

struct runs {
    const struct weights *view;
    weights_run_fn *fn;
    void *arg;
};

/* Bytes from the first part's beginning to the last one's end. */
static size_t run_bytes(const struct weight *w)
{
    const struct part *last = &w->part[w->n_part - 1];
    const char *end = (const char *)last->at + part_bytes(w->type, last->rows, last->cols);
    return (size_t)(end - (const char *)w->part[0].at);
}

static void run_of(void *arg, const struct piece *pc)
{
    const struct runs *c = arg;
    if (!pc->matrix)
        return;
    const struct weight *w = weights_field(c->view, pc);
    c->fn(c->arg, w->part[0].at, run_bytes(w));
}

void weights_runs(const struct weights *view, const struct plan *p, int rank, weights_run_fn *fn,
                  void *arg)
{
    plan_pieces(p, rank, run_of, &(struct runs){view, fn, arg});
}

struct copies {
    const struct weights *own, *whole;
    weights_copy_fn *fn;
    void *arg;
};

static void copy_of(void *arg, const struct piece *pc)
{
    const struct copies *c = arg;
    if (!pc->matrix) {
        const struct mat *to = weights_field(c->own, pc), *from = weights_field(c->whole, pc);
        c->fn(c->arg, to->at, (const float *)from->at + pc->col.lo, mat_bytes(to));
        return;
    }
    const struct weight *to = weights_field(c->own, pc), *from = weights_field(c->whole, pc);
    c->fn(c->arg, to->part[0].at, from->part[pc->first].at, run_bytes(to));
}

void weights_copies(const struct weights *own, const struct weights *whole, const struct plan *p,
                    int rank, weights_copy_fn *fn, void *arg)
{
    plan_pieces(p, rank, copy_of, &(struct copies){own, whole, fn, arg});
}

void weights_copy_expert(const struct expert *slot, const struct expert *whole, weights_copy_fn *fn,
                         void *arg)
{
    const struct weight *to[] = {&slot->gate, &slot->up, &slot->down};
    const struct weight *from[] = {&whole->gate, &whole->up, &whole->down};
    for (size_t i = 0; i < COUNT(to); i++)
        fn(arg, to[i]->part[0].at, from[i]->part[to[i]->first].at, run_bytes(to[i]));
}

struct plain {
    const struct weights *own;
    struct arena *data;
    weights_plain_fn *fn;
    void *arg;
};

static void plain_of(void *arg, const struct piece *pc)
{
    const struct plain *c = arg;
    const size_t rows = (size_t)len(pc->row), stride = (size_t)weight_plain_stride(len(pc->col));
    if (!pc->matrix || pc->type != NUM_BF16 || pc->layer < 0 || pc->expert >= 0)
        return;
    void *at = arena_get(c->data, rows * stride * sizeof(uint16_t));
    if (c->fn && rows && stride)
        c->fn(c->arg, weights_field(c->own, pc), pc->cut == CUT_COLS, at);
}

void weights_plain(const struct weights *own, const struct plan *p, int rank, struct arena *data,
                   weights_plain_fn *fn, void *arg)
{
    plan_pieces(p, rank, plain_of, &(struct plain){own, data, fn, arg});
}

static void add_bytes(void *arg, const struct piece *pc)
{
    struct context *c = arg;
    if (!pc->matrix) {
        c->bytes += round_up(mat_bytes(weights_field(c->whole, pc)), ARENA_ALIGN);
        return;
    }
    const struct weight *w = weights_field(c->whole, pc);
    for (int i = 0; i < w->n_part; i++)
        c->bytes += part_bytes(w->type, w->part[i].rows, w->part[i].cols);
}

size_t weights_bytes(const struct weights *w, const struct plan *p, int rank)
{
    struct context c = {.p = p, .whole = w};
    plan_pieces(p, rank, add_bytes, &c);
    return c.bytes;
}
