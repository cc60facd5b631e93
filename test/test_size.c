/* test_size.c - memory of plans to the byte: the formulas of the literature, where our layout means
 * the same, and what our layout adds to them; what fits, and what is missing. */
#include "dev/dev.h"
#include "predict/size.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "model_help.h"

static struct plan layout(const char *name, int tp, int pp, int ctx, int seqs)
{
    return plan_of(name, (struct plan_ask){.tp = tp, .pp = pp, .ctx = ctx, .max_seq = seqs});
}

static struct hardware boxes(double bytes, double reserve, int n)
{
    struct hardware h = {.kind = DEVICE_GPU, .n_level = 1};
    h.memory_bytes.value = bytes;
    h.reserve_bytes.value = reserve;
    h.level[0].size = n;
    return h;
}

/* Norms are kept in f32, 2 bytes a number more than the bf16 of the literature; the 160 of the
 * layers and the last one have 8192 numbers each. Everything else is the same to the byte while
 * tp divides the 8 key-value heads and the 2004 runs of 64 words. */
static void llama_3_70b_per_rank_is_that_of_the_literature_and_norms_in_f32(void **state)
{
    static const struct {
        int tp;
        size_t bytes;
    } golden[] = {{1, 141107412992}, {2, 70555025408}, {4, 35278831616}};
    const size_t norms = 161 * 8192 * (size_t)2;
    (void)state;
    for (size_t i = 0; i < COUNT(golden); i++) {
        struct plan p = layout("llama-3-70b", golden[i].tp, 1, 8192, 1);
        for (int r = 0; r < golden[i].tp; r++)
            assert_int_equal(plan_weight_bytes(&p, r), golden[i].bytes + norms);
    }
}

/* 2004 runs of 64 words over 8 shares are 250 or 251, so ranks differ by one run in each of
 * embedding and head: 64 words of 8192 numbers; on the mean tp 8 is the published figure. */
static void at_tp8_ranks_differ_by_one_run_of_words(void **state)
{
    struct plan p = layout("llama-3-70b", 8, 1, 8192, 1);
    const size_t published = 17640734720, norms = 161 * 8192 * (size_t)2;
    const size_t run = 2 * (size_t)64 * 8192 * 2;
    size_t sum = 0;
    (void)state;
    for (int r = 0; r < 8; r++) {
        size_t b = plan_weight_bytes(&p, r), words = (size_t)len(plan_share(&p, r, WORDS)) / 64;
        assert_true(words == 250 || words == 251);
        assert_int_equal(b, published + norms - run / 2 + (words - 250) * run);
        sum += b;
    }
    assert_int_equal(sum, 8 * (published + norms));
}

/* Two ranks hold each key-value head: k and v are 16 heads in all and not 8. */
static void at_tp16_key_value_heads_are_held_twice(void **state)
{
    struct plan p = layout("llama-3-70b", 16, 1, 8192, 1);
    const size_t published = 8989458432, norms = 161 * 8192 * (size_t)2;
    size_t sum = 0;
    (void)state;
    for (int r = 0; r < 16; r++) {
        assert_int_equal(len(plan_share(&p, r, KVHEADS)), 1);
        sum += plan_weight_bytes(&p, r);
    }
    assert_int_equal(sum, 16 * (published + norms));
}

static void stages_of_20_layers_hold_36_34_34_36_gb(void **state)
{
    struct plan p = layout("llama-3-70b", 1, 4, 8192, 1);
    (void)state;
    for (int i = 0; i < 4; i++)
        p.stage[i] = (struct span){20 * i, 20 * i + 20};
    const size_t layer = 855654400 * (size_t)2 + 2 * 8192 * 2, embed = 128256 * (size_t)8192 * 2;
    assert_int_equal(plan_weight_bytes(&p, 0), 20 * layer + embed);
    assert_int_equal(plan_weight_bytes(&p, 1), 20 * layer);
    assert_int_equal(plan_weight_bytes(&p, 2), 20 * layer);
    assert_int_equal(plan_weight_bytes(&p, 3), 20 * layer + embed + 8192 * 4);
}

/* Bytes of a token in the cache, of a rank, are 2 x layers x heads x 128 x 2. */
static void a_token_of_llama_3_70b_is_327680_bytes_of_cache(void **state)
{
    static const struct {
        const char *name;
        int tp;
        size_t bytes;
    } golden[] = {{"llama-3-70b", 1, 327680}, {"llama-3-70b", 2, 163840}, {"llama-3-70b", 4, 81920},
                  {"llama-3-70b", 8, 40960},  {"llama-3-70b", 16, 40960}, {"llama-3-8b", 1, 131072},
                  {"qwen2.5-0.5b", 1, 12288}, {"qwen3-0.6b", 1, 114688}};
    (void)state;
    for (size_t i = 0; i < COUNT(golden); i++) {
        struct plan p = layout(golden[i].name, golden[i].tp, 1, 2048, 1);
        assert_int_equal(size_of(&p, 0).page, 16 * golden[i].bytes);
        assert_int_equal(size_of(&p, 0).kv, 2048 * golden[i].bytes);
    }
}

/* The sizes by layers of a kind are those of walking every tensor. */
static void the_tightest_rank_has_the_bytes_of_its_plan(void **state)
{
    static const int cut[][2] = {{1, 1}, {2, 1}, {3, 2}, {8, 1}, {1, 7}, {16, 2}};
    (void)state;
    for (size_t i = 0; i < COUNT(cut); i++) {
        struct plan p = layout("llama-3-70b", cut[i][0], cut[i][1], 4096, 4);
        struct hardware h = boxes(80 * 0x1p30, 0x1p30, 8);
        struct fit f = size_fit(&p, &h);
        double least = 1e18;
        for (int r = 0; r < plan_ranks(&p); r++) {
            struct size s = size_of(&p, r);
            double spare = 79 * 0x1p30 - (double)size_all(&s);
            least = spare < least ? spare : least;
        }
        struct size s = size_of(&p, f.rank);
        assert_memory_equal(&s, &f.size, sizeof(s));
        assert_true(f.spare == least && f.have == 79 * 0x1p30);
    }
}

static void a_cpu_host_holds_weights_once_for_all_its_replicas(void **state)
{
    struct plan p = layout("llama-3-8b", 2, 2, 4096, 4);
    struct hardware h = boxes(64 * 0x1p30, 0, 4);
    (void)state;
    h.kind = DEVICE_CPU;
    size_t weights = plan_weight_bytes(&p, PLAN_WHOLE);
    struct fit one = size_fit(&p, &h);
    p.dp = 3;
    struct fit three = size_fit(&p, &h);
    assert_int_equal(one.rank, PLAN_WHOLE);
    assert_int_equal(one.size.weights, weights);
    assert_int_equal(three.size.weights, weights);
    assert_int_equal(three.size.kv, 3 * one.size.kv);
    assert_int_equal(three.size.scratch, 3 * one.size.scratch);
    assert_true(three.kv_tok < one.kv_tok / 2);
}

static void the_cache_takes_what_is_left_and_not_a_page_more(void **state)
{
    struct plan p = layout("llama-3-70b", 4, 1, 8192, 1024);
    struct hardware h = boxes(80 * 0x1p30, 2 * 0x1p30, 8);
    (void)state;
    assert_true(size_fill(&p, &h));
    struct fit f = size_fit(&p, &h);
    assert_int_equal(f.kv_tok, (int64_t)p.pages * KV_PAGE);
    assert_true(f.spare >= 0 && f.spare < (double)f.size.page);
    p.max_seq = 2;
    assert_true(size_fill(&p, &h));
    assert_int_equal(p.pages, 2 * 8192 / KV_PAGE);
    p = layout("llama-3-70b", 1, 1, 8192, 1);
    assert_false(size_fill(&p, &h)); /* 141 GB on 84 */
}

static void what_is_missing_is_said_in_devices(void **state)
{
    struct plan p = layout("llama-3-70b", 1, 1, 8192, 8);
    struct hardware h = boxes(80 * 0x1p30, 2 * 0x1p30, 8), small = boxes(5e8, 0, 8);
    struct fit f;
    (void)state;
    assert_int_equal(size_devices(&p, &h, 65536, &f), 2); /* 70.6 + 10.7 GB each of 83.8 */
    assert_true(f.spare >= 0);
    assert_int_equal(size_devices(&p, &h, 524288, &f), 4);
    assert_int_equal(size_devices(&p, &small, 65536, &f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_3_70b_per_rank_is_that_of_the_literature_and_norms_in_f32),
        cmocka_unit_test(at_tp8_ranks_differ_by_one_run_of_words),
        cmocka_unit_test(at_tp16_key_value_heads_are_held_twice),
        cmocka_unit_test(stages_of_20_layers_hold_36_34_34_36_gb),
        cmocka_unit_test(a_token_of_llama_3_70b_is_327680_bytes_of_cache),
        cmocka_unit_test(the_tightest_rank_has_the_bytes_of_its_plan),
        cmocka_unit_test(a_cpu_host_holds_weights_once_for_all_its_replicas),
        cmocka_unit_test(the_cache_takes_what_is_left_and_not_a_page_more),
        cmocka_unit_test(what_is_missing_is_said_in_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
