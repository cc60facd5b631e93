/* test_gpu_rows.c - the GPU's operations on rows give the bits of dev/cpu/ref.c, whatever they are
 * given: its kernels on the model of a GPU (cuda_model.h). */
#include "gpu_help.h"

#include <math.h>

#include "dev/cpu/cpu.h"

enum { MAX_TOK = 16, MAX_DIM = 12000 };

/* ------------------------------------------------------------------------------- norm */

static void check_norm(struct gpu *g, struct help *h, int n, int run, int runs)
{
    struct mat x = help_mat(h, n, run * runs), w = help_mat(h, 1, run), want = help_copy(h, &x);
    float *from = gpu_put_mat(g, &x), *to = gpu_put(g, NULL, mat_bytes(&x));
    dev_norm(&h->dev[ISA_REF], &want, &x, &w, 1e-5f);
    gpu_ok(gpu_norm(g->stream, to, from, n, x.dim, gpu_put_mat(g, &w), run, 1e-5f));
    gpu_same(g, h, to, &want);
    gpu_ok(gpu_norm(g->stream, from, from, n, x.dim, gpu_put_mat(g, &w), run, 1e-5f));
    gpu_same(g, h, from, &want); /* in place */
    gpu_drop(g);
}

static void norm_is_the_reference_bit_by_bit(void **state)
{
    (void)state;
    static const int shape[][3] = {{1, 4096, 1}, {3, 4097, 1}, {2, 9000, 1}, {5, 128, 7},
                                   {3, 1, 5},    {2, 512, 2},  {2, 513, 2},  {1, 40, 33}};
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct gpu g = gpu_help_begin();
    for (size_t i = 0; i < COUNT(shape); i++)
        check_norm(&g, &h, shape[i][0], shape[i][1], shape[i][2]);
    for (int i = 0; i < 20; i++)
        check_norm(&g, &h, 1 + help_draw(&h, 5), 1 + help_draw(&h, 700), 1 + help_draw(&h, 4));
    help_end(&h);
}

/* ------------------------------------------------------------------------------- by number */

static void check_numbers(struct gpu *g, struct help *h, int n, int dim, int head)
{
    struct mat x = help_mat(h, n, dim), y = help_mat(h, n, dim), bias = help_mat(h, 1, dim);
    struct mat none = {0}, angle = help_mat(h, n, head), want = help_copy(h, &x);
    float *to = gpu_put_mat(g, &x), *from = gpu_put_mat(g, &y);
    struct dev *ref = &h->dev[ISA_REF];
    dev_add(ref, &want, &y, &none);
    gpu_ok(gpu_add(g->stream, to, from, NULL, n, dim));
    gpu_same(g, h, to, &want);
    dev_add(ref, &want, &y, &bias);
    gpu_ok(gpu_add(g->stream, to, from, gpu_put_mat(g, &bias), n, dim));
    gpu_same(g, h, to, &want);
    dev_rope(ref, &want, head, &angle);
    gpu_ok(gpu_rope(g->stream, to, n, dim, head, gpu_put_mat(g, &angle)));
    gpu_same(g, h, to, &want);
    dev_swiglu(ref, &want, &y);
    gpu_ok(gpu_swiglu(g->stream, to, from, n, dim));
    gpu_same(g, h, to, &want);
    gpu_drop(g);
}

static void work_by_number_is_the_reference_bit_by_bit(void **state)
{
    (void)state;
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct gpu g = gpu_help_begin();
    for (int i = 0; i < 30; i++) {
        int head = 2 * (1 + help_draw(&h, 40));
        check_numbers(&g, &h, 1 + help_draw(&h, 6), head * (1 + help_draw(&h, 9)), head);
    }
    help_end(&h);
}

/* All of the range in steps of its square root, both signs, and the odd ones. */
static void silu_is_the_reference_over_the_whole_range(void **state)
{
    (void)state;
    enum { N = 70000 };
    static const float odd[] = {0.0f,    -0.0f,  INFINITY, 1e-45f,   -1e-45f,  88.7f,
                                -88.7f,  89.0f,  -89.f,    103.9f,   -103.97f, -104.f,
                                -1e30f,  3e38f,  -3e38f,   0.34657f, 17.0f,    1e-38f,
                                -1e-38f, -100.f, -103.f,   -0.347f,  0.34658f, 5e-39f};
    struct help h = help_begin(1, N);
    struct gpu g = gpu_help_begin();
    struct mat x = help_mat(&h, 1, N), up = help_mat(&h, 1, N);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t u = i * 61300u;
        memcpy((float *)x.at + i, &u, sizeof(u));
        if (!(fabsf(((float *)x.at)[i]) < INFINITY))
            ((float *)x.at)[i] = (float)i * 0.003f - 100;
        ((float *)up.at)[i] = 1;
    }
    memcpy(x.at, odd, sizeof(odd));
    float *gate = gpu_put_mat(&g, &x);
    gpu_ok(gpu_swiglu(g.stream, gate, gpu_put_mat(&g, &up), 1, N));
    dev_swiglu(&h.dev[ISA_REF], &x, &up);
    gpu_same(&g, &h, gate, &x);
    gpu_drop(&g);
    help_end(&h);
}

static void sums_in_fixed_point_settle_as_the_reference_does(void **state)
{
    (void)state;
    enum { N = 5, DIM = 300 };
    struct help h = help_begin(N, DIM);
    struct gpu g = gpu_help_begin();
    struct mat x = help_mat(&h, N, DIM), y = {N, DIM, NUM_I64, NULL};
    int64_t *sum = y.at = help_bytes(&h, mat_bytes(&y));
    for (int i = 0; i < N * DIM; i++)
        sum[i] = (int64_t)((uint64_t)help_draw(&h, 1 << 30) << help_draw(&h, 33)) - (1 << 28);
    float *to = gpu_put_mat(&g, &x);
    gpu_ok(gpu_settle(g.stream, to, gpu_put_mat(&g, &y), N, DIM));
    dev_settle(&h.dev[ISA_REF], &x, &y);
    gpu_same(&g, &h, to, &x);

    sum[7] = INT64_MIN; /* base/whole.h: none */
    gpu_ok(gpu_settle(g.stream, to, gpu_put_mat(&g, &y), N, DIM));
    gpu_take(&g, x.at, to, mat_bytes(&x));
    for (int i = 0; i < N * DIM; i++)
        assert_int_equal(isnan(((float *)x.at)[i]), i == 7);
    gpu_drop(&g);
    help_end(&h);
}

/* ------------------------------------------------------------------------------- copies */

static void embed_copies_known_words_and_zeroes_the_others(void **state)
{
    (void)state;
    static const enum num types[] = {NUM_F32,       NUM_F16,      NUM_BF16,     NUM_INT8,
                                     NUM_INT4,      NUM_INT8_G32, NUM_INT4_G32, NUM_INT4_G32Z,
                                     NUM_INT4_G128, NUM_FP8};
    static const int tok[] = {100, 149, 99, 150, 117, 113, 0};
    for (size_t i = 0; i < COUNT(types); i++)
        for (int dim = 1; dim < 400; dim += 133) {
            struct help h = help_begin(MAX_TOK, MAX_DIM);
            struct gpu g = gpu_help_begin();
            struct weight w = help_weight(&h, types[i], CUT_ROWS, 50, dim, 0, 4);
            struct mat want = help_mat(&h, COUNT(tok), dim);
            struct gpu_weight there = gpu_put_weight(&g, &w);
            float *y = gpu_put(&g, NULL, mat_bytes(&want));
            dev_embed(&h.dev[ISA_REF], &want, &w, 100, tok);
            gpu_ok(gpu_embed(g.stream, y, COUNT(tok), &there, 100, gpu_put(&g, tok, sizeof(tok))));
            gpu_same(&g, &h, y, &want);
            gpu_drop(&g);
            help_end(&h);
        }
}

static void pick_takes_rows(void **state)
{
    (void)state;
    static const int row[] = {8, 0, 3};
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct gpu g = gpu_help_begin();
    struct mat x = help_mat(&h, 9, 333), want = help_mat(&h, 3, 333);
    float *y = gpu_put(&g, NULL, mat_bytes(&want));
    dev_pick(&h.dev[ISA_REF], &want, &x, row);
    gpu_ok(gpu_pick(g.stream, y, gpu_put_mat(&g, &x), gpu_put(&g, row, sizeof(row)), 3, 333));
    gpu_same(&g, &h, y, &want);
    gpu_drop(&g);
    help_end(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_is_the_reference_bit_by_bit),
        cmocka_unit_test(work_by_number_is_the_reference_bit_by_bit),
        cmocka_unit_test(silu_is_the_reference_over_the_whole_range),
        cmocka_unit_test(sums_in_fixed_point_settle_as_the_reference_does),
        cmocka_unit_test(embed_copies_known_words_and_zeroes_the_others),
        cmocka_unit_test(pick_takes_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
