/* test_amx.c - products by tiles have the bits that ref.c defines. Runs on a model of AMX in
 * software: the kernels compiled for it, and the product's own machine code, whose tile
 * instructions trap and are done by it. Where a machine has AMX, that code and test_dev.c run on
 * the machine itself.
 */
#include "amx_model.h"
#include "amx_trap.h"
#include "experts_help.h"

#include "dev/cpu/cpu.h"

enum { MAX_TOK = 300, MAX_DIM = 1400 };

extern const struct dev_ops amx_avx2; /* amx_kern.c */

static const enum num types[] = {NUM_INT8,     NUM_INT4,      NUM_INT8_G32,
                                 NUM_INT4_G32, NUM_INT4_G32Z, NUM_INT4_G128};

/* What runs, by the instructions that it needs beside tiles. */
static const enum isa model = ISA_AVX2, product = ISA_AVX512_BF16;

static struct dev with_tiles(const struct help *h, enum isa isa)
{
    struct dev d = h->dev[isa];
    cpu_of(&d)->tiles_from = isa == model ? 1 : 16;
    if (isa == model)
        d.ops = &amx_avx2;
    return d;
}

/* cmocka takes the signals at the beginning of every test, so the trap is set here. */
static bool have(enum isa isa)
{
    amx_trap_begin();
    if (!isa_here(isa))
        print_message("this machine has no %s\n", isa_name(isa));
    return isa_here(isa);
}

/* Returns how many products of tiles the model made. */
static long check_matmul(struct help *h, enum isa isa, const struct weight *w, int n)
{
    struct mat x = help_mat(h, n, w->cols), bias = help_mat(h, 1, w->rows);
    struct mat want = help_mat(h, n, w->rows), got = help_mat(h, n, w->rows);
    struct dev d = with_tiles(h, isa);
    long before = amx_dots();
    dev_matmul(&h->dev[ISA_REF], &want, &x, w, &bias);
    dev_matmul(&d, &got, &x, w, &bias);
    assert_same(&got, &want);
    return amx_dots() - before;
}

static void tiles_of_every_height_are_the_reference_bit_by_bit(void **state)
{
    (void)state;
    for (size_t i = 0; have(model) && i < COUNT(types); i++)
        for (int n = 1; n <= 64; n++) {
            struct help h = help_begin(64, 300);
            h.seed = (uint64_t)(100 * (int)i + n);
            int rows = 1 + help_draw(&h, 70), cols = 1 + help_draw(&h, 300);
            struct weight w = help_weight(&h, types[i], CUT_ROWS, rows, cols, 0, 1 + n % 4);
            assert_true(check_matmul(&h, model, &w, n) > 0);
            help_end(&h);
        }
}

/* Whole groups, tails that are one step or two, and both. */
static void groups_of_every_length_are_the_reference_bit_by_bit(void **state)
{
    (void)state;
    for (size_t i = 0; have(model) && i < COUNT(types); i++)
        for (int cols = 1; cols <= 270; cols++) {
            struct help h = help_begin(64, 300);
            h.seed = (uint64_t)cols;
            struct weight w = help_weight(&h, types[i], CUT_ROWS, 17, cols, 0, 1);
            check_matmul(&h, model, &w, 18);
            help_end(&h);
        }
}

/* More rows than are multiplied at once, more columns than stay in a cache. */
static void many_rows_and_columns_are_the_reference_bit_by_bit(void **state)
{
    const enum isa isa[] = {model, product};
    (void)state;
    for (size_t k = 0; k < COUNT(isa); k++)
        for (size_t i = 0; have(isa[k]) && i < COUNT(types); i++) {
            struct help h = help_begin(MAX_TOK, MAX_DIM);
            struct weight w = help_weight(&h, types[i], CUT_ROWS, 83, 1301, 0, 1);
            check_matmul(&h, isa[k], &w, 251);
            help_end(&h);
        }
}

static void check_partial(struct help *h, enum isa isa, const struct weight *w, int n)
{
    struct span tree[PLANES];
    struct planes want = {.n = tree_split((struct span){w->first, w->first + w->n_part}, tree)};
    struct planes got = want;
    struct mat x = help_mat(h, n, w->cols);
    struct dev d = with_tiles(h, isa);
    for (int i = 0; i < want.n; i++)
        want.at[i] = help_mat(h, n, w->rows), got.at[i] = help_mat(h, n, w->rows);
    dev_partial(&h->dev[ISA_REF], &want, &x, w);
    dev_partial(&d, &got, &x, w);
    for (int i = 0; i < want.n; i++)
        assert_same(&got.at[i], &want.at[i]);
}

/* Uneven and empty ones too. */
static void shares_are_the_reference_bit_by_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(types); i++)
        for (int n = 1; n <= 64; n += n % 16 ? 5 : 1) {
            struct help h = help_begin(MAX_TOK, MAX_DIM);
            h.seed = (uint64_t)n;
            int first = help_draw(&h, 8), rows = 1 + help_draw(&h, 60);
            struct weight w = help_weight(&h, types[i], CUT_COLS, rows, 300 + help_draw(&h, 400),
                                          first, 1 + help_draw(&h, SHARES_MAX - first - 1));
            if (have(model))
                check_partial(&h, model, &w, n);
            if (have(product))
                check_partial(&h, product, &w, n);
            help_end(&h);
        }
}

/* The tiles of a thread are its own. */
static void check_threads(enum isa isa)
{
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct arena a = {0};
    dev_cpu_init(&h.dev[isa], isa, MAX_TOK, MAX_DIM, 3, &a);
    a = (struct arena){.base = help_bytes(&h, a.used), .size = a.used};
    dev_cpu_init(&h.dev[isa], isa, MAX_TOK, MAX_DIM, 3, &a);
    dev_cpu_start(&h.dev[isa], NULL);
    for (size_t i = 0; i < COUNT(types); i++) {
        struct weight w = help_weight(&h, types[i], CUT_ROWS, 700, 203, 0, 3);
        check_matmul(&h, isa, &w, 45);
        struct weight v = help_weight(&h, types[i], CUT_COLS, 700, 203, 0, 5);
        check_partial(&h, isa, &v, 45);
    }
    dev_cpu_stop(&h.dev[isa]);
    help_end(&h);
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    if (have(model))
        check_threads(model);
    if (have(product))
        check_threads(product);
}

/* As the product has it: decode stays with vectors, prompts go to tiles, and the bits are one. */
static void few_rows_use_vectors_and_many_use_tiles(void **state)
{
    (void)state;
    for (size_t i = 0; have(product) && i < COUNT(types); i++)
        for (int n = 1; n <= 64; n += 7 * n % 5 + 1) {
            struct help h = help_begin(MAX_TOK, MAX_DIM);
            struct weight w = help_weight(&h, types[i], CUT_ROWS, 90, 333, 0, 2);
            bool tiles = check_matmul(&h, product, &w, n) > 0;
            assert_true(isa_here(ISA_AMX) || tiles == (n >= 16));
            help_end(&h);
        }
}

/* So bf16 keeps the bits of the vectors' dot instruction, whatever the number of rows. */
static void weights_that_are_no_whole_numbers_use_no_tiles(void **state)
{
    (void)state;
    for (int type = NUM_F32; type <= NUM_BF16; type++) {
        struct help h = help_begin(MAX_TOK, MAX_DIM);
        struct weight w = help_weight(&h, (enum num)type, CUT_ROWS, 50, 90, 0, 1);
        if (have(model))
            assert_int_equal(check_matmul(&h, model, &w, 40), 0);
        if (have(product) && type != NUM_BF16)
            assert_int_equal(check_matmul(&h, product, &w, 40), 0);
        help_end(&h);
    }
    assert_string_equal(isa_numerics(ISA_AMX, NUM_BF16), isa_numerics(product, NUM_BF16));
}

/* What a small product of the model must be, by hand: signs, and the shape of a short tile. */
static void the_model_multiplies_signed_by_unsigned_bytes(void **state)
{
    (void)state;
    uint8_t config[64] = {[0] = 1, [16] = 8, [18] = 8, [20] = 8, [48] = 3, [49] = 3, [50] = 2};
    int32_t sum[3][2];
    int8_t x[3][8] = {{1, 0, 0, 0, 0, 0, 0, 0}, {-1, -1, 0, 0, 0, 0, 0, 2}, {-128}};
    uint8_t w[2][8] = {{255, 2, 0, 0, 7}, {[3] = 200, [7] = 9}};
    static const int32_t want[3][2] = {{255, 7}, {-257 + 400, -7 + 18}, {-128 * 255, -128 * 7}};
    amx_configure(config);
    amx_zero(0);
    amx_load(1, x, 8);
    amx_load(2, w, 8);
    amx_dot(0, 1, 2);
    amx_store(0, sum, 8);
    amx_release();
    assert_memory_equal(sum, want, sizeof(want));
}

static void experts_by_tiles_are_the_reference_bit_by_bit(void **state)
{
    static int64_t want[ROWS * HIDDEN], got[ROWS * HIDDEN];
    (void)state;
    for (size_t i = 0; have(model) && i < COUNT(types); i++) {
        struct block b;
        block_begin(&b, types[i]);
        struct dev d = with_tiles(&b.h, model);
        sum_of(&b, &b.h.dev[ISA_REF], (struct span){0, 100}, b.expert, want);
        sum_of(&b, &d, (struct span){0, 100}, b.expert, got);
        assert_memory_equal(got, want, sizeof(want));
        help_end(&b.h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_by_tiles_are_the_reference_bit_by_bit),
        cmocka_unit_test(the_model_multiplies_signed_by_unsigned_bytes),
        cmocka_unit_test(tiles_of_every_height_are_the_reference_bit_by_bit),
        cmocka_unit_test(groups_of_every_length_are_the_reference_bit_by_bit),
        cmocka_unit_test(many_rows_and_columns_are_the_reference_bit_by_bit),
        cmocka_unit_test(shares_are_the_reference_bit_by_bit),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(few_rows_use_vectors_and_many_use_tiles),
        cmocka_unit_test(weights_that_are_no_whole_numbers_use_no_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
