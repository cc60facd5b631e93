/* fake_cublaslt.c - a libcublasLt.so.13 for tests: the one product that is asked for, as a task in
 * a stream of the model of a GPU. Sums lose their last six bits, so that they differ from ours;
 * what was promised of alignment and memory is held to. FAKE_BLAS_NONE: it finds no way for any
 * shape.
 */
#include "stream.h"

#include "dev/cuda/blas.h"

#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

enum { NOT_SUPPORTED = 15, INVALID_VALUE = 7 };

struct cublasLtContext {
    int unused;
};
struct blas_how {
    uint32_t transpose_a, epilogue;
    const float *bias;
};
struct blas_layout {
    unsigned type;
    uint64_t rows, columns;
    int64_t stride;
};
struct blas_wish {
    uint64_t work;
    uint32_t align[4];
};

#define BLAS_CALL(name, arguments) EXPORT BLAS_STATUS cublasLt##name arguments;
#include "dev/cuda/blas_calls.def"
#undef BLAS_CALL
EXPORT size_t cublasLtGetVersion(void);

size_t cublasLtGetVersion(void)
{
    const char *other = getenv("FAKE_BLAS_VERSION");
    return other ? strtoul(other, NULL, 10) : 130100;
}

/* Descriptors stay, as far as these tests go. */
static void *make(size_t bytes)
{
    static void *first;
    void **at = calloc(1, sizeof(void *) * 2 + bytes);
    at[0] = __atomic_exchange_n(&first, at, __ATOMIC_SEQ_CST);
    return at + 2;
}

unsigned cublasLtCreate(struct cublasLtContext **to)
{
    *to = make(sizeof(**to));
    return 0;
}

unsigned cublasLtMatmulDescCreate(struct blas_how **to, unsigned compute, unsigned scale)
{
    *to = make(sizeof(**to));
    return compute == BLAS_COMPUTE_F32 && scale == BLAS_F32 ? 0 : INVALID_VALUE;
}

unsigned cublasLtMatmulDescSetAttribute(struct blas_how *how, unsigned field, const void *value,
                                        size_t bytes)
{
    if (field == BLAS_HOW_TRANSPOSE_A && bytes == 4)
        memcpy(&how->transpose_a, value, 4);
    else if (field == BLAS_HOW_EPILOGUE && bytes == 4)
        memcpy(&how->epilogue, value, 4);
    else if (field == BLAS_HOW_BIAS && bytes == sizeof(how->bias))
        memcpy(&how->bias, value, bytes);
    else
        return INVALID_VALUE;
    return 0;
}

unsigned cublasLtMatrixLayoutCreate(struct blas_layout **to, unsigned type, uint64_t rows,
                                    uint64_t columns, int64_t stride)
{
    *to = make(sizeof(**to));
    **to = (struct blas_layout){type, rows, columns, stride};
    return (uint64_t)stride >= rows ? 0 : INVALID_VALUE;
}

unsigned cublasLtMatmulDescDestroy(struct blas_how *how) { return (void)how, 0; }
unsigned cublasLtMatrixLayoutDestroy(struct blas_layout *layout) { return (void)layout, 0; }

unsigned cublasLtMatmulPreferenceCreate(struct blas_wish **to)
{
    *to = make(sizeof(**to));
    for (int i = 0; i < 4; i++)
        (*to)->align[i] = 256;
    return 0;
}

unsigned cublasLtMatmulPreferenceSetAttribute(struct blas_wish *wish, unsigned field,
                                              const void *value, size_t bytes)
{
    if (field == BLAS_WISH_WORK && bytes == 8)
        memcpy(&wish->work, value, 8);
    else if (field >= BLAS_WISH_ALIGN_A && field <= BLAS_WISH_ALIGN_D && bytes == 4)
        memcpy(&wish->align[field - BLAS_WISH_ALIGN_A], value, 4);
    else
        return INVALID_VALUE;
    return 0;
}

unsigned cublasLtMatmulAlgoGetHeuristic(struct cublasLtContext *handle, struct blas_how *how,
                                        struct blas_layout *a, struct blas_layout *b,
                                        struct blas_layout *c, struct blas_layout *d,
                                        struct blas_wish *wish, int most, struct blas_found *to,
                                        int *n)
{
    (void)handle, (void)most;
    *n = 0;
    if (getenv("FAKE_BLAS_NONE") || how->transpose_a != BLAS_TRANSPOSE || a->type != BLAS_BF16 ||
        b->type != BLAS_BF16 || d->type != BLAS_F32 || c != d || a->rows != b->rows ||
        d->rows != a->columns || d->columns != b->columns || a->stride % 8 || b->stride % 8)
        return NOT_SUPPORTED;
    *to = (struct blas_found){.work_bytes = wish->work, .algo.data = {wish->align[0], 0xa190}};
    *n = 1;
    return 0;
}

struct product {
    struct blas_how how;
    struct blas_layout a, d;
    const uint16_t *w, *x;
    int64_t x_stride;
    float *y;
};

static float number(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static float fewer_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    bits &= ~63u;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static int run(void *arg)
{
    const struct product *p = arg;
    for (uint64_t i = 0; i < p->d.columns; i++)
        for (uint64_t o = 0; o < p->d.rows; o++) {
            const uint16_t *w = p->w + o * (uint64_t)p->a.stride;
            const uint16_t *x = p->x + i * (uint64_t)p->x_stride;
            float sum = 0;
            for (uint64_t k = 0; k < p->a.rows; k++)
                sum += number(w[k]) * number(x[k]);
            if (p->how.epilogue == BLAS_EPILOGUE_BIAS)
                sum += p->how.bias[o];
            p->y[i * (uint64_t)p->d.stride + o] = fewer_bits(sum);
        }
    return 0;
}

unsigned cublasLtMatmul(struct cublasLtContext *handle, struct blas_how *how, const void *alpha,
                        const void *a, struct blas_layout *a_layout, const void *b,
                        struct blas_layout *b_layout, const void *beta, const void *c,
                        struct blas_layout *c_layout, void *d, struct blas_layout *d_layout,
                        const struct blas_algo *algo, void *work, size_t work_bytes,
                        struct CUstream_st *to)
{
    struct model_stream *stream = (struct model_stream *)(void *)to;
    const uintptr_t align = algo->data[0];
    float one, zero;
    (void)handle, (void)c_layout;
    memcpy(&one, alpha, 4);
    memcpy(&zero, beta, 4);
    if (algo->data[1] != 0xa190 || !work || work_bytes < BLAS_WORK || one < 1 || zero > 0 ||
        c != d || ((uintptr_t)a | (uintptr_t)b | (uintptr_t)d) % align ||
        (how->epilogue && (uintptr_t)how->bias % align))
        return INVALID_VALUE;
    struct product *p = calloc(1, sizeof(*p));
    *p = (struct product){*how, *a_layout, *d_layout, a, b, b_layout->stride, d};
    stream->enqueue(stream, run, p, free);
    return 0;
}
