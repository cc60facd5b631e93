/* gpu_blas.c - see gpu_blas.h. */
#include "gpu_blas.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

struct gpu_blas {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t how;
    cublasLtMatrixLayout_t x, w, y;
    cublasLtMatmulHeuristicResult_t best;
    void *work;
    size_t work_bytes;
    __typeof__(&cublasLtMatmul) multiply;
};

/* Of the library's functions, those that are used; column-major is what it calls a transpose. */
static const char *set_up(struct gpu_blas *b, void *library, int n, int m, int k)
{
    cublasOperation_t transposed = CUBLAS_OP_T;
    cublasLtMatmulPreference_t wish;
    int found = 0;
#define TAKE(name)                                                                                 \
    __typeof__(&name) call_##name = (__typeof__(&name))(uintptr_t)dlsym(library, #name)
    TAKE(cublasLtCreate);
    TAKE(cublasLtMatmulDescCreate);
    TAKE(cublasLtMatmulDescSetAttribute);
    TAKE(cublasLtMatrixLayoutCreate);
    TAKE(cublasLtMatmulPreferenceCreate);
    TAKE(cublasLtMatmulPreferenceSetAttribute);
    TAKE(cublasLtMatmulAlgoGetHeuristic);
    TAKE(cublasLtMatmul);
#undef TAKE
    if (!call_cublasLtCreate || !call_cublasLtMatmul || !call_cublasLtMatmulAlgoGetHeuristic ||
        !call_cublasLtMatmulDescCreate || !call_cublasLtMatmulDescSetAttribute ||
        !call_cublasLtMatrixLayoutCreate || !call_cublasLtMatmulPreferenceCreate ||
        !call_cublasLtMatmulPreferenceSetAttribute)
        return "cuBLASLt lacks functions";
    b->multiply = call_cublasLtMatmul;
    if (call_cublasLtCreate(&b->handle) ||
        call_cublasLtMatmulDescCreate(&b->how, CUBLAS_COMPUTE_32F, CUDA_R_32F) ||
        call_cublasLtMatmulDescSetAttribute(b->how, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                            sizeof(transposed)) ||
        call_cublasLtMatrixLayoutCreate(&b->w, CUDA_R_16BF, (uint64_t)k, (uint64_t)m, k) ||
        call_cublasLtMatrixLayoutCreate(&b->x, CUDA_R_16BF, (uint64_t)k, (uint64_t)n, k) ||
        call_cublasLtMatrixLayoutCreate(&b->y, CUDA_R_16BF, (uint64_t)m, (uint64_t)n, m) ||
        call_cublasLtMatmulPreferenceCreate(&wish) ||
        call_cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                  &b->work_bytes, sizeof(b->work_bytes)) ||
        call_cublasLtMatmulAlgoGetHeuristic(b->handle, b->how, b->w, b->x, b->y, b->y, wish, 1,
                                            &b->best, &found) ||
        !found)
        return "cuBLASLt cannot be set up";
    return NULL;
}

struct gpu_blas *gpu_blas_open(int n, int m, int k, void *work, size_t work_bytes, const char **why)
{
    static const char *const name[] = {"libcublasLt.so.13", "libcublasLt.so"};
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof(name) / sizeof(name[0]); i++)
        library = dlopen(name[i], RTLD_NOW | RTLD_LOCAL);
    *why = "no cuBLASLt here";
    struct gpu_blas *b = library ? calloc(1, sizeof(*b)) : NULL;
    if (!b)
        return NULL;
    b->work = work, b->work_bytes = work_bytes;
    *why = set_up(b, library, n, m, k);
    if (!*why)
        return b;
    free(b);
    return NULL;
}

int gpu_blas_run(struct gpu_blas *b, void *stream, void *y, const void *x, const void *w)
{
    const float one = 1, zero = 0;
    return (int)b->multiply(b->handle, b->how, &one, w, b->w, x, b->x, &zero, y, b->y, y, b->y,
                            &b->best.algo, b->work, b->work_bytes, (cudaStream_t)stream);
}
