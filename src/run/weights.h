/* weights.h - the layout of weights in memory: a host's one copy, and a rank's view of it. */
#ifndef TANDEM_RUN_WEIGHTS_H
#define TANDEM_RUN_WEIGHTS_H

#include "base/arena.h"
#include "plan/placement.h"
#include "plan/plan.h"
#include "plan/weights.h"

struct weights {
    struct shared shared;
    struct layer *layer; /* [n_layer]; of a rank, only its stage's are filled */
    /* [n_layer][slots] of a rank whose plan has slots: where experts may lie. Those of its even
     * share lie in the first ones when they are laid out. NULL: each has its own place. */
    struct expert *slot;
};

/* Lay out the weights of a rank, or PLAN_WHOLE for the host's copy: structs and part tables in
 * `host`, numbers in `data`, in file order. Over measuring arenas only the sizes come out. */
void weights_lay_out(struct weights *w, const struct plan *p, int rank, struct arena *host,
                     struct arena *data);

/* The rank's view of a whole copy: the same memory, only its runs of parts, and of all experts, for
 * on one host a rank may do those of other runs. */
void weights_view(struct weights *view, const struct weights *whole, const struct plan *p, int rank,
                  struct arena *host);

/* Call fn for every matrix of a rank's view: its parts are one run of bytes. */
typedef void weights_run_fn(void *arg, const char *at, size_t bytes);
void weights_runs(const struct weights *view, const struct plan *p, int rank, weights_run_fn *fn,
                  void *arg);

/* Call fn for every run of bytes of a rank's own weights (weights_lay_out() of the rank), with
 * where they stand in a whole copy. */
typedef void weights_copy_fn(void *arg, void *to, const void *from, size_t bytes);
void weights_copies(const struct weights *own, const struct weights *whole, const struct plan *p,
                    int rank, weights_copy_fn *fn, void *arg);

/* The same for one expert of a whole copy and a slot. */
void weights_copy_expert(const struct expert *slot, const struct expert *whole, weights_copy_fn *fn,
                         void *arg);

/* Lay out, in `data`, copies in bf16 row by row (struct weight's `plain`) of the matrices of layers
 * in bf16, experts' apart, and call fn for each (NULL: only the sizes come out). */
typedef void weights_plain_fn(void *arg, struct weight *w, bool columns, void *at);
void weights_plain(const struct weights *own, const struct plan *p, int rank, struct arena *data,
                   weights_plain_fn *fn, void *arg);

/* The struct weight or mat that a piece names. */
void *weights_field(const struct weights *w, const struct piece *pc);

/* Bytes of numbers a view reaches, for comparing with the plan. */
size_t weights_bytes(const struct weights *w, const struct plan *p, int rank);

#endif
