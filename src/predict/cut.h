/* cut.h - where a pipeline is cut: the layers of each stage such that the slowest is fastest. */
#ifndef TANDEM_PREDICT_CUT_H
#define TANDEM_PREDICT_CUT_H

#include "base/base.h"

/* n layers in p stages, p <= n; layer i takes cost[i] and room[i]; no stage may take more than
 * `most` room. The largest cost of a stage is least; among such cuts the first stages are the
 * larger. false when nothing fits. Exact: dynamic programming over layers, O(n^2 p). */
bool cut_layers(const double *cost, const double *room, int n, int p, double most,
                struct span *stage);

#endif
