/* blas.h - products of many rows by NVIDIA's cuBLASLt (--fast), which is found at run time, like
 * comm/nccl/library.h: nothing links against it, prototypes are our own.
 *
 * It wants weights row by row, [rows][stride] of bf16, and x likewise; sums are in f32, in an order
 * that it chooses by shape.
 */
#ifndef TANDEM_CUDA_BLAS_H
#define TANDEM_CUDA_BLAS_H

#include "base/arena.h"

/* Bytes that it may use between calls: what NVIDIA advises for compute capability 9.0. */
enum { BLAS_WORK = 32 << 20 };

enum { BLAS_BF16 = 14, BLAS_F32 = 0, BLAS_COMPUTE_F32 = 68 };
enum { BLAS_TRANSPOSE = 1, BLAS_EPILOGUE_BIAS = 4 };
enum { BLAS_HOW_TRANSPOSE_A = 3, BLAS_HOW_EPILOGUE = 7, BLAS_HOW_BIAS = 8 };
enum { BLAS_WISH_WORK = 1, BLAS_WISH_ALIGN_A = 5, BLAS_WISH_ALIGN_D = 8 };

/* All matrices begin at multiples of this. */
enum { BLAS_ALIGN = 16 };

struct cublasLtContext;
struct CUstream_st;
struct blas_how;
struct blas_layout;
struct blas_wish;

struct blas_algo {
    uint64_t data[8];
};

struct blas_found {
    struct blas_algo algo;
    size_t work_bytes;
    unsigned status;
    float waves;
    int reserved[4];
};

#define BLAS_STATUS unsigned
#define BLAS_TYPE unsigned
#define BLAS_COMPUTE unsigned
#define BLAS_HOW_FIELD unsigned
#define BLAS_WISH_FIELD unsigned
#define BLAS_HANDLE struct cublasLtContext *
#define BLAS_HOW struct blas_how *
#define BLAS_LAYOUT struct blas_layout *
#define BLAS_WISH struct blas_wish *
#define BLAS_ALGO struct blas_algo
#define BLAS_FOUND struct blas_found
#define BLAS_STREAM struct CUstream_st *

struct blas_library {
    size_t version;
#define BLAS_CALL(name, arguments) BLAS_STATUS(*name) arguments;
#include "dev/cuda/blas_calls.def"
#undef BLAS_CALL
};

/* Open libcublasLt.so.13 or .12, or what TANDEM_CUBLASLT names, for good. -ENOENT, -ENOTSUP with
 * one sentence that says what to install. Calls no CUDA. */
int blas_library_open(struct blas_library *to, struct err *e);

/* y[n][y_stride] = x[n][x_stride] * w[rows][w_stride]^T, of `columns` columns, and a bias or none.
 */
struct blas_shape {
    int n, rows, columns, w_stride, x_stride, y_stride, bias;
};

/* What was found for a shape, once. */
struct blas_plan {
    struct blas_shape shape;
    struct blas_how *how;
    struct blas_layout *w, *x, *y;
    struct blas_found best;
    bool none; /* cuBLASLt has nothing for it */
};

enum { BLAS_PLANS = 1024 };
struct blas {
    struct blas_library library;
    struct cublasLtContext *handle;
    struct blas_wish *wish;
    void *work; /* BLAS_WORK bytes of the device */
    struct blas_plan plan[BLAS_PLANS];
};

/* On the GPU in use. */
int blas_open(struct blas *to, void *work, struct err *e);

/* NULL: cuBLASLt cannot do it. Stays until another shape of the same place is asked for. */
const struct blas_plan *blas_plan(struct blas *b, const struct blas_shape *shape);

/* Enqueue; 0, or what cuBLASLt calls a status. */
unsigned blas_multiply(struct blas *b, const struct blas_plan *plan, void *stream, float *y,
                       const void *x, const void *w, const float *bias);

#endif
