/* split.c - before the merges: normalise text, cut it into pieces. See vocab.h. */
#include "base/buffer.h"
#include "text/vocab.h"

#include <utf8proc.h>

/* ------------------------------------------------------------------------------- regex */

/* \s and \w (and so \S and \W) mean other sets to PCRE2 than to the tokenizers' engine: U+180E is
 * a blank to one, U+2460 of a word, a vowel sign is not. They are spelt out. */
static const char *class_of(char c)
{
    return c == 's' || c == 'S'   ? "\\t-\\r\\x{85}\\p{Z}"
           : c == 'w' || c == 'W' ? WORD_CLASS "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"
                                  : NULL;
}

static void translate(struct buffer *to, const char *p, size_t n)
{
    bool in_class = false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\\' && i + 1 < n) {
            const char *set = class_of(p[++i]);
            bool negated = p[i] == 'S' || p[i] == 'W';
            if (!set || (negated && in_class)) {
                buffer_add(to, p + i - 1, 2);
                continue;
            }
            buffer_add(to, negated ? "[^" : "[", in_class ? 0 : negated ? 2 : 1);
            buffer_add(to, set, strlen(set));
            buffer_add(to, "]", !in_class);
            continue;
        }
        in_class = p[i] == '[' ? true : p[i] == ']' ? false : in_class;
        buffer_add(to, p + i, 1);
    }
}

pcre2_code *regex_new(const char *pattern, size_t n, struct err *e)
{
    struct buffer b = {0};
    int code;
    PCRE2_SIZE at;
    if (n > 1 << 16) {
        err_set(e, -EINVAL, "a pattern of %zu bytes", n);
        return NULL;
    }
    buffer_add(&b, "", 0);
    translate(&b, pattern, n);
    pcre2_code *re = pcre2_compile(
        (PCRE2_SPTR)b.at, b.n, PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (!re) {
        PCRE2_UCHAR why[160];
        pcre2_get_error_message(code, why, sizeof(why));
        err_set(e, -EINVAL, "pattern \"%.80s\": %s at %zu", b.at, (char *)why, (size_t)at);
    } else {
        pcre2_jit_compile(re, PCRE2_JIT_COMPLETE); /* a wish: the interpreter does too */
    }
    free(b.at);
    return re;
}

enum { STEPS_LIMIT = 10000000, HEAP_LIMIT_KIB = 256 << 10 };

struct matcher {
    pcre2_match_data *data;
    pcre2_match_context *limits;
};

static struct matcher matcher_new(const pcre2_code *re)
{
    struct matcher m = {pcre2_match_data_create_from_pattern(re, NULL),
                        pcre2_match_context_create(NULL)};
    must(m.data && m.limits);
    pcre2_set_match_limit(m.limits, STEPS_LIMIT);
    pcre2_set_depth_limit(m.limits, STEPS_LIMIT);
    pcre2_set_heap_limit(m.limits, HEAP_LIMIT_KIB);
    return m;
}

static void matcher_free(struct matcher *m)
{
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->limits);
}

/* Compiled code has a small stack; the interpreter, which can use the heap, then does it. */
static int match_once(const struct matcher *m, const pcre2_code *re, const char *s, size_t n,
                      size_t from)
{
    PCRE2_SPTR text = (PCRE2_SPTR)s;
    int rc = pcre2_match(re, text, n, from, PCRE2_NO_UTF_CHECK, m->data, m->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(re, text, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data, m->limits);
    return rc;
}

/* The next match that is not empty, at or after `from`; false when there is none (or a limit was
 * met: the rest is then one piece). */
static bool match(const struct matcher *m, const pcre2_code *re, const char *s, size_t n,
                  size_t from, size_t *lo, size_t *hi)
{
    while (from <= n) {
        if (match_once(m, re, s, n, from) < 0)
            return false;
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m->data);
        if (at[1] > at[0]) {
            *lo = at[0], *hi = at[1];
            return true;
        }
        for (from = at[1] + 1; from < n && ((unsigned char)s[from] & 0xC0) == 0x80;)
            from++;
    }
    return false;
}

/* ------------------------------------------------------------------------------- normalising */

static void replace(const struct step *step, const char *s, size_t n, struct buffer *to)
{
    size_t at = 0, lo, hi;
    if (step->regex) {
        struct matcher m = matcher_new(step->regex);
        while (match(&m, step->regex, s, n, at, &lo, &hi)) {
            buffer_add(to, s + at, lo - at);
            buffer_add(to, step->to.s, step->to.n);
            at = hi;
        }
        matcher_free(&m);
    } else {
        const char *found;
        while (step->from.n && (found = memmem(s + at, n - at, step->from.s, step->from.n))) {
            buffer_add(to, s + at, (size_t)(found - s) - at);
            buffer_add(to, step->to.s, step->to.n);
            at = (size_t)(found - s) + step->from.n;
        }
    }
    buffer_add(to, s + at, n - at);
}

static void unicode_form(int options, const char *s, size_t n, struct buffer *to)
{
    utf8proc_uint8_t *out = NULL;
    utf8proc_ssize_t k = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &out,
                                      (utf8proc_option_t)options);
    buffer_add(to, k >= 0 ? (char *)out : s, k >= 0 ? (size_t)k : n);
    free(out);
}

/* The character at s, valid UTF-8; its length in *length. */
static utf8proc_int32_t character(const char *s, size_t n, size_t *length)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &c);
    *length = k > 0 ? (size_t)k : 1;
    return k > 0 ? c : -1;
}

bool blank_at(const char *s, size_t n, size_t *length)
{
    utf8proc_int32_t c = character(s, n, length);
    if (c < 128)
        return c == ' ' || (c >= '\t' && c <= '\r');
    utf8proc_category_t k = utf8proc_category(c);
    return c == 0x85 || k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL ||
           k == UTF8PROC_CATEGORY_ZP;
}

bool word_at(const char *s, size_t n)
{
    size_t length;
    utf8proc_category_t k = utf8proc_category(character(s, n, &length));
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_ND) || k == UTF8PROC_CATEGORY_NL ||
           k == UTF8PROC_CATEGORY_PC;
}

static void lower(const char *s, size_t n, struct buffer *to)
{
    for (size_t i = 0, k; i < n; i += k) {
        utf8proc_uint8_t out[4];
        utf8proc_int32_t c = character(s + i, n - i, &k);
        if (c == 0x130) /* the one character whose lower case is two */
            buffer_add(to, "i\xCC\x87", 3);
        else
            buffer_add(to, (char *)out, (size_t)utf8proc_encode_char(utf8proc_tolower(c), out));
    }
}

static void strip_accents(const char *s, size_t n, struct buffer *to)
{
    for (size_t i = 0, k; i < n; i += k) {
        utf8proc_category_t is = utf8proc_category(character(s + i, n - i, &k));
        if (is < UTF8PROC_CATEGORY_MN || is > UTF8PROC_CATEGORY_ME)
            buffer_add(to, s + i, k);
    }
}

static void strip(const struct step *step, const char *s, size_t n, struct buffer *to)
{
    size_t lo = 0, hi = 0, k;
    while (step->start && lo < n && blank_at(s + lo, n - lo, &k))
        lo += k;
    for (size_t i = hi = lo; i < n; i += k)
        if (!blank_at(s + i, n - i, &k) || !step->stop)
            hi = i + k;
    buffer_add(to, s + lo, hi - lo);
}

static void normalise_step(const struct step *step, const char *s, size_t n, struct buffer *to)
{
    const int stable = UTF8PROC_STABLE, compat = UTF8PROC_STABLE | UTF8PROC_COMPAT;
    switch ((int)step->kind) {
    case STEP_NFC: unicode_form(stable | UTF8PROC_COMPOSE, s, n, to); break;
    case STEP_NFD: unicode_form(stable | UTF8PROC_DECOMPOSE, s, n, to); break;
    case STEP_NFKC: unicode_form(compat | UTF8PROC_COMPOSE, s, n, to); break;
    case STEP_NFKD: unicode_form(compat | UTF8PROC_DECOMPOSE, s, n, to); break;
    case STEP_LOWER: lower(s, n, to); break;
    case STEP_STRIP_ACCENTS: strip_accents(s, n, to); break;
    case STEP_STRIP: strip(step, s, n, to); break;
    case STEP_REPLACE: replace(step, s, n, to); break;
    case STEP_PREPEND:
        if (n)
            buffer_add(to, step->to.s, step->to.n);
        buffer_add(to, s, n);
        break;
    default: must(!"not a normaliser");
    }
}

char *normalise(const struct tok *t, const char *s, size_t n, size_t *n_out)
{
    struct buffer now = {0};
    buffer_add(&now, s, n);
    for (int i = 0; i < t->normal.n; i++) {
        struct buffer next = {0};
        buffer_add(&next, "", 0);
        normalise_step(&t->normal.at[i], now.at, now.n, &next);
        free(now.at);
        now = next;
    }
    *n_out = now.n;
    return now.at;
}

/* ------------------------------------------------------------------------------- splitting */

struct splitting {
    const struct tok *tok;
    struct matcher matcher[STEPS_MAX]; /* of the steps with a regex */
    piece_fn *fn;
    void *arg;
};

static void split_from(const struct splitting *w, int step, bool first, const char *s, size_t n);

/* Pieces from matches and what lies between, as the behaviour says. `open` is where the piece
 * being made begins. */
static void split_regex(const struct splitting *w, int k, bool first, const char *s, size_t n)
{
    const struct step *step = &w->tok->split.at[k];
    size_t at = 0, open = 0, lo = 0, hi = 0;
    bool was_match = false;
#define EMIT(from, to)                                                                             \
    if ((to) > (from))                                                                             \
    split_from(w, k + 1, first && (from) == 0, s + (from), (to) - (from))
    while (at < n) {
        bool found = match(&w->matcher[k], step->regex, s, n, at, &lo, &hi);
        size_t end[2] = {found ? lo : n, found ? hi : n};
        for (int part = 0; part < 2; part++) { /* what lies before the match, then the match */
            bool is_match = (part == 1) != step->invert;
            if (end[part] == at)
                continue;
            if (step->behaviour == REMOVED) {
                if (!is_match)
                    EMIT(at, end[part]);
                open = end[part];
            } else if (step->behaviour == ISOLATED) {
                EMIT(at, end[part]);
                open = end[part];
            } else if (step->behaviour == WITH_PREVIOUS) {
                if (!is_match || was_match) {
                    EMIT(open, at);
                    open = at;
                }
            } else if (step->behaviour == WITH_NEXT) {
                if (is_match || !was_match) {
                    EMIT(open, at);
                    open = at;
                }
            } else if (is_match != was_match) {
                EMIT(open, at);
                open = at;
            }
            was_match = is_match;
            at = end[part];
        }
    }
    EMIT(open, n);
#undef EMIT
}

/* Blanks become the mark; every mark begins a piece. */
static void split_metaspace(const struct splitting *w, int k, bool first, const char *s, size_t n)
{
    const struct step *step = &w->tok->split.at[k];
    struct step blanks = {.kind = STEP_REPLACE, .from = {" ", 1}, .to = step->from};
    struct buffer b = {0};
    size_t mark = step->from.n;
    bool marked = n && (s[0] == ' ' || (n >= mark && !memcmp(s, step->from.s, mark)));
    buffer_add(&b, "", 0);
    if (n && !marked && (step->always || (step->first_only && first)))
        buffer_add(&b, step->from.s, mark);
    replace(&blanks, s, n, &b);
    size_t open = 0;
    for (size_t i = 1; step->split_each && i + mark <= b.n; i++)
        if (!memcmp(b.at + i, step->from.s, mark)) {
            split_from(w, k + 1, first && !open, b.at + open, i - open);
            open = i;
        }
    if (b.n > open)
        split_from(w, k + 1, first && !open, b.at + open, b.n - open);
    free(b.at);
}

static void split_from(const struct splitting *w, int k, bool first, const char *s, size_t n)
{
    if (k == w->tok->split.n) {
        w->fn(w->arg, s, n);
        return;
    }
    const struct step *step = &w->tok->split.at[k];
    if (step->kind == STEP_METASPACE) {
        split_metaspace(w, k, first, s, n);
    } else if (step->kind == STEP_BYTE_LEVEL && step->prefix_space && n && s[0] != ' ') {
        char *spaced = malloc(n + 1);
        must(spaced);
        spaced[0] = ' ';
        memcpy(spaced + 1, s, n);
        (step->regex ? split_regex : split_from)(w, step->regex ? k : k + 1, first, spaced, n + 1);
        free(spaced);
    } else if (step->regex) {
        split_regex(w, k, first, s, n);
    } else {
        split_from(w, k + 1, first, s, n);
    }
}

void split_text(const struct tok *t, const char *s, size_t n, bool first, piece_fn *fn, void *arg)
{
    const struct steps *split = &t->split;
    struct splitting w = {.tok = t, .fn = fn, .arg = arg};
    if (!n)
        return;
    for (int i = 0; i < split->n; i++)
        if (split->at[i].regex)
            w.matcher[i] = matcher_new(split->at[i].regex);
    split_from(&w, 0, first, s, n);
    for (int i = 0; i < split->n; i++)
        if (split->at[i].regex)
            matcher_free(&w.matcher[i]);
}
