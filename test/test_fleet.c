/* test_fleet.c - replicas: a request goes where its beginning is, unless that is too busy, and what
 * it is told does not depend on where it went. */
#include "engine/fleet.h"
#include "sched/route.h"
#include "tiny.h"

#include <time.h>

static struct route *new_route(void)
{
    struct route *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    return r;
}

static void fill(int *tok, int n, int from)
{
    for (int i = 0; i < n; i++)
        tok[i] = (from * 1000 + i * 7) % 500009;
}

static void beginnings_stay_together_and_others_spread(void **state)
{
    struct route *r = new_route();
    double idle[3] = {0};
    int tok[200], first[30];
    (void)state;
    for (int i = 0; i < 30; i++) { /* ten families of three */
        fill(tok, 160, i % 10);
        fill(tok + 160, 40, 100 + i);
        double load[3] = {0};
        for (int k = 0; k < i && i < 10; k++)
            load[first[k]] += 200;
        first[i] = route_choose(r, tok, 200, 0, load, route_idlest(load, 3));
        assert_int_equal(first[i], first[i % 10]);
    }
    int at[3] = {0};
    for (int i = 0; i < 10; i++)
        at[first[i]]++;
    assert_true(at[0] >= 3 && at[1] >= 3 && at[2] >= 3);
    fill(tok, 160, 0);
    assert_int_equal(route_choose(r, tok, 200, 0, idle, route_idlest(idle, 3)), first[0]);
    double busy[3] = {0};
    busy[first[0]] = 1000; /* more than the prefix is worth */
    assert_int_not_equal(route_choose(r, tok, 200, 0, busy, route_idlest(busy, 3)), first[0]);
    free(r);
}

/* So many other prompts that more than half of what the table knew of the first is pushed out. */
static void what_is_left_of_a_long_beginning_is_enough(void **state)
{
    enum { N = 8000, OTHERS = 120 };
    struct route *r = new_route();
    int *tok = calloc(N, sizeof(int));
    double load[2] = {10, 0};
    (void)state;
    assert_non_null(tok);
    fill(tok, N, 1);
    assert_int_equal(route_choose(r, tok, N, 0, load, route_idlest(load, 2)), 1);
    for (int i = 0; i < OTHERS; i++) {
        double idle[2] = {0};
        fill(tok, N, 100 + i);
        route_choose(r, tok, N, 0, idle, 0);
    }
    fill(tok, N, 1);
    load[0] = 0, load[1] = 5000;
    assert_int_equal(route_choose(r, tok, N, 0, load, route_idlest(load, 2)), 1);
    free(tok);
    free(r);
}

static void another_salt_knows_nothing(void **state)
{
    struct route *r = new_route();
    int tok[100];
    (void)state;
    fill(tok, 100, 1);
    double load[2] = {10, 0};
    assert_int_equal(route_choose(r, tok, 100, 7, load, route_idlest(load, 2)), 1);
    load[0] = 0, load[1] = 10;
    assert_int_equal(route_choose(r, tok, 100, 7, load, route_idlest(load, 2)),
                     1); /* 96 stored are worth it */
    assert_int_equal(route_choose(r, tok, 100, 8, load, route_idlest(load, 2)), 0);
    free(r);
}

/* ------------------------------------------------------------------------------- running */

struct answers {
    uint64_t id[16];
    int tok[16][32], n_tok[16], cached[16], n, ended;
};

static void take(void *arg, const struct engine_event *ev)
{
    struct answers *a = arg;
    for (int i = 0; i < a->n; i++) {
        if (a->id[i] != ev->id)
            continue;
        if (ev->token >= 0)
            a->tok[i][a->n_tok[i]++] = ev->token;
        a->cached[i] = ev->n_cached;
        a->ended += ev->finish != RUNNING;
        return;
    }
    fail_msg("an event for nobody");
}

static void ask(struct fleet *f, struct answers *a, const int *prompt, int n)
{
    struct err e;
    struct engine_request r = {.prompt = prompt,
                               .n_prompt = n,
                               .max_new = 20,
                               .sampling = sampling_greedy,
                               .n_top = -1,
                               .n_prompt_top = -1};
    r.sampling.temperature = 0.9f, r.sampling.seed = 3;
    if (fleet_submit(f, &r, &a->id[a->n], &e))
        fail_msg("%s", e.text);
    a->n++;
}

static void wait_all(struct fleet *f, struct answers *a)
{
    for (int i = 0; a->ended < a->n; i++) {
        if (!fleet_events(f, take, a))
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        assert_true(i < 60000);
    }
}

static void replicas_say_the_same_and_keep_prefixes(void **state)
{
    struct model m = tiny_llama(2);
    struct tiny t = tiny_make(&m, NUM_F32, 5);
    struct plan_ask wish = {.tp = 1,
                            .pp = 1,
                            .dp = 2,
                            .ctx = 128,
                            .max_tok = 48,
                            .max_seq = 8,
                            .weight = NUM_F32,
                            .kv = NUM_F32,
                            .numerics = "f32-fma"};
    struct plan p;
    struct fleet *f = NULL;
    struct err e;
    struct answers a = {0};
    struct engine_opts opts = {.team.isa = isa_best()};
    struct engine_stats one, both;
    int prompt[2][80];
    (void)state;
    for (int i = 0; i < 80; i++)
        prompt[0][i] = i * 3 % 203, prompt[1][i] = i * 5 % 203;
    if (plan_make(&p, &m, &wish, &e) || fleet_start(&f, &p, t.store, &opts, &e))
        fail_msg("%s", e.text);
    assert_int_equal(fleet_size(f), 2);
    for (int i = 0; i < 8; i++) /* more than one replica would begin with */
        ask(f, &a, prompt[i % 2], 80);
    wait_all(f, &a);
    for (int i = 0; i < 2; i++) {
        engine_stats(fleet_engine(f, i), &one);
        assert_true(one.submitted > 0);
    }
    for (int i = 8; i < 12; i++) { /* idle replicas are asked again what they know */
        ask(f, &a, prompt[i % 2], 80);
        wait_all(f, &a);
        assert_int_equal(a.cached[i], 64);
    }
    for (int i = 2; i < 12; i++) {
        assert_int_equal(a.n_tok[i], 20);
        assert_memory_equal(a.tok[i], a.tok[i % 2], sizeof(a.tok[0]));
    }
    fleet_stats(f, &both);
    assert_int_equal(both.submitted, 12);
    fleet_stop(f);
    tiny_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beginnings_stay_together_and_others_spread),
        cmocka_unit_test(what_is_left_of_a_long_beginning_is_enough),
        cmocka_unit_test(another_salt_knows_nothing),
        cmocka_unit_test(replicas_say_the_same_and_keep_prefixes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
