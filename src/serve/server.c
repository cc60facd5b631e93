/* server.c - routes, and a server's start and end. See server.h. */
#include "serve/inside.h"

#include <sys/eventfd.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------- routes */

static void ask(struct server *s, struct call *c, enum api_kind kind)
{
    int number = 0;
    struct key *key = s->keys ? keys_find(s->keys, call_header(c, "Authorization"), &number) : NULL;
    int client = key ? 1 + number % (SCHED_CLIENTS - 1) : 0;
    struct request r = {0};
    struct api_error why = {0};
    size_t n;
    const char *body = call_body(c, &n);
    if (s->draining) {
        refuse_with(s, c, 503, "", "the server is shutting down");
        return;
    }
    int rc = request_parse(kind, body ? body : "", n, s->opts.model, &r, &why);
    if (!rc)
        rc = request_prompts(&r, s->opts.model, &why);
    if (!rc && kind & (API_CHAT | API_COMPLETIONS)) {
        go_live(s, c, key, client, &r);
        return;
    }
    struct out out = {0};
    if (rc) {
        refuse(s, c, &why);
    } else {
        (kind == API_TOKENIZE ? reply_tokenize : reply_detokenize)(&out, &r, s->opts.model);
        reply_out(c, 200, &out);
    }
    request_free(&r);
}

static void chat_route(struct server *s, struct call *c) { ask(s, c, API_CHAT); }
static void completions_route(struct server *s, struct call *c) { ask(s, c, API_COMPLETIONS); }
static void tokenize_route(struct server *s, struct call *c) { ask(s, c, API_TOKENIZE); }
static void detokenize_route(struct server *s, struct call *c) { ask(s, c, API_DETOKENIZE); }

static void models_route(struct server *s, struct call *c)
{
    struct out out = {0};
    reply_models(&out, s->opts.model, s->started);
    reply_out(c, 200, &out);
}

static void version_route(struct server *s, struct call *c)
{
    struct out out = {0};
    out_fmt(&out, "{\"version\":\"tandem %s\"}", s->opts.version);
    reply_out(c, 200, &out);
}

static void plan_route(struct server *s, struct call *c)
{
    json_t *plan = plan_to_json(s->opts.plan);
    char *text = json_dumps(plan, JSON_INDENT(1));
    call_reply(c, 200, "application/json", text, strlen(text));
    free(text);
    json_decref(plan);
}

/* Alive while steps are committed: a step that takes longer than this has stalled. An idle engine
 * is asked to compute a step, which the next call judges. */
static void health_route(struct server *s, struct call *c)
{
    struct engine_stats st;
    fleet_stats(s->fleet, &st);
    if (st.failed || st.last_commit_s > STALLED_S) {
        refuse_with(s, c, 503, "", "no step was committed for %.0f s", st.last_commit_s);
        return;
    }
    if (st.idle)
        fleet_probe(s->fleet);
    call_reply(c, 200, "application/json", "{\"status\":\"ok\"}", 15);
}

static void ready_route(struct server *s, struct call *c)
{
    if (s->draining)
        refuse_with(s, c, 503, "", "the server is shutting down");
    else
        health_route(s, c);
}

static void metrics_route(struct server *s, struct call *c)
{
    char *text = NULL;
    size_t n;
    FILE *to = open_memstream(&text, &n);
    must(to);
    metrics_write(to, &s->metrics, s->fleet, s->opts.plan);
    fclose(to);
    call_reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", text, n);
    free(text);
}

static const struct route {
    enum http_method method;
    const char *path;
    void (*handle)(struct server *s, struct call *c);
    bool open; /* without a key */
} routes[] = {
    {HTTP_POST, "/v1/chat/completions", chat_route, false},
    {HTTP_POST, "/v1/completions", completions_route, false},
    {HTTP_GET, "/v1/models", models_route, false},
    {HTTP_POST, "/tokenize", tokenize_route, false},
    {HTTP_POST, "/detokenize", detokenize_route, false},
    {HTTP_GET, "/health", health_route, true},
    {HTTP_GET, "/ready", ready_route, true},
    {HTTP_GET, "/metrics", metrics_route, false},
    {HTTP_GET, "/version", version_route, false},
    {HTTP_GET, "/plan", plan_route, false},
};

/* GET /v1/models/NAME */
static bool one_model(struct server *s, struct call *c)
{
    static const char prefix[] = "/v1/models/";
    const struct api_model *m = s->opts.model;
    const char *name = call_path(c) + sizeof(prefix) - 1;
    if (call_method(c) != HTTP_GET || strncmp(call_path(c), prefix, sizeof(prefix) - 1))
        return false;
    for (int i = 0; i < m->n_names; i++)
        if (!strcmp(name, m->name[i])) {
            struct out out = {0};
            out_fmt(&out, "{\"id\":");
            out_string(&out, name);
            out_fmt(&out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"tandem\"}",
                    s->started);
            reply_out(c, 200, &out);
            return true;
        }
    refuse_with(s, c, 404, "model_not_found", "there is no model \"%.200s\"", name);
    return true;
}

/* Whoever has no key is told so, and nothing else. */
static bool may_ask(struct server *s, struct call *c)
{
    int number;
    if (!s->keys || keys_find(s->keys, call_header(c, "Authorization"), &number))
        return true;
    call_add_header(c, "WWW-Authenticate", "Bearer");
    refuse_with(s, c, 401, "invalid_api_key",
                "an API key is needed: send it as \"Authorization: Bearer KEY\"");
    return false;
}

static void on_call(void *arg, struct call *c)
{
    struct server *s = arg;
    enum http_method method = call_method(c);
    bool path_known = false;
    for (size_t i = 0; i < COUNT(routes); i++) {
        const struct route *r = &routes[i];
        if (strcmp(r->path, call_path(c)))
            continue;
        path_known = true;
        if (r->method == method || (method == HTTP_HEAD && r->method == HTTP_GET)) {
            if (r->open || may_ask(s, c))
                r->handle(s, c);
            return;
        }
    }
    if (path_known)
        refuse_with(s, c, 405, "", "%.200s does not take this method", call_path(c));
    else if (may_ask(s, c) && !one_model(s, c))
        refuse_with(s, c, 404, "", "there is nothing at %.200s", call_path(c));
}

/* ------------------------------------------------------------------------------- start, stop */

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

int server_start(struct server **out, struct event_base *base, const struct server_opts *o,
                 struct err *e)
{
    struct server *s = calloc(1, sizeof(*s));
    must(s);
    *out = NULL;
    s->opts = *o;
    s->base = base;
    s->wake_fd = -1;
    s->started = (long long)time(NULL);
    metrics_init(&s->metrics, o->model->name[0]);
    snprintf(s->fingerprint, sizeof(s->fingerprint), "fp_%016llx",
             (unsigned long long)plan_hash(o->plan));
    s->opts.http.handle = on_call, s->opts.http.arg = s;
    s->opts.engine.wake = ring, s->opts.engine.arg = s;
    int rc = add_events(s, e);
    if (!rc)
        rc = server_reload(s, e);
    if (!rc)
        rc = fleet_start(&s->fleet, o->plan, o->store, &s->opts.engine, e);
    if (!rc)
        rc = http_start(&s->http, base, &s->opts.http, e);
    if (rc) {
        server_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

int server_reload(struct server *s, struct err *e)
{
    return s->opts.key_file ? keys_load(&s->keys, s->opts.key_file, e) : 0;
}

int server_port(const struct server *s) { return http_port(s->http); }

struct fleet *server_fleet(struct server *s) { return s->fleet; }

void server_drain(struct server *s)
{
    if (s->draining || !s->n_live) {
        event_base_loopexit(s->base, NULL);
        return;
    }
    s->draining = true;
    fleet_drain(s->fleet);
    http_deafen(s->http);
    struct timeval most = {.tv_sec = (time_t)s->opts.drain_s};
    event_base_loopexit(s->base, &most);
}

void server_free(struct server *s)
{
    if (!s)
        return;
    http_free(s->http); /* whoever is still connected is gone: their requests end here */
    fleet_stop(s->fleet);
    keys_free(s->keys);
    guides_free(&s->guides);
    if (s->wake)
        event_free(s->wake);
    if (s->heartbeat)
        event_free(s->heartbeat);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    free(s);
}
