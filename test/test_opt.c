/* test_opt.c - the command line: what is understood, and what is refused in which words. */
#include "base/opt.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { ARGS_MAX = 32 };

/* Parse a command line given as one text, split at blanks. The words live in the caller's copy. */
static int parse(const char *line, char copy[256], struct options *o, struct err *e)
{
    char *argv[ARGS_MAX] = {(char *)"tandem"};
    int argc = 1;
    snprintf(copy, 256, "%s", line);
    e->text[0] = 0;
    for (char *save, *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    return opt_parse(o, argc, argv, e);
}

static struct options understood(const char *line, char copy[256])
{
    struct options o;
    struct err e;
    int rc = parse(line, copy, &o, &e);
    if (rc)
        fail_msg("%s: %s", line, e.text);
    return o;
}

/* A usage error whose sentence contains `word`. */
static void refused(const char *line, const char *word)
{
    char copy[256];
    struct options o;
    struct err e;
    int rc = parse(line, copy, &o, &e);
    if (rc != -EINVAL || !strstr(e.text, word) || strchr(e.text, '\n'))
        fail_msg("\"%s\" gives %d \"%s\", wanted a sentence with \"%s\"", line, rc, e.text, word);
}

static void every_default_of_the_table_is_valid(void **state)
{
    (void)state;
    char copy[256];
    struct options o = understood("run", copy);
    assert_int_equal(o.verb, VERB_RUN);
    for (int i = 0; i < opt_row_count; i++)
        assert_false(*(bool *)((char *)&o + opt_rows[i].given));
}

static void every_row_has_help_and_a_verb_and_a_name_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < opt_row_count; i++) {
        const struct opt_row *row = &opt_rows[i];
        assert_true(strlen(row->help) > 0 && row->verbs);
        assert_int_equal(row->kind == OPT_FLAG, !*row->value);
        for (int j = 0; j < i; j++) {
            bool together = row->verbs & opt_rows[j].verbs;
            assert_false(together && !strcmp(row->name, opt_rows[j].name));
            assert_false(together && row->letter && row->letter == opt_rows[j].letter);
        }
    }
    for (int v = 0; v < VERB_COUNT; v++)
        assert_true(*verb_rows[v].summary && strstr(verb_rows[v].example, verb_rows[v].name));
}

static void values_may_stand_behind_a_blank_or_an_equals_sign(void **state)
{
    (void)state;
    char copy[256];
    struct options o =
        understood("run --tp 4 --pp=2 --temperature=0.5 -n7 -s 9 model prompt", copy);
    assert_int_equal(o.tp, 4);
    assert_int_equal(o.pp, 2);
    assert_true(o.temperature == 0.5);
    assert_int_equal(o.max_tokens, 7);
    assert_int_equal(o.seed, 9);
    assert_int_equal(o.n_word, 2);
    assert_string_equal(o.word[0], "model");
    assert_string_equal(o.word[1], "prompt");
}

static void what_was_given_is_told_from_what_is_default(void **state)
{
    (void)state;
    char copy[256];
    struct options o = understood("run --tp 1 --temperature 0", copy);
    assert_true(o.given.tp && o.given.temperature);
    assert_false(o.given.pp || o.given.top_p);
    assert_int_equal(o.pp, 1);
}

static void words_behind_two_dashes_are_no_options(void **state)
{
    (void)state;
    char copy[256];
    struct options o = understood("run -- --tp -x", copy);
    assert_int_equal(o.n_word, 2);
    assert_string_equal(o.word[0], "--tp");
    assert_false(o.given.tp);
}

static void a_repeatable_option_keeps_its_order(void **state)
{
    (void)state;
    char copy[256];
    struct options o = understood("run --stop a --stop=b --stop -c", copy);
    assert_int_equal(o.stop.n, 3);
    assert_string_equal(o.stop.at[0], "a");
    assert_string_equal(o.stop.at[1], "b");
    assert_string_equal(o.stop.at[2], "-c");
}

static void the_seventeenth_of_a_list_is_refused(void **state)
{
    (void)state;
    char line[256] = "run";
    for (int i = 0, n = 3; i <= OPT_LIST_MAX; i++)
        n += snprintf(line + n, sizeof(line) - (size_t)n, " --stop=x");
    refused(line, "--stop takes at most 16 texts");
}

static void sizes_have_units(void **state)
{
    (void)state;
    char copy[256];
    struct options o = understood("bench allreduce --min 8 --max 2M", copy);
    assert_int_equal(o.verb, VERB_BENCH_ALLREDUCE);
    assert_int_equal(o.min, 8);
    assert_int_equal(o.max, 2 << 20);
    refused("bench allreduce --max 2X", "not \"2X\"");
    refused("bench allreduce --max 2MB", "not \"2MB\"");
    refused("bench allreduce --max 2G", "from 4 to 1073741824");
    refused("bench allreduce --max 99999999999999999999", "from 4 to");
    refused("bench allreduce --max 17179869184G", "from 4 to"); /* 2^64 bytes and then some */
}

static void numbers_are_whole_in_range_and_complete(void **state)
{
    (void)state;
    static const char *const bad[] = {"0", "33", "-1", "2x", "2.0", "1e1", "two", "99999999999999"};
    char line[64];
    for (size_t i = 0; i < COUNT(bad); i++) {
        snprintf(line, sizeof(line), "run --tp %s", bad[i]);
        refused(line, "a whole number from 1 to 32");
    }
    refused("run --tp=", "a whole number from 1 to 32");
    refused("run --seed -1", "2^64-1");
    refused("run --seed 18446744073709551616", "2^64-1");
    char copy[256];
    assert_true(understood("run --seed 18446744073709551615", copy).seed == UINT64_MAX);
}

static void reals_are_finite_decimal_numbers(void **state)
{
    (void)state;
    static const char *const bad[] = {"nan", "inf", "0x1p3", "1e999", "", "-", "1.5.2", "-0.1"};
    char line[64];
    for (size_t i = 0; i < COUNT(bad); i++) {
        snprintf(line, sizeof(line), "run --temperature=%s", bad[i]);
        refused(line, "a number from 0 to 100");
    }
}

static void a_choice_is_a_whole_word_of_the_list(void **state)
{
    (void)state;
    char copy[256];
    assert_string_equal(understood("run --dtype bf16", copy).dtype, "bf16");
    assert_string_equal(understood("run", copy).dtype, "auto");
    refused("run --dtype f64", "one of auto|f32|f16|bf16");
    refused("run --dtype f3", "one of auto|f32|f16|bf16");
    refused("run --dtype f32|f16", "one of auto|f32|f16|bf16");
    refused("make-model a b --dtype auto", "one of f32|f16|bf16");
}

static void flags_take_no_value(void **state)
{
    (void)state;
    char copy[256];
    assert_true(understood("run --sp", copy).sp);
    refused("run --sp=1", "takes no value");
    refused("run --tp", "needs N behind it");
}

static void a_wrong_spelling_gets_a_suggestion(void **state)
{
    (void)state;
    refused("run --temprature 1", "did you mean --temperature?");
    refused("run --top_p 1", "did you mean --top-p?");
    refused("rnu", "did you mean tandem run?");
    refused("pln x", "did you mean tandem plan?");
    refused("run --zzzzzzzz", "no option --zzzzzzzz (");
    refused("frobnicate", "no verb \"frobnicate\"");
    refused("run -z", "no option -z");
}

static void an_option_of_another_verb_is_named(void **state)
{
    (void)state;
    refused("plan --ranks 2", "--ranks is an option of tandem bench allreduce");
}

static void a_verb_of_two_words_needs_both(void **state)
{
    (void)state;
    refused("bench", "bench: of what? there is tandem bench allreduce");
    refused("bench foo", "no \"foo\"");
}

static void too_few_and_too_many_words_are_refused(void **state)
{
    (void)state;
    refused("make-model", "NAME FOLDER needed");
    refused("make-model a", "NAME FOLDER needed");
    refused("make-model a b c", "\"c\" is one argument too many");
    refused("run model What is", "quotes");
}

static void help_stops_all_other_checks(void **state)
{
    (void)state;
    char copy[256];
    assert_true(understood("make-model --help --nonsense", copy).help);
    assert_true(understood("run -h", copy).help);
    assert_int_equal(understood("", copy).verb, VERB_HELP);
    assert_int_equal(understood("--help", copy).verb, VERB_HELP);
    assert_int_equal(understood("--version", copy).verb, VERB_VERSION);
}

static void a_very_long_name_is_cut_and_not_overrun(void **state)
{
    (void)state;
    char line[256] = "run --";
    memset(line + 6, 'a', 200);
    line[206] = 0;
    refused(line, "no option --aaaa");
}

/* Nothing that exists here is said to be elsewhere's, and what is named exists. */
static void options_of_elsewhere_are_told_by_their_name_here(void **state)
{
    (void)state;
    refused("serve --tensor-parallel-size 2", "--tp here");
    refused("serve --api-key=x", "--api-key-file");
    refused("serve --enable-prefix-caching", "always on");
    for (int i = 0; i < opt_elsewhere_count; i++) {
        const char *say = opt_elsewhere[i].say, *at = strstr(say, "--");
        for (; at; at = strstr(at + 2, "--")) {
            size_t n = strcspn(at + 2, " ,;");
            bool known = false;
            for (int k = 0; k < opt_row_count; k++)
                known |= strlen(opt_rows[k].name) == n && !strncmp(opt_rows[k].name, at + 2, n);
            if (!known)
                fail_msg("%s: %s", opt_elsewhere[i].name, say);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_default_of_the_table_is_valid),
        cmocka_unit_test(every_row_has_help_and_a_verb_and_a_name_of_its_own),
        cmocka_unit_test(values_may_stand_behind_a_blank_or_an_equals_sign),
        cmocka_unit_test(what_was_given_is_told_from_what_is_default),
        cmocka_unit_test(words_behind_two_dashes_are_no_options),
        cmocka_unit_test(a_repeatable_option_keeps_its_order),
        cmocka_unit_test(the_seventeenth_of_a_list_is_refused),
        cmocka_unit_test(sizes_have_units),
        cmocka_unit_test(numbers_are_whole_in_range_and_complete),
        cmocka_unit_test(reals_are_finite_decimal_numbers),
        cmocka_unit_test(a_choice_is_a_whole_word_of_the_list),
        cmocka_unit_test(flags_take_no_value),
        cmocka_unit_test(a_wrong_spelling_gets_a_suggestion),
        cmocka_unit_test(an_option_of_another_verb_is_named),
        cmocka_unit_test(a_verb_of_two_words_needs_both),
        cmocka_unit_test(too_few_and_too_many_words_are_refused),
        cmocka_unit_test(help_stops_all_other_checks),
        cmocka_unit_test(a_very_long_name_is_cut_and_not_overrun),
        cmocka_unit_test(options_of_elsewhere_are_told_by_their_name_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
