/* test_host.c - the machine as hwloc tells it, and the layouts that follow. More than one node is
 * hwloc's word here, never hardware. */
#include "plan/place.h"
#include "topo/host.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "model_help.h"

/* Another machine, as hwloc's synthetic description says. */
static struct host machine(const char *description, const cpu_set_t *only)
{
    struct host h;
    setenv("HWLOC_SYNTHETIC", description, 1);
    host_read(&h, only);
    unsetenv("HWLOC_SYNTHETIC");
    return h;
}

static struct plan layout(const char *model, const struct host *h, struct plan_ask ask)
{
    ask.host = h;
    return plan_of(model, ask);
}

/* Every core of every rank's threads: on one node, and nobody else's. */
static void expect_apart(const struct plan *p, const struct host *h)
{
    bool taken[HOST_CORES] = {0};
    for (int r = 0; r < p->dp * plan_ranks(p); r++) {
        int core[PLAN_THREADS];
        host_run(h, p->core[r], p->threads, core);
        for (int i = 0; i < p->threads; i++) {
            int at = host_find(h, core[i]);
            assert_in_range(at, 0, h->n_core - 1);
            assert_false(taken[at]);
            taken[at] = true;
            assert_int_equal(h->core[at].at, h->core[host_find(h, core[0])].at);
        }
    }
}

static int node_of(const struct plan *p, const struct host *h, int rank)
{
    return h->node[h->core[host_find(h, p->core[rank])].at];
}

/* ------------------------------------------------------------------------------- the machine */

static void this_machine_has_the_cores_of_our_affinity(void **state)
{
    struct host h;
    cpu_set_t own;
    (void)state;
    host_read(&h, NULL);
    assert_int_equal(sched_getaffinity(0, sizeof(own), &own), 0);
    assert_in_range(h.n_core, 1, CPU_COUNT(&own));
    assert_in_range(h.n_node, 1, h.n_core);
    for (int i = 0; i < h.n_core; i++)
        assert_true(CPU_ISSET((size_t)h.core[i].cpu, &own));
}

static void siblings_of_a_core_are_left_out(void **state)
{
    struct host h = machine("numa:2 core:64 pu:2", NULL);
    (void)state;
    assert_int_equal(h.n_node, 2);
    assert_int_equal(h.n_core, 128);
    for (int i = 0; i < 128; i++) {
        assert_int_equal(h.core[i].cpu, 2 * i);
        assert_int_equal(h.core[i].at, i / 64);
    }
}

/* Threads 0 1 2 3 on one socket's cores 0 2 4 6, as some firmware counts. */
static void cores_come_node_by_node_however_they_are_counted(void **state)
{
    struct host h = machine("numa:2(indexes=0,1) core:4 pu:1(indexes=0,2,4,6,1,3,5,7)", NULL);
    int run[4];
    (void)state;
    assert_int_equal(h.n_core, 8);
    host_run(&h, 1, 4, run);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(run[i], 2 * i + 1);
        assert_int_equal(h.core[host_find(&h, run[i])].at, 1);
    }
}

static void an_affinity_mask_takes_cores_and_nodes_away(void **state)
{
    cpu_set_t only;
    (void)state;
    CPU_ZERO(&only);
    CPU_SET(5, &only); /* the second thread of core 2 */
    CPU_SET(20, &only);
    CPU_SET(21, &only); /* both of core 10, of node 1 */
    struct host h = machine("numa:4 core:8 pu:2", &only);
    assert_int_equal(h.n_core, 2);
    assert_int_equal(h.n_node, 2);
    assert_int_equal(h.core[0].cpu, 5);
    assert_int_equal(h.core[1].cpu, 20);
    CPU_ZERO(&only);
    CPU_SET(40, &only);
    h = machine("numa:4 core:8 pu:2", &only);
    assert_int_equal(h.n_node, 1);
    assert_int_equal(h.node[0], 2);
}

/* Node 1 has no cores, as memory on a bus of its own; nodes 0 and 2 have three and one. */
static const char UNEVEN[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
    "<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n"
    "<topology version=\"2.0\">\n"
    "<object type=\"Machine\" os_index=\"0\" cpuset=\"0xf\" complete_cpuset=\"0xf\" "
    "allowed_cpuset=\"0xf\" nodeset=\"0x7\" complete_nodeset=\"0x7\" allowed_nodeset=\"0x7\" "
    "gp_index=\"1\">\n"
    "<object type=\"NUMANode\" os_index=\"1\" cpuset=\"0x0\" complete_cpuset=\"0x0\" "
    "nodeset=\"0x2\" complete_nodeset=\"0x2\" gp_index=\"2\" local_memory=\"4096\"/>\n"
    "<object type=\"Package\" os_index=\"0\" cpuset=\"0x7\" complete_cpuset=\"0x7\" "
    "nodeset=\"0x1\" complete_nodeset=\"0x1\" gp_index=\"3\">\n"
    "<object type=\"NUMANode\" os_index=\"0\" cpuset=\"0x7\" complete_cpuset=\"0x7\" "
    "nodeset=\"0x1\" complete_nodeset=\"0x1\" gp_index=\"4\" local_memory=\"4096\"/>\n"
    "<object type=\"PU\" os_index=\"0\" cpuset=\"0x1\" complete_cpuset=\"0x1\" nodeset=\"0x1\" "
    "complete_nodeset=\"0x1\" gp_index=\"5\"/>\n"
    "<object type=\"PU\" os_index=\"1\" cpuset=\"0x2\" complete_cpuset=\"0x2\" nodeset=\"0x1\" "
    "complete_nodeset=\"0x1\" gp_index=\"6\"/>\n"
    "<object type=\"PU\" os_index=\"2\" cpuset=\"0x4\" complete_cpuset=\"0x4\" nodeset=\"0x1\" "
    "complete_nodeset=\"0x1\" gp_index=\"7\"/>\n"
    "</object>\n"
    "<object type=\"Package\" os_index=\"1\" cpuset=\"0x8\" complete_cpuset=\"0x8\" "
    "nodeset=\"0x4\" complete_nodeset=\"0x4\" gp_index=\"8\">\n"
    "<object type=\"NUMANode\" os_index=\"2\" cpuset=\"0x8\" complete_cpuset=\"0x8\" "
    "nodeset=\"0x4\" complete_nodeset=\"0x4\" gp_index=\"9\" local_memory=\"4096\"/>\n"
    "<object type=\"PU\" os_index=\"3\" cpuset=\"0x8\" complete_cpuset=\"0x8\" nodeset=\"0x4\" "
    "complete_nodeset=\"0x4\" gp_index=\"10\"/>\n"
    "</object>\n"
    "</object>\n"
    "</topology>\n";

static struct host uneven(void)
{
    char path[] = "/tmp/tandem-host-XXXXXX";
    struct host h;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "w");
    fputs(UNEVEN, f);
    fclose(f);
    setenv("HWLOC_XMLFILE", path, 1);
    host_read(&h, NULL);
    unsetenv("HWLOC_XMLFILE");
    remove(path);
    return h;
}

static void a_node_without_cores_is_no_place_for_ranks(void **state)
{
    struct host h = uneven();
    (void)state;
    assert_int_equal(h.n_core, 4);
    assert_int_equal(h.n_node, 2);
    assert_int_equal(h.node[0], 0);
    assert_int_equal(h.node[1], 2);
}

static void a_machine_that_cannot_be_read_is_one_node(void **state)
{
    struct host h;
    cpu_set_t only;
    (void)state;
    CPU_ZERO(&only);
    CPU_SET(0, &only);
    CPU_SET(3, &only);
    setenv("HWLOC_XMLFILE", "/nonexistent/machine.xml", 1);
    setenv("HWLOC_COMPONENTS", "xml,stop", 1);
    host_read(&h, &only);
    unsetenv("HWLOC_COMPONENTS");
    unsetenv("HWLOC_XMLFILE");
    assert_int_equal(h.n_node, 1);
    assert_int_equal(h.n_core, 2);
    assert_int_equal(h.core[1].cpu, 3);
}

/* ------------------------------------------------------------------------------- layouts */

static void one_node_is_one_rank_with_all_its_cores(void **state)
{
    struct host two = machine("numa:1 core:2 pu:1", NULL), more = machine("core:48 pu:2", NULL);
    struct plan p = layout("llama-3-8b", &two, (struct plan_ask){0});
    (void)state;
    assert_int_equal(p.tp, 1);
    assert_int_equal(p.threads, 2);
    assert_int_equal(p.core[0], 0);
    p = layout("llama-3-8b", &more, (struct plan_ask){0});
    assert_int_equal(p.tp, 1);
    assert_int_equal(p.threads, 48);
}

static void a_node_is_a_slice_and_its_cores_are_threads(void **state)
{
    static const struct {
        const char *machine, *model;
        int tp, threads;
    } want[] = {{"numa:2 core:64 pu:2", "llama-3-8b", 2, 64},
                {"numa:2 core:64 pu:2", "qwen2.5-0.5b", 2, 64},
                {"numa:8 core:16 pu:1", "llama-3-8b", 8, 16},
                {"numa:8 core:16 pu:1", "qwen2.5-7b", 8, 16},
                {"numa:16 core:8 pu:2", "llama-3-70b", 8, 16},
                {"numa:4 core:24 pu:1", "qwen2.5-0.5b", 4, 24},
                {"numa:3 core:24 pu:1", "llama-3-8b", 3, 24}};
    (void)state;
    for (size_t i = 0; i < COUNT(want); i++) {
        struct host h = machine(want[i].machine, NULL);
        struct plan p = layout(want[i].model, &h, (struct plan_ask){0});
        if (p.tp != want[i].tp || p.threads != want[i].threads || p.shares != 8)
            fail_msg("%s, %s: tp %d, %d threads, %d shares", want[i].machine, want[i].model, p.tp,
                     p.threads, p.shares);
        if (p.tp == h.n_node)
            expect_apart(&p, &h);
    }
}

/* A rank has 64 threads at most, and eight shares do not go into six. */
static void no_large_part_of_a_machine_stays_idle(void **state)
{
    static const char *const machines[] = {"numa:1 core:128 pu:2", "numa:2 core:128 pu:2",
                                           "numa:2 core:192 pu:2", "numa:6 core:43 pu:2",
                                           "numa:5 core:16 pu:1",  "numa:7 core:8 pu:1"};
    (void)state;
    for (size_t i = 0; i < COUNT(machines); i++) {
        struct host h = machine(machines[i], NULL);
        struct plan p = layout("llama-3-8b", &h, (struct plan_ask){0});
        int most = 0;
        for (int t = 0; t < p.tp; t++)
            most = max_int(most, p.cut[t + 1] - p.cut[t]);
        if (8 * p.shares * p.threads < 7 * h.n_core * most)
            fail_msg("%s: tp %d of %d threads", machines[i], p.tp, p.threads);
        assert_true(p.core[p.tp - 1] > p.core[0]);
    }
}

static void slices_asked_for_are_spread_over_the_nodes(void **state)
{
    struct host h = machine("numa:2 core:64 pu:2", NULL);
    struct plan p = layout("llama-3-8b", &h, (struct plan_ask){.tp = 4});
    (void)state;
    assert_int_equal(p.threads, 32);
    expect_apart(&p, &h);
    for (int r = 0; r < 4; r++)
        assert_int_equal(node_of(&p, &h, r), r / 2);
    p = layout("llama-3-8b", &h, (struct plan_ask){.tp = 4, .threads = 3});
    expect_apart(&p, &h);
    for (int r = 0; r < 4; r++)
        assert_int_equal(node_of(&p, &h, r), r / 2);
    assert_int_equal(p.core[1], 6);
    assert_int_equal(p.core[2], 128);
}

static void stages_or_threads_asked_for_leave_one_slice(void **state)
{
    struct host h = machine("numa:2 core:64 pu:2", NULL);
    struct plan p = layout("llama-3-8b", &h, (struct plan_ask){.pp = 2});
    (void)state;
    assert_int_equal(p.tp, 1);
    assert_int_equal(p.threads, 64);
    expect_apart(&p, &h);
    assert_int_equal(node_of(&p, &h, 1), 1);
    p = layout("llama-3-8b", &h, (struct plan_ask){.threads = 8});
    assert_int_equal(p.tp, 1);
}

static void as_many_replicas_as_nodes_have_one_each(void **state)
{
    struct host h = machine("numa:4 core:16 pu:2", NULL);
    struct plan p = layout("llama-3-8b", &h, (struct plan_ask){.dp = 4});
    (void)state;
    assert_int_equal(p.tp, 1);
    assert_int_equal(p.threads, 16);
    expect_apart(&p, &h);
    for (int d = 0; d < 4; d++) {
        struct plan one = plan_replica(&p, d);
        assert_int_equal(one.dp, 1);
        assert_int_equal(node_of(&one, &h, 0), d);
    }
    p = layout("llama-3-8b", &h, (struct plan_ask){.dp = 2});
    assert_int_equal(p.tp, 2);
    expect_apart(&p, &h);
    struct plan second = plan_replica(&p, 1);
    assert_int_equal(node_of(&second, &h, 0), 2);
    assert_int_equal(node_of(&second, &h, 1), 3);
}

static void a_plan_file_has_the_cores_of_all_replicas(void **state)
{
    struct host h = machine("numa:4 core:16 pu:2", NULL);
    struct plan p = layout("llama-3-8b", &h, (struct plan_ask){.dp = 2}), again;
    struct err e;
    json_t *o = plan_to_json(&p);
    (void)state;
    if (plan_from_json(o, &again, &e))
        fail_msg("%s", e.text);
    assert_memory_equal(again.core, p.core, 4 * sizeof(int));
    json_array_remove(json_object_get(o, "core"), 3);
    assert_int_equal(plan_from_json(o, &again, &e), -EINVAL);
    assert_non_null(strstr(e.text, "core: a list of 4 to 4"));
    json_decref(o);
    p.dp = 64, p.tp = 8;
    assert_int_equal(plan_check(&p, &e), -EINVAL);
    assert_non_null(strstr(e.text, "more than 256"));
}

static void a_quota_takes_threads_and_then_nodes(void **state)
{
    struct host h = machine("numa:2 core:64 pu:2", NULL);
    struct plan p = layout("llama-3-8b", &h, (struct plan_ask){.quota = 100});
    (void)state;
    assert_int_equal(p.tp, 2);
    assert_int_equal(p.threads, 50);
    expect_apart(&p, &h);
    p = layout("llama-3-8b", &h, (struct plan_ask){.quota = 16});
    assert_int_equal(p.tp, 1);
    assert_int_equal(p.threads, 16);
}

static void uneven_nodes_share_their_cores_out_in_order(void **state)
{
    struct host h = uneven();
    struct plan p = layout("llama-3-8b", &h, (struct plan_ask){0});
    (void)state;
    assert_int_equal(p.tp, 2);
    assert_int_equal(p.threads, 2);
    assert_int_equal(p.core[0], 0);
    assert_int_equal(p.core[1], 2);
}

static void ranks_without_cores_enough_are_not_pinned(void **state)
{
    struct host h = machine("numa:2 core:2 pu:2", NULL);
    struct plan p = layout("llama-3-8b", &h, (struct plan_ask){.tp = 8});
    int core[2];
    (void)state;
    for (int r = 0; r < 8; r++)
        assert_int_equal(p.core[r], -1);
    host_run(&h, -1, 2, core);
    assert_int_equal(core[1], -1);
    p = layout("llama-3-8b", &h, (struct plan_ask){.tp = 2, .threads = 3});
    assert_int_equal(p.core[0], -1);
}

static void an_unknown_core_counts_up(void **state)
{
    struct host h = machine("numa:2 core:2 pu:2", NULL);
    int core[3];
    (void)state;
    host_run(&h, 1, 3, core); /* a sibling, by a plan's word */
    assert_int_equal(core[2], 3);
    host_run(NULL, 4, 3, core);
    assert_int_equal(core[2], 6);
    host_run(&h, 4, 3, core); /* two are left there */
    assert_int_equal(core[2], 6);
}

/* ------------------------------------------------------------------------------- near cards */

static void ranks_stand_near_their_gpus(void **state)
{
    struct host h = machine("package:2 [numa] core:8 pu:1", NULL);
    struct plan p = layout("llama-3-8b", &h, (struct plan_ask){.tp = 4, .threads = 3});
    const int node[] = {1, 0, 1, -1}, none[] = {-1, -1, -1, -1}, full[] = {1, 1, 1, 1};
    (void)state;
    const struct plan before = p;
    place_ranks_near(&p, &h, none);
    assert_memory_equal(p.core, before.core, sizeof(p.core));
    place_ranks_near(&p, &h, node);
    expect_apart(&p, &h);
    for (int r = 0; r < 4; r++)
        assert_int_equal(node_of(&p, &h, r), r == 3 ? 0 : node[r]);
    place_ranks_near(&p, &h, full); /* two fit, the others stand elsewhere */
    expect_apart(&p, &h);
    assert_int_equal(node_of(&p, &h, 1), 1);
    assert_int_equal(node_of(&p, &h, 2), 0);
}

static void a_card_s_node_is_what_the_kernel_says(void **state)
{
    char root[] = "/tmp/tandem-sys-XXXXXX", command[300];
    (void)state;
    assert_non_null(mkdtemp(root));
    snprintf(command, sizeof(command),
             "d=%s/bus/pci/devices/0000:a7:00.0 && mkdir -p $d && echo 1 >$d/numa_node", root);
    assert_int_equal(system(command), 0);
    assert_int_equal(host_card_node("00000000:A7:00.0", root), 1); /* as NVML writes it */
    assert_int_equal(host_card_node("0000:a7:00.0", root), 1);
    assert_int_equal(host_card_node("0000:a8:00.0", root), -1);
    assert_int_equal(host_card_node("model", root), -1);
    snprintf(command, sizeof(command), "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(this_machine_has_the_cores_of_our_affinity),
        cmocka_unit_test(siblings_of_a_core_are_left_out),
        cmocka_unit_test(cores_come_node_by_node_however_they_are_counted),
        cmocka_unit_test(an_affinity_mask_takes_cores_and_nodes_away),
        cmocka_unit_test(a_node_without_cores_is_no_place_for_ranks),
        cmocka_unit_test(a_machine_that_cannot_be_read_is_one_node),
        cmocka_unit_test(one_node_is_one_rank_with_all_its_cores),
        cmocka_unit_test(a_node_is_a_slice_and_its_cores_are_threads),
        cmocka_unit_test(no_large_part_of_a_machine_stays_idle),
        cmocka_unit_test(slices_asked_for_are_spread_over_the_nodes),
        cmocka_unit_test(stages_or_threads_asked_for_leave_one_slice),
        cmocka_unit_test(as_many_replicas_as_nodes_have_one_each),
        cmocka_unit_test(a_plan_file_has_the_cores_of_all_replicas),
        cmocka_unit_test(a_quota_takes_threads_and_then_nodes),
        cmocka_unit_test(uneven_nodes_share_their_cores_out_in_order),
        cmocka_unit_test(ranks_without_cores_enough_are_not_pinned),
        cmocka_unit_test(an_unknown_core_counts_up),
        cmocka_unit_test(ranks_stand_near_their_gpus),
        cmocka_unit_test(a_card_s_node_is_what_the_kernel_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
