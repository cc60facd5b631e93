/* live.c - requests while they are answered: submitted, fed with events, sent, logged. */
#include "serve/inside.h"

#include <sys/random.h>
#include <xxhash.h>

static struct choice **bucket_of(struct server *s, uint64_t id) { return &s->bucket[id % BUCKETS]; }

static void take_out_of_bucket(struct server *s, struct choice *c)
{
    struct choice **at = bucket_of(s, c->id);
    while (*at && *at != c)
        at = &(*at)->next;
    if (*at)
        *at = c->next;
}

/* One line of the access log: what was asked, what it cost, how it ended. */
static void log_end(const struct live *l)
{
    FILE *to = l->server->log;
    if (!to || !l->reply)
        return;
    struct reply_usage u = reply_usage(l->reply);
    struct out out = {0};
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    out_fmt(&out, "{\"time\":%lld.%03ld,\"id\":", (long long)t.tv_sec, t.tv_nsec / 1000000);
    out_string(&out, l->id);
    out_fmt(&out, ",\"key\":");
    out_string(&out, l->key ? l->key->name : NULL);
    out_fmt(&out,
            ",\"path\":\"%s\",\"status\":%d,\"choices\":%d,\"prompt_tokens\":%d,"
            "\"cached_tokens\":%d,\"completion_tokens\":%d,\"seconds\":%.4f}\n",
            request_path(&l->request), l->gone ? 499 : l->status, l->n_choice, u.prompt_tok,
            u.cached_tok, u.new_tok, seconds() - l->arrived);
    fwrite(out.at, 1, out.n, to);
    fflush(to);
    out_free(&out);
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
    log_end(l);
    if (l->key)
        keys_end(l->key);
    reply_free(l->reply);
    request_free(&l->request);
    out_free(&l->out);
    free(l);
}

void cancel_open(struct live *l)
{
    for (int i = 0; i < l->n_choice; i++)
        if (l->choice[i].id && !l->choice[i].ended)
            fleet_cancel(l->server->fleet, l->choice[i].id);
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
    int status = l->status = reply_end(l->reply, &l->out);
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
    metrics_event(&s->metrics, &c->metrics, ev, s->now);
    if (!reply_event(l->reply, c->number, ev, &l->out) && !c->ended)
        fleet_cancel(s->fleet, c->id);
    if (!l->touched) {
        l->touched = true;
        l->next_touched = s->touched;
        s->touched = l;
    }
}

/* Take all events first, then write: one piece per request and turn. */
void take_events(struct server *s)
{
    s->now = seconds();
    fleet_events(s->fleet, on_event, s);
    metrics_steps(&s->metrics, s->fleet);
    if (s->metrics.priced && drift_alarm(&s->metrics.drift, s->now))
        fprintf(stderr,
                "tandem: steps take %.2f times what the hardware profile says: measure it again "
                "(tandem topo), or see who else is busy\n",
                drift_median(&s->metrics.drift));
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

void say_still_there(struct server *s)
{
    for (struct live *l = s->live, *next; l; l = next) {
        next = l->next;
        if (l->streaming && !l->gone)
            call_send(l->call, ": wait\n\n", 8);
    }
}

/* ------------------------------------------------------------------------------- asking the model
 */

uint64_t any_seed(void)
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

/* Who may find out, by its speed, that another has asked the same: only who has the same key. */
static uint64_t salt_of(const struct live *l)
{
    const char *salt = l->request.cache_salt ? l->request.cache_salt : "";
    return XXH3_64bits_withSeed(salt, strlen(salt),
                                l->server->secret ^ (l->key ? l->key->hash : 0));
}

static int submit(struct live *l, struct api_error *why)
{
    struct server *s = l->server;
    struct err e;
    const struct constraint *wanted = &l->request.constraint;
    const struct form *form = NULL;
    int max_new = 0;
    bool may_be_free = wanted->kind == CONSTRAINT_TAGS && !wanted->at_once;
    if (wanted->kind != CONSTRAINT_NONE)
        form = guides_get(&s->guides, s->opts.model, wanted, why);
    if (wanted->kind != CONSTRAINT_NONE && !form && !may_be_free)
        return -EINVAL;
    for (int i = 0; i < l->n_choice; i++) {
        struct engine_request ask;
        request_engine(&l->request, s->opts.model, i, &ask);
        ask.client = l->client;
        ask.salt = salt_of(l);
        if (form)
            ask.guide = guide_new(&s->guides, form);
        struct choice *c = &l->choice[i];
        int rc = fleet_submit(s->fleet, &ask, &c->id, &e);
        if (rc) {
            if (form)
                ask.guide.free(ask.guide.ctx);
            cancel_open(l);
            return refusal_of(rc, &e, why);
        }
        max_new = ask.max_new;
        c->live = l;
        c->number = i;
        c->metrics = (struct metrics_choice){.arrived = seconds(), .n_prompt = ask.n_prompt};
        c->next = *bucket_of(s, c->id);
        *bucket_of(s, c->id) = c;
    }
    metrics_request(&s->metrics, l->n_choice, max_new);
    return 0;
}

/* Tokens that the request may take at most, for its key's bucket. */
static double most_tokens(const struct request *r, const struct api_model *m)
{
    double most = 0;
    for (int i = 0; i < request_choices(r); i++) {
        struct engine_request ask;
        request_engine(r, m, i, &ask);
        most += ask.n_prompt + ask.max_new;
    }
    return most;
}

/* May this key begin it now? */
static bool has_room(struct server *s, struct call *call, struct key *key, const struct request *r)
{
    double wait = key ? keys_begin(key, most_tokens(r, s->opts.model), seconds()) : 0;
    if (wait <= 0)
        return true;
    char after[16];
    snprintf(after, sizeof(after), "%.0f", wait + 0.5 < 1 ? 1 : wait + 0.5);
    call_add_header(call, "Retry-After", after);
    refuse_with(s, call, 429, "rate_limit_exceeded",
                "this API key has reached its limit: try again in %s s", after);
    return false;
}

static void name_request(struct live *l, struct call *call)
{
    const char *given = call_header(call, "X-Request-Id");
    if (l->request.request_id)
        given = l->request.request_id;
    if (given && *given && strlen(given) < sizeof(l->id))
        snprintf(l->id, sizeof(l->id), "%s", given);
    else
        snprintf(l->id, sizeof(l->id), "req-%016llx", (unsigned long long)any_seed());
    call_add_header(call, "X-Request-Id", l->id);
}

/* The parsed request becomes a live one. */
void go_live(struct server *s, struct call *call, struct key *key, int client, struct request *r)
{
    struct api_error why;
    int n = request_choices(r);
    if (!has_room(s, call, key, r)) {
        request_free(r);
        return;
    }
    struct live *l = calloc(1, sizeof(*l) + (size_t)n * sizeof(l->choice[0]));
    must(l);
    l->server = s;
    l->call = call;
    l->request = *r;
    l->key = key;
    l->client = client;
    l->arrived = seconds();
    l->status = 200;
    l->n_choice = n;
    name_request(l, call);
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
        l->status = why.status;
        live_free(l);
        refuse(s, call, &why);
    }
}
