/* test_pace.c - steps are learnt as a line of time over rows, and prompts get what it leaves. */
#include "base/base.h"
#include "sched/drive.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct pace learnt(double fixed, double per_row)
{
    static const int rows[] = {1, 32, 300, 7, 64, 128, 2, 90};
    struct pace p = {0};
    for (int i = 0; i < 200; i++)
        pace_learn(&p, rows[i % 8], fixed + per_row * rows[i % 8]);
    return p;
}

static void a_line_is_found(void **state)
{
    struct pace p = learnt(0.040, 0.0015);
    (void)state;
    assert_true(fabs(pace_step(&p, 0) - 0.040) < 1e-6);
    assert_true(fabs(pace_step(&p, 100) - 0.190) < 1e-6);
}

static void it_follows_when_the_machine_changes(void **state)
{
    struct pace p = learnt(0.040, 0.0015);
    (void)state;
    for (int i = 0; i < 400; i++)
        pace_learn(&p, i % 50, 0.080 + 0.003 * (i % 50));
    assert_true(fabs(pace_step(&p, 10) - 0.110) < 1e-3);
}

static void prompts_get_what_the_target_leaves(void **state)
{
    struct pace p = learnt(0.040, 0.001);
    (void)state;
    assert_in_range(pace_prompt_rows(&p, 10, 1, 0.150, 512), 99, 100); /* 40 + 10 + 100 ms */
    assert_in_range(pace_prompt_rows(&p, 100, 0, 0, 512), 83, 84);     /* 0.6 as long again */
    assert_in_range(pace_prompt_rows(&p, 1, 0, 0, 512), 28, 29);       /* fluent is enough */
    assert_in_range(pace_prompt_rows(&p, 100, 100, 0, 512), 83, 84);   /* as many wait */
    assert_in_range(pace_prompt_rows(&p, 100, 200, 0, 512), 153, 154); /* more wait */
    assert_int_equal(pace_prompt_rows(&p, 200, 9, 0.1, 512), 16);      /* never none */
    assert_int_equal(pace_prompt_rows(&p, 1, 1, 10, 512), 512);
}

static void equal_steps_and_no_steps_do_no_harm(void **state)
{
    struct pace p = {0};
    (void)state;
    assert_true(pace_step(&p, 5) == 0);
    assert_in_range(pace_prompt_rows(&p, 4, 1, 0, 512), 16, 512);
    for (int i = 0; i < 50; i++)
        pace_learn(&p, 8, 0.02);
    assert_true(fabs(pace_step(&p, 8) - 0.02) < 1e-9);
    assert_in_range(pace_prompt_rows(&p, 8, 1, 0, 512), 16, 512);
}

/* Who comes when nobody waits is taken whatever it takes: nothing else would ever be served. */
static void who_would_wait_too_long_is_refused(void **state)
{
    const struct queue_limits l = {.waiting = 3, .waiting_tok = 1000, .ttft_s = 2};
    struct queue_state s = {.step_s = 0.1, .token_s = 0.01, .max_tok = 100};
    (void)state;
    assert_int_equal(queue_asked(&s, &l, 5000), QUEUE_TAKES);
    s.waiting = 1, s.waiting_tok = 50;
    assert_int_equal(queue_asked(&s, &l, 100), QUEUE_TAKES); /* 0.1 * 2.5 + 1.5 s */
    assert_int_equal(queue_asked(&s, &l, 200), QUEUE_TOO_LATE);
    assert_int_equal(queue_asked(&s, &l, 1000), QUEUE_TOO_MANY_TOK);
    s.waiting = 3;
    assert_int_equal(queue_asked(&s, &l, 1), QUEUE_TOO_MANY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_found),
        cmocka_unit_test(it_follows_when_the_machine_changes),
        cmocka_unit_test(prompts_get_what_the_target_leaves),
        cmocka_unit_test(equal_steps_and_no_steps_do_no_harm),
        cmocka_unit_test(who_would_wait_too_long_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
