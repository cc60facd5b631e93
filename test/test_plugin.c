/* test_plugin.c - the GPU plugin is found, refused or asked, and never in the way. */
#include "dev/plugin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#define FAKE BUILD_DIR "/libfake_plugin.so"

/* What comes of opening the plugin at `path`. */
static int open_at(const char *path, const char *how, const struct plugin **to, struct err *e)
{
    setenv("TANDEM_PLUGIN_PATH", path, 1);
    if (how)
        setenv("TANDEM_FAKE_PLUGIN", how, 1);
    else
        unsetenv("TANDEM_FAKE_PLUGIN");
    return plugin_open(to, e);
}

static void no_plugin_is_one_sentence(void **state)
{
    const struct plugin *p;
    struct err e;
    (void)state;
    assert_int_equal(open_at("/nowhere", NULL, &p, &e), -ENOENT);
    assert_non_null(strstr(e.text, "/nowhere"));
    assert_null(p);
    assert_int_equal(open_at("/proc", NULL, &p, &e), -ENOENT); /* a folder without it */
    assert_non_null(strstr(e.text, "/proc"));
}

static void what_is_no_library_is_one_sentence(void **state)
{
    const struct plugin *p;
    struct err e;
    (void)state;
    assert_int_equal(open_at("/proc/self/status", NULL, &p, &e), -ELIBACC);
    assert_non_null(strstr(e.text, "cannot be loaded"));
    assert_int_equal(open_at(BUILD_DIR "/libfake_nvml.so", NULL, &p, &e), -EPROTO);
    assert_null(p);
}

static void a_plugin_of_other_sources_is_refused(void **state)
{
    const struct plugin *p;
    struct err e;
    (void)state;
    assert_int_equal(open_at(FAKE, "old", &p, &e), -EPROTO);
    assert_non_null(strstr(e.text, "one build"));
    assert_null(p);
}

static void gpus_are_listed_by_a_process_of_their_own(void **state)
{
    const struct plugin *p;
    struct gpus *g = test_malloc(sizeof(*g));
    struct err e;
    (void)state;
    assert_int_equal(open_at(FAKE, NULL, &p, &e), 0);
    assert_int_equal(plugin_gpus(p, g, &e), 0);
    assert_int_equal(g->n, 2);
    assert_ptr_equal(g->plugin, p);
    assert_string_equal(g->gpu[1].name, "Fake 2");
    assert_int_equal(g->gpu[0].arch, 90);
    test_free(g);
}

static void a_gpu_that_fails_when_it_is_tried_is_used_without_what_was_tried(void **state)
{
    const struct plugin *p;
    struct gpus *g = test_malloc(sizeof(*g));
    struct err e;
    (void)state;
    assert_int_equal(open_at(FAKE, NULL, &p, &e), 0);
    assert_int_equal(plugin_gpus(p, g, &e), 0);
    assert_int_equal(g->gpu[0].warpgroups, 3);
    assert_int_equal(g->gpu[1].warpgroups, 0);
    setenv("TANDEM_FAKE_PLUGIN", "check crashes", 1);
    assert_int_equal(plugin_gpus(p, g, &e), 0);
    assert_int_equal(g->n, 2);
    assert_int_equal(g->gpu[0].warpgroups, 1); /* the first trial did not fail */
    unsetenv("TANDEM_FAKE_PLUGIN");
    test_free(g);
}

static void a_driver_that_fails_is_one_sentence_and_no_more(void **state)
{
    const struct plugin *p;
    struct gpus *g = test_malloc(sizeof(*g));
    struct err e;
    (void)state;
    assert_int_equal(open_at(FAKE, "none", &p, &e), 0);
    assert_int_equal(plugin_gpus(p, g, &e), -ENODEV);
    assert_string_equal(e.text, "no NVIDIA driver here");
    assert_int_equal(g->n, 0);
    setenv("TANDEM_FAKE_PLUGIN", "crash", 1); /* the process that lists dies, this one does not */
    assert_int_equal(plugin_gpus(p, g, &e), -ETIMEDOUT);
    test_free(g);
}

/* The real one: it loads on any machine, and without a driver it says so. */
static void the_cuda_plugin_loads_without_a_driver(void **state)
{
    const struct plugin *p;
    struct gpus *g;
    struct err e;
    (void)state;
    if (access(BUILD_DIR "/libtandem-cuda.so", R_OK)) {
        print_message("skipped: no nvcc, so no CUDA plugin was built\n");
        skip();
    }
    if (open_at(BUILD_DIR, NULL, &p, &e))
        fail_msg("%s", e.text);
    g = test_malloc(sizeof(*g));
    int rc = plugin_gpus(p, g, &e);
    if (!access("/dev/nvidiactl", F_OK)) {
        print_message("this machine has a driver: %s\n", rc ? e.text : g->gpu[0].name);
        assert_true(rc == 0 || rc == -ENODEV);
    } else {
        assert_int_equal(rc, -ENODEV);
        assert_non_null(strstr(e.text, "no NVIDIA driver"));
        assert_int_equal(g->n, 0);
    }
    test_free(g);
}

static void bits_are_the_cpus_unless_tensor_cores_make_them(void **state)
{
    char to[16];
    (void)state;
    gpu_numerics(to, 90, NUM_F32, NUM_F32, false);
    assert_string_equal(to, "f32-fma");
    gpu_numerics(to, 90, NUM_INT8, NUM_INT8, false);
    assert_string_equal(to, "f32-fma");
    gpu_numerics(to, 90, NUM_BF16, NUM_F32, false);
    assert_string_equal(to, "cuda-sm90");
    gpu_numerics(to, 120, NUM_INT4, NUM_BF16, false);
    assert_string_equal(to, "cuda-sm120");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_plugin_is_one_sentence),
        cmocka_unit_test(what_is_no_library_is_one_sentence),
        cmocka_unit_test(a_plugin_of_other_sources_is_refused),
        cmocka_unit_test(gpus_are_listed_by_a_process_of_their_own),
        cmocka_unit_test(a_gpu_that_fails_when_it_is_tried_is_used_without_what_was_tried),
        cmocka_unit_test(a_driver_that_fails_is_one_sentence_and_no_more),
        cmocka_unit_test(the_cuda_plugin_loads_without_a_driver),
        cmocka_unit_test(bits_are_the_cpus_unless_tensor_cores_make_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
