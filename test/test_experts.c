/* test_experts.c - routing, sums in fixed point, and experts on one device; their layouts are in
 * test_layouts.c. */
#include "base/whole.h"
#include "experts_help.h"

#include <limits.h>
#include <math.h>

static void a_term_is_rounded_once_to_a_multiple_of_two_to_the_minus_32(void **state)
{
    (void)state;
    assert_int_equal(whole_of(1), (int64_t)1 << 32);
    assert_int_equal(whole_of(-0x1p-32f), -1);
    assert_int_equal(whole_of(0x1p-33f), 0); /* ties to even */
    assert_int_equal(whole_of(0x1.8p-32f), 2);
    assert_int_equal(whole_of(0x1.fffffep17f), (int64_t)0x1fffffe << 25);
    assert_true(whole_float(whole_of(-3.25f)) == -3.25f);
}

static void what_is_out_of_range_is_never_a_number(void **state)
{
    static const float odd[] = {0x1p18f, -0x1p18f, 1e30f, INFINITY, -INFINITY, NAN};
    (void)state;
    for (size_t i = 0; i < COUNT(odd); i++) {
        int64_t sum = whole_add(whole_of(odd[i]), whole_of(5));
        assert_true(isnan(whole_float(sum)));
        assert_true(isnan(whole_float(whole_add(whole_of(-7), sum))));
        assert_true(isnan(whole_float(whole_add(sum, sum))));
    }
    int64_t sum = 0; /* 4096 of the largest fit */
    for (int i = 0; i < 4096; i++)
        sum = whole_add(sum, whole_of(0x1.fffffep17f));
    assert_true(whole_float(sum) == 4096 * 0x1.fffffep17f);
}

/* ------------------------------------------------------------------------------- routing */

struct choice {
    int expert[8];
    float weight[8];
};

static struct choice route(float *logits, int n, int top, bool renorm, bool shared, float *gate)
{
    struct choice c;
    struct help h = help_begin(1, 16);
    struct mat row = {1, n, NUM_F32, logits}, one = {gate ? 1 : 0, 1, NUM_F32, gate};
    struct routed to = {1, top, shared, c.expert, c.weight, NULL, NULL};
    dev_route(&h.dev[ISA_REF], &to, &row, &one, renorm);
    assert_int_equal(h.dev[ISA_REF].err, 0);
    help_end(&h);
    return c;
}

static void the_largest_are_chosen_and_ties_go_to_the_lower_number(void **state)
{
    float logits[] = {1, 3, 2, 3, -1, 2};
    (void)state;
    struct choice c = route(logits, 6, 4, false, false, NULL);
    static const int want[] = {1, 3, 2, 5};
    assert_memory_equal(c.expert, want, sizeof(want));
    assert_true(c.weight[0] == c.weight[1] && c.weight[2] == c.weight[3]);
}

static void weights_are_the_softmax_over_all_or_over_the_chosen(void **state)
{
    float logits[] = {0, 1, 2, 3};
    double sum = exp(0) + exp(1) + exp(2) + exp(3);
    (void)state;
    struct choice all = route(logits, 4, 2, false, false, NULL);
    struct choice chosen = route(logits, 4, 2, true, false, NULL);
    assert_true(fabs((double)all.weight[0] - exp(3) / sum) < 1e-6);
    assert_true(fabs((double)all.weight[1] - exp(2) / sum) < 1e-6);
    assert_true(fabs((double)chosen.weight[0] - exp(3) / (exp(3) + exp(2))) < 1e-6);
    assert_true(fabs((double)chosen.weight[1] - exp(2) / (exp(3) + exp(2))) < 1e-6);
}

static void the_shared_expert_comes_last_behind_its_gate(void **state)
{
    float logits[] = {0, 1, 2}, gate = 0.5f;
    (void)state;
    struct choice free = route(logits, 3, 1, true, true, NULL);
    struct choice gated = route(logits, 3, 1, true, true, &gate);
    assert_int_equal(free.expert[1], 3);
    assert_true(free.weight[1] == 1);
    assert_int_equal(gated.expert[1], 3);
    assert_true(fabs((double)gated.weight[1] - 1 / (1 + exp(-0.5))) < 1e-6);
}

static void a_logit_that_is_no_number_is_never_a_choice_like_others(void **state)
{
    (void)state;
    for (int at = 0; at < 4; at++)
        for (int renorm = 0; renorm < 2; renorm++) {
            float logits[] = {3, 2, 1, 0};
            logits[at] = NAN;
            struct choice c = route(logits, 4, 2, renorm, false, NULL);
            for (int i = 0; i < 2; i++) {
                assert_in_range(c.expert[i], 0, 3);
                assert_true(isnan(c.weight[i]));
            }
            assert_int_not_equal(c.expert[0], c.expert[1]);
        }
}

/* ------------------------------------------------------------------------------- experts */

static double silu(double x) { return x / (1 + exp(-x)); }

/* One number of one row, in double precision. */
static double want_of(const struct block *b, int t, int k)
{
    double sum = 0;
    float row[HIDDEN + FF];
    for (int c = 0; c < TOP; c++) {
        const struct expert *e = &b->expert[b->chosen[t * TOP + c]];
        double hidden[FF], out = 0;
        for (int s = 0, at = 0; s < PARTS; s++)
            for (int r = 0; r < e->gate.part[s].rows; r++, at++) {
                double g = 0;
                part_row(&e->gate.part[s], e->gate.type, r, row);
                for (int i = 0; i < HIDDEN; i++)
                    g += (double)row[i] * (double)mat_row(&b->x, t)[i];
                hidden[at] = silu(g);
            }
        for (int s = 0, at = 0; s < PARTS; s++)
            for (int r = 0; r < e->up.part[s].rows; r++, at++) {
                double u = 0;
                part_row(&e->up.part[s], e->up.type, r, row);
                for (int i = 0; i < HIDDEN; i++)
                    u += (double)row[i] * (double)mat_row(&b->x, t)[i];
                hidden[at] *= u;
            }
        for (int s = 0, at = 0; s < PARTS; s++) {
            part_row(&e->down.part[s], e->down.type, k, row);
            for (int i = 0; i < e->down.part[s].cols; i++)
                out += (double)row[i] * hidden[at++];
        }
        sum += (double)b->weight[t * TOP + c] * out;
    }
    return sum;
}

static void experts_are_what_arithmetic_says(void **state)
{
    static int64_t sum[ROWS * HIDDEN];
    struct block b;
    (void)state;
    block_begin(&b, NUM_F32);
    sum_of(&b, &b.h.dev[ISA_REF], (struct span){0, 20}, b.expert, sum);
    for (int t = 0; t < 20; t++)
        for (int k = 0; k < HIDDEN; k += 7) {
            double got = (double)whole_float(sum[t * HIDDEN + k]), want = want_of(&b, t, k);
            if (fabs(got - want) > 1e-5 * (1 + fabs(want)) * 100)
                fail_msg("row %d number %d: %g, not %g", t, k, got, want);
        }
    help_end(&b.h);
}

static void rows_alone_and_together_give_the_same_bits_everywhere(void **state)
{
    static const enum num types[] = {NUM_F32, NUM_F16, NUM_INT8, NUM_INT4_G32Z};
    static int64_t want[ROWS * HIDDEN], got[ROWS * HIDDEN];
    (void)state;
    for (size_t i = 0; i < COUNT(types); i++) {
        struct block b;
        block_begin(&b, types[i]);
        sum_of(&b, &b.h.dev[ISA_REF], (struct span){0, ROWS}, b.expert, want);
        for (int isa = ISA_REF; isa < ISA_COUNT; isa++) {
            if (!isa_here((enum isa)isa))
                continue;
            for (int lo = 0, n = 1; lo < ROWS; lo += n, n = n % 90 + 17) {
                struct span rows = {lo, min_int(ROWS, lo + n)};
                sum_of(&b, &b.h.dev[isa], rows, b.expert, got + lo * HIDDEN);
            }
            assert_memory_equal(got, want, sizeof(want));
        }
        help_end(&b.h);
    }
}

static void threads_change_no_bit(void **state)
{
    static int64_t want[ROWS * HIDDEN], got[ROWS * HIDDEN];
    struct block b;
    struct dev d;
    (void)state;
    block_begin(&b, NUM_INT8);
    for (int n = 1; n <= 200; n = 3 * n + 1) {
        sum_of(&b, &b.h.dev[isa_best()], (struct span){0, n}, b.expert, want);
        for (int threads = 2; threads <= 7; threads++) {
            struct arena a = {0};
            dev_cpu_init(&d, isa_best(), n, FF, threads, &a);
            a = (struct arena){.base = help_bytes(&b.h, a.used), .size = a.used};
            dev_cpu_init(&d, isa_best(), n, FF, threads, &a);
            dev_cpu_start(&d, NULL);
            sum_of(&b, &d, (struct span){0, n}, b.expert, got);
            dev_cpu_stop(&d);
            assert_memory_equal(got, want, (size_t)n * HIDDEN * sizeof(*want));
        }
    }
    help_end(&b.h);
}

/* One expert here and the others elsewhere: the sums add up to the bit. */
static void experts_may_be_anywhere(void **state)
{
    static int64_t want[ROWS * HIDDEN], part[ROWS * HIDDEN], sum[ROWS * HIDDEN];
    struct block b;
    (void)state;
    block_begin(&b, NUM_F32);
    sum_of(&b, &b.h.dev[isa_best()], (struct span){0, ROWS}, b.expert, want);
    for (int e = 0; e < EXPERTS; e++) {
        struct expert some[EXPERTS] = {{.gate = {.rows = 0}}};
        some[e] = b.expert[e];
        sum_of(&b, &b.h.dev[isa_best()], (struct span){0, ROWS}, some, part);
        for (int i = 0; i < ROWS * HIDDEN; i++)
            sum[i] = whole_add(sum[i], part[i]);
    }
    assert_memory_equal(sum, want, sizeof(want));
    help_end(&b.h);
}

/* Three ranks hold all experts and take turns at their rows: the sums add up to the bit. */
static void rows_of_an_expert_may_be_shared_out(void **state)
{
    enum { RANKS = 3 };
    static int64_t want[ROWS * HIDDEN], part[ROWS * HIDDEN], sum[ROWS * HIDDEN];
    struct block b;
    (void)state;
    block_begin(&b, NUM_F32);
    sum_of(&b, &b.h.dev[isa_best()], (struct span){0, ROWS}, b.expert, want);
    struct mat y = {ROWS, HIDDEN, NUM_I64, part};
    for (int r = 0; r < RANKS; r++) {
        struct span turn[EXPERTS] = {{0, 0}}; /* expert 4 is all of rank 2 */
        for (int e = 0; e < EXPERTS - 1; e++)
            turn[e] = (struct span){r * (5 + e), r < RANKS - 1 ? (r + 1) * (5 + e) : INT_MAX};
        if (r == 2)
            turn[4] = (struct span){0, INT_MAX};
        struct routed to = {ROWS, TOP, false, b.chosen, b.weight, turn, NULL};
        dev_experts(&b.h.dev[isa_best()], &y, &b.x, b.expert, EXPERTS, &to, &b.room);
        assert_true(memcmp(part, want, sizeof(want)));
        for (int i = 0; i < ROWS * HIDDEN; i++)
            sum[i] = whole_add(sum[i], part[i]);
    }
    assert_memory_equal(sum, want, sizeof(want));
    help_end(&b.h);
}

static void a_weight_that_is_no_number_spoils_its_row_only(void **state)
{
    static int64_t sum[ROWS * HIDDEN];
    struct block b;
    (void)state;
    block_begin(&b, NUM_F32);
    b.weight[3 * TOP] = NAN;
    sum_of(&b, &b.h.dev[isa_best()], (struct span){0, 8}, b.expert, sum);
    for (int t = 0; t < 8; t++)
        for (int k = 0; k < HIDDEN; k++)
            assert_int_equal(isnan(whole_float(sum[t * HIDDEN + k])) != 0, t == 3);
    help_end(&b.h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_term_is_rounded_once_to_a_multiple_of_two_to_the_minus_32),
        cmocka_unit_test(what_is_out_of_range_is_never_a_number),
        cmocka_unit_test(the_largest_are_chosen_and_ties_go_to_the_lower_number),
        cmocka_unit_test(weights_are_the_softmax_over_all_or_over_the_chosen),
        cmocka_unit_test(the_shared_expert_comes_last_behind_its_gate),
        cmocka_unit_test(a_logit_that_is_no_number_is_never_a_choice_like_others),
        cmocka_unit_test(experts_are_what_arithmetic_says),
        cmocka_unit_test(rows_alone_and_together_give_the_same_bits_everywhere),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(experts_may_be_anywhere),
        cmocka_unit_test(rows_of_an_expert_may_be_shared_out),
        cmocka_unit_test(a_weight_that_is_no_number_spoils_its_row_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
