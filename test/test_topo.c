/* test_topo.c - what a machine is made of, as hwloc and a driver tell it: other machines are
 * hwloc's word, and the driver is test/fake_nvml.c. */
#include "topo/machine.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const char absent[] = "/nonexistent/libnvidia-ml.so";

static struct machine synthetic(const char *description)
{
    struct machine m;
    setenv("HWLOC_SYNTHETIC", description, 1);
    machine_read(&m, absent);
    unsetenv("HWLOC_SYNTHETIC");
    return m;
}

/* Two sockets, two GPUs at each, a card of InfiniBand at the second. */
static struct machine with_gpus(const char *nvml)
{
    struct machine m;
    setenv("HWLOC_XMLFILE", SOURCE_DIR "/test/machine.xml", 1);
    machine_read(&m, nvml);
    unsetenv("HWLOC_XMLFILE");
    return m;
}

static void between(const struct machine *m, int a, int b, const char *should)
{
    char there[16], back[16];
    machine_between(m, a, b, there);
    machine_between(m, b, a, back);
    assert_string_equal(there, should);
    assert_string_equal(back, should);
}

/* What is printed, by one of the printers; freed by the caller. */
static char *printed(const struct machine *m, void (*print)(const struct machine *, FILE *))
{
    char *text = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&text, &n);
    assert_non_null(to);
    print(m, to);
    fclose(to);
    return text;
}

static void groups_are_cores_with_one_cache(void **state)
{
    struct machine m = synthetic("package:2 [numa] l3:2 core:4 pu:2");
    (void)state;
    assert_int_equal(m.n_package, 2);
    assert_int_equal(m.n_node, 2);
    assert_int_equal(m.n_core, 16);
    assert_int_equal(m.n_thread, 32);
    assert_int_equal(m.n_group, 4);
    assert_int_equal(m.group[3].n_core, 4);
    assert_string_equal(m.group[3].cores, "24-31");
    between(&m, 0, 0, "-");
    between(&m, 0, 1, "node");
    between(&m, 1, 2, "sockets");
}

static void nodes_of_a_socket_are_told_from_sockets(void **state)
{
    struct machine m = synthetic("package:2 group:2 [numa] core:4 pu:1");
    (void)state;
    assert_int_equal(m.n_node, 4);
    assert_int_equal(m.n_group, 4); /* no third-level cache: by node */
    between(&m, 0, 1, "socket");
    between(&m, 1, 2, "sockets");
}

static void without_a_driver_one_line_says_so(void **state)
{
    struct machine m = with_gpus(absent);
    char *tree = printed(&m, machine_print_tree);
    (void)state;
    assert_int_equal(m.nvml.n, 0);
    assert_non_null(strstr(tree, "no NVIDIA driver here"));
    assert_non_null(strstr(tree, "GPU: PCI device 10de:2330 at 0000:17:00.0, PCIe 63.0 GB/s\n"));
    free(tree);
}

static void gpus_have_their_names_and_links_from_the_driver(void **state)
{
    struct machine m = with_gpus(BUILD_DIR "/libfake_nvml.so");
    (void)state;
    assert_int_equal(m.n_group, 2);
    assert_int_equal(m.n_card, 5);
    const struct machine_card *last = &m.card[3];
    assert_string_equal(last->name, "Test GPU D");
    assert_true(last->memory_bytes == 80 * 0x1p30);
    assert_true(m.card[0].link_bytes_s == 16 * 3.938e9); /* as the driver says: 5.0, 16 lanes */
    assert_true(last->link_bytes_s > 63.0e9 && last->link_bytes_s < 63.02e9); /* as hwloc says */
    between(&m, 2, 3, "NVLink x4");
    between(&m, 4, 5, "NVSwitch x2");
    between(&m, 3, 4, "sockets"); /* GPU B has no links to switches */
    between(&m, 0, 2, "PCIe");
    between(&m, 0, 6, "sockets");
    between(&m, 5, 6, "PCIe");
}

static void tree_and_matrix_show_all_of_it(void **state)
{
    struct machine m = with_gpus(BUILD_DIR "/libfake_nvml.so");
    char *tree = printed(&m, machine_print_tree), *matrix = printed(&m, machine_print_matrix);
    (void)state;
    assert_string_equal(
        tree, "Test CPU: 2 sockets, 2 NUMA nodes, 4 cores, 4 threads, 2 GiB of memory\n"
              "socket 0\n"
              "  node 0: 1 GiB of memory, 2 cores, threads 0-1\n"
              "    GPU: Test GPU A at 0000:17:00.0, 80 GiB, PCIe 63.0 GB/s\n"
              "    GPU: Test GPU B at 0000:27:00.0, 80 GiB, PCIe 63.0 GB/s, cut into "
              "instances (MIG), persistence mode off (starting takes longer)\n"
              "socket 1\n"
              "  node 1: 1 GiB of memory, 2 cores, threads 2-3\n"
              "    GPU: Test GPU C at 0000:37:00.0, 80 GiB, PCIe 63.0 GB/s, 2 NVLinks to switches, "
              "compute mode: one process\n"
              "    GPU: Test GPU D at 0000:47:00.0, 80 GiB, PCIe 63.0 GB/s, 2 NVLinks to switches\n"
              "    network: ib0 at 0000:57:00.0, PCIe 63.0 GB/s\n"
              "NVIDIA driver 999.1, 4 GPUs\n");
    assert_non_null(strstr(matrix, "cores 0      cores 1      GPU 0        GPU 1"));
    assert_non_null(
        strstr(matrix, "\nGPU 0      PCIe         sockets      -            NVLink x4"));
    free(tree), free(matrix);
}

static void json_has_the_same_matrix(void **state)
{
    struct machine m = with_gpus(BUILD_DIR "/libfake_nvml.so");
    json_t *o = machine_to_json(&m);
    (void)state;
    assert_non_null(o);
    const json_t *row = json_array_get(json_object_get(o, "between"), 2);
    assert_int_equal(json_array_size(row), 7);
    assert_string_equal(json_string_value(json_array_get(row, 3)), "NVLink x4");
    const json_t *cards = json_object_get(o, "cards");
    assert_true(json_is_true(json_object_get(json_array_get(cards, 1), "mig")));
    assert_true(json_is_false(json_object_get(json_array_get(cards, 0), "mig")));
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(cards, 2), "compute_mode")),
        "one process");
    assert_null(json_object_get(json_array_get(cards, 4), "mig")); /* a network card */
    json_decref(o);
}

/* A container may hide PCI devices and still have the driver. */
static void gpus_that_hwloc_does_not_see_are_listed_too(void **state)
{
    struct machine m;
    (void)state;
    setenv("HWLOC_SYNTHETIC", "package:1 [numa] core:2 pu:1", 1);
    machine_read(&m, BUILD_DIR "/libfake_nvml.so");
    unsetenv("HWLOC_SYNTHETIC");
    assert_int_equal(m.n_card, 4);
    assert_string_equal(m.card[0].name, "Test GPU A");
    assert_int_equal(m.card[0].at.package, -1);
    between(&m, 1, 2, "NVLink x4");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_are_cores_with_one_cache),
        cmocka_unit_test(nodes_of_a_socket_are_told_from_sockets),
        cmocka_unit_test(without_a_driver_one_line_says_so),
        cmocka_unit_test(gpus_have_their_names_and_links_from_the_driver),
        cmocka_unit_test(tree_and_matrix_show_all_of_it),
        cmocka_unit_test(json_has_the_same_matrix),
        cmocka_unit_test(gpus_that_hwloc_does_not_see_are_listed_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
