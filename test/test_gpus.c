/* test_gpus.c - what plans need of GPUs, and what is refused before any GPU is touched. */
#include "engine/team.h"
#include "run/gpu.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "model_help.h"

enum { SCRATCH = 100 << 20 };

static size_t scratch(const struct gpu_ask *ask, const struct gpu *g)
{
    assert_true(ask->max_tok > 0 && ask->words > 0 && ask->heads > 0 && g->arch > 0);
    return SCRATCH;
}

static const struct plugin plugin = {.abi = PLUGIN_ABI, .scratch_bytes = scratch};

static struct gpus gpus_of(int n, double gib)
{
    struct gpus g = {.plugin = &plugin, .n = n};
    for (int i = 0; i < n; i++)
        g.gpu[i] =
            (struct gpu){.name = "Fake", .arch = 90, .memory_free = (size_t)(gib * (1 << 30))};
    return g;
}

static size_t sum(struct gpu_need n) { return n.weights + n.kv + n.scratch; }

static struct plan replicas(int dp)
{
    return plan_of("llama-3-8b", (struct plan_ask){.tp = 1, .dp = dp, .max_seq = 4, .ctx = 2048});
}

static void a_rank_needs_what_the_plan_says_and_its_scratch(void **state)
{
    const struct plan p = replicas(1);
    const struct gpus g = gpus_of(1, 80);
    const struct gpu_need need = gpu_need(&p, 0, &g);
    (void)state;
    assert_int_equal(need.weights, plan_weight_bytes(&p, 0));
    assert_int_equal(need.kv, plan_kv_bytes(&p, 0));
    assert_true(need.scratch > SCRATCH && need.scratch < 3 * (size_t)SCRATCH);
}

static void as_many_pages_as_fit_fit_and_one_more_does_not(void **state)
{
    struct plan p = replicas(1);
    struct gpus g = gpus_of(1, 20);
    struct err e;
    (void)state;
    p.pages = gpu_pages(&p, &g);
    assert_true(p.pages > 128);
    assert_true(sum(gpu_need(&p, 0, &g)) + GPU_RESERVE <= g.gpu[0].memory_free);
    assert_int_equal(gpu_check(&p, &g, &e), 0);
    p.pages++;
    assert_int_equal(gpu_check(&p, &g, &e), -ENOMEM);
}

static void replicas_take_gpus_in_turn_and_share_what_is_there(void **state)
{
    const struct plan one = replicas(1), two = replicas(2), four = replicas(4);
    struct gpus g = gpus_of(2, 18);
    struct err e;
    (void)state;
    assert_int_equal(gpus_index(&g, 3), 1);
    assert_int_equal(gpu_check(&one, &g, &e), 0);
    assert_int_equal(gpu_check(&two, &g, &e), 0);
    assert_int_equal(gpu_check(&four, &g, &e), -ENOMEM); /* two on each */
    assert_int_equal(gpu_pages(&four, &g), 0);
    g = gpus_of(2, 36);
    assert_int_equal(gpu_check(&four, &g, &e), 0);
}

static void too_little_memory_says_how_much_and_what_would_fit(void **state)
{
    struct plan p = replicas(1);
    struct gpus g = gpus_of(1, 10);
    struct err e;
    char more[40];
    (void)state;
    assert_int_equal(gpu_check(&p, &g, &e), -ENOMEM);
    snprintf(more, sizeof(more), ", %.0f more",
             ((double)(sum(gpu_need(&p, 0, &g)) + GPU_RESERVE) - 10.0 * (1 << 30)) / (1 << 20));
    assert_non_null(strstr(e.text, "10240 MiB free"));
    assert_non_null(strstr(e.text, more));
    assert_non_null(strstr(e.text, "--dtype int8 would fit"));
    g = gpus_of(1, 2);
    assert_int_equal(gpu_check(&p, &g, &e), -ENOMEM);
    assert_non_null(strstr(e.text, "smaller model"));
    g = gpus_of(1, 20);
    p.pages = 10 * gpu_pages(&p, &g);
    assert_int_equal(gpu_check(&p, &g, &e), -ENOMEM);
    assert_non_null(strstr(e.text, "tokens of cache would fit"));
}

static void gpus_of_several_kinds_are_refused_when_more_than_one_is_used(void **state)
{
    const struct plan one = replicas(1), two = replicas(2);
    struct gpus g = gpus_of(2, 80);
    struct err e;
    (void)state;
    g.gpu[1].arch = 89;
    assert_int_equal(gpu_check(&one, &g, &e), 0);
    assert_int_equal(gpu_check(&two, &g, &e), -EINVAL);
    assert_non_null(strstr(e.text, "sm_90"));
    assert_non_null(strstr(e.text, "CUDA_VISIBLE_DEVICES"));
}

static void a_plan_of_other_bits_is_refused(void **state)
{
    struct plan p = replicas(1);
    const struct gpus g = gpus_of(1, 80);
    const struct team_opts opts = {.isa = ISA_REF, .gpus = &g};
    struct team *t;
    struct err e;
    (void)state;
    snprintf(p.numerics, sizeof(p.numerics), "cuda-sm80");
    assert_int_equal(plan_check(&p, &e), 0);
    assert_int_equal(team_start(&t, &p, NULL, &opts, &e), -EINVAL);
    assert_non_null(strstr(e.text, "cuda-sm80"));
    assert_non_null(strstr(e.text, "cuda-sm90"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_needs_what_the_plan_says_and_its_scratch),
        cmocka_unit_test(as_many_pages_as_fit_fit_and_one_more_does_not),
        cmocka_unit_test(replicas_take_gpus_in_turn_and_share_what_is_there),
        cmocka_unit_test(too_little_memory_says_how_much_and_what_would_fit),
        cmocka_unit_test(gpus_of_several_kinds_are_refused_when_more_than_one_is_used),
        cmocka_unit_test(a_plan_of_other_bits_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
