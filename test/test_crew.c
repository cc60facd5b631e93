/* test_crew.c - the threads of a rank: every share once, run after run, awake or asleep. */
#include "dev/cpu/crew.h"

#include <setjmp.h>
#include <stdarg.h>
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
        assert_int_equal(j.n, threads);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_share_is_done_once_in_every_run),
        cmocka_unit_test(a_crew_that_never_ran_can_be_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
