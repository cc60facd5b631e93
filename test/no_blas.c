/* no_blas.c - in place of bench/gpu_blas.c where there is no GPU: no yardstick. */
#include "../bench/gpu_blas.h"

struct gpu_blas *gpu_blas_open(int n, int m, int k, void *work, size_t work_bytes, const char **why)
{
    (void)n, (void)m, (void)k, (void)work, (void)work_bytes;
    *why = "a model of a GPU";
    return NULL;
}

int gpu_blas_run(struct gpu_blas *b, void *stream, void *y, const void *x, const void *w)
{
    (void)b, (void)stream, (void)y, (void)x, (void)w;
    return 1;
}
