/* grammar_tags.c - free text with constrained parts in it, as tool calls are. See grammar_rules.h.
 *
 * Free text that stops at some words is the automaton of Knuth, Morris and Pratt: its nodes are how
 * much of the words was read last. Any bytes are free text, and added tokens; a special token only
 * where its text is part of the words. */
#include "text/mask.h"

enum { WORDS_MAX = 256, TAGS_MAX = 1024, GAP = 4 };

/* Whether the added token's text stands at s; *lead is the byte before it in the tree. */
static bool token_at(const struct added_text *a, const char *s, size_t n, int *lead)
{
    *lead = (unsigned char)a->text.s[0];
    return a->text.n - 1 <= n && !memcmp(a->text.s + 1, s, a->text.n - 1);
}

/* Words that may come as added tokens, or parts of them as such. */
static int words(struct rules *r, int from, const char *s, const struct grammar_vocab *v)
{
    size_t n = strlen(s);
    for (size_t p = 0; p < n && !r->rc; p++) {
        int lead;
        for (int i = 0; i < v->n_added; i++)
            if (token_at(&v->added[i], s + p, n - p, &lead))
                rules_bytes(r, from, lead, lead, from);
        from = rules_text(r, from, s + p, 1);
    }
    return from;
}

/* Edges of one node: byte b leads to how[b] of the words' nodes. */
static void follow(struct rules *r, int from, const int *how, const int *node)
{
    for (int b = 0, e; b < BYTE_SPECIAL; b = e) {
        for (e = b + 1; e < BYTE_SPECIAL && how[e] == how[b]; e++)
            ;
        rules_bytes(r, from, b, e - 1, node[how[b]]);
    }
}

/* A special token whose text stands at p in the words begins there: from every node when p is 0. */
static void special_parts(struct rules *r, const char *s, int n, const struct grammar_vocab *v,
                          const int *node)
{
    for (int i = 0; i < v->n_added; i++)
        for (int p = 0, lead; p < n && !r->rc; p++) {
            const struct text *t = &v->added[i].text;
            if (!token_at(&v->added[i], s + p, (size_t)(n - p), &lead) || lead != BYTE_SPECIAL)
                continue;
            int in = rules_node(r);
            for (int k = p ? p : 0; k < (p ? p + 1 : n); k++)
                rules_bytes(r, node[k], lead, lead, in);
            rules_empty(r, rules_text(r, in, t->s + 1, t->n - 1), node[p + (int)t->n - 1]);
        }
}

int tags_until(struct rules *r, int from, const char *s, const struct grammar_vocab *v, int stop)
{
    int n = (int)strnlen(s, WORDS_MAX + 1), node[WORDS_MAX + 1], how[256] = {0}, back = 0;
    if (n == 0 || n > WORDS_MAX) {
        rules_fail(r, "words that end free text must have 1 to %d bytes", WORDS_MAX);
        return from;
    }
    for (int i = 0; i <= n; i++)
        node[i] = rules_node(r);
    rules_empty(r, from, node[0]);
    int(*leads)[256] = pool_get(&r->pool, (size_t)n * sizeof(*leads)); /* by how much was read */
    for (int i = 0; i < n && !r->rc; i++) {
        unsigned char b = (unsigned char)s[i];
        memcpy(how, leads[back], sizeof(how));
        int next_back = i ? leads[back][b] : 0;
        how[b] = i + 1;
        memcpy(leads[i], how, sizeof(how));
        back = next_back;
        follow(r, node[i], how, node);
        rules_bytes(r, node[i], BYTE_ADDED, BYTE_ADDED, node[i]);
        if (stop >= 0)
            rules_empty(r, node[i], stop);
    }
    special_parts(r, s, n, v, node);
    return node[n];
}

/* The tags, each without its first `skip` bytes; from any to one node. */
static int any_tag(struct rules *r, int from, const struct grammar_spec *spec, size_t skip,
                   const struct grammar_vocab *v, const int *schema)
{
    int to = rules_node(r);
    for (int i = 0; i < spec->n_tags && !r->rc; i++) {
        int at = words(r, from, spec->tag[i].begin + skip, v);
        at = rules_call(r, at, schema[i]);
        rules_empty(r, words(r, at, spec->tag[i].end, v), to);
    }
    return to;
}

static int *schemas(struct rules *r, const struct grammar_spec *spec)
{
    int *rule = pool_get(&r->pool, (size_t)spec->n_tags * sizeof(int));
    struct json_rules j = json_rules_of(r, spec->blanks);
    for (int i = 0; i < spec->n_tags && !r->rc; i++) {
        char what[128];
        const char *text = spec->tag[i].schema;
        snprintf(what, sizeof(what), "schema of \"%.80s\"", spec->tag[i].begin);
        rule[i] = text ? schema_emit(r, text, strlen(text), spec->blanks, what) : object_rule(&j);
    }
    return rule;
}

int tags_emit(struct rules *r, const struct grammar_spec *spec, const struct grammar_vocab *v)
{
    int rule = rules_new(r), start = r->rc ? 0 : r->rule[rule].start;
    int end = r->rc ? 0 : r->rule[rule].end;
    size_t skip = spec->at_once || !spec->trigger ? 0 : strlen(spec->trigger);
    if (spec->n_tags < 1 || spec->n_tags > TAGS_MAX)
        rules_fail(r, "%d tags: 1 to %d are possible", spec->n_tags, TAGS_MAX);
    for (int i = 0; i < spec->n_tags && !r->rc; i++)
        if (strncmp(spec->tag[i].begin, spec->trigger ? spec->trigger : "", skip))
            rules_fail(r, "tag %d begins with \"%.80s\", not with the trigger", i,
                       spec->tag[i].begin);
    if (r->rc)
        return rule;
    const int *schema = schemas(r, spec);
    int at = spec->at_once ? rules_node(r)
                           : tags_until(r, start, spec->trigger ? spec->trigger : "", v,
                                        spec->at_least_one ? -1 : end);
    if (spec->at_once)
        rules_empty(r, start, at);
    int done = any_tag(r, at, spec, skip, v, schema);
    rules_empty(r, done, end);
    if (spec->once)
        return rule;
    if (!spec->at_once) {
        rules_empty(r, tags_until(r, done, spec->trigger, v, end), at);
        return rule;
    }
    for (int i = 0; i <= GAP; i++) {
        int next = rules_node(r);
        rules_empty(r, done, at);
        rules_bytes(r, done, ' ', ' ', next);
        rules_bytes(r, done, '\n', '\n', next);
        done = next;
    }
    return rule;
}
