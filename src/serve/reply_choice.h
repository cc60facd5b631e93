/* reply_choice.h - what is known of each choice of a reply. Private to serve/reply*.c. */
#ifndef TANDEM_REPLY_CHOICE_H
#define TANDEM_REPLY_CHOICE_H

#include "serve/reply.h"
#include "serve/reply_text.h"

struct reply_call {
    char id[32];
    struct out name, arguments;
};

/* A drawn token whose logprobs are asked for. */
struct reply_token {
    size_t at;    /* byte of the answer's text where it begins */
    size_t chars; /* the same in characters */
    struct logprobs lp;
};

struct reply_choice {
    struct reply *reply;
    int number; /* of request_choices() */
    struct answer_text text;
    struct out content, reasoning; /* a stream keeps neither */
    size_t chars;                  /* of the text taken */
    struct reply_call *call;
    int n_calls;
    struct reply_token *token; /* a stream keeps those not yet sent */
    int n_tokens;
    size_t token_room;
    struct logprobs *prompt; /* [n] of the prompt; NULL: not asked for */
    int *id;                 /* return_token_ids; as token */
    int n_ids;
    size_t id_room;
    double logprob_sum; /* of n_new tokens, for best_of */
    int n_new, n_cached, n_drafted, n_accepted;
    double queued_s, prefill_s, decode_s;
    bool begun;  /* a stream: its first chunk was sent */
    bool closed; /* its finish_reason was settled */
    bool ended;  /* the engine has ended it */
    enum finish finish;
};

struct reply {
    const struct request *r;
    const struct api_model *m;
    struct reply_head head;
    char id[192];
    struct reply_choice *choice;
    int n_choices;
    struct out *to; /* of a stream, during reply_event() */
    bool failed;
};

/* reply_write.c: the frames of a stream, and whole bodies. */
void write_part(struct reply_choice *c, enum reply_part part, const char *s, size_t n);
void write_first(struct reply_choice *c);
void write_finish(struct reply_choice *c);
void write_usage(const struct reply *p, struct out *out); /* a stream's last chunk */
void write_body(const struct reply *p, struct out *out);

/* "usage": {...} and "timings": {...} as members of the object being written. */
void write_counts(const struct reply *p, struct out *out);

/* reply_logprobs.c: a choice's "logprobs" value in the shape of its path, for tokens [lo, hi); and
 * vLLM's "prompt_logprobs" value. */
void write_logprobs(const struct reply_choice *c, struct span tokens, struct out *out);
void write_prompt_logprobs(const struct reply_choice *c, struct out *out);

/* How the choice ended, in OpenAI's words. */
const char *finish_reason(const struct reply_choice *c);

/* The prompt's text for `echo`. malloc'd. */
char *prompt_text(const struct reply_choice *c, size_t *n);
const struct api_prompt *prompt_of(const struct reply_choice *c);

/* Of UTF-8 text: bytes that begin one. */
size_t characters(const char *s, size_t n);
size_t token_chars(const struct reply_choice *c, int token);

#endif
