/* trace.h - recorded requests: when they came, how long they were, what they shared.
 *
 * Two shapes of file, told apart by the first character. Lines of JSON as Mooncake's: timestamp in
 * milliseconds, input_length, output_length, and perhaps hash_ids, one per 512 tokens of the
 * prompt, equal where the prompts are. Or a table with a line of names and commas: Azure's
 * (TIMESTAMP, ContextTokens, GeneratedTokens), BurstGPT's (Timestamp, Request tokens, Response
 * tokens) and others with such columns; times are seconds or dates. Without times only the lengths
 * can be used.
 */
#ifndef TANDEM_LOAD_TRACE_H
#define TANDEM_LOAD_TRACE_H

#include "base/arena.h"

enum { TRACE_BLOCK = 512, TRACE_TOKENS_MOST = 1 << 22 };

struct trace_row {
    double at;    /* seconds since the first row */
    size_t order; /* in the file */
    int prompt_tok, output_tok;
    size_t first_block;
    int n_block;
};

struct trace {
    struct trace_row *row; /* [n], by time */
    size_t n;
    size_t left_out; /* rows without prompt or answer: failed in the original */
    uint64_t *block; /* ids, TRACE_BLOCK tokens each */
    bool timed;
    struct pool pool;
};

/* Read n bytes; what (the file's name) and the line begin errors, -EINVAL. trace_free() ends it,
 * after an error too. */
int trace_parse(struct trace *t, const char *text, size_t n, const char *what, struct err *e);
int trace_read(struct trace *t, const char *file, struct err *e);

/* Keep what comes before this time. */
void trace_cut(struct trace *t, double seconds);
void trace_free(struct trace *t);

#endif
