/* test_placement.c - which ranks hold which experts, and how a step's rows are shared out. */
#include "base/json.h"
#include "plan/placement.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct placement placement;
static struct turns turns;

static uint32_t draw(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(*seed >> 8) * below >> 24);
}

/* ------------------------------------------------------------------------------- who holds what */

static void even_shares_are_of_neighbours_and_may_be_uneven(void **state)
{
    (void)state;
    placement = placement_even(8, 3);
    assert_int_equal(placement_slots(&placement, 0), 2);
    assert_int_equal(placement_slots(&placement, 1), 3);
    assert_int_equal(placement_slots(&placement, 2), 3);
    for (int n = 1; n <= 70; n++)
        for (int runs = 1; runs <= n && runs <= PLACEMENT_RUNS; runs++) {
            placement = placement_even(n, runs);
            for (int e = 0; e < n; e++) {
                int run = placement_home(&placement, e);
                assert_true(placement_holds(&placement, run, e));
                assert_in_range(e, n * run / runs, n * (run + 1) / runs - 1);
            }
        }
}

static void where_all_hold_all_homes_are_the_even_ones(void **state)
{
    (void)state;
    placement = placement_all(60, PLACEMENT_RUNS);
    struct placement even = placement_even(60, PLACEMENT_RUNS);
    for (int e = 0; e < 60; e++)
        assert_int_equal(placement_home(&placement, e), placement_home(&even, e));
    assert_int_equal(placement_slots(&placement, PLACEMENT_RUNS - 1), 60);
}

static void an_expert_without_a_holder_is_refused_by_name(void **state)
{
    struct err e;
    (void)state;
    placement = placement_even(8, 4);
    assert_int_equal(placement_check(&placement, &e), 0);
    placement.holders[5] = 0;
    assert_int_equal(placement_check(&placement, &e), -EINVAL);
    assert_string_equal(e.text, "expert 5 is held by none of the 4 runs: name it in one");
    placement.holders[5] = 1 << 4;
    assert_int_equal(placement_check(&placement, &e), -EINVAL);
    assert_string_equal(e.text, "expert 5 is held by a run beyond the 4 there are");
}

/* ------------------------------------------------------------------------------- JSON */

static int read_text(const char *text, struct placement *layer, int n, struct err *e)
{
    json_t *o = json_parse(text, strlen(text), "placement", e);
    assert_non_null(o);
    int code = placement_from_json(o, layer, n, e);
    json_decref(o);
    return code;
}

static void what_is_written_is_read_back(void **state)
{
    struct placement out[3], in[3];
    struct err e;
    (void)state;
    for (int l = 0; l < 3; l++) {
        out[l] = placement_even(7, 3);
        out[l].holders[2 * l] |= 1 << (2 - l);
        in[l] = placement_all(7, 3);
    }
    json_t *o = placement_to_json(out, 3);
    assert_int_equal(placement_from_json(o, in, 3, &e), 0);
    assert_memory_equal(in, out, sizeof(out));
    json_decref(o);
    o = placement_to_json((struct placement[]){out[0], out[0]}, 2);
    assert_int_equal(json_array_size(json_object_get(o, "layers")), 1);
    assert_int_equal(placement_from_json(o, in, 2, &e), 0);
    assert_memory_equal(&in[1], &out[0], sizeof(out[0]));
    json_decref(o);
}

static void a_later_entry_overrides_and_an_unnamed_layer_keeps_its_own(void **state)
{
    struct placement in[3];
    struct err e;
    (void)state;
    for (int l = 0; l < 3; l++)
        in[l] = placement_even(4, 2);
    assert_int_equal(read_text("{\"schema\":1,\"experts\":4,\"runs\":2,\"layers\":["
                               "{\"layer\":1,\"holds\":[[3,2],[1,0,3]]}]}",
                               in, 3, &e),
                     0);
    assert_int_equal(in[0].holders[0], 1);
    assert_int_equal(in[1].holders[0], 2);
    assert_int_equal(in[1].holders[3], 3);
    assert_int_equal(in[2].holders[3], 2);
}

static void a_bad_placement_is_refused_in_one_sentence(void **state)
{
    static const struct {
        const char *holds, *says;
    } bad[] = {
        {"[[0,1,0],[2,3]]", "run 0 names expert 0 twice: name it once"},
        {"[[0,1],[3]]", "expert 2 is held by none of the 2 runs: name it in one"},
        {"[[0,1,4],[2,3]]", "holds of run 0 must name experts from 0 to 3"},
        {"[[0,1,-1],[2,3]]", "holds of run 0 must name experts from 0 to 3"},
        {"[[0,1,2.5],[2,3]]", "holds of run 0 must name experts from 0 to 3"},
        {"[[0,1],\"all\"]", "holds of run 1 must be a list of experts"},
        {"[[0,1,2,3]]", "holds must be a list of 2 lists of experts, one per run"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        char text[256];
        struct placement in = placement_even(4, 2), was = in;
        struct err e;
        snprintf(text, sizeof(text),
                 "{\"schema\":1,\"experts\":4,\"runs\":2,\"layers\":[{\"holds\":%s}]}",
                 bad[i].holds);
        assert_int_equal(read_text(text, &in, 1, &e), -EINVAL);
        assert_string_equal(e.text, bad[i].says);
        assert_memory_equal(&in, &was, sizeof(in));
    }
    struct placement in = placement_even(4, 2);
    struct err e;
    assert_int_equal(read_text("{\"schema\":1,\"experts\":8,\"runs\":2,\"layers\":[]}", &in, 1, &e),
                     -EINVAL);
    assert_string_equal(e.text, "it places 8 experts on 2 runs of ranks; here are 4 on 2");
    assert_int_equal(read_text("{\"layers\":[]}", &in, 1, &e), -EINVAL);
    assert_string_equal(e.text, "a placement must say \"schema\": 1");
}

/* ------------------------------------------------------------------------------- of a step */

/* Every row of every expert is done once, by a holder, in ascending turns, one per holder. */
static void assert_whole(const int *rows)
{
    int n = 0, done[PLACEMENT_RUNS] = {0};
    for (int e = 0; e < placement.n_expert; e++) {
        uint64_t seen = 0;
        int at = 0;
        if (!rows[e]) {
            assert_int_equal(turns.first[e], -1);
            continue;
        }
        for (int i = turns.first[e]; i < turns.n && turns.turn[i].expert == e; i++, n++) {
            const struct turn *t = &turns.turn[i];
            assert_int_equal(t->lo, at);
            assert_true(t->hi > t->lo && placement_holds(&placement, t->run, e));
            assert_false(seen >> t->run & 1);
            seen |= (uint64_t)1 << t->run;
            assert_int_equal(turns_run(&turns, e, t->lo), t->run);
            assert_int_equal(turns_run(&turns, e, t->hi - 1), t->run);
            done[t->run] += t->hi - t->lo;
            at = t->hi;
        }
        assert_int_equal(at, rows[e]);
    }
    assert_int_equal(n, turns.n);
    assert_memory_equal(done, turns.rows, sizeof(done));
}

static struct placement any(uint32_t *seed)
{
    int n = 1 + (int)draw(seed, 130), runs = 1 + (int)draw(seed, 12);
    struct placement p = draw(seed, 3) ? placement_even(n, runs) : placement_all(n, runs);
    for (int i = (int)draw(seed, 200); i > 0; i--)
        p.holders[draw(seed, (uint32_t)n)] |= (uint64_t)1 << draw(seed, (uint32_t)runs);
    return p;
}

static void every_row_is_computed_once_by_a_holder(void **state)
{
    uint32_t seed = 7;
    (void)state;
    for (int round = 0; round < 3000; round++) {
        int rows[MODEL_EXPERTS] = {0};
        struct turn_cost cost = {(int)draw(&seed, 40), 1 + (int)draw(&seed, 40)};
        placement = any(&seed);
        uint32_t most = 1u << draw(&seed, 14);
        for (int e = 0; e < placement.n_expert; e++)
            rows[e] = draw(&seed, 3) ? 0 : (int)draw(&seed, most);
        placement_assign(&turns, &placement, rows, &cost);
        assert_whole(rows);
    }
}

static void no_turn_is_less_than_a_tile_unless_its_expert_has_fewer(void **state)
{
    uint32_t seed = 11;
    (void)state;
    for (int round = 0; round < 1000; round++) {
        int rows[MODEL_EXPERTS] = {0};
        placement = any(&seed);
        for (int e = 0; e < placement.n_expert; e++)
            rows[e] = (int)draw(&seed, 300);
        placement_assign(&turns, &placement, rows, &turn_cost_cpu);
        for (int i = 0; i < turns.n; i++) {
            const struct turn *t = &turns.turn[i];
            assert_true(t->hi - t->lo >= min_int(turn_cost_cpu.tile, rows[t->expert]));
        }
    }
}

static void the_same_counts_give_the_same_turns(void **state)
{
    static struct turns again;
    uint32_t seed = 3;
    int rows[MODEL_EXPERTS] = {0};
    (void)state;
    placement = placement_all(64, 8);
    for (int e = 0; e < 64; e++)
        rows[e] = (int)draw(&seed, 100);
    memset(&again, 0x5a, sizeof(again));
    memset(&turns, 0xa5, sizeof(turns));
    placement_assign(&turns, &placement, rows, &turn_cost_cpu);
    placement_assign(&again, &placement, rows, &turn_cost_cpu);
    assert_int_equal(again.n, turns.n);
    assert_memory_equal(again.turn, turns.turn, (size_t)turns.n * sizeof(struct turn));
}

/* Decoding: 8 experts with a row each. */
static void a_single_row_keeps_every_run_busy(void **state)
{
    (void)state;
    for (int runs = 1; runs <= 8; runs *= 2) {
        int rows[64] = {0};
        placement = placement_all(64, runs);
        for (int e = 0; e < 8; e++)
            rows[e] = 1; /* all at home with run 0 */
        placement_assign(&turns, &placement, rows, &turn_cost_cpu);
        assert_whole(rows);
        assert_int_equal(turns.n, 8);
        for (int r = 0; r < runs; r++)
            assert_int_equal(turns.rows[r], 8 / runs);
    }
}

static void even_loads_stay_at_home(void **state)
{
    int rows[64];
    (void)state;
    placement = placement_all(64, 8);
    for (int e = 0; e < 64; e++)
        rows[e] = 64;
    placement_assign(&turns, &placement, rows, &turn_cost_cpu);
    assert_int_equal(turns.n, 64);
    for (int i = 0; i < turns.n; i++)
        assert_int_equal(turns.turn[i].run, placement_home(&placement, turns.turn[i].expert));
    assert_true(turns_lambda(&turns) == 1);
}

static void zipf(int *rows, int n, int total, double alpha)
{
    double sum = 0;
    for (int i = 1; i <= n; i++)
        sum += pow(i, -alpha);
    for (int i = 0; i < n; i++)
        rows[i] = (int)lround(total * pow(i + 1, -alpha) / sum);
}

static void a_skewed_load_is_even_where_all_hold_all(void **state)
{
    int rows[64];
    (void)state;
    zipf(rows, 64, 8192, 1.2);
    placement = placement_even(64, 8);
    placement_assign(&turns, &placement, rows, &turn_cost_cpu);
    assert_true(turns_lambda(&turns) > 4);
    placement = placement_all(64, 8);
    placement_assign(&turns, &placement, rows, &turn_cost_cpu);
    assert_whole(rows);
    assert_true(turns_lambda(&turns) < 1.05);
}

/* One copy of the busiest is enough for it to be shared; those without a choice come first. */
static void copies_take_what_the_only_holders_leave(void **state)
{
    int rows[4] = {900, 100, 300, 300};
    (void)state;
    placement = placement_even(4, 2);
    placement.holders[0] = 3;
    placement_assign(&turns, &placement, rows, &(struct turn_cost){0, 1});
    assert_whole(rows);
    assert_int_equal(turns.rows[0], 800);
    assert_int_equal(turns.rows[1], 800);
}

static void lambda_is_the_largest_share_beside_the_mean(void **state)
{
    (void)state;
    assert_true(loads_lambda((double[]){1, 1, 1, 1}, 4) == 1);
    assert_true(loads_lambda((double[]){4, 0, 0, 0}, 4) == 4);
    assert_true(loads_lambda((double[]){3, 1}, 2) == 1.5);
    assert_true(loads_lambda((double[]){0, 0}, 2) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(even_shares_are_of_neighbours_and_may_be_uneven),
        cmocka_unit_test(where_all_hold_all_homes_are_the_even_ones),
        cmocka_unit_test(an_expert_without_a_holder_is_refused_by_name),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(a_later_entry_overrides_and_an_unnamed_layer_keeps_its_own),
        cmocka_unit_test(a_bad_placement_is_refused_in_one_sentence),
        cmocka_unit_test(every_row_is_computed_once_by_a_holder),
        cmocka_unit_test(no_turn_is_less_than_a_tile_unless_its_expert_has_fewer),
        cmocka_unit_test(the_same_counts_give_the_same_turns),
        cmocka_unit_test(a_single_row_keeps_every_run_busy),
        cmocka_unit_test(even_loads_stay_at_home),
        cmocka_unit_test(a_skewed_load_is_even_where_all_hold_all),
        cmocka_unit_test(copies_take_what_the_only_holders_leave),
        cmocka_unit_test(lambda_is_the_largest_share_beside_the_mean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
