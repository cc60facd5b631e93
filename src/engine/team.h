/* team.h - the ranks of one plan on this host: started, fed with steps, watched, stopped.
 *
 * control (the caller) creates the shared memory; a keeper process loads the weights once and
 * forks the ranks, which own nothing. When control dies, by any death, keeper and ranks die too,
 * and as all shared memory is anonymous nothing is left behind.
 */
#ifndef TANDEM_TEAM_H
#define TANDEM_TEAM_H

#include "dev/plugin.h"
#include "dev/profile.h"
#include "model/store.h"
#include "plan/placement.h"
#include "plan/plan.h"
#include "run/packed.h"
#include "run/sample.h"

struct team;

struct team_opts {
    enum isa isa;
    /* Called while loading with bytes done of all; NULL: quiet. */
    void (*progress)(void *arg, size_t done, size_t all);
    void *arg;
    const struct packed *packed; /* weights to map; NULL: load them from the store */
    size_t expert_cache; /* bytes for all ranks' experts, which are mapped (packed); 0: no bound */
    bool keep_logits;    /* results carry logits (they cost a copy per row) */
    bool profile;        /* time every operation, for team_profile() */
    const struct link *link; /* slow the groups of ranks down by so much; NULL: as they are */
    const struct gpus *gpus; /* where ranks compute, as long as the team lives; NULL: here */
    double patience_s;       /* so long at least may ranks not get on in a step; 0: the usual */
    double start_patience_s; /* the same while they start for the first time */
    const struct host *host; /* where threads and memory go, as long as the team lives; NULL:
                                on cores that follow each other, and anywhere */
};

/* Load the model's tensors by the plan (s may be NULL when they are packed), start the ranks,
 * return when all are ready. Checks first that the memory is there (planned bytes against what the
 * machine and its cgroup have free) and refuses in one sentence with both numbers. */
int team_start(struct team **out, const struct plan *p, const struct store *s,
               const struct team_opts *opts, struct err *e);

/* How the token after row out[i] of a batch is drawn. Rows of one sequence that point to the same
 * arrays share them: of `seen` each reads its own first n_seen. */
struct draw {
    struct sampling sampling;
    struct sample_rules rules; /* seen is needed only for penalties */
    bool is_given;             /* nothing is drawn: the token is known */
    int given;
    bool logprobs; /* wanted: of the token, and of the n_top likeliest */
    int n_top;
};

/* What came of a step, a row of logits each; valid until team_flight() more steps are submitted. */
struct team_result {
    const int *token; /* -1: the model gave no finite logits, or nothing was allowed */
    const struct logprobs *top;
    const float *logits; /* [n_out][n_vocab] when kept, else NULL */
    int n_out;
};

/* Hand a step to the ranks; returns its number, or -errno with e (a rank died). Up to
 * team_flight() steps may be on their way: with pipeline stages that keeps all of them busy. */
int64_t team_submit(struct team *t, const struct batch *b, const struct draw *draw, struct err *e);
int team_flight(const struct team *t);

/* Wait for that step. A dead or failed rank is -EIO with one sentence saying which and how; where
 * nothing has moved for too long (engine/watch.h), -ETIMEDOUT with one saying who is suspected of
 * what. */
int team_wait(struct team *t, int64_t step, struct team_result *to, struct err *e);

/* After team_submit() or team_wait() failed: end the ranks, whatever they do, start new ones on the
 * weights and the cache of the old ones, and run again the steps on their way, which can then be
 * waited for as if nothing had been. -EIO when these are not there any more, or when ranks hang
 * again and again; -EBUSY when a rank was killed and does not end, which a driver can do to it; the
 * team can then only be stopped. */
int team_again(struct team *t, struct err *e);

/* From the next step on, experts are held as layer[n_layer] says (checked placements of the model's
 * experts on the plan's ep runs; entries of layers without experts are not looked at). All ranks of
 * a step follow the same; no answer changes by a bit. Until then all hold all, on GPUs even shares;
 * there no run may hold more than the plan's slots, and experts are copied where they are not. For
 * plans with ep 1 nothing happens. */
void team_place(struct team *t, const struct placement *layer);

/* What the experts had to do since the team was started: rows[n_layer][experts], and of each layer
 * what the busiest run and all runs together had (run/loads.h). Zeros for models without experts,
 * and where rows are not counted. */
struct turn_load {
    uint64_t most, all;
};
void team_loads(const struct team *t, uint64_t *rows, struct turn_load *turns);

/* Since the team was started, over all ranks: experts needed that were in memory or not, and what
 * was read for these. */
struct cache_use {
    uint64_t hits, misses, bytes;
};
struct cache_use team_cache(const struct team *t);

/* Bytes of weights that ranks copied to GPUs since the team was started. */
uint64_t team_copied(const struct team *t);

/* Since the last call with reset: seconds each rank spent. */
struct rank_time {
    double compute, wait, move; /* kernels; waiting for other ranks; reading and adding */
    double idle;                /* between the end of a step and what the next one computes */
    uint64_t calls, bytes;      /* of collectives */
    uint64_t led;               /* steps that were told to a GPU while another one ran */
};
void team_times(struct team *t, struct rank_time *to, bool reset); /* [plan_ranks] */

/* Since the team was started with opts.profile: what a rank's operations took on its first thread.
 * Seconds. */
struct op_seconds {
    double all, waiting; /* waiting for the rank's other threads is part of all */
    uint64_t calls;
};
void team_profile(const struct team *t, int rank, struct op_seconds to[OP_COUNT]);

/* Bytes really in use, beside what the plan says. */
struct rank_memory {
    size_t weights, kv, scratch; /* weights and kv are views of the host's one copy */
    int core;
    int pid;
};
struct team_memory {
    size_t weights, kv, scratch, mailbox; /* of the host */
};
void team_memory(const struct team *t, struct team_memory *host, struct rank_memory *rank);

void team_stop(struct team *t);

#endif
