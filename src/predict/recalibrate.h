/* recalibrate.h - a hardware profile corrected by what a server measured.
 *
 * The server compares every step with the profile (`tandem serve --hardware`) and sums both by the
 * rows of steps and the format of the weights. Costs of products at so many rows are multiplied by
 * measured over predicted of those steps; other costs of a device by the ratio of all steps. What
 * links do cannot be told apart from it and stays.
 */
#ifndef TANDEM_PREDICT_RECALIBRATE_H
#define TANDEM_PREDICT_RECALIBRATE_H

#include "topo/hardware.h"

enum { SEEN_CLASSES = 32, SEEN_LEAST = 100 /* steps */ };

/* Sums that a server wrote. */
struct seen_steps {
    enum num weight;
    double steps;
    int n;
    struct seen_class {
        double rows, measured_s, predicted_s;
    } of[SEEN_CLASSES]; /* ascending by rows */
};

/* From the text of /metrics (n bytes, not trusted). -EINVAL: the figures are not there, of too few
 * steps, of several formats, or not numbers; `what` begins the sentence. */
int seen_read(struct seen_steps *s, const char *text, size_t n, const char *what, struct err *e);

/* Correct h; returns measured over predicted of all steps, as it was before. -EINVAL when h does
 * not know the format. */
int recalibrate(struct hardware *h, const struct seen_steps *s, double *ratio, struct err *e);

#endif
