/* team_steps.c - steps to a team's ranks, and what comes of them. See team.h. */
#include "engine/suspect.h"
#include "engine/team_inside.h"

static bool step_done(const struct team *t, int64_t step)
{
    for (int r = 0; r < plan_ranks(&t->plan); r++)
        if (atomic_load(&t->room.mailbox->rank[r].done) < (uint64_t)step)
            return false;
    return true;
}

static int rank_errors(const struct team *t, struct err *e)
{
    for (int r = 0; r < plan_ranks(&t->plan); r++) {
        int code = atomic_load(&t->room.mailbox->rank[r].err);
        const char *why = t->room.mailbox->rank[r].why;
        if (code && code != -ECANCELED)
            return err_set(e, code, "rank %d failed: %s", r, *why ? why : strerror(-code));
    }
    return 0;
}

/* A step that is watched: by its tokens and where they are. */
static void begin_watch(struct team *t, int64_t step)
{
    const struct slot *s = &t->room.mailbox->slot[step % t->room.mailbox->slots];
    int last = 0;
    for (int i = 0; i < s->n_tok; i++)
        last = max_int(last, s->pos[i]);
    watch_begin(&t->watch, s->n_tok, last, team_moves(t), now_s());
}

/* Nothing moves for too long, and nobody is looking into a rank with a debugger. */
static int hangs(struct team *t, int64_t step, struct err *e)
{
    const struct mailbox *m = t->room.mailbox;
    struct suspects s;
    if (!watch_look(&t->watch, team_moves(t), now_s()))
        return 0;
    suspects_find(&s, &t->plan, m, t->pid, (uint64_t)step);
    if (suspects_debugged(&s, &t->plan)) {
        begin_watch(t, step);
        return 0;
    }
    if (step_done(t, step)) /* by now */
        return 0;
    watch_suspect(&t->watch, suspects_certain(&s));
    return suspects_say(&s, m, t->pid, t->gpus, (uint64_t)step, t->watch.still.still_s, e);
}

static int wait_done(struct team *t, int64_t step, struct err *e)
{
    begin_watch(t, step);
    while (!step_done(t, step)) {
        uint32_t bell = atomic_load(&t->room.mailbox->done_bell);
        bool ready;
        int rc = team_listen(t, &ready, e);
        if (!rc)
            rc = rank_errors(t, e);
        if (!rc)
            rc = hangs(t, step, e);
        if (rc) {
            t->failed = true;
            return rc;
        }
        if (!step_done(t, step))
            futex_sleep(&t->room.mailbox->done_bell, bell, watch_sleep_us(&t->watch));
    }
    watch_end(&t->watch, team_moves(t), now_s());
    return 0;
}

int team_flight(const struct team *t) { return mailbox_flight(&t->plan); }

/* Where the runs of the next row begin; they begin anew unless it shares the arrays of the last. */
struct putting {
    int seen, n_seen, bias, n_bias;
    const struct sample_rules *last;
};

static void put_rules(struct putting *at, struct slot *s, const struct sample_rules *r)
{
    if (!at->last || r->seen != at->last->seen)
        at->seen += at->n_seen, at->n_seen = 0;
    if (r->n_seen > at->n_seen)
        memcpy(s->seen + at->seen + at->n_seen, r->seen + at->n_seen,
               (size_t)(r->n_seen - at->n_seen) * sizeof(int));
    at->n_seen = max_int(at->n_seen, r->n_seen);
    if (!at->last || r->bias != at->last->bias || r->n_bias != at->last->n_bias) {
        at->bias += at->n_bias, at->n_bias = r->n_bias;
        if (r->n_bias)
            memcpy(s->bias + at->bias, r->bias, (size_t)r->n_bias * sizeof(*r->bias));
    }
    at->last = r;
}

static void put_draws(const struct plan *p, struct slot *s, const struct batch *b,
                      const struct draw *draw)
{
    struct putting at = {0};
    for (int i = 0; i < b->n_out; i++) {
        const struct draw *d = &draw[i];
        const struct sample_rules *r = &d->rules;
        must(r->n_bias <= SAMPLE_BIAS && r->n_seen <= p->ctx);
        put_rules(&at, s, r);
        s->draw[i] = (struct draw_row){.sampling = d->sampling,
                                       .position = (uint64_t)b->pos[b->out[i]] + 1,
                                       .seen = at.seen,
                                       .n_seen = r->n_seen,
                                       .n_prompt = r->n_prompt,
                                       .bias = at.bias,
                                       .n_bias = r->n_bias,
                                       .restricted = r->allow != NULL,
                                       .given = d->is_given ? d->given : -1,
                                       .n_top = d->logprobs ? d->n_top : -1};
        if (r->allow)
            memcpy(s->allow + (size_t)i * allow_words(p), r->allow,
                   allow_words(p) * sizeof(*r->allow));
    }
}

static size_t holders_bytes(const struct plan *p)
{
    return (size_t)p->model.n_layer * (size_t)p->model.experts.n * sizeof(uint64_t);
}

void team_place(struct team *t, const struct placement *layer)
{
    const struct plan *p = &t->plan;
    const size_t n = (size_t)p->model.experts.n;
    if (p->ep == 1)
        return;
    if (!t->holders)
        t->holders = malloc(holders_bytes(p));
    must(t->holders);
    for (int l = 0; l < p->model.n_layer; l++) {
        must(layer[l].n_expert == p->model.experts.n && layer[l].n_run == p->ep);
        memcpy(t->holders + (size_t)l * n, layer[l].holders, n * sizeof(*t->holders));
    }
    t->placed++;
}

int64_t team_submit(struct team *t, const struct batch *b, const struct draw *draw, struct err *e)
{
    const struct plan *p = &t->plan;
    struct mailbox *m = t->room.mailbox;
    int64_t step = t->submitted + 1;
    struct slot *s = &m->slot[step % m->slots];

    must(b->n_tok <= p->max_tok && b->n_seq <= p->max_seq && b->n_out <= p->max_out);
    if (t->failed)
        return err_set(e, -EIO, "the ranks have failed");
    if (step > team_flight(t)) {
        int rc = wait_done(t, step - team_flight(t), e);
        if (rc)
            return rc;
    }
    const size_t tok = (size_t)b->n_tok * sizeof(int);
    s->n_tok = b->n_tok, s->n_seq = b->n_seq, s->n_out = b->n_out, s->stride = b->stride;
    memcpy(s->tok, b->tok, tok);
    memcpy(s->pos, b->pos, tok);
    memcpy(s->slot, b->slot, tok);
    memcpy(s->seq, b->seq, tok);
    memcpy(s->page, b->page, (size_t)b->n_seq * (size_t)b->stride * sizeof(int));
    if (b->n_out)
        memcpy(s->out, b->out, (size_t)b->n_out * sizeof(int));
    put_draws(p, s, b, draw);
    if (s->placed != t->placed)
        memcpy(s->holders, t->holders, holders_bytes(p));
    s->placed = t->placed;
    t->submitted = step;
    atomic_store(&m->submitted, (uint64_t)step);
    atomic_fetch_add(&m->step_bell, 1);
    futex_wake(&m->step_bell);
    return step;
}

int team_wait(struct team *t, int64_t step, struct team_result *to, struct err *e)
{
    struct mailbox *m = t->room.mailbox;
    const struct slot *s = &m->slot[step % m->slots];
    must(step <= t->submitted && step > t->submitted - m->slots);
    *to = (struct team_result){
        .token = s->token, .top = s->top, .logits = s->logits, .n_out = s->n_out};
    return wait_done(t, step, e);
}
