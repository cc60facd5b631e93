/* test_metrics_gpu.c - what GPUs are doing, as metrics; the driver is test/fake_nvml.c. */
#include "base/base.h"
#include "serve/gpu_metrics.h"
#include "topo/nvml_live.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

static const char driver[] = BUILD_DIR "/libfake_nvml.so";

/* What is written; freed by the caller. */
static char *written(struct gpu_metrics *g)
{
    char *text = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&text, &n);
    assert_non_null(to);
    gpu_metrics_write(to, g, "model_name=\"m\"");
    fclose(to);
    return text;
}

/* Written until `line` is in it, at most ten seconds long; freed by the caller. */
static char *written_with(struct gpu_metrics *g, const char *line)
{
    char *text = written(g);
    for (int i = 0; i < 1000 && !strstr(text, line); i++) {
        usleep(10000);
        free(text);
        text = written(g);
    }
    return text;
}

static void without_a_driver_nothing_is_written(void **state)
{
    struct gpu_metrics *g = gpu_metrics_start("/nonexistent/libnvidia-ml.so");
    char *text = written(g);
    (void)state;
    assert_null(g);
    assert_string_equal(text, "");
    gpu_metrics_stop(g);
    free(text);
}

static void has(const char *text, const char *line)
{
    if (!strstr(text, line))
        fail_msg("no line '%s' in\n%s", line, text);
}

static void every_figure_that_is_told_has_a_line(void **state)
{
    struct gpu_metrics *g = gpu_metrics_start(driver);
    (void)state;
    assert_non_null(g);
    char *text = written_with(g, "gpu_sample_age_seconds");
    has(text, "tandem:gpu_info{model_name=\"m\",gpu=\"1\",name=\"Test GPU B\",bus=\"00000000:27:"
              "00.0\",driver=\"999.1\",mig=\"on\"} 1\n");
    has(text, "# TYPE tandem:gpu_utilization gauge\n"
              "tandem:gpu_utilization{model_name=\"m\",gpu=\"0\"} 0.87\n");
    has(text, "tandem:gpu_memory_utilization{model_name=\"m\",gpu=\"0\"} 0.42\n");
    has(text, "tandem:gpu_memory_used_bytes{model_name=\"m\",gpu=\"3\"} 21474836480\n");
    has(text, "tandem:gpu_memory_free_bytes{model_name=\"m\",gpu=\"3\"} 64424509440\n");
    has(text, "tandem:gpu_power_watts{model_name=\"m\",gpu=\"0\"} 512.5\n");
    has(text, "tandem:gpu_power_limit_watts{model_name=\"m\",gpu=\"0\"} 700\n");
    has(text, "tandem:gpu_energy_joules_total{model_name=\"m\",gpu=\"0\"} 1234.567\n");
    has(text,
        "tandem:gpu_nvlink_errors_total{model_name=\"m\",gpu=\"2\"} 156\n"); /* 45 + 52 + 59 */
    has(text, "tandem:gpu_temperature_celsius{model_name=\"m\",gpu=\"2\"} 61\n");
    has(text, "tandem:gpu_sm_clock_hertz{model_name=\"m\",gpu=\"0\"} 1980000000\n");
    has(text, "tandem:gpu_ecc_corrected_errors_total{model_name=\"m\",gpu=\"0\"} 5\n");
    has(text, "tandem:gpu_ecc_uncorrected_errors_total{model_name=\"m\",gpu=\"0\"} 1\n");
    has(text, "tandem:gpu_nvlinks_up{model_name=\"m\",gpu=\"0\"} 4\n");
    has(text, "tandem:gpu_nvlink_errors_total{model_name=\"m\",gpu=\"0\"} 6\n");
    has(text, "tandem:gpu_pcie_lanes{model_name=\"m\",gpu=\"0\"} 16\n");
    has(text, "tandem:gpu_pcie_replays_total{model_name=\"m\",gpu=\"0\"} 9\n");
    has(text, "tandem:gpu_slowed{model_name=\"m\",gpu=\"0\",why=\"power_cap\"} 1\n");
    has(text, "tandem:gpu_slowed{model_name=\"m\",gpu=\"0\",why=\"hardware\"} 0\n");
    has(text, "tandem:gpu_slowed{model_name=\"m\",gpu=\"0\",why=\"hardware_thermal\"} 1\n");
    has(text, "tandem:gpu_lost{model_name=\"m\",gpu=\"1\"} 0\n");
    has(text, "tandem:gpu_last_xid{model_name=\"m\",gpu=\"0\"} 0\n");
    assert_null(strstr(text, "gpu_power_watts{model_name=\"m\",gpu=\"3\"")); /* not told: no line */
    assert_null(strstr(text, "gpu_nvlink_errors_total{model_name=\"m\",gpu=\"3\""));
    free(text);
    gpu_metrics_stop(g);
}

static void a_driver_that_takes_its_time_to_begin_holds_up_nobody(void **state)
{
    (void)state;
    setenv("FAKE_NVML_SLOW_MS", "2000", 1);
    struct gpu_metrics *g = gpu_metrics_start(driver);
    assert_non_null(g);
    char *text = written(g);
    assert_string_equal(text, ""); /* nobody waited for it */
    free(text);
    text = written_with(g, "gpu_sample_age_seconds");
    has(text, "tandem:gpu_info{model_name=\"m\",gpu=\"0\"");
    free(text);
    unsetenv("FAKE_NVML_SLOW_MS");
    gpu_metrics_stop(g);
}

static void a_lost_gpu_and_an_xid_are_told(void **state)
{
    char file[] = "/tmp/tandem-fault-XXXXXX";
    int fd = mkstemp(file);
    (void)state;
    assert_true(fd >= 0);
    close(fd);
    unlink(file);
    setenv("FAKE_NVML_FAULT", file, 1);
    struct gpu_metrics *g = gpu_metrics_start(driver);
    assert_non_null(g);
    free(written_with(g, "gpu_sample_age_seconds"));
    fd = open(file, O_CREAT | O_RDWR, 0600);
    char *text = written_with(g, "tandem:gpu_last_xid{model_name=\"m\",gpu=\"0\"} 79\n");
    has(text, "tandem:gpu_last_xid{model_name=\"m\",gpu=\"0\"} 79\n");
    has(text, "tandem:gpu_xid_errors_total{model_name=\"m\",gpu=\"0\"} 1\n");
    has(text, "tandem:gpu_lost{model_name=\"m\",gpu=\"1\"} 1\n");
    has(text, "tandem:gpu_lost{model_name=\"m\",gpu=\"0\"} 0\n");
    assert_null(strstr(text, "gpu_memory_used_bytes{model_name=\"m\",gpu=\"1\""));
    free(text);
    gpu_metrics_stop(g);
    close(fd);
    unlink(file);
    unsetenv("FAKE_NVML_FAULT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_driver_nothing_is_written),
        cmocka_unit_test(every_figure_that_is_told_has_a_line),
        cmocka_unit_test(a_driver_that_takes_its_time_to_begin_holds_up_nobody),
        cmocka_unit_test(a_lost_gpu_and_an_xid_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
