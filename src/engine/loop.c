/* loop.c - the engine's thread: what came in, the next step, what came of it. See inside.h. */
#include "base/buffer.h"
#include "engine/inside.h"

enum {
    RESTARTS = 3 /* in a row without a step between them: the ranks cannot live */
};

/* ------------------------------------------------------------------------------- events */

static void say(struct engine *x, const struct engine_event *ev)
{
    pthread_mutex_lock(&x->lock);
    struct events *o = &x->out;
    o->at = grow(o->at, &o->room, o->n + 1, sizeof(*o->at));
    o->at[o->n++] = *ev;
    if (ev->finish != RUNNING)
        x->stats.finished[ev->finish]++;
    bool call = !x->called;
    x->called = true;
    pthread_mutex_unlock(&x->lock);
    if (call && x->opts.wake)
        x->opts.wake(x->opts.arg);
}

static struct engine_event event_of(const struct job *r)
{
    double now = now_s();
    return (struct engine_event){
        .id = r->seq->id,
        .token = -1,
        .prompt = -1,
        .logprobs.n_top = -1,
        .n_cached = r->seq->n_cached,
        .n_drafted = r->n_drafted,
        .n_accepted = r->n_accepted,
        .queued_s = (r->begun_s > 0 ? r->begun_s : now) - r->submitted_s,
        .prefill_s = r->begun_s > 0 ? (r->first_s > 0 ? r->first_s : now) - r->begun_s : 0,
        .decode_s = r->first_s > 0 ? now - r->first_s : 0,
    };
}

/* ------------------------------------------------------------------------------- the live ones */

static void forget(struct engine *x, struct job *r)
{
    if (x->drafter)
        drafter_forget(x->drafter, &r->drafted);
    struct job **at = &x->live;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    job_free(r);
}

/* Tell how it ended, once; it goes when none of its rows is on the way. */
static void finish(struct engine *x, struct job *r, enum finish why)
{
    if (r->finish == RUNNING) {
        r->finish = why;
        struct engine_event ev = event_of(r);
        ev.finish = why;
        if (r->seq->id)
            say(x, &ev);
    }
    if (drive_remove(&x->drive, r->seq))
        forget(x, r);
}

/* The same, the event is already said. */
static void finished(struct engine *x, struct job *r, enum finish why)
{
    r->finish = why;
    if (drive_remove(&x->drive, r->seq))
        forget(x, r);
}

static void finish_all(struct engine *x, enum finish why)
{
    for (struct job *r = x->live, *next; r; r = next) {
        next = r->next;
        finish(x, r, why);
    }
}

static void expire(struct engine *x)
{
    double now = now_s();
    for (struct job *r = x->live, *next; r; r = next) {
        next = r->next;
        if (r->finish == RUNNING && r->deadline_s > 0 && now >= r->deadline_s)
            finish(x, r, FINISH_DEADLINE);
    }
}

/* ------------------------------------------------------------------------------- what came in */

static void admit(struct engine *x, struct job *r)
{
    r->next = x->live;
    x->live = r;
    r->seq->follows = job_follows(r, x->opts.draft);
    drive_add(&x->drive, r->seq);
}

/* One token through all ranks, for nobody: they live. */
static void admit_probe(struct engine *x)
{
    struct err e;
    int token = 0;
    struct engine_request ask = {.prompt = &token,
                                 .n_prompt = 1,
                                 .sampling = sampling_greedy,
                                 .n_top = -1,
                                 .n_prompt_top = -1};
    struct job *r = job_new(&ask, &x->plan, &e);
    if (r)
        admit(x, r);
}

static void cancel_one(struct engine *x, uint64_t id)
{
    for (struct job *r = x->live; r; r = r->next)
        if (r->seq->id == id) {
            if (r->finish == RUNNING)
                finish(x, r, FINISH_CANCELLED);
            return;
        }
}

/* Take the inbox; sleep when there is nothing to do. Returns false when the engine is to stop. */
static bool take_inbox(struct engine *x)
{
    pthread_mutex_lock(&x->lock);
    while (!x->stop && !x->inbox && !x->n_cancel && !x->probe && !x->drive.live) {
        x->stats.idle = true;
        pthread_cond_wait(&x->bell, &x->lock);
    }
    if (x->stats.idle)
        x->last_commit = now_s();
    x->stats.idle = false;
    struct job *list = x->inbox;
    uint64_t *cancel = x->cancel;
    int n_cancel = x->n_cancel;
    bool stop = x->stop, probe = x->probe && !x->drive.live && !list;
    x->inbox = NULL, x->inbox_end = &x->inbox, x->n_inbox = 0, x->inbox_tok = 0;
    x->cancel = NULL, x->n_cancel = x->cancel_room = 0;
    x->probe = false;
    pthread_mutex_unlock(&x->lock);
    for (struct job *next; list; list = next) {
        next = list->next;
        admit(x, list);
    }
    for (int i = 0; i < n_cancel; i++)
        cancel_one(x, cancel[i]);
    free(cancel);
    if (probe)
        admit_probe(x);
    return !stop;
}

/* ------------------------------------------------------------------------------- a step goes out
 */

static void begin(struct engine *x, const struct sched_step *step)
{
    double now = 0;
    for (int i = 0; i < step->n_seq; i++) {
        struct job *r = step->part[i].seq->owner;
        if (r->begun_s > 0)
            continue;
        now = now > 0 ? now : now_s();
        r->begun_s = now;
        pthread_mutex_lock(&x->lock);
        x->stats.prompt_tok += (uint64_t)r->seq->n_prompt;
        pthread_mutex_unlock(&x->lock);
    }
}

static double predict(struct engine *x, const struct sched_step *step)
{
    const struct engine_price *price = &x->opts.price;
    return price->fn ? price->fn(price->arg, step, x->drive.n_flying)
                     : pace_step(&x->drive.pace, step->batch.n_tok);
}

static int send_step(struct engine *x, struct sched_step *step, struct err *e)
{
    const struct plan *p = &x->plan;
    begin(x, step);
    for (int i = 0; i < step->n_seq; i++) {
        struct sched_part *part = &step->part[i];
        for (int k = 0; k < part->n_out; k++) {
            int row = part->out + k;
            x->draw[row] = job_draw(part->seq->owner, p, part->pos + part->n - part->n_out + k,
                                    x->allow + (size_t)row * allow_words(p));
        }
    }
    double begun = now_s();
    int64_t number = team_submit(x->team, &step->batch, x->draw, e);
    if (number < 0)
        return (int)number;
    x->flying[x->drive.n_flying - 1] =
        (struct flying){.number = number, .begun = begun, .predicted = predict(x, step)};
    return 0;
}

/* Guesses for everybody who is about to draw. */
static void draft(struct engine *x)
{
    int n = 0;
    for (struct job *r = x->live; r && n < x->plan.max_seq; r = r->next) {
        struct seq *q = r->seq;
        int most = job_guesses(r, x->opts.draft);
        if (r->finish != RUNNING || !q->running || q->flying || q->n_done != q->n_tok - 1 ||
            !r->n_new || most < 1)
            continue;
        x->asks[n++] = (struct draft_ask){
            .seq = q, .remember = &r->drafted, .sampling = r->ask.sampling, .most = most};
    }
    if (n)
        drafter_guess(x->drafter, x->asks, n);
}

static int send_steps(struct engine *x, struct err *e)
{
    struct sched_step *step;
    int rc = 0;
    if (x->drafter)
        draft(x);
    experts_place(&x->experts, x->team, now_s());
    while (!rc && (step = x->unsent ? x->unsent : drive_next(&x->drive))) {
        rc = send_step(x, step, e);
        x->unsent = rc ? step : NULL;
    }
    return rc;
}

/* ------------------------------------------------------------------------------- it comes back */

static void give_prompt_logprobs(struct engine *x, struct job *r, const struct sched_part *part,
                                 const struct team_result *res)
{
    for (int k = 0; k < part->n_out; k++) {
        int pos = part->pos + part->n - part->n_out + k;
        if (r->ask.n_prompt_top < 0 || pos + 1 >= r->seq->n_prompt)
            continue;
        struct engine_event ev = event_of(r);
        ev.prompt = pos + 1;
        ev.token = r->seq->tok[pos + 1];
        ev.logprobs = res->top[part->out + k];
        say(x, &ev);
    }
    r->seq->want = max_int(r->seq->want, min_int(part->pos + part->n, r->seq->n_prompt - 1));
}

/* Take the drawn tokens of one part: the guesses that were right, and the one after them. */
static void take_tokens(struct engine *x, struct job *r, const struct sched_part *part,
                        const struct team_result *res, int right)
{
    int row = part->out + part->n_out - 1 - part->n_guess;
    int before = r->n_new, cached = 0;
    enum finish state = RUNNING;
    r->n_drafted += part->n_guess;
    r->n_accepted += right;
    r->seq->n_guess = 0;
    for (int k = 0; k <= right && state == RUNNING; k++, row++) {
        if (r->first_s <= 0) {
            r->first_s = now_s();
            cached = r->seq->n_cached;
        }
        struct engine_event ev = event_of(r);
        ev.token = res->token[row];
        ev.logprobs = res->top[row];
        if (ev.token < 0) {
            finish(x, r, FINISH_FAILED);
            return;
        }
        drive_append(&x->drive, r->seq, ev.token);
        ev.finish = state = job_take(r, ev.token, &ev.is_end);
        say(x, &ev);
    }
    pthread_mutex_lock(&x->lock);
    x->stats.new_tok += (uint64_t)(r->n_new - before);
    x->stats.cached_tok += (uint64_t)cached;
    x->stats.drafted += (uint64_t)part->n_guess;
    x->stats.accepted += (uint64_t)right;
    pthread_mutex_unlock(&x->lock);
    if (state != RUNNING)
        finished(x, r, state);
    else if (!x->drafter)
        job_guess(r, x->opts.draft);
    if (state == RUNNING)
        r->seq->follows = job_follows(r, x->opts.draft);
}

static int right_guesses(const struct sched_part *part, const struct team_result *res)
{
    const struct seq *q = part->seq;
    const int *drawn = res->token + part->out + part->n_out - 1 - part->n_guess;
    int right = 0;
    while (right < part->n_guess && q->tok[q->n_tok + right] == drawn[right])
        right++;
    return right;
}

static void take_part(struct engine *x, const struct sched_part *part,
                      const struct team_result *res, int right)
{
    struct job *r = part->seq->owner;
    if (r->finish != RUNNING) { /* it was ended while its rows were on their way */
        if (drive_remove(&x->drive, part->seq))
            forget(x, r);
        return;
    }
    give_prompt_logprobs(x, r, part, res);
    if (!part->draws)
        return;
    if (r->ask.max_new > 0)
        take_tokens(x, r, part, res, right);
    else
        finish(x, r, FINISH_LENGTH);
}

/* The rank that waited least since the last commit; -1: there is but one, or nobody waited that the
 * host knows of: GPUs meet without it. */
static int late_rank(struct engine *x)
{
    struct rank_time time[PLAN_RANKS];
    int ranks = plan_ranks(&x->plan), late = 0;
    if (ranks == 1)
        return -1;
    double least = 0, most = 0;
    team_times(x->team, time, false);
    for (int r = 0; r < ranks; r++) {
        double waited = time[r].wait - x->waited_s[r];
        if (r == 0 || waited < least)
            late = r, least = waited;
        most = waited > most ? waited : most;
        x->waited_s[r] = time[r].wait;
    }
    return most > 0 ? late : -1;
}

static void account(struct engine *x, const struct flying *f, const struct sched_step *step,
                    double begun, double end)
{
    double took = end - begun;
    int late = late_rank(x);
    pthread_mutex_lock(&x->lock);
    x->step_ring[x->n_step_ring++ % STEP_RING] =
        (struct engine_step){.start_s = begun,
                             .seconds = took,
                             .predicted_s = f->predicted,
                             .rows = step->batch.n_tok,
                             .decode_rows = step->decode_rows,
                             .sequences = step->n_seq};
    x->stats.steps++;
    x->stats.busy_s += took;
    if (late >= 0)
        x->late[late]++;
    x->last_commit = end;
    pthread_mutex_unlock(&x->lock);
}

/* The oldest step on its way: wait for it, commit it, hand out what it drew. */
static int take_step(struct engine *x, struct err *e)
{
    struct flying f = x->flying[0];
    struct sched_step *step = x->drive.flying[0];
    struct team_result res;
    int rc = team_wait(x->team, f.number, &res, e);
    if (rc == -EINTR)
        return 0;
    if (rc)
        return rc;
    /* A step that was chosen ahead began when the one before it ended. */
    double end = now_s(),
           begun = x->drive.ahead && x->last_commit > f.begun ? x->last_commit : f.begun;
    account(x, &f, step, begun, end);
    for (int i = 0; i < step->n_seq; i++) {
        const struct sched_part *part = &step->part[i];
        x->keep[i] = part->n - part->n_guess + right_guesses(part, &res);
    }
    drive_commit(&x->drive, x->keep, end - begun);
    memmove(x->flying, x->flying + 1, (size_t)x->drive.n_flying * sizeof(*x->flying));
    for (int i = 0; i < step->n_seq; i++) {
        const struct sched_part *part = &step->part[i];
        take_part(x, part, &res, x->keep[i] - part->n + part->n_guess);
    }
    x->restarts = 0;
    return 0;
}

/* ------------------------------------------------------------------------------- a rank died */

/* New ranks on the memory of the old ones run again the steps on their way: nobody notices. Tried
 * once between two steps; after that what is in memory is not trusted any more. Where ranks seemed
 * to hang they may only have been slow, and the team knows when to give up. */
static int replace_ranks(struct engine *x, bool hung, struct err *e)
{
    if (!x->team || (hung ? x->restarts : x->restarts++) > 0)
        return -EIO;
    return team_again(x->team, e);
}

static bool stopping(struct engine *x)
{
    pthread_mutex_lock(&x->lock);
    const bool stop = x->stop;
    pthread_mutex_unlock(&x->lock);
    return stop;
}

/* Steps on their way and stored pages are void; everybody who runs is computed again from the
 * tokens it has, and so draws the same ones. stuck: nothing can be started, only ended. */
static int load_again(struct engine *x, bool stuck, struct err *e)
{
    struct team *old = x->team, *fresh = NULL;
    int rc = -EIO;
    pthread_mutex_lock(&x->team_lock);
    experts_keep(&x->experts, old);
    x->copied += old ? team_copied(old) : 0;
    x->team = NULL;
    pthread_mutex_unlock(&x->team_lock);
    team_stop(old);
    memset(x->waited_s, 0, sizeof(x->waited_s));
    drive_restart(&x->drive);
    x->unsent = NULL;
    while (rc && !stuck && !stopping(x) && x->restarts++ < RESTARTS)
        rc = team_start(&fresh, &x->plan, x->store, &x->opts.team, e);
    pthread_mutex_lock(&x->team_lock);
    x->team = fresh;
    pthread_mutex_unlock(&x->team_lock);
    return rc;
}

/* The steps on their way begin now, for whoever learns what steps take. */
static void go_on(struct engine *x)
{
    for (int i = 0; i < x->drive.n_flying; i++)
        x->flying[i].begun = now_s();
}

/* Nobody has rows on their way now. */
static void begin_again(struct engine *x)
{
    for (struct job *r = x->live, *next; r; r = next) {
        next = r->next;
        r->seq->n_guess = 0;
        if (r->finish != RUNNING)
            finish(x, r, r->finish);
    }
}

/* why: as team_wait() gave it. */
static void restart(struct engine *x, int why, struct err *e)
{
    const double begun = now_s();
    const bool hung = why == -ETIMEDOUT;
    fprintf(stderr, "tandem: %s; starting the ranks again\n", e->text);
    int rc = replace_ranks(x, hung, e);
    const bool kept = !rc;
    if (!kept)
        rc = load_again(x, rc == -EBUSY, e);
    const double took = now_s() - begun;
    kept ? go_on(x) : begin_again(x);
    pthread_mutex_lock(&x->lock);
    x->stats.restarts++;
    x->stats.replaced += kept;
    x->stats.hung += hung;
    x->stats.restart_s += took;
    x->stats.failed = rc != 0;
    pthread_mutex_unlock(&x->lock);
    if (rc) {
        fprintf(stderr, "tandem: %s; given up\n", e->text);
        finish_all(x, FINISH_FAILED);
        return;
    }
    fprintf(stderr, "tandem: ranks work again after %.2f s, %s\n", took,
            kept ? "on the weights and the cache of before" : "with all of it loaded anew");
}

static void publish(struct engine *x, double host_s)
{
    struct sched_figures f;
    sched_figures(x->drive.sched, &f);
    pthread_mutex_lock(&x->lock);
    struct engine_stats *s = &x->stats;
    s->running = f.running, s->waiting = f.waiting, s->waiting_tok = (int)f.waiting_tok;
    s->pages = f.pages, s->pages_used = f.pages_used, s->pages_cached = f.pages_cached;
    s->preempted = f.preempted;
    s->copied = x->copied + (x->team ? team_copied(x->team) : 0);
    s->step_s = pace_step(&x->drive.pace, 0);
    s->token_s = pace_step(&x->drive.pace, 1) - s->step_s;
    s->host_s += host_s;
    pthread_mutex_unlock(&x->lock);
}

void *engine_loop(void *arg)
{
    struct engine *x = arg;
    struct err e;
    while (take_inbox(x)) {
        double begun = now_s();
        if (x->stats.failed)
            finish_all(x, FINISH_FAILED);
        expire(x);
        int rc = x->team ? send_steps(x, &e) : 0;
        publish(x, now_s() - begun);
        if (!rc && x->drive.n_flying)
            rc = take_step(x, &e);
        if (rc)
            restart(x, rc, &e);
        publish(x, 0);
    }
    return NULL;
}
