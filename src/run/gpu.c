/* gpu.c - what ranks take of GPUs, and how they form groups there. See gpu.h. */
#include "run/gpu_inside.h"

struct gpu_ask gpu_ask_for(const struct plan *p, int rank, const struct gpus *g)
{
    const struct model *m = &p->model;
    const struct experts *x = &m->experts;
    return (struct gpu_ask){.gpu = gpus_index(g, rank),
                            .max_tok = p->max_tok,
                            .max_seq = p->max_seq,
                            .max_out = p->max_out,
                            .ctx = p->ctx,
                            .max_dim = rank_max_dim(p),
                            .words = m->n_vocab,
                            .draws = rank_draws(p, rank),
                            .slices = gpu_draws_slices(p, rank, g),
                            .heads = len(plan_share(p, rank, HEADS)),
                            .head_dim = m->head_dim,
                            .fast = gpu_fast_products(p),
                            .experts = model_experts(m),
                            .top = x->n ? x->top + (x->shared_ff > 0) : 0,
                            .expert_columns = max_int(len(plan_share(p, rank, EXPERT_COLUMNS)),
                                                      len(plan_share(p, rank, SHARED_COLUMNS)))};
}

bool gpu_fast_products(const struct plan *p) { return plan_fast(p) && p->weight == NUM_BF16; }

size_t gpu_plain_bytes(const struct plan *p, int rank)
{
    struct arena data = {0};
    if (gpu_fast_products(p))
        weights_plain(NULL, p, rank, &data, NULL, NULL);
    return data.used;
}

void gpu_lay_out(struct rank *r, const struct plan *p, int id, struct arena *host,
                 struct arena *dev, struct arena *peer)
{
    rank_lay_out(r, p, id, host, dev, peer);
    rank_lay_out_apart(r, dev, peer);
    turns_lay_out_unseen(&r->turns, p, id, dev);
}

/* ------------------------------------------------------------------------------- groups */

bool gpu_one_each(const struct plan *p, const struct gpus *g) { return plan_ranks(p) <= g->n; }

enum group_kind gpu_sends_by(const struct plan *p, const struct gpus *g)
{
    return gpus_reach(g, plan_ranks(p)) ? GROUP_PEER : GROUP_NCCL;
}

enum group_kind gpu_adds_by(const struct plan *p, const struct gpus *g)
{
    const bool fast = plan_fast(p) && gpu_one_each(p, g);
    return gpus_reach(g, plan_ranks(p)) && !fast ? GROUP_PEER : GROUP_NCCL;
}

unsigned gpu_libraries(const struct plan *p, const struct gpus *g)
{
    const bool nccl = (p->tp > 1 && gpu_adds_by(p, g) == GROUP_NCCL) ||
                      (p->pp > 1 && gpu_sends_by(p, g) == GROUP_NCCL);
    return (nccl ? LIBRARY_NCCL : 0u) | (gpu_fast_products(p) ? LIBRARY_BLAS : 0u);
}

static size_t outbox_bytes(const struct plan *p)
{
    return p->pp > 1 ? (size_t)p->max_tok * (size_t)p->model.n_embd * sizeof(float) : 0;
}

bool gpu_draws_slices(const struct plan *p, int rank, const struct gpus *g)
{
    return p->tp > 1 && plan_stage(p, rank) == p->pp - 1 && gpu_adds_by(p, g) == GROUP_PEER &&
           p->model.n_vocab <= GROUP_DRAW_WORDS;
}

struct group_ask gpu_slices(const struct plan *p, int rank, const struct gpus *g)
{
    struct group_ask ask = {.kind = gpu_adds_by(p, g),
                            .fast = plan_fast(p),
                            .rank = plan_slice(p, rank),
                            .size = p->tp,
                            .cut = p->cut,
                            .rows = p->max_tok,
                            .dim = p->model.n_embd,
                            .joined = p->model.n_vocab,
                            .draw_rows = gpu_draws_slices(p, rank, g) ? p->max_out : 0};
    for (int i = 0; i < p->tp; i++)
        ask.first_word[i + 1] = plan_share(p, i, WORDS).hi;
    return ask;
}

struct group_ask gpu_stages(const struct plan *p, const struct gpus *g)
{
    return (struct group_ask){
        .kind = gpu_sends_by(p, g), .size = p->pp, .outbox_bytes = outbox_bytes(p)};
}

size_t gpu_slices_bytes(const struct plan *p, int rank, const struct gpus *g)
{
    const struct group_ask ask = gpu_slices(p, rank, g);
    return p->tp > 1 ? g->plugin->group_bytes(&ask) : 0;
}

size_t gpu_stages_bytes(const struct plan *p, const struct gpus *g)
{
    const struct group_ask ask = gpu_stages(p, g);
    return p->pp > 1 ? g->plugin->group_bytes(&ask) : 0;
}

/* ------------------------------------------------------------------------------- memory */

void gpu_kept_bytes(const struct plan *p, int rank, const struct gpus *g, size_t to[KEPT_PARTS])
{
    struct rank r;
    struct arena host = {0}, dev = {0}, peer = {0};
    gpu_lay_out(&r, p, rank, &host, &dev, &peer);
    to[KEPT_WEIGHTS] = plan_weight_bytes(p, rank);
    to[KEPT_CACHE] = plan_kv_bytes(p, rank);
    to[KEPT_SLICES] = gpu_slices_bytes(p, rank, g) + peer.used;
    to[KEPT_STAGES] = gpu_stages_bytes(p, g);
}

/* What other ranks map, when it is not kept, are whole blocks of cudaMalloc()'s: with a part of one
 * they would get all that stands beside it, and no promise where theirs begins. */
size_t gpu_apart(enum gpu_kept_part part, size_t bytes)
{
    enum { BLOCK = 2 << 20 };
    return part == KEPT_SLICES || part == KEPT_STAGES ? round_up(bytes, BLOCK) : bytes;
}

/* All of it, in units of the GPU's. */
static size_t kept_bytes(const size_t part[KEPT_PARTS], const struct gpu *g)
{
    size_t sum = 0;
    for (int i = 0; i < KEPT_PARTS; i++)
        sum += g->unit ? round_up(part[i], g->unit) : gpu_apart((enum gpu_kept_part)i, part[i]);
    return sum;
}

struct gpu_need gpu_need(const struct plan *p, int rank, const struct gpus *g)
{
    struct rank r;
    struct arena host = {0}, dev = {0}, peer = {0};
    size_t part[KEPT_PARTS];
    const struct gpu *on = gpu_of(g, rank);
    const struct gpu_ask ask = gpu_ask_for(p, rank, g);
    gpu_lay_out(&r, p, rank, &host, &dev, &peer);
    gpu_kept_bytes(p, rank, g, part);
    const size_t weights = part[KEPT_WEIGHTS], kv = part[KEPT_CACHE];
    return (struct gpu_need){.weights = weights,
                             .kv = kv,
                             .scratch = kept_bytes(part, on) - weights - kv + dev.used +
                                        gpu_plain_bytes(p, rank) +
                                        g->plugin->scratch_bytes(&ask, on)};
}

struct gpu_need gpu_need_of(const struct plan *p, const struct gpus *g, int gpu)
{
    struct gpu_need all = {0};
    for (int r = 0; r < p->dp * plan_ranks(p); r++) {
        if (gpus_index(g, r) != gpu)
            continue;
        struct gpu_need one = gpu_need(p, r % plan_ranks(p), g);
        all.weights += one.weights, all.kv += one.kv;
        all.scratch += one.scratch + GPU_RESERVE;
    }
    return all;
}

int gpu_pages(const struct plan *p, const struct gpus *g)
{
    size_t pages = INT32_MAX;
    for (int i = 0; i < g->n; i++) {
        struct gpu_need need = gpu_need_of(p, g, i);
        size_t rest = need.weights + need.scratch + (size_t)p->dp * plan_ranks(p) * g->gpu[i].unit;
        size_t have = g->gpu[i].memory_free;
        if (need.kv)
            pages = min_size(pages, have > rest ? (have - rest) / (need.kv / (size_t)p->pages) : 0);
    }
    return (int)pages;
}
