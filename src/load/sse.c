/* sse.c - see sse.h. */
#include "load/sse.h"

static bool append(struct sse_text *t, const char *bytes, size_t n)
{
    if (t->n + n > SSE_MOST)
        return false;
    if (t->n + n > t->room) {
        t->room = (t->n + n) * 2;
        t->at = realloc(t->at, t->room);
        must(t->at);
    }
    if (n)
        memcpy(t->at + t->n, bytes, n);
    t->n += n;
    return true;
}

/* A whole line without its end: a field, a comment, or, empty, the end of an event. */
static bool take_line(struct sse *s, const char *line, size_t n)
{
    if (!n) {
        if (s->had_data)
            s->event(s->arg, s->data.n ? s->data.at : "", s->data.n);
        s->data.n = 0;
        s->had_data = false;
        return true;
    }
    if (n < 4 || memcmp(line, "data", 4) != 0 || (n > 4 && line[4] != ':'))
        return true;
    size_t from = n > 4 ? 5 : 4;
    from += from < n && line[from] == ' ';
    if (s->had_data && !append(&s->data, "\n", 1))
        return false;
    s->had_data = true;
    return append(&s->data, line + from, n - from);
}

static size_t line_length(const char *at, size_t n)
{
    const char *end = memchr(at, '\n', n), *cr = memchr(at, '\r', end ? (size_t)(end - at) : n);
    return cr ? (size_t)(cr - at) : end ? (size_t)(end - at) : n;
}

int sse_feed(struct sse *s, const char *bytes, size_t n)
{
    while (n) {
        if (s->after_cr && *bytes == '\n') {
            s->after_cr = false;
            bytes++, n--;
            continue;
        }
        s->after_cr = false;
        size_t take = line_length(bytes, n);
        if (!append(&s->line, bytes, take))
            return -EMSGSIZE;
        if (take == n)
            return 0;
        s->after_cr = bytes[take] == '\r';
        if (!take_line(s, s->line.at, s->line.n))
            return -EMSGSIZE;
        s->line.n = 0;
        bytes += take + 1;
        n -= take + 1;
    }
    return 0;
}

void sse_restart(struct sse *s)
{
    s->line.n = s->data.n = 0;
    s->had_data = s->after_cr = false;
}

void sse_free(struct sse *s)
{
    free(s->line.at);
    free(s->data.at);
    *s = (struct sse){0};
}
