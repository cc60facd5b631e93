/* drive.c - see drive.h. */
#include "load/drive.h"

#include <signal.h>
#include <sys/resource.h>

struct drive {
    const struct load *load;
    struct results *results;
    struct client *client;
    struct event_base *base;
    struct event *due, *tick, *signal[2];
    struct arrivals arrivals;
    double begin;
    uint64_t next; /* the request that is sent next */
    double next_at;
    char *next_body; /* made while there is time */
    int running;
    struct load_progress progress;
};

static double now(const struct drive *d) { return clock_s() - d->begin; }

/* ------------------------------------------------------------------------------- what is next */

/* Prepare request d->next; without one, next_body stays NULL. */
static void prepare(struct drive *d)
{
    const struct load *l = d->load;
    if (d->next >= l->requests || d->results->interrupted || d->results->gave_up)
        return;
    d->next_at = load_due(l, &d->arrivals, d->next);
    if (!l->duration_s || d->next_at < l->duration_s)
        d->next_body = workload_body(&l->work, d->next);
}

static void wait_until(struct drive *d, double at)
{
    double s = at - now(d);
    struct timeval t = {0};
    if (s > 0) {
        t.tv_sec = (time_t)s;
        t.tv_usec = (suseconds_t)((s - (double)t.tv_sec) * 1e6);
    }
    evtimer_add(d->due, &t);
}

static void end_when_done(struct drive *d)
{
    if (!d->next_body && !d->running)
        event_base_loopbreak(d->base);
}

/* Send all that is due. */
static void send_due(struct drive *d)
{
    const struct load *l = d->load;
    while (d->next_body && (!l->concurrency || d->running < l->concurrency)) {
        double at = l->timing == LOAD_CLOSED ? now(d) : d->next_at;
        if (l->timing == LOAD_CLOSED && l->duration_s && at >= l->duration_s) {
            free(d->next_body);
            d->next_body = NULL;
            break;
        }
        if (at > now(d)) {
            wait_until(d, at);
            return;
        }
        char *body = d->next_body;
        d->next_body = NULL;
        d->running++;
        d->progress.sent++;
        client_send(d->client, d->next++, at, body);
        prepare(d);
    }
    end_when_done(d);
}

static void stop(struct drive *d)
{
    free(d->next_body);
    d->next_body = NULL;
    client_cancel(d->client);
    end_when_done(d);
}

/* ------------------------------------------------------------------------------- events */

static void on_done(void *arg, const struct outcome *o, const struct series *gaps, const char *why)
{
    struct drive *d = arg;
    bool good = outcome_good(o, &d->load->slo);
    d->running--;
    d->results->bad += !good;
    d->progress.finished += o->fate == FATE_FINISHED;
    d->progress.failed += o->fate != FATE_FINISHED;
    d->progress.output_tok += (uint64_t)o->output_tok;
    results_add(d->results, o, gaps, why);
    if (d->results->interrupted || d->results->gave_up)
        return;
    wait_until(d, 0); /* not from within libcurl's callbacks' caller: others may have ended too */
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    send_due(arg);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct drive *d = arg;
    const struct load *l = d->load;
    (void)fd, (void)what;
    struct load_progress p = d->progress;
    p.seconds = now(d);
    p.output_tok += client_chunks(d->client);
    if (l->tick)
        l->tick(l->arg, &p);
    if (l->most_bad == UINT64_MAX)
        return;
    if (d->results->bad + (uint64_t)client_overdue(d->client, &l->slo) > l->most_bad) {
        d->results->gave_up = true;
        stop(d);
    }
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    struct drive *d = arg;
    (void)fd, (void)what;
    d->results->interrupted = true;
    stop(d);
}

/* ------------------------------------------------------------------------------- a run */

/* Every request is a connection. */
static void allow_files(void)
{
    struct rlimit r;
    if (!getrlimit(RLIMIT_NOFILE, &r)) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static struct event_base *new_base(void)
{
    struct event_config *c = event_config_new();
    must(c && !event_config_set_flag(c, EVENT_BASE_FLAG_PRECISE_TIMER));
    struct event_base *base = event_base_new_with_config(c);
    must(base);
    event_config_free(c);
    return base;
}

static void open_drive(struct drive *d, const struct target *t)
{
    static const int signals[] = {SIGINT, SIGTERM};
    struct timeval tenth = {0, 100000};
    d->base = new_base();
    d->due = evtimer_new(d->base, on_due, d);
    d->tick = event_new(d->base, -1, EV_PERSIST, on_tick, d);
    must(d->due && d->tick && !event_add(d->tick, &tenth));
    for (size_t i = 0; i < COUNT(signals); i++) {
        d->signal[i] = evsignal_new(d->base, signals[i], on_signal, d);
        must(d->signal[i] && !event_add(d->signal[i], NULL));
    }
    d->client = client_new(t, target_path(d->load->work.chat), d->base, d->begin, on_done, d);
}

static void close_drive(struct drive *d)
{
    client_free(d->client);
    for (size_t i = 0; i < COUNT(d->signal); i++)
        event_free(d->signal[i]);
    event_free(d->tick);
    event_free(d->due);
    event_base_free(d->base);
}

void load_run(const struct load *l, const struct target *t, struct results *r)
{
    struct drive d = {.load = l, .results = r, .arrivals = l->arrivals};
    double cpu = cpu_seconds();
    must(l->timing != LOAD_CLOSED || l->concurrency > 0);
    must(l->timing != LOAD_TRACE || l->requests <= l->work.trace.n);
    allow_files();
    signal(SIGPIPE, SIG_IGN);
    *r = (struct results){0};
    d.begin = clock_s();
    open_drive(&d, t);
    prepare(&d);
    wait_until(&d, 0);
    event_base_dispatch(d.base);
    r->cpu_seconds = cpu_seconds() - cpu;
    free(d.next_body);
    close_drive(&d);
}
