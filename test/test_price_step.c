/* test_price_step.c - the price of a step (predict/price.h): it is what the forward pass says, and
 * behaves as times do. */
#include "predict/count.h"
#include "predict/price.h"
#include "predict/probe.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "model_help.h"

static struct plan layout(const char *name, int tp, int pp)
{
    return plan_of(name, (struct plan_ask){.tp = tp, .pp = pp, .max_tok = 2048, .max_seq = 64});
}

static struct figure given(double value) { return (struct figure){value, 0, SOURCE_GIVEN}; }

static void add_collective(struct level *l, enum collective_op op, enum collective_way way,
                           int ranks, double latency_s, double byte_s)
{
    l->collective[l->n_collective++] = (struct collective){
        op, way, ranks, given(latency_s), given(byte_s), given(2 * byte_s), 1 << 20};
}

/* Eight devices side by side, and two such groups: cores that share memory. */
static struct hardware machine(void)
{
    struct hardware h = {.name = "test", .kind = DEVICE_CPU, .n_rates = 2, .n_level = 2};
    for (int i = 0; i < 2; i++) {
        struct rates *r = &h.rates[i];
        double slower = 1 + i;
        r->active = i ? 16 : 1;
        r->product[NUM_BF16] = (struct curve){
            3, {1, 16, 256}, {slower * 4e-11, slower * 5e-11, 3e-10}, 0, SOURCE_GIVEN};
        r->attend_byte_s[NUM_BF16] = given(slower * 3e-11);
        r->attend_madd_s[NUM_BF16] = (struct curve){2, {1, 64}, {2e-11, 1e-11}, 0, SOURCE_GIVEN};
        r->byte_s = given(slower * 2e-11);
        r->op_s = given(2e-7);
        r->split_s = given(1e-7);
        r->draw_s = given(1e-10);
    }
    h.step_s = given(2e-5), h.seq_s = given(1e-6);
    for (int i = 0; i < 2; i++) {
        struct level *l = &h.level[i];
        l->size = i ? 2 : 8;
        for (int n = 2; n <= 8; n *= 2) {
            add_collective(l, COLLECTIVE_SUM, WAY_ONE_SHOT, n, (1 + 9 * i) * 1e-6, 1e-10);
            add_collective(l, COLLECTIVE_SUM, WAY_TWO_SHOT, n, (2 + 9 * i) * 1e-6, 1e-10);
            add_collective(l, COLLECTIVE_GATHER, WAY_ONE_SHOT, n, (1 + 9 * i) * 1e-6, 1e-10);
            add_collective(l, COLLECTIVE_SCATTER_SUM, WAY_ONE_SHOT, n, (1 + 9 * i) * 1e-6, 1e-10);
        }
        add_collective(l, COLLECTIVE_SEND, WAY_ONE_SHOT, 2, (1 + 9 * i) * 1e-6, 1e-10);
    }
    return h;
}

static struct step_price price_of(const struct plan *p, const struct hardware *h, struct work w)
{
    struct err e;
    struct step_price to;
    struct pricer *x = pricer_new(p, h, &e);
    if (!x)
        fail_msg("%s", e.text);
    pricer_step(x, &w, &to);
    pricer_free(x);
    return to;
}

static double decode_s(const struct plan *p, const struct hardware *h, int n_seq, int last)
{
    return price_of(p, h, work_of(&p->model, n_seq, 1, last)).all_s;
}

/* ------------------------------------------------------------------------------- as forward says
 */

/* One step of the whole plan, every rank run over all of its layers. */
static double naive_s(const struct plan *p, const struct hardware *h, struct step_shape s)
{
    struct pool pool = {0};
    struct rates rates;
    struct batch b = step_batch(s, &pool);
    double all = 0;
    hardware_rates(h, p->dp * p->tp * p->threads, &rates);
    for (int stage = 0; stage < p->pp; stage++) {
        double slowest = 0;
        for (int t = 0; t < p->tp; t++) {
            struct probe x;
            probe_open(&x, p, stage * p->tp + t, &pool);
            x.dev.count.costs = (struct costs){.rates = &rates, .threads = p->threads};
            x.tp_price.hardware = x.pp_price.hardware = h;
            x.tp_price.gang.first = stage * p->tp * p->threads;
            x.tp_price.gang.stride = p->threads;
            x.pp_price.gang.stride = p->tp * p->threads;
            forward(&x.rank, &b);
            double took = x.dev.count.product_s + x.dev.count.attend_s + x.dev.count.other_s +
                          x.tp_price.seconds + x.pp_price.seconds;
            slowest = took > slowest ? took : slowest;
        }
        all += slowest;
    }
    pool_free(&pool);
    return all;
}

static void assert_naive(const struct plan *p, const struct hardware *h, struct step_shape s)
{
    double naive = naive_s(p, h, s);
    struct step_price to = price_of(p, h, work_of(&p->model, s.n_seq, s.n_new, s.last));
    double off = fabs((to.all_s - to.host_s) / naive - 1);
    /* Attention of two waves is priced as if they were one. */
    if (off > (rank_waves(p, s.n_seq * s.n_new) > 1 ? 0.05 : 1e-12))
        fail_msg("%s tp %d pp %d: %d x %d at %d: %.15g and not %.15g s", p->model.arch, p->tp,
                 p->pp, s.n_seq, s.n_new, s.last, to.all_s - to.host_s, naive);
}

static void a_step_costs_what_the_forward_pass_says(void **state)
{
    static const char *const name[] = {"llama-3.2-1b", "qwen3-0.6b", "llama-3-70b"};
    static const struct step_shape step[] = {{1, 1, 0}, {16, 1, 1000}, {1, 512, 511}, {3, 7, 99}};
    const struct hardware h = machine();
    (void)state;
    for (size_t i = 0; i < COUNT(name); i++)
        for (int tp = 1; tp <= 8; tp *= 2)
            for (int pp = 1; pp <= 2; pp++)
                for (size_t k = 0; k < COUNT(step); k++) {
                    struct plan p = layout(name[i], tp, pp);
                    assert_naive(&p, &h, step[k]);
                    p.threads = 2;
                    assert_naive(&p, &h, step[k]);
                }
}

/* Layers of two kinds, in another order in every stage. */
static void kinds_of_layers_cost_their_own(void **state)
{
    const struct hardware h = machine();
    struct plan p = layout("llama-3.2-1b", 2, 2);
    (void)state;
    p.model.kind[1] = p.model.kind[0];
    p.model.kind[1].window = 64;
    for (int l = 0; l < p.model.n_layer; l++)
        p.model.kind_of[l] = l % 3 == 0;
    assert_naive(&p, &h, (struct step_shape){4, 1, 900});
    assert_naive(&p, &h, (struct step_shape){1, 100, 900});
}

/* Of slices that are not alike the slowest counts, in every part, for they meet after each. */
static void uneven_slices_wait_for_the_slowest(void **state)
{
    const struct hardware h = machine();
    struct plan p = layout("llama-3.2-1b", 2, 1);
    (void)state;
    p.cut[1] = 2;
    for (int n = 1; n <= 64; n *= 4) {
        double naive = naive_s(&p, &h, (struct step_shape){1, n, 900});
        struct step_price to = price_of(&p, &h, work_of(&p.model, 1, n, 900));
        assert_true(to.all_s - to.host_s >= naive && to.all_s - to.host_s < 1.001 * naive);
    }
}

static void the_parts_are_the_whole(void **state)
{
    const struct hardware h = machine();
    const struct plan p = layout("llama-3-8b", 4, 4);
    struct step_price to = price_of(&p, &h, work_of(&p.model, 8, 1, 500));
    double parts = to.host_s + to.product_s + to.attend_s + to.other_s + to.comm_s;
    double stages = to.host_s + 3 * to.hop_s;
    (void)state;
    for (int s = 0; s < 4; s++)
        stages += to.stage_s[s];
    assert_true(fabs(parts / to.all_s - 1) < 1e-12 && fabs(stages / to.all_s - 1) < 1e-12);
    assert_true(to.host_s > 0 && to.product_s > 0 && to.attend_s > 0 && to.other_s > 0);
    assert_true(to.comm_s > 3 * to.hop_s && to.hop_s > 0);
}

/* ------------------------------------------------------------------------------- as times behave
 */

static void equal_work_has_equal_prices(void **state)
{
    const struct hardware h = machine();
    const struct plan p = layout("llama-3.2-1b", 2, 2);
    struct err e;
    struct pricer *x = pricer_new(&p, &h, &e);
    struct step_price first[40], again;
    (void)state;
    for (int i = 0; i < 40; i++) {
        struct work w = work_of(&p.model, 1 + i % 7, 1 + i / 7, 100 + i);
        w.flight = i % 3;
        pricer_step(x, &w, &first[i]);
    }
    for (int i = 39; i >= 0; i--) {
        struct work w = work_of(&p.model, 1 + i % 7, 1 + i / 7, 100 + i);
        w.flight = i % 3;
        pricer_step(x, &w, &again);
        assert_memory_equal(&again, &first[i], sizeof(again));
        again = price_of(&p, &h, w);
        assert_memory_equal(&again, &first[i], sizeof(again));
    }
    pricer_free(x);
}

static void more_rows_and_longer_contexts_take_longer(void **state)
{
    const struct hardware h = machine();
    (void)state;
    for (int tp = 1; tp <= 8; tp *= 2) {
        const struct plan p = layout("llama-3-8b", tp, 1);
        for (int n = 1; n < 64; n++)
            assert_true(decode_s(&p, &h, n + 1, 100) > decode_s(&p, &h, n, 100));
        for (int last = 1; last < 4096; last *= 2)
            assert_true(decode_s(&p, &h, 4, 2 * last) > decode_s(&p, &h, 4, last));
        for (int n = 1; n < 2048; n *= 2)
            assert_true(price_of(&p, &h, work_of(&p.model, 1, 2 * n, 2 * n)).all_s >
                        price_of(&p, &h, work_of(&p.model, 1, n, n)).all_s);
    }
}

static void one_rank_talks_to_nobody(void **state)
{
    const struct hardware h = machine();
    const struct plan p = layout("llama-3.2-1b", 1, 1);
    (void)state;
    assert_true(price_of(&p, &h, work_of(&p.model, 4, 1, 500)).comm_s == 0);
}

/* A link without latency or limit, and nothing but products: each slice does its part of them. */
static void over_an_infinite_link_slices_divide_products(void **state)
{
    struct hardware h = machine();
    double one = 0;
    (void)state;
    h.n_rates = 1;
    h.rates[0].op_s = given(0);
    for (int l = 0; l < h.n_level; l++)
        for (int i = 0; i < h.level[l].n_collective; i++) {
            struct collective *c = &h.level[l].collective[i];
            c->latency_s = c->byte_s = c->far_byte_s = given(0);
        }
    for (int tp = 1; tp <= 8; tp *= 2) {
        const struct plan p = layout("llama-3-70b", tp, 1);
        struct step_price to = price_of(&p, &h, work_of(&p.model, 1, 1, 500));
        one = tp == 1 ? to.product_s : one;
        assert_true(to.comm_s == 0);
        assert_true(fabs(to.product_s * tp / one - 1) < 1e-3); /* words are not shared evenly */
    }
}

/* On one host work goes by load, so that whole experts cost what cut ones do; GPUs hold their own,
 * and the one with most to do sets the pace, the less the more rows there are. */
static void whole_experts_cost_what_cut_ones_do_where_work_is_even(void **state)
{
    struct hardware h = machine();
    (void)state;
    h.n_rates = 1;
    h.rates[0].op_s = given(0);
    for (int n = 16; n <= 1024; n *= 8) {
        struct plan cut = layout("qwen3-30b-a3b", 4, 1);
        cut.max_out = cut.max_tok;
        struct work w = work_of(&cut.model, n, 1, 100);
        struct plan whole = cut;
        whole.ep = 4;
        double base = price_of(&cut, &h, w).product_s;
        assert_true(fabs(price_of(&whole, &h, w).product_s / base - 1) < 0.03);
        h.kind = DEVICE_GPU;
        double own = price_of(&whole, &h, w).product_s / base;
        h.kind = DEVICE_CPU;
        assert_true(own > (n == 16 ? 1.1 : 1) && own < 1 + 3 / sqrt(n));
    }
}

/* Two of eight experts: a row goes to 23 % of the other ranks, and not to all. */
static void rows_that_stay_save_links(void **state)
{
    const struct hardware h = machine();
    struct plan cut = layout("mixtral-8x7b", 8, 1);
    (void)state;
    cut.sp = true;
    struct plan whole = cut;
    whole.ep = 8;
    struct work w = work_of(&cut.model, 1, 1024, 1023);
    double all = price_of(&cut, &h, w).comm_s, some = price_of(&whole, &h, w).comm_s;
    assert_true(some < 0.7 * all);
    cut.sp = whole.sp = false; /* without, ep sends what tp sends */
    assert_true(price_of(&cut, &h, w).comm_s == price_of(&whole, &h, w).comm_s);
}

static void the_farther_link_is_priced_where_ranks_cross_it(void **state)
{
    const struct hardware h = machine();
    struct plan inside = layout("llama-3-70b", 8, 1), across = layout("llama-3-70b", 16, 1);
    const struct plan stages = layout("llama-3-70b", 4, 4);
    struct work w = work_of(&inside.model, 1, 1, 500);
    const double hop = (1e-6 + 8192 * 4 * 1e-10) * 2 / 3 + (10e-6 + 8192 * 4 * 1e-10) / 3;
    (void)state;
    assert_true(price_of(&across, &h, w).comm_s > 2 * price_of(&inside, &h, w).comm_s);
    assert_true(fabs(price_of(&stages, &h, w).hop_s / hop - 1) < 1e-12); /* 1 of 3 crosses */
}

/* Cores that share memory are slower when all stages are busy; other devices are not. */
static void steps_under_way_slow_each_other_down_where_memory_is_shared(void **state)
{
    struct hardware h = machine();
    const struct plan p = layout("llama-3.2-1b", 2, 4);
    struct work alone = work_of(&p.model, 1, 1, 500), four = alone, many = alone;
    (void)state;
    four.flight = 4, many.flight = 9;
    assert_true(price_of(&p, &h, four).all_s > 1.1 * price_of(&p, &h, alone).all_s);
    assert_true(price_of(&p, &h, four).all_s == price_of(&p, &h, many).all_s);
    h.n_rates = 1;
    assert_true(price_of(&p, &h, four).all_s == price_of(&p, &h, alone).all_s);
}

static void a_format_without_figures_is_refused(void **state)
{
    const struct hardware h = machine();
    struct plan p = layout("llama-3.2-1b", 2, 1);
    struct err e;
    (void)state;
    p.weight = NUM_INT4;
    assert_null(pricer_new(&p, &h, &e));
    assert_non_null(strstr(e.text, "test has no speed of products with weights in int4"));
    assert_non_null(strstr(e.text, "bf16"));
    p.weight = NUM_BF16, p.kv = NUM_INT8;
    assert_null(pricer_new(&p, &h, &e));
    assert_non_null(strstr(e.text, "int8"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_costs_what_the_forward_pass_says),
        cmocka_unit_test(kinds_of_layers_cost_their_own),
        cmocka_unit_test(uneven_slices_wait_for_the_slowest),
        cmocka_unit_test(the_parts_are_the_whole),
        cmocka_unit_test(equal_work_has_equal_prices),
        cmocka_unit_test(more_rows_and_longer_contexts_take_longer),
        cmocka_unit_test(one_rank_talks_to_nobody),
        cmocka_unit_test(over_an_infinite_link_slices_divide_products),
        cmocka_unit_test(whole_experts_cost_what_cut_ones_do_where_work_is_even),
        cmocka_unit_test(rows_that_stay_save_links),
        cmocka_unit_test(the_farther_link_is_priced_where_ranks_cross_it),
        cmocka_unit_test(steps_under_way_slow_each_other_down_where_memory_is_shared),
        cmocka_unit_test(a_format_without_figures_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
