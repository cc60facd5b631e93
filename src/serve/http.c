/* http.c - see http.h. */
#include "serve/http.h"
#include "serve/conns.h"
#include "serve/tls.h"

#include <ctype.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOST_HEADERS = 100, MOST_CONNECTIONS = 4096, SPARE_FILES = 128, MOST_WAITING = 4096 };

struct http {
    struct http_opts opts;
    struct event_base *base;
    struct evhttp *server;
    struct evconnlistener *listener;
    struct evhttp_bound_socket *bound;
    struct conns *conns;
    int port, n_calls;
    void (*done)(void *arg); /* when n_calls becomes 0 */
    void *done_arg;
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

static void say_done(evutil_socket_t fd, short what, void *arg)
{
    struct http *h = arg;
    (void)fd;
    (void)what;
    h->done(h->done_arg);
}

static void look_whether_done(struct http *h)
{
    if (h->done && !h->n_calls) /* not from within a callback of evhttp */
        event_base_once(h->base, -1, EV_TIMEOUT, say_done, h, NULL);
}

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
    c->http->n_calls--;
    look_whether_done(c->http);
    free(c);
}

static void on_close_idle(struct evhttp_connection *conn, void *arg)
{
    struct http *h = arg;
    conns_forget(h->conns, evhttp_connection_get_bufferevent(conn));
}

/* All is written; the connection goes on to its next request. */
static void on_complete(struct evhttp_request *req, void *arg)
{
    struct call *c = arg;
    struct evhttp_connection *conn = evhttp_request_get_connection(req);
    if (conn) {
        evhttp_connection_set_closecb(conn, on_close_idle, c->http);
        conns_busy(c->http->conns, evhttp_connection_get_bufferevent(conn), false);
    }
    call_free(c);
}

/* The connection ends with the call unanswered or unread. evhttp has taken the request off the
 * connection when nobody has answered it: then it is ours to free. */
static void on_close(struct evhttp_connection *conn, void *arg)
{
    struct call *c = arg;
    on_close_idle(conn, c->http);
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

/* As RFC 9110 has it: no blank before the colon, nothing that another reader might skip. */
static bool names_are_tokens(struct evhttp_request *req)
{
    int n = 0;
    struct evkeyval *kv;
    for (kv = evhttp_request_get_input_headers(req)->tqh_first; kv; kv = kv->next.tqe_next) {
        if (++n > MOST_HEADERS || !*kv->key)
            return false;
        for (const char *c = kv->key; *c; c++)
            if (!isalnum((unsigned char)*c) && !strchr("!#$%&'*+-.^_`|~", *c))
                return false;
    }
    return true;
}

/* What a proxy in front might read otherwise than we do, so that one request became two. */
static const char *what_is_malformed(struct evhttp_request *req)
{
    const char *length = "0", *host = NULL, *encoding = "chunked";
    int n_length = count_header(req, "Content-Length", &length);
    int n_host = count_header(req, "Host", &host);
    int n_encoding = count_header(req, "Transfer-Encoding", &encoding);
    if (!names_are_tokens(req))
        return "at most 100 headers with plain names are allowed";
    if (n_length > 1 || length[strspn(length, "0123456789")] || !*length)
        return "one Content-Length in digits is allowed";
    if (n_host > 1)
        return "one Host is allowed";
    if (n_encoding + n_length > 1 || strcasecmp(encoding, "chunked"))
        return "one Transfer-Encoding, chunked, or a Content-Length, is allowed";
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

/* As OpenAI words it. What comes after a malformed request is not to be trusted. */
static void refuse(struct call *c, const char *why)
{
    char body[256];
    int n = snprintf(body, sizeof(body),
                     "{\"error\":{\"message\":\"%s\",\"type\":\"invalid_request_error\","
                     "\"param\":null,\"code\":null}}",
                     why);
    call_add_header(c, "Connection", "close");
    call_reply(c, 400, "application/json", body, (size_t)n);
}

static void on_request(struct evhttp_request *req, void *arg)
{
    struct http *h = arg;
    struct call *c = calloc(1, sizeof(*c));
    must(c);
    c->http = h;
    c->req = req;
    h->n_calls++;
    struct evhttp_connection *conn = evhttp_request_get_connection(req);
    evhttp_connection_set_closecb(conn, on_close, c);
    evhttp_request_set_on_complete_cb(req, on_complete, c);
    conns_busy(h->conns, evhttp_connection_get_bufferevent(conn), true);
    watch_hangup(c);
    const char *wrong = what_is_malformed(req);
    if (!wrong && !set_path(c))
        wrong = "the path is not as it should be";
    if (wrong)
        refuse(c, wrong);
    else
        h->opts.handle(h->opts.arg, c);
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

static int listen_at(struct http *h, const struct sockaddr *at, int n, const char *what,
                     struct err *e)
{
    unsigned how = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;
    h->listener = evconnlistener_new_bind(h->base, NULL, NULL, how, MOST_WAITING, at, n);
    return h->listener ? 0
                       : err_set(e, -errno, "cannot listen on %.200s: %s", what, strerror(errno));
}

static int listen_on_port(struct http *h, struct err *e)
{
    struct evutil_addrinfo hint = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = EVUTIL_AI_PASSIVE | EVUTIL_AI_NUMERICSERV},
                           *found = NULL;
    char port[16], what[256];
    snprintf(port, sizeof(port), "%d", h->opts.port);
    snprintf(what, sizeof(what), "%.200s port %s", h->opts.host, port);
    int rc = evutil_getaddrinfo(h->opts.host, port, &hint, &found);
    if (rc)
        return err_set(e, -EINVAL, "--host %.200s: %s", h->opts.host, evutil_gai_strerror(rc));
    rc = listen_at(h, found->ai_addr, (int)found->ai_addrlen, what, e);
    if (!rc) /* connections inherit it; else chunks wait 40 ms for the client's delayed ACK */
        setsockopt(evconnlistener_get_fd(h->listener), IPPROTO_TCP, TCP_NODELAY, &(int){1},
                   sizeof(int));
    evutil_freeaddrinfo(found);
    return rc;
}

/* A socket that nobody listens on any more is replaced; whoever may write to it may connect. */
static int listen_on_path(struct http *h, struct err *e)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    const char *path = h->opts.socket_path;
    struct stat st;
    if (strlen(path) >= sizeof(at.sun_path))
        return err_set(e, -ENAMETOOLONG, "%.200s: the path of a socket has at most %zu bytes", path,
                       sizeof(at.sun_path) - 1);
    memcpy(at.sun_path, path, strlen(path));
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool used = probe >= 0 && !connect(probe, (struct sockaddr *)&at, sizeof(at));
    if (probe >= 0)
        close(probe);
    if (used)
        return err_set(e, -EADDRINUSE, "%.200s: another server listens there", path);
    if (!lstat(path, &st) && S_ISSOCK(st.st_mode))
        unlink(path);
    mode_t mask = umask(0177);
    int rc = listen_at(h, (struct sockaddr *)&at, sizeof(at), path, e);
    umask(mask);
    return rc;
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

static struct bufferevent *new_stream(struct event_base *base, void *arg)
{
    struct http *h = arg;
    struct bufferevent *stream = h->opts.tls
                                     ? tls_stream(h->opts.tls, base)
                                     : bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    if (stream)
        conns_add(h->conns, stream);
    return stream;
}

/* Those who come now wait in the kernel. */
static void on_full(void *arg, bool full)
{
    struct http *h = arg;
    if (h->listener)
        (full ? evconnlistener_disable : evconnlistener_enable)(h->listener);
}

/* How many connections there can be: files are for other things, too. */
static int most_connections(int wanted)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files))
        return wanted;
    rlim_t need = (rlim_t)wanted + SPARE_FILES;
    if (files.rlim_cur < need) {
        files.rlim_cur = files.rlim_max < need ? files.rlim_max : need;
        setrlimit(RLIMIT_NOFILE, &files);
        getrlimit(RLIMIT_NOFILE, &files);
    }
    return files.rlim_cur < need ? max_int(1, (int)files.rlim_cur - SPARE_FILES) : wanted;
}

static void set_limits(struct http *h)
{
    const struct http_opts *o = &h->opts;
    evhttp_set_max_headers_size(h->server, (ev_ssize_t)o->max_header);
    evhttp_set_max_body_size(h->server, (ev_ssize_t)o->max_body);
    evhttp_set_timeout(h->server, 365 * 24 * 3600); /* conns.c knows better */
    evhttp_set_allowed_methods(h->server, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD |
                                              EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS);
    evhttp_set_bevcb(h->server, new_stream, h);
    evhttp_set_gencb(h->server, on_request, h);
}

int http_start(struct http **out, struct event_base *base, const struct http_opts *o, struct err *e)
{
    struct http *h = calloc(1, sizeof(*h));
    must(h);
    *out = NULL;
    h->opts = *o;
    h->base = base;
    struct conns_opts watch = {
        .most = most_connections(o->max_connections ? o->max_connections : MOST_CONNECTIONS),
        .request_s = o->request_s,
        .stall_s = o->stall_s,
        .full = on_full,
        .arg = h};
    h->conns = conns_new(base, &watch);
    int rc = o->socket_path ? listen_on_path(h, e) : listen_on_port(h, e);
    h->server = rc ? NULL : evhttp_new(base);
    h->bound = h->server ? evhttp_bind_listener(h->server, h->listener) : NULL;
    if (!rc && !h->bound)
        rc = err_set(e, -ENOMEM, "cannot start the HTTP server");
    if (rc) {
        http_free(h);
        return rc;
    }
    h->port = o->socket_path ? 0 : port_of(evconnlistener_get_fd(h->listener));
    set_limits(h);
    *out = h;
    return 0;
}

int http_port(const struct http *h) { return h->port; }

int http_connections(const struct http *h) { return conns_sweep(h->conns); }

void http_end(struct http *h, void (*done)(void *arg), void *arg)
{
    if (h->bound)
        evhttp_del_accept_socket(h->server, h->bound); /* frees the listener */
    h->bound = NULL, h->listener = NULL;
    h->done = done, h->done_arg = arg;
    look_whether_done(h);
}

void http_free(struct http *h)
{
    if (!h)
        return;
    if (h->server)
        evhttp_free(h->server);
    else if (h->listener)
        evconnlistener_free(h->listener);
    if (h->opts.socket_path && h->server)
        unlink(h->opts.socket_path);
    conns_free(h->conns);
    free(h);
}
