/* admin.c - the operator's side, on a unix socket: what runs, end a request, reload, drain. */
#include "base/json.h"
#include "serve/experts.h"
#include "serve/inside.h"

static void requests_route(struct server *s, struct call *c)
{
    struct out out = {0};
    out_str(&out, "[");
    for (const struct live *l = s->live; l; l = l->next) {
        struct reply_usage u = reply_usage(l->reply);
        out_item(&out);
        out_str(&out, "{");
        out_key(&out, "id");
        out_string(&out, l->id);
        out_key(&out, "key");
        out_string(&out, l->key ? l->key->name : NULL);
        out_key(&out, "path");
        out_string(&out, request_path(&l->request));
        out_key(&out, "stream");
        out_str(&out, l->request.stream ? "true" : "false");
        out_key(&out, "choices");
        out_int(&out, l->n_choice);
        out_key(&out, "prompt_tokens");
        out_int(&out, u.prompt_tok);
        out_key(&out, "completion_tokens");
        out_int(&out, u.new_tok);
        out_key(&out, "seconds");
        out_real(&out, seconds() - l->arrived);
        out_str(&out, "}");
    }
    out_str(&out, "]\n");
    reply_out(c, 200, &out);
}

/* DELETE /requests/ID: its clients get what there is so far. */
static bool end_request(struct server *s, struct call *c)
{
    static const char prefix[] = "/requests/";
    int n = 0;
    if (call_method(c) != HTTP_DELETE || strncmp(call_path(c), prefix, sizeof(prefix) - 1))
        return false;
    for (struct live *l = s->live; l; l = l->next)
        if (!strcmp(l->id, call_path(c) + sizeof(prefix) - 1)) {
            cancel_open(l);
            n++;
        }
    if (!n)
        refuse_with(s, c, 404, "", "no request of this id is running");
    else
        call_reply(c, 200, "application/json", "{}\n", 3);
    return true;
}

static void reload_route(struct server *s, struct call *c)
{
    struct err e;
    if (server_reload(s, &e))
        refuse_with(s, c, 400, "", "%s", e.text);
    else
        call_reply(c, 200, "application/json", "{}\n", 3);
}

static void drain_route(struct server *s, struct call *c)
{
    call_reply(c, 200, "application/json", "{}\n", 3);
    server_drain(s);
}

static void reply_json(struct call *c, json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(6));
    must(text);
    call_reply(c, 200, "application/json", text, strlen(text));
    free(text);
    json_decref(o);
}

static void experts_route(struct server *s, struct call *c)
{
    reply_json(c, experts_report(s->fleet, s->opts.plan));
}

/* The experts of the next steps are held as the body says, in layers that it does not name by
 * all. */
static void place_route(struct server *s, struct call *c)
{
    const struct plan *p = s->opts.plan;
    const int layers = p->model.n_layer;
    struct placement *layer = calloc((size_t)layers, sizeof(*layer));
    struct err e;
    size_t n;
    const char *body = call_body(c, &n);
    json_t *o = json_parse(body ? body : "", n, "the placement", &e);
    int rc = !o                   ? -EINVAL
             : p->model.experts.n ? 0
                                  : err_set(&e, -EINVAL, "the model has no experts");
    must(layer);
    for (int l = 0; !rc && l < layers; l++)
        layer[l] = placement_all(p->model.experts.n, p->ep);
    if (!rc)
        rc = placement_from_json(o, layer, layers, &e);
    if (!rc)
        rc = fleet_place(s->fleet, layer, &e);
    json_decref(o);
    free(layer);
    if (rc)
        refuse_with(s, c, 400, "", "%s", e.text);
    else
        call_reply(c, 200, "application/json", "{}\n", 3);
}

static const struct route routes[] = {
    {HTTP_GET, "/requests", requests_route, .open = true},
    {HTTP_POST, "/reload", reload_route, .open = true},
    {HTTP_POST, "/drain", drain_route, .open = true},
    {HTTP_GET, "/experts", experts_route, .open = true},
    {HTTP_POST, "/experts/placement", place_route, .open = true},
    {HTTP_GET, "/health", health_route, .open = true},
    {HTTP_GET, "/metrics", metrics_route, .open = true},
    {HTTP_GET, "/plan", plan_route, .open = true},
    {HTTP_GET, "/version", version_route, .open = true},
};

void take_admin_call(void *arg, struct call *c)
{
    struct server *s = arg;
    if (!take_route(s, c, routes, COUNT(routes)) && !end_request(s, c))
        refuse_with(s, c, 404, "", "there is nothing at %.200s", call_path(c));
}
