/* engine.h - requests in, tokens out, at every step of the ranks.
 *
 * An engine owns the ranks of one plan and a thread that feeds them: the scheduler (sched/sched.h)
 * chooses the rows of each step, the ranks compute and draw, what was drawn comes out as events.
 * The engine knows tokens only: no text, no JSON, no sockets. Submit, cancel and every other call
 * here may come from any thread.
 *
 * An admitted request always ends with exactly one event whose finish is not RUNNING. When a rank
 * dies or hangs the engine replaces the ranks, which find weights and cache where they were; when
 * these are lost too, it starts all anew and computes what was lost. No request notices but by the
 * clock, and its tokens are the same.
 */
#ifndef TANDEM_ENGINE_H
#define TANDEM_ENGINE_H

#include "engine/draft.h"
#include "engine/experts.h"
#include "engine/team.h"
#include "sched/drive.h"

struct engine;

/* What a step should take, in seconds from its sending to its end, with `flight` steps on their
 * way, itself included; called by the engine's thread. fn NULL: what steps took so far tells. */
struct engine_price {
    double (*fn)(void *arg, const struct sched_step *step, int flight);
    void *arg;
};

struct engine_opts {
    struct team_opts team;                 /* keep_logits is ignored */
    struct sched_limits sched;             /* 0 fields: chosen from the plan */
    struct queue_limits queue;             /* of requests that wait for their first step */
    int draft;                             /* tokens guessed, verified in one step; 0: off */
    const struct draft_model *draft_model; /* who guesses; NULL: prompt look-up (sched/guess.h) */
    double tpot_s;              /* what a step may take while answers run; 0: see docs/SERVING.md */
    struct expert_opts experts; /* who holds which, in plans with ep > 1; see engine/experts.h */
    struct drive_watch watch;   /* called by the engine's thread; for tests and traces */
    struct engine_price price;
    /* Called by the engine's thread when events wait and the last call's have been taken. */
    void (*wake)(void *arg);
    void *arg;
};

/* Load the model by the plan, start the ranks and the engine's thread. The plan, store and packed
 * weights must outlive the engine. Errors as team_start(). */
int engine_start(struct engine **out, const struct plan *p, const struct store *s,
                 const struct engine_opts *opts, struct err *e);

/* End the thread and the ranks. Requests that still run get no further event. */
void engine_stop(struct engine *x);

/* ------------------------------------------------------------------------------- requests */

/* A run of tokens inside a longer array. */
struct token_run {
    const int *tok;
    int n;
};

/* What restricts the next token by the tokens so far: a grammar (text/grammar.h). Called by the
 * engine's thread only. */
struct engine_guide {
    void *ctx; /* NULL: none */
    /* Set bit t of allow[] (n_vocab bits, all 0 before) for every token that may come next, the
     * ends of the answer included. Returns false when everything may come. */
    bool (*allow)(void *ctx, uint64_t *allow);
    /* This token was drawn. Returns false when the answer is complete. */
    bool (*take)(void *ctx, int token);
    void (*free)(void *ctx); /* the request has ended */
};

struct engine_request {
    const int *prompt;
    int n_prompt; /* at least 1; n_prompt < plan ctx */
    int max_new;  /* 0: only the prompt is computed (prompt logprobs); cut to what ctx leaves */
    int min_new;  /* until then no end is drawn */
    struct sampling sampling;
    bool ignore_eos;
    const int *eos, *stop; /* tokens that end the answer: of the model, and of the request */
    int n_eos, n_stop;
    const struct token_bias *bias; /* added to logits; at most SAMPLE_BIAS with what is banned */
    int n_bias;
    const struct token_run *bad; /* runs of tokens that must not appear */
    int n_bad;
    const int *only; /* n_only > 0: nothing else may be drawn */
    int n_only;
    struct engine_guide guide; /* the engine's from a successful submit on */
    int n_top;                 /* -1: no logprobs; else so many alternatives, up to SAMPLE_TOP */
    int n_prompt_top;          /* the same for the prompt's tokens (then nothing of it is cached) */
    int priority;              /* smaller first */
    int client;                /* 0 .. SCHED_CLIENTS-1: clients share the steps fairly */
    uint64_t salt;             /* only requests of one salt share stored prefixes */
    double deadline_s;         /* from now; 0: none */
};

/* Queue a request; everything in it but the guide is copied. *id is never 0 and never repeated.
 * -EINVAL: a sentence about the request. -EAGAIN: the queue is full (engine_stats tells for how
 * long). -ESHUTDOWN: engine_drain was called, -EIO: the ranks cannot be started again. */
int engine_submit(struct engine *x, const struct engine_request *r, uint64_t *id, struct err *e);

/* End it soon, with FINISH_CANCELLED, unless it ends by itself before. Unknown ids are ignored. */
void engine_cancel(struct engine *x, uint64_t id);

/* ------------------------------------------------------------------------------- events */

enum finish {
    RUNNING,
    FINISH_STOP,      /* an end token was drawn, or the guide is complete */
    FINISH_LENGTH,    /* max_new, or the context is full */
    FINISH_CANCELLED, /* engine_cancel */
    FINISH_DEADLINE,
    FINISH_FAILED /* the model gave no finite logits, or the ranks cannot be started again */
};

/* One token of one request, or its end, in order. Drawn end tokens are given too (is_end): they are
 * not part of the text. */
struct engine_event {
    uint64_t id;
    int token;  /* -1: an end without a token */
    int prompt; /* >= 0: logprobs of prompt token number `prompt`; -1: a drawn token */
    bool is_end;
    enum finish finish;
    struct logprobs logprobs; /* n_top -1: not asked for */
    /* With the first drawn token and with the end: */
    int n_cached;              /* prompt tokens whose keys and values were stored already */
    int n_drafted, n_accepted; /* speculation so far */
    double queued_s, prefill_s, decode_s;
};

/* Hand every waiting event to fn in order; from one thread at a time. Returns how many. */
int engine_events(struct engine *x, void (*fn)(void *arg, const struct engine_event *ev),
                  void *arg);

/* ------------------------------------------------------------------------------- watching */

/* Counters since the start, and how it stands now. */
struct engine_stats {
    uint64_t steps, submitted, finished[FINISH_FAILED + 1], preempted, restarts;
    uint64_t replaced;               /* of the restarts, those that kept weights and cache */
    uint64_t hung;                   /* those where nobody had died, but nothing moved */
    double restart_s;                /* in restarts */
    uint64_t copied;                 /* bytes of weights that ranks copied to GPUs */
    uint64_t prompt_tok, cached_tok; /* tokens of prompts begun; of them, stored already */
    uint64_t new_tok, drafted, accepted;
    double busy_s; /* in steps */
    double host_s; /* scheduling, events: in part while a step runs */
    int running, waiting, waiting_tok;
    int pages, pages_used, pages_cached; /* cached: used by nobody, kept for reuse */
    double step_s, token_s; /* a step's fixed time and the time of one more row, fitted online */
    double last_commit_s;   /* since a step was last committed; 0 while the engine is idle */
    bool idle, draining, failed;
};
void engine_stats(struct engine *x, struct engine_stats *to);

/* Seconds until a request of n_prompt tokens submitted now would give its first token: what waits
 * before it at the measured speed. */
double engine_ttft(struct engine *x, int n_prompt);

/* The last steps, oldest first, each given once; at most max. For histograms and traces. */
struct engine_step {
    double start_s, seconds; /* CLOCK_MONOTONIC */
    double predicted_s;      /* by engine_opts.price, or as learnt; 0: not known yet */
    int rows, decode_rows, sequences;
};
int engine_steps(struct engine *x, struct engine_step *to, int max);

/* What each rank spent since the last call with reset (team_times()), and where its memory is. */
void engine_times(struct engine *x, struct rank_time *to, bool reset);
/* Steps in which each rank waited least: the one the others waited for. All 0 with one
 * rank, and on GPUs, which wait without the host. */
void engine_late(struct engine *x, uint64_t *to); /* [plan_ranks] */
void engine_memory(struct engine *x, struct team_memory *host, struct rank_memory *rank);

/* What the experts had to do since the start; to's arrays are the caller's. */
void engine_experts(struct engine *x, struct expert_figures *to);
/* From some step soon on, experts are held as layer[n_layer] says; no answer changes by a bit.
 * -EINVAL: a placement that is not for this plan. */
int engine_place(struct engine *x, const struct placement *layer, struct err *e);

/* Compute an empty step when nothing else runs, so that last_commit_s tells whether the ranks
 * live. Returns at once. */
void engine_probe(struct engine *x);

/* Admit nothing more; what is admitted runs on. */
void engine_drain(struct engine *x);

#endif
