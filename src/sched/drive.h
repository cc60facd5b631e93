/* drive.h - how a scheduler is driven: when a step is chosen, how many rows of prompts it may have,
 * what a commit does. Pure: no clock, no ranks.
 *
 * The engine drives real ranks by it and the simulator a virtual clock, so that they cannot decide
 * differently. The order of a turn is theirs both: who came is added, who went is removed,
 * drive_next() until it is NULL, then the oldest step is waited for and committed.
 */
#ifndef TANDEM_SCHED_DRIVE_H
#define TANDEM_SCHED_DRIVE_H

#include "sched/pace.h"
#include "sched/sched.h"

/* What a drive does, told to whoever watches it, at once. */
enum drive_deed { DRIVE_ADD, DRIVE_STEP, DRIVE_COMMIT, DRIVE_REMOVE, DRIVE_RESTART };
struct drive_event {
    enum drive_deed deed;
    const struct seq *seq;         /* of ADD and REMOVE */
    const struct sched_step *step; /* of STEP, as it was chosen, and of COMMIT */
    int prompt_rows;               /* of STEP: how many rows of prompts were allowed */
    double seconds;                /* of COMMIT: since the step was chosen */
};
struct drive_watch {
    void (*fn)(void *arg, const struct drive_event *ev); /* NULL: nobody */
    void *arg;
};

struct drive {
    struct sched *sched;
    struct pace pace;
    struct drive_watch watch;
    double tpot_s;       /* see pace_prompt_rows() */
    int max_tok, pp;     /* of the plan */
    int live, answering; /* sequences that have not left; of them those with tokens drawn */
    bool ahead;          /* one step more than there are stages, see sched_may_lead() */
    int n_flying;        /* steps on their way */
    struct sched_step *flying[PLAN_STAGES + 1]; /* oldest first */
};

/* What a plan lets its scheduler do; fields of wish that are not 0 lower that. */
struct sched_limits drive_limits(const struct plan *p, const struct sched_limits *wish);

/* The scheduler's memory comes from the arena; over a measuring one d is of no use. */
void drive_open(struct drive *d, const struct plan *p, const struct sched_limits *l, double tpot_s,
                struct arena *a);

/* A new sequence waits. */
void drive_add(struct drive *d, struct seq *q);

/* The next step, as long as fewer than pp are on their way, or one more than that when it may be
 * chosen ahead; NULL: nothing can be done now. */
struct sched_step *drive_next(struct drive *d);

/* The oldest step is stored, `seconds` after it was chosen; keep as in sched_commit(). Returns it;
 * its parts may be read until drive_next(). */
struct sched_step *drive_commit(struct drive *d, const int *keep, double seconds);

/* A token was drawn for q, whose stored tokens are complete. */
void drive_append(struct drive *d, struct seq *q, int token);

/* q has ended or was given up. False: rows of it are on their way, it gets no more, and the call
 * must be made again after their commit. After true it is the owner's again. */
bool drive_remove(struct drive *d, struct seq *q);

/* A rank has died: steps on their way are void, what is stored is lost, everybody waits again. */
void drive_restart(struct drive *d);

/* ------------------------------------------------------------------------------- who is refused */

/* Bounds of what may wait; 0: none. */
struct queue_limits {
    int waiting;
    size_t waiting_tok; /* of prompts */
    double ttft_s;      /* that may be expected, see queue_ttft() */
};

/* How it stands, for those who submit. */
struct queue_state {
    int waiting;
    size_t waiting_tok;
    double step_s, token_s; /* a step's fixed time, and of one more row */
    int max_tok;            /* of a step */
};

/* Seconds until the last of so many tokens of prompts is computed. */
double queue_ttft(const struct queue_state *s, double tok);

/* Whether a request of n_prompt tokens may wait too. */
enum queue_answer { QUEUE_TAKES, QUEUE_TOO_MANY, QUEUE_TOO_MANY_TOK, QUEUE_TOO_LATE };
enum queue_answer queue_asked(const struct queue_state *s, const struct queue_limits *l,
                              int n_prompt);

#endif
