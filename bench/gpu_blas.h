/* gpu_blas.h - cuBLASLt as a yardstick: bf16 products by NVIDIA's library, loaded when it is there.
 * Tandem itself does not use it. */
#ifndef TANDEM_BENCH_GPU_BLAS_H
#define TANDEM_BENCH_GPU_BLAS_H

#include <stddef.h>

struct gpu_blas;

/* y[n][m] = x[n][k] * w[m][k]^T, bf16, sums in f32. `work`: memory of the GPU for the library.
 * NULL, and a sentence in why: there is no such library, or it does not know how. */
struct gpu_blas *gpu_blas_open(int n, int m, int k, void *work, size_t work_bytes,
                               const char **why);
int gpu_blas_run(struct gpu_blas *, void *stream, void *y, const void *x, const void *w);

#endif
