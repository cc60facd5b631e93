/* test_simulate.c - a load on a virtual clock: queues as theory says, steps as they are priced,
 * replicas, deaths, refusals, patience; the same question, the same answer. */
#include "base/least.h"
#include "load/tally.h"
#include "predict/price.h"
#include "predict/simulate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "model_help.h"

static void near(double got, double want, double share)
{
    if (fabs(got - want) > share * fabs(want))
        fail_msg("%g is not within %g %% of %g", got, 100 * share, want);
}

static struct plan make_plan(int pp, int max_seq)
{
    return plan_of(
        "llama-3-8b",
        (struct plan_ask){.tp = 1, .pp = pp, .ctx = 4096, .max_tok = 512, .max_seq = max_seq});
}

static struct load make_load(double rate, uint64_t requests, int prompt, int output)
{
    struct load l = {.work = {.seed = 5,
                              .prompt = {SPREAD_UNIFORM, prompt, prompt},
                              .output = {SPREAD_UNIFORM, output, output}},
                     .timing = LOAD_ARRIVALS,
                     .requests = requests,
                     .most_bad = UINT64_MAX};
    l.arrivals =
        arrivals_begin(&(struct arrivals){.kind = ARRIVALS_POISSON, .rate = rate, .cv = 1}, 5);
    return l;
}

static struct sim_result run(const struct simulation *ask)
{
    struct sim_result r;
    struct err e;
    if (simulate(ask, &r, &e))
        fail_msg("%s", e.text);
    return r;
}

/* ------------------------------------------------------------------------------- time */

static double one_second(void *arg, int replica, const struct sched_step *step)
{
    (void)arg, (void)replica, (void)step;
    return 1;
}

static double by_rows(void *arg, int replica, const struct sched_step *step)
{
    (void)arg, (void)replica;
    return 0.004 + 0.0001 * step->batch.n_tok;
}

/* One at a time, one step each: a queue with one server and constant service. Its mean wait is
 * rho / (2 (1 - rho)) services (Pollaczek and Khinchine). */
static void a_queue_of_one_waits_as_theory_says(void **state)
{
    static const double rho[] = {0.3, 0.6, 0.8};
    struct plan p = make_plan(1, 1);
    (void)state;
    for (size_t k = 0; k < COUNT(rho); k++) {
        struct load l = make_load(rho[k], 200000, 8, 1);
        struct sim_result r =
            run(&(struct simulation){.plan = &p, .load = &l, .step_s = one_second});
        near(r.summary.ttft.mean, 1 + rho[k] / (2 * (1 - rho[k])), 0.03);
        assert_int_equal(r.steps, 200000);
        sim_result_free(&r);
    }
}

static struct hardware hardware(void)
{
    struct hardware h;
    struct err e;
    if (hardware_load("dgx-a100-80", &h, &e))
        fail_msg("%s", e.text);
    return h;
}

/* A prompt of 1000 tokens goes in two steps of at most 512 rows, each further token in one; of
 * those that are chosen ahead the host's part is over before they begin. */
static void a_request_alone_takes_what_its_steps_are_priced(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        const int pp = 1 + k % 2;
        const bool ahead = k == 2;
        struct plan p = make_plan(pp, 4);
        struct hardware h = hardware();
        struct load l = make_load(1, 1, 1000, 5);
        struct sim_result r =
            run(&(struct simulation){.plan = &p, .hardware = &h, .load = &l, .ahead = ahead});
        struct err e;
        struct pricer *x = pricer_new(&p, &h, &e);
        assert_non_null(x);
        double all = 0;
        for (int at = 1000; at < 1004; at++) {
            struct work w = work_of(&p.model, 1, 1, at);
            struct step_price s;
            pricer_step(x, &w, &s);
            all += s.all_s - (ahead ? s.host_s : 0);
        }
        pricer_free(x);
        near(r.results.at[0].last - r.results.at[0].first, all, 1e-9);
        assert_int_equal(r.steps, 6);
        sim_result_free(&r);
    }
}

/* Two steps are on their way at once, each in half of the layers. */
static void stages_work_at_the_same_time(void **state)
{
    double seconds[2], busy[2];
    (void)state;
    for (int pp = 1; pp <= 2; pp++) {
        struct plan p = make_plan(pp, 32);
        struct hardware h = hardware();
        struct load l = make_load(1000, 64, 16, 200);
        struct sim_result r = run(&(struct simulation){.plan = &p, .hardware = &h, .load = &l});
        seconds[pp - 1] = r.results.seconds;
        busy[pp - 1] = (r.busy[0] + r.busy[pp - 1]) / 2;
        assert_true(busy[pp - 1] <= 1);
        sim_result_free(&r);
    }
    assert_true(seconds[1] < seconds[0]);
    assert_true(busy[1] > 0.7);
}

/* ------------------------------------------------------------------------------- the same again */

static void equal_questions_have_equal_answers(void **state)
{
    struct plan p = make_plan(2, 16);
    struct hardware h = hardware();
    struct load l = make_load(20, 500, 300, 60);
    struct simulation ask = {.plan = &p,
                             .hardware = &h,
                             .load = &l,
                             .replicas = 3,
                             .jitter = 0.1,
                             .deaths_hour = 1000,
                             .restart_s = 2,
                             .patience_s = 20};
    (void)state;
    struct sim_result a = run(&ask), b = run(&ask);
    assert_int_equal(a.results.n, 500);
    assert_memory_equal(a.results.at, b.results.at, a.results.n * sizeof(*a.results.at));
    assert_true(a.deaths > 0 && a.deaths == b.deaths);
    l.work.seed++;
    struct sim_result other = run(&ask);
    assert_memory_not_equal(a.results.at, other.results.at, a.results.n * sizeof(*a.results.at));
    sim_result_free(&a), sim_result_free(&b), sim_result_free(&other);
}

/* Where nobody begins alike, pages need no names until somebody is preempted: a short cut that must
 * not show. */
static void name_nothing(void *arg, uint64_t number, struct seq *q)
{
    (void)arg;
    for (int i = 0; i < q->n_max; i++)
        q->tok[i] = (int)number;
}

static void preemption_is_the_same_with_and_without_tokens(void **state)
{
    struct plan p = make_plan(1, 6);
    struct load l = make_load(10, 400, 300, 250);
    struct sim_death death = {0, 20};
    struct simulation ask = {
        .plan = &p, .load = &l, .step_s = by_rows, .death = &death, .n_death = 1, .restart_s = 1};
    (void)state;
    l.work.output.a = 20;
    p.pages = 100;
    struct sim_result a = run(&ask);
    ask.request = name_nothing;
    struct sim_result b = run(&ask);
    assert_true(a.preempted > 100 && a.deaths == 1);
    assert_int_equal(a.steps, b.steps);
    assert_int_equal(a.preempted, b.preempted);
    assert_memory_equal(a.results.at, b.results.at, a.results.n * sizeof(*a.results.at));
    sim_result_free(&a), sim_result_free(&b);
}

/* ------------------------------------------------------------------------------- replicas */

struct shares {
    uint64_t steps[4];
};

static double count_steps(void *arg, int replica, const struct sched_step *step)
{
    struct shares *s = arg;
    s->steps[replica]++;
    return by_rows(NULL, replica, step);
}

static void replicas_share_the_load(void **state)
{
    struct plan p = make_plan(1, 16);
    struct load l = make_load(50, 4000, 100, 20);
    struct shares s = {{0}};
    (void)state;
    struct sim_result r = run(&(struct simulation){
        .plan = &p, .load = &l, .replicas = 4, .step_s = count_steps, .arg = &s});
    for (int i = 0; i < 4; i++)
        assert_true(s.steps[i] > r.steps / 8);
    assert_int_equal(r.summary.fate[FATE_FINISHED], 4000);
    assert_int_equal(r.summary.output_tok, 4000 * 20);
    sim_result_free(&r);
}

/* Two beginnings of 1536 tokens, in turns; whoever shares one goes where it is stored. */
static void what_begins_alike_is_stored_once_and_found_again(void **state)
{
    struct trace_row row[200];
    uint64_t block[6] = {1, 2, 3, 11, 12, 13};
    for (int i = 0; i < 200; i++)
        row[i] = (struct trace_row){.at = 0.15 * i,
                                    .prompt_tok = 1700,
                                    .output_tok = 4,
                                    .first_block = i % 2 ? 3 : 0,
                                    .n_block = 3};
    struct plan p = make_plan(1, 16);
    struct load l = make_load(1, 200, 1, 1);
    l.work.trace = (struct trace){.row = row, .n = 200, .block = block, .timed = true};
    l.timing = LOAD_TRACE, l.trace_speed = 1;
    (void)state;
    struct sim_result r =
        run(&(struct simulation){.plan = &p, .load = &l, .replicas = 2, .step_s = by_rows});
    int first = 0;
    for (size_t i = 0; i < r.results.n; i++) {
        first += r.results.at[i].cached_tok == 0;
        assert_true(!r.results.at[i].cached_tok || r.results.at[i].cached_tok == 1536);
    }
    assert_int_equal(first, 2);
    sim_result_free(&r);
}

static void a_death_costs_time_and_no_request(void **state)
{
    struct plan p = make_plan(1, 16);
    struct load l = make_load(10, 300, 200, 50);
    struct sim_death death[] = {{0, 5}, {1, 7}, {0, 7.1}};
    struct simulation ask = {
        .plan = &p, .load = &l, .replicas = 2, .step_s = by_rows, .death = death, .restart_s = 3};
    (void)state;
    struct sim_result whole = run(&ask);
    ask.n_death = 3;
    struct sim_result hurt = run(&ask);
    assert_int_equal(hurt.deaths, 2); /* the third finds its replica dead */
    assert_int_equal(hurt.summary.fate[FATE_FINISHED], 300);
    assert_true(whole.summary.gap.most < 3 && hurt.summary.gap.most >= 3);
    assert_true(hurt.summary.ttft.p99 > whole.summary.ttft.p99 + 1);
    sim_result_free(&whole), sim_result_free(&hurt);
}

/* ------------------------------------------------------------------------------- clients */

static void a_closed_loop_keeps_its_number_running(void **state)
{
    struct plan p = make_plan(1, 16);
    struct load l = make_load(1, 100, 50, 10);
    l.timing = LOAD_CLOSED, l.concurrency = 4;
    (void)state;
    struct sim_result r = run(&(struct simulation){.plan = &p, .load = &l, .step_s = one_second});
    assert_int_equal(r.summary.fate[FATE_FINISHED], 100);
    for (size_t i = 0; i < r.results.n; i++) { /* as many as began before it ended did not */
        uint64_t began = 0;
        for (size_t k = 0; k < r.results.n; k++)
            began += r.results.at[k].sent < r.results.at[i].end;
        assert_true(began <= i + 4);
    }
    near(r.results.seconds, 100 / 4 * 10, 1e-9); /* nobody rests */
    sim_result_free(&r);
}

static void who_is_refused_or_loses_patience_is_told(void **state)
{
    struct plan p = make_plan(1, 2);
    struct load l = make_load(100, 200, 100, 30);
    struct simulation ask = {.plan = &p, .load = &l, .step_s = by_rows, .queue.waiting = 5};
    (void)state;
    struct sim_result r = run(&ask);
    assert_true(r.summary.fate[FATE_BUSY] > 100);
    assert_int_equal(r.summary.fate[FATE_BUSY] + r.summary.fate[FATE_FINISHED], 200);
    sim_result_free(&r);
    ask.queue.waiting = 0;
    ask.patience_s = 4;
    r = run(&ask);
    assert_true(r.summary.fate[FATE_TIMEOUT] > 50 && r.summary.fate[FATE_FINISHED] > 20);
    for (size_t i = 0; i < r.results.n; i++)
        assert_true(r.results.at[i].end - r.results.at[i].sent <= 4 + 1e-9);
    sim_result_free(&r);
    ask.patience_s = 0;
    l.work.prompt = (struct spread){SPREAD_UNIFORM, 4000, 4200};
    r = run(&ask);
    assert_true(r.summary.fate[FATE_REFUSED] > 50);
    assert_non_null(strstr(r.results.why[FATE_REFUSED], "the context is 4096"));
    sim_result_free(&r);
    l.most_bad = 3;
    l.slo.ttft = 0.001;
    r = run(&ask);
    assert_true(r.results.gave_up);
    assert_int_equal(r.results.n, 4);
    sim_result_free(&r);
}

static void there_is_no_replica_seven_of_two_to_kill(void **state)
{
    struct plan p = make_plan(1, 2);
    struct load l = make_load(1, 2, 10, 3);
    struct sim_death death = {7, 1};
    struct sim_result r;
    struct err e;
    (void)state;
    assert_int_equal(simulate(&(struct simulation){.plan = &p,
                                                   .load = &l,
                                                   .replicas = 2,
                                                   .step_s = by_rows,
                                                   .death = &death,
                                                   .n_death = 1},
                              &r, &e),
                     -EINVAL);
    assert_non_null(strstr(e.text, "no replica 7"));
    sim_result_free(&r);
}

/* ------------------------------------------------------------------------------- figures */

static void the_least_of_many_is_the_first_of_them(void **state)
{
    struct draws d = draw_of(2, DRAW_WORDS, 1);
    (void)state;
    for (int n = 1; n <= 9; n += 4) {
        struct pool pool = {0};
        struct least l;
        least_open(&l, n, 3, &pool);
        for (int round = 0; round < 200; round++) {
            least_set(&l, (int)(draw_bits(&d) % (uint64_t)n), (double)(draw_bits(&d) % 5));
            int want = 0;
            for (int i = 1; i < n; i++)
                want = l.value[i] < l.value[want] ? i : want;
            assert_int_equal(least_first(&l), want);
        }
        pool_free(&pool);
    }
}

static void a_tally_tells_what_the_whole_list_tells(void **state)
{
    struct tally *t = calloc(1, sizeof(*t));
    struct series s = {0};
    struct draws d = draw_of(1, DRAW_WORDS, 1);
    (void)state;
    assert_true(t && !tally_digest(t).n);
    for (int i = 0; i < 100000; i++) {
        double x = exp(3 * draw_normal(&d) - 4);
        tally_add(t, x);
        series_add(&s, x);
    }
    struct digest got = tally_digest(t), want = series_digest(&s);
    assert_int_equal(got.n, want.n);
    near(got.mean, want.mean, 1e-9);
    near(got.p50, want.p50, 1.0 / 512);
    near(got.p90, want.p90, 1.0 / 512);
    near(got.p99, want.p99, 1.0 / 512);
    assert_true(got.least == want.least && got.most == want.most);
    tally_add(t, 0);
    tally_add(t, 1e300);
    assert_int_equal(tally_digest(t).n, 100002);
    series_free(&s);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_queue_of_one_waits_as_theory_says),
        cmocka_unit_test(a_request_alone_takes_what_its_steps_are_priced),
        cmocka_unit_test(stages_work_at_the_same_time),
        cmocka_unit_test(equal_questions_have_equal_answers),
        cmocka_unit_test(preemption_is_the_same_with_and_without_tokens),
        cmocka_unit_test(replicas_share_the_load),
        cmocka_unit_test(what_begins_alike_is_stored_once_and_found_again),
        cmocka_unit_test(a_death_costs_time_and_no_request),
        cmocka_unit_test(a_closed_loop_keeps_its_number_running),
        cmocka_unit_test(who_is_refused_or_loses_patience_is_told),
        cmocka_unit_test(there_is_no_replica_seven_of_two_to_kill),
        cmocka_unit_test(the_least_of_many_is_the_first_of_them),
        cmocka_unit_test(a_tally_tells_what_the_whole_list_tells),
    };
    return cmocka_run_group_tests_name("simulation", tests, NULL, NULL);
}
