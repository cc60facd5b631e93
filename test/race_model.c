/* race_model.c - races of threads are found, and nothing else is taken for one. Linked with the
 * model of a GPU that looks for them. */
#include "base/mat.h"
#include "dev/cuda/runtime.h"
#include "example.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void *zeros(size_t bytes, void *stream)
{
    void *at;
    assert_int_equal(gpu_alloc(&at, bytes), 0);
    assert_int_equal(gpu_clear(at, bytes, stream), 0);
    return at;
}

/* What is said of a race; "": nothing. */
static const char *said(enum example_race which)
{
    void *stream;
    assert_int_equal(gpu_stream(&stream), 0);
    int *to = zeros(2 * sizeof(int), stream);
    assert_int_equal(example_race(stream, which, to), 0);
    const int error = gpu_wait(stream);
    gpu_free(to);
    return error ? gpu_error(error) : "";
}

static void threads_that_a_barrier_orders_do_not_race(void **state)
{
    (void)state;
    assert_string_equal(said(EXAMPLE_ATOMICS), "");
    assert_string_equal(said(EXAMPLE_BARRIER), "");
    assert_string_equal(said(EXAMPLE_SYNCWARP), "");
    assert_string_equal(said(EXAMPLE_BYTES), "");
}

static void threads_that_nothing_orders_do(void **state)
{
    (void)state;
    assert_non_null(strstr(said(EXAMPLE_OF_WARPS), "a race: thread"));
    assert_non_null(strstr(said(EXAMPLE_OF_LANES), "of its warp"));
    assert_non_null(strstr(said(EXAMPLE_OF_BLOCKS), "of another block writes what was written"));
}

static void shared_memory_is_watched_too(void **state)
{
    enum { BLOCKS = 3 };
    (void)state;
    for (int barrier = 0; barrier < 2; barrier++) {
        void *stream;
        assert_int_equal(gpu_stream(&stream), 0);
        int *from = zeros(BLOCKS * 256 * sizeof(int), stream);
        int *to = zeros(BLOCKS * sizeof(int), stream);
        assert_int_equal(example_sum(stream, to, from, BLOCKS, barrier), 0);
        const int error = gpu_wait(stream);
        assert_int_equal(error == 0, barrier);
        if (error)
            assert_non_null(strstr(gpu_error(error), "shared memory"));
        gpu_free(from);
        gpu_free(to);
    }
}

static void a_copy_is_not_touched_before_it_was_waited_for(void **state)
{
    (void)state;
    for (int wait = 0; wait < 2; wait++) {
        void *stream;
        assert_int_equal(gpu_stream(&stream), 0);
        uint16_t *from = zeros(128, stream), *to = zeros(128, stream);
        assert_int_equal(example_transpose(stream, to, from, wait), 0);
        const int error = gpu_wait(stream);
        assert_int_equal(error == 0, wait);
        if (error)
            assert_non_null(strstr(gpu_error(error), "has begun and not arrived"));
        gpu_free(from);
        gpu_free(to);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_that_a_barrier_orders_do_not_race),
        cmocka_unit_test(threads_that_nothing_orders_do),
        cmocka_unit_test(shared_memory_is_watched_too),
        cmocka_unit_test(a_copy_is_not_touched_before_it_was_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
