/* grammar_ebnf.c - grammars as text, in the notation that llama.cpp's users know.
 *
 *     root ::= item ("," item){0,3}    # comments run to the end of the line
 *     item ::= "a" | [0-9]+ | .
 *
 * A rule goes on until the next name with ::= behind it. See grammar_rules.h. */
#include "text/grammar_rules.h"

enum { NAMES_MAX = 4096 };

struct name {
    const char *s;
    size_t n;
    int rule;
    bool defined;
};

struct ebnf {
    struct rules *r;
    const char *s;
    size_t n, at;
    struct name *name;
    int n_names, depth;
};

static void fail(struct ebnf *x, const char *why)
{
    int line = 1;
    for (size_t i = 0; i < x->at && i < x->n; i++)
        line += x->s[i] == '\n';
    rules_fail(x->r, "grammar, line %d: %s", line, why);
    x->at = x->n;
}

static void blank(struct ebnf *x)
{
    for (; x->at < x->n && (strchr(" \t\r\n", x->s[x->at]) || x->s[x->at] == '#'); x->at++)
        if (x->s[x->at] == '#')
            while (x->at + 1 < x->n && x->s[x->at] != '\n')
                x->at++;
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static size_t name_length(const struct ebnf *x)
{
    size_t k = x->at;
    while (k < x->n && name_char(x->s[k]))
        k++;
    return k - x->at;
}

/* Whether ::= follows the name of n bytes here; then *behind is the place after it. */
static bool defines(const struct ebnf *x, size_t n, size_t *behind)
{
    struct ebnf y = *x;
    y.at += n;
    blank(&y);
    *behind = y.at + 3;
    return n && y.n - y.at >= 3 && !memcmp(y.s + y.at, "::=", 3);
}

static struct name *name_of(struct ebnf *x, size_t n)
{
    const char *s = x->s + x->at;
    for (int i = 0; i < x->n_names; i++)
        if (x->name[i].n == n && !memcmp(x->name[i].s, s, n))
            return &x->name[i];
    if (x->n_names == NAMES_MAX) {
        fail(x, "more than 4096 names");
        return x->name;
    }
    x->name[x->n_names] = (struct name){s, n, rules_new(x->r), false};
    return &x->name[x->n_names++];
}

static int alternatives(struct ebnf *x, int from);

/* "..." with escapes: a class of one character each, so that they mean the same in both. */
static int literal(struct ebnf *x, int from)
{
    struct rules *r = x->r;
    for (x->at++; x->at < x->n && x->s[x->at] != '"' && !r->rc;) {
        char one[16];
        size_t k = x->s[x->at] != '\\'      ? 1
                   : x->at + 1 >= x->n      ? 2
                   : x->s[x->at + 1] == 'x' ? 4
                   : x->s[x->at + 1] == 'u' ? 6
                   : x->s[x->at + 1] == 'U' ? 10
                                            : 2;
        if (k == 1) {
            from = rules_text(r, from, x->s + x->at++, 1);
            continue;
        }
        struct chars c = {0};
        size_t at = 0;
        k = x->n - x->at < k ? x->n - x->at : k;
        memcpy(one, x->s + x->at, k);
        one[k] = ']';
        if (!regex_class(r, one, k + 1, &at, &c) || at != k + 1)
            return fail(x, "an escape in a literal is wrong"), from;
        from = chars_emit(r, from, &c, false);
        x->at += k;
    }
    if (x->at >= x->n)
        fail(x, "a \" is never closed");
    x->at++;
    return from;
}

static int item(struct ebnf *x, int from)
{
    struct chars c = {0};
    char l = x->s[x->at];
    size_t n = name_length(x);
    if (n) {
        const struct name *name = name_of(x, n);
        x->at += n;
        return rules_call(x->r, from, name->rule);
    }
    x->at++;
    if (l == '"')
        return x->at--, literal(x, from);
    if (l == '.')
        return chars_emit_any(x->r, from, false);
    if (l == '[') {
        if (!regex_class(x->r, x->s, x->n, &x->at, &c))
            return fail(x, "a class in [] is wrong or not supported"), from;
        return chars_emit(x->r, from, &c, false);
    }
    if (l != '(')
        return fail(x, "a name, \"...\", [...], . or ( was expected"), from;
    if (++x->depth > GRAMMAR_NESTING_MAX)
        return fail(x, "groups nest too deeply"), from;
    int to = alternatives(x, from);
    x->depth--;
    if (x->at >= x->n || x->s[x->at] != ')')
        fail(x, "a ( is never closed");
    x->at++;
    return to;
}

static int sequence(struct ebnf *x, int from)
{
    size_t behind;
    for (blank(x); x->at < x->n && !x->r->rc; blank(x)) {
        if (x->s[x->at] == '|' || x->s[x->at] == ')' || defines(x, name_length(x), &behind))
            break;
        int s = rules_node(x->r), t = item(x, s);
        if (x->r->rc)
            break;
        from = regex_quantify(x->r, from, s, t, x->s, x->n, &x->at);
    }
    return from;
}

static int alternatives(struct ebnf *x, int from)
{
    int to = rules_node(x->r);
    for (;;) {
        rules_empty(x->r, sequence(x, from), to);
        if (x->r->rc || x->at >= x->n || x->s[x->at] != '|')
            return to;
        x->at++;
    }
}

int ebnf_emit(struct rules *r, const char *text, size_t n)
{
    struct ebnf x = {.r = r, .s = text, .n = n};
    x.name = pool_get(&r->pool, NAMES_MAX * sizeof(*x.name));
    for (blank(&x); x.at < x.n && !r->rc; blank(&x)) {
        size_t behind, k = name_length(&x);
        if (!defines(&x, k, &behind)) {
            fail(&x, "a rule begins with its name and ::=");
            break;
        }
        struct name *name = name_of(&x, k);
        if (name->defined || r->rc) {
            fail(&x, "a rule is defined twice");
            break;
        }
        name->defined = true;
        x.at = behind;
        struct rule rule = r->rule[name->rule];
        rules_empty(r, alternatives(&x, rule.start), rule.end);
    }
    int root = -1;
    for (int i = 0; i < x.n_names; i++) {
        const struct name *name = &x.name[i];
        if (!name->defined)
            rules_fail(r, "grammar: there is no rule %.*s", (int)(name->n < 80 ? name->n : 80),
                       name->s);
        if (name->n == 4 && !memcmp(name->s, "root", 4))
            root = name->rule;
    }
    if (root < 0)
        rules_fail(r, "grammar: there is no rule root");
    return root < 0 ? 0 : root;
}
