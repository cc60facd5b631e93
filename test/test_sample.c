/* test_sample.c - which token is drawn: by definition on small logits, by frequency over many
 * positions. */
#include "dev/weigh.h"
#include "run/sample.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { N = 6, DRAWS = 20000 };

static const float logits[N] = {1, 3, -2, 2.5f, 0, 2};

static struct sampling sampling_of(float temperature)
{
    struct sampling s = sampling_greedy;
    s.temperature = temperature;
    s.seed = 42;
    return s;
}

static int draw(const float *from, int n, const struct sampling *s, uint64_t position,
                const int *seen, int n_seen, int n_prompt)
{
    float copy[64];
    void *scratch = malloc(sample_scratch(n));
    memcpy(copy, from, (size_t)n * sizeof(*from));
    struct sample_rules rules = {.seen = seen, .n_seen = n_seen, .n_prompt = n_prompt};
    int token = sample(copy, n, s, &rules, position, scratch);
    free(scratch);
    return token;
}

/* How often each of N tokens is drawn at DRAWS positions. */
static void count(const struct sampling *s, int n[N])
{
    memset(n, 0, N * sizeof(*n));
    for (uint64_t p = 0; p < DRAWS; p++) {
        int token = draw(logits, N, s, p, NULL, 0, 0);
        assert_in_range(token, 0, N - 1);
        n[token]++;
    }
}

/* The frequencies are those of the softmax over the tokens in `kept`, within 4.5 deviations. */
static void expect_softmax(const struct sampling *s, unsigned kept)
{
    double sum = 0;
    int n[N];
    count(s, n);
    for (int i = 0; i < N; i++)
        sum += kept >> i & 1 ? exp((double)(logits[i] / s->temperature)) : 0;
    for (int i = 0; i < N; i++) {
        double p = kept >> i & 1 ? exp((double)(logits[i] / s->temperature)) / sum : 0;
        double most = 4.5 * sqrt(DRAWS * p * (1 - p));
        if (fabs(n[i] - DRAWS * p) > most)
            fail_msg("token %d: drawn %d times, %.1f expected within %.1f", i, n[i], DRAWS * p,
                     most);
    }
}

static void zero_temperature_takes_the_likeliest_and_the_first_of_equals(void **state)
{
    static const float ties[N] = {0, 2, 2, -1, 2, 1};
    struct sampling s = sampling_of(0);
    (void)state;
    assert_int_equal(draw(logits, N, &s, 0, NULL, 0, 0), 1);
    assert_int_equal(draw(ties, N, &s, 5, NULL, 0, 0), 1);
}

static void frequencies_are_those_of_the_softmax(void **state)
{
    struct sampling s = sampling_of(1);
    (void)state;
    expect_softmax(&s, 0x3f);
    s.temperature = 0.5f;
    expect_softmax(&s, 0x3f);
    s.temperature = 3;
    expect_softmax(&s, 0x3f);
}

static void top_k_keeps_the_k_likeliest(void **state)
{
    struct sampling s = sampling_of(1);
    (void)state;
    s.top_k = 1;
    expect_softmax(&s, 1 << 1);
    s.top_k = 3;
    expect_softmax(&s, 1 << 1 | 1 << 3 | 1 << 5);
    s.top_k = 100;
    expect_softmax(&s, 0x3f);
}

/* Of the softmax 0.0586, 0.4331, 0.0029, 0.2627, 0.0216, 0.2211: the likeliest until their sum
 * reaches p, the one that reaches it included. */
static void top_p_keeps_the_fewest_that_reach_p(void **state)
{
    struct sampling s = sampling_of(1);
    (void)state;
    s.top_p = 0.4f;
    expect_softmax(&s, 1 << 1);
    s.top_p = 0.5f;
    expect_softmax(&s, 1 << 1 | 1 << 3);
    s.top_p = 0.9f;
    expect_softmax(&s, 1 << 1 | 1 << 3 | 1 << 5);
}

static void min_p_drops_what_is_far_from_the_likeliest(void **state)
{
    struct sampling s = sampling_of(1);
    (void)state;
    s.min_p = 0.55f; /* exp(-0.5) = 0.607, exp(-1) = 0.368 */
    expect_softmax(&s, 1 << 1 | 1 << 3);
    s.min_p = 0.3f;
    expect_softmax(&s, 1 << 1 | 1 << 3 | 1 << 5);
}

static void the_same_seed_and_position_draw_the_same(void **state)
{
    struct sampling s = sampling_of(1), other = s;
    int differ = 0;
    (void)state;
    other.seed++;
    for (uint64_t p = 0; p < 200; p++) {
        int token = draw(logits, N, &s, p, NULL, 0, 0);
        assert_int_equal(token, draw(logits, N, &s, p, NULL, 0, 0));
        differ += token != draw(logits, N, &other, p, NULL, 0, 0);
    }
    assert_in_range(differ, 50, 190);
}

/* Greedy choice shows which logits moved across which. */
static void penalties_do_what_their_definitions_say(void **state)
{
    static const int seen[] = {1, 1, 3}; /* 1 in the prompt, then 1 and 3 were generated */
    struct sampling s = sampling_of(0);
    (void)state;
    s.repetition = 1.21f; /* 3 / 1.21 = 2.48 < 2.5, but 2.5 / 1.21 = 2.07 */
    assert_int_equal(draw(logits, N, &s, 0, seen, 1, 1), 3);
    assert_int_equal(draw(logits, N, &s, 0, seen, 3, 1), 1);
    s = sampling_of(0);
    s.presence = 1.1f; /* only what was generated */
    assert_int_equal(draw(logits, N, &s, 0, seen, 1, 1), 1);
    assert_int_equal(draw(logits, N, &s, 0, seen, 2, 1), 3);
    assert_int_equal(draw(logits, N, &s, 0, seen, 3, 1), 5);
    s = sampling_of(0);
    s.frequency = 0.3f; /* 3 - 0.3, 3 - 0.6 */
    assert_int_equal(draw(logits, N, &s, 0, seen, 2, 0), 3);
    assert_int_equal(draw(logits, N, &s, 0, seen, 2, 1), 1);
}

static void a_negative_logit_is_penalised_downwards(void **state)
{
    static const float low[2] = {-1, -1.5f};
    static const int seen[] = {0};
    struct sampling s = sampling_of(0);
    (void)state;
    s.repetition = 2;
    assert_int_equal(draw(low, 2, &s, 0, seen, 1, 1), 1);
}

static void logits_that_are_no_numbers_are_refused(void **state)
{
    static const float bad[3] = {1, NAN, 2}, none[2] = {-INFINITY, -INFINITY};
    static const float some[3] = {-INFINITY, 0, -INFINITY};
    struct sampling greedy = sampling_of(0), warm = sampling_of(1);
    (void)state;
    assert_int_equal(draw(bad, 3, &greedy, 0, NULL, 0, 0), -1);
    assert_int_equal(draw(bad, 3, &warm, 0, NULL, 0, 0), -1);
    assert_int_equal(draw(none, 2, &warm, 0, NULL, 0, 0), -1);
    assert_int_equal(draw(some, 3, &warm, 0, NULL, 0, 0), 1);
}

static void settings_out_of_range_are_refused(void **state)
{
    struct err e;
    struct sampling s = sampling_of(1);
    (void)state;
    assert_int_equal(sampling_check(&s, &e), 0);
    s.temperature = -1;
    assert_true(sampling_check(&s, &e) < 0);
    s = sampling_of(1), s.top_p = 1.5f;
    assert_true(sampling_check(&s, &e) < 0);
    s = sampling_of(1), s.repetition = 0;
    assert_true(sampling_check(&s, &e) < 0);
    s = sampling_of(NAN);
    assert_true(sampling_check(&s, &e) < 0);
}

static void weights_add_up_exactly_in_any_order(void **state)
{
    enum { WORDS = 1000, BLOCKS = (WORDS + WEIGH_BLOCK - 1) / WEIGH_BLOCK };
    float x[WORDS], w[WORDS];
    double block[BLOCKS], sum = 0, back = 0;
    int some = 0;
    (void)state;
    for (int i = 0; i < WORDS; i++)
        x[i] = -30 * (float)(i * 367 % WORDS) / WORDS;
    weigh(x, WORDS, 0, 1, w, block);
    for (int b = 0; b < BLOCKS; b++)
        sum += block[b];
    for (int i = WORDS - 1; i >= 0; i--) {
        assert_true(fabs((double)w[i] - exp((double)x[i])) <=
                    0x1p-22 * exp((double)x[i]) + 0x1p-33);
        assert_true((double)w[i] * 0x1p32 == rint((double)w[i] * 0x1p32));
        back += (double)w[i];
        some += w[i] > 0 && w[i] < 1e-6f;
    }
    assert_true(back == sum);
    assert_true(some > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zero_temperature_takes_the_likeliest_and_the_first_of_equals),
        cmocka_unit_test(frequencies_are_those_of_the_softmax),
        cmocka_unit_test(top_k_keeps_the_k_likeliest),
        cmocka_unit_test(top_p_keeps_the_fewest_that_reach_p),
        cmocka_unit_test(min_p_drops_what_is_far_from_the_likeliest),
        cmocka_unit_test(the_same_seed_and_position_draw_the_same),
        cmocka_unit_test(penalties_do_what_their_definitions_say),
        cmocka_unit_test(a_negative_logit_is_penalised_downwards),
        cmocka_unit_test(logits_that_are_no_numbers_are_refused),
        cmocka_unit_test(weights_add_up_exactly_in_any_order),
        cmocka_unit_test(settings_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
