/* words.h - a model's tokenizer, chat template and the tokens that end its answers. */
#ifndef TANDEM_WORDS_H
#define TANDEM_WORDS_H

#include "cmd/open.h"
#include "text/chat.h"
#include "text/tok.h"

struct words {
    struct tok *tok;
    struct chat *chat; /* NULL: the model has no template, or none is wanted */
    int eos[17], n_eos;
};

/* Read them from the opened model's folder or GGUF file; raw: without the chat template. A template
 * that nobody here can render is -ENOTSUP. End with words_close(), after an error too. */
int words_open(struct words *w, const struct opened *at, bool raw, struct err *e);
void words_close(struct words *w);

#endif
