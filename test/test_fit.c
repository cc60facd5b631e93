/* test_fit.c - lines through measurements: what was put in comes out, also with outliers. */
#include "predict/fit.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void near_to(double is, double should, double tolerance)
{
    if (!(fabs(is / should - 1) <= tolerance))
        fail_msg("%g is not %g", is, should);
}

static void a_median_comes_with_half_of_the_spread(void **state)
{
    double x[21];
    (void)state;
    for (int i = 0; i < 21; i++)
        x[i] = 90 + (i * 8) % 21; /* 90 .. 110 in disorder */
    struct figure f = fit_median(x, 21);
    near_to(f.value, 100, 1e-12);
    near_to(f.error, 0.09, 1e-9);
    assert_int_equal(f.source, SOURCE_MEASURED);
}

static double seconds(double w)
{
    const double knee = 1 << 20;
    return 3e-6 + fmin(w, knee) * 1e-10 + fmax(0, w - knee) * 2.5e-11;
}

static int points(struct fit_point *p)
{
    int n = 0;
    for (double w = 1024; w <= 64 << 20; w *= 2, n++)
        p[n] = (struct fit_point){w, seconds(w)};
    return n;
}

static void both_slopes_and_the_knee_are_found(void **state)
{
    struct fit_point p[FIT_POINTS];
    struct collective c = {0};
    int n = points(p);
    (void)state;
    fit_collective(p, n, 0.01, &c);
    near_to(c.latency_s.value, 3e-6, 1e-3);
    near_to(c.byte_s.value, 1e-10, 1e-3);
    near_to(c.far_byte_s.value, 2.5e-11, 1e-3);
    near_to(c.knee_bytes, 1 << 20, 1e-3);
    near_to(c.latency_s.error, 0.01, 1e-9); /* the spread, as the line fits */
}

static void one_wild_point_does_not_turn_the_line(void **state)
{
    struct fit_point p[FIT_POINTS];
    struct collective c = {0};
    int n = points(p);
    (void)state;
    p[5].y *= 3;
    fit_collective(p, n, 0.01, &c);
    for (int i = 0; i < n; i++) {
        double w = p[i].w, far = fmax(0, w - c.knee_bytes);
        double got = c.latency_s.value + (w - far) * c.byte_s.value + far * c.far_byte_s.value;
        near_to(got, seconds(w), 0.02);
    }
}

static void two_points_make_a_straight_line(void **state)
{
    struct fit_point p[] = {{1000, 2e-6}, {3000, 4e-6}};
    struct collective c = {0};
    (void)state;
    fit_collective(p, 2, 0.1, &c);
    near_to(c.latency_s.value, 1e-6, 1e-6);
    near_to(c.byte_s.value, 1e-9, 1e-6);
    near_to(c.far_byte_s.value, 1e-9, 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_median_comes_with_half_of_the_spread),
        cmocka_unit_test(both_slopes_and_the_knee_are_found),
        cmocka_unit_test(one_wild_point_does_not_turn_the_line),
        cmocka_unit_test(two_points_make_a_straight_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
