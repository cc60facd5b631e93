/* expect.h - what of a layer's experts a run of ranks can expect to do, when only the number of
 * rows is known: for prices. Tokens choose blindly, or as they are known to. */
#ifndef TANDEM_RUN_EXPECT_H
#define TANDEM_RUN_EXPECT_H

#include "plan/placement.h"
#include "plan/plan.h"

/* What is known of the choices, by layer; what is expected is the mean of all n_layer. Nothing is
 * owned. */
struct routing {
    int n_layer;                       /* layers with experts */
    const double *share;               /* [n_layer][experts] of all choices; each with sum 1 */
    const struct placement *placement; /* [n_layer] NULL: as the ranks hold them */
};

/* Of the run with most to do: how many experts it meets, and with how many rows in all. */
struct expected {
    double experts, rows;
};

/* n rows choose `top` of the experts blindly. Where all runs hold all experts, what they meet is
 * dealt out; else some run gets more. */
struct expected expect_blindly(const struct placement *held, int top, int n);

/* They choose by r's shares, none the same expert twice; held: where r has no placement. */
struct expected expect_by(const struct routing *r, const struct placement *held, int top, int n);

/* How often each of E experts is among the `top` that a row chooses, if the shares of all choices
 * are share[E] as far as that can be: none is chosen twice by a row. Their sum is top. */
void expect_chosen(const double *share, int E, int top, double *to);

/* lambda of the rows, on the mean of all layers, when there are many. */
double expect_lambda(const struct routing *r, const struct placement *held, int top);

#endif
