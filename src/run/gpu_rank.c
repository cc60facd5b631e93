/* gpu_rank.c - a rank on its GPU: opened, laid out, its weights copied there, its groups joined.
 * See gpu.h. */
#include "model/rope.h"
#include "run/gpu_inside.h"

/* What goes to the GPU, and where there it may go. */
struct upload {
    const struct gpu_start *start;
    const struct gpu_kept *kept; /* the rank's; NULL: nothing is kept */
    struct dev *d;
    struct err *e;
    int rc;
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
        return get_arena(u, gpu_apart(part, bytes), to);
    to->used = 0, to->size = bytes;
    if (!u->rc)
        u->rc = u->start->gpus->plugin->kept(u->d, u->kept->fd[part], bytes, zero, &to->base, u->e);
    return u->rc;
}

static void load_weights(struct upload *u, struct rank *r, struct arena *host)
{
    struct gpu_copies copies = {0};
    struct arena data;
    if (get_kept(u, KEPT_WEIGHTS, plan_weight_bytes(r->plan, r->id), &data))
        return;
    weights_lay_out(&r->weights, r->plan, r->id, host, &data);
    must(data.used == data.size);
    if (is_there(u))
        return;
    weights_copies(&r->weights, u->start->whole, r->plan, r->id, gpu_copies_add, &copies);
    u->rc = gpu_copies_do(&copies, u->start->gpus->plugin, u->d, u->start->host, u->start->copied,
                          u->e);
}

/* Experts that move: what lies where. */
static void open_slots(struct upload *u, struct gpu_slots *s, struct rank *r)
{
    if (!r->plan->slots)
        return;
    *s = (struct gpu_slots){.plugin = u->start->gpus->plugin,
                            .dev = u->d,
                            .host = u->start->host,
                            .whole = u->start->whole,
                            .rank = r,
                            .lies = u->start->lies,
                            .copied = u->start->copied};
    if (!u->rc && !is_there(u))
        gpu_slots_filled(s);
    r->slots = s;
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
    if (gpu_fast_products(r->plan) && !get_arena(u, gpu_plain_bytes(r->plan, r->id), &data))
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

/* Of the rank's layers, from where the ranks before it have come. */
static void watch_loads(struct upload *u, struct rank *r)
{
    const size_t row = (size_t)(r->plan->model.experts.n + 2) * sizeof(uint64_t);
    const size_t bytes = (size_t)len(r->layers) * row;
    uint64_t *there = turns_seen(&r->turns, r->layers.lo);
    const void *at = NULL;
    struct pool pool = {0};
    if (there && u->start->load) {
        uint64_t *counted = pool_get(&pool, bytes);
        loads_get(u->start->load, r->plan, r->layers, counted);
        upload(u, there, counted, bytes);
        pool_free(&pool);
    }
    if (there && !u->rc)
        u->rc = u->start->gpus->plugin->watch(u->d, there, bytes, &at, u->e);
    r->turns.watched = at;
}

size_t gpu_tables(const struct plan *p, int rank)
{
    struct weights w;
    struct rank r;
    struct arena host = {0}, data = {0}, dev = {0}, peer = {0};
    gpu_lay_out(&r, p, rank, &host, &dev, &peer);
    weights_lay_out(&w, p, rank, &host, &data);
    return host.used;
}

/* The peer arena stands behind what the group keeps for itself. */
static void get_peer(struct upload *u, struct gpu_rank *to, const struct plan *p, int id,
                     struct arena *peer)
{
    const size_t before = gpu_slices_bytes(p, id, to->gpus);
    struct arena all, pp;
    to->peer_bytes = peer->used;
    if (get_kept(u, KEPT_SLICES, before + peer->used, &all))
        return;
    *peer = (struct arena){.base = all.base + before, .size = to->peer_bytes};
    to->tp = p->tp > 1 ? all.base : NULL;
    if (p->pp > 1 && !get_kept(u, KEPT_STAGES, gpu_stages_bytes(p, to->gpus), &pp))
        to->pp = pp.base;
}

int gpu_rank_open(struct gpu_rank *to, struct rank *r, const struct plan *p, int id,
                  const struct gpu_start *start, struct arena *host, struct err *e)
{
    struct arena tables = {0}, dev = {0}, peer = {0}, cache;
    const struct gpus *g = start->gpus;
    struct gpu_ask ask = gpu_ask_for(p, id, g);
    *to = (struct gpu_rank){.gpus = g, .kept = start->kept};
    ask.profile = start->profile;
    ask.records = !start->profile;
    ask.warpgroups = gpu_of(g, id)->warpgroups;
    gpu_lay_out(r, p, id, &tables, &dev, &peer);
    struct upload u = {
        .start = start, .kept = start->kept ? &start->kept[id] : NULL, .d = &to->dev, .e = e};
    u.rc = g->plugin->open(u.d, &ask, e);
    get_peer(&u, to, p, id, &peer);
    if (get_arena(&u, dev.used, &dev))
        return u.rc;
    gpu_lay_out(r, p, id, host, &dev, &peer);
    r->draws_slices = ask.slices;
    load_weights(&u, r, host);
    open_slots(&u, &to->slots, r);
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
    struct group_ask slices = gpu_slices(p, r->id, g->gpus), stages = gpu_stages(p, g->gpus);
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
