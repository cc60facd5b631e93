/* fleet.c - see fleet.h. */
#include "engine/fleet.h"
#include "sched/route.h"

#include <pthread.h>

struct fleet {
    int n;
    struct plan plan[PLAN_REPLICAS];
    struct gpus *gpus; /* [dp], when ranks compute on GPUs */
    struct engine *engine[PLAN_REPLICAS];
    pthread_mutex_t lock; /* of the route */
    struct route route;
};

/* Each replica on GPUs of its own, as far as there are enough. */
static struct engine_opts opts_of(struct fleet *f, int i, const struct engine_opts *opts)
{
    struct engine_opts one = *opts;
    if (opts->team.gpus) {
        f->gpus[i] = *opts->team.gpus;
        f->gpus[i].first += i * plan_ranks(&f->plan[i]);
        one.team.gpus = &f->gpus[i];
    }
    return one;
}

int fleet_start(struct fleet **out, const struct plan *p, const struct store *s,
                const struct engine_opts *opts, struct err *e)
{
    struct fleet *f = calloc(1, sizeof(*f));
    *out = NULL;
    if (f && opts->team.gpus)
        f->gpus = calloc((size_t)p->dp, sizeof(*f->gpus));
    if (!f || (opts->team.gpus && !f->gpus)) {
        free(f);
        return err_set(e, -ENOMEM, "out of memory");
    }
    pthread_mutex_init(&f->lock, NULL);
    for (; f->n < p->dp; f->n++) {
        f->plan[f->n] = plan_replica(p, f->n);
        const struct engine_opts one = opts_of(f, f->n, opts);
        int rc = engine_start(&f->engine[f->n], &f->plan[f->n], s, &one, e);
        if (rc) {
            rc = p->dp > 1 ? err_add(e, rc, "replica %d", f->n) : rc;
            fleet_stop(f);
            return rc;
        }
    }
    *out = f;
    return 0;
}

void fleet_stop(struct fleet *f)
{
    if (!f)
        return;
    for (int i = 0; i < f->n; i++)
        engine_stop(f->engine[i]);
    pthread_mutex_destroy(&f->lock);
    free(f->gpus);
    free(f);
}

/* ------------------------------------------------------------------------------- requests */

static int choose(struct fleet *f, const struct engine_request *r)
{
    double load[PLAN_REPLICAS];
    for (int i = 0; i < f->n; i++) {
        struct engine_stats s;
        engine_stats(f->engine[i], &s);
        load[i] = route_load((size_t)s.waiting_tok, s.running, s.waiting, f->plan[i].max_tok);
    }
    pthread_mutex_lock(&f->lock);
    int chosen =
        route_choose(&f->route, r->prompt, r->n_prompt, r->salt, load, route_idlest(load, f->n));
    pthread_mutex_unlock(&f->lock);
    return chosen;
}

int fleet_submit(struct fleet *f, const struct engine_request *r, uint64_t *id, struct err *e)
{
    int i = f->n > 1 && r->n_prompt > 0 ? choose(f, r) : 0;
    int rc = engine_submit(f->engine[i], r, id, e);
    if (!rc)
        *id = *id * (uint64_t)f->n + (uint64_t)i;
    return rc;
}

void fleet_cancel(struct fleet *f, uint64_t id)
{
    engine_cancel(f->engine[id % (uint64_t)f->n], id / (uint64_t)f->n);
}

struct passing {
    void (*fn)(void *arg, const struct engine_event *ev);
    void *arg;
    uint64_t n, replica;
};

static void pass(void *arg, const struct engine_event *ev)
{
    const struct passing *p = arg;
    struct engine_event own = *ev;
    own.id = ev->id * p->n + p->replica;
    p->fn(p->arg, &own);
}

int fleet_events(struct fleet *f, void (*fn)(void *arg, const struct engine_event *ev), void *arg)
{
    int n = 0;
    for (int i = 0; i < f->n; i++) {
        struct passing p = {fn, arg, (uint64_t)f->n, (uint64_t)i};
        n += engine_events(f->engine[i], pass, &p);
    }
    return n;
}

void fleet_probe(struct fleet *f)
{
    for (int i = 0; i < f->n; i++)
        engine_probe(f->engine[i]);
}

void fleet_drain(struct fleet *f)
{
    for (int i = 0; i < f->n; i++)
        engine_drain(f->engine[i]);
}

/* ------------------------------------------------------------------------------- figures */

double fleet_ttft(struct fleet *f, int n_prompt)
{
    double least = engine_ttft(f->engine[0], n_prompt);
    for (int i = 1; i < f->n; i++) {
        double t = engine_ttft(f->engine[i], n_prompt);
        least = t < least ? t : least;
    }
    return least;
}

static void add(struct engine_stats *to, const struct engine_stats *s, int n)
{
    to->steps += s->steps, to->submitted += s->submitted, to->preempted += s->preempted;
    to->restarts += s->restarts, to->replaced += s->replaced, to->hung += s->hung,
        to->restart_s += s->restart_s;
    to->copied += s->copied;
    to->prompt_tok += s->prompt_tok, to->cached_tok += s->cached_tok;
    to->new_tok += s->new_tok, to->drafted += s->drafted, to->accepted += s->accepted;
    to->busy_s += s->busy_s, to->host_s += s->host_s;
    to->running += s->running, to->waiting += s->waiting, to->waiting_tok += s->waiting_tok;
    to->pages += s->pages, to->pages_used += s->pages_used, to->pages_cached += s->pages_cached;
    to->step_s += s->step_s / n, to->token_s += s->token_s / n;
    to->last_commit_s = s->last_commit_s > to->last_commit_s ? s->last_commit_s : to->last_commit_s;
    to->idle &= s->idle, to->draining |= s->draining, to->failed |= s->failed;
    for (int i = 0; i <= FINISH_FAILED; i++)
        to->finished[i] += s->finished[i];
}

void fleet_stats(struct fleet *f, struct engine_stats *to)
{
    *to = (struct engine_stats){.idle = true};
    for (int i = 0; i < f->n; i++) {
        struct engine_stats s;
        engine_stats(f->engine[i], &s);
        add(to, &s, f->n);
    }
}

void fleet_experts(struct fleet *f, struct expert_figures *to)
{
    const struct model *m = &f->plan[0].model;
    const size_t layers = (size_t)m->n_layer, cells = layers * (size_t)m->experts.n;
    struct turn_load turns[MODEL_LAYERS];
    struct expert_figures one = {.rows = malloc(cells * sizeof(*one.rows) + 1), .turns = turns};
    must(one.rows);
    engine_experts(f->engine[0], to);
    for (int i = 1; i < f->n; i++) {
        engine_experts(f->engine[i], &one);
        to->placements += one.placements;
        to->cache.hits += one.cache.hits, to->cache.misses += one.cache.misses;
        to->cache.bytes += one.cache.bytes;
        for (size_t k = 0; k < cells; k++)
            to->rows[k] += one.rows[k];
        for (size_t l = 0; l < layers; l++)
            to->turns[l].most += turns[l].most, to->turns[l].all += turns[l].all;
    }
    free(one.rows);
}

int fleet_place(struct fleet *f, const struct placement *layer, struct err *e)
{
    int rc = 0;
    for (int i = 0; i < f->n && !rc; i++)
        rc = engine_place(f->engine[i], layer, e);
    return rc;
}

int fleet_size(const struct fleet *f) { return f->n; }
struct engine *fleet_engine(struct fleet *f, int replica) { return f->engine[replica]; }
