/* test_http.c - the HTTP layer under abuse: malformed requests, slow and leaving clients, limits.
 */
#include "serve/http.h"

#include <event2/event.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

/* A server in a thread of its own; what it does depends on the path. */
struct host {
    struct event_base *base;
    struct http *http;
    struct event *stop, *pulse;
    pthread_t thread;
    char path[64];
    int pipe[2];
    atomic_int calls, gone, streams;
    struct call *stream[64];
};

static void on_gone(void *arg)
{
    struct host *h = arg;
    atomic_fetch_add(&h->gone, 1);
}

static void on_stream_gone(void *arg)
{
    struct host *h = arg;
    h->stream[0] = NULL;
    atomic_fetch_add(&h->gone, 1);
}

static void on_call(void *arg, struct call *c)
{
    struct host *h = arg;
    size_t n;
    const char *body = call_body(c, &n);
    atomic_fetch_add(&h->calls, 1);
    if (!strcmp(call_path(c), "/hold")) {
        call_on_gone(c, on_gone, h);
    } else if (!strcmp(call_path(c), "/stream")) {
        call_on_gone(c, on_stream_gone, h);
        call_begin(c, 200, "text/event-stream");
        h->stream[0] = c;
    } else if (!strcmp(call_path(c), "/big")) {
        size_t big = 64 << 20;
        char *text = calloc(1, big);
        must(text);
        call_on_gone(c, on_gone, h);
        call_reply(c, 200, "text/plain", text, big);
        free(text);
    } else {
        call_reply(c, 200, "text/plain", n ? body : "", n);
    }
}

static void on_stop(evutil_socket_t fd, short what, void *arg)
{
    struct host *h = arg;
    (void)fd;
    (void)what;
    event_base_loopexit(h->base, NULL);
}

/* Streams get something all the time, as much as the client takes and more. */
static void on_pulse(evutil_socket_t fd, short what, void *arg)
{
    static char piece[256 << 10];
    struct host *h = arg;
    (void)fd;
    (void)what;
    if (h->stream[0])
        call_send(h->stream[0], piece, sizeof(piece));
}

static void *run(void *arg)
{
    struct host *h = arg;
    event_base_dispatch(h->base);
    return NULL;
}

static struct host *begin(int most, int request_s, int stall_s)
{
    struct host *h = calloc(1, sizeof(*h));
    struct err e;
    must(h);
    snprintf(h->path, sizeof(h->path), "/tmp/tandem-test-%d.socket", (int)getpid());
    struct http_opts o = {.socket_path = h->path,
                          .max_connections = most,
                          .max_body = 1 << 20,
                          .max_header = 64 << 10,
                          .max_backlog = 4 << 20,
                          .request_s = request_s,
                          .stall_s = stall_s,
                          .handle = on_call,
                          .arg = h};
    h->base = event_base_new();
    must(h->base && !pipe(h->pipe));
    if (http_start(&h->http, h->base, &o, &e))
        fail_msg("%s", e.text);
    h->stop = event_new(h->base, h->pipe[0], EV_READ, on_stop, h);
    h->pulse = event_new(h->base, -1, EV_PERSIST, on_pulse, h);
    event_add(h->stop, NULL);
    event_add(h->pulse, &(struct timeval){.tv_usec = 2000});
    must(!pthread_create(&h->thread, NULL, run, h));
    return h;
}

static void end(struct host *h)
{
    must(write(h->pipe[1], "x", 1) == 1);
    pthread_join(h->thread, NULL);
    http_free(h->http);
    event_free(h->stop);
    event_free(h->pulse);
    event_base_free(h->base);
    close(h->pipe[0]);
    close(h->pipe[1]);
    free(h);
}

/* ------------------------------------------------------------------------------- clients */

static int dial(const struct host *h)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(at.sun_path, sizeof(at.sun_path), "%s", h->path);
    if (connect(fd, (struct sockaddr *)&at, sizeof(at)))
        fail_msg("connect: %s", strerror(errno));
    return fd;
}

static void say(int fd, const char *text, size_t n)
{
    while (n) {
        ssize_t k = send(fd, text, n, MSG_NOSIGNAL);
        if (k <= 0)
            return;
        text += k, n -= (size_t)k;
    }
}

/* What comes until the other side is silent for so long, or closes (*closed). */
static size_t hear(int fd, char *to, size_t most, int ms, bool *closed)
{
    size_t n = 0;
    *closed = false;
    while (n < most - 1) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, ms) <= 0)
            break;
        ssize_t k = recv(fd, to + n, most - 1 - n, 0);
        if (k <= 0) {
            *closed = true;
            break;
        }
        n += (size_t)k;
    }
    to[n] = 0;
    return n;
}

/* The status of the answer to this text; 0: closed without one; -1: nothing came. */
static int status_of(const struct host *h, const char *text, size_t n)
{
    char answer[4096];
    bool closed = false;
    int fd = dial(h), status = -1;
    say(fd, text, n);
    for (size_t got = 0; status < 0 && !closed && got < sizeof(answer) - 1;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 5000) <= 0)
            break;
        ssize_t k = recv(fd, answer + got, sizeof(answer) - 1 - got, 0);
        closed = k <= 0;
        got += closed ? 0 : (size_t)k;
        answer[got] = 0;
        if (sscanf(answer, "HTTP/1.%*d %d", &status) != 1)
            status = -1;
    }
    close(fd);
    return status >= 0 ? status : closed ? 0 : -1;
}

static int ask(const struct host *h, const char *text) { return status_of(h, text, strlen(text)); }

static void wait_for(atomic_int *what, int value)
{
    for (int i = 0; i < 2000 && atomic_load(what) < value; i++)
        usleep(5000);
    assert_int_equal(atomic_load(what), value);
}

static void assert_well(const struct host *h)
{
    assert_int_equal(ask(h, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
}

/* ------------------------------------------------------------------------------- claims */

static void requests_that_two_readers_could_read_differently_are_refused(void **state)
{
    static const char *const bad[] = {
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\nxx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x2\r\n\r\nxx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n\r\nxx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\nxx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nxx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        "0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
        "chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\x01Y: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: nothing\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    };
    struct host *h = begin(64, 30, 30);
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        int status = ask(h, bad[i]);
        if (status != 400 && status != 0 && status != 413)
            fail_msg("request %zu was answered with %d: %s", i, status, bad[i]);
    }
    assert_int_equal(atomic_load(&h->calls), 0);
    assert_int_equal(ask(h, "BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), 501);
    assert_well(h);
    end(h);
}

static void heads_and_bodies_are_bounded(void **state)
{
    struct host *h = begin(64, 30, 30);
    size_t n = 0, most = 3 << 20;
    char *text = malloc(most);
    (void)state;
    must(text);
    n = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    memset(text + n, 'x', 200 << 10); /* one large header */
    assert_int_equal(status_of(h, text, n + (200 << 10)), 400);
    n = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < 101; i++)
        n += (size_t)sprintf(text + n, "X%d: 1\r\n", i);
    n += (size_t)sprintf(text + n, "\r\n");
    assert_int_equal(status_of(h, text, n), 400);
    n = (size_t)sprintf(text, "GET /%0600d HTTP/1.1\r\nHost: a\r\n\r\n", 7);
    assert_int_equal(status_of(h, text, n), 400);
    n = (size_t)sprintf(text, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n");
    assert_int_equal(status_of(h, text, n), 413);
    n = (size_t)sprintf(text, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 40; i++) {
        n += (size_t)sprintf(text + n, "10000\r\n");
        memset(text + n, 'x', 1 << 16);
        n += 1 << 16;
        n += (size_t)sprintf(text + n, "\r\n");
    }
    int status = status_of(h, text, n); /* more than may come, in pieces */
    assert_true(status == 413 || status == 0 || status == 400);
    assert_int_equal(atomic_load(&h->calls), 0);
    n = (size_t)sprintf(text, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 100000; i++) /* many tiny pieces */
        n += (size_t)sprintf(text + n, "1\r\nx\r\n");
    n += (size_t)sprintf(text + n, "0\r\n\r\n");
    assert_int_equal(status_of(h, text, n), 200);
    free(text);
    assert_well(h);
    end(h);
}

static void a_client_may_leave_at_every_byte(void **state)
{
    static const char text[] = "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    struct host *h = begin(256, 30, 30);
    (void)state;
    for (size_t n = 0; n < sizeof(text); n++) {
        int fd = dial(h);
        say(fd, text, n);
        close(fd);
    }
    wait_for(&h->gone, 1); /* the whole one */
    assert_int_equal(atomic_load(&h->calls), 1);
    assert_well(h);
    end(h);
}

static void who_leaves_while_it_waits_is_noticed(void **state)
{
    struct host *h = begin(64, 30, 30);
    int fd[8];
    (void)state;
    for (int i = 0; i < 8; i++) {
        fd[i] = dial(h);
        say(fd[i], "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n", 32);
    }
    wait_for(&h->calls, 8);
    assert_int_equal(atomic_load(&h->gone), 0);
    for (int i = 0; i < 4; i++)
        close(fd[i]);
    wait_for(&h->gone, 4);
    for (int i = 4; i < 8; i++)
        shutdown(fd[i], SHUT_WR); /* counts as leaving */
    wait_for(&h->gone, 8);
    for (int i = 4; i < 8; i++)
        close(fd[i]);
    assert_well(h);
    end(h);
}

static void requests_one_behind_another_are_answered_in_turn(void **state)
{
    static const char text[] =
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none"
        "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\ntwo"
        "POST /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nthree";
    struct host *h = begin(64, 30, 30);
    char answer[4096];
    bool closed;
    (void)state;
    int fd = dial(h);
    say(fd, text, sizeof(text) - 1);
    hear(fd, answer, sizeof(answer), 5000, &closed);
    close(fd);
    assert_true(closed);
    char *one = strstr(answer, "\r\n\r\none"), *two = strstr(answer, "\r\n\r\ntwo"),
         *three = strstr(answer, "\r\n\r\nthree");
    assert_true(one && two && three && one < two && two < three);
    assert_int_equal(atomic_load(&h->calls), 3);
    end(h);
}

static void a_request_that_never_becomes_whole_is_given_up(void **state)
{
    struct host *h = begin(64, 1, 30);
    char answer[1024];
    bool closed;
    (void)state;
    int slow = dial(h), silent = dial(h);
    say(slow, "POST / HTTP/1.1\r\nHost: a\r\nX: ", 29);
    for (int i = 0; i < 200; i++) { /* a byte now and then keeps no connection */
        struct pollfd p = {.fd = slow, .events = POLLIN};
        say(slow, "x", 1);
        if (poll(&p, 1, 50) > 0)
            break;
    }
    hear(slow, answer, sizeof(answer), 5000, &closed);
    assert_true(closed);
    hear(silent, answer, sizeof(answer), 5000, &closed);
    assert_true(closed);
    close(slow);
    close(silent);
    int held = dial(h); /* who waits for an answer is not slow */
    say(held, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n", 32);
    hear(held, answer, sizeof(answer), 3500, &closed);
    assert_false(closed);
    assert_int_equal(atomic_load(&h->gone), 0);
    close(held);
    wait_for(&h->gone, 1);
    end(h);
}

static void who_does_not_read_is_given_up(void **state)
{
    struct host *h = begin(64, 30, 1);
    (void)state;
    int lazy = dial(h), big = dial(h);
    say(lazy, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n", 34); /* it grows past the backlog */
    wait_for(&h->gone, 1);
    say(big, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n", 31); /* one answer that is not taken */
    wait_for(&h->calls, 2);
    char piece[4096];
    struct pollfd p = {.fd = big}; /* not read until the server has let go */
    assert_int_equal(poll(&p, 1, 30000), 1);
    assert_true(p.revents & POLLHUP);
    size_t got = 0;
    for (ssize_t k; (k = recv(big, piece, sizeof(piece), 0)) > 0;)
        got += (size_t)k;
    assert_true(got < 64 << 20);
    close(lazy);
    close(big);
    assert_well(h);
    end(h);
}

static void more_connections_than_allowed_wait(void **state)
{
    struct host *h = begin(8, 30, 30);
    int fd[8];
    char answer[1024];
    bool closed;
    (void)state;
    for (int i = 0; i < 8; i++) {
        fd[i] = dial(h);
        say(fd[i], "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n", 32);
    }
    wait_for(&h->calls, 8);
    int late = dial(h);
    say(late, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 28);
    assert_int_equal(hear(late, answer, sizeof(answer), 300, &closed), 0);
    assert_false(closed);
    close(fd[0]);
    assert_true(hear(late, answer, sizeof(answer), 5000, &closed) > 0 || closed);
    assert_non_null(strstr(answer, " 200 "));
    close(late);
    for (int i = 1; i < 8; i++)
        close(fd[i]);
    wait_for(&h->gone, 8);
    end(h);
}

static void a_socket_in_use_is_not_taken_and_a_dead_one_is(void **state)
{
    struct host *h = begin(64, 30, 30);
    struct err e;
    struct http *second = NULL;
    struct stat st;
    struct http_opts o = {.socket_path = h->path, .max_body = 1024, .max_header = 1024};
    (void)state;
    assert_int_equal(http_start(&second, h->base, &o, &e), -EADDRINUSE);
    assert_non_null(strstr(e.text, "another server"));
    assert_int_equal(stat(h->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    char path[64];
    snprintf(path, sizeof(path), "%s", h->path);
    end(h);
    assert_int_equal(stat(path, &st), -1); /* gone with its server */
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(dead, (struct sockaddr *)&at, sizeof(at)), 0);
    close(dead);
    h = begin(64, 30, 30);
    assert_well(h);
    end(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_that_two_readers_could_read_differently_are_refused),
        cmocka_unit_test(heads_and_bodies_are_bounded),
        cmocka_unit_test(a_client_may_leave_at_every_byte),
        cmocka_unit_test(who_leaves_while_it_waits_is_noticed),
        cmocka_unit_test(requests_one_behind_another_are_answered_in_turn),
        cmocka_unit_test(a_request_that_never_becomes_whole_is_given_up),
        cmocka_unit_test(who_does_not_read_is_given_up),
        cmocka_unit_test(more_connections_than_allowed_wait),
        cmocka_unit_test(a_socket_in_use_is_not_taken_and_a_dead_one_is),
    };
    signal(SIGPIPE, SIG_IGN); /* as the server does */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
