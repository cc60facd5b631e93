/* answer.h - tokens to the text a person sees: whole characters, no stop text, no end token. */
#ifndef TANDEM_ANSWER_H
#define TANDEM_ANSWER_H

#include "base/buffer.h"
#include "base/opt.h"
#include "text/tok.h"

struct answer {
    const struct tok *tok;
    struct detok *detok;
    const struct opt_list *stop;
    const int *eos;
    int n_eos;
    FILE *out;          /* where text goes as it becomes certain; NULL: only kept */
    struct buffer text; /* all of it so far */
    size_t shown;
    int *id, n_id;
    size_t id_room;
    const char *finish; /* why it ended: "stop", or NULL while it goes on */
};

void answer_begin(struct answer *a, const struct tok *tok, const struct opt_list *stop,
                  const int *eos, int n_eos, FILE *out);
/* Take one token; false when the answer ends with it. */
bool answer_token(struct answer *a, int id);
/* Show what was held back; the answer is complete. */
void answer_end(struct answer *a);
void answer_free(struct answer *a);

#endif
