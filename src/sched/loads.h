/* loads.h - how many rows each expert had, as a file: recorded by a server, read by planner,
 * simulator and the next server.
 *
 * {"schema": 1, "experts": E, "layers": [{"layer": L, "rows": [E numbers]}, ...]}; layers without
 * experts are left out, other fields are not looked at. Rows are counts or shares: only their
 * proportions matter.
 */
#ifndef TANDEM_SCHED_LOADS_H
#define TANDEM_SCHED_LOADS_H

#include "model/model.h"

#include <jansson.h>

/* rows[n_layer][experts] of the model, row by row; zeros where the file says nothing of a layer
 * that has experts. -EINVAL: other experts or layers than the model's, or rows that are no counts.
 */
int loads_from_json(const json_t *o, const struct model *m, double *rows, struct err *e);
int loads_load(const char *path, const struct model *m, double *rows, struct err *e);

#endif
