/* test_recalibrate.c - a profile corrected by a server's figures says what the server measured. */
#include "predict/recalibrate.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const char FIGURES[] =
    "# TYPE tandem:step_seconds histogram\n"
    "tandem:step_seconds_count{model_name=\"m\"} 4000\n"
    "tandem:step_seconds_by_rows_total{model_name=\"m\",dtype=\"int8\",rows=\"64\"} 9\n"
    "tandem:step_seconds_by_rows_total{model_name=\"m\",dtype=\"int8\",rows=\"1\"} 20\n"
    "tandem:step_predicted_seconds_by_rows_total{model_name=\"m\",dtype=\"int8\",rows=\"1\"} 10\n"
    "tandem:step_predicted_seconds_by_rows_total{model_name=\"m\",dtype=\"int8\",rows=\"64\"} 10\n";

static struct hardware machine(void)
{
    struct hardware h;
    struct err e;
    if (hardware_load("epyc-9755", &h, &e))
        fail_msg("%s", e.text);
    return h;
}

static void products_are_corrected_at_their_rows_and_the_rest_by_all_steps(void **state)
{
    struct hardware h = machine(), old = h;
    struct seen_steps s;
    struct err e;
    double ratio = 0;
    (void)state;
    if (seen_read(&s, FIGURES, sizeof(FIGURES) - 1, "metrics", &e) ||
        recalibrate(&h, &s, &ratio, &e))
        fail_msg("%s", e.text);
    assert_float_equal(ratio, 29.0 / 20, 1e-12);
    for (int i = 0; i < h.n_rates; i++) {
        const struct curve *was = &old.rates[i].product[NUM_INT8],
                           *is = &h.rates[i].product[NUM_INT8];
        assert_float_equal(curve_at(is, 1) / curve_at(was, 1), 2, 1e-9);
        assert_float_equal(curve_at(is, 64) / curve_at(was, 64), 0.9, 1e-9);
        assert_float_equal(curve_at(is, 8) / curve_at(was, 8), 1.45, 1e-9); /* half way */
        assert_float_equal(is->y[is->n - 1] / was->y[was->n - 1], 0.9, 1e-9);
        assert_float_equal(h.rates[i].op_s.value / old.rates[i].op_s.value, ratio, 1e-9);
        assert_memory_equal(&h.rates[i].product[NUM_BF16], &old.rates[i].product[NUM_BF16],
                            sizeof(struct curve));
    }
    assert_memory_equal(h.level, old.level, sizeof(h.level));
    assert_non_null(strstr(h.about, "4000 steps"));
}

static void expect_refused(const char *text, const char *word)
{
    struct seen_steps s;
    struct err e = {""};
    int rc = seen_read(&s, text, strlen(text), "metrics", &e);
    if (rc != -EINVAL || !strstr(e.text, word))
        fail_msg("\"%s\": %d, %s", text, rc, e.text);
}

static void figures_that_do_not_suffice_are_refused(void **state)
{
#define MEASURED_LINE "tandem:step_seconds_by_rows_total{dtype=\"int8\",rows=\"1\"} "
#define PREDICTED_LINE "tandem:step_predicted_seconds_by_rows_total{dtype=\"int8\",rows=\"1\"} "
    (void)state;
    expect_refused("", "--hardware");
    expect_refused("tandem:step_seconds_count 4000\n", "--hardware");
    expect_refused(MEASURED_LINE "1\n", "not both");
    expect_refused(MEASURED_LINE "1\n" PREDICTED_LINE "1\n", "only 0 steps");
    expect_refused(MEASURED_LINE "nan\n", "cannot read");
    expect_refused(MEASURED_LINE "-1\n", "cannot read");
    expect_refused(MEASURED_LINE "1x\n", "cannot read");
    expect_refused("tandem:step_seconds_by_rows_total{dtype=\"int8\"} 1\n", "cannot read");
    expect_refused("tandem:step_seconds_by_rows_total{dtype=\"int9\",rows=\"1\"} 1\n", "int9");
    expect_refused(MEASURED_LINE "1\n"
                                 "tandem:step_seconds_by_rows_total{dtype=\"bf16\",rows=\"1\"} 1\n",
                   "one server");
}

static void a_format_without_figures_is_refused(void **state)
{
    struct hardware h = machine();
    struct seen_steps s;
    struct err e;
    double ratio;
    (void)state;
    assert_int_equal(seen_read(&s, FIGURES, sizeof(FIGURES) - 1, "metrics", &e), 0);
    h.rates[0].product[NUM_INT8].n = 0;
    assert_int_equal(recalibrate(&h, &s, &ratio, &e), -EINVAL);
    assert_non_null(strstr(e.text, "int8"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_corrected_at_their_rows_and_the_rest_by_all_steps),
        cmocka_unit_test(figures_that_do_not_suffice_are_refused),
        cmocka_unit_test(a_format_without_figures_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
