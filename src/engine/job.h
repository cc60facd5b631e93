/* job.h - a request while the engine has it: its copy, its sequence, and how its next token is
 * drawn and taken. Only for the engine's own files; the face is engine/engine.h. */
#ifndef TANDEM_JOB_H
#define TANDEM_JOB_H

#include "engine/engine.h"

struct job {
    struct engine_request ask; /* arrays are copies, in the pool */
    struct pool pool;
    struct seq *seq;
    uint64_t *only;            /* bits of ask.only; NULL: no restriction */
    struct token_bias *bias;   /* ask.bias and room for what is banned at the moment */
    int n_new, n_prompt_given; /* tokens drawn; prompt tokens whose logprobs were given */
    int n_drafted, n_accepted;
    struct drafted *drafted;                          /* what the draft model remembers of it */
    double submitted_s, begun_s, first_s, deadline_s; /* CLOCK_MONOTONIC; 0: not yet, or none */
    enum finish finish;
    struct job *next;
};

/* A copy of the request with its sequence, or NULL with e. */
struct job *job_new(const struct engine_request *ask, const struct plan *p, struct err *e);
void job_free(struct job *r); /* the guide too */

/* How the logits after position pos of its sequence are used. allow: room for allow_words(), zeroed
 * as needed, that the draw may point to. */
struct draw job_draw(struct job *r, const struct plan *p, int pos, uint64_t *allow);

/* Whether the token after the next is drawn in a way that does not depend on the next: no guide,
 * penalty or ban looks at it, and nobody guesses. */
bool job_follows(const struct job *r, int draft);

/* A token was drawn and appended to the sequence; *is_end tells whether it is one of the ends.
 * Returns what follows. */
enum finish job_take(struct job *r, int token, bool *is_end);

/* How many of `most` guesses make sense now; 0: none, for what is drawn depends on each token
 * before (guides, bans), or because guesses were mostly wrong. */
int job_guesses(const struct job *r, int most);

/* Guess what comes next, up to `most` tokens, from its own past. */
void job_guess(struct job *r, int most);

#endif
