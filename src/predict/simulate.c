/* simulate.c - see simulate.h: the clients' side, and the clock. Replicas are replica.c's. */
#include "base/buffer.h"
#include "base/least.h"
#include "predict/price.h"
#include "predict/replica.h"
#include "predict/timeline.h"
#include "sched/route.h"

#include <math.h>
#include <time.h>

enum { LOOK_EVERY = 1024 }; /* turns between two looks at the real clock, for tick */

static const double retry_s = 0.001; /* after a refusal, in a closed loop */

struct sim {
    const struct simulation *ask;
    const struct load *load;
    struct plan plan; /* of one replica */
    struct replicas all;
    struct replica *replica;
    int n;
    struct least turn, load_of; /* of every replica: when its next turn is, its load */
    struct route *route;
    double now;

    /* Requests. */
    struct arrivals arrivals;
    uint64_t next;    /* the one that is sent next, */
    double next_at;   /* when it is due; INFINITY: there is none */
    double closed_at; /* in a closed loop none is due before */
    int running;
    struct sim_request **sent; /* [next] that have not ended; NULL: ended */
    size_t sent_room;
    uint64_t oldest; /* none before runs; for patience_s */

    int n_cancelled, n_killed;
    struct draws deaths;
    double death_at; /* of the next by deaths_hour */
    uint64_t turns;
    double told_s; /* when tick was last called, in real time */
    struct load_progress progress;
    struct tally gaps;
    struct timeline timeline;
    struct sim_result *to;
    struct pool pool;
};

/* The replica's next turn and its load may be others now. */
static void changed(struct sim *s, int i)
{
    least_set(&s->turn, i, s->replica[i].next);
    least_set(&s->load_of, i, replica_load(&s->replica[i]));
}

/* ------------------------------------------------------------------------------- what is told */

static void add_outcome(struct sim *s, const struct outcome *o, const char *why)
{
    static const struct series none;
    struct results *r = &s->to->results;
    bool good = outcome_good(o, &s->load->slo);
    r->bad += !good;
    r->gave_up = r->bad > s->load->most_bad;
    s->progress.finished += o->fate == FATE_FINISHED;
    s->progress.failed += o->fate != FATE_FINISHED;
    s->progress.output_tok += (uint64_t)o->output_tok;
    results_add(r, o, &none, why);
}

static void add_ended(struct sim *s, const struct sim_request *q, enum fate fate, const char *why)
{
    const struct seq *seq = q->seq;
    int output = seq->n_tok - seq->n_prompt;
    add_outcome(s,
                &(struct outcome){.number = q->number,
                                  .scheduled = q->scheduled,
                                  .sent = q->sent,
                                  .first = q->first,
                                  .last = q->last,
                                  .end = s->now,
                                  .prompt_tok = seq->n_prompt,
                                  .cached_tok = seq->n_cached,
                                  .output_tok = output,
                                  .chunks = output,
                                  .status = 200,
                                  .fate = fate},
                why);
    s->sent[q->number] = NULL;
    s->running--;
    s->closed_at = s->now;
}

static void finished(void *arg, const struct sim_request *q, double now)
{
    struct sim *s = arg;
    s->now = now;
    add_ended(s, q, FATE_FINISHED, "");
}

static void refused(struct sim *s, double scheduled, enum fate fate, const char *why)
{
    add_outcome(s,
                &(struct outcome){.number = s->next - 1,
                                  .scheduled = scheduled,
                                  .sent = s->now,
                                  .end = s->now,
                                  .status = fate == FATE_BUSY ? 429 : 400,
                                  .fate = fate},
                why);
    s->closed_at = s->now + retry_s;
}

/* ------------------------------------------------------------------------------- a request */

/* The next request is due at next_at, if there is one. */
static void prepare(struct sim *s)
{
    const struct load *l = s->load;
    s->next_at = INFINITY;
    if (s->next >= l->requests)
        return;
    double at = load_due(l, &s->arrivals, s->next);
    if (!l->duration_s || at < l->duration_s)
        s->next_at = at;
}

/* When the next request is sent: when it is due and may run. */
static double due(const struct sim *s)
{
    const struct load *l = s->load;
    if (l->concurrency && s->running >= l->concurrency)
        return INFINITY;
    double at = l->timing == LOAD_CLOSED ? fmax(s->next_at, s->closed_at) : s->next_at;
    if (l->timing == LOAD_CLOSED && l->duration_s && at >= l->duration_s)
        return INFINITY;
    return fmax(at, s->now);
}

/* Tokens stand for what they are part of: equal ones are equal, others differ. All of the answer
 * is written too; the scheduler looks at no token before it is drawn. */
static void fill_tokens(const struct sim *s, uint64_t number, struct seq *q)
{
    const struct workload *w = &s->load->work;
    const struct trace_row *row = w->trace.n ? &w->trace.row[number % w->trace.n] : NULL;
    const int shared = INT32_MAX, block = 1 << 30, own = (int)(number & (uint64_t)(block - 1));
    int at = 0;
    for (; at < min_int(w->shared_prefix_tok, q->n_prompt); at++)
        q->tok[at] = shared;
    for (int i = 0; row && i < row->n_block; i++) {
        uint64_t id = w->trace.block[row->first_block + (size_t)i] * 0x9E3779B97F4A7C15u;
        for (int k = 0; k < TRACE_BLOCK && at < q->n_prompt; k++)
            q->tok[at++] = block | (int)(k % 2 ? id >> 34 : id & (uint64_t)(block - 1));
    }
    for (; at < q->n_max; at++)
        q->tok[at] = own;
}

static bool shares_beginnings(const struct sim *s)
{
    const struct workload *w = &s->load->work;
    return s->ask->request || w->shared_prefix_tok || (w->trace.n && w->trace.row[0].n_block);
}

static struct sim_request *new_request(struct sim *s, double scheduled, struct request_shape shape)
{
    struct sim_request *q = calloc(1, sizeof(*q));
    must(q);
    *q = (struct sim_request){.number = s->next - 1, .scheduled = scheduled, .sent = s->now};
    int n_max = min_int(shape.prompt_tok + shape.output_tok, s->plan.ctx);
    q->seq = s->all.none_alike ? seq_new_blank(n_max) : seq_new(n_max);
    must(q->seq);
    q->seq->owner = q;
    q->seq->id = s->next;
    q->seq->n_prompt = q->seq->n_tok = shape.prompt_tok;
    q->seq->want = shape.prompt_tok - 1;
    q->seq->follows = s->all.ahead;
    if (s->ask->request)
        s->ask->request(s->ask->arg, q->number, q->seq);
    else if (q->seq->tok)
        fill_tokens(s, q->number, q->seq);
    return q;
}

static int choose_replica(struct sim *s, const struct seq *q)
{
    if (s->n == 1)
        return 0;
    int n = s->all.none_alike ? 0 : q->n_prompt; /* nobody knows any of it */
    return route_choose(s->route, q->tok, n, q->salt, s->load_of.value, least_first(&s->load_of));
}

static void remember(struct sim *s, struct sim_request *q)
{
    size_t before = s->sent_room;
    s->sent = grow(s->sent, &s->sent_room, (size_t)q->number + 1, sizeof(*s->sent));
    memset(s->sent + before, 0, (s->sent_room - before) * sizeof(*s->sent));
    s->sent[q->number] = q;
}

static void send_request(struct sim *s)
{
    double scheduled = s->load->timing == LOAD_CLOSED ? s->now : s->next_at;
    struct request_shape shape = workload_shape(&s->load->work, s->next++);
    char why[160];
    shape.prompt_tok += s->load->work.shared_prefix_tok;
    s->progress.sent++;
    prepare(s);
    if (shape.prompt_tok >= s->plan.ctx) {
        snprintf(why, sizeof(why), "a prompt of %d tokens, the context is %d", shape.prompt_tok,
                 s->plan.ctx);
        refused(s, scheduled, FATE_REFUSED, why);
        return;
    }
    struct sim_request *q = new_request(s, scheduled, shape);
    q->replica = choose_replica(s, q->seq);
    struct queue_state queue = replica_queue(&s->replica[q->replica]);
    if (queue_asked(&queue, &s->ask->queue, shape.prompt_tok) != QUEUE_TAKES) {
        snprintf(why, sizeof(why), "%d requests with prompts of %zu tokens wait already",
                 queue.waiting, queue.waiting_tok);
        sim_request_free(q);
        refused(s, scheduled, FATE_BUSY, why);
        return;
    }
    s->running++;
    remember(s, q);
    replica_submit(&s->replica[q->replica], q, s->now);
    changed(s, q->replica);
}

/* ------------------------------------------------------------------------------- what goes wrong
 */

static void give_up(struct sim *s, struct sim_request *q, enum fate fate)
{
    if (!q)
        return;
    add_ended(s, q, fate, fate == FATE_TIMEOUT ? "the client gave up" : "cancelled");
    replica_give_up(&s->replica[q->replica], q);
}

static double next_cancel(const struct sim *s)
{
    return s->n_cancelled < s->ask->n_cancel ? s->ask->cancel[s->n_cancelled].at_s : INFINITY;
}

static void cancel(struct sim *s)
{
    uint64_t number = s->ask->cancel[s->n_cancelled++].request;
    give_up(s, number < s->next && number < s->sent_room ? s->sent[number] : NULL, FATE_CANCELLED);
}

/* Requests are sent in the order of their numbers, and all have the same patience. */
static double next_timeout(struct sim *s)
{
    if (s->ask->patience_s <= 0)
        return INFINITY;
    while (s->oldest < s->next && (s->oldest >= s->sent_room || !s->sent[s->oldest]))
        s->oldest++;
    return s->oldest < s->next ? s->sent[s->oldest]->sent + s->ask->patience_s : INFINITY;
}

static void draw_death(struct sim *s)
{
    double an_hour = s->ask->deaths_hour * s->n;
    s->death_at += an_hour > 0 ? draw_exponential(&s->deaths) * 3600 / an_hour : INFINITY;
}

static double next_death(const struct sim *s)
{
    const struct simulation *a = s->ask;
    double given = s->n_killed < a->n_death ? a->death[s->n_killed].at_s : INFINITY;
    return fmin(given, s->death_at);
}

static void kill_one(struct sim *s)
{
    const struct simulation *a = s->ask;
    int i;
    if (s->n_killed < a->n_death && a->death[s->n_killed].at_s <= s->death_at) {
        i = a->death[s->n_killed++].replica;
    } else {
        i = (int)(draw_bits(&s->deaths) % (uint64_t)s->n);
        draw_death(s);
    }
    replica_kill(&s->replica[i], &s->all, s->now);
    changed(s, i);
}

/* ------------------------------------------------------------------------------- the clock */

static double real_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void tell(struct sim *s)
{
    double real = real_s();
    if (real - s->told_s < 0.1)
        return;
    s->told_s = real;
    s->progress.seconds = s->now;
    s->load->tick(s->load->arg, &s->progress);
}

static void turn(struct sim *s, int i)
{
    replica_turn(&s->replica[i], &s->all);
    changed(s, i);
    if (s->load->tick && ++s->turns % LOOK_EVERY == 0)
        tell(s);
}

/* Whatever is next; of several things at once requests come first. Returns false at the end. */
static bool advance(struct sim *s)
{
    int i = least_first(&s->turn);
    double at[] = {due(s), fmin(next_cancel(s), next_timeout(s)), next_death(s), s->turn.value[i]};
    size_t least = 0;
    for (size_t k = 1; k < COUNT(at); k++)
        least = at[k] < at[least] ? k : least;
    bool over = isinf(at[0]) && !s->running && isinf(at[3]);
    if (over || isinf(at[least]) || s->to->results.gave_up)
        return false;
    s->now = at[least];
    switch (least) {
    case 0: send_request(s); break;
    case 1:
        if (next_cancel(s) <= s->now)
            cancel(s);
        else
            give_up(s, s->sent[s->oldest], FATE_TIMEOUT);
        break;
    case 2: kill_one(s); break;
    case 3: turn(s, i); break;
    }
    return true;
}

/* ------------------------------------------------------------------------------- begin and end */

static int check(const struct simulation *a, int n, struct err *e)
{
    const struct load *l = a->load;
    if (l->work.prompts.n)
        return err_set(e, -EINVAL,
                       "simulate: how long the prompts of a file are only a tokenizer knows: give "
                       "their lengths, or a trace");
    for (int i = 0; i < a->n_death; i++)
        if (a->death[i].replica < 0 || a->death[i].replica >= n)
            return err_set(e, -EINVAL,
                           "simulate: there is no replica %d to kill; the last of %d is %d",
                           a->death[i].replica, n, n - 1);
    must(l->timing != LOAD_CLOSED || l->concurrency > 0);
    must(l->timing != LOAD_TRACE || l->requests <= l->work.trace.n);
    return 0;
}

static void open_replicas(struct sim *s)
{
    struct arena a = {0};
    struct replica one;
    replica_open(&one, 0, &s->all, &a);
    size_t bytes = a.used * (size_t)s->n;
    a = (struct arena){.base = pool_get(&s->pool, bytes + ARENA_ALIGN), .size = bytes};
    a.base += (ARENA_ALIGN - (uintptr_t)a.base % ARENA_ALIGN) % ARENA_ALIGN;
    s->replica = pool_get(&s->pool, (size_t)s->n * sizeof(*s->replica));
    for (int i = 0; i < s->n; i++)
        replica_open(&s->replica[i], i, &s->all, &a);
    least_open(&s->turn, s->n, INFINITY, &s->pool);
    least_open(&s->load_of, s->n, 0, &s->pool);
}

static int open_sim(struct sim *s, const struct simulation *ask, struct sim_result *to,
                    struct err *e)
{
    *s = (struct sim){.ask = ask,
                      .load = ask->load,
                      .to = to,
                      .n = ask->replicas ? ask->replicas : ask->plan->dp,
                      .arrivals = ask->load->arrivals,
                      .deaths = draw_of(ask->load->work.seed, DRAW_DEATHS, 0)};
    int rc = check(ask, s->n, e);
    if (rc)
        return rc;
    s->plan = plan_replica(ask->plan, 0);
    s->timeline.to = ask->timeline;
    s->all = (struct replicas){.ask = ask,
                               .plan = &s->plan,
                               .timeline = ask->timeline ? &s->timeline : NULL,
                               .none_alike = !shares_beginnings(s),
                               .ahead = ask->ahead,
                               .gaps = &s->gaps,
                               .finished = finished,
                               .arg = s};
    s->all.keep = pool_get(&s->pool, (size_t)s->plan.max_seq * sizeof(int));
    if (!ask->step_s && !(s->all.pricer = pricer_new(ask->plan, ask->hardware, e)))
        return -EINVAL;
    if (s->all.pricer && ask->routing)
        pricer_expect(s->all.pricer, ask->routing);
    to->lambda = s->all.pricer ? pricer_lambda(s->all.pricer) : 1;
    s->route = pool_get(&s->pool, sizeof(*s->route));
    open_replicas(s);
    timeline_begin(s->all.timeline, s->n, s->plan.pp);
    draw_death(s);
    prepare(s);
    return 0;
}

static void close_sim(struct sim *s)
{
    for (int i = 0; s->replica && i < s->n; i++)
        replica_close(&s->replica[i]);
    for (size_t i = 0; i < s->sent_room; i++)
        sim_request_free(s->sent[i]);
    free(s->sent);
    pricer_free(s->all.pricer);
    pool_free(&s->pool);
}

static void sum_up(struct sim *s)
{
    struct sim_result *to = s->to;
    uint64_t rows = 0;
    double seconds = to->results.seconds;
    for (int i = 0; i < s->n; i++) {
        const struct replica *r = &s->replica[i];
        struct sched_figures f;
        sched_figures(r->drive.sched, &f);
        to->steps += r->steps, rows += r->rows, to->deaths += r->deaths;
        to->preempted += f.preempted;
        to->pages_each = f.pages;
        to->pages_most = max_int(to->pages_most, r->pages_most);
        for (int k = 0; k < s->plan.pp && seconds > 0; k++)
            to->busy[k] += r->busy[k] / (seconds * s->n);
    }
    to->rows_mean = to->steps ? (double)rows / (double)to->steps : 0;
    to->summary = summary_of(&to->results, &s->load->slo);
    to->summary.gap = tally_digest(&s->gaps);
    to->replicas = s->n;
    to->devices = s->n * plan_ranks(&s->plan) * s->plan.threads;
    if (s->ask->hardware)
        to->dollars_hour = s->ask->hardware->price_hour.value * to->devices;
    if (to->summary.output_tok)
        to->dollars_million =
            to->dollars_hour * seconds / 3600 / (double)to->summary.output_tok * 1e6;
}

int simulate(const struct simulation *ask, struct sim_result *to, struct err *e)
{
    struct sim *s = malloc(sizeof(*s));
    *to = (struct sim_result){0};
    must(s);
    int rc = open_sim(s, ask, to, e);
    if (!rc) {
        while (advance(s))
            ;
        timeline_end(s->all.timeline);
        sum_up(s);
    }
    close_sim(s);
    free(s);
    return rc;
}

void sim_result_free(struct sim_result *r) { results_free(&r->results); }
