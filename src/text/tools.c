/* tools.c - see tools.h.
 *
 * One machine for all styles. Bytes that may belong to a call are held; from the arguments' bracket
 * on they go out as they come. A call that turns out to be none gives its first word back as text,
 * and what follows is looked at again. */
#include "text/tools.h"
#include "base/buffer.h"
#include "text/tools_json.h"

#include <jansson.h>

enum state {
    AT_START,     /* nothing but blanks yet: a bare object may be a call */
    IN_TEXT,      /* looking for the mark */
    AFTER_MARK,   /* what follows decides between object, list and name */
    IN_HEAD,      /* an object, its arguments not yet reached */
    IN_NAME,      /* name[ARGS] */
    IN_ARGUMENTS, /* counting brackets */
    IN_TAIL,      /* the rest of the object */
    AT_CLOSE      /* the word after an object, or a further object */
};

struct tools {
    enum tools_style style;
    enum state state;
    struct buffer held;
    size_t mark_end; /* what becomes text when this is no call */
    size_t at;       /* where the call's JSON or name begins in held */
    bool list;       /* inside [ ] */
    bool named;      /* name[ARGS], no object around */
    int depth;
    bool quoted, escaped;
    int calls;
};

static const struct {
    const char *name, *markers[4], *close;
} styles[] = {
    [TOOLS_NONE] = {.name = "none"},
    [TOOLS_HERMES] = {"hermes", {"<tool_call>", "</tool_call>"}, "</tool_call>"},
    [TOOLS_LLAMA] = {"llama", {"<|python_tag|>"}, NULL},
    [TOOLS_MISTRAL] = {"mistral", {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"}, NULL},
    [TOOLS_ARGS] = {"mistral-args", {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"}, NULL},
};

enum tools_style tools_style(const char *t)
{
    if (!t)
        return TOOLS_NONE;
    if (strstr(t, "[TOOL_CALLS]"))
        return strstr(t, "[ARGS]") ? TOOLS_ARGS : TOOLS_MISTRAL;
    if (strstr(t, "<function=") || strstr(t, "<arg_key>"))
        return TOOLS_NONE; /* their arguments are no JSON */
    if (strstr(t, "<tool_call>"))
        return TOOLS_HERMES;
    bool bare = strstr(t, "<|start_header_id|>") && strstr(t, "\"parameters\": ");
    return bare || strstr(t, "<|python_tag|>") ? TOOLS_LLAMA : TOOLS_NONE;
}

const char *tools_name(enum tools_style style) { return styles[style].name; }

const char *tools_marker(enum tools_style style, int i)
{
    return i < (int)COUNT(styles[0].markers) ? styles[style].markers[i] : NULL;
}

struct tools *tools_new(enum tools_style style)
{
    struct tools *t = calloc(1, sizeof(*t));
    must(t);
    t->style = style;
    t->state = style == TOOLS_LLAMA ? AT_START : IN_TEXT;
    return t;
}

void tools_free(struct tools *t)
{
    if (t)
        buffer_free(&t->held);
    free(t);
}

int tools_calls(const struct tools *t) { return t->calls; }

static void put(struct tools_sink sink, enum tools_part part, const char *s, size_t n)
{
    if (n)
        sink.put(sink.arg, part, s, n);
}

/* It is no call: the mark is text, the rest is looked at again. */
static bool give_back(struct tools *t, struct tools_sink sink)
{
    put(sink, TOOLS_TEXT, t->held.at, t->mark_end);
    buffer_drop(&t->held, t->mark_end);
    t->state = IN_TEXT;
    t->list = false;
    return true;
}

/* ------------------------------------------------------------------------------- states */
/* Each takes a step and returns true, or returns false when more bytes must come. */

static bool begin_call(struct tools *t, size_t at, size_t mark_end)
{
    t->at = at;
    t->mark_end = mark_end;
    t->state = AFTER_MARK;
    return true;
}

static bool at_start(struct tools *t)
{
    size_t at = scan_blanks(t->held.at, t->held.n, 0);
    if (at == t->held.n)
        return false;
    t->state = IN_TEXT;
    return t->held.at[at] == '{' ? begin_call(t, at, at + 1) : true;
}

/* How much of the end of held may be blanks and the beginning of the mark. */
static size_t doubtful(const struct tools *t, const char *mark)
{
    size_t k = strlen(mark) - 1, from = t->held.n;
    for (k = k < t->held.n ? k : t->held.n; k; k--)
        if (!memcmp(t->held.at + t->held.n - k, mark, k))
            break;
    from -= k;
    while (from && scan_blanks(t->held.at, t->held.n, from - 1) >= from)
        from--;
    return t->held.n - from;
}

static bool in_text(struct tools *t, struct tools_sink sink)
{
    const char *mark = styles[t->style].markers[0];
    const char *found = memmem(t->held.at, t->held.n, mark, strlen(mark));
    size_t sure = t->held.n - doubtful(t, mark);
    if (found) {
        sure = (size_t)(found - t->held.at);
        while (sure && scan_blanks(t->held.at, t->held.n, sure - 1) >= sure)
            sure--;
    }
    put(sink, TOOLS_TEXT, t->held.at, sure);
    size_t end = found ? (size_t)(found - t->held.at) - sure + strlen(mark) : 0;
    buffer_drop(&t->held, sure);
    return found ? begin_call(t, end, end) : false;
}

static bool after_mark(struct tools *t, struct tools_sink sink)
{
    bool mistral = t->style == TOOLS_MISTRAL || t->style == TOOLS_ARGS;
    size_t at = scan_blanks(t->held.at, t->held.n, t->at);
    if (at == t->held.n)
        return false;
    t->at = at;
    if (t->held.at[at] == '{') {
        t->state = IN_HEAD;
        t->named = false;
    } else if (mistral && t->held.at[at] == '[' && !t->list) {
        t->list = true;
        t->at++;
    } else if (mistral && !t->list) {
        t->state = IN_NAME;
        t->named = true;
    } else {
        return give_back(t, sink);
    }
    return true;
}

/* Strings are decoded; what is no string goes out as it is. */
static void put_decoded(struct tools_sink sink, enum tools_part part, const char *s, size_t n)
{
    json_t *v = json_loadb(s, n, JSON_DECODE_ANY, NULL);
    if (json_is_string(v))
        put(sink, part, json_string_value(v), json_string_length(v));
    else
        put(sink, part, s, n);
    json_decref(v);
}

static void put_whole(struct tools *t, const struct scan_call *c, struct tools_sink sink)
{
    const char *s = t->held.at + c->arguments.lo;
    int n = len(c->arguments);
    bool none = !n || (n == 4 && !memcmp(s, "null", 4));
    put_decoded(sink, TOOLS_ARGUMENTS, none ? "{}" : s, none ? 2 : (size_t)n);
}

static bool in_head(struct tools *t, struct tools_sink sink)
{
    struct scan_call c = scan_call(t->held.at, t->held.n, t->at);
    if (c.what == CALL_MORE)
        return false;
    if (c.what == CALL_BAD || len(c.name) <= 2)
        return give_back(t, sink);
    t->calls++;
    put_decoded(sink, TOOLS_BEGIN, t->held.at + c.name.lo, (size_t)len(c.name));
    t->state = c.what == CALL_WHOLE ? AT_CLOSE : IN_ARGUMENTS;
    if (c.what == CALL_WHOLE)
        put_whole(t, &c, sink);
    buffer_drop(&t->held, c.what == CALL_WHOLE ? c.end : (size_t)c.arguments.lo);
    return true;
}

/* name, perhaps [CALL_ID] and an id, perhaps [ARGS], and the arguments' bracket. */
static bool in_name(struct tools *t, struct tools_sink sink)
{
    const char *bracket = memchr(t->held.at + t->at, '{', t->held.n - t->at);
    size_t to = bracket ? (size_t)(bracket - t->held.at) : t->held.n;
    size_t end = t->at;
    while (end < to && t->held.at[end] != '[' && (unsigned char)t->held.at[end] > ' ')
        end++;
    bool bad = end == t->at || to - t->at > 256;
    bad = bad || (end < to && t->held.at[end] != '[' && scan_blanks(t->held.at, to, end) < to);
    if (bad)
        return give_back(t, sink);
    if (!bracket)
        return false;
    t->calls++;
    put(sink, TOOLS_BEGIN, t->held.at + t->at, end - t->at);
    buffer_drop(&t->held, to);
    t->state = IN_ARGUMENTS;
    return true;
}

static bool in_arguments(struct tools *t, struct tools_sink sink)
{
    size_t i = 0;
    bool done = false;
    for (; i < t->held.n && !done; i++) {
        char c = t->held.at[i];
        if (t->quoted) {
            t->quoted = t->escaped || c != '"';
            t->escaped = !t->escaped && c == '\\';
            continue;
        }
        t->quoted = c == '"';
        t->depth += c == '{' || c == '[';
        t->depth -= c == '}' || c == ']';
        done = !t->depth;
    }
    put(sink, TOOLS_ARGUMENTS, t->held.at, i);
    buffer_drop(&t->held, i);
    if (done)
        t->state = t->named ? IN_TEXT : IN_TAIL;
    return done;
}

static bool in_tail(struct tools *t)
{
    long end = scan_rest(t->held.at, t->held.n, 0);
    if (end == SCAN_MORE)
        return false;
    t->state = end > 0 ? AT_CLOSE : IN_TEXT;
    buffer_drop(&t->held, end > 0 ? (size_t)end : 0);
    return true;
}

/* A closing word is taken away; a separator leads to a further object. */
static bool at_close(struct tools *t)
{
    const char *close = styles[t->style].close;
    size_t at = scan_blanks(t->held.at, t->held.n, 0), left = t->held.n - at;
    if (!left)
        return false;
    if (close) {
        size_t k = strlen(close), same = left < k ? left : k;
        bool is = !memcmp(t->held.at + at, close, same);
        if (is && left < k)
            return false;
        t->state = IN_TEXT;
        buffer_drop(&t->held, is ? at + k : 0);
        return true;
    }
    char c = t->held.at[at];
    bool more = c == ',' || (c == ';' && !t->list);
    if (more && (t->list || t->style == TOOLS_LLAMA))
        return begin_call(t, at + 1, at + 1);
    if (c == '{' && t->style == TOOLS_LLAMA)
        return begin_call(t, at, at + 1);
    if (c == ']' && t->list)
        buffer_drop(&t->held, at + 1);
    t->list = false;
    t->state = IN_TEXT;
    return true;
}

static bool step(struct tools *t, struct tools_sink sink)
{
    switch (t->state) {
    case AT_START: return at_start(t);
    case IN_TEXT: return in_text(t, sink);
    case AFTER_MARK: return after_mark(t, sink);
    case IN_HEAD: return in_head(t, sink);
    case IN_NAME: return in_name(t, sink);
    case IN_ARGUMENTS: return in_arguments(t, sink);
    case IN_TAIL: return in_tail(t);
    case AT_CLOSE: return at_close(t);
    }
    return false;
}

void tools_feed(struct tools *t, const char *s, size_t n, struct tools_sink sink)
{
    if (t->style == TOOLS_NONE || !n) {
        put(sink, TOOLS_TEXT, s, n);
        return;
    }
    buffer_add(&t->held, s, n);
    while (t->held.n && step(t, sink))
        ;
}

/* What is still held is text, but for blanks after a call and the beginning of its closing words.
 */
void tools_end(struct tools *t, struct tools_sink sink)
{
    while (t->state == AFTER_MARK || t->state == IN_HEAD || t->state == IN_NAME) {
        give_back(t, sink);
        while (t->held.n && step(t, sink))
            ;
    }
    bool closing = t->state == IN_TAIL || t->state == AT_CLOSE || t->state == IN_ARGUMENTS;
    bool blank = scan_blanks(t->held.at, t->held.n, 0) == t->held.n;
    if (!closing && !(t->calls && blank))
        put(sink, TOOLS_TEXT, t->held.at, t->held.n);
    t->held.n = 0;
}
