/* grammar_chars.c - sets of characters as edges over the bytes of UTF-8. See grammar_rules.h. */
#include "text/grammar_rules.h"
#include "text/vocab.h"

enum { LAST = 0x10FFFF };

static int by_lo(const void *a, const void *b)
{
    const unsigned *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

void chars_add(struct pool *p, struct chars *c, unsigned lo, unsigned hi)
{
    if (c->n == c->room) {
        c->room = c->room ? 2 * c->room : 8;
        void *more = pool_get(p, (size_t)c->room * sizeof(*c->at));
        if (c->n)
            memcpy(more, c->at, (size_t)c->n * sizeof(*c->at));
        c->at = more;
    }
    c->at[c->n].lo = lo;
    c->at[c->n++].hi = hi;
}

/* Sorted, apart from each other, not empty. */
static void normal_form(struct chars *c)
{
    int n = 0;
    if (c->n)
        qsort(c->at, (size_t)c->n, sizeof(*c->at), by_lo);
    for (int i = 0; i < c->n; i++) {
        if (n && c->at[i].lo <= c->at[n - 1].hi + 1) {
            if (c->at[i].hi > c->at[n - 1].hi)
                c->at[n - 1].hi = c->at[i].hi;
        } else {
            c->at[n++] = c->at[i];
        }
    }
    c->n = n;
}

void chars_invert(struct pool *p, struct chars *c)
{
    struct chars out = {0};
    unsigned from = 0;
    normal_form(c);
    for (int i = 0; i < c->n; i++) {
        if (c->at[i].lo > from)
            chars_add(p, &out, from, c->at[i].lo - 1);
        from = c->at[i].hi + 1;
    }
    if (from <= LAST)
        chars_add(p, &out, from, LAST);
    *c = out;
}

static bool has(const struct chars *c, unsigned ch)
{
    for (int i = 0; i < c->n; i++)
        if (c->at[i].lo <= ch && ch <= c->at[i].hi)
            return true;
    return false;
}

/* ------------------------------------------------------------------------------- UTF-8 */

int chars_decode(const char *s, size_t n, unsigned *c)
{
    static const unsigned char mask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    size_t bad;
    int k = n ? utf8_length(s, n, &bad) : 0;
    if (k <= 0)
        return 0;
    *c = (unsigned char)s[0] & mask[k];
    for (int i = 1; i < k; i++)
        *c = *c << 6 | ((unsigned char)s[i] & 0x3Fu);
    return k;
}

/* Nodes from which k more free continuation bytes lead to `to`; tail[0] is `to`. */
struct tails {
    struct rules *r;
    int node[4];
};

static int tail(struct tails *t, int k)
{
    if (t->node[k] < 0) {
        t->node[k] = rules_node(t->r);
        rules_bytes(t->r, t->node[k], 0x80, 0xBF, tail(t, k - 1));
    }
    return t->node[k];
}

static int encode(unsigned c, int k, unsigned char *s)
{
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    if (k == 1) {
        s[0] = (unsigned char)c;
        return k;
    }
    for (int i = k - 1; i > 0; i--, c >>= 6)
        s[i] = (unsigned char)(0x80 | (c & 0x3F));
    s[0] = (unsigned char)(lead[k] | c);
    return k;
}

/* The bytes from position i on of all k-byte characters from a to b, which agree before i. */
static void emit_bytes(struct tails *t, int from, const unsigned char *a, const unsigned char *b,
                       int i, int k)
{
    static const unsigned char least[] = {0x80, 0x80, 0x80, 0x80},
                               most[] = {0xBF, 0xBF, 0xBF, 0xBF};
    int rest = k - 1 - i, lo = a[i], hi = b[i];
    if (rest == 0) {
        rules_bytes(t->r, from, lo, hi, t->node[0]);
        return;
    }
    bool low_cut = memcmp(a + i + 1, least, (size_t)rest) != 0,
         high_cut = memcmp(b + i + 1, most, (size_t)rest) != 0;
    unsigned char most_of[4] = {0}, least_of[4] = {0};
    memset(most_of, 0xBF, sizeof(most_of));
    memset(least_of, 0x80, sizeof(least_of));
    if (lo == hi && (low_cut || high_cut)) {
        int node = rules_node(t->r);
        rules_bytes(t->r, from, lo, lo, node);
        emit_bytes(t, node, a, b, i + 1, k);
        return;
    }
    if (low_cut) {
        int node = rules_node(t->r);
        rules_bytes(t->r, from, lo, lo, node);
        emit_bytes(t, node, a, most_of, i + 1, k);
        lo++;
    }
    if (high_cut) {
        int node = rules_node(t->r);
        rules_bytes(t->r, from, hi, hi, node);
        emit_bytes(t, node, least_of, b, i + 1, k);
        hi--;
    }
    if (lo <= hi)
        rules_bytes(t->r, from, lo, hi, tail(t, rest));
}

static void emit_range(struct tails *t, int from, unsigned lo, unsigned hi)
{
    static const unsigned last[] = {0x7F, 0x7FF, 0xD7FF, 0xDFFF, 0xFFFF, LAST};
    static const int length[] = {1, 2, 3, 0, 3, 4}; /* 0: surrogates have no UTF-8 */
    unsigned begin = 0;
    for (size_t i = 0; i < COUNT(last) && !t->r->rc; begin = last[i++] + 1) {
        unsigned a = lo > begin ? lo : begin, b = hi < last[i] ? hi : last[i];
        unsigned char s[4], e[4];
        if (a > b || !length[i])
            continue;
        encode(a, length[i], s);
        encode(b, length[i], e);
        emit_bytes(t, from, s, e, 0, length[i]);
    }
}

/* Those that a JSON string must escape, by the two-letter escapes; other control characters are
 * left out. */
static void emit_escapes(struct rules *r, int from, const struct chars *c, int to)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    int slash = -1;
    for (int i = 0; plain[i]; i++) {
        if (!has(c, (unsigned char)plain[i]))
            continue;
        if (slash < 0)
            slash = rules_text(r, from, "\\", 1);
        rules_bytes(r, slash, letter[i], letter[i], to);
    }
}

int chars_emit(struct rules *r, int from, struct chars *c, bool json)
{
    int to = rules_node(r);
    struct tails t = {r, {to, -1, -1, -1}};
    normal_form(c);
    for (int i = 0; i < c->n && !r->rc; i++) {
        static const unsigned cut[] = {0, 0x20, '"', '"' + 1, '\\', '\\' + 1, LAST + 1};
        if (!json) {
            emit_range(&t, from, c->at[i].lo, c->at[i].hi);
            continue;
        }
        for (int k = 1; k < 7; k += 2) { /* [20, 22), [23, 5C), [5D, ...) */
            unsigned lo = c->at[i].lo > cut[k] ? c->at[i].lo : cut[k];
            unsigned hi = c->at[i].hi < cut[k + 1] ? c->at[i].hi : cut[k + 1] - 1;
            if (lo <= hi)
                emit_range(&t, from, lo, hi);
        }
    }
    if (json)
        emit_escapes(r, from, c, to);
    return to;
}

int chars_emit_any(struct rules *r, int from, bool json)
{
    struct chars all = {0};
    chars_add(&r->pool, &all, 0, LAST);
    return chars_emit(r, from, &all, json);
}
