/* engine_help.h - for tests of the engine: a client that asks and hears what comes of it. */
#ifndef TANDEM_ENGINE_HELP_H
#define TANDEM_ENGINE_HELP_H

#include "engine/engine.h"
#include "tiny.h"

#include <pthread.h>
#include <time.h>

enum { WANTED = 64 };

struct answer {
    int tok[128], n_tok;
    float logprob[128];
    struct logprobs prompt[128];
    int n_prompt_logprobs;
    enum finish finish;
    bool ended, is_end;
    int n_cached;
};

struct client {
    struct engine *engine;
    uint64_t id[WANTED];
    struct answer answer[WANTED];
    int n, ended;
    pthread_mutex_t lock;
    pthread_cond_t bell;
    bool rung;
};

static inline void ring(void *arg)
{
    struct client *c = arg;
    pthread_mutex_lock(&c->lock);
    c->rung = true;
    pthread_cond_signal(&c->bell);
    pthread_mutex_unlock(&c->lock);
}

static inline void take(void *arg, const struct engine_event *ev)
{
    struct client *c = arg;
    for (int i = 0; i < c->n; i++) {
        struct answer *a = &c->answer[i];
        if (c->id[i] != ev->id)
            continue;
        assert_false(a->ended);
        if (ev->prompt >= 0) {
            a->prompt[ev->prompt] = ev->logprobs;
            a->n_prompt_logprobs++;
        } else if (ev->token >= 0) {
            a->logprob[a->n_tok] = ev->logprobs.chosen.logprob;
            a->tok[a->n_tok++] = ev->token;
        }
        if (ev->finish != RUNNING) {
            a->ended = true;
            a->finish = ev->finish;
            a->is_end = ev->is_end;
            a->n_cached = ev->n_cached;
            c->ended++;
        }
        return;
    }
    fail_msg("an event for nobody");
}

static inline void open_client(struct client *c, const struct plan *p, const struct tiny *t,
                               struct engine_opts opts)
{
    struct err e;
    memset(c, 0, sizeof(*c));
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->bell, NULL);
    opts.team.isa = isa_best();
    opts.wake = ring, opts.arg = c;
    if (engine_start(&c->engine, p, t->store, &opts, &e))
        fail_msg("%s", e.text);
}

static inline void wait_bell(struct client *c)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 60;
    pthread_mutex_lock(&c->lock);
    while (!c->rung)
        if (pthread_cond_timedwait(&c->bell, &c->lock, &until))
            fail_msg("no event for a minute");
    c->rung = false;
    pthread_mutex_unlock(&c->lock);
    engine_events(c->engine, take, c);
}

static inline void wait_all(struct client *c)
{
    while (c->ended < c->n)
        wait_bell(c);
}

static inline void ask(struct client *c, const struct engine_request *r)
{
    struct err e;
    if (engine_submit(c->engine, r, &c->id[c->n], &e))
        fail_msg("%s", e.text);
    c->n++;
}

static inline void close_client(struct client *c)
{
    engine_stop(c->engine);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->bell);
}

#endif
