/* grammar_rules.h - rules over bytes, as a graph of nodes. Private to text/.
 *
 * A rule is a pair of nodes: whoever walks from its start to its end has read it. Edges read a byte
 * of a range, nothing, or another rule (some times over: repetitions are counted, not unrolled).
 * Bytes 0xFE and 0xFF, which no text has, stand before the text of special and other added tokens.
 *
 * Emitters take the node they go on from and return the one they end at. The first failure is kept
 * and makes all that follows do nothing, so that it is asked about once, by rules_finish().
 */
#ifndef TANDEM_GRAMMAR_RULES_H
#define TANDEM_GRAMMAR_RULES_H

#include "base/arena.h"
#include "text/grammar.h"

enum { ENDLESS = INT32_MAX, NEVER = INT32_MAX, BYTE_SPECIAL = 0xFE, BYTE_ADDED = 0xFF };

struct edge {
    enum edge_kind { EDGE_BYTES, EDGE_EMPTY, EDGE_CALL } kind;
    unsigned char lo, hi; /* bytes */
    bool inner;           /* call: of a part of a string or pattern, see states.h */
    int from, to;
    int rule, min, max; /* call: so many times in a row */
};

struct rule {
    int start, end;
};

struct rules {
    struct pool pool;
    struct edge *edge; /* sorted by from after rules_finish() */
    int n_edges, edge_room;
    int n_nodes;
    struct rule *rule;
    int n_rules, rule_room;
    int rc; /* the first failure */
    struct err err;
    /* From rules_finish() on: */
    int root;
    int *first;   /* [n_nodes + 1]: edges of node v are edge[first[v] .. first[v + 1]) */
    int *need;    /* [n_nodes]: how many calls deep one must go to reach the end of the rule */
    bool *is_end; /* [n_nodes] */
    int n_class;  /* bytes that no edge tells apart are one class */
    unsigned char class_of[256];
};

/* Keep the first failure. */
PRINTF(2, 3) void rules_fail(struct rules *r, const char *fmt, ...);

int rules_node(struct rules *r);
int rules_new(struct rules *r);                         /* a rule with two new nodes */
int rules_between(struct rules *r, int start, int end); /* a rule of what was emitted */
void rules_empty(struct rules *r, int from, int to);
void rules_bytes(struct rules *r, int from, int lo, int hi, int to);
int rules_text(struct rules *r, int from, const char *s, size_t n);
int rules_call(struct rules *r, int from, int rule);
/* Rule `rule` min to max times; max may be ENDLESS. */
int rules_repeat(struct rules *r, int from, int rule, int min, int max, bool inner);

/* Everything is emitted: sort, classify bytes, and refuse what can never be complete and rules
 * that call themselves before they read anything. */
int rules_finish(struct rules *r, int root, struct err *e);
void rules_free(struct rules *r);

/* grammar_chars.c - sets of characters, as sorted ranges of code points. */
struct chars {
    struct {
        unsigned lo, hi;
    } * at;
    int n, room;
};
void chars_add(struct pool *p, struct chars *c, unsigned lo, unsigned hi);
void chars_invert(struct pool *p, struct chars *c); /* all others, but for surrogates */
/* The character at s (valid UTF-8); its bytes, 0 where there is none. */
int chars_decode(const char *s, size_t n, unsigned *c);
/* One character of the set in UTF-8; json: as it stands in a JSON string. */
int chars_emit(struct rules *r, int from, struct chars *c, bool json);
int chars_emit_any(struct rules *r, int from, bool json); /* any, newlines too */

/* grammar_regex.c. json: the value of a JSON string (without its quotes), where the pattern need
 * not begin at the first character nor end at the last; otherwise the whole text. `what` begins
 * error sentences. */
int regex_emit(struct rules *r, int from, const char *pattern, size_t n, bool json,
               const char *what);
/* The inside of a class, from behind its [ at *at to behind its ]; escapes as in patterns. */
bool regex_class(struct rules *r, const char *s, size_t n, size_t *at, struct chars *c);
/* {n}, {n,}, {n,m} at s[*at]; false when it is none. */
bool regex_count(const char *s, size_t n, size_t *at, int *min, int *max);
/* What was emitted from s to t, to come behind `from` as often as the quantifier at text[*at] says
 * (once when there is none). */
int regex_quantify(struct rules *r, int from, int s, int t, const char *text, size_t n, size_t *at);

/* grammar_ebnf.c: returns the rule `root`. */
int ebnf_emit(struct rules *r, const char *text, size_t n);

/* grammar_json.c - what JSON is made of. */
struct json_rules {
    struct rules *r;
    int blanks;
    int value, object, array, string, number, integer, letter, blank; /* rules, -1: not yet made */
};
struct json_rules json_rules_of(struct rules *r, int blanks);
int value_rule(struct json_rules *j);  /* any value */
int object_rule(struct json_rules *j); /* any object */
int array_rule(struct json_rules *j);
int string_rule(struct json_rules *j);
int number_rule(struct json_rules *j, bool integer);
int string_emit(struct json_rules *j, int from, int min, int max); /* characters */
int string_rest(struct json_rules *j, int from);                   /* any letters, and the quote */
int blank_after(struct json_rules *j, int from);                   /* , and : */
int blank_inside(struct json_rules *j, int from); /* brackets, and before , and : */
/* A number within bounds: decimal digits as of_number() makes them. */
struct bound {
    bool given, open, negative;
    long long whole;   /* 0 .. 10^18 - 1 */
    char fraction[19]; /* 18 digits */
};
bool bound_of(double v,
              struct bound *b); /* false: not within 18 digits before and after the point */
int number_between(struct json_rules *j, int from, bool integer, struct bound lo, struct bound hi);

/* schema.c: rule of a schema's text. */
int schema_emit(struct rules *r, const char *text, size_t n, int blanks, const char *what);

/* grammar_tags.c */
struct grammar_vocab;
int tags_emit(struct rules *r, const struct grammar_spec *spec, const struct grammar_vocab *v);
/* Free text up to and with the given words; the node behind them. stop: where the text may end
 * instead, -1: nowhere. */
int tags_until(struct rules *r, int from, const char *words, const struct grammar_vocab *v,
               int stop);

#endif
