/* mailbox.c - see mailbox.h. */
#include "run/mailbox.h"

int mailbox_flight(const struct plan *p) { return p->pp + 1; }

static int *ints(struct arena *a, size_t n) { return arena_get(a, n * sizeof(int)); }

/* All hold all. */
static uint64_t *lay_out_holders(const struct plan *p, struct arena *a)
{
    const int n = p->model.experts.n;
    if (p->ep == 1)
        return NULL;
    const struct placement all = placement_all(n, p->ep);
    uint64_t *to = arena_get(a, (size_t)p->model.n_layer * (size_t)n * sizeof(*to));
    for (int l = 0; to && l < p->model.n_layer; l++)
        memcpy(to + (size_t)l * (size_t)n, all.holders, (size_t)n * sizeof(*to));
    return to;
}

static struct slot lay_out_slot(const struct plan *p, bool keep_logits, struct arena *a)
{
    size_t tok = (size_t)p->max_tok, out = (size_t)p->max_out, seq = (size_t)p->max_seq;
    size_t pages = ((size_t)p->ctx + KV_PAGE - 1) / KV_PAGE;
    return (struct slot){
        .tok = ints(a, tok),
        .pos = ints(a, tok),
        .slot = ints(a, tok),
        .seq = ints(a, tok),
        .page = ints(a, seq * pages),
        .out = ints(a, out),
        .draw = arena_get(a, out * sizeof(struct draw_row)),
        .seen = ints(a, seq * (size_t)p->ctx),
        .bias = arena_get(a, seq * SAMPLE_BIAS * sizeof(struct token_bias)),
        .holders = lay_out_holders(p, a),
        .allow = arena_get(a, out * allow_words(p) * sizeof(uint64_t)),
        .token = ints(a, out),
        .top = arena_get(a, out * sizeof(struct logprobs)),
        .logits = keep_logits ? arena_get(a, out * (size_t)p->model.n_vocab * sizeof(float)) : NULL,
    };
}

struct mailbox *mailbox_lay_out(const struct plan *p, bool keep_logits, struct arena *a)
{
    struct mailbox *m = arena_get(a, sizeof(*m));
    struct rank_state *rank = arena_get(a, (size_t)plan_ranks(p) * sizeof(*rank));
    struct layer_load *load = loads_lay_out(p, a);
    for (int r = 0; p->slots && r < plan_ranks(p); r++) {
        _Atomic uint16_t *lies =
            arena_get(a, (size_t)p->model.n_layer * (size_t)p->slots * sizeof(*lies));
        if (rank)
            rank[r].lies = lies;
    }
    for (int i = 0; i <= mailbox_flight(p); i++) {
        struct slot s = lay_out_slot(p, keep_logits, a);
        if (m)
            m->slot[i] = s;
    }
    if (m) {
        m->slots = mailbox_flight(p) + 1;
        m->rank = rank;
        m->load = load;
        m->keep_logits = keep_logits;
    }
    return m;
}

void mailbox_again(struct mailbox *m, int ranks)
{
    uint64_t all = atomic_load(&m->submitted);
    for (int r = 0; r < ranks; r++) {
        uint64_t done = atomic_load(&m->rank[r].done);
        all = done < all ? done : all;
    }
    for (int r = 0; r < ranks; r++) {
        struct rank_state *s = &m->rank[r];
        atomic_store(&s->done, all);
        atomic_store(&s->ready, 0);
        atomic_store(&s->pulse, 0);
        atomic_store(&s->err, 0);
        s->why[0] = 0;
    }
    atomic_store(&m->stop, 0);
}

struct batch slot_batch(const struct slot *s)
{
    return (struct batch){.n_tok = s->n_tok,
                          .n_seq = s->n_seq,
                          .n_out = s->n_out,
                          .tok = s->tok,
                          .pos = s->pos,
                          .slot = s->slot,
                          .seq = s->seq,
                          .page = s->page,
                          .stride = s->stride,
                          .out = s->out};
}

struct draw_rows slot_draws(const struct slot *s, const struct plan *p, bool keep_logits)
{
    return (struct draw_rows){.n = s->n_out,
                              .row = s->draw,
                              .seen = s->seen,
                              .bias = s->bias,
                              .allow = s->allow,
                              .allow_words = allow_words(p),
                              .keep_logits = keep_logits,
                              .token = s->token};
}
