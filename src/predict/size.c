/* size.c - see size.h. */
#include "predict/size.h"
#include "dev/dev.h"
#include "run/room.h"
#include "run/work.h"

static size_t page_bytes(const struct plan *p, int rank)
{
    struct plan one = *p;
    one.pages = 1;
    return plan_kv_bytes(&one, rank);
}

/* Buffers between operations and what drawing needs. Workspace of a GPU's kernels belongs to the
 * reserve. */
static size_t scratch_of(const struct plan *p, int rank)
{
    struct rank r;
    struct arena host = {0}, dev = {0}, peer = {0};
    rank_lay_out(&r, p, rank, &host, &dev, &peer);
    return dev.used + peer.used + (size_t)p->threads * draw_scratch(p->model.n_vocab);
}

static struct size size_of_host(const struct plan *p)
{
    const struct plan one = plan_replica(p, 0);
    const size_t dp = (size_t)p->dp;
    struct room room;
    room_measure(&room, &one, ISA_REF, false, false); /* the same for every instruction set */
    return (struct size){.weights = plan_weight_bytes(&one, PLAN_WHOLE),
                         .kv = dp * room.kv_bytes,
                         .scratch = dp * (room.bytes - room.kv_bytes),
                         .page = dp * page_bytes(&one, PLAN_WHOLE)};
}

struct size size_of(const struct plan *p, int rank)
{
    if (rank == PLAN_WHOLE)
        return size_of_host(p);
    return (struct size){.weights = plan_weight_bytes(p, rank),
                         .kv = plan_kv_bytes(p, rank),
                         .scratch = scratch_of(p, rank),
                         .page = page_bytes(p, rank)};
}

/* ------------------------------------------------------------------------------- many ranks */

static size_t layer_bytes(const struct plan *p, int slice, int layer)
{
    struct plan one = *p;
    one.pp = 1;
    one.stage[0] = (struct span){layer, layer + 1};
    return plan_weight_bytes(&one, slice);
}

/* When the layers of a slice are alike, three of them tell what a stage weighs: the first has the
 * embedding beside it, the last the head, and those between have neither. */
static void weigh_slice(const struct plan *p, int slice, struct weighed *to)
{
    int n = p->model.n_layer;
    bool few = n < 3 || !model_alike(&p->model);
    size_t layer = few ? 0 : layer_bytes(p, slice, 1);
    size_t first = few ? 0 : layer_bytes(p, slice, 0) - layer;
    size_t last = few ? 0 : layer_bytes(p, slice, n - 1) - layer;
    for (int r = slice; r < plan_ranks(p); r += p->tp) {
        struct span l = p->stage[plan_stage(p, r)];
        to->page[r] = page_bytes(p, r);
        to->weights[r] = layer * (size_t)len(l) + (l.lo == 0 ? first : 0) + (l.hi == n ? last : 0);
        if (few)
            to->weights[r] = plan_weight_bytes(p, r);
    }
}

void size_weigh(const struct plan *p, struct weighed *to)
{
    for (int t = 0; t < p->tp; t++)
        weigh_slice(p, t, to);
}

/* Count one memory that holds s into the tightest so far. */
static void tighten(struct fit *f, int rank, const struct size *s, bool begin)
{
    double spare = f->have - (double)size_all(s);
    double pages = (f->have - (double)s->weights - (double)s->scratch) / (double)s->page;
    int64_t tok = pages < 1 ? 0 : (int64_t)pages * KV_PAGE;
    if (begin || spare < f->spare)
        f->rank = rank, f->size = *s, f->spare = spare;
    if (begin || tok < f->kv_tok)
        f->kv_tok = tok;
}

static double usable(const struct hardware *h)
{
    return h->memory_bytes.value - h->reserve_bytes.value;
}

struct fit size_fit_weighed(const struct plan *p, const struct hardware *h, const struct weighed *w)
{
    struct fit f = {.have = usable(h)};
    if (h->kind == DEVICE_CPU) {
        struct size s = size_of_host(p);
        tighten(&f, PLAN_WHOLE, &s, true);
        return f;
    }
    for (int r = 0; r < plan_ranks(p); r++) {
        struct size s = {w->weights[r], w->page[r] * (size_t)p->pages, scratch_of(p, r),
                         w->page[r]};
        tighten(&f, r, &s, r == 0);
    }
    return f;
}

struct fit size_fit(const struct plan *p, const struct hardware *h)
{
    struct weighed w;
    size_weigh(p, &w);
    return size_fit_weighed(p, h, &w);
}

bool size_fill_weighed(struct plan *p, const struct hardware *h, const struct weighed *w)
{
    int64_t sequence = ((int64_t)p->ctx + KV_PAGE - 1) / KV_PAGE, most = sequence * p->max_seq;
    struct plan q = *p;
    q.pages = (int)sequence;
    int64_t fits = size_fit_weighed(&q, h, w).kv_tok / KV_PAGE;
    if (fits < sequence)
        return false;
    most = most < 1 << 26 ? most : 1 << 26;
    p->pages = (int)(fits < most ? fits : most);
    return true;
}

bool size_fill(struct plan *p, const struct hardware *h)
{
    struct weighed w;
    size_weigh(p, &w);
    return size_fill_weighed(p, h, &w);
}

int size_devices(const struct plan *like, const struct hardware *h, int64_t kv_tok, struct fit *of)
{
    const int together = min_int(h->n_level ? h->level[0].size : 1, SHARES_MAX);
    for (int n = 1; n <= PLAN_RANKS; n++)
        for (int tp = together; tp >= 1; tp--) {
            struct plan p;
            struct err ignored;
            struct plan_ask ask = plan_like(like);
            ask.tp = tp, ask.pp = n / tp, ask.shares = 0;
            if (n % tp || plan_make(&p, &like->model, &ask, &ignored))
                continue;
            p.pages = (int)((kv_tok + KV_PAGE - 1) / KV_PAGE);
            *of = size_fit(&p, h);
            if (of->spare >= 0)
                return n;
        }
    return 0;
}
