/* against_cublaslt.c - compiled where cuBLASLt's header is, and never run: our prototypes are its
 * own. */
#include "dev/cuda/blas.h"

#include <cublasLt.h>
#include <stddef.h>

#undef BLAS_STATUS
#undef BLAS_TYPE
#undef BLAS_COMPUTE
#undef BLAS_HOW_FIELD
#undef BLAS_WISH_FIELD
#undef BLAS_HANDLE
#undef BLAS_HOW
#undef BLAS_LAYOUT
#undef BLAS_WISH
#undef BLAS_ALGO
#undef BLAS_FOUND
#undef BLAS_STREAM
#define BLAS_TYPE cudaDataType
#define BLAS_COMPUTE cublasComputeType_t
#define BLAS_HOW_FIELD cublasLtMatmulDescAttributes_t
#define BLAS_WISH_FIELD cublasLtMatmulPreferenceAttributes_t
#define BLAS_HANDLE cublasLtHandle_t
#define BLAS_HOW cublasLtMatmulDesc_t
#define BLAS_LAYOUT cublasLtMatrixLayout_t
#define BLAS_WISH cublasLtMatmulPreference_t
#define BLAS_ALGO cublasLtMatmulAlgo_t
#define BLAS_FOUND cublasLtMatmulHeuristicResult_t
#define BLAS_STREAM cudaStream_t

#define BLAS_CALL(name, arguments)                                                                 \
    _Static_assert(                                                                                \
        __builtin_types_compatible_p(__typeof__(cublasLt##name), cublasStatus_t arguments),        \
        #name);
#include "dev/cuda/blas_calls.def"
#undef BLAS_CALL

#define SAME_PLACE(ours, theirs)                                                                   \
    _Static_assert(offsetof(struct blas_found, ours) ==                                            \
                       offsetof(cublasLtMatmulHeuristicResult_t, theirs),                          \
                   #ours)
SAME_PLACE(algo, algo);
SAME_PLACE(work_bytes, workspaceSize);
SAME_PLACE(status, state);
SAME_PLACE(waves, wavesCount);

_Static_assert(sizeof(struct blas_found) == sizeof(cublasLtMatmulHeuristicResult_t) &&
                   sizeof(struct blas_algo) == sizeof(cublasLtMatmulAlgo_t),
               "sizes");
_Static_assert(sizeof(cublasStatus_t) == sizeof(unsigned) && CUBLAS_STATUS_SUCCESS == 0, "status");
_Static_assert((int)BLAS_BF16 == CUDA_R_16BF && (int)BLAS_F32 == CUDA_R_32F &&
                   (int)BLAS_COMPUTE_F32 == CUBLAS_COMPUTE_32F,
               "types");
_Static_assert((int)BLAS_TRANSPOSE == CUBLAS_OP_T &&
                   (int)BLAS_EPILOGUE_BIAS == CUBLASLT_EPILOGUE_BIAS,
               "values");
_Static_assert((int)BLAS_HOW_TRANSPOSE_A == CUBLASLT_MATMUL_DESC_TRANSA &&
                   (int)BLAS_HOW_EPILOGUE == CUBLASLT_MATMUL_DESC_EPILOGUE &&
                   (int)BLAS_HOW_BIAS == CUBLASLT_MATMUL_DESC_BIAS_POINTER,
               "fields of a product");
_Static_assert((int)BLAS_WISH_WORK == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES &&
                   (int)BLAS_WISH_ALIGN_A == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
                   (int)BLAS_WISH_ALIGN_D == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
               "fields of a wish");
