/* test_load.c - the pure parts of the load tool: lengths, arrivals, prompts, streams, figures. */
#include "load/answer.h"
#include "load/arrivals.h"
#include "load/figures.h"
#include "load/spread.h"
#include "load/sse.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void near(double got, double want, double part)
{
    if (!(fabs(got - want) <= part * fabs(want)))
        fail_msg("%g is not %g within %g %%", got, want, 100 * part);
}

/* Mean and coefficient of variation. */
struct moments {
    double mean, cv;
};

static struct moments moments_of(const struct series *s)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < s->n; i++)
        sum += s->at[i];
    for (size_t i = 0; i < s->n; i++)
        squares += pow(s->at[i] - sum / (double)s->n, 2);
    double mean = sum / (double)s->n;
    return (struct moments){mean, sqrt(squares / (double)s->n) / mean};
}

/* ------------------------------------------------------------------------------- draws */

static void gamma_draws_have_the_shape_as_mean_and_variance(void **state)
{
    static const double shapes[] = {0.1, 0.9, 1, 4};
    (void)state;
    for (size_t k = 0; k < COUNT(shapes); k++) {
        struct draws d = draw_of(1, DRAW_ARRIVALS, k);
        struct series s = {0};
        for (int i = 0; i < 200000; i++)
            series_add(&s, draw_gamma(&d, shapes[k]));
        struct moments m = moments_of(&s);
        near(m.mean, shapes[k], 0.03);
        near(m.cv, 1 / sqrt(shapes[k]), 0.03);
        series_free(&s);
    }
}

static void draws_depend_on_seed_use_and_number_alone(void **state)
{
    struct draws a = draw_of(1, DRAW_WORDS, 2), same = draw_of(1, DRAW_WORDS, 2);
    struct draws other[] = {draw_of(2, DRAW_WORDS, 2), draw_of(1, DRAW_PREFIX, 2),
                            draw_of(1, DRAW_WORDS, 3)};
    uint64_t first = draw_bits(&a);
    (void)state;
    assert_true(draw_bits(&same) == first);
    for (size_t i = 0; i < COUNT(other); i++)
        assert_false(draw_bits(&other[i]) == first);
}

/* ------------------------------------------------------------------------------- lengths */

static struct spread spread(const char *text)
{
    struct spread s;
    struct err e;
    if (spread_parse(text, "--tokens", &s, &e))
        fail_msg("%s: %s", text, e.text);
    return s;
}

static void lengths_have_their_mean_and_stay_within_their_bounds(void **state)
{
    static const struct {
        const char *text;
        double mean, cv;
        int least, most;
    } all[] = {{"128", 128, 0, 128, 128},
               {"1-3", 2, 0.408, 1, 3},
               {"100-300", 200, 0.290, 100, 300},
               {"lognormal:500:0.5", 500, 0.533, 1, SPREAD_MOST},
               {"lognormal:3:0", 3, 0, 3, 3}};
    (void)state;
    for (size_t k = 0; k < COUNT(all); k++) {
        struct spread s = spread(all[k].text);
        struct series got = {0};
        for (uint64_t i = 0; i < 50000; i++) {
            struct draws d = draw_of(7, DRAW_PROMPT_LENGTH, i);
            series_add(&got, spread_draw(&s, &d));
        }
        struct moments m = moments_of(&got);
        struct digest d = series_digest(&got);
        near(m.mean, all[k].mean, 0.02);
        near(m.cv + 1, all[k].cv + 1, 0.02);
        assert_true(d.least >= all[k].least && d.most <= all[k].most);
        series_free(&got);
    }
}

static void what_is_no_length_is_refused(void **state)
{
    static const char *const bad[] = {
        "",     "0",     "-3",     "x",    "3-2",           "3-",
        "1.5",  "1-2.5", "1-2-3",  "128 ", "lognormal:100", "inf",
        "0x10", "1e3",   "normal", "1..5", "lognormal:0:1", "lognormal:5:9"};
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct spread s;
        struct err e;
        if (spread_parse(bad[i], "--prompt-tokens", &s, &e) != -EINVAL)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_non_null(strstr(e.text, "--prompt-tokens"));
    }
}

/* ------------------------------------------------------------------------------- arrivals */

static struct series gaps_of(enum arrivals_kind kind, double rate, double cv, int n)
{
    struct arrivals a = arrivals_begin(
        &(struct arrivals){.kind = kind, .rate = rate, .cv = cv, .on_s = 0.1, .off_s = 0.3}, 3);
    struct series s = {0};
    for (double last = 0, at; n--; last = at) {
        at = arrivals_next(&a);
        assert_true(at >= last);
        series_add(&s, at - last);
    }
    return s;
}

static void arrivals_keep_their_rate_and_their_unevenness(void **state)
{
    static const struct {
        enum arrivals_kind kind;
        double cv, want_cv;
    } all[] = {{ARRIVALS_POISSON, 3, 1},
               {ARRIVALS_GAMMA, 1, 1},
               {ARRIVALS_GAMMA, 3, 3},
               {ARRIVALS_GAMMA, 0.5, .5},
               {ARRIVALS_UNIFORM, 3, 0},
               {ARRIVALS_BURST, 3, 3},
               {ARRIVALS_BURST, 5, 5},
               /* an interrupted Poisson process: cv^2 = 1 + 2 l w / (w + v)^2, in its times on l a
                * second, w and v one over their mean lengths (Kuczura 1973) */
               {ARRIVALS_ON_OFF, 3, 3.1623}};
    (void)state;
    for (size_t k = 0; k < COUNT(all); k++) {
        struct series s = gaps_of(all[k].kind, 20, all[k].cv, 400000);
        struct moments m = moments_of(&s);
        near(m.mean, 1.0 / 20, 0.03);
        near(m.cv + 1, all[k].want_cv + 1, 0.03);
        series_free(&s);
    }
}

static void bursts_come_at_once(void **state)
{
    (void)state;
    assert_int_equal(arrivals_burst(3), 5);
    assert_int_equal(arrivals_burst(1), 1);
    struct series s = gaps_of(ARRIVALS_BURST, 10, 3, 20);
    for (size_t i = 0; i < s.n; i++)
        assert_true((s.at[i] > 0) == (i % 5 == 0));
    series_free(&s);
}

/* ------------------------------------------------------------------------------- figures */

static void percentiles_are_between_neighbours(void **state)
{
    double one[] = {7}, four[] = {1, 2, 3, 4};
    (void)state;
    assert_float_equal(percentile(one, 1, 0.99), 7, 0);
    assert_float_equal(percentile(four, 4, 0), 1, 0);
    assert_float_equal(percentile(four, 4, 0.5), 2.5, 1e-12);
    assert_float_equal(percentile(four, 4, 0.9), 3.7, 1e-12);
    assert_float_equal(percentile(four, 4, 1), 4, 0);
}

static void a_digest_sorts_and_an_empty_one_is_zero(void **state)
{
    struct series s = {0};
    (void)state;
    assert_int_equal(series_digest(&s).n, 0);
    for (int i = 0; i < 101; i++)
        series_add(&s, (i * 37) % 101);
    struct digest d = series_digest(&s);
    assert_int_equal(d.n, 101);
    assert_float_equal(d.mean, 50, 1e-9);
    assert_float_equal(d.least, 0, 0);
    assert_float_equal(d.p50, 50, 1e-9);
    assert_float_equal(d.p90, 90, 1e-9);
    assert_float_equal(d.p99, 99, 1e-9);
    assert_float_equal(d.most, 100, 0);
    series_free(&s);
}

static void bars_count_every_value_once(void **state)
{
    double same[] = {2, 2, 2}, many[1000];
    (void)state;
    for (int i = 0; i < 1000; i++)
        many[i] = 0.001 * (i + 1);
    assert_int_equal(bars_of(same, 3).n, 1);
    assert_int_equal(bars_of(same, 3).count[0], 3);
    assert_int_equal(bars_of(many, 0).n, 0);
    struct bars b = bars_of(many, 1000);
    size_t all = 0;
    for (int i = 0; i < b.n; i++)
        all += b.count[i];
    assert_int_equal(all, 1000);
    for (int i = 0; i < b.n; i++) { /* the values are 1 to 1000 thousandths */
        double below = ceil(b.bound[i] * 1000 - 1e-6), above = ceil(b.bound[i + 1] * 1000 - 1e-6);
        assert_int_equal(b.count[i], (size_t)(above - below) + (i + 1 == b.n));
    }
    assert_float_equal(b.bound[0], 0.001, 1e-12);
    assert_float_equal(b.bound[b.n], 1, 1e-9);
}

static struct outcome finished(double scheduled, double first, double last, int tok)
{
    return (struct outcome){.scheduled = scheduled,
                            .sent = scheduled + 0.5,
                            .first = first,
                            .last = last,
                            .end = last + 0.25,
                            .prompt_tok = 10,
                            .cached_tok = 2,
                            .output_tok = tok,
                            .chunks = tok,
                            .status = 200};
}

static void a_summary_adds_up_and_counts_from_when_requests_were_due(void **state)
{
    struct results r = {.cpu_seconds = 2};
    struct series gaps = {0};
    struct outcome busy = {.status = 429, .fate = FATE_BUSY, .end = 8};
    struct outcome a = finished(0, 1, 5, 5), b = finished(2, 3, 9.75, 1);
    (void)state;
    series_add(&gaps, 1);
    results_add(&r, &a, &gaps, "");
    results_add(&r, &b, &gaps, "");
    results_add(&r, &busy, &gaps, "status 429: full");
    results_add(&r, &busy, &gaps, "another");
    struct slo slo = {.ttft = 2, .tpot = 1, .e2e = 5.5};
    struct summary s = summary_of(&r, &slo);
    assert_int_equal(s.sent, 4);
    assert_int_equal(s.fate[FATE_FINISHED], 2);
    assert_int_equal(s.fate[FATE_BUSY], 2);
    assert_string_equal(r.why[FATE_BUSY], "status 429: full");
    assert_float_equal(s.seconds, 10, 1e-12);
    assert_int_equal(s.output_tok, 6);
    assert_int_equal(s.prompt_tok, 20);
    assert_int_equal(s.cached_tok, 4);
    assert_float_equal(s.output_tok_per_s, 0.6, 1e-12);
    assert_float_equal(s.requests_per_s, 0.2, 1e-12);
    assert_float_equal(s.ttft.mean, 1, 1e-12);
    assert_int_equal(s.tpot.n, 1); /* one token has no time between tokens */
    assert_float_equal(s.tpot.mean, 1, 1e-12);
    assert_float_equal(s.e2e.most, 8, 1e-12);
    assert_int_equal(s.gap.n, 2); /* of those that finished */
    assert_int_equal(s.good, 1);
    assert_float_equal(s.good_share, 0.25, 1e-12);
    assert_float_equal(s.cpu_share, 0.2, 1e-12);
    results_free(&r);
    series_free(&gaps);
}

static void every_bound_of_an_slo_counts(void **state)
{
    struct outcome o = finished(1, 2, 4, 5); /* ttft 1, tpot 0.5, e2e 3.25 */
    (void)state;
    assert_true(outcome_good(&o, &(struct slo){0}));
    assert_true(outcome_good(&o, &(struct slo){1, 0.5, 3.25}));
    assert_false(outcome_good(&o, &(struct slo){.ttft = 0.9}));
    assert_false(outcome_good(&o, &(struct slo){.tpot = 0.4}));
    assert_false(outcome_good(&o, &(struct slo){.e2e = 3}));
    o.fate = FATE_TIMEOUT;
    assert_false(outcome_good(&o, &(struct slo){0}));
}

/* ------------------------------------------------------------------------------- streams */

struct heard {
    char text[512];
};

static void hear(void *arg, const char *data, size_t n)
{
    struct heard *h = arg;
    size_t at = strlen(h->text);
    assert_true(at + n + 3 < sizeof(h->text));
    snprintf(h->text + at, sizeof(h->text) - at, "<%.*s>", (int)n, data);
}

static const char stream[] = "data: 1\r\ndata: 2\r\n\r\n: hello\r\n\r\ndata: "
                             "one\n\ndata:two\r\n\r\ndata: a\rdata: b\r\rid: 7\n"
                             "event: x\ndata\ndata: \n\ndatax: no\n\n\ndata:  blank\n\ndata: cut";
static const char events[] = "<1\n2><one><two><a\nb><\n>< blank>";

static void events_are_the_same_however_the_stream_is_cut(void **state)
{
    size_t n = strlen(stream);
    (void)state;
    for (size_t first = 0; first <= n; first++)
        for (size_t second = first; second <= n; second++) {
            struct heard h = {""};
            struct sse s = {.event = hear, .arg = &h};
            assert_int_equal(sse_feed(&s, stream, first), 0);
            assert_int_equal(sse_feed(&s, stream + first, second - first), 0);
            assert_int_equal(sse_feed(&s, stream + second, n - second), 0);
            assert_string_equal(h.text, events);
            sse_free(&s);
        }
}

static void a_stream_can_be_read_byte_by_byte_and_again(void **state)
{
    struct heard h = {""};
    struct sse s = {.event = hear, .arg = &h};
    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        h.text[0] = 0;
        for (size_t i = 0; i < strlen(stream); i++)
            assert_int_equal(sse_feed(&s, stream + i, 1), 0);
        assert_string_equal(h.text, events);
        sse_restart(&s);
    }
    sse_free(&s);
}

static void an_endless_event_is_refused(void **state)
{
    struct heard h = {""};
    struct sse s = {.event = hear, .arg = &h};
    static char much[1 << 20];
    int rc = 0;
    (void)state;
    memset(much, 'x', sizeof(much));
    for (int i = 0; i < 20 && !rc; i++)
        rc = sse_feed(&s, much, sizeof(much));
    assert_int_equal(rc, -EMSGSIZE);
    sse_free(&s);
}

static bool take(struct answer *a, const char *data) { return answer_take(a, data, strlen(data)); }

static void chunks_of_both_endpoints_bring_text(void **state)
{
    struct answer a = {0};
    (void)state;
    assert_false(take(&a, "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                          "\"finish_reason\":null}],\"usage\":null}"));
    assert_true(take(&a, "{\"choices\":[{\"delta\":{\"content\":\"x\"}}]}"));
    assert_true(take(&a, "{\"choices\":[{\"delta\":{\"reasoning_content\":\"x\"}}]}"));
    assert_true(take(&a, "{\"choices\":[{\"delta\":{\"tool_calls\":[{}]}}]}"));
    assert_true(take(&a, "{\"choices\":[{\"text\":\"x\"}]}"));
    assert_false(a.finished || a.usage);
    assert_false(take(&a, "{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}"));
    assert_true(a.finished);
    assert_false(take(&a, "{\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,"
                          "\"prompt_tokens_details\":{\"cached_tokens\":3}}}"));
    assert_true(a.usage && a.prompt_tok == 9 && a.output_tok == 4 && a.cached_tok == 3);
    assert_false(a.failed || a.bad);
}

static void errors_and_nonsense_in_a_stream_are_told_apart(void **state)
{
    struct answer failed = {0}, bad = {0}, done = {0};
    (void)state;
    take(&failed, "{\"error\":{\"message\":\"out of memory\"}}");
    assert_true(failed.failed && !failed.bad && strstr(failed.why, "out of memory"));
    take(&bad, "<html>");
    assert_true(bad.bad && !bad.failed && strstr(bad.why, "<html>"));
    take(&done, "[DONE]");
    assert_true(done.finished && !done.bad);
}

/* ------------------------------------------------------------------------------- prompts */

static struct workload load_of(const char *prompt_tok)
{
    return (struct workload){.seed = 5,
                             .model = "m",
                             .chat = true,
                             .temperature = -1,
                             .prompt = spread(prompt_tok),
                             .output = spread("16"),
                             .rate = {1.5, 10}};
}

static int words_in(const char *text)
{
    int n = *text != 0;
    for (; *text; text++)
        n += *text == ' ';
    return n;
}

static void prompts_have_as_many_words_as_make_the_tokens(void **state)
{
    struct workload w = load_of("310");
    char *text = workload_prompt(&w, 0);
    (void)state;
    assert_int_equal(words_in(text), 200); /* (310 - 10) / 1.5 */
    free(text);
    w.shared_prefix_tok = 150;
    text = workload_prompt(&w, 0);
    assert_int_equal(words_in(text), 300);
    free(text);
}

static void prompts_share_their_prefix_and_nothing_else(void **state)
{
    struct workload w = load_of("100");
    w.shared_prefix_tok = 90;
    char *a = workload_prompt(&w, 0), *b = workload_prompt(&w, 1), *again = workload_prompt(&w, 0);
    size_t same = 0;
    (void)state;
    while (a[same] && a[same] == b[same])
        same++;
    a[same] = 0;
    assert_in_range(words_in(a), 60, 63);
    a[same] = again[same];
    assert_string_equal(a, again);
    free(a), free(b), free(again);
}

static void bodies_say_what_was_asked_for(void **state)
{
    struct workload w = load_of("20");
    w.extra = json_pack("{s:i}", "top_k", 7);
    w.ignore_eos = true;
    w.temperature = 0.5;
    char *text = workload_body(&w, 3);
    json_t *o = json_loads(text, 0, NULL);
    const char *role = NULL, *content = NULL;
    int max = 0, eos = 0, stream_it = 0, usage = 0, top_k = 0;
    double temperature = 0;
    (void)state;
    assert_int_equal(json_unpack(o, "{s:[{s:s, s:s}], s:i, s:b, s:b, s:{s:b}, s:i, s:f}",
                                 "messages", "role", &role, "content", &content, "max_tokens", &max,
                                 "ignore_eos", &eos, "stream", &stream_it, "stream_options",
                                 "include_usage", &usage, "top_k", &top_k, "temperature",
                                 &temperature),
                     0);
    assert_string_equal(role, "user");
    assert_true(max == 16 && eos && stream_it && usage && top_k == 7 && temperature == 0.5);
    json_decref(o);
    free(text);
    w.chat = false;
    text = workload_body(&w, 3);
    assert_non_null(strstr(text, "\"prompt\":"));
    free(text);
    json_decref(w.extra);
}

static void prompts_of_a_file_come_in_turn(void **state)
{
    static const char file[] = "What?\n\n{\"prompt\": \"Why\\n?\", \"id\": 3}\r\nlast";
    struct workload w = load_of("20");
    struct err e;
    static const char *const want[] = {"What?", "Why\n?", "last", "What?"};
    (void)state;
    assert_int_equal(prompts_parse(&w.prompts, file, strlen(file), "p", &e), 0);
    assert_int_equal(w.prompts.n, 3);
    for (size_t i = 0; i < COUNT(want); i++) {
        char *text = workload_prompt(&w, i);
        assert_string_equal(text, want[i]);
        free(text);
    }
    prompts_free(&w.prompts);
}

static void bad_prompts_are_named_by_their_line(void **state)
{
    static const struct {
        const char *file, *word;
    } bad[] = {{"a\n{\"prompt\": 3}\n", "p line 2"},
               {"{\"prompt\"", "p line 1"},
               {"a\nb\n\xff\xfe\n", "p line 3"},
               {"{\"x\": \"y\"}", "no \"prompt\""},
               {"\n\n", "no prompts"}};
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct prompts p;
        struct err e;
        assert_int_equal(prompts_parse(&p, bad[i].file, strlen(bad[i].file), "p", &e), -EINVAL);
        assert_non_null(strstr(e.text, bad[i].word));
        prompts_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gamma_draws_have_the_shape_as_mean_and_variance),
        cmocka_unit_test(draws_depend_on_seed_use_and_number_alone),
        cmocka_unit_test(lengths_have_their_mean_and_stay_within_their_bounds),
        cmocka_unit_test(what_is_no_length_is_refused),
        cmocka_unit_test(arrivals_keep_their_rate_and_their_unevenness),
        cmocka_unit_test(bursts_come_at_once),
        cmocka_unit_test(percentiles_are_between_neighbours),
        cmocka_unit_test(a_digest_sorts_and_an_empty_one_is_zero),
        cmocka_unit_test(bars_count_every_value_once),
        cmocka_unit_test(a_summary_adds_up_and_counts_from_when_requests_were_due),
        cmocka_unit_test(every_bound_of_an_slo_counts),
        cmocka_unit_test(events_are_the_same_however_the_stream_is_cut),
        cmocka_unit_test(a_stream_can_be_read_byte_by_byte_and_again),
        cmocka_unit_test(an_endless_event_is_refused),
        cmocka_unit_test(chunks_of_both_endpoints_bring_text),
        cmocka_unit_test(errors_and_nonsense_in_a_stream_are_told_apart),
        cmocka_unit_test(prompts_have_as_many_words_as_make_the_tokens),
        cmocka_unit_test(prompts_share_their_prefix_and_nothing_else),
        cmocka_unit_test(bodies_say_what_was_asked_for),
        cmocka_unit_test(prompts_of_a_file_come_in_turn),
        cmocka_unit_test(bad_prompts_are_named_by_their_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
