/* price.h - how long a step takes: the one place where times are predicted.
 *
 * The real forward pass runs over the counting device and the pricing group with the costs of a
 * hardware profile; what it says of one layer and of one number of rows is kept, so that a million
 * steps of a simulation are priced quickly and a plan's step is priced exactly as the forward pass
 * would do it. Planner, simulator and the server's comparison of predicted with measured use it.
 */
#ifndef TANDEM_PREDICT_PRICE_H
#define TANDEM_PREDICT_PRICE_H

#include "dev/count.h"
#include "plan/plan.h"
#include "run/expect.h"
#include "topo/hardware.h"

/* One step, in the numbers that decide its price. Begin with zeros and add sequences. */
struct work {
    int n_tok, n_seq, n_out;
    /* Steps that are under way at once, this one among them; 0 counts as 1. The cores of a CPU
     * share its memory: with one step only the ranks of one stage are busy, with as many as there
     * are stages all ranks are, those of all replicas alike. More than stages count as stages.
     * Devices of their own memory do not care. */
    int flight;
    struct attended seen[MODEL_KINDS]; /* by kind of layer */
};

/* n rows of one sequence, the first at position pos, n_out of them with logits. */
void work_add(struct work *w, const struct model *m, int pos, int n, int n_out);

/* The work of n_seq sequences alike. */
struct work work_of(const struct model *m, int n_seq, int n_new, int last);

struct step_price {
    double stage_s[PLAN_STAGES]; /* compute and sums of each stage, by its slowest rank */
    double hop_s;                /* handing the rows from one stage to the next, on the mean */
    double host_s; /* before and after: scheduling, sending, collecting; on CPUs drawing, too */
    double all_s;  /* one step alone, from choosing to its tokens */
    double product_s, attend_s, other_s, comm_s; /* what all_s consists of, beside host_s */
};

struct pricer;

/* For a plan on hardware; both are copied. Fails when the hardware has no figures for the plan's
 * formats (which ones it has is in e). Not for two threads at once. */
struct pricer *pricer_new(const struct plan *p, const struct hardware *h, struct err *e);
void pricer_free(struct pricer *x);

/* From now on tokens are expected to choose experts so (run/expect.h), and these are held so; what
 * known points to must outlive the pricer. Before the first price only. Until then they choose
 * blindly; devices with memory of their own hold an even share each, ranks of one host hold all. */
void pricer_expect(struct pricer *x, const struct routing *known);

/* lambda of the rows that its experts get, for many rows; 1 with one run of ranks. */
double pricer_lambda(const struct pricer *x);

/* Equal work has equal prices, bit for bit, in whatever order they are asked for. */
void pricer_step(struct pricer *x, const struct work *w, struct step_price *to);

/* Seconds of n steps handed over at once, such as the chunks of a prompt: each stage begins the
 * next when it is done with the one before, so stages work at the same time. Choosing and sending
 * the later ones is hidden behind the first. */
double pricer_chain(struct pricer *x, const struct work *w, int n);

#endif
