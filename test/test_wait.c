/* test_wait.c - waiting in both ways: spinning, then yielding; and asleep in the kernel. What does
 * not wake hangs, and the runner's limit is the failure. */
#include "base/base.h"
#include "base/wait.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

struct shared {
    _Atomic uint32_t word, stop;
    _Atomic uint64_t count;
};

static void *raise_later(void *arg)
{
    struct shared *s = arg;
    usleep(2000); /* most likely the other sleeps by now; either order must work */
    atomic_store(&s->count, 3);
    atomic_store(&s->word, 1);
    futex_wake(&s->word);
    return NULL;
}

static void *stop_later(void *arg)
{
    struct shared *s = arg;
    usleep(2000);
    atomic_store(&s->stop, 1);
    return NULL;
}

static void a_count_that_rises_ends_the_wait(void **state)
{
    struct shared s = {0};
    struct wait w = {&s.stop, 10};
    pthread_t thread;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, raise_later, &s), 0);
    assert_true(wait_for(&w, &s.count, 2)); /* 3 is past 2 */
    pthread_join(thread, NULL);
}

static void a_wait_without_spins_still_sees_what_is_there(void **state)
{
    struct shared s = {.count = 2, .stop = 1};
    (void)state;
    assert_true(wait_for(&(struct wait){&s.stop, 0}, &s.count, 2));
    assert_false(wait_for(&(struct wait){&s.stop, 0}, &s.count, 3));
    assert_true(wait_for(&(struct wait){NULL, 0}, &s.count, 1));
}

static void a_stop_ends_the_wait_in_vain(void **state)
{
    struct shared s = {0};
    pthread_t thread;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, stop_later, &s), 0);
    assert_false(wait_for(&(struct wait){&s.stop, 10}, &s.count, 1));
    pthread_join(thread, NULL);
}

static void a_sleeper_is_woken(void **state)
{
    struct shared s = {0};
    pthread_t thread;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, raise_later, &s), 0);
    while (!atomic_load(&s.word))
        futex_sleep(&s.word, 0, 0);
    assert_int_equal(s.count, 3);
    pthread_join(thread, NULL);
}

static void nobody_sleeps_on_a_word_that_differs(void **state)
{
    struct shared s = {.word = 7};
    (void)state;
    futex_sleep(&s.word, 6, 0);
    assert_int_equal(s.word, 7);
}

static void a_sleep_with_a_limit_ends_by_itself(void **state)
{
    struct shared s = {0};
    (void)state;
    futex_sleep(&s.word, 0, 1500);
    assert_int_equal(s.word, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_count_that_rises_ends_the_wait),
        cmocka_unit_test(a_wait_without_spins_still_sees_what_is_there),
        cmocka_unit_test(a_stop_ends_the_wait_in_vain),
        cmocka_unit_test(a_sleeper_is_woken),
        cmocka_unit_test(nobody_sleeps_on_a_word_that_differs),
        cmocka_unit_test(a_sleep_with_a_limit_ends_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
