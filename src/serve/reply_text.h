/* reply_text.h - from drawn tokens to the parts of one answer: stop strings, reasoning, tool calls.
 * Private to serve/reply*.c. */
#ifndef TANDEM_REPLY_TEXT_H
#define TANDEM_REPLY_TEXT_H

#include "base/buffer.h"
#include "serve/api.h"
#include "serve/reply_json.h"

enum reply_part {
    PART_CONTENT,
    PART_REASONING,
    PART_CALL,     /* a call begins: its name */
    PART_ARGUMENTS /* of the call begun last */
};

/* Gets the parts in order, as they become certain. */
struct part_sink {
    void *arg;
    void (*put)(void *arg, enum reply_part part, const char *s, size_t n);
};

struct answer_text {
    const struct request *r;
    const struct tok *tok;
    struct detok *detok;
    struct think think;
    struct tools *tools;
    struct part_sink sink;
    struct buffer raw; /* text not yet past the stop strings */
    size_t gone;       /* bytes of the text that are certain */
    int n_tok;         /* taken */
    int n_reasoning;   /* of them, inside reasoning */
    bool stopped;      /* by a stop string or enough calls: nothing more is taken */
    bool enough;       /* calls: a further one is swallowed */
    size_t stop_at;    /* byte of the text where it was cut */
};

void answer_text_begin(struct answer_text *a, const struct request *r, const struct tok *tok,
                       struct part_sink sink);

/* Bytes of text so far; where the next token's text will begin. */
size_t answer_text_at(const struct answer_text *a);

/* Take a token that belongs to the text. */
void answer_text_take(struct answer_text *a, int token);

/* Nothing more comes: what was held back goes out. */
void answer_text_end(struct answer_text *a);

void answer_text_free(struct answer_text *a);

#endif
