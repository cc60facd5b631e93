/* http.c - see http.h. */
#include "serve/http.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <netdb.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

struct http {
    struct http_opts opts;
    struct event_base *base;
    struct evhttp *server;
    struct evconnlistener *listener;
    struct evhttp_bound_socket *bound;
    int port;
};

struct call {
    struct http *http;
    struct evhttp_request *req;
    struct event *hangup; /* the other side closed */
    struct evbuffer *piece;
    char path[512];
    void (*gone)(void *arg);
    void *arg;
    bool streaming, dropped;
};

/* ------------------------------------------------------------------------------- life of a call */

static struct bufferevent *stream_of(const struct call *c)
{
    struct evhttp_connection *conn = evhttp_request_get_connection(c->req);
    return conn ? evhttp_connection_get_bufferevent(conn) : NULL;
}

static void call_free(struct call *c)
{
    if (c->hangup)
        event_free(c->hangup);
    if (c->piece)
        evbuffer_free(c->piece);
    free(c);
}

/* All is written; the connection goes on to its next request. */
static void on_complete(struct evhttp_request *req, void *arg)
{
    struct call *c = arg;
    struct evhttp_connection *conn = evhttp_request_get_connection(req);
    if (conn) {
        evhttp_connection_set_closecb(conn, NULL, NULL);
        evhttp_connection_set_timeout(conn, c->http->opts.idle_s);
    }
    call_free(c);
}

/* The connection ends with the call unanswered or unread. evhttp has taken the request off the
 * connection when nobody has answered it: then it is ours to free. */
static void on_close(struct evhttp_connection *conn, void *arg)
{
    struct call *c = arg;
    (void)conn;
    if (c->gone)
        c->gone(c->arg);
    if (!evhttp_request_get_connection(c->req))
        evhttp_request_free(c->req);
    call_free(c);
}

/* evhttp does not read while a request is being answered (pipelined bytes would confuse it), so it
 * would notice a closed connection only when it writes: tell it. */
static void on_hangup(evutil_socket_t fd, short what, void *arg)
{
    struct call *c = arg;
    struct bufferevent *stream = stream_of(c);
    (void)fd;
    (void)what;
    if (stream)
        bufferevent_trigger_event(stream, BEV_EVENT_READING | BEV_EVENT_EOF, 0);
}

static void watch_hangup(struct call *c)
{
    struct bufferevent *stream = stream_of(c);
    evutil_socket_t fd = bufferevent_getfd(stream);
    c->hangup = event_new(c->http->base, fd, EV_CLOSED, on_hangup, c);
    if (c->hangup)
        event_add(c->hangup, NULL);
}

/* ------------------------------------------------------------------------------- what comes in */

static int count_header(struct evhttp_request *req, const char *name, const char **value)
{
    int n = 0;
    struct evkeyval *kv;
    for (kv = evhttp_request_get_input_headers(req)->tqh_first; kv; kv = kv->next.tqe_next)
        if (!strcasecmp(kv->key, name))
            n++, *value = kv->value;
    return n;
}

/* What a proxy in front might read otherwise than we do, so that one request became two. */
static const char *what_is_malformed(struct evhttp_request *req)
{
    const char *length = "0", *host = NULL, *encoding = NULL;
    int n_length = count_header(req, "Content-Length", &length);
    int n_host = count_header(req, "Host", &host);
    int n_encoding = count_header(req, "Transfer-Encoding", &encoding);
    if (n_length > 1 || length[strspn(length, "0123456789")] || !*length)
        return "one Content-Length in digits is allowed";
    if (n_host > 1)
        return "one Host is allowed";
    if (n_encoding > 1 || (n_encoding && n_length))
        return "one Transfer-Encoding, or a Content-Length, is allowed";
    return NULL;
}

static bool set_path(struct call *c)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(c->req);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    size_t n;
    char *plain = path ? evhttp_uridecode(path, 0, &n) : NULL;
    bool good = plain && n == strlen(plain) && n < sizeof(c->path);
    if (good)
        memcpy(c->path, plain, n + 1);
    free(plain);
    return good;
}

static void on_request(struct evhttp_request *req, void *arg)
{
    struct http *h = arg;
    const char *wrong = what_is_malformed(req);
    struct call *c = wrong ? NULL : calloc(1, sizeof(*c));
    if (!c) {
        evhttp_add_header(evhttp_request_get_output_headers(req), "Connection", "close");
        evhttp_send_error(req, wrong ? HTTP_BADREQUEST : HTTP_INTERNAL, wrong);
        return;
    }
    c->http = h;
    c->req = req;
    struct evhttp_connection *conn = evhttp_request_get_connection(req);
    evhttp_connection_set_closecb(conn, on_close, c);
    evhttp_request_set_on_complete_cb(req, on_complete, c);
    evhttp_connection_set_timeout(conn, 24 * 3600); /* an answer may take its time */
    watch_hangup(c);
    if (set_path(c))
        h->opts.handle(h->opts.arg, c);
    else
        call_reply(c, 400, "text/plain", "bad path\n", 9);
}

enum http_method call_method(const struct call *c)
{
    switch (evhttp_request_get_command(c->req)) {
    case EVHTTP_REQ_POST: return HTTP_POST;
    case EVHTTP_REQ_HEAD: return HTTP_HEAD;
    case EVHTTP_REQ_DELETE: return HTTP_DELETE;
    case EVHTTP_REQ_OPTIONS: return HTTP_OPTIONS;
    default: return HTTP_GET;
    }
}

const char *call_path(const struct call *c) { return c->path; }

const char *call_header(const struct call *c, const char *name)
{
    return evhttp_find_header(evhttp_request_get_input_headers(c->req), name);
}

const char *call_body(const struct call *c, size_t *n)
{
    struct evbuffer *body = evhttp_request_get_input_buffer(c->req);
    *n = evbuffer_get_length(body);
    return *n ? (const char *)evbuffer_pullup(body, -1) : NULL;
}

const char *call_peer(const struct call *c)
{
    struct evhttp_connection *conn = evhttp_request_get_connection(c->req);
    char *address = NULL;
    ev_uint16_t port;
    if (conn)
        evhttp_connection_get_peer(conn, &address, &port);
    return address ? address : "";
}

void call_on_gone(struct call *c, void (*fn)(void *arg), void *arg)
{
    c->gone = fn;
    c->arg = arg;
}

/* ------------------------------------------------------------------------------- what goes out */

void call_add_header(struct call *c, const char *name, const char *value)
{
    evhttp_add_header(evhttp_request_get_output_headers(c->req), name, value);
}

void call_reply(struct call *c, int status, const char *type, const char *body, size_t n)
{
    struct evbuffer *b = evbuffer_new();
    must(b);
    c->gone = NULL;
    call_add_header(c, "Content-Type", type);
    if (call_method(c) == HTTP_HEAD) {
        char length[24];
        snprintf(length, sizeof(length), "%zu", n);
        call_add_header(c, "Content-Length", length);
    } else {
        evbuffer_add(b, body, n);
    }
    evhttp_send_reply(c->req, status, NULL, b);
    evbuffer_free(b);
}

void call_begin(struct call *c, int status, const char *type)
{
    c->streaming = true;
    c->piece = evbuffer_new();
    must(c->piece);
    call_add_header(c, "Content-Type", type);
    call_add_header(c, "Cache-Control", "no-cache");
    call_add_header(c, "X-Accel-Buffering", "no");
    evhttp_send_reply_start(c->req, status, NULL);
}

bool call_send(struct call *c, const char *at, size_t n)
{
    struct bufferevent *stream = stream_of(c);
    if (c->dropped || !stream)
        return false;
    if (evbuffer_get_length(bufferevent_get_output(stream)) > c->http->opts.max_backlog) {
        c->dropped = true; /* not from within the caller's loop */
        event_active(c->hangup, EV_CLOSED, 0);
        return false;
    }
    evbuffer_add(c->piece, at, n);
    evhttp_send_reply_chunk(c->req, c->piece);
    return true;
}

void call_end(struct call *c)
{
    c->gone = NULL;
    if (!c->dropped)
        evhttp_send_reply_end(c->req);
}

/* ------------------------------------------------------------------------------- listening */

static int listen_on(struct http *h, struct err *e)
{
    struct evutil_addrinfo hint = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = EVUTIL_AI_PASSIVE | EVUTIL_AI_NUMERICSERV},
                           *found = NULL;
    char port[16];
    snprintf(port, sizeof(port), "%d", h->opts.port);
    int rc = evutil_getaddrinfo(h->opts.host, port, &hint, &found);
    if (rc)
        return err_set(e, -EINVAL, "--host %.200s: %s", h->opts.host, evutil_gai_strerror(rc));
    h->listener = evconnlistener_new_bind(
        h->base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
        4096, found->ai_addr, (int)found->ai_addrlen);
    int error = errno;
    evutil_freeaddrinfo(found);
    if (!h->listener)
        return err_set(e, -error, "cannot listen on %.200s port %d: %s", h->opts.host, h->opts.port,
                       strerror(error));
    return 0;
}

static int port_of(int fd)
{
    struct sockaddr_storage at;
    socklen_t n = sizeof(at);
    char port[16] = "0";
    if (!getsockname(fd, (struct sockaddr *)&at, &n))
        getnameinfo((struct sockaddr *)&at, n, NULL, 0, port, sizeof(port), NI_NUMERICSERV);
    return atoi(port);
}

int http_start(struct http **out, struct event_base *base, const struct http_opts *o, struct err *e)
{
    struct http *h = calloc(1, sizeof(*h));
    must(h);
    *out = NULL;
    h->opts = *o;
    h->base = base;
    int rc = listen_on(h, e);
    h->server = rc ? NULL : evhttp_new(base);
    h->bound = h->server ? evhttp_bind_listener(h->server, h->listener) : NULL;
    if (!rc && !h->bound)
        rc = err_set(e, -ENOMEM, "cannot start the HTTP server");
    if (rc) {
        http_free(h);
        return rc;
    }
    h->port = port_of(evconnlistener_get_fd(h->listener));
    evhttp_set_max_headers_size(h->server, (ev_ssize_t)o->max_header);
    evhttp_set_max_body_size(h->server, (ev_ssize_t)o->max_body);
    evhttp_set_timeout(h->server, o->idle_s);
    evhttp_set_allowed_methods(h->server, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD |
                                              EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS);
    evhttp_set_gencb(h->server, on_request, h);
    *out = h;
    return 0;
}

int http_port(const struct http *h) { return h->port; }

void http_deafen(struct http *h)
{
    if (h->bound)
        evhttp_del_accept_socket(h->server, h->bound); /* frees the listener */
    h->bound = NULL, h->listener = NULL;
}

void http_free(struct http *h)
{
    if (!h)
        return;
    if (h->server)
        evhttp_free(h->server);
    else if (h->listener)
        evconnlistener_free(h->listener);
    free(h);
}
