/* size.c - see size.h. */
#include "predict/size.h"
#include "dev/dev.h"
#include "run/room.h"

/* Scratch of the kernels that this kind of bits is computed with; GPUs will bring their own. */
static enum isa scratch_isa(const struct plan *p)
{
    return strcmp(p->numerics, "bf16-dot") ? ISA_AVX2 : ISA_AVX512_BF16;
}

static size_t page_bytes(struct plan p, int rank)
{
    p.pages = 1;
    return plan_kv_bytes(&p, rank);
}

struct size size_of(const struct plan *p, int rank)
{
    const struct plan one = plan_replica(p, 0);
    struct room room;
    room_measure(&room, &one, scratch_isa(p), false);
    size_t times = rank == PLAN_WHOLE ? (size_t)p->dp : 1;
    return (struct size){
        .weights = plan_weight_bytes(&one, rank),
        .kv = times * plan_kv_bytes(&one, rank),
        .scratch =
            rank == PLAN_WHOLE ? times * (room.bytes - room.kv_bytes) : room.rank_bytes[rank],
        .page = times * page_bytes(one, rank),
    };
}

/* ------------------------------------------------------------------------------- many ranks */

/* Layers of a slice are alike, so three of them tell what a stage weighs: the first has the
 * embedding beside it, the last the head, and those between have neither. */
struct slice {
    size_t first, layer, last;
};

static size_t layer_bytes(struct plan p, int slice, int layer)
{
    p.pp = 1;
    p.stage[0] = (struct span){layer, layer + 1};
    return plan_weight_bytes(&p, slice);
}

static size_t stage_bytes(const struct plan *p, int rank, const struct slice *s)
{
    struct span l = p->stage[plan_stage(p, rank)];
    int n = p->model.n_layer;
    if (n < 3)
        return plan_weight_bytes(p, rank);
    return s->layer * (size_t)len(l) + (l.lo == 0 ? s->first - s->layer : 0) +
           (l.hi == n ? s->last - s->layer : 0);
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

struct fit size_fit(const struct plan *p, const struct hardware *h)
{
    const struct plan one = plan_replica(p, 0);
    const int n = p->model.n_layer;
    struct fit f = {.have = usable(h)};
    struct room room;
    if (h->kind == DEVICE_CPU) {
        struct size s = size_of(p, PLAN_WHOLE);
        tighten(&f, PLAN_WHOLE, &s, true);
        return f;
    }
    room_measure(&room, &one, scratch_isa(p), false);
    for (int t = 0; t < p->tp; t++) {
        struct slice slice = {0};
        if (n >= 3)
            slice = (struct slice){layer_bytes(one, t, 0), layer_bytes(one, t, 1),
                                   layer_bytes(one, t, n - 1)};
        for (int r = t; r < plan_ranks(p); r += p->tp) {
            struct size s = {stage_bytes(&one, r, &slice), plan_kv_bytes(&one, r),
                             room.rank_bytes[r], page_bytes(one, r)};
            tighten(&f, r, &s, r == 0);
        }
    }
    return f;
}

bool size_fill(struct plan *p, const struct hardware *h)
{
    int64_t sequence = ((int64_t)p->ctx + KV_PAGE - 1) / KV_PAGE, most = sequence * p->max_seq;
    struct plan q = *p;
    q.pages = (int)sequence;
    int64_t fits = size_fit(&q, h).kv_tok / KV_PAGE;
    if (fits < sequence)
        return false;
    most = most < 1 << 26 ? most : 1 << 26;
    p->pages = (int)(fits < most ? fits : most);
    return true;
}

int size_devices(const struct plan *like, const struct hardware *h, int64_t kv_tok, struct fit *of)
{
    const int together = min_int(h->n_level ? h->level[0].size : 1, SHARES_MAX);
    for (int n = 1; n <= PLAN_RANKS; n++)
        for (int tp = together; tp >= 1; tp--) {
            struct plan p;
            struct err ignored;
            struct plan_ask ask = {.tp = tp,
                                   .pp = n / tp,
                                   .ctx = like->ctx,
                                   .max_tok = like->max_tok,
                                   .max_seq = like->max_seq,
                                   .weight = like->weight,
                                   .kv = like->kv,
                                   .numerics = like->numerics};
            if (n % tp || plan_make(&p, &like->model, &ask, &ignored))
                continue;
            p.pages = (int)((kv_tok + KV_PAGE - 1) / KV_PAGE);
            *of = size_fit(&p, h);
            if (of->spare >= 0)
                return n;
        }
    return 0;
}
