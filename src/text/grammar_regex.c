/* grammar_regex.c - regular expressions as edges: the part of ECMAScript's that is regular.
 *
 * Literals, ., classes, \d \w \s (of ASCII) and their opposites, groups, |, * + ? {n,m} (lazy or
 * not), ^ and $ at the ends. What looks around, looks back or depends on flags is refused. See
 * grammar_rules.h. */
#include "text/grammar_rules.h"

struct regex {
    struct rules *r;
    const char *s, *what;
    size_t n, at;
    bool json;
    int depth;
};

static void fail(struct regex *x, const char *why)
{
    rules_fail(x->r, "%s: at byte %zu of the pattern: %s", x->what, x->at, why);
    x->at = x->n; /* nothing more is read */
}

static bool next_is(const struct regex *x, char c) { return x->at < x->n && x->s[x->at] == c; }

static bool skip(struct regex *x, const char *word)
{
    size_t k = strlen(word);
    if (x->n - x->at < k || memcmp(x->s + x->at, word, k))
        return false;
    x->at += k;
    return true;
}

/* ------------------------------------------------------------------------------- characters */

static bool hex(const char *s, size_t n, size_t *at, int digits, unsigned *to)
{
    unsigned v = 0;
    for (int i = 0; i < digits; i++) {
        char c = *at + (size_t)i < n ? s[*at + (size_t)i] : 0;
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return false;
        v = v * 16 + (unsigned)d;
    }
    *at += (size_t)digits;
    *to = v;
    return true;
}

/* One character of UTF-8 at s[*at]. */
static bool plain_char(const char *s, size_t n, size_t *at, unsigned *to)
{
    int k = *at < n ? chars_decode(s + *at, n - *at, to) : 0;
    *at += (size_t)k;
    return k > 0;
}

static bool class_letter(struct pool *p, char c, struct chars *to)
{
    struct chars set = {0};
    switch (c | 0x20) {
    case 'd': chars_add(p, &set, '0', '9'); break;
    case 'w':
        chars_add(p, &set, '0', '9');
        chars_add(p, &set, 'A', 'Z');
        chars_add(p, &set, '_', '_');
        chars_add(p, &set, 'a', 'z');
        break;
    case 's':
        chars_add(p, &set, '\t', '\r');
        chars_add(p, &set, ' ', ' ');
        break;
    default: return false;
    }
    if (!(c & 0x20))
        chars_invert(p, &set);
    for (int i = 0; i < set.n; i++)
        chars_add(p, to, set.at[i].lo, set.at[i].hi);
    return true;
}

/* Behind a backslash: a class letter (added to `to`, *single false) or one character. */
static bool escape(struct pool *p, const char *s, size_t n, size_t *at, struct chars *to,
                   unsigned *c, bool *single)
{
    static const char from[] = "ntrfv0", is[] = "\n\t\r\f\v";
    if (*at >= n)
        return false;
    char l = s[*at];
    *single = false;
    if (class_letter(p, l, to))
        return ++*at, true;
    *single = true;
    const char *f = strchr(from, l);
    if (f && *f)
        return ++*at, *c = (unsigned char)is[f - from], true;
    if (l == 'x' || l == 'u' || l == 'U') {
        ++*at;
        return hex(s, n, at, l == 'x' ? 2 : l == 'u' ? 4 : 8, c) && *c <= 0x10FFFF;
    }
    if ((l >= '0' && l <= '9') || (l >= 'a' && l <= 'z') || (l >= 'A' && l <= 'Z'))
        return false; /* \b, \1, \p ... */
    return plain_char(s, n, at, c);
}

bool regex_class(struct rules *r, const char *s, size_t n, size_t *at, struct chars *set)
{
    bool invert = *at < n && s[*at] == '^';
    *at += invert;
    while (*at < n && s[*at] != ']') {
        unsigned c[2] = {0};
        bool single = true;
        for (int i = 0; i < 2 && single; i++) {
            if (i == 1) { /* a range only when - stands between two single characters */
                if (*at + 1 >= n || s[*at] != '-' || s[*at + 1] == ']') {
                    c[1] = c[0];
                    break;
                }
                ++*at;
            }
            bool ok = s[*at] == '\\' ? (++*at, escape(&r->pool, s, n, at, set, &c[i], &single))
                                     : plain_char(s, n, at, &c[i]);
            if (!ok || (i == 1 && !single))
                return false;
        }
        if (single && c[0] > c[1])
            return false;
        if (single)
            chars_add(&r->pool, set, c[0], c[1]);
    }
    if (*at >= n)
        return false;
    ++*at;
    if (invert)
        chars_invert(&r->pool, set);
    return true;
}

/* ------------------------------------------------------------------------------- repetition */

static bool number(const char *s, size_t n, size_t *at, int *to)
{
    long long v = 0;
    size_t begin = *at;
    for (; *at < n && s[*at] >= '0' && s[*at] <= '9'; ++*at)
        v = v > 100000000 ? v : v * 10 + (s[*at] - '0');
    *to = (int)v;
    return *at > begin;
}

bool regex_count(const char *s, size_t n, size_t *at, int *min, int *max)
{
    size_t k = *at + 1;
    if (*at >= n || s[*at] != '{' || !number(s, n, &k, min))
        return false;
    *max = *min;
    if (k < n && s[k] == ',') {
        k++;
        if (!number(s, n, &k, max))
            *max = ENDLESS;
    }
    if (k >= n || s[k] != '}')
        return false;
    *at = k + 1;
    return true;
}

int regex_quantify(struct rules *r, int from, int s, int t, const char *text, size_t n, size_t *at)
{
    int min, max;
    char c = *at < n ? text[*at] : 0;
    if (c && strchr("*+?", c)) {
        int to = rules_node(r);
        ++*at;
        rules_empty(r, from, s);
        rules_empty(r, t, to);
        if (c != '?')
            rules_empty(r, t, s);
        if (c != '+')
            rules_empty(r, from, to);
        return to;
    }
    if (regex_count(text, n, at, &min, &max)) {
        if (max < min)
            rules_fail(r, "{%d,%d}: the second number must not be smaller", min, max);
        return rules_repeat(r, from, rules_between(r, s, t), min, max, true);
    }
    rules_empty(r, from, s);
    return t;
}

/* ------------------------------------------------------------------------------- the pattern */

static int alternatives(struct regex *x, int from, bool top);

static int group(struct regex *x, int from)
{
    if (skip(x, "?<") && !next_is(x, '=') && !next_is(x, '!')) { /* a name */
        while (x->at < x->n && !next_is(x, '>'))
            x->at++;
        x->at += x->at < x->n;
    } else if (!skip(x, "?:") && (next_is(x, '?') || (x->at && x->s[x->at - 1] == '<'))) {
        return fail(x, "looking around and flags are not supported"), from;
    }
    if (++x->depth > GRAMMAR_NESTING_MAX)
        return fail(x, "groups nest too deeply"), from;
    int to = alternatives(x, from, false);
    x->depth--;
    if (!skip(x, ")"))
        fail(x, "a ( is never closed");
    return to;
}

static int atom(struct regex *x, int from)
{
    struct chars set = {0};
    unsigned c = 0;
    bool single = true;
    char l = x->s[x->at];
    if (l == '(')
        return x->at++, group(x, from);
    if (l == '[') {
        x->at++;
        if (!regex_class(x->r, x->s, x->n, &x->at, &set))
            return fail(x, "a class in [] is wrong or not supported"), from;
        return chars_emit(x->r, from, &set, x->json);
    }
    if (l == '.') {
        x->at++;
        chars_add(&x->r->pool, &set, '\n', '\n');
        chars_add(&x->r->pool, &set, '\r', '\r');
        chars_invert(&x->r->pool, &set);
        return chars_emit(x->r, from, &set, x->json);
    }
    if (strchr("*+?", l))
        return fail(x, "nothing stands before the repetition"), from;
    if (l == '^' || l == '$')
        return fail(x, "^ and $ are supported at the ends only"), from;
    bool ok = l == '\\' ? (x->at++, escape(&x->r->pool, x->s, x->n, &x->at, &set, &c, &single))
                        : plain_char(x->s, x->n, &x->at, &c);
    if (!ok)
        return fail(x, l == '\\' ? "this \\ is not supported" : "not UTF-8"), from;
    if (single)
        chars_add(&x->r->pool, &set, c, c);
    return chars_emit(x->r, from, &set, x->json);
}

static int any_text(struct regex *x, int from)
{
    int loop = rules_node(x->r);
    rules_empty(x->r, from, loop);
    rules_empty(x->r, chars_emit_any(x->r, loop, x->json), loop);
    return loop;
}

static int sequence(struct regex *x, int from, bool top)
{
    bool begins = top && skip(x, "^"), ends = false;
    int at = top && x->json && !begins ? any_text(x, from) : from;
    while (x->at < x->n && !next_is(x, '|') && !next_is(x, ')') && !x->r->rc) {
        if (top && next_is(x, '$') && (x->at + 1 == x->n || x->s[x->at + 1] == '|')) {
            x->at++;
            ends = true;
            break;
        }
        int s = rules_node(x->r), t = atom(x, s);
        size_t before = x->at;
        at = regex_quantify(x->r, at, s, t, x->s, x->n, &x->at);
        if (x->at > before)
            skip(x, "?"); /* lazy: the same texts */
    }
    return top && x->json && !ends ? any_text(x, at) : at;
}

static int alternatives(struct regex *x, int from, bool top)
{
    int to = rules_node(x->r);
    do
        rules_empty(x->r, sequence(x, from, top), to);
    while (skip(x, "|") && !x->r->rc);
    return to;
}

int regex_emit(struct rules *r, int from, const char *pattern, size_t n, bool json,
               const char *what)
{
    struct regex x = {.r = r, .s = pattern, .n = n, .json = json, .what = what};
    int to = alternatives(&x, from, true);
    if (x.at < n)
        fail(&x, "a ) too many");
    return to;
}
