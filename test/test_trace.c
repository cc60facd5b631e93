/* test_trace.c - recorded requests: every shape of file, what is refused, prompts made of blocks;
 * and the search for the highest rate. */
#include "load/drive.h"
#include "load/search.h"
#include "load/trace_read.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

static struct trace parsed(const char *text)
{
    struct trace t;
    struct err e;
    if (trace_parse(&t, text, strlen(text), "t", &e))
        fail_msg("%s", e.text);
    return t;
}

static void assert_row(const struct trace *t, size_t i, double at, int prompt_tok, int output_tok)
{
    assert_true(i < t->n);
    assert_float_equal(t->row[i].at, at, 1e-6);
    assert_int_equal(t->row[i].prompt_tok, prompt_tok);
    assert_int_equal(t->row[i].output_tok, output_tok);
}

static void azure_has_dates(void **state)
{
    struct trace t = parsed("TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                            "2023-12-31 23:59:59.9799600,4808,10\r\n"
                            "2024-01-01 00:00:00.0319600,3180,8\r\n"
                            "2024-01-01T01:00:00+01:00,1,2");
    (void)state;
    assert_int_equal(t.n, 3);
    assert_true(t.timed);
    assert_row(&t, 0, 0, 4808, 10);
    assert_row(&t, 1, 0.02004, 1, 2); /* the same moment in another zone, and by time */
    assert_row(&t, 2, 0.052, 3180, 8);
    trace_free(&t);
}

static void burstgpt_has_seconds_and_failed_requests(void **state)
{
    struct trace t = parsed("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
                            "5,ChatGPT,472,18,490,Conversation log\n"
                            "45,GPT-4,1087,0,1087,API log\n\n"
                            "118.5,\"ChatGPT\",\"417\",276,693,Conversation log\n");
    (void)state;
    assert_int_equal(t.n, 2);
    assert_int_equal(t.left_out, 1);
    assert_row(&t, 0, 0, 472, 18);
    assert_row(&t, 1, 113.5, 417, 276);
    trace_free(&t);
}

static void mooncake_has_blocks(void **state)
{
    struct trace t = parsed(
        "{\"timestamp\": 1000, \"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [0, "
        "7, 9]}\n{\"timestamp\": 3500, \"input_length\": 600, \"output_length\": 6, "
        "\"hash_ids\": [0, 8]}\n{\"timestamp\": 3500, \"input_length\": 60, "
        "\"output_length\": 7}\n");
    (void)state;
    assert_int_equal(t.n, 3);
    assert_row(&t, 0, 0, 1100, 5);
    assert_row(&t, 1, 2.5, 600, 6);
    assert_row(&t, 2, 2.5, 60, 7);
    assert_int_equal(t.row[0].n_block, 3);
    assert_int_equal(t.row[2].n_block, 0);
    assert_int_equal(t.block[t.row[0].first_block + 2], 9);
    assert_int_equal(t.block[t.row[1].first_block + 1], 8);
    trace_free(&t);
}

static void lengths_alone_are_a_trace_without_times(void **state)
{
    struct trace t =
        parsed("num_prefill_tokens,num_decode_tokens,num_total_tokens\n3772,54,3826\n");
    (void)state;
    assert_false(t.timed);
    assert_row(&t, 0, 0, 3772, 54);
    trace_free(&t);
}

static void rows_are_sorted_by_time_and_can_be_cut(void **state)
{
    struct trace t = parsed("time,input_tokens,output_tokens\n30,3,1\n10,1,1\n20,2,1\n20,4,1\n");
    (void)state;
    assert_row(&t, 0, 0, 1, 1);
    assert_row(&t, 1, 10, 2, 1);
    assert_row(&t, 2, 10, 4, 1);
    assert_row(&t, 3, 20, 3, 1);
    trace_cut(&t, 20);
    assert_int_equal(t.n, 3);
    trace_cut(&t, 10);
    assert_int_equal(t.n, 1);
    trace_free(&t);
}

static void dates_are_seconds_of_the_calendar(void **state)
{
    static const struct {
        const char *text;
        double at;
    } good[] = {{"1970-01-01 00:00:00", 0},
                {"2000-03-01T00:00:00Z", 951868800},
                {"2024-02-29 12:00:00.5", 1709208000.5},
                {"2024-05-10 00:00:00.009930+00:00", 1715299200.00993},
                {"1969-12-31 23:00:00-01:30", 1800},
                {"2100-03-01 00:00:00", 4107542400},
                {"1990-06-01 00:00:00", 644198400},
                {"-1.5e3", -1500}};
    static const char *const bad[] = {"",
                                      "x",
                                      "2024-13-01 00:00:00",
                                      "2024-01-01",
                                      "2024-01-01 24:00:00",
                                      "2024-01-01 00:00:00.",
                                      "1e400",
                                      "nan",
                                      "2024-01-01 00:00:00+1",
                                      "1 2"};
    double at;
    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        assert_true(trace_time((struct slice){good[i].text, strlen(good[i].text)}, &at));
        assert_float_equal(at, good[i].at, 1e-5);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        if (trace_time((struct slice){bad[i], strlen(bad[i])}, &at))
            fail_msg("\"%s\" is %g", bad[i], at);
}

static void bad_files_are_one_sentence_with_the_line(void **state)
{
    static const struct {
        const char *text, *word;
    } bad[] = {
        {"", "t has no requests"},
        {"\n\n", "t has no requests"},
        {"time,input_tokens,output_tokens\n", "t has no requests"},
        {"a,b,c\n1,2,3\n", "t line 1: no columns"},
        {"\ntime,input_tokens,output_tokens\n1,2,3\n4,x,6\n",
         "t line 4: \"x\" is no number of tokens"},
        {"time,input_tokens,output_tokens\n1,2.5,3\n", "t line 2"},
        {"time,input_tokens,output_tokens\n1,-2,3\n", "t line 2"},
        {"time,input_tokens,output_tokens\n1,99999999,3\n", "t line 2"},
        {"time,input_tokens,output_tokens\nnoon,1,3\n", "t line 2: \"noon\" is no time"},
        {"time,input_tokens,output_tokens\n1,2\n", "t line 2: only 2 fields"},
        {"{\"timestamp\": 1, \"input_length\": 2}\n", "t line 1"},
        {"{\"timestamp\": \"x\", \"input_length\": 2, \"output_length\": 3}\n",
         "t line 1: timestamp"},
        {"{\"input_length\": 2, \"output_length\": 3}\n{\"timestamp\": 1, \"input_length\": 2, "
         "\"output_length\": 3}",
         "t line 2: some lines have a timestamp"},
        {"{\"timestamp\": 1, \"input_length\": \"2\", \"output_length\": 3}\n", "input_length"},
        {"{\"input_length\": 2, \"output_length\": 3, \"hash_ids\": [1, \"x\"]}\n", "hash_ids[1]"},
        {"{\"input_length\": 2, \"output_length\": 3, \"hash_ids\": 1}\n", "hash_ids"},
        {"{\"input_length\": 2,\n", "t line 1"},
        {"{\"input_length\": 2, \"output_length\": 3}\n[]\n", "t line 2"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct trace t;
        struct err e = {""};
        assert_int_equal(trace_parse(&t, bad[i].text, strlen(bad[i].text), "t", &e), -EINVAL);
        if (!strstr(e.text, bad[i].word) || strchr(e.text, '\n'))
            fail_msg("\"%s\", wanted \"%s\"", e.text, bad[i].word);
        trace_free(&t);
    }
}

/* Rows, first and last lengths, and seconds of the published files. */
static void the_published_traces_are_read_whole(void **state)
{
    static const struct {
        const char *file;
        size_t rows;
        int prompt_tok, output_tok;
        double seconds;
    } all[] = {{"azure_llm_2023_conv.csv", 19366, 374, 44, 3501.7},
               {"azure_llm_2023_code.csv", 8819, 4808, 10, 3435.9},
               {"mooncake_conversation.jsonl", 12031, 6758, 500, 3536.999},
               {"mooncake_synthetic.jsonl", 3993, 40160, 6, 0},
               {"sharegpt300_llama-3.1-8b.csv", 300, 2358, 531, 0}};
    const char *shared = getenv("TANDEM_SHARED");
    (void)state;
    for (size_t i = 0; i < COUNT(all); i++) {
        char file[512];
        struct trace t;
        struct err e;
        snprintf(file, sizeof(file), "%s/data/traces/%s", shared ? shared : "../shared",
                 all[i].file);
        if (access(file, R_OK)) {
            print_message("skipped: %s is absent\n", file);
            skip();
        }
        if (trace_read(&t, file, &e))
            fail_msg("%s", e.text);
        assert_int_equal(t.n + t.left_out, all[i].rows);
        assert_row(&t, 0, 0, all[i].prompt_tok, all[i].output_tok);
        assert_true(t.timed);
        if (all[i].seconds > 0)
            assert_float_equal(t.row[t.n - 1].at, all[i].seconds, 0.1);
        trace_free(&t);
    }
}

/* ------------------------------------------------------------------------------- prompts, times */

static size_t words_alike(const char *a, const char *b)
{
    size_t words = 0;
    for (size_t i = 0; a[i] && a[i] == b[i]; i++)
        words += a[i] == ' ';
    return words;
}

static void equal_blocks_make_equal_beginnings(void **state)
{
    struct workload w = {.seed = 1, .model = "m", .temperature = -1, .rate = {2, 8}};
    w.trace = parsed("{\"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [0, 7, 9]}\n"
                     "{\"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [0, 7, 8]}\n"
                     "{\"input_length\": 1100, \"output_length\": 5, \"hash_ids\": [1, 7, 9]}\n");
    char *a = workload_prompt(&w, 0), *b = workload_prompt(&w, 1), *c = workload_prompt(&w, 2);
    (void)state;
    assert_int_equal(words_alike(a, a), 545); /* (1100 - 8) / 2 words */
    assert_in_range(words_alike(a, b), 512, 515);
    assert_in_range(words_alike(a, c), 0, 3);
    assert_int_equal(workload_shape(&w, 1).output_tok, 5);
    free(a), free(b), free(c);
    trace_free(&w.trace);
}

static void what_is_planned_follows_times_and_bounds(void **state)
{
    struct load l = {.timing = LOAD_TRACE, .trace_speed = 2, .requests = 4};
    l.work.trace = parsed("time,input_tokens,output_tokens\n0,1,1\n1,1,1\n2,1,1\n3,1,1\n");
    (void)state;
    assert_int_equal(load_planned(&l), 4);
    l.duration_s = 1; /* the third is due at 2 / 2 s, which is not before */
    assert_int_equal(load_planned(&l), 2);
    l.timing = LOAD_ARRIVALS;
    l.arrivals =
        arrivals_begin(&(struct arrivals){.kind = ARRIVALS_UNIFORM, .rate = 3, .cv = 1}, 0);
    l.requests = UINT64_MAX;
    l.duration_s = 1.01;
    assert_int_equal(load_planned(&l), 3);
    l.timing = LOAD_CLOSED;
    assert_true(load_planned(&l) == UINT64_MAX);
    trace_free(&l.work.trace);
}

/* ------------------------------------------------------------------------------- search */

static struct search found(double first, double limit)
{
    struct search s = search_begin(first, 1e-3, 0.05);
    while (!search_done(&s))
        search_tell(&s, s.next <= limit);
    return s;
}

static void the_highest_rate_is_found_from_above_and_below(void **state)
{
    static const double first[] = {1, 100, 37, 0.01};
    (void)state;
    for (size_t i = 0; i < COUNT(first); i++) {
        struct search s = found(first[i], 37);
        assert_true(s.holds <= 37 && 37 < s.fails && s.fails <= s.holds * 1.05);
        assert_true(s.steps < SEARCH_STEPS_MOST);
    }
}

static void a_search_without_an_end_ends(void **state)
{
    struct search never = found(1, 0), always = found(1, INFINITY);
    (void)state;
    assert_true(never.holds <= 0 && never.fails >= 1e-3 && never.steps == 10);
    assert_true(always.fails <= 0 && always.holds > 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(azure_has_dates),
        cmocka_unit_test(burstgpt_has_seconds_and_failed_requests),
        cmocka_unit_test(mooncake_has_blocks),
        cmocka_unit_test(lengths_alone_are_a_trace_without_times),
        cmocka_unit_test(rows_are_sorted_by_time_and_can_be_cut),
        cmocka_unit_test(dates_are_seconds_of_the_calendar),
        cmocka_unit_test(bad_files_are_one_sentence_with_the_line),
        cmocka_unit_test(the_published_traces_are_read_whole),
        cmocka_unit_test(equal_blocks_make_equal_beginnings),
        cmocka_unit_test(what_is_planned_follows_times_and_bounds),
        cmocka_unit_test(the_highest_rate_is_found_from_above_and_below),
        cmocka_unit_test(a_search_without_an_end_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
