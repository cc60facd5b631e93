/* test_gpu_model.c - the model of a GPU does what kernels ask for, and finds what they do wrong. */
#include "base/mat.h"
#include "dev/cuda/runtime.h"
#include "example.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void *new_stream(void)
{
    void *stream;
    assert_int_equal(gpu_stream(&stream), 0);
    return stream;
}

static void *to_device(const void *from, size_t bytes, void *stream)
{
    void *at;
    assert_int_equal(gpu_alloc(&at, bytes), 0);
    if (from)
        assert_int_equal(gpu_copy_in(at, from, bytes, stream), 0);
    return at;
}

static void threads_of_a_block_meet_at_barriers(void **state)
{
    enum { BLOCKS = 9 };
    int from[BLOCKS * 256], to[BLOCKS], wrong = 0;
    void *stream = new_stream();
    (void)state;
    for (int i = 0; i < BLOCKS * 256; i++)
        from[i] = i;
    int *in = to_device(from, sizeof(from), stream), *out = to_device(NULL, sizeof(to), stream);
    for (int barrier = 1; barrier >= 0; barrier--) {
        assert_int_equal(example_sum(stream, out, in, BLOCKS, barrier), 0);
        assert_int_equal(gpu_copy_out(to, out, sizeof(to), stream), 0);
        assert_int_equal(gpu_wait(stream), 0);
        for (int b = 0; b < BLOCKS; b++)
            wrong += to[b] != 256 * (256 * b) + 255 * 128;
        assert_true(barrier ? !wrong : wrong > 0); /* without them it shows */
    }
    gpu_free(in);
    gpu_free(out);
}

static void a_warp_multiplies_matrices(void **state)
{
    uint16_t a[16][16], b[16][8];
    float to[16][8];
    void *stream = new_stream();
    (void)state;
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++)
            a[r][k] = f32_to_bf16((float)(r * k % 7 - 3));
    for (int k = 0; k < 16; k++)
        for (int c = 0; c < 8; c++)
            b[k][c] = f32_to_bf16((float)(k * c % 5 - 2 + k));
    void *in_a = to_device(a, sizeof(a), stream), *in_b = to_device(b, sizeof(b), stream);
    float *out = to_device(NULL, sizeof(to), stream);
    assert_int_equal(example_multiply(stream, out, in_a, in_b), 0);
    assert_int_equal(gpu_copy_out(to, out, sizeof(to), stream), 0);
    assert_int_equal(gpu_wait(stream), 0);
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 8; c++) {
            float want = 0;
            for (int k = 0; k < 16; k++)
                want += bf16_to_f32(a[r][k]) * bf16_to_f32(b[k][c]);
            assert_true(to[r][c] == want);
        }
    gpu_free(in_a);
    gpu_free(in_b);
    gpu_free(out);
}

static void copies_arrive_when_they_were_waited_for(void **state)
{
    uint16_t from[8][8], to[8][8];
    void *stream = new_stream();
    (void)state;
    for (int i = 0; i < 64; i++)
        from[i / 8][i % 8] = (uint16_t)i;
    void *in = to_device(from, sizeof(from), stream), *out = to_device(NULL, sizeof(to), stream);
    for (int wait = 0; wait < 2; wait++) {
        assert_int_equal(example_transpose(stream, out, in, wait), 0);
        assert_int_equal(gpu_copy_out(to, out, sizeof(to), stream), 0);
        assert_int_equal(gpu_wait(stream), 0);
        for (int i = 0; i < 64; i++)
            assert_int_equal(to[i % 8][i / 8], wait ? from[i / 8][i % 8] : 0xffff);
    }
    gpu_free(in);
    gpu_free(out);
}

static void nothing_is_done_before_it_is_waited_for_and_all_of_it_in_order(void **state)
{
    int one = 1, two = 2, got = 0;
    void *stream = new_stream(), *recorded, *at = to_device(NULL, sizeof(int), stream);
    (void)state;
    gpu_copy_in(at, &one, sizeof(one), stream);
    assert_int_equal(gpu_record_begin(stream), 0);
    gpu_copy_out(&got, at, sizeof(got), stream);
    gpu_copy_in(at, &two, sizeof(two), stream);
    assert_int_equal(gpu_record_end(stream, &recorded), 0);
    assert_int_equal(gpu_wait(stream), 0);
    assert_int_equal(got, 0);
    gpu_replay(recorded, stream);
    assert_int_equal(got, 0);
    assert_int_equal(gpu_wait(stream), 0);
    assert_int_equal(got, 1);
    gpu_replay(recorded, stream);
    assert_int_equal(gpu_wait(stream), 0);
    assert_int_equal(got, 2);
    gpu_record_free(recorded);
    assert_int_not_equal(gpu_copy_in(&got, &one, sizeof(one), stream), 0);
    assert_int_not_equal(gpu_copy_out(&got, (char *)at + 4096, sizeof(got), stream), 0);
    gpu_free(at);
}

static void mistakes_of_kernels_are_said(void **state)
{
    static const char *const want[] = {"32 at __syncthreads", "a warp is divided", "copy_async"};
    (void)state;
    for (int i = 0; i < 3; i++) {
        void *stream = new_stream(), *from = to_device(NULL, 64, stream);
        assert_int_equal(example_wrong(stream, (enum example)i, from), 0);
        int error = gpu_wait(stream);
        assert_int_not_equal(error, 0);
        assert_non_null(strstr(gpu_error(error), want[i]));
        assert_non_null(strstr(gpu_error(error), "wrong_kernel"));
        assert_int_equal(gpu_wait(stream), error); /* remembered */
        gpu_free(from);
    }
}

/* How a child ends that reads from `at`. */
static int death_of(const volatile int *at)
{
    int status;
    pid_t child = fork();
    if (!child) {
        signal(SIGSEGV, SIG_DFL);
        _exit(*at == 7);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void the_host_cannot_touch_the_devices_memory(void **state)
{
    int here = 7;
    void *at;
    (void)state;
    assert_int_equal(gpu_alloc(&at, sizeof(int)), 0);
    assert_int_equal(death_of(&here), 0);
    assert_int_equal(death_of(at), SIGSEGV);
    gpu_free(at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_of_a_block_meet_at_barriers),
        cmocka_unit_test(a_warp_multiplies_matrices),
        cmocka_unit_test(copies_arrive_when_they_were_waited_for),
        cmocka_unit_test(nothing_is_done_before_it_is_waited_for_and_all_of_it_in_order),
        cmocka_unit_test(mistakes_of_kernels_are_said),
        cmocka_unit_test(the_host_cannot_touch_the_devices_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
