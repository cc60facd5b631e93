/* client.c - see client.h. */
#include "load/client.h"
#include "load/answer.h"
#include "load/sse.h"

enum { WHY = 160 };

struct call {
    struct client *client;
    struct call *next; /* in the list of all, or of those not in use */
    struct call *next_idle;
    bool running;
    CURL *easy;
    char *body;
    double now; /* when the bytes that are being read came */
    struct outcome o;
    struct series gaps;
    struct sse sse;
    struct answer answer;
    char refusal[2048]; /* the beginning of a body with another status than 200 */
    size_t n_refusal;
    char why[WHY];
};

struct client {
    const struct target *target;
    const char *path;
    struct event_base *base;
    double begin;
    client_done *done;
    void *arg;
    CURLM *multi;
    struct event *timer;
    struct call *all, *idle;
};

static double now(const struct client *c) { return clock_s() - c->begin; }

/* ------------------------------------------------------------------------------- what comes in */

static void on_event(void *arg, const char *data, size_t n)
{
    struct call *k = arg;
    if (!answer_take(&k->answer, data, n))
        return;
    if (k->o.chunks++)
        series_add(&k->gaps, k->now - k->o.last);
    else
        k->o.first = k->now;
    k->o.last = k->now;
}

/* The beginning of a body that is no stream. */
static void keep_refusal(struct call *k, const char *bytes, size_t n)
{
    n = min_size(n, sizeof(k->refusal) - k->n_refusal);
    memcpy(k->refusal + k->n_refusal, bytes, n);
    k->n_refusal += n;
}

static size_t on_bytes(char *bytes, size_t one, size_t n, void *arg)
{
    struct call *k = arg;
    long status = 0;
    (void)one;
    k->now = now(k->client);
    curl_easy_getinfo(k->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        keep_refusal(k, bytes, n);
        return n;
    }
    if (sse_feed(&k->sse, bytes, n)) {
        k->answer.bad = true;
        snprintf(k->answer.why, sizeof(k->answer.why), "an event of over %d bytes", SSE_MOST);
        return 0;
    }
    return n;
}

/* ------------------------------------------------------------------------------- how it ended */

static enum fate fate_of_status(int status)
{
    return status == 429 ? FATE_BUSY : status >= 500 ? FATE_SERVER_ERROR : FATE_REFUSED;
}

/* The message of an error object, else the body as it is, as far as it can be printed. */
static void say_refusal(struct call *k)
{
    json_t *o = json_loadb(k->refusal, k->n_refusal, 0, NULL);
    const char *words = json_string_value(json_object_get(json_object_get(o, "error"), "message"));
    snprintf(k->why, sizeof(k->why), "status %d: %.*s", k->o.status,
             words ? (int)sizeof(k->why) : (int)k->n_refusal, words ? words : k->refusal);
    for (char *at = k->why; *at; at++)
        if (*at < ' ' || *at > '~')
            *at = ' ';
    json_decref(o);
}

static enum fate fate_of(struct call *k, CURLcode code)
{
    const struct answer *a = &k->answer;
    if (k->o.status && k->o.status != 200) {
        say_refusal(k);
        return fate_of_status(k->o.status);
    }
    snprintf(k->why, sizeof(k->why), "%s", a->why);
    if (a->failed)
        return FATE_SERVER_ERROR;
    if (a->bad)
        return FATE_BAD_REPLY;
    if (code == CURLE_OPERATION_TIMEDOUT) {
        snprintf(k->why, sizeof(k->why), "no end after %g s",
                 (double)k->client->target->timeout_ms / 1e3);
        return FATE_TIMEOUT;
    }
    if (!code && a->finished)
        return FATE_FINISHED;
    if (!code && !k->o.chunks && !a->usage) {
        snprintf(k->why, sizeof(k->why), "the reply is no stream of chunks");
        return FATE_BAD_REPLY;
    }
    snprintf(k->why, sizeof(k->why), "%s",
             code ? curl_easy_strerror(code) : "the stream ended before the answer did");
    return FATE_DISCONNECTED;
}

static void end_call(struct call *k, enum fate fate)
{
    struct client *c = k->client;
    struct outcome *o = &k->o;
    o->fate = fate;
    o->end = now(c);
    if (!o->chunks && fate == FATE_FINISHED)
        o->first = o->last = o->end; /* tokens without text */
    o->prompt_tok = k->answer.prompt_tok;
    o->cached_tok = k->answer.cached_tok;
    o->output_tok = k->answer.usage ? k->answer.output_tok : o->chunks;
    curl_multi_remove_handle(c->multi, k->easy);
    free(k->body);
    k->body = NULL;
    k->running = false;
    k->next_idle = c->idle;
    c->idle = k;
    struct outcome copy = *o; /* done() may send again, with this very call */
    struct series gaps = k->gaps;
    char why[sizeof(k->why)];
    memcpy(why, k->why, sizeof(why));
    k->gaps = (struct series){0};
    c->done(c->arg, &copy, &gaps, why);
    series_free(&gaps);
}

static void collect(struct client *c)
{
    CURLMsg *m;
    for (int left; (m = curl_multi_info_read(c->multi, &left));) {
        struct call *k = NULL;
        long status = 0;
        CURLcode code = m->data.result;
        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)(void *)&k);
        curl_easy_getinfo(m->easy_handle, CURLINFO_RESPONSE_CODE, &status);
        k->o.status = (int)status;
        end_call(k, fate_of(k, code));
    }
}

/* ------------------------------------------------------------------------------- libcurl, libevent
 */

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct client *c = arg;
    int running,
        flags = (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
    curl_multi_socket_action(c->multi, fd, flags, &running);
    collect(c);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct client *c = arg;
    int running;
    (void)fd, (void)what;
    curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(c);
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *sockp)
{
    struct client *c = arg;
    struct event *event = sockp;
    (void)easy;
    if (event)
        event_free(event);
    event = NULL;
    if (what != CURL_POLL_REMOVE) {
        short flags = (short)((what & CURL_POLL_IN ? EV_READ : 0) |
                              (what & CURL_POLL_OUT ? EV_WRITE : 0) | EV_PERSIST);
        event = event_new(c->base, fd, flags, on_socket, c);
        must(event && !event_add(event, NULL));
    }
    curl_multi_assign(c->multi, fd, event);
    return 0;
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
    struct client *c = arg;
    struct timeval t = {ms / 1000, ms % 1000 * 1000};
    (void)multi;
    if (ms < 0)
        evtimer_del(c->timer);
    else
        evtimer_add(c->timer, &t);
    return 0;
}

/* ------------------------------------------------------------------------------- calls */

static struct call *new_call(struct client *c)
{
    struct call *k = calloc(1, sizeof(*k));
    must(k);
    *k = (struct call){.client = c, .next = c->all, .easy = curl_easy_init()};
    must(k->easy);
    k->sse = (struct sse){.event = on_event, .arg = k};
    curl_easy_setopt(k->easy, CURLOPT_PRIVATE, k);
    curl_easy_setopt(k->easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(k->easy, CURLOPT_WRITEDATA, k);
    return c->all = k;
}

void client_send(struct client *c, uint64_t number, double scheduled, char *body)
{
    struct call *k = c->idle ? c->idle : new_call(c);
    if (k == c->idle)
        c->idle = k->next_idle;
    k->body = body;
    k->answer = (struct answer){0};
    k->why[0] = 0;
    k->n_refusal = 0;
    k->running = true;
    k->o = (struct outcome){.number = number, .scheduled = scheduled, .sent = now(c)};
    sse_restart(&k->sse);
    target_prepare(c->target, k->easy, c->path, body);
    must(!curl_multi_add_handle(c->multi, k->easy));
}

void client_cancel(struct client *c)
{
    for (struct call *k = c->all; k; k = k->next)
        if (k->running)
            end_call(k, FATE_CANCELLED);
}

uint64_t client_chunks(const struct client *c)
{
    uint64_t n = 0;
    for (const struct call *k = c->all; k; k = k->next)
        n += k->running ? (uint64_t)k->o.chunks : 0;
    return n;
}

int client_overdue(const struct client *c, const struct slo *slo)
{
    int n = 0;
    for (const struct call *k = c->all; k; k = k->next) {
        double waited = now(c) - k->o.scheduled;
        bool no_text = !k->o.chunks && slo->ttft && waited > slo->ttft;
        n += k->running && (no_text || (slo->e2e && waited > slo->e2e));
    }
    return n;
}

struct client *client_new(const struct target *t, const char *path, struct event_base *base,
                          double begin, client_done *done, void *arg)
{
    struct client *c = calloc(1, sizeof(*c));
    must(c);
    *c = (struct client){.target = t,
                         .path = path,
                         .base = base,
                         .begin = begin,
                         .done = done,
                         .arg = arg,
                         .multi = curl_multi_init()};
    c->timer = evtimer_new(base, on_timer, c);
    must(c->multi && c->timer);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, 65536L);
    return c;
}

void client_free(struct client *c)
{
    while (c->all) {
        struct call *k = c->all;
        c->all = k->next;
        must(!k->running);
        curl_easy_cleanup(k->easy);
        sse_free(&k->sse);
        series_free(&k->gaps);
        free(k);
    }
    curl_multi_cleanup(c->multi);
    event_free(c->timer);
    free(c);
}
