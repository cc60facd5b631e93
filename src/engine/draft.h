/* draft.h - guesses by a second, smaller model, for all sequences that draw, before each step.
 *
 * The draft model has ranks and a cache of its own. It draws with each request's own sampling, seed
 * and position, so that where the two models agree the guess is the very token that the large one
 * will draw. What it says changes the time an answer takes and nothing else; when its ranks die,
 * guessing ends and serving goes on.
 */
#ifndef TANDEM_DRAFT_H
#define TANDEM_DRAFT_H

#include "engine/team.h"
#include "sched/sched.h"

struct draft_model {         /* all must outlive the engine */
    const struct plan *plan; /* max_seq: sequences it remembers; the rest goes without guesses */
    const struct store *store;
    struct team_opts team;
};

struct drafter;
struct drafted; /* what it remembers of one sequence */

/* Start its ranks. Its vocabulary must be n_vocab. Errors as team_start(). */
int drafter_start(struct drafter **out, const struct draft_model *m, int n_vocab, struct err *e);
void drafter_stop(struct drafter *d);

/* One sequence that is about to draw. */
struct draft_ask {
    struct seq *seq;           /* tok has room for what is asked; n_guess is set */
    struct drafted **remember; /* NULL at first; drafter_forget() when the sequence ends */
    struct sampling sampling;
    int most; /* guesses wanted, at least 1 */
};

/* Guess for all of them together: reads what is new of each, then draws token by token. */
void drafter_guess(struct drafter *d, struct draft_ask *ask, int n);
void drafter_forget(struct drafter *d, struct drafted **remember);

#endif
