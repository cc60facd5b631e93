/* gpu_tried.h - what came of trying warpgroup products on GPU 0: see gpu_check_warpgroups(). */
#ifndef TANDEM_BENCH_GPU_TRIED_H
#define TANDEM_BENCH_GPU_TRIED_H

/* "the same bits", "other bits", "none" (not compute capability 9.0), "failed" or "crashed or
 * hung", asked by a process of its own; before the first call of CUDA. */
const char *warpgroups_tried(void);

#endif
