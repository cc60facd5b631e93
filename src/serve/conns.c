/* conns.c - see conns.h. */
#include "serve/conns.h"

#include <event2/buffer.h>
#include <time.h>

enum { BUCKETS = 1024 };

struct conn {
    struct bufferevent *stream; /* with a reference of our own */
    double since_s;             /* it waits for a request; or, busy, took a byte */
    bool busy, took;
    struct conn *next;
};

struct conns {
    struct conns_opts opts;
    struct event *tick;
    struct conn *bucket[BUCKETS];
    int n;
    bool full;
};

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct conn **bucket_of(struct conns *c, const struct bufferevent *stream)
{
    return &c->bucket[((uintptr_t)stream >> 4) % BUCKETS];
}

/* What is sent went on its way: bytes left the buffer. */
static void on_output(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
    struct conn *conn = arg;
    (void)buffer;
    if (info->n_deleted)
        conn->took = true;
}

/* bufferevent_free() takes the callbacks away; ours is then the last reference. */
static bool is_closed(const struct conn *conn)
{
    bufferevent_data_cb read, write;
    bufferevent_event_cb event;
    void *arg;
    bufferevent_getcb(conn->stream, &read, &write, &event, &arg);
    return !event;
}

static void drop(struct conns *c, struct conn **at)
{
    struct conn *conn = *at;
    *at = conn->next;
    c->n--;
    evbuffer_remove_cb(bufferevent_get_output(conn->stream), on_output, conn);
    bufferevent_decref(conn->stream);
    free(conn);
    if (c->full && c->n < c->opts.most)
        c->opts.full(c->opts.arg, c->full = false);
}

static struct conn **find(struct conns *c, const struct bufferevent *stream)
{
    struct conn **at = bucket_of(c, stream);
    while (*at && (*at)->stream != stream)
        at = &(*at)->next;
    return at;
}

/* Whom to close: who brings no request in time, and who does not take its answer. */
static bool is_late(const struct conns *c, struct conn *conn, double now)
{
    if (!conn->busy)
        return now - conn->since_s > c->opts.request_s;
    if (conn->took || !evbuffer_get_length(bufferevent_get_output(conn->stream)))
        conn->since_s = now;
    conn->took = false;
    return now - conn->since_s > c->opts.stall_s;
}

int conns_sweep(struct conns *c)
{
    double now = now_s();
    for (int b = 0; b < BUCKETS; b++)
        for (struct conn **at = &c->bucket[b], *conn; (conn = *at);) {
            if (!is_closed(conn) && is_late(c, conn, now))
                bufferevent_trigger_event(conn->stream, BEV_EVENT_READING | BEV_EVENT_TIMEOUT, 0);
            if (*at != conn)
                continue; /* its owner has had it forgotten */
            if (is_closed(conn))
                drop(c, at);
            else
                at = &conn->next;
        }
    if (!c->n)
        event_del(c->tick);
    return c->n;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    conns_sweep(arg);
}

struct conns *conns_new(struct event_base *base, const struct conns_opts *o)
{
    struct conns *c = calloc(1, sizeof(*c));
    must(c);
    c->opts = *o;
    c->tick = event_new(base, -1, EV_PERSIST, on_tick, c);
    must(c->tick);
    return c;
}

void conns_free(struct conns *c)
{
    if (!c)
        return;
    for (int b = 0; b < BUCKETS; b++)
        while (c->bucket[b])
            drop(c, &c->bucket[b]);
    event_free(c->tick);
    free(c);
}

void conns_add(struct conns *c, struct bufferevent *stream)
{
    struct conn *conn = calloc(1, sizeof(*conn)), **at = bucket_of(c, stream);
    must(conn);
    bufferevent_incref(stream);
    *conn = (struct conn){.stream = stream, .since_s = now_s(), .next = *at};
    *at = conn;
    evbuffer_add_cb(bufferevent_get_output(stream), on_output, conn);
    if (!event_pending(c->tick, EV_TIMEOUT, NULL))
        event_add(c->tick, &(struct timeval){.tv_sec = 1});
    if (++c->n >= c->opts.most && !c->full)
        c->opts.full(c->opts.arg, c->full = true);
}

void conns_busy(struct conns *c, struct bufferevent *stream, bool busy)
{
    struct conn *conn = *find(c, stream);
    if (!conn)
        return;
    conn->busy = busy;
    conn->took = false;
    conn->since_s = now_s();
}

void conns_forget(struct conns *c, struct bufferevent *stream)
{
    struct conn **at = find(c, stream);
    if (*at)
        drop(c, at);
}
