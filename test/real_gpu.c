/* real_gpu.c - linked with tests of kernels that run on a real GPU and not on the model of one:
 * without a GPU they are skipped. */
#include "dev/cuda/runtime.h"

#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor)) static void find_gpu(void)
{
    int n = 0;
    /* Kernels of several ranks wait for each other, in one process: none may be loaded, or stand in
     * another's queue, meanwhile. */
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
    int rc = gpu_count(&n);
    if (!rc && n)
        return;
    printf("skipped: no GPU (%s)\n", rc ? gpu_error(rc) : "the driver shows none");
    exit(77);
}
