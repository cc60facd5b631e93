/* answer.h - what the chunks of one streamed answer say, of chat or completions. No clock. */
#ifndef TANDEM_LOAD_ANSWER_H
#define TANDEM_LOAD_ANSWER_H

#include "base/base.h"

/* Zeroed: nothing has come. */
struct answer {
    bool finished; /* a finish reason or [DONE] came */
    bool failed;   /* an error event */
    bool bad;      /* an event that is no chunk */
    bool usage;    /* the server counted; these are its numbers: */
    int prompt_tok, cached_tok, output_tok;
    char why[160]; /* of failed or bad */
};

/* Take an event's data. Returns true when it brought text, reasoning or (part of) a tool call. */
bool answer_take(struct answer *a, const char *data, size_t n);

#endif
