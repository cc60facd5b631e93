/* calibrate_gpu.h - measuring GPUs for a hardware profile: the twin of calibrate.h.
 *
 * The conditions are those of steps: the real device, weights and caches larger than its own, and
 * operations that are recorded and replayed as those of the model's steps are. A process of its own
 * opens each GPU; the caller never calls CUDA.
 */
#ifndef TANDEM_CALIBRATE_GPU_H
#define TANDEM_CALIBRATE_GPU_H

#include "dev/plugin.h"
#include "predict/calibrate.h"

/* Bytes a second that GPU `to` reads of GPU `from`, of one large message; 0: not measured. */
struct gpu_links {
    int n;
    double bytes_s[GPUS][GPUS]; /* [to][from] */
};

/* Fill kind, memory, rates and levels of h, and *links when there are several GPUs. step_s becomes
 * what the device adds to a step of the host. Takes about half a minute. The GPUs must be of one
 * kind. When what several do together cannot be measured, as where they do not reach each other's
 * memory, only one is, and *alone says why in one sentence; "" otherwise. */
int calibrate_gpus(struct hardware *h, const struct gpus *g, const struct host *host,
                   const struct calibrate_opts *o, struct gpu_links *links, struct err *alone,
                   struct err *e);

#endif
