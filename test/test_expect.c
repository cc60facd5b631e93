/* test_expect.c - what runs of ranks can expect to do of a layer's experts, and what a skewed
 * router costs a step and copies of experts recover (predict/price.h). */
#include "predict/price.h"
#include "run/expect.h"
#include "sched/balance.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "model_help.h"

enum { LAYERS = 32, EXPERTS = 64, RUNS = 8 };

/* ------------------------------------------------------------------------------- choices */

static void chosen_rates_sum_to_the_choices_and_none_exceeds_one(void **state)
{
    double share[EXPERTS], to[EXPERTS];
    (void)state;
    for (int top = 1; top <= EXPERTS; top *= 2)
        for (int alpha = 0; alpha <= 3; alpha++) {
            double sum = 0;
            balance_zipf(share, EXPERTS, alpha, draw_of(1, DRAW_EXPERTS, 0));
            expect_chosen(share, EXPERTS, top, to);
            for (int i = 0; i < EXPERTS; i++) {
                assert_true(to[i] > 0 && to[i] <= 1);
                sum += to[i];
                for (int k = 0; k < EXPERTS; k++)
                    assert_true(share[i] <= share[k] || to[i] >= to[k]);
            }
            assert_true(fabs(sum - top) < 1e-9);
        }
}

static void what_was_chosen_is_chosen_again(void **state)
{
    double share[EXPERTS], once[EXPERTS], twice[EXPERTS];
    (void)state;
    balance_zipf(share, EXPERTS, 1.5, draw_of(2, DRAW_EXPERTS, 0));
    expect_chosen(share, EXPERTS, 8, once);
    expect_chosen(once, EXPERTS, 8, twice);
    for (int i = 0; i < EXPERTS; i++)
        assert_true(fabs(once[i] - twice[i]) < 1e-12);
}

/* ------------------------------------------------------------------------------- runs */

static struct routing routing_of(double share[LAYERS][EXPERTS], double alpha)
{
    for (int l = 0; l < LAYERS; l++)
        balance_zipf(share[l], EXPERTS, alpha, draw_of(3, DRAW_EXPERTS, (uint64_t)l));
    return (struct routing){.n_layer = LAYERS, .share = share[0]};
}

static void level_shares_are_as_good_as_blind_choice(void **state)
{
    double share[LAYERS][EXPERTS];
    const struct routing level = routing_of(share, 0);
    const struct placement held[] = {placement_all(EXPERTS, RUNS), placement_even(EXPERTS, RUNS)};
    (void)state;
    for (size_t h = 0; h < COUNT(held); h++)
        for (int n = 1; n <= 8192; n *= 8) {
            struct expected blind = expect_blindly(&held[h], 8, n);
            struct expected by = expect_by(&level, &held[h], 8, n);
            assert_true(fabs(by.rows - blind.rows) < 1e-6 * blind.rows);
            assert_true(by.experts <= blind.experts + 1e-9); /* blindly: whole ones */
            assert_true(by.experts > blind.experts - 1);
        }
}

static void the_busiest_run_has_lambda_times_the_mean_rows(void **state)
{
    double share[LAYERS][EXPERTS];
    struct routing skewed = routing_of(share, 1.2);
    const struct placement even = placement_even(EXPERTS, RUNS), all = placement_all(EXPERTS, RUNS);
    (void)state;
    double lambda = expect_lambda(&skewed, &even, 2), mean = 2 * 65536.0 / RUNS;
    assert_true(lambda > 2);
    assert_true(fabs(expect_by(&skewed, &even, 2, 65536).rows / mean - lambda) < 0.05 * lambda);
    assert_true(fabs(expect_lambda(&skewed, &all, 2) - 1) < 1e-9);
    assert_true(fabs(expect_by(&skewed, &all, 2, 65536).rows - mean) < 1e-6 * mean);
}

/* ------------------------------------------------------------------------------- steps */

/* A Llama with experts. */
static struct plan mixture(int top)
{
    const struct plan_ask ask = {.tp = RUNS,
                                 .ep = RUNS,
                                 .sp = true,
                                 .max_tok = 16384,
                                 .max_seq = 64,
                                 .weight = NUM_BF16,
                                 .kv = NUM_BF16,
                                 .numerics = "bf16-dot"};
    struct model m = shape_of("llama-3-8b");
    struct plan p;
    struct err e;
    m.experts = (struct experts){.n = EXPERTS, .top = top, .ff = 4096, .renorm = true};
    if (plan_make(&p, &m, &ask, &e))
        fail_msg("%s", e.text);
    return p;
}

static double tok_s(const struct plan *p, const struct hardware *h, const struct routing *known)
{
    struct err e;
    struct step_price price;
    struct pricer *x = pricer_new(p, h, &e);
    struct work w = work_of(&p->model, 8, 2048, 2047); /* 16384 rows: bound by arithmetic */
    if (!x)
        fail_msg("%s", e.text);
    pricer_expect(x, known);
    pricer_step(x, &w, &price);
    pricer_free(x);
    return w.n_tok / price.all_s;
}

static void two_copies_a_rank_recover_four_fifths_of_the_throughput(void **state)
{
    double share[LAYERS][EXPERTS], level[LAYERS][EXPERTS];
    struct placement copies[LAYERS];
    const struct balance two = {.n_expert = EXPERTS, .n_run = RUNS, .redundant = 2};
    struct hardware h;
    struct err e;
    (void)state;
    if (hardware_load("dgx-h100", &h, &e))
        fail_msg("%s", e.text);
    for (int top = 1; top <= 8; top *= 2) {
        struct plan p = mixture(top);
        struct routing skewed = routing_of(share, 1.2), fair = routing_of(level, 0), copied;
        for (int l = 0; l < LAYERS; l++) {
            double chosen[EXPERTS];
            expect_chosen(share[l], EXPERTS, top, chosen);
            copies[l] = balance_place(&two, chosen);
        }
        copied = skewed;
        copied.placement = copies;
        double best = tok_s(&p, &h, &fair), worst = tok_s(&p, &h, &skewed);
        double after = tok_s(&p, &h, &copied), recovered = (after - worst) / (best - worst);
        const struct placement even = placement_even(EXPERTS, RUNS);
        print_message("  top %d: %.0f tokens/s even, %.0f skewed (lambda %.2f), %.0f with copies "
                      "(lambda %.2f): %.0f %% recovered\n",
                      top, best, worst, expect_lambda(&skewed, &even, top), after,
                      expect_lambda(&copied, &even, top), 100 * recovered);
        assert_true(worst < 0.9 * best);
        assert_true(recovered >= 0.8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chosen_rates_sum_to_the_choices_and_none_exceeds_one),
        cmocka_unit_test(what_was_chosen_is_chosen_again),
        cmocka_unit_test(level_shares_are_as_good_as_blind_choice),
        cmocka_unit_test(the_busiest_run_has_lambda_times_the_mean_rows),
        cmocka_unit_test(two_copies_a_rank_recover_four_fifths_of_the_throughput),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
