/* gpu.c - see gpu.h. */
#include "run/gpu.h"
#include "model/rope.h"

static const struct gpu *gpu_of(const struct gpus *g, int rank)
{
    return &g->gpu[gpus_index(g, rank)];
}

static struct gpu_ask ask_for(const struct plan *p, int rank, const struct gpus *g)
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
                            .heads = len(plan_share(p, rank, HEADS)),
                            .head_dim = m->head_dim,
                            .fast = plan_fast(p) && p->weight == NUM_BF16,
                            .experts = model_experts(m),
                            .top = x->n ? x->top + (x->shared_ff > 0) : 0,
                            .expert_columns = max_int(len(plan_share(p, rank, EXPERT_COLUMNS)),
                                                      len(plan_share(p, rank, SHARED_COLUMNS)))};
}

/* Whether products of many rows are cuBLASLt's. */
static bool fast_products(const struct plan *p) { return plan_fast(p) && p->weight == NUM_BF16; }

/* Weights that cuBLASLt reads, beside the packed ones. */
static size_t plain_bytes(const struct plan *p, int rank)
{
    struct arena data = {0};
    if (fast_products(p))
        weights_plain(NULL, p, rank, &data, NULL, NULL);
    return data.used;
}

/* The rank's arenas, to be laid out in the same order as here. */
static void lay_out(struct rank *r, const struct plan *p, int id, struct arena *host,
                    struct arena *dev, struct arena *peer)
{
    rank_lay_out(r, p, id, host, dev, peer);
    rank_lay_out_rotations(r, dev);
    turns_lay_out_unseen(&r->turns, p, id, dev);
}

/* ------------------------------------------------------------------------------- groups */

static bool one_each(const struct plan *p, const struct gpus *g) { return plan_ranks(p) <= g->n; }

enum group_kind gpu_sends_by(const struct plan *p, const struct gpus *g)
{
    return gpus_reach(g, plan_ranks(p)) ? GROUP_PEER : GROUP_NCCL;
}

enum group_kind gpu_adds_by(const struct plan *p, const struct gpus *g)
{
    const bool fast = plan_fast(p) && one_each(p, g);
    return gpus_reach(g, plan_ranks(p)) && !fast ? GROUP_PEER : GROUP_NCCL;
}

unsigned gpu_libraries(const struct plan *p, const struct gpus *g)
{
    const bool nccl = (p->tp > 1 && gpu_adds_by(p, g) == GROUP_NCCL) ||
                      (p->pp > 1 && gpu_sends_by(p, g) == GROUP_NCCL);
    return (nccl ? LIBRARY_NCCL : 0u) | (fast_products(p) ? LIBRARY_BLAS : 0u);
}

static size_t outbox_bytes(const struct plan *p)
{
    return p->pp > 1 ? (size_t)p->max_tok * (size_t)p->model.n_embd * sizeof(float) : 0;
}

/* What a rank's groups are for; where their memory is and who the rank is comes later. */
static struct group_ask slices_of(const struct plan *p, const struct gpus *g)
{
    return (struct group_ask){.kind = gpu_adds_by(p, g),
                              .fast = plan_fast(p),
                              .size = p->tp,
                              .cut = p->cut,
                              .rows = p->max_tok,
                              .dim = p->model.n_embd,
                              .joined = p->model.n_vocab};
}

static struct group_ask stages_of(const struct plan *p, const struct gpus *g)
{
    return (struct group_ask){
        .kind = gpu_sends_by(p, g), .size = p->pp, .outbox_bytes = outbox_bytes(p)};
}

/* What a rank's groups take before its peer arena, and for messages between stages. */
static size_t tp_bytes(const struct plan *p, const struct gpus *g)
{
    const struct group_ask ask = slices_of(p, g);
    return p->tp > 1 ? g->plugin->group_bytes(&ask) : 0;
}

static size_t pp_bytes(const struct plan *p, const struct gpus *g)
{
    const struct group_ask ask = stages_of(p, g);
    return p->pp > 1 ? g->plugin->group_bytes(&ask) : 0;
}

/* ------------------------------------------------------------------------------- memory */

void gpu_kept_bytes(const struct plan *p, int rank, const struct gpus *g, size_t to[KEPT_PARTS])
{
    struct rank r;
    struct arena host = {0}, dev = {0}, peer = {0};
    lay_out(&r, p, rank, &host, &dev, &peer);
    to[KEPT_WEIGHTS] = plan_weight_bytes(p, rank);
    to[KEPT_CACHE] = plan_kv_bytes(p, rank);
    to[KEPT_SLICES] = tp_bytes(p, g) + peer.used;
    to[KEPT_STAGES] = pp_bytes(p, g);
}

/* What other ranks map, when it is not kept, are whole blocks of cudaMalloc()'s: with a part of one
 * they would get all that stands beside it, and no promise where theirs begins. */
static size_t apart(enum gpu_kept_part part, size_t bytes)
{
    enum { BLOCK = 2 << 20 };
    return part == KEPT_SLICES || part == KEPT_STAGES ? round_up(bytes, BLOCK) : bytes;
}

/* All of it, in units of the GPU's. */
static size_t kept_bytes(const size_t part[KEPT_PARTS], const struct gpu *g)
{
    size_t sum = 0;
    for (int i = 0; i < KEPT_PARTS; i++)
        sum += g->unit ? round_up(part[i], g->unit) : apart((enum gpu_kept_part)i, part[i]);
    return sum;
}

struct gpu_need gpu_need(const struct plan *p, int rank, const struct gpus *g)
{
    struct rank r;
    struct arena host = {0}, dev = {0}, peer = {0};
    size_t part[KEPT_PARTS];
    const struct gpu *on = gpu_of(g, rank);
    const struct gpu_ask ask = ask_for(p, rank, g);
    lay_out(&r, p, rank, &host, &dev, &peer);
    gpu_kept_bytes(p, rank, g, part);
    const size_t weights = part[KEPT_WEIGHTS], kv = part[KEPT_CACHE];
    return (struct gpu_need){.weights = weights,
                             .kv = kv,
                             .scratch = kept_bytes(part, on) - weights - kv + dev.used +
                                        plain_bytes(p, rank) + g->plugin->scratch_bytes(&ask, on)};
}

/* What all ranks on a GPU need of it, reserves included. */
static struct gpu_need need_of(const struct plan *p, const struct gpus *g, int gpu)
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
        struct gpu_need need = need_of(p, g, i);
        size_t rest = need.weights + need.scratch + (size_t)p->dp * plan_ranks(p) * g->gpu[i].unit;
        size_t have = g->gpu[i].memory_free;
        if (need.kv)
            pages = min_size(pages, have > rest ? (have - rest) / (need.kv / (size_t)p->pages) : 0);
    }
    return (int)pages;
}

/* ------------------------------------------------------------------------------- checks */

static bool fits(const struct plan *p, const struct gpus *g) { return gpu_pages(p, g) >= p->pages; }

/* What to change so that it fits: the cache, then the weights' format, then who else uses the GPU,
 * or the model. */
static void advise(const struct plan *p, const struct gpus *g, int gpu, size_t want, char *to,
                   size_t n)
{
    const size_t all = g->gpu[gpu].memory, free = min_size(g->gpu[gpu].memory_free, all);
    static const enum num smaller[] = {NUM_BF16, NUM_INT8, NUM_INT4};
    int pages = gpu_pages(p, g);
    if (fast_products(p)) {
        snprintf(to, n, "; without --fast %.0f MiB less, for it keeps weights a second time",
                 (double)plain_bytes(p, 0) / (1 << 20));
        return;
    }
    snprintf(to, n, "; take a smaller model");
    if (want <= all)
        snprintf(to, n,
                 "; others use %.0f MiB of it: nvidia-smi shows who, CUDA_VISIBLE_DEVICES chooses "
                 "another GPU",
                 (double)(all - free) / (1 << 20));
    if ((int64_t)pages * KV_PAGE >= 256) {
        snprintf(to, n, "; %d tokens of cache would fit: --ctx %d, or fewer --max-seqs",
                 pages * KV_PAGE, min_int(pages * KV_PAGE, p->ctx));
        return;
    }
    for (size_t i = 0; i < COUNT(smaller); i++) {
        struct plan other = *p;
        other.weight = smaller[i];
        if (plan_weight_bytes(&other, 0) < plan_weight_bytes(p, 0) && fits(&other, g)) {
            snprintf(to, n, "; --dtype %s would fit", num_name(smaller[i]));
            return;
        }
    }
}

static int check_memory(const struct plan *p, const struct gpus *g, int gpu, struct err *e)
{
    const double mib = 1 << 20;
    const struct gpu_need need = need_of(p, g, gpu);
    const size_t want = need.weights + need.kv + need.scratch, have = g->gpu[gpu].memory_free;
    char advice[160];
    if (want <= have)
        return 0;
    advise(p, g, gpu, want, advice, sizeof(advice));
    return err_set(
        e, -ENOMEM,
        "GPU %d (%s) has %.0f MiB free, but %.0f are needed, %.0f more (weights %.0f, KV "
        "cache %.0f, scratch and CUDA %.0f)%s",
        gpu, g->gpu[gpu].name, (double)have / mib, (double)want / mib, (double)(want - have) / mib,
        (double)need.weights / mib, (double)need.kv / mib, (double)need.scratch / mib, advice);
}

static int check_kinds(const struct plan *p, const struct gpus *g, struct err *e)
{
    const struct gpu *first = gpu_of(g, 0);
    for (int r = 1; r < p->dp * plan_ranks(p); r++) {
        const struct gpu *other = gpu_of(g, r);
        if (other->arch != first->arch)
            return err_set(e, -EINVAL,
                           "the GPUs differ (%s is sm_%d, %s is sm_%d), and so would the bits of "
                           "their answers: choose like ones by CUDA_VISIBLE_DEVICES",
                           first->name, first->arch, other->name, other->arch);
    }
    return 0;
}

/* NCCL takes a GPU for one rank only. */
static int check_groups(const struct plan *p, const struct gpus *g, struct err *e)
{
    if (plan_dispatches(p) && gpu_adds_by(p, g) == GROUP_NCCL)
        return err_set(e, -ENOTSUP,
                       "ep=%d with sp: rows travel to experts between GPUs that read each other's "
                       "memory, not by NCCL: leave out --sp%s",
                       p->ep, plan_fast(p) ? " or --fast" : "");
    if (!(gpu_libraries(p, g) & LIBRARY_NCCL) || one_each(p, g))
        return 0;
    return err_set(e, -ENOTSUP,
                   "%d ranks want a GPU each, for these GPUs cannot read each other's memory, but "
                   "there are %d: choose a smaller --tp or --pp",
                   plan_ranks(p), g->n);
}

int gpu_check(const struct plan *p, const struct gpus *g, struct err *e)
{
    int rc = check_kinds(p, g, e);
    if (!rc)
        rc = check_groups(p, g, e);
    for (int i = 0; !rc && i < g->n; i++)
        rc = check_memory(p, g, i, e);
    return rc;
}

/* ------------------------------------------------------------------------------- setting up */

struct copy {
    char *to;
    const char *from;
    size_t bytes;
};

/* What goes to the GPU, and where there it may go. */
struct upload {
    const struct gpu_start *start;
    const struct gpu_kept *kept; /* the rank's; NULL: nothing is kept */
    struct dev *d;
    struct err *e;
    int rc;
    struct pool pool;
    struct copy *copy;
    size_t n, room, bytes;
    _Atomic size_t next;
    _Atomic int failed;
};

static bool is_there(const struct upload *u) { return u->kept && atomic_load(u->start->complete); }

static void upload(struct upload *u, void *to, const void *from, size_t bytes)
{
    if (!u->rc)
        u->rc = u->start->gpus->plugin->load(u->d, 0, to, from, bytes, u->e);
}

/* Memory for an arena of so many bytes, zeroed. */
static int get_arena(struct upload *u, size_t bytes, struct arena *to)
{
    to->used = 0, to->size = bytes;
    if (!u->rc)
        u->rc = u->start->gpus->plugin->memory(u->d, bytes, &to->base, u->e);
    return u->rc;
}

/* The same, where it outlives the rank if anything does; weights and cache are as they were left
 * when they are there. */
static int get_kept(struct upload *u, enum gpu_kept_part part, size_t bytes, struct arena *to)
{
    const bool zero = !is_there(u) || (part != KEPT_WEIGHTS && part != KEPT_CACHE);
    if (!u->kept || u->kept->fd[part] < 0)
        return get_arena(u, apart(part, bytes), to);
    to->used = 0, to->size = bytes;
    if (!u->rc)
        u->rc = u->start->gpus->plugin->kept(u->d, u->kept->fd[part], bytes, zero, &to->base, u->e);
    return u->rc;
}

/* In pieces, so that threads end at about the same time. */
static void add_copy(void *arg, void *to, const void *from, size_t bytes)
{
    enum { MOST = 32 << 20 };
    struct upload *u = arg;
    for (size_t at = 0; at < bytes; at += MOST) {
        if (u->n == u->room) {
            struct copy *old = u->copy;
            u->room = u->room ? 2 * u->room : 1024;
            u->copy = pool_get(&u->pool, u->room * sizeof(*u->copy));
            if (old)
                memcpy(u->copy, old, u->n * sizeof(*old));
        }
        u->copy[u->n++] =
            (struct copy){(char *)to + at, (const char *)from + at, min_size(MOST, bytes - at)};
    }
    u->bytes += bytes;
}

/* One thread reads memory slower than a GPU takes it. */
static void copy_some(void *arg, int thread, int n)
{
    struct upload *u = arg;
    (void)n;
    if (thread >= LOAD_LANES)
        return;
    for (size_t i; !atomic_load(&u->failed) && (i = atomic_fetch_add(&u->next, 1)) < u->n;) {
        const struct copy *c = &u->copy[i];
        struct err e;
        int rc = u->start->gpus->plugin->load(u->d, thread, c->to, c->from, c->bytes, &e);
        if (rc && !atomic_exchange(&u->failed, 1))
            u->rc = rc, *u->e = e;
    }
}

static void load_weights(struct upload *u, struct rank *r, struct arena *host)
{
    struct arena data;
    if (get_kept(u, KEPT_WEIGHTS, plan_weight_bytes(r->plan, r->id), &data))
        return;
    weights_lay_out(&r->weights, r->plan, r->id, host, &data);
    must(data.used == data.size);
    if (is_there(u))
        return;
    weights_copies(&r->weights, u->start->whole, r->plan, r->id, add_copy, u);
    dev_together(u->start->host, copy_some, u);
    atomic_fetch_add(u->start->copied, u->rc ? 0 : u->bytes);
    pool_free(&u->pool);
}

static void fill_plain(void *arg, struct weight *w, bool columns, void *at)
{
    struct upload *u = arg;
    w->plain = at;
    if (!u->rc)
        u->rc = u->start->gpus->plugin->plain(u->d, w, columns, at, u->e);
}

/* Out of the weights that are there. */
static void load_plain(struct upload *u, struct rank *r)
{
    struct arena data;
    if (fast_products(r->plan) && !get_arena(u, plain_bytes(r->plan, r->id), &data))
        weights_plain(&r->weights, r->plan, r->id, &data, fill_plain, u);
}

/* The angles of all positions, a few rows at a time. */
static void load_rotations(struct upload *u, struct rank *r)
{
    enum { ROWS = 512 };
    const struct model *m = &r->plan->model;
    float *at = malloc((size_t)ROWS * (size_t)m->head_dim * sizeof(*at));
    int pos[ROWS];
    must(at);
    for (int k = 0; k < MODEL_KINDS; k++)
        for (int lo = 0; lo < r->rotation[k].n; lo += ROWS) {
            struct span rows = {lo, min_int(lo + ROWS, r->rotation[k].n)};
            struct mat there = mat_rows(&r->rotation[k], rows);
            struct mat here = {len(rows), m->head_dim, NUM_F32, at};
            for (int i = 0; i < len(rows); i++)
                pos[i] = lo + i;
            rope_angles(&here, &m->kind[k].rope, pos);
            upload(u, there.at, here.at, mat_bytes(&here));
        }
    free(at);
}

/* Every run computes the experts that it holds. */
static void load_holders(struct upload *u, struct rank *r)
{
    const struct experts *x = &r->plan->model.experts;
    if (!r->turns.held)
        return;
    const struct placement even = placement_even(x->n, r->plan->ep);
    for (int l = 0; l < r->plan->model.n_layer; l++)
        upload(u, r->turns.held + (size_t)l * (size_t)x->n, even.holders,
               (size_t)x->n * sizeof(*even.holders));
}

/* Of the rank's layers. */
static void watch_loads(struct upload *u, struct rank *r)
{
    const size_t row = (size_t)(r->plan->model.experts.n + 2) * sizeof(uint64_t);
    const void *at = NULL;
    if (r->turns.seen && !u->rc)
        u->rc = u->start->gpus->plugin->watch(u->d, turns_seen(&r->turns, r->layers.lo),
                                              (size_t)len(r->layers) * row, &at, u->e);
    r->turns.watched = at;
}

size_t gpu_tables(const struct plan *p, int rank)
{
    struct weights w;
    struct rank r;
    struct arena host = {0}, data = {0}, dev = {0}, peer = {0};
    lay_out(&r, p, rank, &host, &dev, &peer);
    weights_lay_out(&w, p, rank, &host, &data);
    return host.used;
}

/* The peer arena stands behind what the group keeps for itself. */
static void get_peer(struct upload *u, struct gpu_rank *to, const struct plan *p,
                     struct arena *peer)
{
    const size_t before = tp_bytes(p, to->gpus);
    struct arena all, pp;
    to->peer_bytes = peer->used;
    if (get_kept(u, KEPT_SLICES, before + peer->used, &all))
        return;
    *peer = (struct arena){.base = all.base + before, .size = to->peer_bytes};
    to->tp = p->tp > 1 ? all.base : NULL;
    if (p->pp > 1 && !get_kept(u, KEPT_STAGES, pp_bytes(p, to->gpus), &pp))
        to->pp = pp.base;
}

int gpu_rank_open(struct gpu_rank *to, struct rank *r, const struct plan *p, int id,
                  const struct gpu_start *start, struct arena *host, struct err *e)
{
    struct arena tables = {0}, dev = {0}, peer = {0}, cache;
    const struct gpus *g = start->gpus;
    struct gpu_ask ask = ask_for(p, id, g);
    *to = (struct gpu_rank){.gpus = g, .kept = start->kept};
    ask.profile = start->profile;
    ask.records = !start->profile;
    ask.warpgroups = gpu_of(g, id)->warpgroups;
    lay_out(r, p, id, &tables, &dev, &peer);
    struct upload u = {
        .start = start, .kept = start->kept ? &start->kept[id] : NULL, .d = &to->dev, .e = e};
    u.rc = g->plugin->open(u.d, &ask, e);
    get_peer(&u, to, p, &peer);
    if (get_arena(&u, dev.used, &dev))
        return u.rc;
    lay_out(r, p, id, host, &dev, &peer);
    load_weights(&u, r, host);
    load_plain(&u, r);
    if (get_kept(&u, KEPT_CACHE, plan_kv_bytes(p, id), &cache))
        return u.rc;
    rank_own_cache(r, cache.base);
    load_rotations(&u, r);
    load_holders(&u, r);
    watch_loads(&u, r);
    g->plugin->load_end(u.d);
    if (!u.rc && u.kept)
        atomic_store(start->complete, 1);
    return u.rc;
}

/* Descriptors of the ranks from `first`, every `stride`-th. */
static const int *kept_of(const struct gpu_rank *g, enum gpu_kept_part part, int first, int stride,
                          int n, int *fd)
{
    for (int i = 0; g->kept && i < n; i++)
        fd[i] = g->kept[first + i * stride].fd[part];
    return g->kept ? fd : NULL;
}

int gpu_rank_join(struct gpu_rank *g, const struct rank *r, void *tp_cards, void *pp_cards,
                  struct wait wait, struct comm *tp, struct comm *pp, struct err *e)
{
    const struct plan *p = r->plan;
    const int slice = plan_slice(p, r->id), stage = plan_stage(p, r->id);
    int slices_fd[SHARES_MAX], stages_fd[PLAN_STAGES];
    struct group_ask slices = slices_of(p, g->gpus), stages = stages_of(p, g->gpus);
    slices.rank = slice;
    slices.cards = tp_cards;
    slices.memory = g->tp;
    slices.peer_bytes = g->peer_bytes;
    slices.kept = kept_of(g, KEPT_SLICES, stage * p->tp, 1, p->tp, slices_fd);
    stages.rank = stage;
    stages.cards = pp_cards;
    stages.memory = g->pp;
    stages.kept = kept_of(g, KEPT_STAGES, slice, p->tp, p->pp, stages_fd);
    slices.wait = stages.wait = wait;
    *tp = *pp = (struct comm){.ops = &comm_self, .size = 1};
    int rc = g->tp ? g->gpus->plugin->group(&g->dev, tp, &slices, e) : 0;
    return rc || !g->pp ? rc : g->gpus->plugin->group(&g->dev, pp, &stages, e);
}
