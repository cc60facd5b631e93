/* test_balance.c - placements of experts from loads, and what they recover of a skewed router. */
#include "sched/balance.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static uint32_t draw(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(*seed >> 8) * below >> 24);
}

static double lambda(const struct placement *p, const double *load)
{
    double run[PLACEMENT_RUNS];
    placement_loads(p, load, run);
    return loads_lambda(run, p->n_run);
}

static void any_load_gives_a_placement_with_every_slot_used(void **state)
{
    uint32_t seed = 5;
    (void)state;
    for (int round = 0; round < 2000; round++) {
        struct balance b = {.n_run = 1 + (int)draw(&seed, 16)};
        struct err e;
        double load[MODEL_EXPERTS];
        b.n_expert = b.n_run + (int)draw(&seed, 60);
        int fair = len(share(b.n_expert, b.n_run, 0));
        b.redundant = (int)draw(&seed, (uint32_t)(b.n_expert - fair + 1));
        for (int i = 0; i < b.n_expert; i++)
            load[i] = draw(&seed, 4) ? draw(&seed, 1u << draw(&seed, 12)) : 0;
        assert_int_equal(balance_check(&b, &e), 0);
        struct placement p = balance_place(&b, load);
        assert_int_equal(placement_check(&p, &e), 0);
        for (int r = 0; r < b.n_run; r++)
            assert_int_equal(placement_slots(&p, r),
                             len(share(b.n_expert, b.n_run, r)) + b.redundant);
    }
}

static int moves(const struct placement *from, const struct placement *to)
{
    int n = 0;
    for (int e = 0; e < to->n_expert; e++)
        n += __builtin_popcountll(to->holders[e] & ~from->holders[e]);
    return n;
}

static void other_names_of_runs_move_little_and_balance_as_well(void **state)
{
    uint32_t seed = 9;
    int before = 0, after = 0;
    (void)state;
    for (int round = 0; round < 300; round++) {
        struct balance b = {.n_run = 1 + (int)draw(&seed, 16), .redundant = (int)draw(&seed, 2)};
        double load[MODEL_EXPERTS];
        b.n_expert = b.n_run * (2 + (int)draw(&seed, 6));
        for (int i = 0; i < b.n_expert; i++)
            load[i] = draw(&seed, 1000);
        struct placement now = balance_place(&b, load);
        for (int i = 0; i < b.n_expert; i++)
            load[i] *= 1 + 0.001 * draw(&seed, 300);
        struct placement next = balance_place(&b, load), near = balance_near(&next, &now);
        before += moves(&now, &next), after += moves(&now, &near);
        assert_true(fabs(lambda(&near, load) - lambda(&next, load)) < 1e-9);
        for (int e = 0; e < b.n_expert; e++)
            assert_int_equal(__builtin_popcountll(near.holders[e]),
                             __builtin_popcountll(next.holders[e]));
        struct placement turned = now; /* the same under other names is found again */
        for (int e = 0; e < b.n_expert; e++) {
            turned.holders[e] = 0;
            for (int r = 0; r < b.n_run; r++)
                turned.holders[e] |= (uint64_t)placement_holds(&now, r, e) << (r + 1) % b.n_run;
        }
        near = balance_near(&turned, &now);
        assert_int_equal(moves(&now, &near), 0);
    }
    print_message("%d experts would move, %d do\n", before, after);
    assert_true(20 * after < 17 * before);
}

static void without_copies_the_heavy_are_kept_apart(void **state)
{
    const struct balance b = {.n_expert = 4, .n_run = 2};
    (void)state;
    struct placement p = balance_place(&b, (double[]){8, 7, 2, 1});
    assert_int_not_equal(p.holders[0], p.holders[1]);
    assert_int_equal(p.holders[0], p.holders[3]);
    assert_true(lambda(&p, (double[]){8, 7, 2, 1}) == 1);
}

static void the_busiest_gets_the_copies(void **state)
{
    const struct balance b = {.n_expert = 4, .n_run = 4, .redundant = 1};
    (void)state;
    struct placement p = balance_place(&b, (double[]){100, 10, 10, 10});
    assert_int_equal(__builtin_popcountll(p.holders[0]), 4);
}

static void more_slots_are_never_worse(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        double load[64], last = 8;
        balance_zipf(load, 64, 0.2 * (double)(seed % 10), draw_of(seed, DRAW_EXPERTS, 2));
        for (int redundant = 0; redundant < 5; redundant++) {
            const struct balance b = {.n_expert = 64, .n_run = 8, .redundant = redundant};
            struct placement p = balance_place(&b, load);
            assert_true(lambda(&p, load) <= last * 1.01);
            last = lambda(&p, load);
        }
    }
}

static void groups_stay_on_one_host_when_they_fit(void **state)
{
    struct balance b = {.n_expert = 32, .n_run = 8, .redundant = 1, .n_host = 2, .n_group = 8};
    uint32_t seed = 9;
    double load[32];
    (void)state;
    for (int round = 0; round < 100; round++) {
        int on[2] = {0};
        for (int i = 0; i < 32; i++)
            load[i] = draw(&seed, 100);
        struct placement p = balance_place(&b, load);
        for (int g = 0; g < 8; g++) {
            uint64_t runs = 0;
            for (int i = 4 * g; i < 4 * g + 4; i++)
                runs |= p.holders[i];
            assert_true(!(runs & 0xf0) != !(runs & 0x0f));
            on[!(runs & 0x0f)]++;
        }
        assert_int_equal(on[0], 4);
    }
    b.n_group = 9; /* do not fit two hosts: anywhere */
    struct err e;
    struct placement p = balance_place(&b, load);
    assert_int_equal(placement_check(&p, &e), 0);
}

/* At a compute-bound batch the experts' time grows with lambda, throughput with 1 / lambda. */
static void two_copies_a_rank_recover_four_fifths_of_what_a_zipf_router_costs(void **state)
{
    const struct balance none = {.n_expert = 64, .n_run = 8},
                         two = {.n_expert = 64, .n_run = 8, .redundant = 2};
    const struct placement even = placement_even(64, 8);
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        double load[64];
        balance_zipf(load, 64, 1.2, draw_of(seed, DRAW_EXPERTS, 0));
        struct placement moved = balance_place(&none, load), copied = balance_place(&two, load);
        double before = 1 / lambda(&even, load), after = 1 / lambda(&copied, load);
        assert_true(before < 0.45);
        assert_true((after - before) / (1 - before) >= 0.8);
        assert_true(after >= 1 / lambda(&moved, load));
    }
}

/* The turns of real steps follow what placement_loads() promises of many rows. */
static void turns_of_many_rows_are_as_even_as_promised(void **state)
{
    const struct balance b = {.n_expert = 64, .n_run = 8, .redundant = 2};
    static struct turns turns;
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        double load[64];
        int rows[64];
        balance_zipf(load, 64, 1.2, draw_of(seed, DRAW_EXPERTS, 1));
        for (int i = 0; i < 64; i++)
            rows[i] = (int)lround(load[i] * 131072);
        struct placement p = balance_place(&b, load);
        placement_assign(&turns, &p, rows, &turn_cost_cpu);
        assert_true(turns_lambda(&turns) < lambda(&p, load) * 1.02);
    }
}

static void loads_are_poured_to_one_level(void **state)
{
    struct placement p = placement_even(3, 3);
    double to[3];
    (void)state;
    p.holders[0] = 7;
    placement_loads(&p, (double[]){6, 1, 8}, to);
    assert_true(to[0] == 3.5 && to[1] == 3.5 && to[2] == 8);
}

static void uneven_is_the_squared_distance_from_even_shares(void **state)
{
    (void)state;
    assert_true(balance_uneven((double[]){5, 5, 5, 5}, 4) == 0);
    assert_true(balance_uneven((double[]){9, 0, 0, 0}, 4) == 0.75);
    assert_true(balance_uneven((double[]){0, 0}, 2) == 0);
}

static void what_cannot_be_placed_is_refused(void **state)
{
    struct err e;
    (void)state;
    assert_int_equal(balance_check(&(struct balance){.n_expert = 4, .n_run = 8}, &e), -EINVAL);
    assert_string_equal(e.text, "4 experts cannot be dealt to 8 runs of ranks: ask for a smaller "
                                "--ep");
    assert_int_equal(
        balance_check(&(struct balance){.n_expert = 8, .n_run = 2, .redundant = 5}, &e), -EINVAL);
    assert_string_equal(e.text,
                        "5 redundant experts beside 4 of 8 are more than there are: at most 4");
}

static void zipf_is_a_share_in_an_order_that_is_drawn(void **state)
{
    double load[64], sum = 0, most = 0;
    int at[2] = {0};
    (void)state;
    for (int s = 0; s < 2; s++) {
        sum = most = 0;
        balance_zipf(load, 64, 1.2, draw_of(1, DRAW_EXPERTS, (uint64_t)s));
        for (int i = 0; i < 64; i++) {
            sum += load[i];
            if (load[i] > most) {
                most = load[i];
                at[s] = i;
            }
        }
        assert_true(fabs(sum - 1) < 1e-12);
        assert_true(fabs(most - 0.29252) < 0.00001); /* 1 / sum of i^-1.2 */
    }
    assert_int_not_equal(at[0], at[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_load_gives_a_placement_with_every_slot_used),
        cmocka_unit_test(other_names_of_runs_move_little_and_balance_as_well),
        cmocka_unit_test(without_copies_the_heavy_are_kept_apart),
        cmocka_unit_test(the_busiest_gets_the_copies),
        cmocka_unit_test(more_slots_are_never_worse),
        cmocka_unit_test(groups_stay_on_one_host_when_they_fit),
        cmocka_unit_test(two_copies_a_rank_recover_four_fifths_of_what_a_zipf_router_costs),
        cmocka_unit_test(turns_of_many_rows_are_as_even_as_promised),
        cmocka_unit_test(loads_are_poured_to_one_level),
        cmocka_unit_test(uneven_is_the_squared_distance_from_even_shares),
        cmocka_unit_test(what_cannot_be_placed_is_refused),
        cmocka_unit_test(zipf_is_a_share_in_an_order_that_is_drawn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
