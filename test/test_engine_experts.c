/* test_engine_experts.c - experts placed anew between the steps of an engine under load: not a bit
 * of an answer changes, and what is counted adds up. */
#include "engine/engine.h"
#include "tiny.h"

#include <signal.h>
#include <unistd.h>

enum { REQUESTS = 12, MAX_NEW = 24, PROMPT = 60, EXPERTS = 7, TOP = 3, LAYERS = 4 };

static struct model mixture(void)
{
    struct model m = tiny_llama(LAYERS);
    snprintf(m.arch, sizeof(m.arch), "Qwen2MoeForCausalLM");
    m.qkv_bias = true;
    m.experts =
        (struct experts){.n = EXPERTS, .top = TOP, .ff = 36, .shared_ff = 90, .shared_gate = true};
    m.kind[1].dense = true; /* the first layer has no experts */
    m.kind_of[0] = 1;
    return m;
}

static struct plan make_plan(const struct model *m, int tp, int ep, int pp, bool sp)
{
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = tp,
                           .pp = pp,
                           .ep = ep,
                           .sp = sp,
                           .ctx = 128,
                           .max_tok = 32,
                           .max_seq = 8,
                           .weight = NUM_F32,
                           .kv = NUM_F32,
                           .numerics = "f32-fma"};
    if (plan_make(&p, m, &ask, &e))
        fail_msg("%s", e.text);
    return p;
}

/* ------------------------------------------------------------------------------- a client */

struct answers {
    uint64_t id[REQUESTS];
    int tok[REQUESTS][MAX_NEW], n[REQUESTS], ended;
};

static void take(void *arg, const struct engine_event *ev)
{
    struct answers *a = arg;
    int i = 0;
    while (i < REQUESTS && a->id[i] != ev->id)
        i++;
    assert_true(i < REQUESTS);
    if (ev->token >= 0)
        a->tok[i][a->n[i]++] = ev->token;
    if (ev->finish != RUNNING) {
        assert_int_equal(ev->finish, FINISH_LENGTH);
        a->ended++;
    }
}

static void submit(struct engine *x, int i, struct answers *to)
{
    int prompt[PROMPT], n = 4 + i * 17 % (PROMPT - 4);
    struct err e;
    for (int k = 0; k < n; k++)
        prompt[k] = (k * 31 + i * 7 + 5) % 203;
    struct engine_request r = {.prompt = prompt,
                               .n_prompt = n,
                               .max_new = MAX_NEW,
                               .sampling = sampling_greedy,
                               .n_top = -1,
                               .n_prompt_top = -1};
    r.sampling.temperature = i % 2 ? 0.8f : 0;
    r.sampling.seed = (uint64_t)i;
    if (engine_submit(x, &r, &to->id[i], &e))
        fail_msg("%s", e.text);
}

static void wait_all(struct engine *x, struct answers *to)
{
    for (int tries = 0; to->ended < REQUESTS; tries++) {
        assert_true(tries < 60000);
        engine_events(x, take, to);
        usleep(1000);
    }
}

/* ------------------------------------------------------------------------------- placing */

struct placer {
    struct engine *_Atomic engine;
    int n_run;
    uint32_t seed;
    int placed;
};

static uint32_t draw(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(*seed >> 8) * below >> 24);
}

/* Any placement of any layer, after every event of the scheduler. */
static void place_at_random(void *arg, const struct drive_event *ev)
{
    struct placer *p = arg;
    struct engine *x = p->engine;
    struct placement layer[LAYERS];
    struct err e;
    (void)ev;
    if (!x)
        return;
    for (int l = 0; l < LAYERS; l++) {
        layer[l] = (struct placement){.n_expert = EXPERTS, .n_run = p->n_run};
        for (int i = 0; i < EXPERTS; i++)
            layer[l].holders[i] = 1 + draw(&p->seed, (1u << p->n_run) - 1);
    }
    if (engine_place(x, layer, &e))
        fail_msg("%s", e.text);
    p->placed++;
}

static struct engine *start(const struct plan *p, const struct tiny *t, struct engine_opts opts)
{
    struct engine *x;
    struct err e;
    opts.team.isa = isa_best();
    if (engine_start(&x, p, t->store, &opts, &e))
        fail_msg("%s", e.text);
    return x;
}

static struct answers answers_of(const struct plan *p, const struct tiny *t,
                                 const struct engine_opts *opts, struct placer *placer)
{
    struct answers to = {.ended = 0};
    struct engine *x = start(p, t, *opts);
    if (placer)
        placer->engine = x;
    for (int i = 0; i < REQUESTS; i++)
        submit(x, i, &to);
    wait_all(x, &to);
    engine_stop(x);
    return to;
}

static void assert_same(const struct answers *a, const struct answers *b)
{
    assert_memory_equal(a->n, b->n, sizeof(a->n));
    assert_memory_equal(a->tok, b->tok, sizeof(a->tok));
}

/* ------------------------------------------------------------------------------- tests */

static void placements_that_change_between_steps_change_no_token(void **state)
{
    static const struct {
        int tp, ep, pp;
        bool sp;
    } layout[] = {
        {2, 2, 1, false}, {4, 4, 1, false}, {4, 2, 1, false}, {3, 3, 1, true}, {2, 2, 2, false}};
    const struct engine_opts plain = {.tpot_s = 0};
    struct model m = mixture();
    struct tiny t = tiny_make(&m, NUM_F32, 5);
    (void)state;
    struct plan one = make_plan(&m, 1, 1, 1, false);
    struct answers want = answers_of(&one, &t, &plain, NULL);
    for (size_t i = 0; i < COUNT(layout); i++) {
        struct plan p = make_plan(&m, layout[i].tp, layout[i].ep, layout[i].pp, layout[i].sp);
        struct placer placer = {.n_run = layout[i].ep, .seed = (uint32_t)i};
        struct engine_opts opts = {.watch = {place_at_random, &placer}};
        struct answers got = answers_of(&p, &t, &opts, &placer);
        assert_true(placer.placed > 20);
        assert_same(&want, &got);
    }
    tiny_free(&t);
}

static void balancing_after_every_step_changes_no_token(void **state)
{
    const struct engine_opts plain = {.tpot_s = 0},
                             balanced = {.experts = {.rebalance = true, .redundant = 1}};
    struct model m = mixture();
    struct tiny t = tiny_make(&m, NUM_F32, 6);
    (void)state;
    struct plan one = make_plan(&m, 1, 1, 1, false), p = make_plan(&m, 2, 2, 1, false);
    struct answers want = answers_of(&one, &t, &plain, NULL);
    struct answers got = answers_of(&p, &t, &balanced, NULL);
    assert_same(&want, &got);
    tiny_free(&t);
}

/* However little is kept: what is called cold is memory like any other. */
static void keeping_few_experts_changes_no_token(void **state)
{
    const struct engine_opts plain = {.tpot_s = 0}, cached = {.team = {.expert_cache = 40000}};
    struct model m = mixture();
    struct tiny t = tiny_make(&m, NUM_F32, 10);
    (void)state;
    struct plan one = make_plan(&m, 1, 1, 1, false), p = make_plan(&m, 2, 2, 1, true);
    struct answers want = answers_of(&one, &t, &plain, NULL);
    struct answers got = answers_of(&one, &t, &cached, NULL);
    assert_same(&want, &got);
    got = answers_of(&p, &t, &cached, NULL);
    assert_same(&want, &got);
    tiny_free(&t);
}

struct figures {
    uint64_t rows[LAYERS][EXPERTS];
    struct turn_load turns[LAYERS];
};

static uint64_t rows_of(const struct figures *f, int layer)
{
    uint64_t n = 0;
    for (int i = 0; i < EXPERTS; i++)
        n += f->rows[layer][i];
    return n;
}

/* Every row of a step chooses TOP experts in every layer that has some; a rank that is killed takes
 * no counts with it but those of the step it died in. */
static void rows_are_counted_by_layer_and_expert(void **state)
{
    struct model m = mixture();
    struct tiny t = tiny_make(&m, NUM_F32, 7);
    (void)state;
    for (int ep = 1; ep <= 2; ep++) {
        struct plan p = make_plan(&m, 2, ep, 1, false);
        struct answers to = {.ended = 0};
        struct figures f;
        struct expert_figures figures = {.rows = f.rows[0], .turns = f.turns};
        struct engine *x = start(&p, &t, (struct engine_opts){.tpot_s = 0});
        for (int i = 0; i < REQUESTS; i++)
            submit(x, i, &to);
        wait_all(x, &to);
        engine_experts(x, &figures);
        uint64_t rows = 0;
        struct engine_step step[64];
        for (int n; (n = engine_steps(x, step, 64)) > 0;)
            for (int i = 0; i < n; i++)
                rows += (uint64_t)step[i].rows;
        assert_int_equal(rows_of(&f, 0), 0);
        for (int l = 1; l < LAYERS; l++) {
            assert_int_equal(rows_of(&f, l), rows * TOP);
            assert_true(ep == 1 ? !f.turns[l].all : f.turns[l].most * 2 >= f.turns[l].all);
            assert_true(f.turns[l].most <= f.turns[l].all);
        }
        engine_stop(x);
    }
    tiny_free(&t);
}

struct killer {
    struct engine *_Atomic engine;
    struct figures before;
    int commits;
};

/* The fifth step is the last that the first ranks are there for. */
static void kill_a_rank(void *arg, const struct drive_event *ev)
{
    struct killer *k = arg;
    struct expert_figures figures = {.rows = k->before.rows[0], .turns = k->before.turns};
    struct team_memory host;
    struct rank_memory rank[2];
    if (!k->engine || ev->deed != DRIVE_COMMIT || ++k->commits != 5)
        return;
    engine_experts(k->engine, &figures);
    engine_memory(k->engine, &host, rank);
    kill(rank[1].pid, SIGKILL);
}

static void a_new_team_follows_the_placement_and_keeps_the_counts(void **state)
{
    struct model m = mixture();
    struct tiny t = tiny_make(&m, NUM_F32, 8);
    struct plan p = make_plan(&m, 2, 2, 1, false), one = make_plan(&m, 1, 1, 1, false);
    const struct engine_opts plain = {.tpot_s = 0};
    struct placement first[LAYERS]; /* run 0 does everything */
    struct answers to = {.ended = 0};
    struct figures later;
    struct expert_figures figures = {.rows = later.rows[0], .turns = later.turns};
    struct killer killer = {.commits = 0};
    (void)state;
    for (int l = 0; l < LAYERS; l++) {
        first[l] = placement_all(EXPERTS, 2);
        for (int i = 0; i < EXPERTS; i++)
            first[l].holders[i] = 1;
    }
    struct answers want = answers_of(&one, &t, &plain, NULL);
    const struct engine_opts opts = {.experts = {.layer = first}, .watch = {kill_a_rank, &killer}};
    struct engine *x = start(&p, &t, opts);
    killer.engine = x;
    for (int i = 0; i < REQUESTS; i++)
        submit(x, i, &to);
    wait_all(x, &to);
    assert_same(&want, &to);
    engine_experts(x, &figures);
    for (int l = 1; l < LAYERS; l++) {
        assert_true(rows_of(&killer.before, l) > 0);
        assert_true(rows_of(&later, l) > rows_of(&killer.before, l));
        assert_int_equal(later.turns[l].most, later.turns[l].all);
    }
    engine_stop(x);
    tiny_free(&t);
}

static void a_bad_placement_is_refused_while_it_runs(void **state)
{
    struct model m = mixture();
    struct tiny t = tiny_make(&m, NUM_F32, 9);
    struct plan p = make_plan(&m, 2, 2, 1, false), one = make_plan(&m, 2, 1, 1, false);
    struct placement layer[LAYERS];
    struct err e;
    (void)state;
    for (int l = 0; l < LAYERS; l++)
        layer[l] = placement_all(EXPERTS, 2);
    struct engine *x = start(&p, &t, (struct engine_opts){.tpot_s = 0});
    assert_int_equal(engine_place(x, layer, &e), 0);
    layer[2].holders[6] = 0;
    assert_int_equal(engine_place(x, layer, &e), -EINVAL);
    assert_string_equal(e.text, "layer 2: expert 6 is held by none of the 2 runs: name it in one");
    layer[2] = placement_all(EXPERTS, 3);
    assert_int_equal(engine_place(x, layer, &e), -EINVAL);
    assert_string_equal(e.text, "layer 2 places 7 experts on 3 runs; here are 7 on 2");
    engine_stop(x);
    x = start(&one, &t, (struct engine_opts){.tpot_s = 0});
    assert_int_equal(engine_place(x, layer, &e), -EINVAL);
    assert_string_equal(e.text, "with one run of ranks there is nothing to place: see --ep");
    engine_stop(x);
    tiny_free(&t);
}

static int differ(const struct placement *a, const struct placement *b)
{
    int n = 0;
    for (int l = 1; l < LAYERS; l++) /* the first has no experts */
        n += memcmp(a[l].holders, b[l].holders, EXPERTS * sizeof(*a->holders)) != 0;
    return n;
}

static void experts_that_are_copied_move_a_layer_at_a_time(void **state)
{
    struct model m = mixture();
    struct tiny t = tiny_make(&m, NUM_F32, 9);
    struct plan p = make_plan(&m, 2, 2, 1, false);
    const struct team_opts team_opts = {.isa = isa_best()};
    struct placement even[LAYERS], other[LAYERS];
    struct expert_opts opts = {.layer = other};
    struct team *team;
    struct err e;
    (void)state;
    p.slots = EXPERTS;
    for (int l = 0; l < LAYERS; l++)
        even[l] = placement_even(EXPERTS, 2), other[l] = placement_all(EXPERTS, 2);
    if (team_start(&team, &p, t.store, &team_opts, &e))
        fail_msg("%s", e.text);
    for (int own = 0; own <= 1; own++) {
        struct experts_of x;
        struct pool pool = {0};
        experts_open(&x, &p, &opts, own, 0, &pool);
        for (int step = 1; step <= LAYERS; step++) {
            experts_place(&x, team, 0);
            assert_int_equal(differ(x.now, other), own ? max_int(LAYERS - 1 - step, 0) : 0);
        }
        assert_false(x.moving);
        assert_int_equal(experts_want(&x, even, &e), 0); /* and back again */
        for (int step = 1; step <= LAYERS; step++) {
            experts_place(&x, team, 0);
            assert_int_equal(differ(x.now, even), own ? max_int(LAYERS - 1 - step, 0) : 0);
        }
        experts_close(&x);
        pool_free(&pool);
    }
    team_stop(team);
    tiny_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(placements_that_change_between_steps_change_no_token),
        cmocka_unit_test(balancing_after_every_step_changes_no_token),
        cmocka_unit_test(keeping_few_experts_changes_no_token),
        cmocka_unit_test(rows_are_counted_by_layer_and_expert),
        cmocka_unit_test(a_new_team_follows_the_placement_and_keeps_the_counts),
        cmocka_unit_test(a_bad_placement_is_refused_while_it_runs),
        cmocka_unit_test(experts_that_are_copied_move_a_layer_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
