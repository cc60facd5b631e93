/* make.c - a plan from a few wishes: shares even, stages equal by bytes. See plan_make(). */
#include "dev/dev.h"
#include "plan/place.h"

/* Runs of columns as long as 32 (whole SIMD registers and quantisation groups), but at least four
 * runs a share, so that small models can be cut too. Of fp8 as long as the blocks that files have
 * scales for, unless there are but few. */
static int choose_ff_unit(const struct model *m, enum num weight, int shares)
{
    const struct experts *x = &m->experts;
    int unit = 32, least = m->n_ff;
    if (x->n)
        least = min_int(least, x->shared_ff ? min_int(x->ff, x->shared_ff) : x->ff);
    if (weight == NUM_FP8 && least >= 4 * num_quant(weight).group)
        return num_quant(weight).group;
    while (unit > 1 && least / unit < 4 * shares)
        unit /= 2;
    return unit;
}

/* Slice i of tp begins where the fewest shares give it its part of the heads. */
static void cut_evenly(struct plan *p)
{
    int n = min_int(p->shares, p->model.n_head);
    for (int i = 0; i <= p->tp; i++) {
        int unit = i * n / p->tp;
        p->cut[i] = (unit * p->shares + n - 1) / n;
    }
}

/* Bytes of weights of layers [lo, hi) as a stage of their own. */
static size_t stage_bytes(const struct plan *p, int lo, int hi)
{
    struct plan one = *p;
    one.pp = 1, one.tp = 1, one.ep = 1;
    one.cut[0] = 0, one.cut[1] = p->shares;
    one.stage[0] = (struct span){lo, hi};
    return plan_weight_bytes(&one, 0);
}

/* The most bytes of a stage when stages are filled greedily up to `room`; false if pp do not do. */
static bool fill_stages(struct plan *p, const size_t *layer, size_t first, size_t last, size_t room)
{
    int L = p->model.n_layer, at = 0;
    for (int i = 0; i < p->pp; i++) {
        int lo = at, must_leave = p->pp - 1 - i;
        size_t bytes = i == 0 ? first : 0;
        if (i == p->pp - 1)
            bytes += last;
        while (at < L - must_leave && (at == lo || bytes + layer[at] <= room))
            bytes += layer[at++];
        p->stage[i] = (struct span){lo, at};
        if (bytes > room)
            return false;
    }
    return at == L;
}

static bool same(const struct plan *p, int a, int b)
{
    return model_sparse(&p->model, a) == model_sparse(&p->model, b);
}

/* Bytes of a layer like this one that is neither first nor last; of any, when there is none. */
static size_t middle_bytes(const struct plan *p, int layer)
{
    for (int l = 1; l < p->model.n_layer - 1; l++)
        if (same(p, l, layer))
            return stage_bytes(p, l, l + 1);
    return stage_bytes(p, 1, 2);
}

/* The cut that makes the largest stage smallest, by bisection over its size. */
static void cut_stages(struct plan *p)
{
    int L = p->model.n_layer;
    size_t layer[MODEL_LAYERS], all = stage_bytes(p, 0, L), lo = 0, hi = 2 * all, sum = 0;
    /* layer 0 alone is a first stage, the last alone a last one; the middle ones are neither */
    for (int l = 0; l < L; l++)
        layer[l] = L <= 2 ? all : l && same(p, l, l - 1) ? layer[l - 1] : middle_bytes(p, l);
    for (int l = 0; l < L; l++)
        sum += layer[l];
    size_t first = L > 2 ? stage_bytes(p, 0, 1) - layer[0] : 0; /* modulo 2^64, as are the sums */
    size_t last = L > 2 ? stage_bytes(p, L - 1, L) - layer[L - 1] : 0;
    must(sum > 0);
    while (lo + 1 < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (fill_stages(p, layer, first, last, mid))
            hi = mid;
        else
            lo = mid;
    }
    fill_stages(p, layer, first, last, hi);
}

static void set_limits(struct plan *p, const struct plan_ask *ask)
{
    p->ctx = ask->ctx ? ask->ctx : min_int(p->model.n_ctx, 8192);
    p->max_tok = ask->max_tok ? ask->max_tok : 512;
    p->max_seq = min_int(ask->max_seq ? ask->max_seq : 1, p->max_tok);
    p->max_out = min_int(max_int(ask->max_out, p->max_seq), p->max_tok);
    int64_t sequence = ((int64_t)p->ctx + KV_PAGE - 1) / KV_PAGE, pages = sequence * p->max_seq;
    if (ask->kv_bytes) {
        p->pages = 1;
        int64_t room = (int64_t)(ask->kv_bytes / (size_t)p->dp / plan_kv_bytes(p, PLAN_WHOLE));
        pages = room < pages ? room : pages;
    }
    p->pages = (int)pages;
}

/* A user who asks for stages or threads has a layout in mind: then there is one slice unless said,
 * or with experts shared out one for each run. */
static void choose_ranks(struct plan *p, const struct plan_ask *ask)
{
    p->tp = ask->tp ? ask->tp : p->ep;
    p->threads = ask->threads ? ask->threads : 1;
    if (!ask->host)
        return;
    const struct host host = host_part(ask->host, ask->quota ? ask->quota : HOST_CORES);
    if (!ask->tp && !ask->threads && p->pp == 1 && p->ep == 1)
        p->tp = place_slices(&p->model, ask->shares ? ask->shares : 8, p->dp, &host);
    if (!ask->threads)
        p->threads = place_threads(&host, p->dp * p->pp * p->tp);
}

int plan_make(struct plan *p, const struct model *m, const struct plan_ask *ask, struct err *e)
{
    memset(p, 0, sizeof(*p)); /* padding too: plans are compared */
    p->model = *m;
    p->pp = ask->pp ? ask->pp : 1;
    p->dp = ask->dp ? ask->dp : 1;
    p->ep = ask->ep ? ask->ep : 1;
    p->slots = ask->slots;
    p->sp = ask->sp;
    choose_ranks(p, ask);
    p->shares = ask->shares ? ask->shares : p->tp <= 8 ? 8 : p->tp <= 16 ? 16 : 32;
    p->weight = ask->weight;
    p->kv = ask->kv;
    snprintf(p->numerics, sizeof(p->numerics), "%s", ask->numerics);
    set_limits(p, ask);
    if (p->tp < 1 || p->tp > SHARES_MAX || p->pp < 1 || p->pp > PLAN_STAGES)
        return err_set(e, -EINVAL, "plan: tp=%d must be 1 to %d and pp=%d 1 to %d", p->tp,
                       SHARES_MAX, p->pp, PLAN_STAGES);
    if (p->tp > m->n_head)
        return err_set(e, -EINVAL, "plan: tp=%d exceeds the %d attention heads of the model", p->tp,
                       m->n_head);
    if (p->pp > m->n_layer)
        return err_set(e, -EINVAL, "plan: pp=%d exceeds the %d layers of the model", p->pp,
                       m->n_layer);
    if (p->shares != 8 && p->shares != 16 && p->shares != 32)
        return err_set(e, -EINVAL, "plan: shares=%d, but sums are cut in 8, 16 or 32", p->shares);
    p->ff_unit = choose_ff_unit(m, p->weight, p->shares);
    cut_evenly(p);
    cut_stages(p);
    place_ranks(p, ask->host);
    return plan_check(p, e);
}

struct plan_ask plan_like(const struct plan *p)
{
    return (struct plan_ask){.shares = p->shares,
                             .ctx = p->ctx,
                             .max_tok = p->max_tok,
                             .max_seq = p->max_seq,
                             .weight = p->weight,
                             .kv = p->kv,
                             .numerics = p->numerics};
}
