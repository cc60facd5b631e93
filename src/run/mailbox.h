/* mailbox.h - how steps reach the ranks and results come back, in shared memory.
 *
 * control writes step number s into slot s % slots and raises `submitted`; every rank
 * runs the steps in order and raises its own `done`; slice 0 of the last stage writes tokens (and
 * logits, when kept) before that. Invariants:
 *   1. only control writes steps and `submitted`; only rank r writes rank[r] and, on the last
 *      stage's slice 0, the results of a slot; slice 0 of a stage writes the load of its layers;
 *   2. a slot is rewritten only after every rank is done with the step behind the one in it;
 *   3. the numbers only grow, so a late reader can tell that it is late; but for mailbox_again().
 */
#ifndef TANDEM_MAILBOX_H
#define TANDEM_MAILBOX_H

#include "base/arena.h"
#include "base/wait.h"
#include "dev/profile.h"
#include "plan/plan.h"
#include "run/cache.h"
#include "run/loads.h"
#include "run/sample.h"

#include <stdalign.h>

enum { MAILBOX_SLOTS = PLAN_STAGES + 2 };

struct slot { /* pointers are valid in every process: the mapping is inherited by fork */
    int n_tok, n_seq, n_out, stride;
    int *tok, *pos, *slot, *seq, *page,
        *out; /* tok ~i: the one drawn from row i of the step before */
    struct draw_row *draw;
    int *seen;               /* [max_seq * ctx] */
    struct token_bias *bias; /* [max_seq * SAMPLE_BIAS] */
    uint64_t *holders;       /* [n_layer][experts] who holds which (plan/placement.h); ep 1: NULL */
    uint64_t placed;         /* which of control's placements that is; 0: all hold all */
    uint64_t *allow;         /* [max_out][allow_words()] */
    int *token;              /* result [max_out]; -1: the logits were not finite */
    struct logprobs *top;    /* result [max_out] */
    float *logits;           /* result [max_out][n_vocab], or NULL */
};

struct rank_state {
    alignas(64) _Atomic uint64_t done; /* the last step this rank has finished */
    _Atomic uint64_t pulse;            /* how far it has come (base/pulse.h) */
    _Atomic uint32_t ready;
    _Atomic int32_t err;       /* -errno of dev or comm, sticky */
    _Atomic uint32_t complete; /* its GPU keeps its weights, and all of them (run/gpu.h) */
    _Atomic uint64_t copied;   /* bytes of weights copied to GPUs */
    _Atomic uint16_t *lies; /* [n_layer][slots] which expert lies where there (run/gpu_slots.h) */
    char why[512];          /* of it, or of a start that failed, written before; "": errno tells */
    _Atomic uint64_t compute_ns, wait_ns, move_ns, calls, bytes;
    _Atomic uint64_t idle_ns, led; /* between two steps; steps that began behind a running one */
    struct cache_figures cache;    /* when experts are cached */
    struct op_time op[OP_COUNT];   /* when steps are profiled */
};

struct mailbox {
    _Atomic uint32_t stop; /* futex word: ranks leave, waits end */
    alignas(64) _Atomic uint64_t submitted;
    _Atomic uint32_t step_bell;             /* futex word: raised with submitted */
    alignas(64) _Atomic uint32_t done_bell; /* futex word: a rank is done, ready or dead */
    alignas(64) _Atomic uint64_t loaded;    /* bytes of weights packed so far */
    int slots;
    struct slot slot[MAILBOX_SLOTS];
    struct rank_state *rank;
    struct layer_load *load; /* [n_layer] NULL: the model has no experts */
    bool keep_logits;
};

/* Lay out a mailbox for the plan's limits; over a measuring arena returns NULL. The memory must be
 * zero. */
struct mailbox *mailbox_lay_out(const struct plan *p, bool keep_logits, struct arena *a);

/* Words of 64 bits for one bit per token. */
static inline size_t allow_words(const struct plan *p)
{
    return ((size_t)p->model.n_vocab + 63) / 64;
}

/* Steps on their way at once: one per stage, and one being prepared. There is a slot more, for the
 * step before them: its tokens are wanted when ranks have died and those steps are run again, which
 * some ranks may have done, or spoilt. */
int mailbox_flight(const struct plan *p);

struct batch slot_batch(const struct slot *s);
struct draw_rows slot_draws(const struct slot *s, const struct plan *p, bool keep_logits);

/* When all ranks have died: as many new ones begin behind the last step that all were done with.
 * Steps behind it are run once more and write the same. */
void mailbox_again(struct mailbox *m, int ranks);

#endif
