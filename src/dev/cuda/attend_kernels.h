/* attend_kernels.h - the parts that attention is put together from (attend.cu), one per file. */
#ifndef TANDEM_CUDA_ATTEND_KERNELS_H
#define TANDEM_CUDA_ATTEND_KERNELS_H

#include "dev/cuda/attend.h"

/* attend_tiles.cu: bf16; runs of more tokens than short_run(). */
int attend_long_runs(void *stream, const struct attending *a);

/* attend_wgmma.cu: the same where struct gpu_room says so, of heads that it takes. */
bool attend_wgmma_takes(const struct attending *a);
int attend_wgmma(void *stream, const struct attending *a);

/* attend_split.cu: bf16; all other runs, or every token as a run of its own; a->part and
 * a->segments are set here. */
int attend_short_runs(void *stream, struct attending *a, bool alone, const struct gpu_room *room);

size_t attend_room_bytes(const struct gpu_sizes *); /* what they make use of */

/* attend_exact.cu: every format, in the CPU's bits. */
int attend_exactly(void *stream, struct attending *a, const struct gpu_room *room);

#endif
