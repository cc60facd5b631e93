/* blas.c - see blas.h. cuBLASLt counts columns first: what is row by row here is transposed there.
 */
#include "dev/cuda/blas.h"

#include <dlfcn.h>
#include <stdlib.h>

#define INSTALL                                                                                    \
    "install cuBLAS of CUDA 12 or 13 (libcublas, or pip install nvidia-cublas), name its library " \
    "by TANDEM_CUBLASLT"

/* ------------------------------------------------------------------------------- the library */

static void *open_any(const char *chosen)
{
    static const char *const name[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
    void *library = chosen ? dlopen(chosen, RTLD_NOW | RTLD_LOCAL) : NULL;
    for (size_t i = 0; !chosen && !library && i < COUNT(name); i++)
        library = dlopen(name[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}

static const char *find_all(struct blas_library *to, void *library)
{
    size_t (*version)(void);
    *(void **)&version = dlsym(library, "cublasLtGetVersion");
    if (!version)
        return "cublasLtGetVersion";
    to->version = version();
#define BLAS_CALL(name, arguments)                                                                 \
    *(void **)&to->name = dlsym(library, "cublasLt" #name);                                        \
    if (!to->name)                                                                                 \
        return "cublasLt" #name;
#include "dev/cuda/blas_calls.def"
#undef BLAS_CALL
    return NULL;
}

int blas_library_open(struct blas_library *to, struct err *e)
{
    void *library = open_any(getenv("TANDEM_CUBLASLT"));
    *to = (struct blas_library){0};
    if (!library)
        return err_set(e, -ENOENT,
                       "products are to be cuBLASLt's, which cannot be loaded (%.200s): " INSTALL
                       ", or leave out --fast",
                       dlerror());
    const char *missing = find_all(to, library);
    if (missing)
        return err_set(e, -ENOTSUP, "cuBLASLt has no %s: " INSTALL, missing);
    if (to->version < 120000)
        return err_set(e, -ENOTSUP, "cuBLASLt is of version %zu, which is too old: " INSTALL,
                       to->version);
    return 0;
}

/* ------------------------------------------------------------------------------- shapes */

int blas_open(struct blas *b, void *work, struct err *e)
{
    const uint64_t bytes = BLAS_WORK;
    const uint32_t align = BLAS_ALIGN;
    const struct blas_library *l = &b->library;
    int rc = blas_library_open(&b->library, e);
    if (rc)
        return rc;
    b->work = work;
    unsigned status = l->Create(&b->handle);
    if (!status)
        status = l->MatmulPreferenceCreate(&b->wish);
    if (!status)
        status = l->MatmulPreferenceSetAttribute(b->wish, BLAS_WISH_WORK, &bytes, sizeof(bytes));
    for (unsigned of = BLAS_WISH_ALIGN_A; !status && of <= BLAS_WISH_ALIGN_D; of++)
        status = l->MatmulPreferenceSetAttribute(b->wish, of, &align, sizeof(align));
    return status ? err_set(e, -EIO, "cuBLASLt cannot be set up (status %u)", status) : 0;
}

static void forget(const struct blas_library *l, struct blas_plan *p)
{
    if (p->how)
        l->MatmulDescDestroy(p->how);
    struct blas_layout *const layout[] = {p->w, p->x, p->y};
    for (size_t i = 0; i < COUNT(layout); i++)
        if (layout[i])
            l->MatrixLayoutDestroy(layout[i]);
    *p = (struct blas_plan){.none = true};
}

static unsigned describe(const struct blas_library *l, struct blas_plan *p)
{
    const struct blas_shape *s = &p->shape;
    const uint64_t n = (uint64_t)s->n, rows = (uint64_t)s->rows, columns = (uint64_t)s->columns;
    const uint32_t transpose = BLAS_TRANSPOSE, epilogue = BLAS_EPILOGUE_BIAS;
    const uintptr_t some = BLAS_ALIGN; /* only how it is aligned is looked at */
    unsigned status = l->MatmulDescCreate(&p->how, BLAS_COMPUTE_F32, BLAS_F32);
    if (!status)
        status =
            l->MatmulDescSetAttribute(p->how, BLAS_HOW_TRANSPOSE_A, &transpose, sizeof(transpose));
    if (!status && s->bias)
        status = l->MatmulDescSetAttribute(p->how, BLAS_HOW_EPILOGUE, &epilogue, sizeof(epilogue));
    if (!status && s->bias)
        status = l->MatmulDescSetAttribute(p->how, BLAS_HOW_BIAS, &some, sizeof(some));
    if (!status)
        status = l->MatrixLayoutCreate(&p->w, BLAS_BF16, columns, rows, s->w_stride);
    if (!status)
        status = l->MatrixLayoutCreate(&p->x, BLAS_BF16, columns, n, s->x_stride);
    if (!status)
        status = l->MatrixLayoutCreate(&p->y, BLAS_F32, rows, n, s->y_stride);
    return status;
}

static size_t place_of(const struct blas_shape *s)
{
    const int of[] = {s->n, s->rows, s->columns, s->bias};
    uint64_t hash = 0;
    for (size_t i = 0; i < COUNT(of); i++)
        hash = (hash + (uint64_t)of[i]) * 0x9e3779b97f4a7c15u;
    return hash >> 54;
}
_Static_assert(BLAS_PLANS == 1 << 10, "places are 10 bits");

const struct blas_plan *blas_plan(struct blas *b, const struct blas_shape *shape)
{
    struct blas_plan *p = &b->plan[place_of(shape)];
    int found = 0;
    if (p->shape.n && !memcmp(&p->shape, shape, sizeof(*shape)))
        return p->none ? NULL : p;
    forget(&b->library, p);
    p->shape = *shape;
    unsigned status = describe(&b->library, p);
    if (!status)
        status = b->library.MatmulAlgoGetHeuristic(b->handle, p->how, p->w, p->x, p->y, p->y,
                                                   b->wish, 1, &p->best, &found);
    p->none = status || !found || p->best.status;
    return p->none ? NULL : p;
}

unsigned blas_multiply(struct blas *b, const struct blas_plan *p, void *stream, float *y,
                       const void *x, const void *w, const float *bias)
{
    const float one = 1, zero = 0;
    unsigned status =
        bias ? b->library.MatmulDescSetAttribute(p->how, BLAS_HOW_BIAS, &bias, sizeof(bias)) : 0;
    return status ? status
                  : b->library.Matmul(b->handle, p->how, &one, w, p->w, x, p->x, &zero, y, p->y, y,
                                      p->y, &p->best.algo, b->work, BLAS_WORK,
                                      (struct CUstream_st *)stream);
}
