/* test_dev.c - every instruction set computes the bits that ref.c defines, and a row's bits depend
 * on nothing beside it. Attention has its own file, test_attend.c.
 */
#include "dev_help.h"

#include <math.h>
#include <stdlib.h>

#include "dev/cpu/cpu.h"

enum { MAX_TOK = 300, MAX_DIM = 800 };

/* ------------------------------------------------------------------------------- products */

static const enum num types[] = {NUM_F32,      NUM_F16,      NUM_BF16,      NUM_INT8,      NUM_INT4,
                                 NUM_INT8_G32, NUM_INT4_G32, NUM_INT4_G32Z, NUM_INT4_G128, NUM_FP8};

/* The same bits as the reference are promised for all but the bf16 dot instruction. */
static bool same_class(enum isa isa, enum num type)
{
    return !strcmp(isa_numerics(isa, type), isa_numerics(ISA_REF, type));
}

static void check_matmul(struct help *h, int n, struct weight *w, bool with_bias)
{
    struct mat x = help_mat(h, n, w->cols), bias = help_mat(h, 1, w->rows), none = {0};
    struct mat want = help_mat(h, n, w->rows), got = help_mat(h, n, w->rows);
    struct mat *b = with_bias ? &bias : &none;
    dev_matmul(&h->dev[ISA_REF], &want, &x, w, b);
    for (int i = ISA_AVX2; i < ISA_COUNT; i++) {
        if (!isa_here((enum isa)i) || !same_class((enum isa)i, w->type))
            continue;
        dev_matmul(&h->dev[i], &got, &x, w, b);
        assert_same(&got, &want);
    }
}

static void matmul_is_the_reference_bit_by_bit(void **state)
{
    (void)state;
    static const int n[] = {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 16, 29};
    for (size_t i = 0; i < COUNT(types); i++)
        for (size_t k = 0; k < COUNT(n); k++) {
            struct help h = help_begin(MAX_TOK, MAX_DIM);
            int rows = 1 + help_draw(&h, 300), cols = 1 + help_draw(&h, 90);
            struct weight w = help_weight(&h, types[i], CUT_ROWS, rows, cols, 0, 1 + (int)k % 5);
            check_matmul(&h, n[k], &w, k % 2);
            help_end(&h);
        }
}

/* More rows than are multiplied at once, more columns than stay in a cache. */
static void matmul_of_many_rows_and_columns_is_the_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(types); i++) {
        struct help h = help_begin(MAX_TOK, MAX_DIM);
        struct weight w = help_weight(&h, types[i], CUT_ROWS, 19, 601, 0, 1);
        check_matmul(&h, 251, &w, true);
        help_end(&h);
    }
}

static struct planes help_planes(struct help *h, const struct weight *w, int n)
{
    struct span tree[PLANES];
    struct planes y = {.n = tree_split((struct span){w->first, w->first + w->n_part}, tree)};
    for (int i = 0; i < y.n; i++)
        y.at[i] = help_mat(h, n, w->rows);
    return y;
}

static void partial_is_the_reference_bit_by_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(types); i++)
        for (int n = 1; n < 30; n += n < 4 ? 1 : 8) {
            struct help h = help_begin(MAX_TOK, MAX_DIM);
            int first = help_draw(&h, 8), rows = 1 + help_draw(&h, 150);
            struct weight w = help_weight(&h, types[i], CUT_COLS, rows, 100 + help_draw(&h, 99),
                                          first, 1 + help_draw(&h, SHARES_MAX - first - 1));
            struct mat x = help_mat(&h, n, w.cols);
            struct planes want = help_planes(&h, &w, n), got = help_planes(&h, &w, n);
            dev_partial(&h.dev[ISA_REF], &want, &x, &w);
            for (int k = ISA_AVX2; k < ISA_COUNT; k++) {
                if (!isa_here((enum isa)k) || !same_class((enum isa)k, w.type))
                    continue;
                dev_partial(&h.dev[k], &got, &x, &w);
                for (int p = 0; p < want.n; p++)
                    assert_same(&got.at[p], &want.at[p]);
            }
            help_end(&h);
        }
}

/* Shares 0..7 by one rank, and by two ranks with 3 and 5 of them: planes 0-1, 2 and 3, 4-7. */
static void shares_cut_elsewhere_add_up_to_the_same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(types); i++) {
        struct help h = help_begin(MAX_TOK, MAX_DIM);
        struct weight w = help_weight(&h, types[i], CUT_COLS, 70, 203, 0, 8), left = w, right = w;
        struct mat x = help_mat(&h, 5, w.cols);
        left.n_part = 3, right.first = 3, right.n_part = 5, right.part = w.part + 3;
        left.cols = w.part[0].cols + w.part[1].cols + w.part[2].cols;
        right.cols = w.cols - left.cols;
        struct mat x_left = help_columns(&h, &x, 0, left.cols);
        struct mat x_right = help_columns(&h, &x, left.cols, right.cols);
        struct planes a = help_planes(&h, &w, 5), b = help_planes(&h, &left, 5);
        struct planes c = help_planes(&h, &right, 5);
        assert_int_equal(a.n + 10 * b.n + 100 * c.n, 1 + 20 + 200);
        for (int k = 0; k < ISA_COUNT; k++) {
            if (!isa_here((enum isa)k))
                continue;
            struct mat none = {0};
            dev_partial(&h.dev[k], &a, &x, &w);
            dev_partial(&h.dev[k], &b, &x_left, &left);
            dev_partial(&h.dev[k], &c, &x_right, &right);
            dev_add(&h.dev[k], &b.at[1], &c.at[0], &none);
            dev_add(&h.dev[k], &b.at[0], &b.at[1], &none);
            dev_add(&h.dev[k], &b.at[0], &c.at[1], &none);
            assert_same(&b.at[0], &a.at[0]);
        }
        help_end(&h);
    }
}

/* Also where there is no reference: the bf16 dot instruction. */
static void a_row_has_the_same_bits_in_every_batch(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(types); i++)
        for (int k = 0; k < ISA_COUNT; k++) {
            if (!isa_here((enum isa)k))
                continue;
            struct help h = help_begin(MAX_TOK, MAX_DIM);
            struct weight w = help_weight(&h, types[i], CUT_ROWS, 77, 551, 0, 3);
            struct weight v = help_weight(&h, types[i], CUT_COLS, 77, 551, 0, 7);
            struct mat x = help_mat(&h, 50, 551), all = help_mat(&h, 50, 77), none = {0};
            struct mat one = help_mat(&h, 50, 77);
            struct planes sum = help_planes(&h, &v, 50), part = help_planes(&h, &v, 50);
            dev_matmul(&h.dev[k], &all, &x, &w, &none);
            dev_partial(&h.dev[k], &sum, &x, &v);
            for (int lo = 0, n = 1; lo < 50; lo += n, n = min_int(n + 1, 50 - lo)) {
                struct span rows = {lo, lo + n};
                struct mat some_x = mat_rows(&x, rows), some_y = mat_rows(&one, rows);
                struct planes some = part;
                for (int p = 0; p < part.n; p++)
                    some.at[p] = mat_rows(&part.at[p], rows);
                dev_matmul(&h.dev[k], &some_y, &some_x, &w, &none);
                dev_partial(&h.dev[k], &some, &some_x, &v);
            }
            assert_same(&one, &all);
            for (int p = 0; p < part.n; p++)
                assert_same(&part.at[p], &sum.at[p]);
            help_end(&h);
        }
}

/* Parts that stand apart, or end in the middle of a block, are the same rows. */
static void rows_do_not_depend_on_how_they_are_cut(void **state)
{
    (void)state;
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct mat x = help_mat(&h, 3, 64), none = {0};
    for (int k = 0; k < ISA_COUNT; k++) {
        if (!isa_here((enum isa)k))
            continue;
        for (int n_part = 2; n_part < 12; n_part++) {
            h.seed = 99;
            struct weight whole = help_weight(&h, NUM_BF16, CUT_ROWS, 160, 64, 0, 1);
            h.seed = 99;
            struct weight cut = help_weight(&h, NUM_BF16, CUT_ROWS, 160, 64, 0, n_part);
            struct mat a = help_mat(&h, 3, 160), b = help_mat(&h, 3, 160);
            dev_matmul(&h.dev[k], &a, &x, &whole, &none);
            dev_matmul(&h.dev[k], &b, &x, &cut, &none);
            assert_same(&b, &a);
        }
    }
    help_end(&h);
}

/* Whole blocks that do and that do not follow each other in memory. */
static void a_gap_between_parts_is_not_read(void **state)
{
    (void)state;
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct weight whole = help_weight(&h, NUM_F32, CUT_ROWS, 96, 40, 0, 1);
    struct part part[3];
    struct weight cut = {NUM_F32, 96, 40, 0, 3, part, NULL};
    struct mat x = help_mat(&h, 3, 40), none = {0}, a = help_mat(&h, 3, 96),
               b = help_mat(&h, 3, 96);
    size_t third = part_bytes(NUM_F32, 32, 40);
    for (size_t gap = 0; gap < 128; gap += 64)
        for (int k = 0; k < ISA_COUNT; k++) {
            char *at = help_bytes(&h, 3 * third + 2 * gap);
            if (!isa_here((enum isa)k))
                continue;
            for (size_t i = 0; i < 3; i++) {
                part[i] = (struct part){32, 40, at + i * (third + gap)};
                memcpy(part[i].at, (char *)whole.part[0].at + i * third, third);
            }
            dev_matmul(&h.dev[k], &a, &x, &whole, &none);
            dev_matmul(&h.dev[k], &b, &x, &cut, &none);
            assert_same(&b, &a);
        }
    help_end(&h);
}

/* A product that underflows to -0 stays -0, but a missing column of a pair adds 0 * 0. */
static void the_missing_half_of_a_pair_turns_minus_zero_into_zero(void **state)
{
    (void)state;
    for (int cols = 1; cols < 3; cols++) {
        struct help h = help_begin(MAX_TOK, MAX_DIM);
        struct weight w = help_weight(&h, NUM_BF16, CUT_ROWS, 16, cols, 0, 1);
        struct mat x = help_mat(&h, 1, cols), y = help_mat(&h, 1, 16), none = {0};
        const float row[2] = {0, -0x1p-100f};
        for (int r = 0; r < 16; r++)
            for (int c = 0; c < cols; c++)
                ((uint16_t *)w.part[0].at)[2 * r + c] = f32_to_bf16(row[2 - cols + c]);
        for (int c = 0; c < cols; c++)
            ((float *)x.at)[c] = 0x1p-100f;
        for (int k = 0; k < ISA_COUNT; k++) {
            if (!isa_here((enum isa)k) || !same_class((enum isa)k, NUM_BF16))
                continue;
            dev_matmul(&h.dev[k], &y, &x, &w, &none);
            for (int r = 0; r < 16; r++)
                assert_int_equal(!!signbit(mat_row(&y, 0)[r]), cols == 2);
        }
        help_end(&h);
    }
}

/* Whole numbers are exact in every class, so there all must agree. */
static void the_dot_instruction_computes_the_same_product(void **state)
{
    (void)state;
    if (!isa_here(ISA_AVX512_BF16)) {
        print_message("this machine has no avx512-bf16\n");
        skip();
    }
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct weight w = help_weight(&h, NUM_BF16, CUT_ROWS, 100, 77, 0, 1);
    struct mat x = help_mat(&h, 9, 77), none = {0};
    struct mat want = help_mat(&h, 9, 100), got = help_mat(&h, 9, 100);
    dev_matmul(&h.dev[ISA_REF], &want, &x, &w, &none);
    dev_matmul(&h.dev[ISA_AVX512_BF16], &got, &x, &w, &none);
    assert_memory_not_equal(got.at, want.at, mat_bytes(&got)); /* x was rounded */

    uint16_t *number = w.part[0].at;
    for (size_t i = 0; i < part_bytes(NUM_BF16, 100, 77) / 2; i++)
        number[i] = number[i] ? f32_to_bf16((float)(help_draw(&h, 200) - 100)) : 0;
    for (int i = 0; i < 9 * 77; i++)
        ((float *)x.at)[i] = (float)(help_draw(&h, 200) - 100);
    dev_matmul(&h.dev[ISA_REF], &want, &x, &w, &none);
    dev_matmul(&h.dev[ISA_AVX512_BF16], &got, &x, &w, &none);
    assert_same(&got, &want);
    help_end(&h);
}

/* ------------------------------------------------------------------------------- by element */

static void check_elements(struct help *h, int n, int dim, int run)
{
    struct mat x = help_mat(h, n, dim), y = help_mat(h, n, dim), w = help_mat(h, 1, run);
    struct mat bias = help_mat(h, 1, dim), none = {0}, angle = help_mat(h, n, run);
    for (int k = ISA_AVX2; k < ISA_COUNT; k++) {
        struct dev *ref = &h->dev[ISA_REF], *d = &h->dev[k];
        struct mat a = help_copy(h, &x), b = help_copy(h, &x);
        if (!isa_here((enum isa)k))
            continue;
        dev_norm(ref, &a, &x, &w, 1e-5f), dev_norm(d, &b, &x, &w, 1e-5f);
        assert_same(&b, &a);
        dev_norm(ref, &a, &a, &w, 1e-5f), dev_norm(d, &b, &b, &w, 1e-5f); /* in place */
        assert_same(&b, &a);
        dev_add(ref, &a, &x, &none), dev_add(d, &b, &x, &none);
        assert_same(&b, &a);
        dev_add(ref, &a, &x, &bias), dev_add(d, &b, &x, &bias);
        assert_same(&b, &a);
        if (run % 2 == 0) {
            dev_rope(ref, &a, run, &angle), dev_rope(d, &b, run, &angle);
            assert_same(&b, &a);
        }
        dev_swiglu(ref, &a, &y), dev_swiglu(d, &b, &y);
        assert_same(&b, &a);
        dev_clip(ref, &a, 0.3f), dev_clip(d, &b, 0.3f);
        assert_same(&b, &a);
    }
}

/* Rows whose shares 1 .. 6 of 8 lie here: planes of 1, 2 and 2 shares and of one without numbers.
 */
static void check_norm_by(struct help *h, int n)
{
    struct runs runs = {.first = 1, .n = 6};
    for (int i = 0; i < 6; i++)
        runs.begin[i + 1] = runs.begin[i] + (i < 5 ? help_draw(h, 50) : 0);
    const int dim = runs.begin[6];
    struct mat x = help_mat(h, n, max_int(dim, 1)), w = help_mat(h, 1, x.dim);
    for (int k = ISA_AVX2; k < ISA_COUNT; k++) {
        struct planes a = {.n = 4}, b = a;
        struct mat to = help_copy(h, &x), from = help_copy(h, &x);
        if (!isa_here((enum isa)k))
            continue;
        for (int i = 0; i < 4; i++) {
            a.at[i] = help_mat(h, n, 2);
            b.at[i] = help_copy(h, &a.at[i]);
        }
        dev_squares(&h->dev[ISA_REF], &a, 1, &x, &runs), dev_squares(&h->dev[k], &b, 1, &x, &runs);
        for (int i = 0; i < 4; i++)
            assert_same(&b.at[i], &a.at[i]);
        assert_true(mat_row(&a.at[3], 0)[1] == 0);
        dev_norm_by(&h->dev[ISA_REF], &to, &a.at[1], 1, &w, 300, 1e-5f);
        dev_norm_by(&h->dev[k], &from, &b.at[1], 1, &w, 300, 1e-5f);
        assert_same(&from, &to);
    }
}

static void norms_of_shared_rows_are_the_reference_bit_by_bit(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        struct help h = help_begin(MAX_TOK, MAX_DIM);
        h.seed = (uint64_t)i + 300;
        check_norm_by(&h, 1 + help_draw(&h, 5));
        help_end(&h);
    }
}

static void work_by_element_is_the_reference_bit_by_bit(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        struct help h = help_begin(MAX_TOK, MAX_DIM);
        h.seed = (uint64_t)i + 100;
        int run = 1 + help_draw(&h, 100), n_run = 1 + help_draw(&h, 5);
        check_elements(&h, 1 + help_draw(&h, 5), run * n_run, run);
        help_end(&h);
    }
}

/* All of the range in steps of its square root, both signs, and the odd ones. */
static void silu_is_the_reference_over_the_whole_range(void **state)
{
    (void)state;
    static const float odd[] = {0.0f,   -0.0f,    INFINITY, 1e-45f,   -1e-45f,  88.7f,   -88.7f,
                                89.0f,  -89.0f,   103.9f,   -103.97f, -104.0f,  -1e30f,  3e38f,
                                -3e38f, 0x1p-24f, 0.34657f, 0.34658f, -1.0397f, 1.0397f, 17.0f};
    struct help h = help_begin(1, 70000);
    struct mat x = help_mat(&h, 1, 70000), up = help_mat(&h, 1, 70000);
    for (uint32_t i = 0; i < 70000; i++) {
        uint32_t u = i * 61300u;
        memcpy((float *)x.at + i, &u, sizeof(u));
        if (!(fabsf(((float *)x.at)[i]) < INFINITY))
            ((float *)x.at)[i] = (float)i * 0.003f - 100;
        ((float *)up.at)[i] = 1;
    }
    memcpy(x.at, odd, sizeof(odd));
    struct mat want = help_copy(&h, &x);
    dev_swiglu(&h.dev[ISA_REF], &want, &up);
    for (int i = 0; i < 70000; i++)
        assert_false(isnan(((float *)want.at)[i]));
    for (int k = ISA_AVX2; k < ISA_COUNT; k++) {
        struct mat got = help_copy(&h, &x);
        if (!isa_here((enum isa)k))
            continue;
        dev_swiglu(&h.dev[k], &got, &up);
        assert_same(&got, &want);
    }
    help_end(&h);
}

static void exp_is_within_one_unit_of_the_truth(void **state)
{
    (void)state;
    double worst = 0;
    for (double x = -110; x < 92; x += 0.00037) {
        double truth = exp((double)(float)x), got = cpu_exp((float)x);
        int e;
        frexp(truth, &e);
        double unit = ldexp(1, e - 24 > -149 ? e - 24 : -149);
        if (truth < (double)3.4028235e38f)
            worst = fmax(worst, fabs(got - truth) / unit);
        else
            assert_true(isinf(got));
    }
    print_message("exp: at most %.3f units in the last place\n", worst);
    assert_true(worst > 0 && worst < 1);
    assert_true(cpu_exp(0) == 1 && cpu_exp(-0.0f) == 1);
    assert_true(cpu_exp(-INFINITY) == 0 && cpu_exp(-1e38f) == 0 && isinf(cpu_exp(INFINITY)));
    assert_true(isnan(cpu_exp(NAN)));
}

static void norm_is_what_its_formula_says(void **state)
{
    (void)state;
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct mat x = help_mat(&h, 1, 300), w = help_mat(&h, 1, 300), y = help_mat(&h, 1, 300);
    double sum = 0;
    for (int i = 0; i < 300; i++) {
        mat_row(&x, 0)[i] = (float)(i % 17) - 8.25f;
        mat_row(&w, 0)[i] = 1 + (float)i / 300;
        sum += (double)mat_row(&x, 0)[i] * (double)mat_row(&x, 0)[i];
    }
    dev_norm(&h.dev[ISA_REF], &y, &x, &w, 1e-3f);
    for (int i = 0; i < 300; i++) {
        double want =
            (double)mat_row(&x, 0)[i] / sqrt(sum / 300 + 1e-3) * (double)mat_row(&w, 0)[i];
        assert_true(fabs((double)mat_row(&y, 0)[i] - want) < 1e-6 * (1 + fabs(want)));
    }
    /* one share holds the whole row: the same numbers, added alike */
    struct planes squares = {.n = 1, .at = {help_mat(&h, 1, 1)}};
    dev_squares(&h.dev[ISA_REF], &squares, 0, &x, &(struct runs){.n = 1, .begin = {0, 300}});
    dev_norm_by(&h.dev[ISA_REF], &x, &squares.at[0], 0, &w, 300, 1e-3f);
    assert_same(&x, &y);
    help_end(&h);
}

static void clipping_keeps_nan_and_what_is_within(void **state)
{
    (void)state;
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    const float in[] = {0.5f, -0.5f, 2, -2, INFINITY, -INFINITY, NAN, -0.0f, 1, -1};
    const float want[] = {0.5f, -0.5f, 1, -1, 1, -1, NAN, -0.0f, 1, -1};
    for (int k = 0; k < ISA_COUNT; k++) {
        struct mat x = help_mat(&h, 1, COUNT(in));
        if (!isa_here((enum isa)k))
            continue;
        memcpy(x.at, in, sizeof(in));
        dev_clip(&h.dev[k], &x, 1);
        assert_memory_equal(x.at, want, sizeof(want));
    }
    help_end(&h);
}

/* ------------------------------------------------------------------------------- copies */

static void embed_copies_known_words_and_zeroes_the_others(void **state)
{
    (void)state;
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct weight w = help_weight(&h, NUM_BF16, CUT_ROWS, 50, 33, 0, 4);
    const int tok[] = {100, 149, 99, 150, 117, 113, 0};
    struct mat y = help_mat(&h, 7, 33);
    float want[33];
    dev_embed(&h.dev[ISA_REF], &y, &w, 100, tok);
    for (int t = 0; t < 7; t++) {
        memset(want, 0, sizeof(want));
        int row = tok[t] - 100, i = 0;
        if (row >= 0 && row < 50) {
            while (row >= w.part[i].rows)
                row -= w.part[i++].rows;
            part_row(&w.part[i], NUM_BF16, row, want);
        }
        assert_memory_equal(mat_row(&y, t), want, sizeof(want));
    }
    help_end(&h);
}

static void pick_takes_rows(void **state)
{
    (void)state;
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct mat x = help_mat(&h, 9, 33), y = help_mat(&h, 3, 33);
    dev_pick(&h.dev[isa_best()], &y, &x, (const int[]){8, 0, 3});
    assert_memory_equal(mat_row(&y, 0), mat_row(&x, 8), 33 * sizeof(float));
    assert_memory_equal(mat_row(&y, 1), mat_row(&x, 0), 33 * sizeof(float));
    assert_memory_equal(mat_row(&y, 2), mat_row(&x, 3), 33 * sizeof(float));
    help_end(&h);
}

/* ------------------------------------------------------------------------------- which one */

static void the_environment_lowers_but_never_raises(void **state)
{
    (void)state;
    unsetenv("TANDEM_ISA");
    enum isa best = isa_best();
    assert_true(isa_here(best) && isa_here(ISA_REF));
    for (int i = 0; i < ISA_COUNT; i++) {
        setenv("TANDEM_ISA", isa_name((enum isa)i), 1);
        assert_int_equal(isa_best(), i < (int)best ? i : (int)best);
    }
    setenv("TANDEM_ISA", "pdp-11", 1);
    assert_int_equal(isa_best(), best);
    unsetenv("TANDEM_ISA");
}

static void only_the_dot_instruction_with_bf16_has_bits_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < ISA_COUNT; i++)
        for (int type = NUM_F32; type <= NUM_BF16; type++)
            assert_string_equal(isa_numerics((enum isa)i, (enum num)type),
                                i >= ISA_AVX512_BF16 && type == NUM_BF16 ? "bf16-dot" : "f32-fma");
}

static void a_measuring_arena_says_what_is_needed(void **state)
{
    (void)state;
    struct arena nothing = {0};
    struct dev d;
    dev_cpu_init(&d, ISA_REF, 100, 500, 1, &nothing);
    char *at = aligned_alloc(64, nothing.used);
    struct arena real = {.base = at, .size = nothing.used};
    dev_cpu_init(&d, ISA_REF, 100, 500, 1, &real);
    assert_int_equal(real.used, nothing.used);
    free(at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matmul_is_the_reference_bit_by_bit),
        cmocka_unit_test(matmul_of_many_rows_and_columns_is_the_reference),
        cmocka_unit_test(partial_is_the_reference_bit_by_bit),
        cmocka_unit_test(shares_cut_elsewhere_add_up_to_the_same_bits),
        cmocka_unit_test(a_row_has_the_same_bits_in_every_batch),
        cmocka_unit_test(rows_do_not_depend_on_how_they_are_cut),
        cmocka_unit_test(a_gap_between_parts_is_not_read),
        cmocka_unit_test(the_missing_half_of_a_pair_turns_minus_zero_into_zero),
        cmocka_unit_test(the_dot_instruction_computes_the_same_product),
        cmocka_unit_test(work_by_element_is_the_reference_bit_by_bit),
        cmocka_unit_test(silu_is_the_reference_over_the_whole_range),
        cmocka_unit_test(exp_is_within_one_unit_of_the_truth),
        cmocka_unit_test(norm_is_what_its_formula_says),
        cmocka_unit_test(norms_of_shared_rows_are_the_reference_bit_by_bit),
        cmocka_unit_test(clipping_keeps_nan_and_what_is_within),
        cmocka_unit_test(embed_copies_known_words_and_zeroes_the_others),
        cmocka_unit_test(pick_takes_rows),
        cmocka_unit_test(the_environment_lowers_but_never_raises),
        cmocka_unit_test(only_the_dot_instruction_with_bf16_has_bits_of_its_own),
        cmocka_unit_test(a_measuring_arena_says_what_is_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
