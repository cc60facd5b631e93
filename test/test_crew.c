/* test_crew.c - the threads of a rank: every share once, run after run, awake or asleep. */
#include "dev/cpu/crew.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <unistd.h>

#include <cmocka.h>

enum { NUMBERS = 1000 };

struct job {
    int n;
    long number[NUMBERS];
};

static void add_one(void *arg, int thread, int n)
{
    struct job *j = arg;
    struct span mine = share(NUMBERS, n, thread);
    for (int i = mine.lo; i < mine.hi; i++)
        j->number[i]++;
    if (thread == 0)
        j->n = n;
}

static void every_share_is_done_once_in_every_run(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        struct job j = {0};
        struct crew *c = crew_start(threads, NULL);
        for (int run = 0; run < 300; run++) {
            crew_run(c, add_one, &j);
            if (run % 100 == 50)
                usleep(20000); /* long enough to fall asleep */
        }
        for (int i = 0; i < NUMBERS; i++)
            assert_int_equal(j.number[i], 300);
        assert_in_range(j.n, threads > 1 ? threads - 1 : 1, threads); /* cores may be busy */
        crew_stop(c);
    }
}

static void a_crew_that_never_ran_can_be_stopped(void **state)
{
    (void)state;
    crew_stop(crew_start(4, NULL));
    crew_stop(NULL);
    struct crew *c = crew_start(3, (const int[]){0, 0, 0});
    usleep(20000);
    crew_stop(c);
}

/* The caller (0) or the other thread (1) is descheduled in every run; -1: none. */
struct slow {
    _Atomic int late, n;
    pthread_t caller;
    _Atomic long runs;
};

static void sleepy(void *arg, int share, int n)
{
    struct slow *s = arg;
    int number = pthread_equal(pthread_self(), s->caller) ? 0 : 1;
    if (share == 0)
        s->n = n;
    if (number == s->late)
        usleep(2000);
    atomic_fetch_add(&s->runs, 1);
}

/* Run until n threads take part; how many shares were done, and should have been. */
static void run_until(struct crew *c, struct slow *s, int n)
{
    long want = 0;
    s->runs = 0;
    for (int run = 0; run < 200000; run++) {
        crew_run(c, sleepy, s);
        want += s->n;
        assert_int_equal(s->runs, want);
        if (s->n == n)
            return;
        if (s->n < n) /* it takes a while */
            usleep(1000);
    }
    fail_msg("%d threads take part, not %d", s->n, n);
}

static void a_thread_that_is_always_late_is_left_out_and_asked_in_again(void **state)
{
    (void)state;
    struct slow s = {.late = -1, .caller = pthread_self()};
    struct crew *c = crew_start(2, NULL);
    run_until(c, &s, 2);
    for (int late = 0; late < 2; late++) {
        s.late = late;
        run_until(c, &s, 1);
        s.late = -1;
        run_until(c, &s, 2);
    }
    crew_stop(c);
    c = crew_start(2, NULL);
    s.late = 1; /* stopped while it is left out */
    run_until(c, &s, 1);
    crew_stop(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_share_is_done_once_in_every_run),
        cmocka_unit_test(a_thread_that_is_always_late_is_left_out_and_asked_in_again),
        cmocka_unit_test(a_crew_that_never_ran_can_be_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
