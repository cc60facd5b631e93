/* test_cache.c - which experts stay when they exceed memory (run/cache.h). */
#include "run/cache.h"
#include "tiny.h"

enum { EXPERTS = 8, LAYERS = 2 };

struct help {
    struct plan plan;
    struct weights weights;
    struct pool pool;
    size_t expert; /* bytes of one */
    struct cache_figures figures;
    struct expert_cache cache;
};

/* With a budget of so many experts. */
static void begin(struct help *h, int budget)
{
    struct model m = tiny_llama(LAYERS);
    struct arena host = {0}, data = {0};
    struct err e;
    m.experts = (struct experts){.n = EXPERTS, .top = 2, .ff = 36, .numbered = true};
    const struct plan_ask ask = {.weight = NUM_F32, .kv = NUM_F32, .numerics = "f32-fma"};
    *h = (struct help){.expert = 0};
    if (plan_make(&h->plan, &m, &ask, &e))
        fail_msg("%s", e.text);
    weights_lay_out(&h->weights, &h->plan, PLAN_WHOLE, &host, &data);
    struct arena *arena[] = {&host, &data};
    for (size_t i = 0; i < COUNT(arena); i++) {
        char *at = pool_get(&h->pool, arena[i]->used + ARENA_ALIGN);
        at += (ARENA_ALIGN - (uintptr_t)at % ARENA_ALIGN) % ARENA_ALIGN;
        *arena[i] = (struct arena){.base = at, .size = arena[i]->used};
    }
    weights_lay_out(&h->weights, &h->plan, PLAN_WHOLE, &host, &data);
    h->expert = plan_expert_bytes(&h->plan, PLAN_WHOLE) / (EXPERTS * LAYERS);
    cache_open(&h->cache, &h->plan, &h->weights, (size_t)budget * h->expert, &h->figures, &h->pool);
}

/* A layer needs these experts, given as bits; returns how many of them were kept. */
static int need(struct help *h, int layer, unsigned which)
{
    int rows[EXPERTS];
    uint64_t before = h->figures.hits;
    for (int e = 0; e < EXPERTS; e++)
        rows[e] = which >> e & 1;
    cache_need(&h->cache, layer, rows, NULL);
    return (int)(h->figures.hits - before);
}

static void what_was_needed_is_kept_while_there_is_room(void **state)
{
    struct help h;
    (void)state;
    begin(&h, 4);
    assert_int_equal(need(&h, 0, 0x3), 0);
    assert_int_equal(need(&h, 1, 0x3), 0);
    assert_int_equal(need(&h, 0, 0x3), 2);
    assert_int_equal(need(&h, 1, 0x3), 2);
    assert_int_equal(h.figures.misses, 4);
    assert_int_equal(h.cache.used, 4 * h.expert);
    pool_free(&h.pool);
}

static void those_that_are_needed_most_stay(void **state)
{
    struct help h;
    (void)state;
    begin(&h, 2);
    for (int i = 0; i < 5; i++)
        need(&h, 0, 0x1);
    need(&h, 0, 0x2);
    need(&h, 0, 0x4); /* takes the place of the second */
    assert_int_equal(need(&h, 0, 0x1), 1);
    assert_int_equal(need(&h, 0, 0x2), 0);
    assert_int_equal(h.cache.used, 2 * h.expert);
    pool_free(&h.pool);
}

static void what_was_needed_long_ago_counts_little(void **state)
{
    struct help h;
    (void)state;
    begin(&h, 2);
    for (int i = 0; i < 10; i++)
        need(&h, 0, 0x1);
    for (int i = 0; i < 1000; i++)
        need(&h, 0, 0x2);
    for (int i = 0; i < 3; i++)
        need(&h, 0, 0x4); /* the first goes, though it was needed more often */
    assert_int_equal(need(&h, 0, 0x4), 1);
    assert_int_equal(need(&h, 0, 0x1), 0);
    pool_free(&h.pool);
}

static void a_layer_that_needs_more_than_the_budget_gets_it_until_the_next(void **state)
{
    struct help h;
    (void)state;
    begin(&h, 2);
    assert_int_equal(need(&h, 0, 0xff), 0);
    assert_int_equal(h.cache.used, 8 * h.expert);
    assert_int_equal(need(&h, 1, 0x1), 0);
    assert_int_equal(h.cache.used, 2 * h.expert);
    pool_free(&h.pool);
}

static void only_turns_of_the_rank_are_needed(void **state)
{
    struct help h;
    const int rows[EXPERTS] = {3, 3, 0, 3};
    const struct span mine[EXPERTS] = {{0, 3}, {1, 1}, {0, 5}, {2, 3}};
    (void)state;
    begin(&h, 4);
    cache_need(&h.cache, 1, rows, mine);
    assert_int_equal(h.figures.misses, 2);
    assert_int_equal(h.cache.used, 2 * h.expert);
    pool_free(&h.pool);
}

/* Numbers that grow with every use stay in range. */
static void a_million_calls_keep_the_order(void **state)
{
    struct help h;
    (void)state;
    begin(&h, 2);
    for (int i = 0; i < 1000000; i++)
        need(&h, 0, i % 10 ? 0x1 : 0x2);
    need(&h, 0, 0x4);
    assert_int_equal(need(&h, 0, 0x1), 1);
    assert_true(h.cache.worth < 1e31);
    pool_free(&h.pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_needed_is_kept_while_there_is_room),
        cmocka_unit_test(those_that_are_needed_most_stay),
        cmocka_unit_test(what_was_needed_long_ago_counts_little),
        cmocka_unit_test(a_layer_that_needs_more_than_the_budget_gets_it_until_the_next),
        cmocka_unit_test(only_turns_of_the_rank_are_needed),
        cmocka_unit_test(a_million_calls_keep_the_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
