/* grammar.h - what an answer may be: JSON, JSON by a schema, a regular expression, one of some
 * choices, an EBNF grammar, tool calls in free text; as masks over a model's tokens.
 *
 * A description becomes rules over bytes, rules become a pushdown automaton whose states are built
 * when they are first met, and a state gives the set of tokens that may come next. Whatever the
 * masks allow can be completed: there are no dead ends. What is supported of JSON Schema, regular
 * expressions and EBNF stands in docs/STRUCTURED.md.
 *
 * Descriptions are untrusted. Compiling them is bounded by the limits below, and so are memory and
 * work while matching.
 */
#ifndef TANDEM_GRAMMAR_H
#define TANDEM_GRAMMAR_H

#include "text/tok.h"

enum {
    GRAMMAR_TEXT_MAX = 1 << 18, /* bytes of a schema, pattern or grammar */
    GRAMMAR_NODES_MAX = 1 << 18,
    GRAMMAR_RULES_MAX = 1 << 14,
    GRAMMAR_NESTING_MAX = 64,  /* of schemas in schemas, groups in groups */
    GRAMMAR_DEPTH_MAX = 1024,  /* rules within rules in an answer; deeper nesting is not allowed */
    GRAMMAR_STACKS_MAX = 4096, /* ways to read an answer so far */
    GRAMMAR_BLANKS_MAX = 64,
};

/* ------------------------------------------------------------------------------- tokens */

/* The tokens of a model as a tree of bytes. Read-only, may be shared by threads. */
struct grammar_vocab;

/* n_vocab: of the model's logits; tokens from there on are left out. eos: tokens that end an
 * answer, allowed where an answer may end. t must outlive it. Takes some tens of milliseconds. */
struct grammar_vocab *grammar_vocab_new(const struct tok *t, int n_vocab, const int *eos,
                                        int n_eos);
void grammar_vocab_free(struct grammar_vocab *v);

/* ------------------------------------------------------------------------------- grammars */

enum grammar_kind {
    GRAMMAR_OBJECT, /* any JSON object */
    GRAMMAR_SCHEMA, /* JSON by the schema `text` */
    GRAMMAR_REGEX,  /* the whole answer matches `text` */
    GRAMMAR_CHOICE, /* one of the choices */
    GRAMMAR_EBNF,   /* the rule `root` of `text` */
    GRAMMAR_TAGS    /* free text; wherever `trigger` was written, one of the tags goes on */
};

/* begin, JSON by the schema, end: one way to write a tool call. Text in begin and end that is an
 * added token, as "<tool_call>" or "[TOOL_CALLS]" may be, can come as that token. */
struct grammar_tag {
    const char *begin, *schema, *end; /* schema NULL: any JSON object */
};

struct grammar_spec {
    enum grammar_kind kind;
    const char *text;
    size_t n_text;
    const char *const *choice;
    int n_choices;
    const char *trigger; /* the beginning of every tag's begin; not empty unless at_once */
    const struct grammar_tag *tag;
    int n_tags;
    bool at_once;      /* the answer begins with a tag, and between tags stand only blanks */
    bool at_least_one; /* the answer must not end before a tag */
    bool once;         /* it ends after one */
    const char *after; /* all this holds only after these words; before, free text. NULL: at once */
    int blanks; /* between the tokens of JSON: 0 none; 1 at most one space after , and :, as models
                   mostly write; n: up to n blanks, newlines and tabs anywhere */
};

struct grammar;

/* Compile. -EINVAL with one sentence, which names the place in the schema or pattern, for what is
 * wrong, not supported or too large. v must outlive the grammar; the spec need not. */
int grammar_new(const struct grammar_spec *spec, const struct grammar_vocab *v,
                struct grammar **out, struct err *e);

/* The caller's part in it ends; it goes when its last matcher does. */
void grammar_free(struct grammar *g);

/* ------------------------------------------------------------------------------- matching */

/* An answer in progress. Making, cloning and freeing matchers may happen in any thread; all else
 * about the matchers of one grammar happens in one thread at a time, because they share the states
 * that were built. */
struct matcher;
struct matcher *matcher_new(struct grammar *g);
struct matcher *matcher_clone(const struct matcher *m);
void matcher_free(struct matcher *m);

/* Set the bit of every token that may come next in allow[(n_vocab + 63) / 64]; other bits become
 * 0. The ends of the answer are among them where it may end. After an end, none. Returns 0, or
 * -E2BIG when a hostile grammar exceeds the limits (sticky; matcher_error() says why). */
int matcher_mask(struct matcher *m, uint64_t *allow);

/* n tokens were drawn. Returns how many of them fit, in order; those are taken, the first that
 * does not fit and those behind it are not. An end fits where the answer may end. */
int matcher_take(struct matcher *m, const int *tok, int n);

/* Tokens that the grammar leaves no choice about, as the tokenizer would write them; at most
 * `room`, returns how many. They are not taken. */
int matcher_forced(struct matcher *m, int *tok, int room);

bool matcher_accepting(struct matcher *m); /* the answer may end here */
bool matcher_stopped(struct matcher *m);   /* it has ended, or nothing but an end may come */

/* Forget the last n tokens taken; n is at most as many as were taken. */
void matcher_rollback(struct matcher *m, int n);

/* One sentence, or NULL while all is well. */
const char *matcher_error(const struct matcher *m);

#endif
