/* sched.h - which tokens go into the next step.
 *
 * Pure: no clock, no I/O, no device; the engine drives it with real time, the simulator with
 * virtual time. There is no prefill and no decode, only sequences with tokens whose keys and values
 * are not stored yet: a new one has many, a running one has one (and some guesses).
 *
 * Rules, in this order:
 *   - sequences that run go before those that wait; one that draws before one that reads its
 * prompt;
 *   - a step has at most max_tok rows; while any sequence draws, rows of prompts are at most
 *     `prompt_tok` of the call, so that a long prompt stalls nobody;
 *   - those that wait are admitted by priority, then the client that was served least, then age;
 *   - full pages of a prefix that is stored (or is being stored by this very step) are shared;
 *   - when pages run out, the last admitted of the lowest priority gives all its pages back and
 *     waits again, with the tokens it has: nothing is lost but time.
 */
#ifndef TANDEM_SCHED_H
#define TANDEM_SCHED_H

#include "dev/dev.h"
#include "plan/plan.h"
#include "sched/blocks.h"

enum { SCHED_CLIENTS = 64, SCHED_GUESSES = 15 };

struct sched_limits {
    int max_tok, max_run, max_out; /* of one step: rows, sequences, rows of logits */
    int flight;                    /* steps on their way at once: pipeline stages */
    bool ahead;      /* with flight 1: a second step may be chosen while one is on its way, see
                        seq.follows */
    bool no_prefix;  /* never share pages */
    bool none_alike; /* no sequence begins as another: only who was preempted finds pages again */
    bool no_batch;   /* steps without arrays: nobody computes them, only their sizes matter */
};

/* A sequence. The owner makes it (seq_new), fills what is its own, and frees it when it has left
 * the scheduler. */
struct seq {
    void *owner;
    int *tok;            /* all tokens so far, room for n_max */
    int n_prompt, n_max; /* tokens of the prompt; at most, with the answer */
    int n_tok;
    int want;        /* logits are wanted of every token from here on: n_tok - 1, but for a prompt
                        whose own logits are wanted too. The owner moves it on */
    int16_t n_guess; /* guesses behind tok[n_tok - 1], which the rows verify; the owner sets it anew
                       after every commit */
    int16_t client;  /* 0 .. SCHED_CLIENTS-1 */

    /* The scheduler's; with all before, 64 bytes, which is what a step reads of a sequence: */
    int16_t flying; /* steps on their way with rows of it */
    bool running, leaving;
    int *page; /* room for n_max tokens */
    int n_page;
    int n_done, n_now; /* tokens stored; on their way */
    int n_named;       /* full pages that were given their names */

    /* The owner's: */
    uint64_t id, salt;
    int priority; /* smaller goes first */
    bool follows; /* how its next token is drawn depends on none before it: while one is being
                     drawn, the row of that one may be in the next step already */

    /* The scheduler's: */
    int n_cached;              /* tokens of the prompt that others had stored */
    int drawn_at;              /* in the step on its way: the row of logits that its token is of */
    struct page_name name;     /* of the last page that was given one */
    uint64_t age;              /* order of arrival */
    struct seq *next, *before; /* of those that wait */
};

/* A step: the batch, and whose rows they are. A token of ~i in the batch is the one drawn from row
 * i of the logits of the step before. Valid until `flight` more steps were chosen. */
struct sched_step {
    struct batch batch; /* under no_batch, its counts only */
    int n_seq, decode_rows;
    struct sched_part {
        struct seq *seq;
        int first, n;   /* rows of the batch */
        int pos;        /* of the first row, in the sequence */
        int out, n_out; /* rows of logits: of its last n_out rows */
        int n_guess;    /* so many of its rows are guesses */
        bool draws;     /* all its tokens are stored: the logits tell what comes next */
    } * part;           /* [n_seq] */
};

struct sched;

/* Everything the scheduler needs comes from the arena (over a measuring one NULL is returned). */
struct sched *sched_new(const struct plan *p, const struct sched_limits *l, struct arena *a);

/* A sequence of up to n_max tokens with its arrays, zeroed; NULL: out of memory. */
struct seq *seq_new(int n_max);
/* The same without tokens (tok is NULL), for none_alike and no_batch together. */
struct seq *seq_new_blank(int n_max);
void seq_free(struct seq *q);

/* A new sequence waits. */
void sched_add(struct sched *s, struct seq *q);

/* Choose the next step, of at most prompt_tok rows of prompts while any sequence draws. NULL:
 * nothing can be done now. */
struct sched_step *sched_next(struct sched *s, int prompt_tok);

/* Under sched_limits.ahead, with a step on its way: whether everybody who runs can be in the next
 * one, so that nobody is late by one step because it was chosen early. */
bool sched_may_lead(const struct sched *s);

/* The rows of this step, the oldest on its way, are stored; of part i the first keep[i] count (the
 * rest were wrong guesses). The owner then appends what was drawn to seq->tok. */
void sched_commit(struct sched *s, struct sched_step *step, const int *keep);

/* The sequence leaves: it has ended or was cancelled. Returns false while rows of it are on their
 * way: it gets no more, and the call must be made again after their commit. */
bool sched_remove(struct sched *s, struct seq *q);

/* All steps on their way are void and all stored pages lost: everybody waits again, in their old
 * order. */
void sched_restart(struct sched *s);

struct sched_figures {
    int running, waiting;
    size_t waiting_tok; /* rows that those who wait still need */
    int pages, pages_used, pages_cached;
    uint64_t preempted;
};
void sched_figures(const struct sched *s, struct sched_figures *to);

#endif
