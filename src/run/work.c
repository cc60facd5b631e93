/* work.c - see work.h. */
#include "run/work.h"

#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Wait for step number `want`: hot for a while, giving the core away in between (control may need
 * it to prepare that very step), then asleep. Returns false when the ranks are to stop. */
static bool wait_step(struct mailbox *m, uint64_t want, int spins)
{
    for (int i = 0;; i++) {
        uint32_t bell = atomic_load(&m->step_bell);
        if (atomic_load(&m->stop))
            return false;
        if (atomic_load(&m->submitted) >= want)
            return true;
        if (i >= spins)
            futex_sleep(&m->step_bell, bell, 0);
        else if (i % 16)
            cpu_pause();
        else
            sched_yield();
    }
}

struct drawing {
    const struct rank *r;
    struct slot *s;
    const struct draw_rows *rows;
    bool rest; /* the device has drawn what need not be drawn here */
    struct mat logits;
    char *scratch;
    _Atomic int next;
};

/* Draw the token after row i, or take the given one; a row without a sane number gives -1. */
static void draw_row(const struct drawing *g, int i, char *scratch)
{
    const struct mat *logits = &g->logits;
    const size_t row_bytes = (size_t)logits->dim * sizeof(float);
    struct slot *s = g->s;
    const struct draw_row *d = &s->draw[i];
    float *row = mat_row(logits, i), *raw = row;
    double log_sum = 0;
    if (g->rows->keep_logits)
        memcpy(s->logits + (size_t)i * (size_t)logits->dim, row, row_bytes);
    if (d->n_top >= 0) {
        raw = memcpy(scratch, row, row_bytes);
        scratch += round_up(row_bytes, ARENA_ALIGN);
        log_sum = sample_top(raw, logits->dim, d->n_top, &s->top[i]);
    }
    struct sample_rules rules = {.seen = s->seen + d->seen,
                                 .n_seen = d->n_seen,
                                 .n_prompt = d->n_prompt,
                                 .bias = s->bias + d->bias,
                                 .n_bias = d->n_bias};
    if (d->restricted)
        rules.allow = s->allow + (size_t)i * g->rows->allow_words;
    s->token[i] = d->given >= 0
                      ? d->given
                      : sample(row, logits->dim, &d->sampling, &rules, d->position, scratch);
    if (d->n_top >= 0 && s->token[i] >= 0)
        sample_chosen(raw, logits->dim, s->token[i], log_sum, &s->top[i]);
}

static void draw_some(void *arg, int thread, int n)
{
    struct drawing *g = arg;
    char *scratch = g->scratch + (size_t)thread * draw_scratch(g->r->plan->model.n_vocab);
    (void)n;
    for (int i; (i = atomic_fetch_add(&g->next, 1)) < g->rows->n;)
        if (!g->rest || draw_on_host(g->rows, i))
            draw_row(g, i, scratch);
}

static bool any_on_host(const struct draw_rows *rows)
{
    for (int i = 0; i < rows->n; i++)
        if (draw_on_host(rows, i))
            return true;
    return false;
}

static void draw_on_threads(struct rank *r, struct drawing *g)
{
    for (int i = 0; i < g->rows->n; i++)
        g->s->top[i].n_top = -1;
    if (!g->rest || any_on_host(g->rows))
        dev_together(r->host, draw_some, g);
}

static const struct mat nothing;

/* One step on the device. */
static void compute(struct rank *r, struct batch b, struct drawing *g)
{
    dev_begin(r->dev, &b);
    forward(r, &b);
    g->rest = b.draws && dev_draw(r->dev, &r->act.logits, b.draws);
    g->logits = dev_fetch(r->dev, b.draws ? &r->act.logits : &nothing);
    comm_end(r->tp);
    comm_end(r->pp);
}

/* What failed, for whoever reads the rank's state. */
static int error_of(const struct rank *r, struct rank_state *state)
{
    int err = r->dev->err ? r->dev->err : r->tp->err ? r->tp->err : r->pp->err;
    const char *why = r->dev->err ? r->dev->why : r->tp->err ? r->tp->why : r->pp->why;
    if (err && why)
        snprintf(state->why, sizeof(state->why), "%s", why);
    return err;
}

size_t draw_scratch(int n_vocab)
{
    return sample_scratch(n_vocab) + round_up((size_t)n_vocab * sizeof(float), ARENA_ALIGN);
}

static void add(_Atomic uint64_t *to, uint64_t n)
{
    atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

/* What the groups spent since the last step, and the rest of the step's time. */
static void account(struct rank *r, struct rank_state *state, uint64_t ns)
{
    uint64_t wait = 0, move = 0;
    struct comm *group[] = {r->tp, r->pp};
    for (size_t i = 0; i < COUNT(group); i++) {
        wait += group[i]->wait_ns, move += group[i]->move_ns;
        add(&state->calls, group[i]->calls);
        add(&state->bytes, group[i]->bytes);
        group[i]->wait_ns = group[i]->move_ns = group[i]->calls = group[i]->bytes = 0;
    }
    add(&state->wait_ns, wait);
    add(&state->move_ns, move);
    add(&state->compute_ns, ns > wait + move ? ns - wait - move : 0);
}

void rank_work(struct rank *r, struct mailbox *m, int spins, void *scratch)
{
    struct rank_state *state = &m->rank[r->id];
    const bool draws = rank_draws(r->plan, r->id);
    const bool counts = plan_slice(r->plan, r->id) == 0 && !r->turns.unseen;

    r->turns.load = counts ? m->load : NULL;
    for (uint64_t step = atomic_load(&state->done) + 1; wait_step(m, step, spins); step++) {
        struct slot *s = &m->slot[step % (uint64_t)m->flight];
        uint64_t begin = now_ns();
        r->turns.holders = s->holders;
        const struct draw_rows rows = slot_draws(s, r->plan, m->keep_logits);
        struct drawing g = {.r = r, .s = s, .rows = &rows, .scratch = scratch};
        struct batch b = slot_batch(s);
        b.draws = draws && b.n_out ? &rows : NULL;
        compute(r, b, &g);
        int err = error_of(r, state);
        if (b.draws && !err)
            draw_on_threads(r, &g);
        if (r->turns.watched && !err)
            loads_set(m->load, r->plan, r->layers, r->turns.watched);
        account(r, state, now_ns() - begin);
        atomic_store(&state->err, err);
        if (!err) /* otherwise what is in the slot is no result */
            atomic_store(&state->done, step);
        atomic_fetch_add(&m->done_bell, 1);
        futex_wake(&m->done_bell);
        if (err)
            return;
    }
}
