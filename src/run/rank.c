/* rank.c - the layout of a rank in memory. See rank.h. */
#include "run/rank.h"
#include "model/rope.h"

static struct mat get_as(struct arena *a, enum num type, int n, int dim)
{
    struct mat m = {n, dim, type, NULL};
    m.at = arena_get(a, mat_bytes(&m));
    return m;
}

static struct mat get(struct arena *a, int n, int dim) { return get_as(a, NUM_F32, n, dim); }

/* Planes of this rank in a buffer large enough for any rank of the group. */
static struct planes get_planes(const struct plan *p, int id, int dim, struct arena *peer)
{
    struct planes all = {.n = 0};
    struct span tree[PLANES];
    int most = 0, i = plan_slice(p, id);
    for (int t = 0; t < p->tp; t++)
        most = max_int(most, tree_split((struct span){p->cut[t], p->cut[t + 1]}, tree));
    for (int n = 0; n < most; n++)
        all.at[n] = get(peer, p->max_tok, dim);
    all.n = tree_split((struct span){p->cut[i], p->cut[i + 1]}, tree);
    return all;
}

static int most_words(const struct plan *p)
{
    int most = 0;
    for (int t = 0; t < p->tp; t++)
        most = max_int(most, len(plan_share(p, t, WORDS)));
    return most;
}

/* What the other ranks of the group read. A rank alone needs no copies: its one plane is the sum.
 */
static void lay_out_peer(struct act *a, const struct plan *p, int id, struct arena *peer)
{
    int T = p->max_tok, h = p->model.n_embd;
    bool alone = p->tp == 1, last = plan_stage(p, id) == p->pp - 1;

    a->all_x = get(peer, T, h);
    a->h = get(peer, T, h);
    a->attn = get_planes(p, id, h, peer);
    a->ffn = alone ? a->attn : get_planes(p, id, h, peer);
    a->sum = alone ? a->attn.at[0] : get(peer, T, h);
    a->words = alone ? a->all_x : a->attn.at[0];
    if (p->model.qk_row) {
        a->squares = get_planes(p, id, 2, peer);
        a->square_sum = alone ? a->squares.at[0] : get(peer, T, 2);
    }
    if (p->model.experts.n) {
        a->router = get(peer, T, p->model.experts.n);
        if (p->model.experts.shared_gate)
            a->shared_gate = get(peer, T, 1);
        a->moe = (struct planes){.n = 1, .at = {get_as(peer, NUM_I64, T, h)}};
        a->whole = alone ? a->moe.at[0] : get_as(peer, NUM_I64, T, h);
    }
    if (!last)
        return;
    a->slice = get(peer, p->max_out, most_words(p));
    a->slice.dim = len(plan_share(p, id, WORDS));
    a->logits = alone ? a->slice : get(peer, p->max_out, p->model.n_vocab);
}

static int most_columns(const struct plan *p, int id)
{
    return max_int(len(plan_share(p, id, EXPERT_COLUMNS)), len(plan_share(p, id, SHARED_COLUMNS)));
}

static void lay_out_experts(struct act *a, const struct plan *p, int id, struct arena *dev)
{
    const struct experts *x = &p->model.experts;
    int T = p->max_tok, slice = plan_slice(p, id), shares = p->cut[slice + 1] - p->cut[slice];
    if (!x->n)
        return;
    a->routed = (struct routed){.n = T, .top = x->top, .shared = x->shared_ff > 0};
    size_t choices = (size_t)T * (size_t)routed_row(&a->routed);
    a->routed.expert = arena_get(dev, choices * sizeof(int));
    a->routed.weight = arena_get(dev, choices * sizeof(float));
    a->room = (struct expert_room){
        .x = get(dev, T, p->model.n_embd + EXPERT_PAD),
        .hidden = get(dev, (int)choices + 1, most_columns(p, id) + EXPERT_PAD * shares),
        .row = arena_get(dev, choices * sizeof(int)),
        .weight = arena_get(dev, choices * sizeof(float))};
}

void rank_lay_out(struct rank *r, const struct plan *p, int id, struct arena *host,
                  struct arena *dev, struct arena *peer)
{
    const struct model *m = &p->model;
    int T = p->max_tok, D = m->head_dim;
    int q = len(plan_share(p, id, HEADS)) * D, k = len(plan_share(p, id, KVHEADS)) * D;
    int f = len(plan_share(p, id, COLUMNS));
    struct act *a = &r->room;

    memset(r, 0, sizeof(*r));
    r->plan = p;
    r->id = id;
    r->layers = p->stage[plan_stage(p, id)];
    r->tok = arena_get(host, (size_t)T * sizeof(int));
    r->kv = arena_get(host, (size_t)m->n_layer * sizeof(*r->kv));
    for (int t = 0; t < p->tp; t++)
        r->words[t + 1] = plan_share(p, t, WORDS).hi;

    heads_begin(r);
    lay_out_peer(a, p, id, peer);
    a->q = get(dev, T, q);
    a->k = get(dev, T, k);
    a->v = get(dev, T, k);
    a->o = get(dev, T, q);
    a->gate = get(dev, T, f);
    a->up = get(dev, T, f);
    for (int i = 0; i < MODEL_KINDS; i++)
        a->angle[i] = get(dev, T, D);
    a->last = get(dev, p->max_out, m->n_embd);
    lay_out_experts(a, p, id, dev);
    turns_lay_out(&r->turns, p, host);
}

void rank_lay_out_apart(struct rank *r, struct arena *dev, struct arena *peer)
{
    const struct plan *p = r->plan;
    const struct model *m = &p->model;
    for (int i = 0; i < MODEL_KINDS; i++)
        if (m->kind[i].rope.theta > 0)
            r->rotation[i] = get(dev, p->ctx, m->head_dim);
    r->room.token = get(dev, p->max_out, 1);
    r->room.drawn = p->tp > 1 ? get(peer, p->max_out, 1) : r->room.token;
}

int rank_max_dim(const struct plan *p)
{
    const struct model *m = &p->model;
    int f = max_int(m->n_ff, max_int(m->experts.ff, m->experts.shared_ff));
    return max_int(m->n_embd, max_int(m->n_head * m->head_dim, f));
}

size_t rank_page_bytes(const struct plan *p)
{
    return (size_t)p->model.n_layer * (size_t)p->model.n_kv *
           kv_head_bytes(p->kv, p->model.head_dim);
}

/* The rank's heads of its layers in a pool whose pages hold these heads of layers from `layer` on.
 */
static void place_cache(struct rank *r, char *pool, size_t page, int layer, struct span heads)
{
    const struct plan *p = r->plan;
    const struct model *m = &p->model;
    struct span mine = plan_share(p, r->id, KVHEADS);
    size_t head = kv_head_bytes(p->kv, m->head_dim);
    for (int l = r->layers.lo; l < r->layers.hi; l++) {
        int at = (l - layer) * len(heads) + mine.lo - heads.lo;
        r->kv[l] = (struct kv){.type = p->kv,
                               .n_head = len(mine),
                               .head_dim = m->head_dim,
                               .page_bytes = page,
                               .head_bytes = head,
                               .at = pool ? pool + (size_t)at * head : NULL};
    }
}

void rank_bind(struct rank *r, const struct weights *whole, char *kv_pool, struct arena *host)
{
    weights_view(&r->weights, whole, r->plan, r->id, host);
    if (r->kv) /* otherwise only measuring */
        place_cache(r, kv_pool, rank_page_bytes(r->plan), 0, (struct span){0, r->plan->model.n_kv});
}

void rank_own_cache(struct rank *r, char *pool)
{
    struct plan one = *r->plan;
    one.pages = 1;
    place_cache(r, pool, plan_kv_bytes(&one, r->id), r->layers.lo,
                plan_share(r->plan, r->id, KVHEADS));
}

/* Also of planes that only other ranks have: theirs are found by where they would be here. */
static void resize(struct planes *to, struct span rows)
{
    for (int i = 0; i < PLANES; i++)
        if (to->at[i].n)
            to->at[i] = mat_rows(&to->at[i], rows);
}

static void routed_rows(struct routed *r, struct span rows)
{
    size_t skip = (size_t)rows.lo * (size_t)routed_row(r);
    r->n = len(rows);
    if (r->expert)
        r->expert += skip, r->weight += skip;
}

int rank_waves(const struct plan *p, int n_tok)
{
    return p->tp > 1 && !p->sp && !p->model.qk_row && n_tok >= WAVES_FROM ? WAVES : 1;
}

static struct wave wave_of(const struct act *a, const struct batch *b, struct span s)
{
    struct wave to = {.batch = *b, .act = *a};
    struct batch *part = &to.batch;
    struct act *t = &to.act;
    struct mat *wave[] = {&t->x, &t->h, &t->mine_h, &t->sum,  &t->mine_sum, &t->q,
                          &t->k, &t->v, &t->o,      &t->gate, &t->up};
    struct mat *sparse[] = {&t->router,           &t->mine_router, &t->shared_gate,
                            &t->mine_shared_gate, &t->whole,       &t->mine_whole};
    part->n_tok = len(s);
    part->tok += s.lo, part->pos += s.lo, part->slot += s.lo, part->seq += s.lo;
    for (size_t i = 0; i < COUNT(wave); i++)
        *wave[i] = mat_rows(wave[i], s);
    for (size_t i = 0; i < COUNT(sparse); i++)
        if (sparse[i]->n)
            *sparse[i] = mat_rows(sparse[i], s);
    routed_rows(&t->routed, s);
    resize(&t->moe, s);
    for (int i = 0; i < MODEL_KINDS; i++)
        t->angle[i] = mat_rows(&t->angle[i], s);
    resize(&t->attn, s);
    resize(&t->ffn, s);
    return to;
}

static void begin_experts(struct act *a, struct span all, struct span mine)
{
    if (!a->router.dim)
        return;
    a->router = mat_rows(&a->router, all);
    a->mine_router = mat_rows(&a->router, mine);
    if (a->shared_gate.dim) {
        a->shared_gate = mat_rows(&a->shared_gate, all);
        a->mine_shared_gate = mat_rows(&a->shared_gate, mine);
    }
    a->whole = mat_rows(&a->whole, all);
    a->mine_whole = mat_rows(&a->whole, mine);
    routed_rows(&a->routed, all);
    resize(&a->moe, all);
}

static void cut_waves(struct rank *r, const struct batch *b)
{
    r->n_wave = rank_waves(r->plan, b->n_tok);
    r->wave[0] = (struct wave){.batch = *b, .act = r->act};
    for (int i = 0; i < r->n_wave && r->n_wave > 1; i++)
        r->wave[i] = wave_of(&r->act, b, share(b->n_tok, r->n_wave, i));
}

void rank_begin(struct rank *r, const struct batch *b)
{
    const struct plan *p = r->plan;
    struct span all = {0, b->n_tok}, out = {0, b->n_out};
    struct span mine = p->sp ? share(b->n_tok, p->tp, plan_slice(p, r->id)) : all;
    struct act *a = &r->act;

    must(b->n_tok > 0 && b->n_tok <= p->max_tok && b->n_out <= p->max_out);
    *a = r->room;
    a->all_x = mat_rows(&a->all_x, all);
    a->h = mat_rows(&a->h, all);
    a->sum = mat_rows(&a->sum, all);
    a->words = mat_rows(&a->words, all);
    resize(&a->attn, all);
    resize(&a->ffn, all);
    resize(&a->squares, all);
    if (a->square_sum.n)
        a->square_sum = mat_rows(&a->square_sum, all);
    begin_experts(a, all, mine);
    a->x = mat_rows(&a->all_x, mine);
    a->mine_h = mat_rows(&a->h, mine);
    a->mine_sum = mat_rows(&a->sum, mine);
    a->q.n = a->k.n = a->v.n = a->o.n = a->gate.n = a->up.n = b->n_tok;
    a->last = mat_rows(&a->last, out);
    a->slice.n = a->logits.n = a->token.n = a->drawn.n = b->n_out;
    for (int i = 0; i < MODEL_KINDS; i++)
        a->angle[i].n = b->n_tok;
    for (int i = 0; i < MODEL_KINDS; i++)
        if (r->rotation[i].n)
            dev_pick(r->dev, &a->angle[i], &r->rotation[i], b->pos);
        else if (p->model.kind[i].rope.theta > 0)
            rope_angles(&a->angle[i], &p->model.kind[i].rope, b->pos);
    cut_waves(r, b);
}
