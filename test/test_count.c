/* test_count.c - the counting device counts what the operations do, by hand-made figures. */
#include "dev_help.h"

static struct dev begin(void)
{
    return (struct dev){.ops = &dev_count,
                        .speed = {.flops_s = 100, .bytes_s = 10, .overhead_s = 5}};
}

static struct mat f32(int n, int dim) { return (struct mat){n, dim, NUM_F32, NULL}; }

static void assert_price(const struct dev *d, double flops, double bytes, uint64_t calls)
{
    assert_int_equal(d->flops, (uint64_t)flops);
    assert_int_equal(d->bytes, (uint64_t)bytes);
    assert_int_equal(d->calls, calls);
}

static void a_product_costs_its_flops_and_its_packed_bytes(void **state)
{
    (void)state;
    struct part part[2] = {{16, 33, NULL}, {17, 33, NULL}};
    struct weight w = {NUM_BF16, 33, 33, 0, 2, part};
    struct mat x = f32(3, 33), y = f32(3, 33), none = {0}, bias = f32(1, 33);
    struct dev d = begin();
    dev_matmul(&d, &y, &x, &w, &none);
    /* one block and two blocks of 16 x 34 */
    assert_price(&d, 2 * 3 * 33 * 33, 3 * 16 * 34 * 2 + 2 * 3 * 33 * 4, 1);
    dev_matmul(&d, &y, &x, &w, &bias);
    assert_price(&d, 2 * 2 * 3 * 33 * 33, 2 * (3 * 16 * 34 * 2 + 2 * 3 * 33 * 4) + 33 * 4, 2);
}

static void every_plane_of_a_partial_product_is_written(void **state)
{
    (void)state;
    struct part part[3] = {{16, 10, NULL}, {16, 0, NULL}, {16, 6, NULL}};
    struct weight w = {NUM_F32, 16, 16, 0, 3, part};
    struct mat x = f32(2, 16);
    struct planes y = {.n = 2, .at = {f32(2, 16), f32(2, 16)}};
    struct dev d = begin();
    dev_partial(&d, &y, &x, &w);
    assert_price(&d, 2 * 2 * 16 * 16, 16 * 16 * 4 + 3 * 2 * 16 * 4, 1);
}

/* 100 keys and 40 keys; with a window of 30, positions 97..99 see 30 keys each, of 32. */
static void attention_counts_pairs_and_reads_a_sequence_once(void **state)
{
    (void)state;
    static const int pos[] = {97, 98, 99, 39}, seq[] = {0, 0, 0, 1};
    struct batch b = {.n_tok = 4, .n_seq = 2, .pos = pos, .seq = seq};
    struct kv c = {.type = NUM_BF16, .n_head = 2, .head_dim = 8};
    struct heads h = {.head_dim = 8, .group = 3};
    struct mat q = f32(4, 6 * 8), y = q;
    struct dev d = begin();
    double rows = 2 * 4 * 48 * 4, key = 2 * 2 * 8 * 2;
    dev_attend(&d, &y, &q, &c, &h, &b);
    assert_price(&d, 4 * 48 * (98 + 99 + 100 + 40), rows + key * (100 + 40), 1);
    d = begin();
    h.window = 30;
    dev_attend(&d, &y, &q, &c, &h, &b);
    assert_price(&d, 4 * 48 * 4 * 30, rows + key * (32 + 30), 1);
    d = begin();
    c.type = NUM_INT8; /* a byte a number, and two scales of two bytes per head and token */
    dev_attend(&d, &y, &q, &c, &h, &b);
    assert_price(&d, 4 * 48 * 4 * 30, rows + 2 * (2 * 8 + 4) * (32 + 30), 1);
}

static void the_rest_is_bytes(void **state)
{
    (void)state;
    struct mat x = f32(2, 8), y = f32(2, 8), w = f32(1, 8), none = {0}, angle = f32(2, 4);
    struct kv c = {.type = NUM_BF16, .n_head = 2, .head_dim = 4};
    struct part part = {20, 8, NULL};
    struct weight words = {NUM_BF16, 20, 8, 0, 1, &part};
    struct dev d = begin();
    dev_norm(&d, &y, &x, &w, 0), assert_price(&d, 0, 64 + 64 + 32, 1), d = begin();
    dev_add(&d, &x, &y, &none), assert_price(&d, 0, 3 * 64, 1), d = begin();
    dev_add(&d, &x, &y, &w), assert_price(&d, 0, 3 * 64 + 32, 1), d = begin();
    dev_rope(&d, &x, 4, &angle), assert_price(&d, 0, 2 * 64 + 32, 1), d = begin();
    dev_store(&d, &c, &x, &y, NULL), assert_price(&d, 0, 2 * 64 + 2 * 32, 1), d = begin();
    dev_swiglu(&d, &x, &y), assert_price(&d, 0, 3 * 64, 1), d = begin();
    dev_pick(&d, &x, &y, NULL), assert_price(&d, 0, 2 * 64, 1), d = begin();
    dev_embed(&d, &y, &words, 0, NULL), assert_price(&d, 0, 2 * 8 * 2 + 64, 1);
}

static void the_clock_takes_the_longer_of_both_and_the_overhead(void **state)
{
    (void)state;
    struct part part = {16, 16, NULL};
    struct weight w = {NUM_F32, 16, 16, 0, 1, &part};
    struct mat x = f32(1, 16), y = f32(1, 16), none = {0};
    struct dev d = begin();
    dev_matmul(&d, &y, &x, &w, &none); /* 512 FLOPs, 1152 bytes */
    assert_true(d.clock == 1152.0 / 10 + 5);
    d = begin();
    d.speed.bytes_s = 1e9;
    dev_matmul(&d, &y, &x, &w, &none);
    assert_true(d.clock == 512.0 / 100 + 5);
    dev_matmul(&d, &y, &x, &w, &none);
    assert_true(d.clock == 2 * (512.0 / 100 + 5));
}

static void after_an_error_nothing_is_counted(void **state)
{
    (void)state;
    struct mat x = f32(1, 16), none = {0};
    struct dev d = begin();
    d.err = -5;
    dev_add(&d, &x, &x, &none);
    assert_price(&d, 0, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_product_costs_its_flops_and_its_packed_bytes),
        cmocka_unit_test(every_plane_of_a_partial_product_is_written),
        cmocka_unit_test(attention_counts_pairs_and_reads_a_sequence_once),
        cmocka_unit_test(the_rest_is_bytes),
        cmocka_unit_test(the_clock_takes_the_longer_of_both_and_the_overhead),
        cmocka_unit_test(after_an_error_nothing_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
