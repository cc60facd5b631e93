/* gpu_slots.c - see gpu_slots.h. */
#include "run/gpu_slots.h"
#include "run/gpu_inside.h"

static const struct plan *plan_of(const struct gpu_slots *s) { return s->rank->plan; }

static slot_word *lies_in(const struct gpu_slots *s, int layer)
{
    return s->lies + (size_t)layer * (size_t)plan_of(s)->slots;
}

static bool is_sparse(const struct gpu_slots *s, int layer)
{
    return model_sparse(&plan_of(s)->model, layer);
}

void gpu_slots_filled(struct gpu_slots *s)
{
    const struct plan *p = plan_of(s);
    const struct span even =
        placement_even_span(p->model.experts.n, p->ep, plan_run(p, s->rank->id));
    for (int l = s->rank->layers.lo; l < s->rank->layers.hi; l++)
        for (int i = 0; i < p->slots; i++)
            atomic_store(&lies_in(s, l)[i], (uint16_t)(i < len(even) ? even.lo + i + 1 : 0));
}

/* ------------------------------------------------------------------------------- moving */

/* What shall lie in the slots of a layer when all has come. */
struct moving {
    const struct gpu_slots *s;
    uint16_t *then; /* as lies */
    bool *moves;    /* [n_layer] something comes */
    struct gpu_copies copies;
};

static void bring(struct moving *m, int layer, int slot, int expert)
{
    const struct gpu_slots *s = m->s;
    const size_t at = (size_t)layer * (size_t)plan_of(s)->slots + (size_t)slot;
    atomic_store(&s->lies[at], 0);
    m->moves[layer] = true;
    m->then[at] = (uint16_t)(expert + 1);
    weights_copy_expert(&s->rank->weights.slot[at], &s->whole->layer[layer].expert[expert],
                        gpu_copies_add, &m->copies);
}

/* An expert that is here stays where it is; one that is not takes a slot of one that is not wanted.
 */
static void move_layer(struct moving *m, int layer, const uint64_t *holders)
{
    const struct plan *p = plan_of(m->s);
    const int run = plan_run(p, m->s->rank->id);
    const slot_word *lies = lies_in(m->s, layer);
    uint16_t *then = m->then + (size_t)layer * (size_t)p->slots;
    bool here[MODEL_EXPERTS] = {false}, stays[MODEL_EXPERTS] = {false};
    int free = 0;
    for (int i = 0; i < p->slots; i++) {
        const int expert = atomic_load(&lies[i]) - 1;
        then[i] = (uint16_t)(expert + 1);
        stays[i] = expert >= 0 && holders[expert] >> run & 1;
        if (stays[i])
            here[expert] = true;
    }
    for (int e = 0; e < p->model.experts.n; e++) {
        if (here[e] || !(holders[e] >> run & 1))
            continue;
        while (free < p->slots && stays[free])
            free++;
        must(free < p->slots); /* placements are held against the plan's slots before */
        bring(m, layer, free++, e);
    }
}

/* Experts that are not here are described as if they lay in the first slot: no row of theirs comes.
 */
static void name_layer(struct gpu_slots *s, int layer)
{
    const struct plan *p = plan_of(s);
    const slot_word *lies = lies_in(s, layer);
    struct expert *slot = s->rank->weights.slot + (size_t)layer * (size_t)p->slots;
    struct expert *expert = s->rank->weights.layer[layer].expert;
    for (int e = 0; e < p->model.experts.n; e++)
        expert[e] = slot[0];
    for (int i = 0; i < p->slots; i++)
        if (atomic_load(&lies[i]))
            expert[atomic_load(&lies[i]) - 1] = slot[i];
}

/* The weights have come: then it may be said that they are there. A rank that begins has said
 * nothing yet. */
static int settle(const struct moving *m, struct gpu_slots *s)
{
    const struct plan *p = plan_of(s);
    const int n = model_experts(&p->model);
    int rc = 0;
    for (int l = s->rank->layers.lo; !rc && l < s->rank->layers.hi; l++) {
        if (!is_sparse(s, l) || (s->follows && !m->moves[l]))
            continue;
        for (int i = 0; i < p->slots; i++)
            atomic_store(&lies_in(s, l)[i], m->then[(size_t)l * (size_t)p->slots + (size_t)i]);
        name_layer(s, l);
        rc = s->plugin->moved(s->dev, s->rank->weights.layer[l].expert, n, &s->why);
    }
    return rc;
}

static int tell_device(struct gpu_slots *s, const uint64_t *holders)
{
    const struct plan *p = plan_of(s);
    const size_t bytes = (size_t)p->model.n_layer * (size_t)p->model.experts.n * sizeof(*holders);
    return s->plugin->load(s->dev, 0, s->rank->turns.held, holders, bytes, &s->why);
}

static const uint64_t *even_shares(const struct plan *p, struct pool *pool)
{
    const size_t n = (size_t)p->model.experts.n;
    const struct placement even = placement_even(p->model.experts.n, p->ep);
    uint64_t *to = pool_get(pool, (size_t)p->model.n_layer * n * sizeof(*to));
    for (int l = 0; l < p->model.n_layer; l++)
        memcpy(to + (size_t)l * n, even.holders, n * sizeof(*to));
    return to;
}

static int move(struct gpu_slots *s, const uint64_t *holders, struct pool *pool)
{
    const struct plan *p = plan_of(s);
    const size_t layers = (size_t)p->model.n_layer, n = (size_t)p->model.experts.n;
    struct moving m = {.s = s,
                       .then = pool_get(pool, layers * (size_t)p->slots * sizeof(*m.then)),
                       .moves = pool_get(pool, layers * sizeof(*m.moves))};
    for (int l = s->rank->layers.lo; l < s->rank->layers.hi; l++)
        if (is_sparse(s, l))
            move_layer(&m, l, holders + (size_t)l * n);
    int rc = gpu_copies_do(&m.copies, s->plugin, s->dev, s->host, s->copied, &s->why);
    if (!rc)
        rc = settle(&m, s);
    if (!rc)
        rc = tell_device(s, holders);
    return rc;
}

int gpu_slots_follow(struct gpu_slots *s, const uint64_t *holders, uint64_t placed)
{
    struct pool pool = {0};
    if (!gpu_slots_move(s, placed))
        return 0;
    int rc = move(s, holders ? holders : even_shares(plan_of(s), &pool), &pool);
    s->follows = !rc, s->placed = placed;
    pool_free(&pool);
    return rc;
}
