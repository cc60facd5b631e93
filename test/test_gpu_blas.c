/* test_gpu_blas.c - products by cuBLASLt: weights out of their packing, rows of x, a bias; on the
 * model of a GPU by a library of the tests (cuda_model/fake_cublaslt.c), on a real one by NVIDIA's.
 */
#include "dev/cuda/blas.h"
#include "gpu_help.h"

#include <math.h>

struct shape {
    int n, rows, cols, shares; /* shares: 0: cut by rows */
    bool bias;
};

static struct blas *the_blas(struct gpu *g)
{
    static struct blas blas;
    struct err e;
    if (!blas.handle && blas_open(&blas, gpu_put(g, NULL, BLAS_WORK), &e))
        fail_msg("%s", e.text);
    blas.work = gpu_put(g, NULL, BLAS_WORK);
    return &blas;
}

/* Of numbers as they are stored, and of x as it is rounded, in double. */
static double want(const struct mat *w, const struct mat *x, const float *bias, int row, int out,
                   double *size)
{
    double sum = bias ? (double)bias[out] : 0;
    *size = fabs(sum);
    for (int k = 0; k < x->dim; k++) {
        double a = (double)bf16_to_f32(f32_to_bf16(mat_row(x, row)[k]));
        double b = (double)bf16_to_f32(f32_to_bf16(mat_row(w, out)[k]));
        sum += a * b;
        *size += fabs(a * b);
    }
    return sum;
}

static void product_is_right(const struct shape *s)
{
    struct help h = help_begin(1, 1);
    struct gpu g = gpu_help_begin();
    struct blas *b = the_blas(&g);
    const int stride = weight_plain_stride(s->cols);
    struct mat wide = help_mat(&h, s->rows, s->cols), x = help_mat(&h, s->n, s->cols);
    struct mat bias = help_mat(&h, 1, s->rows), y = help_mat(&h, s->n, s->rows);
    const int n_part = s->shares ? s->shares : 3;
    int sizes[SHARES_MAX];
    help_sizes(&h, s->shares ? s->cols : s->rows, n_part, sizes);
    struct weight w =
        help_cut(&h, NUM_BF16, s->shares ? CUT_COLS : CUT_ROWS, &wide, 0, n_part, sizes);
    const struct gpu_weight packed = gpu_put_weight(&g, &w);
    void *plain = gpu_put(&g, NULL, (size_t)s->rows * (size_t)stride * 2);
    void *ready = gpu_put(&g, NULL, (size_t)s->n * (size_t)stride * 2);
    void *at_x = gpu_put_mat(&g, &x), *at_bias = gpu_put_mat(&g, &bias);
    void *at_y = gpu_put(&g, NULL, mat_bytes(&y));
    const struct blas_shape shape = {.n = s->n,
                                     .rows = s->rows,
                                     .columns = s->cols,
                                     .w_stride = stride,
                                     .x_stride = stride,
                                     .y_stride = s->rows,
                                     .bias = s->bias};
    gpu_ok(gpu_plain(g.stream, plain, stride, &packed, s->shares));
    gpu_ok(gpu_round_rows(g.stream, ready, stride, at_x, s->n, s->cols));
    const struct blas_plan *plan = blas_plan(b, &shape);
    assert_non_null(plan);
    assert_ptr_equal(plan, blas_plan(b, &shape));
    assert_int_equal(blas_multiply(b, plan, g.stream, at_y, ready, plain, s->bias ? at_bias : NULL),
                     0);
    gpu_take(&g, y.at, at_y, mat_bytes(&y));
    for (int i = 0; i < s->n; i++)
        for (int o = 0; o < s->rows; o++) {
            double size, good = want(&wide, &x, s->bias ? bias.at : NULL, i, o, &size);
            if (!(fabs((double)mat_row(&y, i)[o] - good) <= size * 1e-5 + 1e-30))
                fail_msg("row %d, output %d: %g is not %g", i, o, (double)mat_row(&y, i)[o], good);
        }
    gpu_drop(&g);
    help_end(&h);
}

static void products_are_right_in_every_shape(void **state)
{
    static const struct shape shape[] = {{65, 48, 64, 0, false},   {100, 64, 72, 0, true},
                                         {70, 32, 200, 0, false},  {65, 64, 96, 8, false},
                                         {130, 128, 136, 8, true}, {512, 256, 512, 0, true}};
    (void)state;
    for (size_t i = 0; i < COUNT(shape); i++)
        product_is_right(&shape[i]);
}

static void refused(const char *name, const char *version, const char *word)
{
    struct blas_library library;
    struct err e = {{0}};
    const char *before = getenv("TANDEM_CUBLASLT");
    char kept[512];
    snprintf(kept, sizeof(kept), "%s", before ? before : "");
    if (name)
        setenv("TANDEM_CUBLASLT", name, 1);
    if (version)
        setenv("FAKE_BLAS_VERSION", version, 1);
    assert_int_not_equal(blas_library_open(&library, &e), 0);
    if (!strstr(e.text, word) || !strstr(e.text, "install") || strchr(e.text, '\n'))
        fail_msg("%s", e.text);
    unsetenv("FAKE_BLAS_VERSION");
    if (before)
        setenv("TANDEM_CUBLASLT", kept, 1);
    else
        unsetenv("TANDEM_CUBLASLT");
}

static void a_library_that_does_not_serve_is_refused_in_a_line(void **state)
{
    const char *library = getenv("TANDEM_CUBLASLT");
    (void)state;
    refused("/nowhere/libcublasLt.so", NULL, "/nowhere/libcublasLt.so");
    refused("libm.so.6", NULL, "cublasLtGetVersion");
    if (library && strstr(library, "model/fake"))
        refused(NULL, "111103", "111103");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_right_in_every_shape),
        cmocka_unit_test(a_library_that_does_not_serve_is_refused_in_a_line),
    };
    struct gpu_about about;
    if (!gpu_about(0, &about) && !strcmp(about.name, "model of a GPU"))
        setenv("TANDEM_CUBLASLT", BUILD_DIR "/model/fake/libcublasLt.so.13", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
