/* balance.h - a placement of experts from measured loads. Pure.
 *
 * Busy experts get copies, and copies are packed so that every run of ranks has as much to do. The
 * method is the one of DeepSeek's EPLB: a copy to whichever expert has the most load per copy,
 * until all slots are taken; then the heaviest copy to the run with the least load that has a slot.
 * Where experts are routed by groups, and groups fit hosts, a group stays on one host.
 */
#ifndef TANDEM_SCHED_BALANCE_H
#define TANDEM_SCHED_BALANCE_H

#include "load/draw.h"
#include "plan/placement.h"

struct balance {
    int n_expert, n_run;
    int redundant; /* experts that every run holds beyond its share */
    int n_host;    /* the runs stand on so many hosts, neighbours together; 0: one */
    int n_group; /* tokens choose experts from few of so many groups of neighbours; 0: no groups */
};

/* Refuse what cannot be: fewer experts than runs, more slots than experts on each. -EINVAL. */
int balance_check(const struct balance *b, struct err *e);

/* load[n_expert]: how many rows each expert had, in any unit. A run holds its even share of the
 * experts (share() in base.h) and `redundant` more. Deterministic; equal loads give
 * placement_even()'s sizes. b: checked. */
struct placement balance_place(const struct balance *b, const double *load);

/* next with its runs renamed, for all are alike, so that they hold what those of now hold: the two
 * that share most first. What then has to move is little. */
struct placement balance_near(const struct placement *next, const struct placement *now);

/* How far the shares of n experts are from even ones: the sum of (share - 1/n)^2, 0 to 1 - 1/n. The
 * article calls it auxiliary_loss_load_balance. It is a figure about a load and nothing more: a
 * trained router does not change, and what training adds to its loss is another sum. */
double balance_uneven(const double *load, int n);

/* load[n] = Zipf's law: the i-th largest is 1 / i^alpha, in an order that d draws; their sum is 1.
 * alpha 0: all equal. */
void balance_zipf(double *load, int n, double alpha, struct draws d);

#endif
