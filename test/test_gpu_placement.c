/* test_gpu_placement.c - experts that move between GPUs, between two steps and whoever dies: not a
 * bit changes, no byte is copied in vain, and plans count them all. On the model of a GPU
 * (cuda_model.h), or with the plugin that TANDEM_PLUGIN_PATH names. */
#include "engine/engine.h"
#include "run/gpu.h"
#include "tiny.h"

#include <signal.h>
#include <unistd.h>

enum { LAYERS = 3, EXPERTS = 7, TOP = 3, CTX = 64, WAIT_MS = 120000 };

static const struct gpus *the_gpus(void)
{
    static struct gpus gpus;
    const struct plugin *plugin;
    struct err e;
    if (gpus.n)
        return &gpus;
    setenv("TANDEM_PLUGIN_PATH", BUILD_DIR "/model", 0); /* or a real one */
    if (plugin_open(&plugin, &e) || plugin_gpus(plugin, &gpus, &e))
        fail_msg("%s", e.text);
    return &gpus;
}

/* GPUs that do not read each other's memory, and a library in place of NCCL. */
static const struct gpus *apart(void)
{
    static struct gpus gpus;
    struct err e;
    setenv("TANDEM_MODEL_GPU", "gpus=4 peers=0", 1);
    if (gpus.n)
        return &gpus;
    setenv("TANDEM_NCCL", BUILD_DIR "/model/fake/libnccl.so.2", 1);
    if (plugin_gpus(the_gpus()->plugin, &gpus, &e))
        fail_msg("%s", e.text);
    return &gpus;
}

static bool on_the_model(void) { return !strcmp(the_gpus()->gpu[0].name, "model of a GPU"); }

/* The first layer has no experts. */
static struct model mixture(void)
{
    struct model m = tiny_llama(LAYERS);
    m.experts = (struct experts){
        .n = EXPERTS, .top = TOP, .ff = 36, .shared_ff = 40, .renorm = true, .shared_gate = true};
    m.kind[1].dense = true;
    m.kind_of[0] = 1;
    return m;
}

struct layout {
    int tp, ep, pp, chunk, slots;
    bool sp;
    enum num weight;
};

static struct plan plan_of(const struct model *m, struct layout l)
{
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = l.tp,
                           .pp = l.pp,
                           .ep = l.ep,
                           .slots = l.slots,
                           .sp = l.sp,
                           .ctx = CTX,
                           .max_tok = l.chunk,
                           .max_seq = min_int(l.chunk, 4),
                           .threads = 2,
                           .weight = l.weight,
                           .kv = NUM_F32,
                           .numerics = "f32-fma"};
    if (plan_make(&p, m, &ask, &e))
        fail_msg("%s", e.text);
    p.max_out = l.chunk;
    return p;
}

static uint32_t draw(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(*seed >> 8) * below >> 24);
}

/* One holder for each expert, copies as long as there are slots. */
static struct placement any_placement(int n_run, int slots, uint32_t *seed)
{
    struct placement p = {.n_expert = EXPERTS, .n_run = n_run};
    for (int i = 0; i < EXPERTS; i++) {
        int run = (int)draw(seed, (uint32_t)n_run);
        while (placement_slots(&p, run) == slots)
            run = (run + 1) % n_run;
        p.holders[i] = (uint64_t)1 << run;
    }
    for (int tries = 0; tries < 3; tries++) {
        const int run = (int)draw(seed, (uint32_t)n_run), i = (int)draw(seed, EXPERTS);
        if (placement_slots(&p, run) < slots)
            p.holders[i] |= (uint64_t)1 << run;
    }
    return p;
}

static void any_placements(struct placement to[LAYERS], const struct plan *p, uint32_t *seed)
{
    for (int l = 0; l < LAYERS; l++)
        to[l] = any_placement(p->ep, p->slots, seed);
}

/* ------------------------------------------------------------------------------- bits */

enum { TOKENS = 24 };

struct sequence {
    struct team *team;
    const struct plan *p;
    int done;
};

static void start(struct sequence *s, const struct plan *p, const struct store *store,
                  const struct gpus *gpus)
{
    const struct team_opts opts = {.isa = ISA_REF, .keep_logits = true, .gpus = gpus};
    struct err e;
    *s = (struct sequence){.p = p};
    if (team_start(&s->team, p, store, &opts, &e))
        fail_msg("%s", e.text);
}

/* The next tokens of one sequence. */
static void step(struct sequence *s, float *logits)
{
    int tok[TOKENS], pos[TOKENS], seq[TOKENS] = {0}, out[TOKENS], page[CTX / KV_PAGE];
    struct draw draws[TOKENS];
    struct team_result result;
    struct err e;
    const int n = min_int(s->p->max_tok, TOKENS - s->done);
    const size_t row = (size_t)s->p->model.n_vocab;
    for (int i = 0; i < n; i++) {
        pos[i] = s->done + i, out[i] = i;
        tok[i] = (pos[i] * 37 + 11) % s->p->model.n_vocab;
        draws[i] = (struct draw){.sampling = sampling_greedy};
    }
    for (int i = 0; i < CTX / KV_PAGE; i++)
        page[i] = i;
    const struct batch b = {.n_tok = n,
                            .n_seq = 1,
                            .n_out = n,
                            .tok = tok,
                            .pos = pos,
                            .slot = pos,
                            .seq = seq,
                            .page = page,
                            .stride = CTX / KV_PAGE,
                            .out = out};
    const int64_t number = team_submit(s->team, &b, draws, &e);
    if (number < 0 || team_wait(s->team, number, &result, &e))
        fail_msg("%s", e.text);
    memcpy(logits + (size_t)s->done * row, result.logits, (size_t)n * row * sizeof(*logits));
    s->done += n;
}

static float *room_for_logits(const struct plan *p)
{
    return test_malloc(TOKENS * (size_t)p->model.n_vocab * sizeof(float));
}

static void logits_of(const struct plan *p, const struct store *store, float *to)
{
    struct sequence s;
    start(&s, p, store, NULL);
    while (s.done < TOKENS)
        step(&s, to);
    team_stop(s.team);
}

/* Any placement before every step. */
static void logits_on_gpus(const struct plan *p, const struct store *store, const struct gpus *gpus,
                           float *to)
{
    struct placement layer[LAYERS];
    struct sequence s;
    uint32_t seed = (uint32_t)p->tp;
    start(&s, p, store, gpus);
    while (s.done < TOKENS) {
        any_placements(layer, p, &seed);
        if (s.done) /* the first step is of even shares */
            team_place(s.team, layer);
        step(&s, to);
    }
    team_stop(s.team);
}

static void experts_that_move_between_steps_change_no_bit(void **state)
{
    static const struct layout layout[] = {
        {2, 2, 1, 3, 5, false, NUM_F32}, {2, 2, 1, 1, 4, true, NUM_INT8},
        {4, 2, 1, 3, 7, true, NUM_F32},  {3, 3, 1, 2, 4, false, NUM_INT4},
        {2, 2, 2, 2, 5, true, NUM_F32},
    };
    const struct model m = mixture();
    struct tiny t = tiny_make(&m, NUM_F32, 5);
    (void)state;
    for (size_t i = 0; i < COUNT(layout); i++) {
        struct layout one = {1, 1, 1, TOKENS, 0, false, layout[i].weight};
        struct plan alone = plan_of(&m, one), p = plan_of(&m, layout[i]);
        float *want = room_for_logits(&p), *got = room_for_logits(&p);
        logits_of(&alone, t.store, want);
        logits_on_gpus(&p, t.store, the_gpus(), got);
        assert_memory_equal(got, want, TOKENS * (size_t)m.n_vocab * sizeof(*got));
        if (i == 1 && on_the_model()) {
            logits_on_gpus(&p, t.store, apart(), got);
            unsetenv("TANDEM_MODEL_GPU");
            assert_memory_equal(got, want, TOKENS * (size_t)m.n_vocab * sizeof(*got));
        }
        test_free(got);
        test_free(want);
    }
    tiny_free(&t);
}

/* ------------------------------------------------------------------------------- bytes */

/* Experts of layers with some that a run holds by `now` and did not by `before`. */
static int come(const struct placement *before, const struct placement *now, int run)
{
    int n = 0;
    for (int l = 1; l < LAYERS; l++)
        for (int e = 0; e < EXPERTS; e++)
            n += placement_holds(&now[l], run, e) && !placement_holds(&before[l], run, e);
    return n;
}

static size_t expert_bytes(const struct plan *p, int rank)
{
    return plan_expert_bytes(p, rank) / (size_t)(LAYERS - 1) / (size_t)plan_slots(p, rank);
}

static void only_what_is_not_there_is_copied(void **state)
{
    const struct model m = mixture();
    struct tiny t = tiny_make(&m, NUM_F32, 5);
    struct plan p = plan_of(&m, (struct layout){2, 2, 1, 2, 5, false, NUM_F32});
    struct placement now[LAYERS], next[LAYERS];
    struct sequence s;
    struct err e;
    float *to = room_for_logits(&p);
    (void)state;
    for (int l = 0; l < LAYERS; l++)
        now[l] = next[l] = placement_even(EXPERTS, 2);
    for (int l = 1; l < LAYERS; l++) { /* two change places, one gets a copy */
        next[l].holders[1] = 2, next[l].holders[5] = 1, next[l].holders[6] = 3;
    }
    start(&s, &p, t.store, the_gpus());
    step(&s, to);
    const uint64_t loaded = team_copied(s.team);
    team_place(s.team, next);
    step(&s, to);
    uint64_t moved = 0;
    for (int r = 0; r < 2; r++)
        moved += (uint64_t)come(now, next, r) * expert_bytes(&p, r);
    assert_int_equal(come(now, next, 0) + come(now, next, 1), 3 * (LAYERS - 1));
    assert_int_equal(team_copied(s.team), loaded + moved);
    team_place(s.team, next); /* the same */
    step(&s, to);
    assert_int_equal(team_copied(s.team), loaded + moved);
    const int killed = 1; /* new ranks know what lies where */
    struct team_memory host;
    struct rank_memory rank[2];
    team_memory(s.team, &host, rank);
    kill(rank[killed].pid, SIGKILL);
    while (team_again(s.team, &e))
        fail_msg("%s", e.text);
    step(&s, to);
    assert_int_equal(team_copied(s.team), loaded + moved);
    team_stop(s.team);
    test_free(to);
    tiny_free(&t);
}

static void without_room_for_copies_it_may_fit(void **state)
{
    const struct model m = mixture();
    struct plan p = plan_of(&m, (struct layout){2, 2, 1, 2, 6, false, NUM_F32});
    struct gpus g = *the_gpus();
    struct err e;
    (void)state;
    p.slots = 0; /* so much is there, and not a byte more; both ranks stand on one GPU */
    g.n = 1;
    g.gpu[0].unit = 0;
    const struct gpu_need a = gpu_need(&p, 0, &g), b = gpu_need(&p, 1, &g);
    g.gpu[0].memory_free =
        a.weights + a.kv + a.scratch + b.weights + b.kv + b.scratch + 2 * (size_t)GPU_RESERVE;
    assert_int_equal(gpu_check(&p, &g, &e), 0);
    p.slots = 4;
    assert_int_equal(gpu_check(&p, &g, &e), -ENOMEM);
    assert_non_null(strstr(e.text, "fewer --redundant-experts"));
}

static void plans_count_the_slots_of_every_layer(void **state)
{
    const struct model m = mixture();
    const struct layout even = {2, 2, 1, 2, 0, false, NUM_INT8};
    (void)state;
    for (int slots = 4; slots <= EXPERTS; slots++) {
        struct layout l = even;
        l.slots = slots;
        const struct plan p = plan_of(&m, l), before = plan_of(&m, even);
        for (int r = 0; r < 2; r++) {
            struct weights w;
            struct arena tables = {0}, data = {0};
            const size_t one = expert_bytes(&before, r), held = (size_t)plan_slots(&before, r);
            assert_int_equal(held, r ? 4 : 3);
            weights_lay_out(&w, &p, r, &tables, &data);
            assert_int_equal(plan_weight_bytes(&p, r), data.used);
            assert_int_equal(plan_weight_bytes(&p, r),
                             plan_weight_bytes(&before, r) + ((size_t)slots - held) * 2 * one);
            assert_true(gpu_need(&p, r, the_gpus()).weights == data.used);
        }
        assert_int_equal(plan_weight_bytes(&p, PLAN_WHOLE), plan_weight_bytes(&before, PLAN_WHOLE));
    }
}

/* ------------------------------------------------------------------------------- under load */

enum { REQUESTS = 6, MAX_NEW = 20 };

struct client {
    struct engine *_Atomic engine;
    const struct plan *p;
    uint64_t id[REQUESTS];
    int tok[REQUESTS][MAX_NEW], n[REQUESTS], ended;
    bool places;
    uint32_t seed;
    int placed;
};

static void hear(void *arg, const struct engine_event *ev)
{
    struct client *c = arg;
    for (int i = 0; i < REQUESTS; i++)
        if (c->id[i] == ev->id && ev->token >= 0)
            c->tok[i][c->n[i]++] = ev->token;
    assert_true(ev->finish == RUNNING || ev->finish == FINISH_LENGTH);
    c->ended += ev->finish != RUNNING;
}

static void place_at_random(void *arg, const struct drive_event *ev)
{
    struct client *c = arg;
    struct placement layer[LAYERS];
    struct err e;
    (void)ev;
    if (!c->places || !c->engine)
        return;
    any_placements(layer, c->p, &c->seed);
    if (engine_place(c->engine, layer, &e))
        fail_msg("%s", e.text);
    c->placed++;
}

static void begin(struct client *c, const struct plan *p, const struct store *s,
                  struct engine_opts opts)
{
    struct engine *x;
    struct err e;
    c->p = p;
    opts.team.isa = ISA_REF;
    opts.watch.fn = place_at_random, opts.watch.arg = c;
    if (engine_start(&x, p, s, &opts, &e))
        fail_msg("%s", e.text);
    c->engine = x;
    for (int i = 0; i < REQUESTS; i++) {
        int prompt[12];
        for (int k = 0; k < 12; k++)
            prompt[k] = (37 * k + 11 * i + 3) % p->model.n_vocab;
        struct engine_request r = {.prompt = prompt,
                                   .n_prompt = 4 + i,
                                   .max_new = MAX_NEW,
                                   .sampling = sampling_greedy,
                                   .n_top = -1,
                                   .n_prompt_top = -1};
        r.sampling.temperature = i % 2 ? 0.8f : 0;
        r.sampling.seed = (uint64_t)i;
        if (engine_submit(x, &r, &c->id[i], &e))
            fail_msg("%s", e.text);
    }
}

/* Until so many more tokens have come, or all have. */
static void go_on(struct client *c, int tokens)
{
    int n = 0, until = tokens;
    for (int i = 0; i < REQUESTS; i++)
        until += c->n[i];
    for (int ms = 0; n < until && c->ended < REQUESTS; ms++) {
        assert_true(ms < WAIT_MS);
        if (!engine_events(c->engine, hear, c))
            usleep(1000);
        n = 0;
        for (int i = 0; i < REQUESTS; i++)
            n += c->n[i];
    }
}

static struct engine_stats end(struct client *c)
{
    struct engine_stats stats;
    for (int ms = 0; c->ended < REQUESTS; ms++) {
        assert_true(ms < WAIT_MS);
        engine_events(c->engine, hear, c);
        usleep(1000);
    }
    engine_stats(c->engine, &stats);
    engine_stop(c->engine);
    return stats;
}

static void kill_rank(struct client *c, int rank)
{
    struct team_memory host;
    struct rank_memory of[PLAN_RANKS] = {0};
    engine_memory(c->engine, &host, of);
    if (of[rank].pid > 0)
        kill(of[rank].pid, SIGKILL);
}

static void same_tokens(const struct client *a, const struct client *b)
{
    assert_memory_equal(a->n, b->n, sizeof(a->n));
    assert_memory_equal(a->tok, b->tok, sizeof(a->tok));
}

static struct client answers(const struct plan *p, const struct store *s, struct engine_opts opts)
{
    struct client c = {.ended = 0};
    begin(&c, p, s, opts);
    end(&c);
    return c;
}

static void ranks_that_die_while_experts_move_change_no_token(void **state)
{
    static const struct layout layout[] = {{2, 2, 1, 8, 5, false, NUM_F32},
                                           {3, 3, 1, 8, 4, true, NUM_F32},
                                           {2, 2, 2, 8, 4, false, NUM_F32}};
    const struct model m = mixture();
    struct tiny t = tiny_make(&m, NUM_F32, 8);
    struct plan one = plan_of(&m, (struct layout){1, 1, 1, 8, 0, false, NUM_F32});
    const struct client want = answers(&one, t.store, (struct engine_opts){.draft = 0});
    uint32_t seed = 7;
    (void)state;
    for (size_t i = 0; i < COUNT(layout); i++) {
        struct plan p = plan_of(&m, layout[i]);
        struct client got = {.seed = (uint32_t)i, .places = true};
        begin(&got, &p, t.store, (struct engine_opts){.team.gpus = the_gpus()});
        for (int kills = 0; kills < 4; kills++) {
            go_on(&got, 5 + (int)draw(&seed, 15));
            kill_rank(&got, (int)draw(&seed, (uint32_t)plan_ranks(&p)));
        }
        const struct engine_stats stats = end(&got);
        same_tokens(&got, &want);
        assert_true(got.placed > 10 && stats.restarts > 0);
    }
    tiny_free(&t);
}

static uint64_t rows_of(struct engine *x)
{
    uint64_t rows[LAYERS][EXPERTS], n = 0;
    struct turn_load turns[LAYERS];
    struct expert_figures f = {.rows = rows[0], .turns = turns};
    engine_experts(x, &f);
    for (int i = 0; i < EXPERTS; i++)
        n += rows[LAYERS - 1][i];
    return n;
}

/* By what GPUs have counted, after every step; a rank that dies takes no counts with it. */
static void balancing_after_every_step_changes_no_token(void **state)
{
    const struct model m = mixture();
    struct tiny t = tiny_make(&m, NUM_F32, 6);
    struct plan one = plan_of(&m, (struct layout){1, 1, 1, 8, 0, false, NUM_F32});
    struct plan p = plan_of(&m, (struct layout){2, 2, 1, 8, 5, true, NUM_F32});
    const struct client want = answers(&one, t.store, (struct engine_opts){.draft = 0});
    struct client got = {.ended = 0};
    (void)state;
    begin(&got, &p, t.store,
          (struct engine_opts){.team.gpus = the_gpus(),
                               .experts = {.rebalance = true, .redundant = 1}});
    go_on(&got, 30);
    const uint64_t rows = rows_of(got.engine);
    kill_rank(&got, 0);
    for (int ms = 0; got.ended < REQUESTS; ms++) {
        assert_true(ms < WAIT_MS);
        assert_true(rows_of(got.engine) >= rows);
        engine_events(got.engine, hear, &got);
        usleep(1000);
    }
    uint64_t placements[LAYERS * EXPERTS] = {0};
    struct turn_load turns[LAYERS];
    struct expert_figures f = {.rows = placements, .turns = turns};
    engine_experts(got.engine, &f);
    print_message("%d placements\n", (int)f.placements);
    assert_true(f.placements > 1 && rows > 0);
    end(&got);
    same_tokens(&got, &want);
    tiny_free(&t);
}

/* ------------------------------------------------------------------------------- refused */

static void refused(const struct plan *p, const struct store *s, struct expert_opts experts,
                    const char *words)
{
    struct engine_opts opts = {.team = {.isa = ISA_REF, .gpus = the_gpus()}, .experts = experts};
    struct engine *x;
    struct err e = {{0}};
    assert_int_equal(engine_start(&x, p, s, &opts, &e), -EINVAL);
    if (!strstr(e.text, words))
        fail_msg("%s", e.text);
}

static void what_has_no_room_is_refused(void **state)
{
    const struct model m = mixture();
    struct tiny t = tiny_make(&m, NUM_F32, 6);
    struct plan fixed = plan_of(&m, (struct layout){2, 2, 1, 4, 0, false, NUM_F32});
    struct plan few = plan_of(&m, (struct layout){2, 2, 1, 4, 4, false, NUM_F32}), bad = few;
    struct placement all[LAYERS], even[LAYERS];
    struct err e;
    (void)state;
    for (int l = 0; l < LAYERS; l++)
        all[l] = placement_all(EXPERTS, 2), even[l] = placement_even(EXPERTS, 2);
    refused(&fixed, t.store, (struct expert_opts){.layer = even}, "has no slots for others");
    refused(&fixed, t.store, (struct expert_opts){.rebalance = true}, "room for 0");
    refused(&few, t.store, (struct expert_opts){.layer = all},
            "layer 1: a run is to hold 7 experts, but its GPUs have room for 4");
    refused(&few, t.store, (struct expert_opts){.rebalance = true, .redundant = 1}, "up to 5");
    bad.slots = 3;
    assert_int_equal(plan_check(&bad, &e), -EINVAL);
    assert_non_null(strstr(e.text, "must be 4 to 7"));
    struct client c = {.ended = 0};
    begin(&c, &few, t.store, (struct engine_opts){.team.gpus = the_gpus()});
    assert_int_equal(engine_place(c.engine, all, &e), -EINVAL);
    all[0].holders[0] = 3; /* that layer has no experts */
    for (int l = 1; l < LAYERS; l++)
        all[l] = even[l];
    assert_int_equal(engine_place(c.engine, all, &e), 0);
    end(&c);
    tiny_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_that_move_between_steps_change_no_bit),
        cmocka_unit_test(only_what_is_not_there_is_copied),
        cmocka_unit_test(plans_count_the_slots_of_every_layer),
        cmocka_unit_test(without_room_for_copies_it_may_fit),
        cmocka_unit_test(ranks_that_die_while_experts_move_change_no_token),
        cmocka_unit_test(balancing_after_every_step_changes_no_token),
        cmocka_unit_test(what_has_no_room_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
