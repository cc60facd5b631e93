/* gpu_tried.h - what came of trying warpgroups on GPU 0: see gpu_check_products() of kernels.h. */
#ifndef TANDEM_BENCH_GPU_TRIED_H
#define TANDEM_BENCH_GPU_TRIED_H

#include <stdbool.h>

/* "the same bits", "other bits", "none" (not compute capability 9.0), "failed" or "crashed or
 * hung": of products, or of attention. Asked by a process of its own; before the first call of
 * CUDA. */
const char *warpgroups_tried(bool attention);

#endif
