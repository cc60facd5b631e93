/* test_count.c - the counting device counts what the operations do, by hand-made figures. */
#include "dev_help.h"

static struct dev begin(void) { return (struct dev){.ops = &dev_count}; }

static struct mat f32(int n, int dim) { return (struct mat){n, dim, NUM_F32, NULL}; }

static void assert_price(const struct dev *d, double flops, double bytes, uint64_t calls)
{
    assert_int_equal(d->count.flops, (uint64_t)flops);
    assert_int_equal(d->count.bytes, (uint64_t)bytes);
    assert_int_equal(d->count.calls, calls);
}

static void a_product_costs_its_flops_and_its_packed_bytes(void **state)
{
    (void)state;
    struct part part[2] = {{16, 33, NULL}, {17, 33, NULL}};
    struct weight w = {NUM_BF16, 33, 33, 0, 2, part, NULL};
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
    struct weight w = {NUM_F32, 16, 16, 0, 3, part, NULL};
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
    struct weight words = {NUM_BF16, 20, 8, 0, 1, &part, NULL};
    struct dev d = begin();
    dev_norm(&d, &y, &x, &w, 0), assert_price(&d, 0, 64 + 64 + 32, 1), d = begin();
    struct planes squares = {.n = 2, .at = {f32(2, 2), f32(2, 2)}};
    struct runs runs = {.first = 1, .n = 2, .begin = {0, 4, 8}};
    dev_squares(&d, &squares, 1, &x, &runs), assert_price(&d, 0, 64 + 2 * 8, 1), d = begin();
    dev_norm_by(&d, &x, &squares.at[0], 0, &w, 16, 0);
    assert_price(&d, 0, 2 * 64 + 16 + 32, 1), d = begin();
    dev_clip(&d, &x, 1), assert_price(&d, 0, 2 * 64, 1), d = begin();
    dev_add(&d, &x, &y, &none), assert_price(&d, 0, 3 * 64, 1), d = begin();
    dev_add(&d, &x, &y, &w), assert_price(&d, 0, 3 * 64 + 32, 1), d = begin();
    dev_rope(&d, &x, 4, &angle), assert_price(&d, 0, 2 * 64 + 32, 1), d = begin();
    dev_store(&d, &c, &x, &y, NULL), assert_price(&d, 0, 2 * 64 + 2 * 32, 1), d = begin();
    dev_swiglu(&d, &x, &y), assert_price(&d, 0, 3 * 64, 1), d = begin();
    dev_pick(&d, &x, &y, NULL), assert_price(&d, 0, 2 * 64, 1), d = begin();
    dev_embed(&d, &y, &words, 0, NULL), assert_price(&d, 0, 2 * 8 * 2 + 64, 1);
}

static void what_is_done_at_once_is_one_call_and_reads_nothing_twice(void **state)
{
    (void)state;
    struct mat x = f32(2, 8), y = f32(2, 8), h = f32(2, 8), w = f32(1, 8), none = {0};
    struct mat whole = {2, 8, NUM_I64, NULL}, angle = f32(2, 4), head = f32(1, 4);
    struct part part = {8, 8, NULL};
    struct weight both = {NUM_F32, 8, 8, 0, 1, &part, NULL};
    struct kv c = {.type = NUM_BF16, .n_head = 2, .head_dim = 4};
    const struct qkv m = {&x, &y, &h, &head, &head, &angle, 0};
    const struct term terms[2] = {{&x, &both, &none}, {&y, &both, &none}};
    for (int at_once = 0; at_once < 2; at_once++) {
        struct dev d = begin();
        d.count.costs.at_once = at_once;
        dev_add_norm(&d, &h, &x, &y, &w, &w, 0);
        assert_price(&d, 0, 4 * 64 + 2 * 32 + (at_once ? 0 : 64), at_once ? 1 : 2);
        dev_add_norm(&d, &h, &x, &whole, &none, &w, 0);
        assert_int_equal(d.count.calls, at_once ? 2 : 4);
        d.count.bytes = d.count.calls = 0;
        dev_rope_store(&d, &c, &m, NULL);
        assert_price(&d, 0, (at_once ? 4 : 10) * 64 + (at_once ? 1 : 2) * 32 + 2 * 16 + 2 * 32,
                     at_once ? 1 : 5);
        d.count.bytes = d.count.calls = 0;
        dev_glu(&d, &h, terms);
        assert_price(&d, 2 * 2 * 2 * 64, 2 * (512 + 64 + 64) + (at_once ? 0 : 3 * 64),
                     at_once ? 2 : 3);
    }
}

/* A byte of the rest 1 s, a weight 2 s with 1 row and 4 s with 16, an operation 5 s, a further
 * thread 3 s; a byte of the cache 1 s, a multiply-add 0.25 s in decode and 0.5 s from 4 rows on. */
static const struct rates rates = {
    .product[NUM_F32] = {2, {1, 16}, {2, 4}, 0, SOURCE_GIVEN},
    .attend_byte_s[NUM_BF16] = {1, 0, SOURCE_GIVEN},
    .attend_madd_s[NUM_BF16] = {3, {1, 4, 8}, {0.25, 0.5, 0.5}, 0, SOURCE_GIVEN},
    .attend_row_s = {7, 0, SOURCE_GIVEN},
    .byte_s = {1, 0, SOURCE_GIVEN},
    .op_s = {5, 0, SOURCE_GIVEN},
    .split_s = {3, 0, SOURCE_GIVEN},
};

static struct dev priced(int threads)
{
    struct dev d = begin();
    d.count.costs = (struct costs){.rates = &rates, .threads = threads};
    return d;
}

static void a_product_takes_what_its_weights_cost_with_so_many_rows(void **state)
{
    (void)state;
    struct part part = {16, 16, NULL};
    struct weight w = {NUM_F32, 16, 16, 0, 1, &part, NULL};
    struct mat x = f32(1, 16), y = f32(1, 16), z = f32(1, 16), none = {0};
    struct dev d = priced(1);
    dev_matmul(&d, &y, &x, &w, &none);
    assert_true(d.count.product_s == 256 * 2 + 5);
    d = priced(0);
    x.n = y.n = z.n = 16;
    dev_matmuls(&d, &x, (const struct term[]){{&y, &w, &none}, {&z, &w, &none}}, 2);
    assert_true(d.count.product_s == 2 * 256 * 4 + 5); /* one operation */
    assert_true(d.count.attend_s == 0 && d.count.other_s == 0);
}

static void threads_share_an_operation_and_meet(void **state)
{
    (void)state;
    struct part part = {16, 16, NULL};
    struct weight w = {NUM_F32, 16, 16, 0, 1, &part, NULL};
    struct mat x = f32(1, 16), y = f32(1, 16), none = {0};
    struct dev d = priced(4);
    dev_matmul(&d, &y, &x, &w, &none);
    dev_add(&d, &x, &y, &none);
    assert_true(d.count.product_s == 256.0 * 2 / 4 + 5 + 3 * 3);
    assert_true(d.count.other_s == 3.0 * 64 / 4 + 5 + 3 * 3);
}

/* Decode and prompts are limited by different things, and so are apart. */
static void attention_takes_the_longer_of_reading_and_multiplying(void **state)
{
    (void)state;
    static const int pos[] = {9, 0, 1, 2, 3}, seq[] = {0, 1, 1, 1, 1};
    struct batch b = {.n_tok = 5, .n_seq = 2, .pos = pos, .seq = seq};
    struct kv c = {.type = NUM_BF16, .n_head = 1, .head_dim = 8};
    struct heads h = {.head_dim = 8, .group = 6};
    struct mat q = f32(5, 6 * 8), y = q;
    struct dev d = priced(1);
    double decode = 10 * 2 * 8 * 2, prompt = 2 * (1 + 2 + 3 + 4) * 48 * 0.5;
    dev_attend(&d, &y, &q, &c, &h, &b);
    assert_true(decode > 2 * 10 * 48 * 0.25 && prompt > 4 * 2 * 8 * 2);
    assert_true(d.count.attend_s == decode + prompt + 5 * 6 * 7 + 5); /* rows of heads */
}

/* Against counting key by key. */
static void a_window_leaves_out_what_it_says(void **state)
{
    (void)state;
    for (int window = 0; window <= 7; window++)
        for (int pos = 0; pos < 12; pos++)
            for (int n = 1; n < 12; n++) {
                struct attended a = {0};
                int pairs = 0, first = window ? max_int(0, pos + 1 - window) : 0;
                for (int p = pos; p < pos + n; p++)
                    pairs += window ? min_int(p + 1, window) : p + 1;
                attended_add(&a, window, pos, n);
                const struct seen *s = n == 1 ? &a.decode : &a.prompt;
                assert_true(s->pairs == pairs && s->keys == pos + n - first);
                assert_true(s->rows == n && s->seqs == 1);
            }
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
        cmocka_unit_test(what_is_done_at_once_is_one_call_and_reads_nothing_twice),
        cmocka_unit_test(a_product_takes_what_its_weights_cost_with_so_many_rows),
        cmocka_unit_test(threads_share_an_operation_and_meet),
        cmocka_unit_test(attention_takes_the_longer_of_reading_and_multiplying),
        cmocka_unit_test(a_window_leaves_out_what_it_says),
        cmocka_unit_test(after_an_error_nothing_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
