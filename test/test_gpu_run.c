/* test_gpu_run.c - the whole way of a GPU: plugin, ranks, weights, steps, recordings, on the model
 * of a GPU (cuda_model.h). Where tensor cores do nothing the logits are the CPU's, bit by bit. The
 * trained model needs the shared test data. */
#include "gpus_help.h"
#include "model/folder.h"
#include "run/gpu.h"
#include "tiny.h"

#include <math.h>
#include <unistd.h>

static const struct gpus *apart(void)
{
    static struct gpus gpus;
    if (!gpus.n)
        list_apart(&gpus, "gpus=4 peers=0");
    return &gpus;
}

/* How the model is split, beside what every plan here has. */
struct split {
    int tp, pp, chunk;
    bool sp;
    int ep;
    bool fast;
};

static struct plan plan_of(const struct model *m, enum num weight, enum num kv, struct split split)
{
    struct plan p;
    struct err e;
    char numerics[16];
    gpu_numerics(numerics, the_gpus()->gpu[0].arch, weight, kv, split.fast);
    struct plan_ask ask = {.tp = split.tp,
                           .pp = split.pp,
                           .sp = split.sp,
                           .ep = split.ep,
                           .ctx = 64,
                           .max_tok = split.chunk,
                           .weight = weight,
                           .kv = kv,
                           .numerics = numerics};
    if (plan_make(&p, m, &ask, &e))
        fail_msg("%s", e.text);
    p.max_out = split.chunk;
    return p;
}

/* What the experts of some layers had to do. */
enum { LAYERS = 2, EXPERTS = 6 };
struct loads {
    uint64_t rows[LAYERS][EXPERTS];
    struct turn_load turns[LAYERS];
};

/* Logits of ids, a chunk of the plan's at a time; and the loads of its experts, if asked. */
static float *logits_of(const struct plan *p, const struct store *s, const struct gpus *gpus,
                        const int *ids, int n, struct loads *loads)
{
    struct team *team = NULL;
    struct err e;
    struct team_opts opts = {.isa = ISA_REF, .keep_logits = true, .gpus = gpus};
    float *to = test_malloc((size_t)n * (size_t)p->model.n_vocab * sizeof(*to));
    if (team_start(&team, p, s, &opts, &e))
        fail_msg("%s", e.text);
    struct session *session = session_new(team, p);
    if (session_logits(session, ids, n, to, &e))
        fail_msg("%s", e.text);
    if (loads)
        team_loads(team, loads->rows[0], loads->turns);
    session_free(session);
    team_stop(team);
    return to;
}

static void same(const struct plan *p, const float *a, const float *b, int n)
{
    for (int i = 0; i < n; i++)
        for (int w = 0; w < p->model.n_vocab; w++) {
            size_t at = (size_t)i * (size_t)p->model.n_vocab + (size_t)w;
            if (memcmp(&a[at], &b[at], sizeof(float)) != 0)
                fail_msg("token %d, word %d: %a is not %a", i, w, (double)a[at], (double)b[at]);
        }
}

enum { TOKENS = 24 };

static void some_ids(int ids[TOKENS], int n_vocab)
{
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * 37 + 11) % n_vocab;
}

/* The CPU's bits in every split. */
static void equals_cpu_on(const struct gpus *gpus, const struct model *m, enum num weight,
                          enum num kv, const struct split *split, size_t n)
{
    struct tiny t = tiny_make(m, weight == NUM_F16 ? NUM_F16 : NUM_F32, 7);
    int ids[TOKENS];
    some_ids(ids, m->n_vocab);
    struct plan p = plan_of(m, weight, kv, split[0]);
    float *want = logits_of(&p, t.store, NULL, ids, TOKENS, NULL);
    for (size_t i = 0; i < n; i++) {
        p = plan_of(m, weight, kv, split[i]);
        float *got = logits_of(&p, t.store, gpus, ids, TOKENS, NULL);
        same(&p, got, want, TOKENS);
        test_free(got);
    }
    test_free(want);
    tiny_free(&t);
}

static void equals_cpu(const struct model *m, enum num weight, enum num kv,
                       const struct split *split, size_t n)
{
    equals_cpu_on(the_gpus(), m, weight, kv, split, n);
}

/* One token at a time is recorded and replayed. */
static const struct split chunks[] = {{.chunk = TOKENS}, {.chunk = 5}, {.chunk = 1}};

static void logits_are_the_cpus_bit_by_bit(void **state)
{
    const struct model m = tiny_llama(2);
    (void)state;
    equals_cpu(&m, NUM_F32, NUM_F32, chunks, COUNT(chunks));
    equals_cpu(&m, NUM_F16, NUM_F32, chunks, COUNT(chunks));
    equals_cpu(&m, NUM_INT8, NUM_INT8, chunks, COUNT(chunks));
    equals_cpu(&m, NUM_INT4, NUM_F32, chunks, COUNT(chunks));
}

static void groups_of_gpus_give_the_same_bits(void **state)
{
    const struct split split[] = {{.chunk = TOKENS},
                                  {.tp = 2, .chunk = 5},
                                  {.tp = 2, .chunk = 1},
                                  {.tp = 3, .chunk = 7},
                                  {.pp = 2, .chunk = 5},
                                  {.tp = 2, .pp = 2, .chunk = 1},
                                  {.tp = 2, .chunk = 9, .sp = true}};
    const struct model m = tiny_llama(2);
    (void)state;
    equals_cpu(&m, NUM_F32, NUM_F32, split, COUNT(split));
}

static void gpus_that_do_not_reach_each_other_give_the_same_bits(void **state)
{
    const struct split split[] = {{.tp = 2, .chunk = 5},
                                  {.tp = 2, .chunk = 1},
                                  {.tp = 3, .chunk = 7},
                                  {.tp = 2, .pp = 2, .chunk = 5},
                                  {.tp = 2, .chunk = 9, .sp = true}};
    const struct model m = tiny_llama(2);
    (void)state;
    needs_model();
    for (size_t i = 0; i < COUNT(split); i++) {
        const struct plan p = plan_of(&m, NUM_F32, NUM_F32, split[i]);
        assert_int_equal(gpu_libraries(&p, apart()), LIBRARY_NCCL);
        assert_int_equal(gpu_libraries(&p, the_gpus()), 0);
    }
    equals_cpu_on(apart(), &m, NUM_F32, NUM_F32, split, COUNT(split));
}

/* --fast: sums of ranks in NCCL's order. */
static void fast_logits_are_near(void **state)
{
    const struct split split[] = {
        {.tp = 2, .chunk = 5, .fast = true},
        {.tp = 3, .chunk = 1, .fast = true},
        {.tp = 2, .chunk = 8, .sp = true, .fast = true},
        {.chunk = TOKENS, .fast = true},
    };
    const struct model m = tiny_llama(2);
    struct tiny t = tiny_make(&m, NUM_F32, 7);
    int ids[TOKENS];
    (void)state;
    needs_model();
    some_ids(ids, m.n_vocab);
    struct plan p = plan_of(&m, NUM_F32, NUM_F32, (struct split){.chunk = TOKENS});
    float *want = logits_of(&p, t.store, NULL, ids, TOKENS, NULL);
    for (size_t i = 0; i < COUNT(split); i++) {
        double worst = 0;
        p = plan_of(&m, NUM_F32, NUM_F32, split[i]);
        assert_true(plan_fast(&p));
        float *got = logits_of(&p, t.store, apart(), ids, TOKENS, NULL);
        for (size_t k = 0; k < (size_t)TOKENS * (size_t)m.n_vocab; k++)
            worst = fmax(worst, fabs((double)(got[k] - want[k])));
        if (!(worst < 1e-4))
            fail_msg("tp=%d: %g", split[i].tp, worst);
        test_free(got);
    }
    test_free(want);
    tiny_free(&t);
}

/* Prompts in bf16: cuBLASLt multiplies, and where it has nothing for a shape our own kernels do. */
static void fast_products_are_near(void **state)
{
    enum { LONG = 100 };
    const struct split split[] = {{.chunk = LONG},
                                  {.chunk = LONG, .fast = true},
                                  {.tp = 2, .chunk = LONG, .fast = true},
                                  {.tp = 3, .chunk = LONG, .fast = true},
                                  {.chunk = LONG, .fast = true}};
    const struct model m = tiny_llama(2);
    struct tiny t = tiny_make(&m, NUM_BF16, 7);
    float *got[COUNT(split)];
    int ids[LONG];
    (void)state;
    needs_model();
    setenv("TANDEM_CUBLASLT", BUILD_DIR "/model/fake/libcublasLt.so.13", 1);
    for (int i = 0; i < LONG; i++)
        ids[i] = (i * 37 + 11) % m.n_vocab;
    for (size_t i = 0; i < COUNT(split); i++) {
        double worst = 0;
        if (i == COUNT(split) - 1)
            setenv("FAKE_BLAS_NONE", "1", 1);
        struct plan p = plan_of(&m, NUM_BF16, NUM_BF16, split[i]);
        p.ctx = 128, p.pages = 8, p.max_tok = LONG;
        assert_int_equal(gpu_libraries(&p, apart()) & LIBRARY_BLAS,
                         split[i].fast ? LIBRARY_BLAS : 0);
        got[i] = logits_of(&p, t.store, apart(), ids, LONG, NULL);
        for (size_t k = 0; k < (size_t)LONG * (size_t)m.n_vocab; k++)
            worst = fmax(worst, fabs((double)(got[i][k] - got[0][k])));
        if (!(worst < 0.05) || (worst > 0) != (i > 0 && i < COUNT(split) - 1))
            fail_msg("split %zu: %g", i, worst);
    }
    unsetenv("FAKE_BLAS_NONE");
    for (size_t i = 0; i < COUNT(split); i++)
        test_free(got[i]);
    tiny_free(&t);
}

static void more_ranks_than_gpus_are_refused_without_peers(void **state)
{
    const struct model m = tiny_llama(2);
    struct err e;
    (void)state;
    needs_model();
    struct plan p = plan_of(&m, NUM_F32, NUM_F32, (struct split){.tp = 8, .chunk = 4});
    assert_int_equal(gpu_check(&p, apart(), &e), -ENOTSUP);
    assert_non_null(strstr(e.text, "a GPU each"));
    assert_int_equal(gpu_check(&p, the_gpus(), &e), 0);
}

/* How many kernels the recorded step of one token launches, as the model tells; slices launch the
 * same. Prints their names. */
static int kernels_of(struct model m, enum num weight, int n_layer, int tp)
{
    char path[64], line[4096], last[4096] = "0";
    struct split split = {.tp = tp, .chunk = 1};
    m.n_layer = n_layer;
    struct tiny t = tiny_make(&m, weight == NUM_F32 ? NUM_F32 : NUM_BF16, 7);
    struct plan p = plan_of(&m, weight, NUM_BF16, split);
    int ids[TOKENS];
    some_ids(ids, m.n_vocab);
    snprintf(path, sizeof(path), "/tmp/test_gpu_run.%d", (int)getpid());
    setenv("TANDEM_MODEL_KERNELS", path, 1);
    test_free(logits_of(&p, t.store, the_gpus(), ids, TOKENS, NULL));
    unsetenv("TANDEM_MODEL_KERNELS");
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        memcpy(last, line, sizeof(line));
    fclose(f);
    unlink(path);
    tiny_free(&t);
    print_message("%s, tp=%d, %d layers: %s", num_name(weight), tp, n_layer, last);
    return atoi(last);
}

/* On a GPU each costs a microsecond or two, of which a layer of 8 B weights has 120 in all. */
static void a_layer_launches_few_kernels(void **state)
{
    static const struct {
        enum num weight;
        int tp, kernels;
    } want[] = {{NUM_BF16, 1, 8}, {NUM_BF16, 2, 10}, {NUM_FP8, 1, 8}, {NUM_INT8, 1, 12}};
    const struct model m = tiny_llama(2);
    (void)state;
    needs_model();
    for (size_t i = 0; i < COUNT(want); i++) {
        int one = kernels_of(m, want[i].weight, 1, want[i].tp);
        int three = kernels_of(m, want[i].weight, 3, want[i].tp);
        assert_int_equal(three - one, 2 * want[i].kernels);
    }
}

static struct model mixture(void)
{
    struct model m = tiny_llama(LAYERS);
    m.experts = (struct experts){.n = EXPERTS, .top = 2, .ff = 64, .shared_ff = 48, .renorm = true};
    return m;
}

static void a_mixtures_logits_are_the_cpus(void **state)
{
    const struct split split[] = {{.chunk = TOKENS},
                                  {.chunk = 1},
                                  {.tp = 2, .chunk = 5},
                                  {.tp = 2, .ep = 2, .chunk = 1},
                                  {.tp = 3, .ep = 3, .chunk = 7}};
    const struct model m = mixture();
    (void)state;
    equals_cpu(&m, NUM_F32, NUM_F32, split, COUNT(split));
    equals_cpu(&m, NUM_INT8, NUM_F32, split, 2);
    equals_cpu(&m, NUM_INT8, NUM_F32, split + 3, 2);
}

/* Rows go to those GPUs that hold their experts. */
static void rows_that_travel_to_experts_change_no_bit(void **state)
{
    const struct split split[] = {{.tp = 2, .ep = 2, .sp = true, .chunk = TOKENS},
                                  {.tp = 2, .ep = 2, .sp = true, .chunk = 1},
                                  {.tp = 4, .ep = 2, .sp = true, .chunk = 7},
                                  {.tp = 3, .ep = 3, .sp = true, .chunk = 9},
                                  {.tp = 2, .pp = 2, .ep = 2, .sp = true, .chunk = 5}};
    struct model m = mixture();
    (void)state;
    equals_cpu(&m, NUM_F32, NUM_F32, split, COUNT(split));
    equals_cpu(&m, NUM_INT8, NUM_INT8, split, 2);
    m.experts.shared_ff = 0;
    equals_cpu(&m, NUM_F32, NUM_F32, split, 3);
}

static void nor_do_those_that_nccl_brings(void **state)
{
    const struct split split[] = {{.tp = 2, .ep = 2, .sp = true, .chunk = TOKENS},
                                  {.tp = 2, .ep = 2, .sp = true, .chunk = 1},
                                  {.tp = 4, .ep = 2, .sp = true, .chunk = 7},
                                  {.tp = 2, .ep = 2, .chunk = 5}};
    const struct model m = mixture();
    (void)state;
    needs_model();
    equals_cpu_on(apart(), &m, NUM_F32, NUM_F32, split, COUNT(split));
}

/* Whoever counts. */
static void rows_of_experts_are_counted_as_on_the_cpu(void **state)
{
    const struct split split[] = {{.chunk = TOKENS},
                                  {.chunk = 1},
                                  {.tp = 2, .chunk = 5},
                                  {.tp = 2, .ep = 2, .chunk = 1},
                                  {.tp = 2, .pp = 2, .ep = 2, .sp = true, .chunk = 5}};
    const struct model m = mixture();
    struct tiny t = tiny_make(&m, NUM_F32, 7);
    struct loads want, got;
    int ids[TOKENS];
    (void)state;
    some_ids(ids, m.n_vocab);
    struct plan p = plan_of(&m, NUM_F32, NUM_F32, split[0]);
    test_free(logits_of(&p, t.store, NULL, ids, TOKENS, &want));
    for (size_t i = 0; i < COUNT(split); i++) {
        p = plan_of(&m, NUM_F32, NUM_F32, split[i]);
        test_free(logits_of(&p, t.store, the_gpus(), ids, TOKENS, &got));
        assert_memory_equal(got.rows, want.rows, sizeof(got.rows));
        for (int l = 0; l < LAYERS; l++) {
            const struct turn_load turns = got.turns[l];
            assert_int_equal(turns.all > 0, p.ep > 1);
            assert_true(turns.most <= turns.all && (uint64_t)p.ep * turns.most >= turns.all);
        }
    }
    tiny_free(&t);
}

static void norms_over_whole_rows_are_the_cpus(void **state)
{
    const struct split split[] = {
        {.chunk = TOKENS}, {.chunk = 1}, {.tp = 2, .chunk = 5}, {.tp = 3, .chunk = 1}};
    struct model m = tiny_llama(2);
    (void)state;
    m.qk_norm = m.qk_row = true, m.clip = 1.5f;
    equals_cpu(&m, NUM_F32, NUM_F32, split, COUNT(split));
}

/* Tensor cores: other bits than the CPU's, but the same however prompt and model
 * are cut. */
static void no_split_changes_a_bit_of_bf16(void **state)
{
    const struct model m = tiny_llama(2);
    struct tiny t = tiny_make(&m, NUM_BF16, 7);
    const struct split split[] = {{.chunk = TOKENS},     {.chunk = 7},
                                  {.chunk = 1},          {.tp = 2, .chunk = 7},
                                  {.pp = 2, .chunk = 5}, {.tp = 2, .pp = 2, .chunk = 1},
                                  {.tp = 3, .chunk = 1}, {.tp = 2, .chunk = TOKENS, .sp = true}};
    float *got[COUNT(split)];
    int ids[TOKENS];
    (void)state;
    some_ids(ids, m.n_vocab);
    for (size_t i = 0; i < COUNT(split); i++) {
        struct plan p = plan_of(&m, NUM_BF16, NUM_BF16, split[i]);
        got[i] = logits_of(&p, t.store, the_gpus(), ids, TOKENS, NULL);
        same(&p, got[i], got[0], TOKENS);
    }
    for (size_t i = 0; i < COUNT(split); i++)
        test_free(got[i]);
    tiny_free(&t);
}

/* ------------------------------------------------------------------------------- a trained model
 */

/* test_golden.c holds the CPU's logits against golden ones. */
static void a_trained_models_logits_are_the_cpus_or_near(void **state)
{
    enum { LONG = 40 };
    const struct split split = {.chunk = 16};
    char folder[512], config[600];
    struct model m;
    struct store *s;
    struct generation g;
    struct notes notes;
    struct err e;
    int ids[LONG];
    double worst = 0;
    (void)state;
    snprintf(folder, sizeof(folder), "%s/data/models/stories260K-hf", shared_data());
    snprintf(config, sizeof(config), "%s/config.json", folder);
    if (access(config, R_OK)) {
        print_message("skipped: no shared test data at %s\n", folder);
        skip();
    }
    if (model_load(folder, &m, &g, &notes, &e) || store_open(folder, &s, &e))
        fail_msg("%s", e.text);
    for (int i = 0; i < LONG; i++)
        ids[i] = (i * 37 + 11) % m.n_vocab;
    struct plan p = plan_of(&m, NUM_F32, NUM_F32, split);
    float *want = logits_of(&p, s, NULL, ids, LONG, NULL),
          *got = logits_of(&p, s, the_gpus(), ids, LONG, NULL);
    same(&p, got, want, LONG);
    test_free(got);
    p = plan_of(&m, NUM_BF16, NUM_BF16, split);
    got = logits_of(&p, s, the_gpus(), ids, LONG, NULL);
    for (size_t i = 0; i < (size_t)LONG * (size_t)m.n_vocab; i++)
        worst = fmax(worst, fabs((double)(got[i] - want[i])));
    print_message("bf16 and its tensor cores: largest difference of logits %.2g\n", worst);
    assert_true(worst < 0.5);
    test_free(got);
    test_free(want);
    store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_the_cpus_bit_by_bit),
        cmocka_unit_test(groups_of_gpus_give_the_same_bits),
        cmocka_unit_test(gpus_that_do_not_reach_each_other_give_the_same_bits),
        cmocka_unit_test(fast_logits_are_near),
        cmocka_unit_test(fast_products_are_near),
        cmocka_unit_test(more_ranks_than_gpus_are_refused_without_peers),
        cmocka_unit_test(a_layer_launches_few_kernels),
        cmocka_unit_test(a_mixtures_logits_are_the_cpus),
        cmocka_unit_test(rows_that_travel_to_experts_change_no_bit),
        cmocka_unit_test(nor_do_those_that_nccl_brings),
        cmocka_unit_test(rows_of_experts_are_counted_as_on_the_cpu),
        cmocka_unit_test(norms_over_whole_rows_are_the_cpus),
        cmocka_unit_test(no_split_changes_a_bit_of_bf16),
        cmocka_unit_test(a_trained_models_logits_are_the_cpus_or_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
