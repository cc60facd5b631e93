/* experts.h - what the experts of the served model had to do, and who holds them: for Prometheus,
 * and for the operator as JSON. */
#ifndef TANDEM_SERVE_EXPERTS_H
#define TANDEM_SERVE_EXPERTS_H

#include "engine/fleet.h"

#include <jansson.h>

/* tandem:expert_rows_total by expert, summed over layers (a series per layer and expert would be
 * thousands), and figures of balance by layer. Nothing for a model without experts. labels: of
 * every line, `a="b"`. */
void experts_metrics(FILE *to, struct fleet *f, const struct plan *p, const char *labels);

/* What --expert-loads reads (sched/loads.h), with what follows from the rows beside them; a new
 * reference. Layers without experts are left out. */
json_t *experts_report(struct fleet *f, const struct plan *p);

#endif
