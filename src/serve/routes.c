/* routes.c - what is at which path, and who may ask for it. */
#include "serve/inside.h"

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

void version_route(struct server *s, struct call *c)
{
    struct out out = {0};
    out_fmt(&out, "{\"version\":\"tandem %s\"}", s->opts.version);
    reply_out(c, 200, &out);
}

void plan_route(struct server *s, struct call *c)
{
    json_t *plan = plan_to_json(s->opts.plan);
    char *text = json_dumps(plan, JSON_INDENT(1));
    call_reply(c, 200, "application/json", text, strlen(text));
    free(text);
    json_decref(plan);
}

void health_route(struct server *s, struct call *c)
{
    struct engine_stats st;
    struct err e;
    struct out out = {0};
    if (!server_alive(s, &e)) {
        refuse_with(s, c, 503, "", "%s", e.text);
        return;
    }
    fleet_stats(s->fleet, &st);
    out_fmt(&out,
            "{\"status\":\"ok\",\"steps\":%llu,\"seconds_since_step\":%.3f,\"running\":%d,"
            "\"waiting\":%d,\"restarts\":%llu,\"hung\":%llu}",
            (unsigned long long)st.steps, st.last_commit_s, st.running, st.waiting,
            (unsigned long long)st.restarts, (unsigned long long)st.hung);
    reply_out(c, 200, &out);
}

static void ready_route(struct server *s, struct call *c)
{
    if (s->draining)
        refuse_with(s, c, 503, "", "the server is shutting down");
    else
        health_route(s, c);
}

void metrics_route(struct server *s, struct call *c)
{
    char *text = NULL;
    size_t n;
    FILE *to = open_memstream(&text, &n);
    must(to);
    s->metrics.connections = http_connections(s->http);
    metrics_write(to, &s->metrics, s->fleet, s->opts.plan);
    gpu_metrics_write(to, s->gpus, s->metrics.labels);
    fclose(to);
    call_reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", text, n);
    free(text);
}

static const struct route routes[] = {
    {HTTP_POST, "/v1/chat/completions", chat_route, .open = false},
    {HTTP_POST, "/v1/completions", completions_route, .open = false},
    {HTTP_GET, "/v1/models", models_route, .open = false},
    {HTTP_POST, "/tokenize", tokenize_route, .open = false},
    {HTTP_POST, "/detokenize", detokenize_route, .open = false},
    {HTTP_GET, "/health", health_route, .open = true},
    {HTTP_GET, "/ready", ready_route, .open = true},
    {HTTP_GET, "/metrics", metrics_route, .open = false},
    {HTTP_GET, "/version", version_route, .open = false},
    {HTTP_GET, "/plan", plan_route, .open = false},
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

bool take_route(struct server *s, struct call *c, const struct route *route, size_t n)
{
    enum http_method method = call_method(c);
    bool path_known = false;
    for (size_t i = 0; i < n; i++) {
        const struct route *r = &route[i];
        if (strcmp(r->path, call_path(c)))
            continue;
        path_known = true;
        if (r->method == method || (method == HTTP_HEAD && r->method == HTTP_GET)) {
            if (r->open || may_ask(s, c))
                r->handle(s, c);
            return true;
        }
    }
    if (path_known)
        refuse_with(s, c, 405, "", "%.200s does not take this method", call_path(c));
    return path_known;
}

void take_call(void *arg, struct call *c)
{
    struct server *s = arg;
    if (cors(s, c) || take_route(s, c, routes, COUNT(routes)))
        return;
    if (may_ask(s, c) && !one_model(s, c))
        refuse_with(s, c, 404, "", "there is nothing at %.200s", call_path(c));
}
