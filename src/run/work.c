/* work.c - see work.h. */
#include "run/work.h"
#include "run/gpu_slots.h"

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

/* A step between its begin and its end. */
struct doing {
    struct slot *s;
    struct draw_rows rows;
    bool draws, rest; /* tokens are drawn at this rank; by the device, but for some */
    struct mat logits;
    uint64_t begun_ns;
};

/* A rank at work: of the steps after number `done`, those up to `begun` are on the device. */
struct work {
    struct rank *r;
    struct mailbox *m;
    struct doing doing[2];
    uint64_t begun, done;
    uint64_t ended_ns; /* when the last step did */
    void *scratch;
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

static void draw_on_threads(struct rank *r, struct drawing *g)
{
    for (int i = 0; i < g->rows->n; i++)
        g->s->top[i].n_top = -1;
    if (!g->rest || draw_any_on_host(g->rows))
        dev_together(r->host, draw_some, g);
}

static const struct mat nothing;

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

/* Tokens that the step before drew; until it has, their rank is waited for. Where it drew none the
 * row is computed in vain, of any word. */
static void take_drawn(struct work *w, struct batch *b, uint64_t step)
{
    struct mailbox *m = w->m;
    const struct slot *before = &m->slot[(step - 1) % (uint64_t)m->slots];
    int *tok = w->r->tok, fed = 0;
    for (int i = 0; i < b->n_tok; i++)
        fed += b->tok[i] < 0;
    if (!fed || w->begun != w->done) /* the device knows them */
        return;
    while (atomic_load(&m->rank[rank_drawer(w->r->plan)].done) < step - 1) {
        if (atomic_load(&m->stop))
            break;
        cpu_pause();
    }
    for (int i = 0; i < b->n_tok; i++)
        tok[i] = b->tok[i] < 0 ? max_int(before->token[~b->tok[i]], 0) : b->tok[i];
    b->tok = tok;
}

/* The device had nothing to do since the last step's end, or has another step to do. */
static void account_begin(const struct work *w)
{
    struct rank_state *state = &w->m->rank[w->r->id];
    if (w->begun != w->done)
        add(&state->led, 1);
    else if (w->ended_ns)
        add(&state->idle_ns, now_ns() - w->ended_ns);
}

static void follow_placement(struct rank *r, const struct slot *s)
{
    r->turns.holders = s->holders;
    int rc = r->slots ? gpu_slots_follow(r->slots, s->placed ? s->holders : NULL, s->placed) : 0;
    if (rc && !r->dev->err)
        r->dev->err = rc, r->dev->why = r->slots->why.text;
}

/* Another step may be enqueued behind the one with these rows: no host has a part in it. */
static bool may_lead(const struct work *w, const struct draw_rows *rows)
{
    return w->r->dev->leads && !draw_any_on_host(rows);
}

/* It may name what this one draws, which all slices need then. With stages no step does. */
static bool is_followed(const struct work *w, const struct draw_rows *rows)
{
    return may_lead(w, rows) && rows->n && w->r->plan->pp == 1;
}

/* All slices at once, or slice 0, whose tokens the others are told. */
static void draw_on_device(struct work *w, struct doing *g)
{
    struct rank *r = w->r;
    struct act *a = &r->act;
    if (r->draws_slices && g->rows.n) {
        g->rest = dev_draw(r->dev, &a->token, &a->slice, &g->rows);
        return;
    }
    g->rest = g->draws && dev_draw(r->dev, &a->drawn, &a->logits, &g->rows);
    if (is_followed(w, &g->rows))
        comm_merge(r->tp, &a->token, &a->drawn);
}

static void begin_step(struct work *w)
{
    struct rank *r = w->r;
    const uint64_t step = w->begun + 1;
    struct slot *s = &w->m->slot[step % (uint64_t)w->m->slots];
    struct doing *g = &w->doing[step % 2];
    *g = (struct doing){
        .s = s, .rows = slot_draws(s, r->plan, w->m->keep_logits), .begun_ns = now_ns()};
    struct batch b = slot_batch(s);
    pulse_step(r->pulse, step);
    take_drawn(w, &b, step);
    follow_placement(r, s);
    g->draws = rank_draws(r->plan, r->id) && b.n_out;
    b.draws = b.n_out ? &g->rows : NULL;
    b.drawn = r->room.token.at;
    if (!r->dev->leads)
        account_begin(w);
    dev_begin(r->dev, &b);
    forward(r, &b);
    draw_on_device(w, g);
    g->logits = g->draws ? r->act.logits : nothing;
    dev_end(r->dev, &g->logits);
    if (r->dev->leads) /* only now all of it is there */
        account_begin(w);
    w->begun = step;
}

/* Returns what failed. */
static int finish_step(struct work *w)
{
    struct rank *r = w->r;
    struct rank_state *state = &w->m->rank[r->id];
    const uint64_t step = w->done + 1;
    struct doing *g = &w->doing[step % 2];
    g->logits = dev_fetch(r->dev, &g->logits);
    comm_end(r->tp);
    comm_end(r->pp);
    int err = error_of(r, state);
    struct drawing d = {.r = r,
                        .s = g->s,
                        .rows = &g->rows,
                        .rest = g->rest,
                        .logits = g->logits,
                        .scratch = w->scratch};
    if (g->draws && !err)
        draw_on_threads(r, &d);
    if (r->turns.watched && !err)
        loads_set(w->m->load, r->plan, r->layers, r->turns.watched);
    const uint64_t now = now_ns();
    account(r, state, now - (w->ended_ns > g->begun_ns ? w->ended_ns : g->begun_ns));
    w->ended_ns = now;
    atomic_store(&state->err, err);
    if (!err) /* otherwise what is in the slot is no result */
        atomic_store(&state->done, step);
    atomic_fetch_add(&w->m->done_bell, 1);
    futex_wake(&w->m->done_bell);
    w->done = step;
    return err;
}

/* For the next step, which therefore waits for the one that runs. */
static bool moves_experts(const struct work *w)
{
    const struct slot *s = &w->m->slot[(w->begun + 1) % (uint64_t)w->m->slots];
    return w->r->slots && gpu_slots_move(w->r->slots, s->placed);
}

/* Until the step on the device is done; when the next one comes meanwhile, it begins. */
static void lead(struct work *w)
{
    if (!may_lead(w, &w->doing[w->begun % 2].rows))
        return;
    do {
        if (atomic_load(&w->m->submitted) > w->begun) {
            if (!moves_experts(w))
                begin_step(w);
            return;
        }
        sched_yield();
    } while (!dev_passed(w->r->dev));
}

void rank_work(struct rank *r, struct mailbox *m, int spins, void *scratch)
{
    const uint64_t done = atomic_load(&m->rank[r->id].done);
    const bool counts = plan_slice(r->plan, r->id) == 0 && !r->turns.unseen;
    struct work w = {.r = r, .m = m, .begun = done, .done = done, .scratch = scratch};

    r->turns.load = counts ? m->load : NULL;
    r->pulse = r->tp->pulse = r->pp->pulse = &m->rank[r->id].pulse;
    for (;;) {
        if (w.begun == w.done) {
            if (!wait_step(m, w.begun + 1, spins))
                return;
            begin_step(&w);
        }
        if (w.begun == w.done + 1)
            lead(&w);
        if (finish_step(&w))
            return;
    }
}
