/* test_plan.c - who holds what: totals, tiling, JSON, and plans that must be refused. */
#include "dev/dev.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "model_help.h"

static struct plan layout(const char *name, int tp, int pp)
{
    return plan_of(name, (struct plan_ask){.tp = tp, .pp = pp});
}

static void parameters_are_the_published_numbers(void **state)
{
    static const struct {
        const char *name;
        uint64_t numbers;
    } golden[] = {{"llama-3.2-1b", 1235814400},    {"llama-3.2-3b", 3212749824},
                  {"llama-3-8b", 8030261248},      {"llama-3-70b", 70553706496},
                  {"qwen2.5-0.5b", 494032768},     {"qwen2.5-7b", 7615616512},
                  {"qwen3-0.6b", 596049920},       {"qwen3-8b", 8190735360},
                  {"qwen3-32b", 32762123264},      {"mistral-7b-v0.1", 7241732096},
                  {"mistral-7b-v0.3", 7248023552}, {"llama-3.1-405b", 405853388800},
                  {"llama-2-70b", 68976648192},    {"qwen2.5-1.5b", 1543714304},
                  {"qwen2.5-72b", 72706203648},    {"mixtral-8x7b", 46702792704},
                  {"qwen3-30b-a3b", 30532122624},  {"qwen3-235b-a22b", 235093634560}};
    (void)state;
    for (size_t i = 0; i < COUNT(golden); i++) {
        struct plan p = layout(golden[i].name, 1, 1);
        if (plan_parameters(&p) != golden[i].numbers)
            fail_msg("%s: %llu", golden[i].name, (unsigned long long)plan_parameters(&p));
    }
}

static void active_parameters_are_those_one_token_meets(void **state)
{
    struct plan dense = layout("llama-3-8b", 1, 1), mixtral = layout("mixtral-8x7b", 1, 1);
    struct plan qwen = layout("qwen3-30b-a3b", 2, 2), large = layout("qwen3-235b-a22b", 1, 1);
    (void)state;
    assert_int_equal(plan_active(&dense), plan_parameters(&dense));
    assert_int_equal(plan_active(&mixtral), 12879925248);
    assert_int_equal(plan_active(&qwen), 3353032704);
    assert_int_equal(plan_active(&large), 22190763520);
}

/* Of 1000 tokens: per layer and head, a byte per number and two scales of two bytes. */
static void an_int8_cache_is_sized_to_the_byte(void **state)
{
    struct plan p = layout("llama-3.2-1b", 2, 1);
    struct err e;
    (void)state;
    p.kv = NUM_INT8, p.pages = 1008 / KV_PAGE, p.ctx = 1000;
    assert_int_equal(plan_check(&p, &e), 0);
    assert_int_equal(plan_kv_bytes(&p, PLAN_WHOLE), (size_t)1008 * 16 * 8 * (2 * 64 + 4));
    assert_int_equal(plan_kv_bytes(&p, 0) + plan_kv_bytes(&p, 1), plan_kv_bytes(&p, PLAN_WHOLE));
    p.model.head_dim = 514;
    assert_int_equal(plan_check(&p, &e), -EINVAL);
    assert_non_null(strstr(e.text, "--kv bf16"));
    p.model.head_dim = 64, p.kv = NUM_INT4;
    assert_int_equal(plan_check(&p, &e), -EINVAL);
}

struct area {
    uint64_t held, whole;
};

static void add_area(void *arg, const struct piece *pc)
{
    struct area *a = arg;
    bool copied = pc->cut == CUT_NONE || pc->of == KVHEADS;
    if (copied)
        return;
    a->held += (uint64_t)len(pc->row) * (uint64_t)len(pc->col);
    if (pc->first == 0)
        a->whole += (uint64_t)pc->rows * (uint64_t)pc->cols;
}

/* First pieces begin at 0, so each tensor is counted whole once a stage. */
static void ranks_tile_every_cut_tensor(void **state)
{
    (void)state;
    for (int tp = 1; tp <= 8; tp++)
        for (int pp = 1; pp <= 4; pp++) {
            struct plan p = layout("qwen2.5-0.5b", tp, pp);
            struct area a = {0};
            for (int r = 0; r < plan_ranks(&p); r++)
                plan_pieces(&p, r, add_area, &a);
            assert_int_equal(a.held, a.whole);
        }
}

static void every_rank_has_heads_and_its_kv_heads(void **state)
{
    (void)state;
    for (int tp = 1; tp <= 8; tp++) {
        struct plan p = layout("qwen2.5-0.5b", tp, 1); /* 14 heads, 2 of keys and values */
        int at = 0;
        for (int r = 0; r < tp; r++) {
            struct span h = plan_share(&p, r, HEADS), kv = plan_share(&p, r, KVHEADS);
            assert_int_equal(h.lo, at);
            assert_true(len(h) > 0);
            assert_int_equal(kv.lo, h.lo / 7);
            assert_int_equal(kv.hi, (h.hi - 1) / 7 + 1);
            at = h.hi;
        }
        assert_int_equal(at, 14);
    }
}

static void stages_are_equal_by_bytes(void **state)
{
    struct plan p = layout("llama-3-70b", 1, 4);
    size_t most = 0;
    (void)state;
    for (int s = 0; s < 4; s++)
        most = plan_weight_bytes(&p, s) > most ? plan_weight_bytes(&p, s) : most;
    /* 20 layers a stage would be 36.33 GB where the embedding or the head is too */
    assert_true(most < 36000000000);
}

static void json_gives_a_plan_with_experts_back(void **state)
{
    struct plan p = layout("qwen1.5-moe-a2.7b", 3, 2), q;
    struct err e;
    (void)state;
    p.model.kind[2] = p.model.kind[1] = p.model.kind[0];
    p.model.kind[3] = (struct layer_kind){0};
    p.model.kind[2].dense = true;
    p.model.kind_of[0] = p.model.kind_of[5] = 2;
    json_t *o = plan_to_json(&p);
    if (plan_from_json(o, &q, &e))
        fail_msg("%s", e.text);
    assert_int_equal(plan_hash(&p), plan_hash(&q));
    assert_memory_equal(&p.model, &q.model, sizeof(p.model));
    json_object_set_new(json_object_get(json_object_get(o, "model"), "experts"), "top",
                        json_integer(61));
    assert_int_equal(plan_from_json(o, &q, &e), -EINVAL);
    assert_non_null(strstr(e.text, "61"));
    json_decref(o);
}

static void json_gives_slots_of_experts_back(void **state)
{
    struct plan p = layout("qwen1.5-moe-a2.7b", 3, 1), q;
    struct err e;
    (void)state;
    p.ep = 3, p.slots = 21; /* of 60 experts */
    json_t *o = plan_to_json(&p);
    if (plan_from_json(o, &q, &e))
        fail_msg("%s", e.text);
    assert_int_equal(q.slots, 21);
    json_object_del(o, "slots");
    assert_int_equal(plan_from_json(o, &q, &e), 0);
    assert_int_equal(q.slots, 0);
    assert_int_not_equal(plan_hash(&p), plan_hash(&q));
    json_object_set_new(o, "slots", json_integer(19));
    assert_int_equal(plan_from_json(o, &q, &e), -EINVAL);
    assert_non_null(strstr(e.text, "20 to 60"));
    json_decref(o);
}

static void json_gives_the_plan_back(void **state)
{
    struct plan p = layout("mistral-7b-v0.1", 3, 2), q;
    struct err e;
    (void)state;
    json_t *o = plan_to_json(&p);
    if (plan_from_json(o, &q, &e))
        fail_msg("%s", e.text);
    assert_int_equal(plan_hash(&p), plan_hash(&q));
    q.ctx--;
    assert_int_not_equal(plan_hash(&p), plan_hash(&q));
    json_decref(o);
}

/* Change one field of a good plan's JSON; the refusal names it. */
static void expect_refusal(const char *key, json_t *value, const char *word)
{
    struct plan p = layout("llama-3.2-1b", 2, 2), q;
    struct err e;
    json_t *o = plan_to_json(&p);
    json_object_set_new(o, key, value);
    assert_true(plan_from_json(o, &q, &e) < 0);
    if (!strstr(e.text, word) || strchr(e.text, '\n'))
        fail_msg("%s: \"%s\" does not say \"%s\"", key, e.text, word);
    json_decref(o);
}

static void wrong_edits_are_refused_by_name(void **state)
{
    (void)state;
    expect_refusal("tp", json_integer(3), "cut");
    expect_refusal("tp", json_integer(-1), "tp");
    expect_refusal("tp", json_string("two"), "tp");
    expect_refusal("tensor_parallel", json_integer(2), "tensor_parallel");
    expect_refusal("shares", json_integer(12), "shares");
    expect_refusal("stage", json_pack("[[ii][ii]]", 0, 8, 9, 16), "layer 8");
    expect_refusal("stage", json_pack("[[ii]]", 0, 16), "stage");
    expect_refusal("cut", json_pack("[iii]", 0, 0, 8), "none");
    expect_refusal("ctx", json_integer(1 << 27), "ctx");
    expect_refusal("pages", json_integer(1), "pages");
    expect_refusal("numerics", json_string("fast"), "numerics");
    expect_refusal("schema", json_integer(99), "schema");
    expect_refusal("model", json_integer(1), "object");
}

static void impossible_wishes_say_what_to_change(void **state)
{
    struct model m = shape_of("qwen2.5-0.5b");
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = 15, .weight = NUM_BF16, .kv = NUM_BF16, .numerics = "f32-fma"};
    (void)state;
    assert_true(plan_make(&p, &m, &ask, &e) < 0);
    assert_non_null(strstr(e.text, "14 attention heads"));
    ask.tp = 1, ask.pp = 25;
    assert_true(plan_make(&p, &m, &ask, &e) < 0);
    assert_non_null(strstr(e.text, "24 layers"));
    ask.pp = 1, ask.ctx = 1 << 20;
    assert_true(plan_make(&p, &m, &ask, &e) < 0);
    assert_non_null(strstr(e.text, "32768"));
}

static void experts_on_impossible_runs_are_refused(void **state)
{
    struct model m = shape_of("qwen2.5-0.5b"), dense = m;
    struct plan p;
    struct err e;
    struct plan_ask ask = {
        .tp = 4, .ep = 3, .weight = NUM_BF16, .kv = NUM_BF16, .numerics = "f32-fma"};
    (void)state;
    m.experts = (struct experts){.n = 3, .top = 2, .ff = 512};
    assert_true(plan_make(&p, &m, &ask, &e) < 0);
    assert_non_null(strstr(e.text, "ep=3 does not divide tp=4"));
    ask.ep = 8;
    assert_true(plan_make(&p, &m, &ask, &e) < 0);
    assert_non_null(strstr(e.text, "ep=8"));
    ask.ep = 4;
    assert_true(plan_make(&p, &m, &ask, &e) < 0);
    assert_non_null(strstr(e.text, "3 experts"));
    ask.ep = 2;
    assert_true(plan_make(&p, &dense, &ask, &e) < 0);
    assert_non_null(strstr(e.text, "has no experts"));
    assert_int_equal(plan_make(&p, &m, &ask, &e), 0);
    ask.tp = 0; /* as many slices as runs */
    assert_int_equal(plan_make(&p, &m, &ask, &e), 0);
    assert_int_equal(p.tp, 2);
}

/* Every expert has one holder, and its run holds all of it; what is not an expert's is cut as
 * without. JSON and hash tell ep. */
static void runs_hold_whole_experts(void **state)
{
    struct model m = shape_of("qwen2.5-0.5b");
    struct err e;
    (void)state;
    m.experts = (struct experts){.n = 7, .top = 2, .ff = 512, .shared_ff = 512};
    for (int i = 0; i < 4; i++) {
        static const int layout[][2] = {{2, 2}, {4, 2}, {6, 3}, {7, 7}};
        struct plan_ask ask = {
            .tp = layout[i][0], .weight = NUM_BF16, .kv = NUM_BF16, .numerics = "f32-fma"};
        struct plan p, cut, back;
        struct area a = {0};
        assert_int_equal(plan_make(&cut, &m, &ask, &e), 0);
        ask.ep = layout[i][1];
        assert_int_equal(plan_make(&p, &m, &ask, &e), 0);
        for (int r = 0; r < plan_ranks(&p); r++)
            plan_pieces(&p, r, add_area, &a);
        assert_int_equal(a.held, a.whole);
        for (int r = 0; r < p.tp; r++) {
            assert_int_equal(plan_run(&p, r), r / (p.tp / p.ep));
            assert_int_equal(len(plan_share(&p, r, SHARED_COLUMNS)),
                             len(plan_share(&cut, r, SHARED_COLUMNS)));
        }
        if (p.ep == p.tp)
            assert_int_equal(len(plan_share(&p, 1, EXPERT_COLUMNS)), 512);
        json_t *o = plan_to_json(&p);
        if (plan_from_json(o, &back, &e))
            fail_msg("%s", e.text);
        assert_int_equal(back.ep, p.ep);
        assert_int_equal(plan_hash(&back), plan_hash(&p));
        assert_true(plan_hash(&p) != plan_hash(&cut));
        assert_true(plan_weights_hash(&p) == plan_weights_hash(&cut));
        json_decref(o);
        p.sp = true; /* rows stay with their ranks: the shared expert is whole everywhere */
        assert_int_equal(len(plan_share(&p, 1, SHARED_COLUMNS)), 512);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_are_the_published_numbers),
        cmocka_unit_test(an_int8_cache_is_sized_to_the_byte),
        cmocka_unit_test(ranks_tile_every_cut_tensor),
        cmocka_unit_test(every_rank_has_heads_and_its_kv_heads),
        cmocka_unit_test(stages_are_equal_by_bytes),
        cmocka_unit_test(active_parameters_are_those_one_token_meets),
        cmocka_unit_test(json_gives_a_plan_with_experts_back),
        cmocka_unit_test(json_gives_slots_of_experts_back),
        cmocka_unit_test(json_gives_the_plan_back),
        cmocka_unit_test(wrong_edits_are_refused_by_name),
        cmocka_unit_test(impossible_wishes_say_what_to_change),
        cmocka_unit_test(experts_on_impossible_runs_are_refused),
        cmocka_unit_test(runs_hold_whole_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
