/* tools_json.c - see tools_json.h. */
#include "text/tools_json.h"

size_t scan_blanks(const char *s, size_t n, size_t at)
{
    while (at < n && (s[at] == ' ' || s[at] == '\t' || s[at] == '\r' || s[at] == '\n'))
        at++;
    return at;
}

static long scan_string(const char *s, size_t n, size_t at)
{
    for (size_t i = at + 1; i < n; i++) {
        if (s[i] == '\\')
            i++;
        else if (s[i] == '"')
            return (long)i + 1;
    }
    return SCAN_MORE;
}

static long scan_nested(const char *s, size_t n, size_t at)
{
    int depth = 0;
    for (size_t i = at; i < n; i++) {
        long end = s[i] == '"' ? scan_string(s, n, i) : (long)i + 1;
        if (end == SCAN_MORE)
            return SCAN_MORE;
        depth += s[i] == '{' || s[i] == '[';
        depth -= s[i] == '}' || s[i] == ']';
        if (!depth)
            return end;
        i = (size_t)end - 1;
    }
    return SCAN_MORE;
}

long scan_value(const char *s, size_t n, size_t at)
{
    if (at >= n)
        return SCAN_MORE;
    if (s[at] == '"')
        return scan_string(s, n, at);
    if (s[at] == '{' || s[at] == '[')
        return scan_nested(s, n, at);
    size_t end = at;
    while (end < n &&
           (strchr("+-.", s[end]) || (s[end] >= '0' && s[end] <= '9') ||
            ((s[end] | 32) >= 'a' && (s[end] | 32) <= 'z')) &&
           s[end])
        end++;
    return end == n ? SCAN_MORE : end == at ? SCAN_BAD : (long)end;
}

/* One member: "key" : and where its value begins. */
struct member {
    long key, key_end, value; /* value: or SCAN_MORE, SCAN_BAD */
};

static struct member scan_member(const char *s, size_t n, size_t at)
{
    struct member m = {.key = (long)scan_blanks(s, n, at), .value = SCAN_MORE};
    if ((size_t)m.key == n)
        return m;
    m.value = SCAN_BAD;
    if (s[m.key] != '"')
        return m;
    m.key_end = scan_string(s, n, (size_t)m.key);
    size_t colon = m.key_end ? scan_blanks(s, n, (size_t)m.key_end) : n;
    size_t value = colon < n ? scan_blanks(s, n, colon + 1) : n;
    if (colon < n && s[colon] != ':')
        return m;
    m.value = value < n ? (long)value : SCAN_MORE;
    return m;
}

static bool is(const char *s, const struct member *m, const char *key)
{
    size_t n = strlen(key);
    return (size_t)(m->key_end - m->key) == n + 2 && !memcmp(s + m->key + 1, key, n);
}

static bool is_arguments(const char *s, const struct member *m)
{
    return is(s, m, "arguments") || is(s, m, "parameters");
}

static bool may_be_call(const char *s, const struct member *m)
{
    return !m->key_end || is(s, m, "name") || is_arguments(s, m) || is(s, m, "type") ||
           is(s, m, "id");
}

/* After a value: , and the next member, or the object's end (*done). */
static long scan_next(const char *s, size_t n, size_t at, bool *done)
{
    at = scan_blanks(s, n, at);
    if (at == n)
        return SCAN_MORE;
    *done = s[at] == '}';
    return *done || s[at] == ',' ? (long)at + 1 : SCAN_BAD;
}

static struct scan_call stop_at(struct scan_call c, long why)
{
    c.what = why == SCAN_MORE ? CALL_MORE : CALL_BAD;
    return c;
}

struct scan_call scan_call(const char *s, size_t n, size_t at)
{
    struct scan_call c = {0};
    bool done = false;
    for (long next = (long)at + 1; !done;) {
        struct member m = scan_member(s, n, (size_t)next);
        if (next == (long)at + 1 && m.key_end && !may_be_call(s, &m))
            return stop_at(c, SCAN_BAD);
        if (m.value <= 0)
            return stop_at(c, m.value);
        if (is_arguments(s, &m) && len(c.name) && s[m.value] == '{') {
            c.what = CALL_ARGUMENTS;
            c.arguments.lo = (int)m.value;
            return c;
        }
        long end = scan_value(s, n, (size_t)m.value);
        if (end <= 0)
            return stop_at(c, end);
        if (is_arguments(s, &m))
            c.arguments = (struct span){(int)m.value, (int)end};
        if (is(s, &m, "name") && s[m.value] == '"')
            c.name = (struct span){(int)m.value, (int)end};
        next = scan_next(s, n, (size_t)end, &done);
        if (next <= 0)
            return stop_at(c, next);
        c.end = (size_t)next;
    }
    c.what = len(c.name) > 2 ? CALL_WHOLE : CALL_BAD;
    return c;
}

long scan_rest(const char *s, size_t n, size_t at)
{
    bool done = false;
    long next = scan_next(s, n, at, &done);
    while (next > 0 && !done) {
        struct member m = scan_member(s, n, (size_t)next);
        long end = m.value > 0 ? scan_value(s, n, (size_t)m.value) : m.value;
        next = end > 0 ? scan_next(s, n, (size_t)end, &done) : end;
    }
    return next;
}
