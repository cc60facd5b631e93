/* think.c - see think.h. */
#include "text/think.h"

struct think_words think_words(const char *template_text)
{
    static const struct think_words known[] = {{"<think>", "</think>"}, {"[THINK]", "[/THINK]"}};
    for (size_t i = 0; template_text && i < COUNT(known); i++)
        if (strstr(template_text, known[i].close))
            return known[i];
    return (struct think_words){0};
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* Does the text end with the word, but for blanks? */
static bool ends_with(const char *text, const char *word)
{
    size_t n = strlen(text), k = strlen(word);
    while (n && is_blank(text[n - 1]))
        n--;
    return n >= k && !memcmp(text + n - k, word, k);
}

bool think_opened(struct think_words w, const char *prompt)
{
    return w.open && ends_with(prompt, w.open);
}

bool think_closed(struct think_words w, const char *prompt)
{
    return w.close && ends_with(prompt, w.close);
}

void think_begin(struct think *t, struct think_words w, bool opened)
{
    *t = (struct think){.words = w};
    t->state = !w.open ? THINK_ANSWER : opened ? THINK_INSIDE : THINK_START;
}

void think_free(struct think *t)
{
    buffer_free(&t->held);
    *t = (struct think){0};
}

static void put(struct think_sink sink, bool reasoning, const char *s, size_t n)
{
    if (n)
        sink.put(sink.arg, reasoning, s, n);
}

static size_t blanks(const char *s, size_t n)
{
    size_t k = 0;
    while (k < n && is_blank(s[k]))
        k++;
    return k;
}

/* Each state looks at the undecided bytes and says how many it has dealt with; 0: more are needed.
 */

/* Blanks, then the mark: reasoning. Anything else: an answer, blanks and all. */
static size_t at_start(struct think *t, bool end, struct think_sink sink)
{
    (void)sink;
    size_t skip = blanks(t->held.at, t->held.n), k = strlen(t->words.open), left = t->held.n - skip;
    size_t same = left < k ? left : k;
    bool may_be = !memcmp(t->held.at + skip, t->words.open, same);
    if (may_be && left >= k) {
        t->state = THINK_INSIDE;
        return skip + k;
    }
    if (!may_be || end)
        t->state = THINK_ANSWER;
    return 0;
}

/* Up to the closing mark; blanks before it and a mark's beginning are held. */
static size_t inside(struct think *t, bool end, struct think_sink sink)
{
    size_t k = strlen(t->words.close), sure = 0,
           skip = t->begun ? 0 : blanks(t->held.at, t->held.n);
    const char *close = memmem(t->held.at, t->held.n, t->words.close, k);
    size_t upto = close ? (size_t)(close - t->held.at) : t->held.n, last = upto;
    for (size_t tail = k - 1; !close && !end && tail; tail--)
        if (tail <= t->held.n && !memcmp(t->held.at + t->held.n - tail, t->words.close, tail)) {
            last = t->held.n - tail;
            break;
        }
    while (last > skip && is_blank(t->held.at[last - 1]))
        last--;
    sure = last;
    if (sure > skip) {
        put(sink, true, t->held.at + skip, sure - skip);
        t->begun = true;
    }
    if (close) {
        t->state = THINK_BLANKS;
        return upto + k;
    }
    return end ? t->held.n : sure;
}

static size_t after_blanks(struct think *t, bool end, struct think_sink sink)
{
    (void)end, (void)sink;
    size_t skip = blanks(t->held.at, t->held.n);
    if (skip < t->held.n)
        t->state = THINK_ANSWER;
    return skip;
}

static void work(struct think *t, bool end, struct think_sink sink)
{
    static size_t (*const look[])(struct think *, bool, struct think_sink) = {
        [THINK_START] = at_start, [THINK_INSIDE] = inside, [THINK_BLANKS] = after_blanks};
    while (t->held.n && t->state != THINK_ANSWER) {
        int state = (int)t->state;
        size_t used = look[state](t, end, sink);
        buffer_drop(&t->held, used);
        if (!used && state == (int)t->state)
            return;
    }
    put(sink, false, t->held.at, t->held.n);
    t->held.n = 0;
}

void think_feed(struct think *t, const char *s, size_t n, struct think_sink sink)
{
    if ((t->state == THINK_ANSWER && !t->held.n) || !n) {
        put(sink, false, s, n);
        return;
    }
    buffer_add(&t->held, s, n);
    work(t, false, sink);
}

void think_end(struct think *t, struct think_sink sink) { work(t, true, sink); }
