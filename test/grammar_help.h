/* grammar_help.h - the demo model's tokens, and helpers of the tests of grammars. */
#ifndef TANDEM_GRAMMAR_HELP_H
#define TANDEM_GRAMMAR_HELP_H

#include "text/grammar.h"
#include "text/vocab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

static struct tok *tok;
static struct grammar_vocab *vocab;
static int eos;

static inline int open_demo(void **state)
{
    struct err e;
    (void)state;
    if (tok_load(SOURCE_DIR "/models/demo", &tok, &e))
        return -1;
    eos = tok_id(tok, "<|endoftext|>");
    vocab = grammar_vocab_new(tok, tok_n_vocab(tok), &eos, 1);
    return 0;
}

static inline int close_demo(void **state)
{
    (void)state;
    grammar_vocab_free(vocab);
    tok_free(tok);
    return 0;
}

/* ------------------------------------------------------------------------------- helpers */

static inline struct grammar *compiled(struct grammar_spec spec)
{
    struct grammar *g;
    struct err e;
    spec.n_text = spec.text ? strlen(spec.text) : 0;
    if (grammar_new(&spec, vocab, &g, &e))
        fail_msg("%s: %s", spec.text ? spec.text : "", e.text);
    return g;
}

/* How many bytes of a text fit, each as the token of one byte. */
static inline size_t fitting(struct grammar *g, const char *s, size_t n, bool *whole)
{
    struct matcher *m = matcher_new(g);
    size_t i = 0;
    while (i < n && matcher_take(m, &tok->byte_id[(unsigned char)s[i]], 1))
        i++;
    *whole = i == n && matcher_accepting(m);
    matcher_free(m);
    return i;
}

static inline bool fits(struct grammar *g, const char *s)
{
    bool whole;
    fitting(g, s, strlen(s), &whole);
    return whole;
}

static inline void refused(struct grammar_spec spec, const char *because)
{
    struct grammar *g;
    struct err e;
    spec.n_text = spec.text ? strlen(spec.text) : 0;
    if (!grammar_new(&spec, vocab, &g, &e))
        fail_msg("%.200s should be refused", spec.text);
    if (!strstr(e.text, because))
        fail_msg("\"%s\" does not say \"%s\"", e.text, because);
}

#define SCHEMA(t)                                                                                  \
    {                                                                                              \
        .kind = GRAMMAR_SCHEMA, .text = t, .blanks = 1                                             \
    }
#define REGEX(t)                                                                                   \
    {                                                                                              \
        .kind = GRAMMAR_REGEX, .text = t                                                           \
    }
#define EBNF(t)                                                                                    \
    {                                                                                              \
        .kind = GRAMMAR_EBNF, .text = t                                                            \
    }

#endif
