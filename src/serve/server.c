/* server.c - see server.h. */
#include "serve/server.h"
#include "serve/reply.h"

#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { BUCKETS = 4096, HEARTBEAT_S = 15, STALLED_S = 30 };

/* An API request that is being answered. */
struct live {
    struct server *server;
    struct call *call;
    struct request request;
    struct reply *reply;
    struct out out;
    bool streaming, touched, gone;
    int n_choice, n_open; /* open: choices whose end has not come */
    struct live *before, *next, *next_touched;
    struct choice {
        uint64_t id;
        struct live *live;
        int number;
        bool ended;
        struct choice *next; /* in its bucket */
    } choice[];
};

struct server {
    struct server_opts opts;
    struct event_base *base;
    struct http *http;
    struct engine *engine;
    struct event *wake, *heartbeat, *deadline;
    int wake_fd;
    struct live *live, *touched;
    int n_live;
    struct choice *bucket[BUCKETS];
    uint64_t n_call;
    char fingerprint[24];
    long long started;
    bool draining;
};

/* ------------------------------------------------------------------------------- answers */

static void reply_out(struct call *c, int status, struct out *out)
{
    call_reply(c, status, "application/json", out->at ? out->at : "", out->n);
    out_free(out);
}

static void refuse(struct call *c, const struct api_error *why)
{
    struct out out = {0};
    reply_error(&out, why);
    if (why->status == 429 || why->status == 503)
        call_add_header(c, "Retry-After", why->code[0] ? "1" : "1");
    reply_out(c, why->status, &out);
}

PRINTF(4, 5)
static void refuse_with(struct call *c, int status, const char *code, const char *fmt, ...)
{
    struct api_error why = {.status = status};
    va_list args;
    snprintf(why.code, sizeof(why.code), "%s", code);
    va_start(args, fmt);
    vsnprintf(why.message, sizeof(why.message), fmt, args);
    va_end(args);
    refuse(c, &why);
}

/* ------------------------------------------------------------------------------- live requests */

static struct choice **bucket_of(struct server *s, uint64_t id) { return &s->bucket[id % BUCKETS]; }

static void take_out_of_bucket(struct server *s, struct choice *c)
{
    struct choice **at = bucket_of(s, c->id);
    while (*at && *at != c)
        at = &(*at)->next;
    if (*at)
        *at = c->next;
}

static void live_free(struct live *l)
{
    struct server *s = l->server;
    for (int i = 0; i < l->n_choice; i++)
        if (l->choice[i].id)
            take_out_of_bucket(s, &l->choice[i]);
    *(l->before ? &l->before->next : &s->live) = l->next;
    if (l->next)
        l->next->before = l->before;
    s->n_live--;
    reply_free(l->reply);
    request_free(&l->request);
    out_free(&l->out);
    free(l);
    if (s->draining && !s->n_live)
        event_base_loopexit(s->base, NULL);
}

static void cancel_open(struct live *l)
{
    for (int i = 0; i < l->n_choice; i++)
        if (l->choice[i].id && !l->choice[i].ended)
            engine_cancel(l->server->engine, l->choice[i].id);
}

/* The client has left. While this live's events are being handed out it is only marked. */
static void on_gone(void *arg)
{
    struct live *l = arg;
    cancel_open(l);
    l->call = NULL;
    l->gone = true;
    if (!l->touched)
        live_free(l);
}

static void send_piece(struct live *l)
{
    if (!l->out.n || l->gone)
        return;
    if (!l->streaming)
        call_begin(l->call, 200, "text/event-stream; charset=utf-8");
    l->streaming = true;
    call_send(l->call, l->out.at, l->out.n);
    l->out.n = 0;
}

static void finish(struct live *l)
{
    struct call *c = l->call;
    int status = reply_end(l->reply, &l->out);
    if (l->request.stream) {
        send_piece(l);
        call_end(c);
    } else {
        call_reply(c, status, "application/json", l->out.at, l->out.n);
    }
    live_free(l);
}

/* ------------------------------------------------------------------------------- events */

static void on_event(void *arg, const struct engine_event *ev)
{
    struct server *s = arg;
    struct choice *c = *bucket_of(s, ev->id);
    while (c && c->id != ev->id)
        c = c->next;
    if (!c || c->live->gone)
        return;
    struct live *l = c->live;
    c->ended |= ev->finish != RUNNING;
    if (!reply_event(l->reply, c->number, ev, &l->out) && !c->ended)
        engine_cancel(s->engine, c->id);
    if (!l->touched) {
        l->touched = true;
        l->next_touched = s->touched;
        s->touched = l;
    }
}

/* Take all events first, then write: one piece per request and turn. */
static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct server *s = arg;
    uint64_t rung;
    (void)what;
    if (read(fd, &rung, sizeof(rung)) != sizeof(rung))
        return;
    engine_events(s->engine, on_event, s);
    while (s->touched) {
        struct live *l = s->touched;
        s->touched = l->next_touched;
        if (!l->gone && l->request.stream)
            send_piece(l);
        l->touched = false;
        if (l->gone)
            live_free(l);
        else if (reply_done(l->reply))
            finish(l);
    }
}

static void ring(void *arg)
{
    struct server *s = arg;
    uint64_t one = 1;
    if (write(s->wake_fd, &one, sizeof(one)) != sizeof(one))
        abort(); /* an eventfd takes any ring */
}

/* Streams that wait for long say something that clients skip, or proxies would give them up. */
static void on_heartbeat(evutil_socket_t fd, short what, void *arg)
{
    struct server *s = arg;
    (void)fd;
    (void)what;
    for (struct live *l = s->live, *next; l; l = next) {
        next = l->next;
        if (l->streaming && !l->gone)
            call_send(l->call, ": wait\n\n", 8);
    }
}

/* ------------------------------------------------------------------------------- asking the model
 */

static uint64_t any_seed(void)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
        seed = (uint64_t)time(NULL);
    return seed >> 1;
}

static int refusal_of(int rc, const struct err *e, struct api_error *why)
{
    *why = (struct api_error){.status = 400};
    if (rc == -EAGAIN)
        why->status = 429;
    if (rc == -ESHUTDOWN || rc == -EIO)
        why->status = 503;
    snprintf(why->code, sizeof(why->code), "%s", rc == -EAGAIN ? "rate_limit_exceeded" : "");
    snprintf(why->message, sizeof(why->message), "%s", e->text);
    return rc;
}

static int submit(struct live *l, struct api_error *why)
{
    struct server *s = l->server;
    struct err e;
    for (int i = 0; i < l->n_choice; i++) {
        struct engine_request ask;
        request_engine(&l->request, s->opts.model, i, &ask);
        struct choice *c = &l->choice[i];
        int rc = engine_submit(s->engine, &ask, &c->id, &e);
        if (rc) {
            cancel_open(l);
            return refusal_of(rc, &e, why);
        }
        c->live = l;
        c->number = i;
        c->next = *bucket_of(s, c->id);
        *bucket_of(s, c->id) = c;
    }
    return 0;
}

/* The parsed request becomes a live one. */
static void go_live(struct server *s, struct call *call, struct request *r)
{
    struct api_error why;
    int n = request_choices(r);
    struct live *l = calloc(1, sizeof(*l) + (size_t)n * sizeof(l->choice[0]));
    must(l);
    l->server = s;
    l->call = call;
    l->request = *r;
    l->n_choice = n;
    l->next = s->live;
    if (s->live)
        s->live->before = l;
    s->live = l;
    s->n_live++;
    if (!r->seeded)
        request_seed(&l->request, any_seed());
    struct reply_head head = {
        .number = ++s->n_call, .created = (long long)time(NULL), .fingerprint = s->fingerprint};
    l->reply = reply_new(&l->request, s->opts.model, &head);
    call_on_gone(call, on_gone, l);
    if (submit(l, &why)) {
        call_on_gone(call, NULL, NULL);
        live_free(l);
        refuse(call, &why);
    }
}

static void ask(struct server *s, struct call *c, enum api_kind kind)
{
    struct request r = {0};
    struct api_error why = {0};
    size_t n;
    const char *body = call_body(c, &n);
    if (s->draining) {
        refuse_with(c, 503, "", "the server is shutting down");
        return;
    }
    int rc = request_parse(kind, body ? body : "", n, s->opts.model, &r, &why);
    if (!rc)
        rc = request_prompts(&r, s->opts.model, &why);
    if (!rc && kind & (API_CHAT | API_COMPLETIONS)) {
        go_live(s, c, &r);
        return;
    }
    struct out out = {0};
    if (rc) {
        refuse(c, &why);
    } else {
        (kind == API_TOKENIZE ? reply_tokenize : reply_detokenize)(&out, &r, s->opts.model);
        reply_out(c, 200, &out);
    }
    request_free(&r);
}

/* ------------------------------------------------------------------------------- routes */

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
    engine_stats(s->engine, &st);
    if (st.failed || st.last_commit_s > STALLED_S) {
        refuse_with(c, 503, "", "no step was committed for %.0f s", st.last_commit_s);
        return;
    }
    if (st.idle)
        engine_probe(s->engine);
    call_reply(c, 200, "application/json", "{\"status\":\"ok\"}", 15);
}

static void ready_route(struct server *s, struct call *c)
{
    if (s->draining)
        refuse_with(c, 503, "", "the server is shutting down");
    else
        health_route(s, c);
}

static const struct route {
    enum http_method method;
    const char *path;
    void (*handle)(struct server *s, struct call *c);
} routes[] = {
    {HTTP_POST, "/v1/chat/completions", chat_route},
    {HTTP_POST, "/v1/completions", completions_route},
    {HTTP_GET, "/v1/models", models_route},
    {HTTP_POST, "/tokenize", tokenize_route},
    {HTTP_POST, "/detokenize", detokenize_route},
    {HTTP_GET, "/health", health_route},
    {HTTP_GET, "/ready", ready_route},
    {HTTP_GET, "/version", version_route},
    {HTTP_GET, "/plan", plan_route},
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
    refuse_with(c, 404, "model_not_found", "there is no model \"%.200s\"", name);
    return true;
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
            r->handle(s, c);
            return;
        }
    }
    if (path_known)
        refuse_with(c, 405, "", "%.200s does not take this method", call_path(c));
    else if (!one_model(s, c))
        refuse_with(c, 404, "", "there is nothing at %.200s", call_path(c));
}

/* ------------------------------------------------------------------------------- start, stop */

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
    snprintf(s->fingerprint, sizeof(s->fingerprint), "fp_%016llx",
             (unsigned long long)plan_hash(o->plan));
    s->opts.http.handle = on_call, s->opts.http.arg = s;
    s->opts.engine.wake = ring, s->opts.engine.arg = s;
    int rc = add_events(s, e);
    if (!rc)
        rc = engine_start(&s->engine, o->plan, o->store, &s->opts.engine, e);
    if (!rc)
        rc = http_start(&s->http, base, &s->opts.http, e);
    if (rc) {
        server_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

int server_port(const struct server *s) { return http_port(s->http); }

struct engine *server_engine(struct server *s) { return s->engine; }

void server_drain(struct server *s)
{
    if (s->draining || !s->n_live) {
        event_base_loopexit(s->base, NULL);
        return;
    }
    s->draining = true;
    engine_drain(s->engine);
    http_deafen(s->http);
    struct timeval most = {.tv_sec = (time_t)s->opts.drain_s};
    event_base_loopexit(s->base, &most);
}

void server_free(struct server *s)
{
    if (!s)
        return;
    http_free(s->http); /* whoever is still connected is gone: their requests end here */
    engine_stop(s->engine);
    if (s->wake)
        event_free(s->wake);
    if (s->heartbeat)
        event_free(s->heartbeat);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    free(s);
}
