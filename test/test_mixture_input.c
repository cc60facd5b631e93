/* test_mixture_input.c - mixtures of experts that are not whole: tensors too few or too many are
 * refused by name, and a router without a sane number fails the request and nothing else. */
#include "engine/engine.h"
#include "tiny.h"

#include <unistd.h>

static struct model mixture(int n_expert, int shared_ff)
{
    struct model m = tiny_llama(2);
    snprintf(m.arch, sizeof(m.arch), "Qwen2MoeForCausalLM");
    m.experts = (struct experts){
        .n = n_expert, .top = 2, .ff = 36, .shared_ff = shared_ff, .shared_gate = shared_ff > 0};
    return m;
}

static struct plan make_plan(const struct model *m, int tp)
{
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = tp,
                           .ctx = 64,
                           .max_tok = 16,
                           .max_seq = 4,
                           .weight = NUM_F32,
                           .kv = NUM_F32,
                           .numerics = "f32-fma"};
    if (plan_make(&p, m, &ask, &e))
        fail_msg("%s", e.text);
    return p;
}

/* ------------------------------------------------------------------------------- tensors */

/* Weights of one mixture, the plan of another. */
static void expect_refusal(struct model weights, struct model plan, const char *words)
{
    struct tiny t = tiny_make(&weights, NUM_F32, 3);
    struct plan p = make_plan(&plan, 1);
    struct team_opts opts = {.isa = ISA_REF};
    struct team *team = NULL;
    struct err e = {""};
    assert_true(team_start(&team, &p, t.store, &opts, &e) < 0);
    if (!strstr(e.text, words))
        fail_msg("\"%s\" does not say \"%s\"", e.text, words);
    tiny_free(&t);
}

static void tensors_of_missing_experts_are_named(void **state)
{
    (void)state;
    expect_refusal(
        mixture(6, 40), mixture(7, 40),
        "\"model.layers.0.mlp.gate.weight\" is [6, 48], but config.json asks for [7, 48]");
    expect_refusal(mixture(6, 0), mixture(6, 40),
                   "\"model.layers.0.mlp.shared_expert_gate.weight\" is missing");
    expect_refusal(tiny_llama(2), mixture(6, 0), "\"model.layers.0.mlp.gate.weight\" is missing");
}

static void tensors_without_a_place_are_named(void **state)
{
    struct model biased = tiny_llama(2), deep = tiny_llama(3);
    (void)state;
    biased.qkv_bias = true;
    expect_refusal(mixture(6, 40), mixture(6, 0), "\"model.layers.0.mlp.shared_expert.down_proj");
    expect_refusal(biased, tiny_llama(2), "\"model.layers.0.self_attn.k_proj.bias\" has no place");
    expect_refusal(deep, tiny_llama(2), "\"model.layers.2.input_layernorm.weight\" has no place");
}

static void an_expert_under_another_number_is_missing(void **state)
{
    static const char name[] = "model.layers.1.mlp.experts.5.up_proj.weight";
    struct model m = mixture(6, 0);
    struct tiny t = tiny_make(&m, NUM_F32, 3);
    struct plan p = make_plan(&m, 1);
    struct team_opts opts = {.isa = ISA_REF};
    struct team *team = NULL;
    struct err e = {""};
    (void)state;
    char *at = memmem(t.bytes, t.n, name, strlen(name));
    assert_non_null(at);
    *strchr(at, '5') = '6';
    store_close(t.store);
    if (store_open_bytes(t.bytes, t.n, "tiny", &t.store, &e))
        fail_msg("%s", e.text);
    assert_true(team_start(&team, &p, t.store, &opts, &e) < 0);
    assert_non_null(strstr(e.text, name));
    tiny_free(&t);
}

/* ------------------------------------------------------------------------------- numbers */

enum { REQUESTS = 3, MAX_NEW = 6, POISON = 7 };

static void set_number(const struct tiny *t, const char *name, int rows, int cols, int at, float to)
{
    struct tensor one;
    struct err e;
    if (store_find(t->store, name, rows, cols, &one, &e))
        fail_msg("%s", e.text);
    /* numbers of a file need not be aligned */
    memcpy(t->bytes + ((const char *)one.data - t->bytes) + (size_t)at * sizeof(to), &to,
           sizeof(to));
}

struct answers {
    uint64_t id[REQUESTS];
    int tok[REQUESTS][MAX_NEW], n[REQUESTS], ended;
    enum finish finish[REQUESTS];
};

static void take(void *arg, const struct engine_event *ev)
{
    struct answers *a = arg;
    for (int i = 0; i < REQUESTS; i++) {
        if (a->id[i] != ev->id)
            continue;
        if (ev->token >= 0)
            a->tok[i][a->n[i]++] = ev->token;
        a->finish[i] = ev->finish;
        a->ended += ev->finish != RUNNING;
    }
}

/* The request in the middle holds the token; the last comes when the others have ended. */
static struct answers answers_of(const struct tiny *t, const struct plan *p, int middle)
{
    struct answers to = {.ended = 0};
    struct engine_opts opts = {.team.isa = isa_best()};
    struct engine *x;
    struct err e;
    if (engine_start(&x, p, t->store, &opts, &e))
        fail_msg("%s", e.text);
    for (int i = 0; i < REQUESTS; i++) {
        int prompt[] = {40 + i, 50, i == 1 ? middle : 60, 70, 80};
        struct engine_request r = {.prompt = prompt,
                                   .n_prompt = COUNT(prompt),
                                   .max_new = MAX_NEW,
                                   .sampling = sampling_greedy,
                                   .n_top = -1,
                                   .n_prompt_top = -1};
        for (int tries = 0; i == REQUESTS - 1 && to.ended < i; tries++) {
            assert_true(tries < 60000);
            engine_events(x, take, &to);
            usleep(1000);
        }
        if (engine_submit(x, &r, &to.id[i], &e))
            fail_msg("%s", e.text);
    }
    for (int tries = 0; to.ended < REQUESTS; tries++) {
        assert_true(tries < 60000);
        engine_events(x, take, &to);
        usleep(1000);
    }
    engine_stop(x);
    return to;
}

/* One word's row is so large that the router's product with it overflows. */
static void a_router_without_a_sane_number_fails_its_request_only(void **state)
{
    struct model m = mixture(6, 40);
    struct tiny t = tiny_make(&m, NUM_F32, 3);
    (void)state;
    set_number(&t, "model.embed_tokens.weight", m.n_vocab, m.n_embd, POISON * m.n_embd + 5, 1e4f);
    set_number(&t, "model.layers.0.mlp.gate.weight", 6, m.n_embd, 3 * m.n_embd + 5, 1e38f);
    for (int tp = 1; tp <= 2; tp++) {
        struct plan p = make_plan(&m, tp);
        struct answers sane = answers_of(&t, &p, 60), got = answers_of(&t, &p, POISON);
        for (int i = 0; i < REQUESTS; i++) {
            bool fails = i == 1;
            assert_int_equal(sane.finish[i], FINISH_LENGTH);
            assert_int_equal(got.finish[i], fails ? FINISH_FAILED : FINISH_LENGTH);
            assert_int_equal(got.n[i], fails ? 0 : MAX_NEW);
            assert_memory_equal(got.tok[i], sane.tok[i], (size_t)got.n[i] * sizeof(int));
        }
    }
    tiny_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_of_missing_experts_are_named),
        cmocka_unit_test(tensors_without_a_place_are_named),
        cmocka_unit_test(an_expert_under_another_number_is_missing),
        cmocka_unit_test(a_router_without_a_sane_number_fails_its_request_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
