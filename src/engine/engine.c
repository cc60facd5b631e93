/* engine.c - an engine's start and end, and what other threads ask of it. See engine.h. */
#include "base/buffer.h"
#include "engine/inside.h"

/* ------------------------------------------------------------------------------- start, stop */

static void lay_out(struct engine *x)
{
    const struct plan *p = &x->plan;
    struct sched_limits l = drive_limits(p, &x->opts.sched);
    struct arena a = {0};
    drive_open(&x->drive, p, &l, x->opts.tpot_s, &a);
    size_t bytes = a.used;
    a = (struct arena){.base = pool_get(&x->pool, bytes + ARENA_ALIGN), .size = bytes};
    a.base += (ARENA_ALIGN - (uintptr_t)a.base % ARENA_ALIGN) % ARENA_ALIGN;
    drive_open(&x->drive, p, &l, x->opts.tpot_s, &a);
    x->drive.watch = x->opts.watch;
    x->draw = pool_get(&x->pool, (size_t)p->max_out * sizeof(*x->draw));
    x->allow = pool_get(&x->pool, (size_t)p->max_out * allow_words(p) * sizeof(uint64_t));
    x->asks = pool_get(&x->pool, (size_t)p->max_seq * sizeof(*x->asks));
    x->keep = pool_get(&x->pool, (size_t)p->max_seq * sizeof(int));
    x->inbox_end = &x->inbox;
    x->last_commit = now_s();
    experts_open(&x->experts, p, &x->opts.experts, x->opts.team.gpus, x->last_commit, &x->pool);
}

static void close_engine(struct engine *x)
{
    team_stop(x->team);
    for (struct job *r = x->live, *next; r; r = next) {
        next = r->next;
        if (x->drafter)
            drafter_forget(x->drafter, &r->drafted);
        job_free(r);
    }
    for (struct job *r = x->inbox, *next; r; r = next) {
        next = r->next;
        job_free(r);
    }
    drafter_stop(x->drafter);
    experts_close(&x->experts);
    pthread_mutex_destroy(&x->lock);
    pthread_mutex_destroy(&x->team_lock);
    pthread_cond_destroy(&x->bell);
    free(x->out.at);
    free(x->taken.at);
    free(x->cancel);
    pool_free(&x->pool);
    free(x);
}

int engine_start(struct engine **out, const struct plan *p, const struct store *s,
                 const struct engine_opts *opts, struct err *e)
{
    struct engine *x = calloc(1, sizeof(*x));
    *out = NULL;
    if (!x)
        return err_set(e, -ENOMEM, "out of memory");
    x->plan = *p;
    x->store = s;
    x->opts = *opts;
    x->opts.team.keep_logits = false;
    x->opts.draft = min_int(x->opts.draft, SCHED_GUESSES);
    x->opts.sched.ahead = (opts->sched.ahead || opts->team.gpus) && !opts->draft;
    pthread_mutex_init(&x->lock, NULL);
    pthread_mutex_init(&x->team_lock, NULL);
    pthread_cond_init(&x->bell, NULL);
    lay_out(x);
    int rc = opts->team.gpus ? experts_check(p, &opts->experts, e) : 0;
    if (!rc)
        rc = team_start(&x->team, &x->plan, s, &x->opts.team, e);
    x->opts.team.progress = NULL; /* only the first start is watched */
    if (!rc && opts->draft && opts->draft_model)
        rc = drafter_start(&x->drafter, opts->draft_model, p->model.n_vocab, e);
    if (!rc && pthread_create(&x->thread, NULL, engine_loop, x))
        rc = err_set(e, -EAGAIN, "cannot start a thread");
    if (rc) {
        close_engine(x);
        return rc;
    }
    *out = x;
    return 0;
}

void engine_stop(struct engine *x)
{
    if (!x)
        return;
    pthread_mutex_lock(&x->lock);
    x->stop = true;
    pthread_cond_signal(&x->bell);
    pthread_mutex_unlock(&x->lock);
    pthread_join(x->thread, NULL);
    close_engine(x);
}

/* ------------------------------------------------------------------------------- from outside */

int engine_events(struct engine *x, void (*fn)(void *arg, const struct engine_event *ev), void *arg)
{
    pthread_mutex_lock(&x->lock);
    struct events o = x->out;
    x->out = (struct events){.at = x->taken.at, .room = x->taken.room};
    x->taken = o;
    x->called = false;
    pthread_mutex_unlock(&x->lock);
    for (size_t i = 0; i < o.n; i++)
        fn(arg, &o.at[i]);
    return (int)o.n;
}

static struct queue_state queue_of(const struct engine_stats *s, const struct plan *p)
{
    return (struct queue_state){.waiting = s->waiting,
                                .waiting_tok = (size_t)s->waiting_tok,
                                .step_s = s->step_s,
                                .token_s = s->token_s,
                                .max_tok = p->max_tok};
}

static int refuse(const struct engine *x, const struct job *r, struct err *e)
{
    const struct engine_stats *s = &x->stats;
    struct queue_state q = queue_of(s, &x->plan);
    q.waiting += x->n_inbox;
    q.waiting_tok += x->inbox_tok;
    if (s->draining)
        return err_set(e, -ESHUTDOWN, "the server is shutting down");
    if (s->failed)
        return err_set(e, -EIO, "the ranks have failed and could not be started again");
    switch (queue_asked(&q, &x->opts.queue, r->seq->n_prompt)) {
    case QUEUE_TAKES: return 0;
    case QUEUE_TOO_MANY:
        return err_set(e, -EAGAIN, "%d requests wait already: try again later", q.waiting);
    case QUEUE_TOO_MANY_TOK:
        return err_set(e, -EAGAIN, "%zu tokens of prompts wait already: try again later",
                       q.waiting_tok);
    case QUEUE_TOO_LATE:
        return err_set(e, -EAGAIN, "the first token would come in about %.0f s: try again later",
                       queue_ttft(&q, (double)q.waiting_tok + r->seq->n_prompt));
    }
    return 0;
}

int engine_submit(struct engine *x, const struct engine_request *ask, uint64_t *id, struct err *e)
{
    struct job *r = job_new(ask, &x->plan, e);
    if (!r)
        return -EINVAL;
    r->submitted_s = now_s();
    r->deadline_s = ask->deadline_s > 0 ? r->submitted_s + ask->deadline_s : 0;
    pthread_mutex_lock(&x->lock);
    int rc = refuse(x, r, e);
    if (!rc) {
        *id = r->seq->id = ++x->last_id;
        *x->inbox_end = r;
        x->inbox_end = &r->next;
        x->n_inbox++;
        x->inbox_tok += (size_t)r->seq->n_prompt;
        x->stats.submitted++;
        pthread_cond_signal(&x->bell);
    }
    pthread_mutex_unlock(&x->lock);
    if (rc) {
        r->ask.guide.ctx = NULL; /* still the caller's */
        job_free(r);
    }
    return rc;
}

void engine_cancel(struct engine *x, uint64_t id)
{
    pthread_mutex_lock(&x->lock);
    x->cancel = grow(x->cancel, &x->cancel_room, (size_t)x->n_cancel + 1, sizeof(*x->cancel));
    x->cancel[x->n_cancel++] = id;
    pthread_cond_signal(&x->bell);
    pthread_mutex_unlock(&x->lock);
}

void engine_stats(struct engine *x, struct engine_stats *to)
{
    pthread_mutex_lock(&x->lock);
    *to = x->stats;
    to->waiting += x->n_inbox;
    to->waiting_tok += (int)x->inbox_tok;
    to->last_commit_s = to->idle ? 0 : now_s() - x->last_commit;
    pthread_mutex_unlock(&x->lock);
}

double engine_ttft(struct engine *x, int n_prompt)
{
    struct engine_stats s;
    engine_stats(x, &s);
    struct queue_state q = queue_of(&s, &x->plan);
    return queue_ttft(&q, (double)q.waiting_tok + n_prompt);
}

int engine_steps(struct engine *x, struct engine_step *to, int max)
{
    int n = 0;
    pthread_mutex_lock(&x->lock);
    if (x->n_step_ring - x->step_taken > STEP_RING)
        x->step_taken = x->n_step_ring - STEP_RING;
    while (n < max && x->step_taken < x->n_step_ring)
        to[n++] = x->step_ring[x->step_taken++ % STEP_RING];
    pthread_mutex_unlock(&x->lock);
    return n;
}

void engine_times(struct engine *x, struct rank_time *to, bool reset)
{
    pthread_mutex_lock(&x->team_lock);
    if (x->team)
        team_times(x->team, to, reset);
    else
        memset(to, 0, (size_t)plan_ranks(&x->plan) * sizeof(*to));
    pthread_mutex_unlock(&x->team_lock);
}

void engine_late(struct engine *x, uint64_t *to)
{
    pthread_mutex_lock(&x->lock);
    memcpy(to, x->late, (size_t)plan_ranks(&x->plan) * sizeof(*to));
    pthread_mutex_unlock(&x->lock);
}

void engine_memory(struct engine *x, struct team_memory *host, struct rank_memory *rank)
{
    pthread_mutex_lock(&x->team_lock);
    if (x->team)
        team_memory(x->team, host, rank);
    pthread_mutex_unlock(&x->team_lock);
}

void engine_experts(struct engine *x, struct expert_figures *to)
{
    pthread_mutex_lock(&x->team_lock);
    experts_figures(&x->experts, x->team, to);
    pthread_mutex_unlock(&x->team_lock);
}

int engine_place(struct engine *x, const struct placement *layer, struct err *e)
{
    return experts_want(&x->experts, layer, e);
}

void engine_probe(struct engine *x)
{
    pthread_mutex_lock(&x->lock);
    x->probe = true;
    pthread_cond_signal(&x->bell);
    pthread_mutex_unlock(&x->lock);
}

void engine_drain(struct engine *x)
{
    pthread_mutex_lock(&x->lock);
    x->stats.draining = true;
    pthread_mutex_unlock(&x->lock);
}
