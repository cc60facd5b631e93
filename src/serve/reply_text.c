/* reply_text.c - see reply_text.h. tokens > detok > stop strings > think > tools > parts */
#include "serve/reply_text.h"

/* ------------------------------------------------------------------------------- parts */

static void from_tools(void *arg, enum tools_part part, const char *s, size_t n)
{
    struct answer_text *a = arg;
    if (part == TOOLS_BEGIN && tools_calls(a->tools) > 1 && !a->r->parallel_tool_calls) {
        a->enough = a->stopped = true;
        a->stop_at = a->gone;
    }
    if (a->enough)
        return;
    a->sink.put(a->sink.arg,
                part == TOOLS_TEXT    ? PART_CONTENT
                : part == TOOLS_BEGIN ? PART_CALL
                                      : PART_ARGUMENTS,
                s, n);
}

static void from_think(void *arg, bool reasoning, const char *s, size_t n)
{
    struct answer_text *a = arg;
    if (reasoning)
        a->sink.put(a->sink.arg, PART_REASONING, s, n);
    else if (a->tools)
        tools_feed(a->tools, s, n, (struct tools_sink){a, from_tools});
    else
        a->sink.put(a->sink.arg, PART_CONTENT, s, n);
}

/* The first n bytes of raw are certain. */
static void release(struct answer_text *a, size_t n)
{
    if (!n)
        return;
    a->gone += n;
    think_feed(&a->think, a->raw.at, n, (struct think_sink){a, from_think});
    buffer_drop(&a->raw, n);
}

/* ------------------------------------------------------------------------------- stop strings */

/* How many bytes at the end of raw may be the beginning of a stop string. */
static size_t doubtful(const struct answer_text *a)
{
    size_t most = 0;
    for (int i = 0; i < a->r->stop.n; i++) {
        const char *stop = a->r->stop.at[i];
        size_t k = strlen(stop) - 1;
        for (k = k < a->raw.n ? k : a->raw.n; k > most; k--)
            if (!memcmp(a->raw.at + a->raw.n - k, stop, k))
                most = k;
    }
    return most;
}

/* Where the first stop string ends the text; false when none is there. */
static bool find_stop(const struct answer_text *a, size_t *cut)
{
    const char *first = NULL;
    for (int i = 0; a->raw.n && i < a->r->stop.n; i++) {
        size_t k = strlen(a->r->stop.at[i]);
        const char *at = memmem(a->raw.at, a->raw.n, a->r->stop.at[i], k);
        if (!at || (first && at >= first))
            continue;
        first = at;
        *cut = (size_t)(at - a->raw.at) + (a->r->include_stop ? k : 0);
    }
    return first;
}

/* The first tokens may not end the answer (min_tokens): they are not looked at. */
static void sift(struct answer_text *a, bool end)
{
    size_t cut;
    if (a->n_tok <= a->r->min_tokens && !end) {
        release(a, a->raw.n);
    } else if (a->n_tok > a->r->min_tokens && find_stop(a, &cut)) {
        a->raw.n = cut;
        a->stop_at = a->gone + cut;
        release(a, cut);
        a->stopped = true;
    } else {
        release(a, end ? a->raw.n : a->raw.n - doubtful(a));
    }
}

/* ------------------------------------------------------------------------------- tokens */

void answer_text_begin(struct answer_text *a, const struct request *r, const struct tok *tok,
                       struct part_sink sink)
{
    *a = (struct answer_text){.r = r, .tok = tok, .sink = sink};
    a->detok = detok_new(tok, false); /* special tokens are sorted out in answer_text_take() */
    think_begin(&a->think, r->think, r->opened);
    a->tools = r->style == TOOLS_NONE ? NULL : tools_new(r->style);
}

size_t answer_text_at(const struct answer_text *a) { return a->gone + a->raw.n; }

/* Marks of calls and reasoning may be special tokens; their parsers need to see them. */
static bool is_mark(const struct answer_text *a, int token)
{
    size_t n;
    const char *s = tok_bytes(a->tok, token, &n), *mark;
    const struct think_words *w = &a->r->think;
    for (int i = 0; s && (mark = tools_marker(a->r->style, i)); i++)
        if (strlen(mark) == n && !memcmp(mark, s, n))
            return true;
    return s && w->open &&
           ((strlen(w->open) == n && !memcmp(w->open, s, n)) ||
            (strlen(w->close) == n && !memcmp(w->close, s, n)));
}

void answer_text_take(struct answer_text *a, int token)
{
    size_t n;
    bool inside = a->think.state == THINK_INSIDE;
    if (a->stopped)
        return;
    a->n_tok++;
    if (!a->r->skip_special || !tok_is_special(a->tok, token) || is_mark(a, token)) {
        const char *s = detok_next(a->detok, token, &n);
        buffer_add(&a->raw, s, n);
    }
    sift(a, false);
    a->n_reasoning += inside || a->think.state == THINK_INSIDE;
}

void answer_text_end(struct answer_text *a)
{
    size_t n;
    const char *s = detok_flush(a->detok, &n);
    if (!a->stopped) {
        buffer_add(&a->raw, s, n);
        sift(a, true);
    }
    think_end(&a->think, (struct think_sink){a, from_think});
    if (a->tools)
        tools_end(a->tools, (struct tools_sink){a, from_tools});
}

void answer_text_free(struct answer_text *a)
{
    detok_free(a->detok);
    think_free(&a->think);
    tools_free(a->tools);
    buffer_free(&a->raw);
}
