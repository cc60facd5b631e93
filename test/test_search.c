/* test_search.c - which layout is chosen: stages cut best, memory first, bounds kept, links heeded;
 * demands that nothing meets; answers that are written. */
#include "model/folder.h"
#include "predict/cut.h"
#include "predict/explain.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Eight devices like an A100, joined by a link of so many bytes a second. */
static struct hardware box(int devices, double link)
{
    struct hardware h;
    struct err e;
    struct hardware_ask ask = {.devices = devices,
                               .memory_bytes = 80 * 0x1p30,
                               .memory_rate = 2039e9,
                               .math_rate = 312e12,
                               .link_rate = link};
    if (hardware_simple(&ask, &h, &e))
        fail_msg("%s", e.text);
    return h;
}

static struct question ask_of(const char *model, const struct hardware *h, double rate)
{
    struct question q = {.hardware = h,
                         .devices = hardware_devices(h),
                         .n_weight = 1,
                         .weight = {NUM_BF16},
                         .n_kv = 1,
                         .kv = {NUM_BF16},
                         .isa = ISA_AVX512_BF16};
    struct generation g;
    struct notes notes;
    struct err e;
    const char *config = model_config(model);
    assert_non_null(config);
    assert_int_equal(model_parse(config, strlen(config), NULL, 0, &q.model, &g, &notes, &e), 0);
    q.demand = (struct demand){.rate = rate,
                               .cv2 = 1,
                               .prompt = {1024, 0, 1024, 1024},
                               .output = {256, 0, 256, 256},
                               .ttft_s = 1,
                               .tpot_s = 0.05,
                               .share = 0.99,
                               .spare = 0.1};
    return q;
}

static struct search searched(const struct question *q)
{
    struct search s;
    struct err e;
    if (search(q, &s, &e))
        fail_msg("%s", e.text);
    return s;
}

/* ------------------------------------------------------------------------------- stages */

static double slowest(const double *cost, const struct span *s, int p)
{
    double most = 0;
    for (int i = 0; i < p; i++) {
        double sum = 0;
        for (int l = s[i].lo; l < s[i].hi; l++)
            sum += cost[l];
        most = fmax(most, sum);
    }
    return most;
}

/* Three stages: every pair of cuts is tried. */
static void stages_are_cut_where_the_slowest_is_fastest(void **state)
{
    static const double cost[] = {3, 1, 4, 1, 5, 9, 2, 6, 5}, room[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    struct span s[3];
    double best = 1e9;
    (void)state;
    for (int a = 1; a < 8; a++)
        for (int b = a + 1; b < 9; b++) {
            struct span t[3] = {{0, a}, {a, b}, {b, 9}};
            best = fmin(best, slowest(cost, t, 3));
        }
    assert_true(cut_layers(cost, room, 9, 3, 9, s));
    assert_true(slowest(cost, s, 3) == best);
    assert_true(s[0].lo == 0 && s[0].hi == s[1].lo && s[1].hi == s[2].lo && s[2].hi == 9);
}

static void memory_moves_the_cuts_or_forbids_them(void **state)
{
    static const double cost[] = {1, 1, 1, 9}, room[] = {1, 1, 1, 1};
    struct span s[2];
    (void)state;
    assert_true(cut_layers(cost, room, 4, 2, 4, s));
    assert_int_equal(s[0].hi, 3);
    assert_true(cut_layers(cost, room, 4, 2, 2, s));
    assert_int_equal(s[0].hi, 2);
    assert_false(cut_layers(cost, room, 4, 2, 1, s));
}

/* The head stands in the last stage and costs more than a layer, so that stage has fewer. */
static void the_stage_with_the_head_has_fewer_layers(void **state)
{
    struct hardware h = box(8, 300e9);
    struct question q = ask_of("llama-3-70b", &h, 1);
    (void)state;
    q.pp = 4, q.tp = 2;
    struct search s = searched(&q);
    struct plan p = choice_plan(&q, &s.best[0]);
    assert_int_equal(p.pp, 4);
    assert_true(len(p.stage[3]) < len(p.stage[1]));
    assert_true(len(p.stage[3]) < len(p.stage[0])); /* the embedding takes bytes but no time */
    search_free(&s);
}

/* ------------------------------------------------------------------------------- choices */

static void the_chosen_plan_fits_checks_and_survives_json(void **state)
{
    struct hardware h = box(8, 300e9);
    struct question q = ask_of("llama-3-70b", &h, 1);
    struct search s = searched(&q);
    struct plan p = choice_plan(&q, &s.best[0]), again;
    struct err e;
    (void)state;
    assert_true(choice_good(&s.best[0]));
    assert_int_equal(plan_check(&p, &e), 0);
    assert_true(size_fit(&p, &h).spare >= 0);
    json_t *o = plan_to_json(&p);
    assert_int_equal(plan_from_json(o, &again, &e), 0);
    assert_true(plan_hash(&p) == plan_hash(&again));
    json_decref(o);
    search_free(&s);
}

static void the_same_question_has_the_same_answer(void **state)
{
    struct hardware h = box(8, 300e9);
    struct question q = ask_of("llama-3-70b", &h, 3);
    struct search a = searched(&q), b = searched(&q);
    (void)state;
    assert_int_equal(a.n_best, b.n_best);
    assert_int_equal(a.tried, b.tried);
    for (int i = 0; i < a.n_best; i++) {
        assert_memory_equal(&a.best[i].at, &b.best[i].at, sizeof(a.best[i].at));
        assert_int_equal(a.best[i].devices, b.best[i].devices);
    }
    search_free(&a);
    search_free(&b);
}

static void more_load_never_takes_fewer_devices(void **state)
{
    struct hardware h = box(8, 300e9);
    int before = 0;
    (void)state;
    for (double rate = 0.25; rate <= 64; rate *= 4) {
        struct question q = ask_of("llama-3-8b", &h, rate);
        struct search s = searched(&q);
        assert_true(choice_good(&s.best[0]));
        assert_true(s.best[0].devices >= before);
        before = s.best[0].devices;
        search_free(&s);
    }
    assert_true(before > 1);
}

static void tighter_bounds_lower_what_a_layout_carries(void **state)
{
    struct hardware h = box(8, 300e9);
    struct question q = ask_of("llama-3-70b", &h, 1);
    struct search s = searched(&q);
    struct choice c = s.best[0];
    (void)state;
    choice_capacity(&q, &c);
    double wide = c.capacity;
    assert_true(wide > 0);
    q.demand.ttft_s /= 2;
    choice_capacity(&q, &c);
    assert_true(c.capacity < wide);
    assert_int_equal(c.wall, LIMIT_TTFT);
    search_free(&s);
}

/* What four devices carry, cut like this, without bounds on latency. */
static double carried(const struct hardware *h, int tp, int pp)
{
    struct question q = ask_of("llama-3-70b", h, 0.05);
    q.demand.ttft_s = q.demand.tpot_s = 0;
    q.tp = tp, q.pp = pp, q.dp = 1;
    struct search s = searched(&q);
    double most = 0;
    for (int i = 0; i < s.n_best; i++) {
        struct choice c = s.best[i];
        c.max_tok = 4096, c.max_seq = 1024;
        choice_capacity(&q, &c);
        most = fmax(most, c.capacity);
    }
    search_free(&s);
    return most;
}

static void over_slow_links_stages_carry_more_than_slices(void **state)
{
    struct hardware fast = box(8, 300e9), slow = box(8, 2e9);
    (void)state;
    assert_true(carried(&slow, 1, 4) > 2 * carried(&slow, 4, 1));
    assert_true(carried(&fast, 4, 1) > 3 * carried(&slow, 4, 1));
    assert_true(carried(&slow, 1, 4) > 0.8 * carried(&fast, 1, 4));
}

/* Four devices side by side, two such groups: slices of more than four would sum across. */
static void slices_stay_inside_the_innermost_level(void **state)
{
    struct hardware h = box(4, 300e9);
    (void)state;
    h.n_level = 2;
    h.level[1] = h.level[0];
    h.level[1].size = 2;
    snprintf(h.level[1].name, sizeof(h.level[1].name), "Ethernet");
    struct question q = ask_of("llama-3-70b", &h, 0.5);
    struct search s = searched(&q);
    int across = 0;
    for (int i = 0; i < s.shapes.n; i++) {
        const struct shape *x = &s.shapes.at[i];
        assert_true(x->plan.tp <= 4 || x->state == SHAPE_ACROSS);
        across += x->state == SHAPE_ACROSS && strstr(x->why, "Ethernet");
    }
    assert_true(across > 0);
    search_free(&s);
}

static void clients_in_a_closed_loop_are_all_under_way(void **state)
{
    struct hardware h = box(8, 300e9);
    struct question q = ask_of("llama-3-8b", &h, 0);
    (void)state;
    q.demand.concurrency = 32;
    struct search s = searched(&q);
    const struct choice *c = &s.best[0];
    double under_way = c->at.rate * (c->at.ttft_s + 255 * c->at.tpot_s) * c->dp * c->hosts;
    assert_true(choice_good(c));
    assert_true(fabs(under_way - 32) < 0.5);
    search_free(&s);
}

/* The replicas of a CPU share its memory, so each number of them is priced by itself. */
static void replicas_of_a_cpu_slow_each_other_down(void **state)
{
    struct hardware h = box(16, 10e9);
    (void)state;
    h.kind = DEVICE_CPU;
    h.n_rates = 2;
    h.rates[0].op_s.value = 1e-6; /* nothing is launched */
    h.rates[1] = h.rates[0];
    h.rates[1].active = 16;
    for (int i = 0; i < h.rates[1].product[NUM_BF16].n; i++)
        h.rates[1].product[NUM_BF16].y[i] *= 8;
    struct question q = ask_of("llama-3.2-1b", &h, 0.5);
    q.tp = q.pp = 1;
    struct search s = searched(&q);
    double alone = 0, four = 0;
    for (int i = 0; i < s.n_best; i++) {
        assert_int_equal(s.best[i].dp, s.best[i].shape->dp);
        assert_int_equal(s.best[i].devices, 16); /* all cores, whatever the number of replicas */
        if (s.best[i].dp == 1)
            alone = s.best[i].at.step_s;
        if (s.best[i].dp == 4)
            four = s.best[i].at.step_s;
    }
    assert_true(alone > 0 && four > 2 * alone);
    search_free(&s);
}

static void what_one_host_cannot_carry_several_do_and_none_too_many(void **state)
{
    struct hardware h = box(8, 300e9);
    struct question q = ask_of("llama-3-70b", &h, 100);
    struct search s = searched(&q);
    struct choice c = s.best[0];
    (void)state;
    assert_true(choice_good(&c) && c.hosts > 1);
    assert_int_equal(c.devices, c.hosts * c.dp * shape_devices(&q, c.shape));
    struct replica r = choice_replica(&q, &c);
    c.hosts--;
    assert_true(screen(&r, &q.demand, choice_rate(&q, &c), 0).worst > 1);
    q.hosts = 2;
    search_free(&s);
    s = searched(&q);
    c = s.best[0]; /* then as much as two can */
    choice_capacity(&q, &c);
    assert_false(choice_good(&c));
    assert_int_equal(c.hosts, 2);
    assert_true(c.capacity > 1 && c.capacity < 100);
    assert_true(c.at.worst < 100);
    search_free(&s);
}

/* ------------------------------------------------------------------------------- refusals */

static void what_nothing_can_meet_is_named(void **state)
{
    struct hardware h = box(8, 300e9);
    struct question q = ask_of("llama-3-70b", &h, 1);
    (void)state;
    q.demand.ttft_s = 0.01;
    struct search s = searched(&q);
    assert_false(choice_good(&s.best[0]));
    assert_int_equal(s.best[0].at.limit, LIMIT_TTFT);
    assert_true(s.best[0].at.ttft_tail_s > 0.05 && s.best[0].at.ttft_tail_s < 1);
    search_free(&s);
}

static void a_model_that_fits_nowhere_says_how_many_devices_it_needs(void **state)
{
    struct hardware h = box(1, 0);
    struct question q = ask_of("llama-3-70b", &h, 1);
    struct search s;
    struct err e;
    (void)state;
    assert_int_equal(search(&q, &s, &e), -ENOSPC);
    assert_non_null(strstr(e.text, "needs 1 device more (2 in all)"));
    assert_non_null(strstr(e.text, "weights 141.1 GB"));
    search_free(&s);
}

/* ------------------------------------------------------------------------------- demands */

static void a_trace_becomes_rate_lengths_and_unevenness(void **state)
{
    static const char text[] = "TIMESTAMP,ContextTokens,GeneratedTokens\n0,100,10\n1,300,10\n"
                               "2,100,30\n6,300,30\n";
    struct trace t = {0};
    struct demand d = {0};
    struct err e;
    (void)state;
    assert_int_equal(trace_parse(&t, text, strlen(text), "t.csv", &e), 0);
    assert_int_equal(demand_of_trace(&t, 0, &d, &e), 0);
    assert_true(fabs(d.rate - 4.0 / 6) < 1e-9);
    assert_true(d.prompt.mean == 200 && fabs(d.prompt.cv - 0.5) < 1e-9 && d.prompt.most == 300);
    assert_true(fabs(d.cv2 - 0.5) < 1e-9); /* gaps 1, 1, 4: mean 2, variance 2 */
    assert_int_equal(demand_ctx(&d), 330);
    assert_int_equal(demand_of_trace(&t, 5, &d, &e), 0);
    assert_true(d.rate == 5);
    trace_free(&t);
}

static void a_normal_quantile_is_the_inverse_of_the_share(void **state)
{
    (void)state;
    assert_true(fabs(normal_quantile(0.99) - 2.326348) < 1e-5);
    assert_true(fabs(normal_share(1.644854) - 0.95) < 1e-6);
}

/* ------------------------------------------------------------------------------- answers */

static struct facts *facts_for(const struct question *q, struct search *s)
{
    struct facts *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    facts_of(q, s, f);
    return f;
}

static void an_answer_has_every_section_and_names_what_was_assumed(void **state)
{
    static const char *const sections[] = {
        "# llama",    "## What clients see",     "## Why this one",    "## Memory",
        "## Layouts", "## What would change it", "## How sure",        "## With one device lost",
        "## Cost",    "## The pipeline",         "- nothing was said", "| chosen |"};
    struct hardware h = box(8, 300e9);
    struct question q = ask_of("llama-3-70b", &h, 1);
    struct assumed assumed = {0};
    char *text = NULL;
    size_t n = 0;
    (void)state;
    q.price_hour = 2;
    assume(&assumed, "nothing was said");
    struct search s = searched(&q);
    struct facts *f = facts_for(&q, &s);
    struct answer a = {"llama", &q, &s, f, &assumed, true};
    FILE *to = open_memstream(&text, &n);
    explain_write(to, &a, true);
    fclose(to);
    for (size_t i = 0; i < COUNT(sections); i++)
        if (!strstr(text, sections[i]))
            fail_msg("no \"%s\" in\n%s", sections[i], text);
    free(text);
    free(f);
    search_free(&s);
}

static void the_json_holds_a_plan_that_can_be_served(void **state)
{
    struct hardware h = box(8, 300e9);
    struct question q = ask_of("llama-3-8b", &h, 4);
    struct assumed assumed = {0};
    struct search s = searched(&q);
    struct facts *f = facts_for(&q, &s);
    struct answer a = {"llama", &q, &s, f, &assumed, false};
    struct plan p;
    struct err e;
    (void)state;
    json_t *o = explain_json(&a);
    assert_int_equal(plan_from_json(json_object_get(o, "plan"), &p, &e), 0);
    assert_int_equal(json_array_size(json_object_get(o, "layouts")), (size_t)s.n_best);
    assert_true(json_array_size(json_object_get(o, "front")) > 2);
    json_decref(o);
    free(f);
    search_free(&s);
}

/* Nobody on the front is slower and carries less than somebody else on it. */
static void the_front_falls(void **state)
{
    struct hardware h = box(8, 300e9);
    struct question q = ask_of("llama-3-70b", &h, 1);
    struct search s = searched(&q);
    struct facts *f = facts_for(&q, &s);
    (void)state;
    for (int i = 1; i < f->n_front; i++) {
        assert_true(f->front[i].tpot_s > f->front[i - 1].tpot_s);
        assert_true(f->front[i].tok_s > f->front[i - 1].tok_s);
    }
    assert_true(f->by_batch.found || f->by_link.found);
    assert_true(f->p_good > 0.5 && f->p_good <= 1);
    assert_true(f->ttft_error > 0 && f->ttft_error < 1);
    free(f);
    search_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_are_cut_where_the_slowest_is_fastest),
        cmocka_unit_test(memory_moves_the_cuts_or_forbids_them),
        cmocka_unit_test(the_stage_with_the_head_has_fewer_layers),
        cmocka_unit_test(the_chosen_plan_fits_checks_and_survives_json),
        cmocka_unit_test(the_same_question_has_the_same_answer),
        cmocka_unit_test(more_load_never_takes_fewer_devices),
        cmocka_unit_test(tighter_bounds_lower_what_a_layout_carries),
        cmocka_unit_test(over_slow_links_stages_carry_more_than_slices),
        cmocka_unit_test(slices_stay_inside_the_innermost_level),
        cmocka_unit_test(clients_in_a_closed_loop_are_all_under_way),
        cmocka_unit_test(replicas_of_a_cpu_slow_each_other_down),
        cmocka_unit_test(what_one_host_cannot_carry_several_do_and_none_too_many),
        cmocka_unit_test(what_nothing_can_meet_is_named),
        cmocka_unit_test(a_model_that_fits_nowhere_says_how_many_devices_it_needs),
        cmocka_unit_test(a_trace_becomes_rate_lengths_and_unevenness),
        cmocka_unit_test(a_normal_quantile_is_the_inverse_of_the_share),
        cmocka_unit_test(an_answer_has_every_section_and_names_what_was_assumed),
        cmocka_unit_test(the_json_holds_a_plan_that_can_be_served),
        cmocka_unit_test(the_front_falls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
