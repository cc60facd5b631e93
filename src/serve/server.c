/* server.c - a server's start, its running on one event loop, and its end. See server.h. */
#include "serve/inside.h"
#include "serve/tls.h"

#include <sys/eventfd.h>
#include <unistd.h>

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    uint64_t rung;
    (void)what;
    if (read(fd, &rung, sizeof(rung)) == sizeof(rung))
        take_events(arg);
}

static void ring(void *arg)
{
    struct server *s = arg;
    uint64_t one = 1;
    if (write(s->wake_fd, &one, sizeof(one)) != sizeof(one))
        abort(); /* an eventfd takes any ring */
}

static void on_heartbeat(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    say_still_there(arg);
}

static int add_events(struct server *s, struct err *e)
{
    s->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    s->wake = event_new(s->base, s->wake_fd, EV_READ | EV_PERSIST, on_wake, s);
    s->heartbeat = event_new(s->base, -1, EV_PERSIST, on_heartbeat, s);
    if (s->wake_fd < 0 || !s->wake || !s->heartbeat)
        return err_set(e, -ENOMEM, "cannot watch the engine: %s", strerror(errno));
    event_add(s->wake, NULL);
    event_add(s->heartbeat, &(struct timeval){.tv_sec = HEARTBEAT_S});
    return 0;
}

/* The old file stays when the new one cannot be opened. */
static int open_log(struct server *s, struct err *e)
{
    const char *path = s->opts.access_log;
    if (!path)
        return 0;
    FILE *log = strcmp(path, "-") ? fopen(path, "ae") : stdout;
    if (!log)
        return err_set(e, -errno, "--access-log %.200s: %s", path, strerror(errno));
    if (s->log && s->log != stdout)
        fclose(s->log);
    s->log = log;
    return 0;
}

static int start_admin(struct server *s, struct err *e)
{
    struct http_opts o = s->opts.http;
    o.socket_path = s->opts.admin_socket;
    o.tls = NULL;
    o.max_connections = 16;
    o.handle = take_admin_call;
    return http_start(&s->admin, s->base, &o, e);
}

int server_start(struct server **out, struct event_base *base, const struct server_opts *o,
                 struct err *e)
{
    struct server *s = calloc(1, sizeof(*s));
    must(s);
    *out = NULL;
    s->opts = *o;
    s->base = base;
    s->wake_fd = -1;
    s->secret = any_seed();
    s->n_call = any_seed(); /* ids of replies differ from those before a restart */
    s->started = (long long)time(NULL);
    metrics_init(&s->metrics, o->model->name[0]);
    s->metrics.priced = o->engine.price.fn != NULL;
    snprintf(s->fingerprint, sizeof(s->fingerprint), "fp_%016llx",
             (unsigned long long)plan_hash(o->plan));
    s->opts.http.handle = take_call, s->opts.http.arg = s;
    s->opts.engine.wake = ring, s->opts.engine.arg = s;
    int rc = add_events(s, e);
    if (!rc)
        rc = open_log(s, e);
    if (!rc && o->key_file)
        rc = keys_load(&s->keys, o->key_file, e);
    if (!rc) /* before the model is loaded, which may take minutes: who comes meanwhile waits */
        rc = http_start(&s->http, base, &s->opts.http, e);
    if (!rc && o->admin_socket)
        rc = start_admin(s, e);
    if (!rc)
        rc = fleet_start(&s->fleet, o->plan, o->store, &s->opts.engine, e);
    if (!rc) /* after ranks are forked, while no thread opens libraries */
        s->gpus = gpu_metrics_start(NULL);
    if (rc) {
        server_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

int server_reload(struct server *s, struct err *e)
{
    int rc = s->opts.key_file ? keys_load(&s->keys, s->opts.key_file, e) : 0;
    if (!rc && s->opts.http.tls)
        rc = tls_reload(s->opts.http.tls, e);
    return rc ? rc : open_log(s, e);
}

bool server_alive(struct server *s, struct err *e)
{
    struct engine_stats st;
    fleet_stats(s->fleet, &st);
    if (st.failed)
        return !err_set(e, -EIO,
                        "the ranks have failed and cannot be started again; the log says why");
    if (st.last_commit_s > STALLED_S)
        return !err_set(e, -EIO, "no step was committed for %.0f s", st.last_commit_s);
    if (st.idle)
        fleet_probe(s->fleet);
    return true;
}

int server_port(const struct server *s) { return http_port(s->http); }

struct fleet *server_fleet(struct server *s) { return s->fleet; }

static void leave(void *arg)
{
    struct server *s = arg;
    event_base_loopexit(s->base, NULL);
}

static void on_quiet(void *arg)
{
    struct server *s = arg;
    if (s->admin)
        http_end(s->admin, leave, s); /* who asked for it shall hear of it */
    else
        leave(s);
}

/* Time is up: what still runs ends with what it has, which its clients may take for a moment. */
static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct server *s = arg;
    (void)fd;
    (void)what;
    for (struct live *l = s->live; l; l = l->next)
        cancel_open(l);
    event_base_loopexit(s->base, &(struct timeval){.tv_sec = LAST_WORDS_S});
}

void server_drain(struct server *s)
{
    if (s->draining) {
        event_base_loopexit(s->base, NULL);
        return;
    }
    s->draining = true;
    fleet_drain(s->fleet);
    s->deadline = event_new(s->base, -1, 0, on_deadline, s);
    must(s->deadline);
    event_add(s->deadline, &(struct timeval){.tv_sec = (time_t)s->opts.drain_s});
    http_end(s->http, on_quiet, s);
}

void server_free(struct server *s)
{
    if (!s)
        return;
    http_free(s->admin);
    http_free(s->http); /* whoever is still connected is gone: their requests end here */
    fleet_stop(s->fleet);
    gpu_metrics_stop(s->gpus);
    keys_free(s->keys);
    guides_free(&s->guides);
    if (s->log && s->log != stdout)
        fclose(s->log);
    if (s->deadline)
        event_free(s->deadline);
    if (s->wake)
        event_free(s->wake);
    if (s->heartbeat)
        event_free(s->heartbeat);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    free(s);
}
