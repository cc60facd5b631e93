/* placement.h - which runs of ranks hold which experts of a layer, and who computes what of a step.
 *
 * Expert parallelism deals the experts of a layer out to `n_run` runs of ranks (one rank each, or
 * several that cut their experts inside). An expert may have several holders: all of them, where
 * every rank sees all weights, as on one host; or copies of the busiest. Who of its holders
 * computes which of a step's rows goes by load: every rank works out the same turns from the same
 * counts, so nothing is sent to agree. The sums are in fixed point (docs/NUMERICS.md), so no
 * placement and no assignment changes a bit. Plain data, pure functions; a shared expert is not a
 * part of this.
 */
#ifndef TANDEM_PLACEMENT_H
#define TANDEM_PLACEMENT_H

#include "model/model.h"

#include <jansson.h>

enum { PLACEMENT_RUNS = 64, TURNS = MODEL_EXPERTS + 4 * PLACEMENT_RUNS };

/* Of one layer. */
struct placement {
    int n_expert, n_run;
    uint64_t holders[MODEL_EXPERTS]; /* [n_expert] bit r: run r holds it */
};

/* Every run holds all experts. */
struct placement placement_all(int n_expert, int n_run);
/* Every expert has one holder, run r neighbours from n_expert * r / n_run on, nearly even. */
struct placement placement_even(int n_expert, int n_run);
int placement_even_run(int n_expert, int n_run, int expert);       /* that holder */
struct span placement_even_span(int n_expert, int n_run, int run); /* and what it holds */

static inline bool placement_holds(const struct placement *p, int run, int expert)
{
    return p->holders[expert] >> run & 1;
}

int placement_slots(const struct placement *p, int run); /* experts that the run holds */
int placement_most(const struct placement *p);           /* that any run holds */

/* Of its holders, the one that takes an expert when loads do not matter: its run in
 * placement_even(), if that holds it. */
int placement_home(const struct placement *p, int expert);

/* Refuse what cannot run, in one sentence: no run, an expert that nobody holds, a holder that does
 * not exist. -EINVAL. */
int placement_check(const struct placement *p, struct err *e);

/* The JSON form of n_layer layers (docs/PLAN.md): {"schema": 1, "experts": E, "runs": R, "layers":
 * [{"layer": L, "holds": [[expert, ...] of run 0, ...]}, ...]}. Without "layer" an entry is of all
 * layers; a later entry overrides an earlier one. Layers of equal placement are written once when
 * all are.
 * placement_from_json fills layer[n_layer], each of which must come with its n_expert and n_run and
 * keeps what it holds if nothing names it. It refuses other numbers of experts or runs, an expert
 * named twice by one run, or by none. */
json_t *placement_to_json(const struct placement *layer, int n_layer);
int placement_from_json(const json_t *o, struct placement *layer, int n_layer, struct err *e);
int placement_load(const char *path, struct placement *layer, int n_layer, struct err *e);

/* ------------------------------------------------------------------------------- of a step */

/* What a turn costs, in rows: reading an expert's weights costs as much as `weights` rows, and
 * fewer than `tile` rows are not worth a turn of their own. */
struct turn_cost {
    int weights, tile;
};
static const struct turn_cost turn_cost_cpu = {12, 16};
/* Until it is measured: an H200 reads 4.8 TB/s and multiplies bf16 at 990 TF/s (datasheet), so that
 * a weight takes as long to read as to multiply by 200 rows. */
static const struct turn_cost turn_cost_gpu = {200, 64};

/* Rows lo .. hi of those that chose the expert (in ascending order of row) are computed by a run.
 */
struct turn {
    int expert, run, lo, hi;
};

/* All turns of a step in one layer. Turns of one expert stand together, rows ascending. */
struct turns {
    int n, n_run;
    struct turn turn[TURNS];
    int first[MODEL_EXPERTS]; /* [n_expert] the first of an expert's turns; -1: it has no rows */
    int rows[PLACEMENT_RUNS]; /* [n_run] of all its turns */
    int load[PLACEMENT_RUNS]; /* [n_run] the same as struct turn_cost counts */
};

/* Share out a step: rows[e] (n_expert numbers) tokens chose expert e. Largest first, to its home
 * while that has room below the even share, else to the holder with the least to do; what does not
 * fit below is split over holders. Deterministic; allocates nothing. p: a checked placement. */
void placement_assign(struct turns *to, const struct placement *p, const int *rows,
                      const struct turn_cost *cost);

/* Which run computes row i of those that chose the expert. */
int turns_run(const struct turns *t, int expert, int i);

/* lambda: the largest run's load beside the mean of all (runs * max / sum): 1 is even, n_run is one
 * for all; 1 when there is none. Of a step, of what its turns cost. */
double turns_lambda(const struct turns *t);
double loads_lambda(const double *load, int n);

/* The load of each run (to[n_run]) when the rows of every expert, load[n_expert], are dealt to its
 * holders as evenly as can be: what placement_assign() does to many rows. */
void placement_loads(const struct placement *p, const double *load, double *to);

#endif
