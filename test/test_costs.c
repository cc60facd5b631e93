/* test_costs.c - what a hardware profile's numbers say of a case at hand (topo/hardware.h). */
#include "topo/hardware.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void assert_near(double a, double b)
{
    if (!(fabs(a - b) <= 1e-12 * fabs(b)))
        fail_msg("%.15g and not %.15g", a, b);
}

static struct figure given(double value) { return (struct figure){value, 0, SOURCE_GIVEN}; }

static void a_curve_is_straight_between_logarithms_and_beyond(void **state)
{
    const struct curve c = {3, {1, 4, 16}, {10, 20, 20}, 0, SOURCE_GIVEN};
    const struct curve one = {1, {8}, {3}, 0, SOURCE_GIVEN}, none = {0};
    (void)state;
    assert_true(curve_at(&c, 1) == 10 && curve_at(&c, 4) == 20 && curve_at(&c, 16) == 20);
    assert_near(curve_at(&c, 2), sqrt(200));
    assert_near(curve_at(&c, 0.25), 5);
    assert_near(curve_at(&c, 8), 20);
    assert_near(curve_at(&c, 1000), 20);
    assert_true(curve_at(&one, 1) == 3 && curve_at(&one, 99) == 3 && curve_at(&none, 1) == 0);
    /* Two points next to each other may be noise: it is not carried far. */
    const struct curve step = {.n = 3, .x = {1, 32, 33}, .y = {5, 5, 10}};
    assert_near(curve_at(&step, 330), 100);
}

static void rates_lie_on_lines_between_numbers_of_busy_devices(void **state)
{
    static struct hardware h = {.n_rates = 2};
    struct rates r;
    (void)state;
    for (int i = 0; i < 2; i++) {
        h.rates[i].active = i ? 5 : 1;
        h.rates[i].byte_s = given(i ? 6 : 2);
        h.rates[i].product[NUM_BF16] = (struct curve){1, {1}, {i ? 30 : 10}, 0, SOURCE_GIVEN};
    }
    h.rates[1].draw_s = given(7);
    const struct {
        int active;
        double byte_s, product;
    } want[] = {{1, 2, 10}, {2, 3, 15}, {4, 5, 25}, {5, 6, 30}, {9, 6, 30}};
    for (size_t i = 0; i < COUNT(want); i++) {
        hardware_rates(&h, want[i].active, &r);
        assert_near(r.byte_s.value, want[i].byte_s);
        assert_near(curve_at(&r.product[NUM_BF16], 1), want[i].product);
        assert_true(want[i].active == 1 || r.draw_s.value == 7); /* known of one of them */
    }
}

static void add(struct level *l, enum collective_op op, enum collective_way way, int ranks,
                double latency_s, double byte_s)
{
    l->collective[l->n_collective++] =
        (struct collective){op, way, ranks, given(latency_s), given(byte_s), given(byte_s), 0};
}

static double sum_s(const struct hardware *h, struct gang g, double bytes)
{
    return hardware_collective(h, COLLECTIVE_SUM, &g, bytes);
}

static void a_knee_ends_the_first_rate(void **state)
{
    static struct hardware h = {.n_level = 1};
    struct level *l = &h.level[0];
    const struct gang two = {.ranks = 2, .stride = 1};
    (void)state;
    l->size = 2;
    add(l, COLLECTIVE_SUM, WAY_ONE_SHOT, 2, 5, 1);
    l->collective[0].far_byte_s = given(10);
    assert_near(sum_s(&h, two, 30), 5 + 30);
    l->collective[0].knee_bytes = 20;
    assert_near(sum_s(&h, two, 15), 5 + 15);
    assert_near(sum_s(&h, two, 30), 5 + 20 + 10 * 10);
}

static void numbers_of_ranks_between_those_listed_are_interpolated(void **state)
{
    static struct hardware h = {.n_level = 1};
    (void)state;
    h.level[0].size = 16;
    add(&h.level[0], COLLECTIVE_SUM, WAY_RING, 2, 10, 1);
    add(&h.level[0], COLLECTIVE_SUM, WAY_RING, 8, 30, 3);
    assert_near(sum_s(&h, (struct gang){.ranks = 2, .stride = 1}, 100), 10 + 100);
    assert_near(sum_s(&h, (struct gang){.ranks = 4, .stride = 1}, 0), 20);
    assert_near(sum_s(&h, (struct gang){.ranks = 3, .stride = 1}, 90), 10 + 10 * log2(1.5) + 120);
    assert_near(sum_s(&h, (struct gang){.ranks = 16, .stride = 1}, 160), 40 + 3 * 2 * 150);
    assert_true(sum_s(&h, (struct gang){.ranks = 1, .stride = 1}, 100) == 0);
}

static void what_is_not_listed_is_a_ring_of_sends(void **state)
{
    static struct hardware h = {.n_level = 1};
    const struct gang g = {.ranks = 4, .stride = 1};
    (void)state;
    h.level[0].size = 4;
    add(&h.level[0], COLLECTIVE_SEND, WAY_ONE_SHOT, 2, 5, 1);
    assert_near(sum_s(&h, g, 400), 6 * (5 + 100));
    assert_near(hardware_collective(&h, COLLECTIVE_GATHER, &g, 400), 3 * (5 + 100));
    assert_near(hardware_collective(&h, COLLECTIVE_ALL_TO_ALL, &g, 400), 3 * (5 + 100));
}

/* Four devices a host, two hosts; the link between them is slow. */
static struct hardware hosts(void)
{
    struct hardware h = {.n_level = 2};
    h.level[0].size = 4, h.level[1].size = 2;
    for (int i = 0; i < 2; i++) {
        double s = i ? 100 : 1;
        add(&h.level[i], COLLECTIVE_SEND, WAY_ONE_SHOT, 2, s, s);
        add(&h.level[i], COLLECTIVE_SUM, WAY_TWO_SHOT, i ? 2 : 4, s, s);
        add(&h.level[i], COLLECTIVE_SCATTER_SUM, WAY_ONE_SHOT, 4, s, s);
        add(&h.level[i], COLLECTIVE_GATHER, WAY_ONE_SHOT, 4, s, s);
    }
    return h;
}

static void ranks_talk_over_the_lowest_level_that_holds_them(void **state)
{
    const struct hardware h = hosts();
    (void)state;
    assert_int_equal(hardware_devices(&h), 8);
    for (int first = 0; first < 7; first++) {
        struct gang g = {.first = first, .ranks = 2, .stride = 1};
        double s = first == 3 ? 100 : 1;
        assert_near(hardware_collective(&h, COLLECTIVE_SEND, &g, 10), s + 10 * s);
    }
}

/* Sums inside the hosts, of a quarter of the bytes between them, and gathered. */
static void a_sum_over_hosts_crosses_with_a_part_of_the_bytes(void **state)
{
    const struct hardware h = hosts();
    const struct gang all = {.ranks = 8, .stride = 1};
    double inside = 1 + 0.75 * 800, between = 100 + 200 * 100.0;
    (void)state;
    assert_near(sum_s(&h, all, 800), 2 * inside + between);
}

static void a_slower_link_adds_to_every_operation(void **state)
{
    struct hardware h = hosts();
    const struct gang two = {.ranks = 2, .stride = 1};
    (void)state;
    h.level[0].collective[0].knee_bytes = 4;
    hardware_slower(&h, (struct link){.latency_s = 7, .byte_s = 3});
    assert_near(hardware_collective(&h, COLLECTIVE_SEND, &two, 10), 1 + 7 + 10 * (1 + 3));
}

static void ranks_read_what_their_algorithm_says(void **state)
{
    const struct gang even = {.ranks = 4, .stride = 1}, more = {4, 4, 1, 5};
    (void)state;
    assert_near(collective_reads(COLLECTIVE_SUM, WAY_ONE_SHOT, &even, 80), 240);
    assert_near(collective_reads(COLLECTIVE_SUM, WAY_TWO_SHOT, &even, 80), 120);
    assert_near(collective_reads(COLLECTIVE_SUM, WAY_RING, &even, 80), 120);
    assert_near(collective_reads(COLLECTIVE_SUM, WAY_ONE_SHOT, &more, 80), 400);
    assert_near(collective_reads(COLLECTIVE_SUM, WAY_TWO_SHOT, &more, 80), 100 + 60);
    assert_near(collective_reads(COLLECTIVE_SCATTER_SUM, WAY_ONE_SHOT, &more, 80), 100);
    assert_near(collective_reads(COLLECTIVE_GATHER, WAY_ONE_SHOT, &even, 80), 60);
    assert_near(collective_reads(COLLECTIVE_ALL_TO_ALL, WAY_ONE_SHOT, &even, 80), 60);
    assert_near(collective_reads(COLLECTIVE_SEND, WAY_ONE_SHOT, &even, 80), 80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_curve_is_straight_between_logarithms_and_beyond),
        cmocka_unit_test(rates_lie_on_lines_between_numbers_of_busy_devices),
        cmocka_unit_test(a_knee_ends_the_first_rate),
        cmocka_unit_test(numbers_of_ranks_between_those_listed_are_interpolated),
        cmocka_unit_test(what_is_not_listed_is_a_ring_of_sends),
        cmocka_unit_test(ranks_talk_over_the_lowest_level_that_holds_them),
        cmocka_unit_test(a_sum_over_hosts_crosses_with_a_part_of_the_bytes),
        cmocka_unit_test(a_slower_link_adds_to_every_operation),
        cmocka_unit_test(ranks_read_what_their_algorithm_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
