/* drift.h - do steps take as long as the plan's hardware profile says? Pure: the caller has the
 * clock.
 *
 * Sums by number of rows, so that a profile can be corrected from them (`tandem topo
 * --from-metrics`), and the last ratios of measured to predicted, whose median tells when the
 * machine has become another one: a noisy neighbour, a lower clock, a core that was lost.
 */
#ifndef TANDEM_DRIFT_H
#define TANDEM_DRIFT_H

#include "base/base.h"

enum { DRIFT_CLASSES = 12, DRIFT_WINDOW = 512, DRIFT_LEAST = 128 };

#define DRIFT_FAR 1.25  /* the median is that many times too long, or too short */
#define DRIFT_QUIET 600 /* seconds between two alarms */

struct drift {
    struct drift_class {
        uint64_t steps;
        double measured_s, predicted_s;
    } of[DRIFT_CLASSES]; /* class c: steps of 2^c rows and more; the last has no end */
    float ratio[DRIFT_WINDOW];
    uint64_t n;     /* ratios so far */
    double alarm_s; /* when it was last told; 0: never */
};

int drift_class(int rows);

/* A step of so many rows took measured_s where predicted_s were expected; both > 0. */
void drift_add(struct drift *d, int rows, double measured_s, double predicted_s);

/* The median ratio of the last steps; 0 until DRIFT_LEAST were seen. */
double drift_median(const struct drift *d);

/* Is it time to tell? Then it is taken for told. */
bool drift_alarm(struct drift *d, double now_s);

#endif
