/* gpu_metrics.h - what the GPUs of this host are doing, for Prometheus: under tandem:gpu_.
 *
 * A thread asks the driver once a second, so that neither a driver that takes its time nor one that
 * hangs holds up anyone else; tandem:gpu_sample_age_seconds then grows.
 */
#ifndef TANDEM_GPU_METRICS_H
#define TANDEM_GPU_METRICS_H

#include <stdio.h>

struct gpu_metrics;

/* Begin to ask `library` (NULL: libnvidia-ml.so.1; the name must outlive it); returns at once.
 * NULL: no driver, nothing to ask. */
struct gpu_metrics *gpu_metrics_start(const char *library);

/* What was asked last; nothing for NULL. labels: of every line, `a="b"`. */
void gpu_metrics_write(FILE *to, struct gpu_metrics *g, const char *labels);

/* g may be NULL. When the driver hangs its thread is left behind after two seconds. */
void gpu_metrics_stop(struct gpu_metrics *g);

#endif
