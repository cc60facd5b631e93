/* test_drift.c - when steps no longer take what the profile says. */
#include "serve/drift.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void steps_are_counted_by_their_rows(void **state)
{
    struct drift d = {0};
    (void)state;
    assert_int_equal(drift_class(1), 0);
    assert_int_equal(drift_class(3), 1);
    assert_int_equal(drift_class(4), 2);
    assert_int_equal(drift_class(1 << 20), DRIFT_CLASSES - 1);
    drift_add(&d, 5, 0.2, 0.1);
    drift_add(&d, 7, 0.4, 0.1);
    drift_add(&d, 8, 1, 1);
    assert_int_equal(d.of[2].steps, 2);
    assert_float_equal(d.of[2].measured_s, 0.6, 1e-12);
    assert_float_equal(d.of[2].predicted_s, 0.2, 1e-12);
    assert_int_equal(d.of[3].steps, 1);
}

static void a_few_slow_steps_are_no_drift(void **state)
{
    struct drift d = {0};
    (void)state;
    for (int i = 0; i < 4 * DRIFT_WINDOW; i++) {
        drift_add(&d, 1, i % 3 ? 0.1 : 10, 0.1);
        assert_false(drift_alarm(&d, i));
    }
    assert_float_equal(drift_median(&d), 1, 1e-6);
}

static void an_alarm_waits_for_evidence_and_is_told_once(void **state)
{
    struct drift d = {0};
    int told = 0;
    (void)state;
    for (int i = 1; i <= 4 * DRIFT_LEAST; i++) {
        drift_add(&d, 1, 0.13, 0.1);
        if (i < DRIFT_LEAST)
            assert_float_equal(drift_median(&d), 0, 0);
        told += drift_alarm(&d, 1);
        assert_int_equal(told, i >= DRIFT_LEAST);
    }
    for (int i = 1; i <= DRIFT_LEAST; i++) {
        drift_add(&d, 1, 0.13, 0.1);
        told += drift_alarm(&d, 2 + DRIFT_QUIET);
    }
    assert_int_equal(told, 2);
}

static void too_fast_is_drift_too(void **state)
{
    struct drift d = {0};
    bool told = false;
    (void)state;
    for (int i = 0; i < DRIFT_WINDOW; i++) {
        drift_add(&d, 1, 0.07, 0.1);
        told = told || drift_alarm(&d, 1);
    }
    assert_true(told);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_counted_by_their_rows),
        cmocka_unit_test(a_few_slow_steps_are_no_drift),
        cmocka_unit_test(an_alarm_waits_for_evidence_and_is_told_once),
        cmocka_unit_test(too_fast_is_drift_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
