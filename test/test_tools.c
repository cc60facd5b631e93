/* test_tools.c - tool calls and reasoning in a model's text, however the text arrives. */
#include "base/json.h"
#include "text/think.h"
#include "text/tools.h"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

/* Parts as one line: text as it is, a call as {name|arguments}. Marks are written once a call. */
struct line {
    char s[4096];
    size_t n;
    enum tools_part last;
};

static void add(struct line *l, const char *s, size_t n)
{
    assert_true(l->n + n < sizeof(l->s));
    memcpy(l->s + l->n, s, n);
    l->s[l->n += n] = 0;
}

static void close_call(struct line *l, enum tools_part next)
{
    if (l->last != TOOLS_TEXT && next != TOOLS_ARGUMENTS)
        add(l, "}", 1);
    l->last = next;
}

static void put_tools(void *arg, enum tools_part part, const char *s, size_t n)
{
    struct line *l = arg;
    assert_true(n > 0);
    close_call(l, part);
    if (part == TOOLS_BEGIN)
        add(l, "{", 1);
    add(l, s, n);
    if (part == TOOLS_BEGIN)
        add(l, "|", 1);
}

/* The text in pieces [0, cut), then of `piece` bytes. */
static struct line parse(enum tools_style style, const char *text, size_t cut, size_t piece)
{
    struct line l = {.last = TOOLS_TEXT};
    struct tools_sink sink = {&l, put_tools};
    struct tools *t = tools_new(style);
    size_t n = strlen(text);
    tools_feed(t, text, cut, sink);
    for (size_t i = cut; i < n; i += piece)
        tools_feed(t, text + i, n - i < piece ? n - i : piece, sink);
    tools_end(t, sink);
    close_call(&l, TOOLS_TEXT);
    tools_free(t);
    return l;
}

static const struct {
    enum tools_style style;
    const char *text, *line;
} calls[] = {
    {TOOLS_HERMES, "Hello.", "Hello."},
    {TOOLS_HERMES, "", ""},
    {TOOLS_HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>",
     "{f|{\"a\": 1}}"},
    {TOOLS_HERMES, "So:\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", "So:{f|{}}"},
    {TOOLS_HERMES,
     "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}]\\\"{\"}}\n</tool_call>\n"
     "<tool_call>\n{\"name\": \"g\", \"arguments\": {\"b\": [1, {\"c\": 2}]}}\n</tool_call>\n",
     "{f|{\"a\": \"}]\\\"{\"}}{g|{\"b\": [1, {\"c\": 2}]}}"},
    {TOOLS_HERMES, "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call> bye",
     "{f|{\"a\": 1}} bye"},
    {TOOLS_HERMES, "<tool_call>{\"name\": \"f\"}</tool_call>", "{f|{}}"},
    {TOOLS_HERMES, "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
     "{f|{\"a\": 1}}"},
    {TOOLS_HERMES, "<tool_call>{\"name\": \"f\", \"arguments\": null, \"id\": 7}</tool_call>",
     "{f|{}}"},
    {TOOLS_HERMES, "<tool_call>{\"name\": \"f\", \"arguments\": {}, \"id\": 7}</tool_call>.",
     "{f|{}}."},
    {TOOLS_HERMES, "<tool_call>{\"name\": \"f\\u00e9\", \"arguments\": {}}", "{f\xC3\xA9|{}}"},
    /* broken calls stay text, every byte of them */
    {TOOLS_HERMES, "a < b, <tool, <tool_call", "a < b, <tool, <tool_call"},
    {TOOLS_HERMES, "x <tool_call>nonsense</tool_call> y", "x <tool_call>nonsense</tool_call> y"},
    {TOOLS_HERMES, "<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>",
     "<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>"},
    {TOOLS_HERMES, "<tool_call>{\"name\": \"f\", \"argu", "<tool_call>{\"name\": \"f\", \"argu"},
    {TOOLS_HERMES, "<tool_call>{\"city\": \"Rome\"}</tool_call>",
     "<tool_call>{\"city\": \"Rome\"}</tool_call>"},
    {TOOLS_HERMES, "<tool_call><tool_call>{\"name\": \"f\", \"arguments\": {}}",
     "<tool_call>{f|{}}"},
    /* cut off in its arguments: what came is kept */
    {TOOLS_HERMES, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"long",
     "{f|{\"a\": \"long}"},
    {TOOLS_LLAMA, "{\"name\": \"f\", \"parameters\": {\"a\": \"b\"}}", "{f|{\"a\": \"b\"}}"},
    {TOOLS_LLAMA, "\n {\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}", "{f|{}}"},
    {TOOLS_LLAMA,
     "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", "
     "\"parameters\": {\"x\": 2}}",
     "{f|{}}{g|{\"x\": 2}}"},
    {TOOLS_LLAMA, "{\"answer\": 42, \"name\": \"f\"}", "{\"answer\": 42, \"name\": \"f\"}"},
    {TOOLS_LLAMA, "Use {\"name\": \"f\", \"parameters\": {}} for it.",
     "Use {\"name\": \"f\", \"parameters\": {}} for it."},
    {TOOLS_LLAMA, "<|python_tag|>print(1)", "<|python_tag|>print(1)"},
    {TOOLS_MISTRAL,
     "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", "
     "\"arguments\": {}, \"id\": \"123456789\"}]",
     "{f|{\"a\": 1}}{g|{}}"},
    {TOOLS_MISTRAL, "Well [TOOL_CALLS] [ {\"name\": \"f\", \"arguments\": {}} ] done",
     "Well{f|{}} done"},
    {TOOLS_MISTRAL, "[TOOL_CALLS] [not a call]", "[TOOL_CALLS] [not a call]"},
    {TOOLS_MISTRAL, "see [1] and [TOOL", "see [1] and [TOOL"},
    {TOOLS_ARGS, "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g[CALL_ID]123456789[ARGS]{}",
     "{f|{\"a\": 1}}{g|{}}"},
    {TOOLS_ARGS, "[TOOL_CALLS]two words {}", "[TOOL_CALLS]two words {}"},
    {TOOLS_NONE, "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
     "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"},
};

static void calls_are_found_and_all_else_is_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(calls); i++) {
        struct line l = parse(calls[i].style, calls[i].text, 0, 1 << 20);
        assert_string_equal(l.s, calls[i].line);
    }
}

static void a_stream_cut_anywhere_gives_the_same_calls(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(calls); i++)
        for (size_t cut = 0; cut <= strlen(calls[i].text); cut++)
            for (size_t piece = 1; piece < 4; piece++) {
                struct line l = parse(calls[i].style, calls[i].text, cut, piece);
                assert_string_equal(l.s, calls[i].line);
            }
}

static void arguments_stream_as_they_arrive(void **state)
{
    (void)state;
    static const char begin[] = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"on";
    struct line l = {.last = TOOLS_TEXT};
    struct tools *t = tools_new(TOOLS_HERMES);
    tools_feed(t, begin, strlen(begin), (struct tools_sink){&l, put_tools});
    assert_string_equal(l.s, "{f|{\"a\": \"on");
    tools_feed(t, "ce", 2, (struct tools_sink){&l, put_tools});
    assert_string_equal(l.s, "{f|{\"a\": \"once");
    assert_int_equal(tools_calls(t), 1);
    tools_free(t);
}

static void text_without_calls_is_not_held_back(void **state)
{
    (void)state;
    struct line l = {.last = TOOLS_TEXT};
    struct tools *t = tools_new(TOOLS_HERMES);
    tools_feed(t, "one two", 7, (struct tools_sink){&l, put_tools});
    assert_string_equal(l.s, "one two");
    tools_feed(t, " <to", 4, (struct tools_sink){&l, put_tools});
    assert_string_equal(l.s, "one two");
    tools_feed(t, "ast>", 4, (struct tools_sink){&l, put_tools});
    assert_string_equal(l.s, "one two <toast>");
    tools_free(t);
}

/* A JSON answer of another kind is text at once, not only when its object is complete. */
static void an_object_that_is_no_call_is_not_held_back(void **state)
{
    (void)state;
    struct line l = {.last = TOOLS_TEXT};
    struct tools *t = tools_new(TOOLS_LLAMA);
    tools_feed(t, "{\"answer\": [1", 13, (struct tools_sink){&l, put_tools});
    assert_string_equal(l.s, "{\"answer\": [1");
    tools_free(t);
}

/* ------------------------------------------------------------------------------- styles */

static char *template_text(const char *name)
{
    const char *shared = getenv("TANDEM_SHARED");
    char path[512], *text;
    struct err e;
    size_t n;
    snprintf(path, sizeof(path), "%s/data/chat_templates/templates/%s.jinja",
             shared ? shared : "../shared", name);
    if (access(path, R_OK)) {
        print_message("skipped: no shared test data at %s\n", path);
        skip();
    }
    assert_int_equal(file_read(path, 1 << 20, &text, &n, &e), 0);
    return text;
}

static void the_template_names_the_style(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum tools_style style;
        bool thinks;
    } known[] = {
        {"Qwen-Qwen2.5-7B-Instruct", TOOLS_HERMES, false},
        {"Qwen-Qwen3-0.6B", TOOLS_HERMES, true},
        {"Qwen-QwQ-32B", TOOLS_HERMES, true},
        {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", TOOLS_HERMES, false},
        {"meta-llama-Llama-3.1-8B-Instruct", TOOLS_LLAMA, false},
        {"meta-llama-Llama-3.2-3B-Instruct", TOOLS_LLAMA, false},
        {"meta-llama-Llama-3.3-70B-Instruct", TOOLS_LLAMA, false},
        {"mistralai-Mistral-Nemo-Instruct-2407", TOOLS_MISTRAL, false},
        {"Mistral-Small-3.2-24B-Instruct-2506", TOOLS_ARGS, false},
        {"mistralai-Ministral-3-14B-Reasoning-2512", TOOLS_ARGS, true},
        {"Qwen3-Coder", TOOLS_NONE, false},
        {"GLM-4.6", TOOLS_NONE, true},
        {"google-gemma-2-2b-it", TOOLS_NONE, false},
        {"microsoft-Phi-3.5-mini-instruct", TOOLS_NONE, false},
        {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", TOOLS_NONE, true},
    };
    for (size_t i = 0; i < COUNT(known); i++) {
        char *text = template_text(known[i].name);
        assert_string_equal(tools_name(tools_style(text)), tools_name(known[i].style));
        assert_int_equal(think_words(text).open != NULL, known[i].thinks);
        free(text);
    }
}

/* ------------------------------------------------------------------------------- reasoning */

struct split {
    struct line part[2];
};

static void put_think(void *arg, bool reasoning, const char *s, size_t n)
{
    struct split *x = arg;
    assert_true(n > 0);
    add(&x->part[reasoning], s, n);
}

static struct split split(bool opened, const char *text, size_t cut, size_t piece)
{
    struct split x = {0};
    struct think_sink sink = {&x, put_think};
    struct think t;
    size_t n = strlen(text);
    think_begin(&t, (struct think_words){"<think>", "</think>"}, opened);
    think_feed(&t, text, cut, sink);
    for (size_t i = cut; i < n; i += piece)
        think_feed(&t, text + i, n - i < piece ? n - i : piece, sink);
    think_end(&t, sink);
    think_free(&t);
    return x;
}

static void reasoning_is_split_off_however_it_arrives(void **state)
{
    (void)state;
    static const struct {
        bool opened;
        const char *text, *reasoning, *answer;
    } cases[] = {
        {false, "<think>\nA b.\n</think>\n\nYes.", "A b.", "Yes."},
        {true, "A b.\n\nC.\n</think>\nYes.\n", "A b.\n\nC.", "Yes.\n"},
        {true, "\n</think>\n\nYes.", "", "Yes."},
        {false, "\n<think></think>Yes.", "", "Yes."},
        {false, " Yes. <think>no</think>", "", " Yes. <think>no</think>"},
        {false, "<thin", "", "<thin"},
        {false, "<think>cut off </th", "cut off </th", ""},
        {true, "a </thin> b", "a </thin> b", ""},
        {true, "", "", ""},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        for (size_t cut = 0; cut <= strlen(cases[i].text); cut++)
            for (size_t piece = 1; piece < 4; piece++) {
                struct split x = split(cases[i].opened, cases[i].text, cut, piece);
                assert_string_equal(x.part[1].s, cases[i].reasoning);
                assert_string_equal(x.part[0].s, cases[i].answer);
            }
}

static void a_prompt_may_have_opened_or_closed_the_reasoning(void **state)
{
    (void)state;
    struct think_words w = {"<think>", "</think>"};
    assert_true(think_opened(w, "<|im_start|>assistant\n<think>\n"));
    assert_false(think_opened(w, "say <think> to him<|im_end|>\n"));
    assert_true(think_closed(w, "<think>\n\n</think>\n\n"));
    assert_false(think_opened(w, "<think>\n\n</think>\n\n"));
    assert_false(think_opened((struct think_words){0}, "<think>"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_are_found_and_all_else_is_text),
        cmocka_unit_test(a_stream_cut_anywhere_gives_the_same_calls),
        cmocka_unit_test(arguments_stream_as_they_arrive),
        cmocka_unit_test(text_without_calls_is_not_held_back),
        cmocka_unit_test(an_object_that_is_no_call_is_not_held_back),
        cmocka_unit_test(the_template_names_the_style),
        cmocka_unit_test(reasoning_is_split_off_however_it_arrives),
        cmocka_unit_test(a_prompt_may_have_opened_or_closed_the_reasoning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
