/* grammar_number.c - numbers within bounds, digit by digit. See grammar_rules.h.
 *
 * A walk over the digits of a magnitude knows whether it still equals the lower and the upper
 * bound so far; that is four nodes a digit. Whole numbers have up to 18 digits, fractions too, and
 * bounded numbers are written without an exponent. */
#include "text/grammar_rules.h"

enum { DIGITS = 18 };
static const long long MOST = 999999999999999999;

/* A magnitude and whether it is itself left out. */
struct limit {
    long long whole;
    const char *fraction; /* DIGITS of them */
    bool open;
};

bool bound_of(double v, struct bound *b)
{
    char text[64];
    bool negative = v < 0;
    int n = 0;
    v = negative ? -v : v;
    if (!(v <= (double)(MOST / 1000 * 1000) && v < 1e18))
        return false;
    for (int digits = 0; digits <= DIGITS; digits++) {
        n = snprintf(text, sizeof(text), "%.*f", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    if (strtod(text, NULL) != v || n >= (int)sizeof(text))
        return false;
    char *point = strchr(text, '.');
    b->negative = negative;
    b->whole = strtoll(text, NULL, 10);
    memset(b->fraction, '0', DIGITS);
    b->fraction[DIGITS] = 0;
    if (point)
        memcpy(b->fraction, point + 1, strlen(point + 1));
    return true;
}

/* ------------------------------------------------------------------------------- digits */

/* Edges from node [0] for a digit that is at least lo when `low`, at most hi when `high`, to the
 * node of what then still is equal. */
static void digit(struct rules *r, int from, char lo, char hi, bool low, bool high, int to[2][2])
{
    int a = low ? lo : '0', b = high ? hi : '9';
    if (low && high && a == b) {
        rules_bytes(r, from, a, a, to[1][1]);
        return;
    }
    if (a > b)
        return;
    if (low)
        rules_bytes(r, from, a, a, to[1][0]), a++;
    if (high)
        rules_bytes(r, from, b, b, to[0][1]), b--;
    if (a <= b)
        rules_bytes(r, from, a, b, to[0][0]);
}

static void four_nodes(struct rules *r, int to[2][2])
{
    for (int i = 0; i < 4; i++)
        to[i / 2][i % 2] = rules_node(r);
}

/* Numbers of n digits from lo to hi, which have as many. */
static void same_length(struct rules *r, int from, const char *lo, const char *hi, int n, int to)
{
    int node[2][2] = {{-1, -1}, {-1, from}}, next[2][2];
    for (int k = 0; k < n && !r->rc; k++) {
        four_nodes(r, next);
        for (int s = 0; s < 4; s++)
            if (node[s / 2][s % 2] >= 0)
                digit(r, node[s / 2][s % 2], lo[k], hi[k], s / 2, s % 2, next);
        memcpy(node, next, sizeof(node));
    }
    for (int s = 0; s < 4; s++)
        rules_empty(r, node[s / 2][s % 2], to);
}

/* Whole numbers from lo to hi, without leading zeros; lo >= 0. */
static void whole(struct rules *r, int from, long long lo, long long hi, int to)
{
    long long first = 0, last = 9;
    for (int n = 1; n <= DIGITS; n++) {
        if (n > 1)
            first = last + 1, last = last * 10 + 9;
        long long a = lo > first ? lo : first, b = hi < last ? hi : last;
        char x[24], y[24];
        if (a > b)
            continue;
        snprintf(x, sizeof(x), "%lld", a);
        snprintf(y, sizeof(y), "%lld", b);
        same_length(r, from, x, y, n, to);
    }
}

static bool zeros(const char *s) { return strspn(s, "0") == strlen(s); }

/* Whether a fraction may end when k digits of it are written; nothing is zeros. */
static bool may_end(const struct limit *lo, const struct limit *hi, int k)
{
    if (lo && (!zeros(lo->fraction + k) || lo->open))
        return false;
    return !(hi && hi->open && zeros(hi->fraction + k));
}

/* Behind the whole part: nothing, or a point and digits. lo, hi: NULL when the whole part already
 * is beyond it. */
static void fraction(struct rules *r, int from, const struct limit *lo, const struct limit *hi,
                     int to)
{
    static const char none[DIGITS + 1] = "000000000000000000";
    int node[2][2] = {{-1, -1}, {-1, -1}}, next[2][2];
    node[lo != NULL][hi != NULL] = rules_text(r, from, ".", 1);
    if (may_end(lo, hi, 0))
        rules_empty(r, from, to);
    for (int k = 0; k < DIGITS && !r->rc; k++) {
        four_nodes(r, next);
        for (int s = 0; s < 4; s++) {
            if (node[s / 2][s % 2] >= 0)
                digit(r, node[s / 2][s % 2], lo ? lo->fraction[k] : none[k],
                      hi ? hi->fraction[k] : none[k], s / 2, s % 2, next);
            if (may_end(s / 2 ? lo : NULL, s % 2 ? hi : NULL, k + 1))
                rules_empty(r, next[s / 2][s % 2], to);
        }
        memcpy(node, next, sizeof(node));
    }
}

/* ------------------------------------------------------------------------------- magnitudes */

static void magnitude(struct rules *r, int from, bool integer, const struct limit *lo,
                      const struct limit *hi, int to)
{
    if (integer) {
        long long a = lo->whole + (!zeros(lo->fraction) || lo->open);
        long long b = hi->whole - (zeros(hi->fraction) && hi->open);
        whole(r, from, a, b, to);
        return;
    }
    if (lo->whole > hi->whole)
        return;
    int at = rules_node(r);
    if (lo->whole == hi->whole) {
        whole(r, from, lo->whole, lo->whole, at);
        fraction(r, at, lo, hi, to);
        return;
    }
    whole(r, from, lo->whole, lo->whole, at);
    fraction(r, at, lo, NULL, to);
    int between = rules_node(r), top = rules_node(r);
    whole(r, from, lo->whole + 1, hi->whole - 1, between);
    fraction(r, between, NULL, NULL, to);
    whole(r, from, hi->whole, hi->whole, top);
    fraction(r, top, NULL, hi, to);
}

/* A bound as the end of a range of magnitudes, `other` when it is not on this side of zero. */
static struct limit limit_of(const struct bound *b, bool negative, struct limit other)
{
    if (!b->given || b->negative != negative)
        return other;
    return (struct limit){b->whole, b->fraction, b->open};
}

int number_between(struct json_rules *j, int from, bool integer, struct bound lo, struct bound hi)
{
    static const char none[] = "000000000000000000", nines[] = "999999999999999999";
    struct rules *r = j->r;
    const struct limit zero = {0, none, false}, most = {MOST, nines, false};
    int to = rules_node(r);
    if (!(hi.given && hi.negative)) {
        struct limit a = limit_of(&lo, false, zero), b = limit_of(&hi, false, most);
        magnitude(r, from, integer, &a, &b, to);
    }
    if (!lo.given || lo.negative) {
        struct limit a = limit_of(&hi, true, zero), b = limit_of(&lo, true, most);
        if (hi.given && !hi.negative && hi.whole == 0 && zeros(hi.fraction) && hi.open)
            a.open = true; /* below zero */
        if (integer && a.whole == 0 && zeros(a.fraction))
            a.open = true; /* no -0 */
        magnitude(r, rules_text(r, from, "-", 1), integer, &a, &b, to);
    }
    return to;
}
