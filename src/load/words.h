/* words.h - prompts of about as many tokens as asked for, made of common words, or from a file.
 *
 * How many tokens a word is depends on the tokenizer, which only the server has: probe.h asks it.
 */
#ifndef TANDEM_LOAD_WORDS_H
#define TANDEM_LOAD_WORDS_H

#include "base/arena.h"
#include "load/draw.h"

enum { WORDS_LIST = 64, WORDS_LONGEST = 8 };

/* Tokens of a prompt of n words: tok_around + n tok_per_word. */
struct words_rate {
    double tok_per_word, tok_around;
};

/* How many words make about this many tokens, with or without what stands around them. */
int words_for(const struct words_rate *r, int tok, bool whole_prompt);

/* Append n words, a blank before each but the first of the text; to has room for
 * n * (WORDS_LONGEST + 1) more and is left 0-terminated. Returns its end. */
char *words_draw(char *begin, char *to, int n, struct draws d);

/* The same with every word of the list in turn, `rounds` times and `more` of another round. */
char *words_all(char *begin, char *to, int rounds, int more);

/* Prompts of a file: lines of text, or of JSON objects with a "prompt"; empty lines do not count.
 */
struct prompts {
    const char **at;
    size_t n;
    struct pool pool;
};

/* Read them; a bad line is -EINVAL with its number. what: the file's name in errors. */
int prompts_parse(struct prompts *p, const char *text, size_t n, const char *what, struct err *e);
int prompts_read(struct prompts *p, const char *file, struct err *e);
void prompts_free(struct prompts *p);

#endif
