/* test_turns.c - every choice of every row is somebody's turn exactly once, whoever holds what. */
#include "run/turns.h"
#include "tiny.h"

#include <math.h>

enum { ROWS = 90 };

struct case_of {
    struct plan plan;
    struct placement placement;
    int chosen[ROWS * 9];
    float weight[ROWS * 9];
    struct routed routed;
    char memory[1 << 16];
    uint32_t random;
};

static int draw(struct case_of *c, int n)
{
    c->random = c->random * 1664525u + 1013904223u;
    return (int)((c->random >> 8) % (uint32_t)n);
}

/* Choices that differ in a row; low numbers are liked better. */
static void choose(struct case_of *c, int n)
{
    const struct experts *x = &c->plan.model.experts;
    c->routed = (struct routed){n, x->top, x->shared_ff > 0, c->chosen, c->weight, NULL, NULL};
    for (int i = 0; i < n; i++) {
        int *row = c->chosen + i * routed_row(&c->routed);
        uint64_t taken = 0;
        for (int k = 0; k < x->top; k++) {
            do
                row[k] = draw(c, 1 + draw(c, x->n));
            while (taken >> row[k] & 1);
            taken |= (uint64_t)1 << row[k];
        }
        if (c->routed.shared)
            row[x->top] = x->n;
    }
}

static void place(struct case_of *c, int way)
{
    const int n = c->plan.model.experts.n, e = c->plan.ep;
    c->placement = way ? placement_even(n, e) : placement_all(n, e);
    for (int i = 0; way == 2 && i < n; i++)
        c->placement.holders[i] = 1 + (uint64_t)draw(c, (1 << e) - 1);
}

/* Bits of the slices that compute choice number k of the i-th row. */
static uint32_t who_of(struct case_of *c, struct rank_turns *t, uint32_t *slices)
{
    const struct plan *p = &c->plan;
    const int per_row = routed_row(&c->routed), E = p->model.experts.n;
    uint32_t wrong = 0;
    memset(slices, 0, sizeof(*slices) * (size_t)(c->routed.n * per_row));
    for (int r = 0; r < p->tp; r++) {
        int seen[64] = {0};
        turns_take(t, NULL, p, r, 0, &c->routed);
        for (int i = 0; i < c->routed.n * per_row; i++) {
            int e = c->chosen[i], at = seen[e]++;
            struct span mine = c->routed.turn[e];
            if (at < mine.lo || at >= mine.hi)
                continue;
            slices[i] |= (uint32_t)1 << r;
            wrong += e < E && !placement_holds(&c->placement, plan_run(p, r), e);
        }
    }
    return wrong;
}

static void expect_each_once(struct case_of *c, int n)
{
    static uint32_t slices[ROWS * 9];
    const struct plan *p = &c->plan;
    const uint32_t run = ((uint32_t)1 << p->tp / p->ep) - 1, all = ((uint32_t)1 << p->tp) - 1;
    struct arena host = {.base = c->memory, .size = sizeof(c->memory)};
    struct rank_turns t;
    choose(c, n);
    turns_lay_out(&t, p, &host);
    t.placement = c->placement;
    assert_int_equal(who_of(c, &t, slices), 0);
    const int per_row = routed_row(&c->routed);
    for (int i = 0; i < n; i++) {
        uint32_t need = 0;
        for (int k = 0; k < per_row; k++) {
            uint32_t who = slices[i * per_row + k];
            bool shared = k == p->model.experts.top;
            need |= who;
            if (shared && !p->sp)
                assert_int_equal(who, all);
            else if (shared)
                assert_int_equal(who & (who - 1), 0);
            else
                assert_int_equal(who % run, 0);
            assert_int_not_equal(who, 0);
            if (!shared)
                assert_int_equal(who / run & (who / run - 1), 0);
        }
        if (p->sp)
            assert_int_equal(t.need[i], need);
    }
}

static void every_choice_is_one_runs_turn(void **state)
{
    static const int layout[][2] = {{2, 2}, {8, 8}, {8, 4}, {6, 3}, {8, 2}, {5, 5}};
    static struct case_of c;
    (void)state;
    for (size_t i = 0; i < COUNT(layout); i++)
        for (int k = 0; k < 12; k++) {
            struct err e;
            struct model m = tiny_llama(2);
            m.experts = (struct experts){.n = 13, .top = 4, .ff = 64, .shared_ff = 64 * (k / 6)};
            struct plan_ask ask = {.tp = layout[i][0],
                                   .ep = layout[i][1],
                                   .sp = k % 2,
                                   .ctx = 64,
                                   .max_tok = ROWS,
                                   .weight = NUM_F32,
                                   .kv = NUM_F32,
                                   .numerics = "f32-fma"};
            if (plan_make(&c.plan, &m, &ask, &e))
                fail_msg("%s", e.text);
            place(&c, k / 2 % 3);
            expect_each_once(&c, 1);
            expect_each_once(&c, ROWS);
        }
}

/* Over no memory: together the runs expect all choices, and none more than the busiest. */
static void blind_choices_are_expected_by_the_busiest(void **state)
{
    static struct case_of c;
    struct err e;
    struct model m = tiny_llama(2);
    (void)state;
    m.experts = (struct experts){.n = 64, .top = 8, .ff = 64};
    struct plan_ask ask = {.tp = 4,
                           .ep = 4,
                           .ctx = 64,
                           .max_tok = 4096,
                           .weight = NUM_F32,
                           .kv = NUM_F32,
                           .numerics = "f32-fma"};
    if (plan_make(&c.plan, &m, &ask, &e))
        fail_msg("%s", e.text);
    for (int way = 0; way < 2; way++)
        for (int n = 1; n <= 4096; n *= 8) {
            struct arena host = {.base = c.memory, .size = sizeof(c.memory)};
            struct rank_turns t;
            struct routed to = {.n = n, .top = 8};
            int rows = 0, experts = 0;
            turns_lay_out(&t, &c.plan, &host);
            if (way)
                t.placement = placement_even(64, 4);
            turns_take(&t, NULL, &c.plan, 1, 0, &to);
            for (int i = 0; i < 64; i++)
                rows += len(to.turn[i]), experts += len(to.turn[i]) > 0;
            if (way == 0) { /* every run has its even part */
                assert_int_equal(rows, 2 * n);
                assert_true(n > 1 || experts == 2);
            } else { /* less even the fewer there are */
                assert_true(rows > 2 * n && rows < 2 * n * (1 + 3 / sqrt(2.0 * n)));
            }
            assert_true(experts <= 16 && (n < 64 || experts == 16));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_choice_is_one_runs_turn),
        cmocka_unit_test(blind_choices_are_expected_by_the_busiest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
