/* test_api.c - requests of the OpenAI API: what they become, and how wrong ones are refused. */
#include "serve_help.h"

#include "base/json.h"
#include "serve/api_read.h"

#include <float.h>
#include <math.h>

#define USER "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]"
#define CHAT(fields) "{" USER ", " fields "}"
#define TEXT(fields) "{\"prompt\": \"Hi\", " fields "}"
#define TOOL                                                                                       \
    "{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": "         \
    "\"object\"}}}"

/* ------------------------------------------------------------------------------- refusals */

struct refusal {
    enum api_kind kind;
    const char *body, *param, *words;
};

static const struct refusal refusals[] = {
    {API_CHAT, "", "", "not valid JSON"},
    {API_CHAT, "[]", "", "JSON object"},
    {API_CHAT, "{\"messages\": ", "", "line 1"},
    {API_CHAT, CHAT("\"n\": 1, \"n\": 2"), "", "duplicate"},
    {API_CHAT, CHAT("\"temperature\": NaN"), "", "not valid JSON"},
    {API_CHAT, CHAT("\"temperature\": 1e999"), "", "not valid JSON"},
    {API_CHAT, CHAT("\"seed\": 123456789012345678901234567890"), "", "not valid JSON"},
    {API_CHAT, "{\"messages\": [{\"role\": \"user\", \"content\": \"\xFF\"}]}", "", "byte 0xff"},
    {API_CHAT, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\\u0000b\"}]}", "", "0000"},
    {API_CHAT, CHAT("\"temperature\": 2.5"), "temperature", "temperature: 2.5 is outside 0 to 2"},
    {API_CHAT, CHAT("\"temperature\": \"hot\""), "temperature", "must be a number, not a text"},
    {API_CHAT, CHAT("\"temperature\": true"), "temperature", "not true"},
    {API_CHAT, CHAT("\"top_p\": -0.1"), "top_p", "outside 0 to 1"},
    {API_CHAT, CHAT("\"top_k\": -2"), "top_k", "outside"},
    {API_CHAT, CHAT("\"presence_penalty\": 3"), "presence_penalty", "-2 to 2"},
    {API_CHAT, CHAT("\"n\": 1000000"), "n", "n: 1000000 is outside 1 to 128"},
    {API_CHAT, CHAT("\"n\": 0"), "n", "outside 1 to 128"},
    {API_CHAT, CHAT("\"n\": 1.5"), "n", "whole number"},
    {API_CHAT, CHAT("\"n\": 1e300"), "n", "outside"},
    {API_CHAT, CHAT("\"max_tokens\": -1"), "max_tokens", "outside"},
    {API_CHAT, CHAT("\"max_tokens\": 9999999999"), "max_tokens", "9999999999"},
    {API_CHAT, CHAT("\"max_tokens\": 4, \"min_tokens\": 5"), "min_tokens", "above max_tokens (4)"},
    {API_CHAT, CHAT("\"seed\": 1.5"), "seed", "whole number"},
    {API_CHAT, CHAT("\"stop\": 7"), "stop", "text or a list of texts"},
    {API_CHAT, CHAT("\"stop\": [\"a\", \"\"]"), "stop", "stop[1]"},
    {API_CHAT,
     CHAT("\"stop\": [\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\",\"12\","
          "\"13\",\"14\",\"15\",\"16\",\"17\"]"),
     "stop", "17 entries; 0 to 16"},
    {API_CHAT, CHAT("\"logit_bias\": {\"x\": 1}"), "logit_bias", "\"x\" is no token id"},
    {API_CHAT, CHAT("\"logit_bias\": {\"640\": 1}"), "logit_bias", "0 to 639"},
    {API_CHAT, CHAT("\"logit_bias\": {\"99999999999999999999\": 1}"), "logit_bias", "no token id"},
    {API_CHAT, CHAT("\"logit_bias\": {\"5\": 101}"), "logit_bias", "token 5"},
    {API_CHAT, CHAT("\"logit_bias\": [1]"), "logit_bias", "an object"},
    {API_CHAT, CHAT("\"stop_token_ids\": [1, 640]"), "stop_token_ids", "stop_token_ids[1]"},
    {API_CHAT, CHAT("\"allowed_token_ids\": []"), "allowed_token_ids", "0 entries"},
    {API_CHAT, CHAT("\"stream\": \"yes\""), "stream", "true or false"},
    {API_CHAT, CHAT("\"stream_options\": {\"include_usage\": true}"), "stream_options", "stream"},
    {API_CHAT, CHAT("\"stream\": true, \"stream_options\": {\"include_usage\": 1}"),
     "stream_options.include_usage", "true or false"},
    {API_CHAT, CHAT("\"top_logprobs\": 2"), "top_logprobs", "needs logprobs"},
    {API_CHAT, CHAT("\"logprobs\": true, \"top_logprobs\": 21"), "top_logprobs", "0 to 20"},
    {API_CHAT, CHAT("\"logprobs\": 3"), "logprobs", "true or false"},
    {API_CHAT, CHAT("\"stream\": true, \"prompt_logprobs\": 1"), "prompt_logprobs", "streamed"},
    {API_CHAT, CHAT("\"model\": \"gpt-9\""), "model", "\"gpt-9\" is not served here; \"demo\" is"},
    {API_CHAT, CHAT("\"reasoning_effort\": \"huge\""), "reasoning_effort", "none, minimal"},
    {API_CHAT, CHAT("\"truncate_prompt_tokens\": 0"), "truncate_prompt_tokens", "nothing"},
    {API_CHAT, CHAT("\"continue_final_message\": true, \"add_generation_prompt\": true"),
     "continue_final_message", "exclude"},
    /* messages */
    {API_CHAT, "{}", "messages", "missing"},
    {API_CHAT, "{\"messages\": null}", "messages", "missing"},
    {API_CHAT, "{\"messages\": \"Hi\"}", "messages", "a list of messages, not a text"},
    {API_CHAT, "{\"messages\": []}", "messages", "0 entries"},
    {API_CHAT, "{\"messages\": [7]}", "messages[0]", "object"},
    {API_CHAT, "{\"messages\": [{\"content\": \"Hi\"}]}", "messages[0].role", "must be system"},
    {API_CHAT, "{\"messages\": [{\"role\": \"wizard\", \"content\": \"Hi\"}]}", "messages[0].role",
     "must be system"},
    {API_CHAT, "{\"messages\": [{\"role\": \"user\", \"content\": 7}]}", "messages[0].content",
     "text or a list of parts"},
    {API_CHAT,
     "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, "
     "{\"type\": \"image_url\", \"image_url\": {\"url\": \"x\"}}]}]}",
     "messages[0].content[1]", "\"image_url\""},
    {API_CHAT, "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]}",
     "messages[0].content[0]", "text must be a text"},
    {API_CHAT, "{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"id\": \"x\"}]}]}",
     "messages[0].tool_calls[0]", "function with a name"},
    /* tools and formats */
    {API_CHAT, CHAT("\"tools\": [{\"type\": \"web\"}]"), "tools[0].type", "\"web\""},
    {API_CHAT, CHAT("\"tools\": [{\"type\": \"function\", \"function\": {}}]"),
     "tools[0].function.name", "1 to 128 bytes"},
    {API_CHAT, CHAT("\"tools\": [{\"function\": {\"name\": \"a\\\"b\"}}]"),
     "tools[0].function.name", "without quotes"},
    {API_CHAT, CHAT("\"tools\": [{\"function\": {\"name\": \"a\", \"parameters\": 3}}]"),
     "tools[0].function.parameters", "schema"},
    {API_CHAT, CHAT("\"tool_choice\": \"required\""), "tool_choice", "no tools"},
    {API_CHAT, CHAT("\"tool_choice\": \"maybe\""), "tool_choice", "must be"},
    {API_CHAT,
     CHAT("\"tools\": [" TOOL "], \"tool_choice\": {\"type\": \"function\", \"function\": "
          "{\"name\": \"g\"}}"),
     "tool_choice", "no tool \"g\""},
    {API_CHAT, CHAT("\"response_format\": {\"type\": \"xml\"}"), "response_format.type", "must be"},
    {API_CHAT, CHAT("\"response_format\": {\"type\": \"json_schema\"}"),
     "response_format.json_schema", "missing"},
    {API_CHAT,
     CHAT("\"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"schema\": 3}}"),
     "response_format", "must be an object"},
    {API_CHAT, CHAT("\"guided_json\": {}, \"guided_regex\": \"a\""), "guided_regex",
     "guided_json and guided_regex exclude each other"},
    {API_CHAT, CHAT("\"structured_outputs\": {}"), "structured_outputs", "one of json"},
    {API_CHAT, CHAT("\"structured_outputs\": {\"regex\": \"a\", \"choice\": [\"a\"]}"),
     "structured_outputs", "one of json"},
    {API_CHAT, CHAT("\"guided_choice\": []"), "guided_choice", "0 entries"},
    /* completions and the small paths */
    {API_COMPLETIONS, "{}", "prompt", "missing"},
    {API_COMPLETIONS, "{\"prompt\": {}}", "prompt", "must be a text"},
    {API_COMPLETIONS, "{\"prompt\": []}", "prompt", "0 entries"},
    {API_COMPLETIONS, "{\"prompt\": \"\"}", "prompt", "empty"},
    {API_COMPLETIONS, "{\"prompt\": [[]]}", "prompt", "empty"},
    {API_COMPLETIONS, "{\"prompt\": [1, -2]}", "prompt", "prompt[1]"},
    {API_COMPLETIONS, "{\"prompt\": [[1], [2, \"x\"]]}", "prompt", "prompt[1]"},
    {API_COMPLETIONS, "{\"prompt\": [\"a\", \"b\"], \"n\": 128}", "n", "2 prompts with 128"},
    {API_COMPLETIONS, TEXT("\"suffix\": \"x\""), "suffix", "not supported"},
    {API_COMPLETIONS, TEXT("\"logprobs\": true"), "logprobs", "whole number"},
    {API_COMPLETIONS, TEXT("\"n\": 3, \"best_of\": 2"), "best_of", "at least n (3)"},
    {API_COMPLETIONS, TEXT("\"best_of\": 2, \"stream\": true"), "best_of", "streamed"},
    {API_TOKENIZE, "{}", "prompt", "One of prompt and messages"},
    {API_TOKENIZE, "{\"prompt\": [\"a\", \"b\"]}", "prompt", "one text"},
    {API_DETOKENIZE, "{}", "tokens", "missing"},
    {API_DETOKENIZE, "{\"tokens\": [\"a\"]}", "tokens", "tokens[0]"},
};

static void wrong_requests_are_refused_by_the_name_of_the_field(void **state)
{
    struct served *s = *state;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        const struct refusal *x = &refusals[i];
        struct request r;
        struct api_error e = {0};
        int rc = request_parse(x->kind, x->body, strlen(x->body), &s->model, &r, &e);
        rc = rc ? rc : request_prompts(&r, &s->model, &e);
        request_free(&r);
        if (rc != -EINVAL || !strstr(e.message, x->words) || strcmp(e.param, x->param))
            fail_msg("%s: %d, param \"%s\": %s", x->body, rc, e.param, e.message);
        assert_int_equal(e.status, strcmp(x->param, "model") ? 400 : 404);
    }
}

static void deep_nesting_is_refused_before_it_is_parsed(void **state)
{
    struct served *s = *state;
    enum { DEEP = 100000 };
    char *body = malloc(DEEP + 16);
    struct request r;
    struct api_error e;
    strcpy(body, "{\"x\": ");
    memset(body + 6, '[', DEEP);
    assert_int_equal(request_parse(API_CHAT, body, DEEP + 6, &s->model, &r, &e), -EINVAL);
    assert_non_null(strstr(e.message, "nests 100001 brackets deep; at most 100"));
    request_free(&r);
    free(body);
}

static void a_prompt_longer_than_the_context_is_refused_with_both_numbers(void **state)
{
    struct served *s = *state;
    char body[2048] = "{\"prompt\": [", *at = body + strlen(body);
    struct request r;
    struct api_error e;
    for (int i = 0; i < 300; i++)
        at += sprintf(at, "%s7", i ? "," : "");
    strcpy(at, "]}");
    assert_int_equal(request_parse(API_COMPLETIONS, body, strlen(body), &s->model, &r, &e), 0);
    assert_int_equal(request_prompts(&r, &s->model, &e), -EINVAL);
    assert_non_null(strstr(e.message, "300 tokens, but the context holds 256"));
    assert_string_equal(e.code, "context_length_exceeded");
    request_free(&r);
    strcpy(at, "], \"truncate_prompt_tokens\": -1, \"max_tokens\": 6}");
    r = asked(s, API_COMPLETIONS, body);
    assert_int_equal(r.prompt->n, 250);
    request_free(&r);
}

/* ------------------------------------------------------------------------------- what they become
 */

static void absent_and_null_fields_take_the_defaults(void **state)
{
    struct served *s = *state;
    static const char *const bodies[] = {
        "{" USER "}", CHAT("\"temperature\": null, \"n\": null, \"stop\": null, \"tools\": null, "
                           "\"stream_options\": null, \"whatever\": {\"is\": [\"unknown\"]}")};
    for (size_t i = 0; i < COUNT(bodies); i++) {
        struct request r = asked(s, API_CHAT, bodies[i]);
        struct engine_request x;
        request_engine(&r, &s->model, 0, &x);
        assert_true(x.sampling.temperature == 1 && x.sampling.top_p == 1);
        assert_int_equal(x.sampling.top_k, 0);
        assert_int_equal(x.max_new, s->model.ctx - x.n_prompt);
        assert_int_equal(x.n_top, -1);
        assert_int_equal(x.n_prompt_top, -1);
        assert_int_equal(request_choices(&r), 1);
        assert_int_equal(r.constraint.kind, CONSTRAINT_NONE);
        assert_true(r.skip_special && !r.stream && !r.ignore_eos);
        request_free(&r);
    }
}

static void every_field_reaches_the_engine(void **state)
{
    struct served *s = *state;
    struct request r = asked(
        s, API_CHAT,
        CHAT("\"temperature\": 0.5, \"top_p\": 0, \"top_k\": -1, \"min_p\": 0.1, "
             "\"frequency_penalty\": -1, \"presence_penalty\": 2, \"repetition_penalty\": 1.5, "
             "\"seed\": -1, \"n\": 2, \"max_tokens\": 3, \"max_completion_tokens\": 5.0, "
             "\"min_tokens\": 2, \"ignore_eos\": true, \"stop_token_ids\": [4, 5], "
             "\"logit_bias\": {\"7\": -100, \"8\": 0.5}, \"allowed_token_ids\": [1, 2, 3], "
             "\"bad_words\": [\"cat\"], \"logprobs\": true, \"top_logprobs\": 4, "
             "\"prompt_logprobs\": 1, \"priority\": -3, \"model\": \"demo-again\""));
    struct engine_request x;
    request_engine(&r, &s->model, 1, &x);
    assert_true(x.sampling.temperature == 0.5f && x.sampling.top_p == FLT_MIN);
    assert_int_equal(x.sampling.top_k, 0);
    assert_true(x.sampling.min_p == 0.1f && x.sampling.frequency == -1);
    assert_true(x.sampling.presence == 2 && x.sampling.repetition == 1.5f);
    assert_true(x.sampling.seed == 0); /* -1 of choice 0, and one on */
    assert_int_equal(x.max_new, 5);
    assert_int_equal(x.min_new, 2);
    assert_true(x.ignore_eos);
    assert_int_equal(x.n_stop, 2);
    assert_int_equal(x.stop[1], 5);
    assert_int_equal(x.n_bias, 2);
    assert_int_equal(x.bias[0].token, 7);
    assert_true(x.bias[0].value == -100 && x.bias[1].value == 0.5f);
    assert_int_equal(x.n_only, 3);
    assert_int_equal(x.n_bad, 2); /* with a blank before it and without */
    assert_true(x.bad[0].n >= 1 && x.bad[1].n >= 1);
    assert_int_equal(x.n_top, 4);
    assert_int_equal(x.n_prompt_top, 1);
    assert_int_equal(x.priority, -3);
    assert_int_equal(x.n_eos, 1);
    assert_int_equal(request_choices(&r), 2);
    struct err e;
    assert_int_equal(sampling_check(&x.sampling, &e), 0);
    request_free(&r);
}

static void a_seed_is_given_only_to_requests_without_one(void **state)
{
    struct served *s = *state;
    struct request r = asked(s, API_CHAT, CHAT("\"n\": 2"));
    struct engine_request x;
    request_seed(&r, 40);
    request_engine(&r, &s->model, 1, &x);
    assert_true(x.sampling.seed == 41);
    request_free(&r);
    r = asked(s, API_CHAT, CHAT("\"seed\": 7"));
    request_seed(&r, 40);
    request_engine(&r, &s->model, 0, &x);
    assert_true(x.sampling.seed == 7);
    request_free(&r);
}

static char *prompt_of_request(struct served *s, enum api_kind kind, const char *body)
{
    struct request r = asked(s, kind, body);
    char *text = tok_decode(s->tok, r.prompt->tok, (size_t)r.prompt->n, false);
    request_free(&r);
    return text;
}

static void messages_become_the_templates_prompt(void **state)
{
    struct served *s = *state;
    static const char *const cases[][2] = {
        {"{" USER "}", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"},
        {"{\"messages\": [{\"role\": \"developer\", \"content\": \"Be.\"}, {\"role\": \"user\", "
         "\"content\": [{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"text\", \"text\": "
         "\"b\"}]}]}",
         "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\na\nb<|im_end|>\n"
         "<|im_start|>assistant\n"},
        {CHAT("\"add_generation_prompt\": false"), "<|im_start|>user\nHi<|im_end|>\n"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
         "\"content\": \"Hi, I \"}], \"continue_final_message\": true}",
         "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHi, I "},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
         "\"content\": null}]}",
         "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
         "<|im_start|>assistant\n"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *text = prompt_of_request(s, API_CHAT, cases[i][0]);
        assert_string_equal(text, cases[i][1]);
        free(text);
    }
}

static void arguments_of_earlier_calls_are_given_to_templates_as_objects(void **state)
{
    struct served *s = *state;
    static const char body[] =
        "{\"messages\": [{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": "
        "\"1\", \"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": \"{\\\"a\\\""
        ": 1}\"}}, {\"function\": {\"name\": \"g\", \"arguments\": \"broken {\"}}]}]}";
    struct request r;
    struct api_error e;
    assert_int_equal(request_parse(API_CHAT, body, strlen(body), &s->model, &r, &e), 0);
    const char *text = api_dump(&r, r.messages);
    assert_non_null(strstr(text, "\"arguments\": {\"a\": 1}"));
    assert_non_null(strstr(text, "\"arguments\": \"broken {\""));
    assert_non_null(strstr(text, "\"content\": \"\""));
    request_free(&r);
}

static void prompts_come_as_text_texts_tokens_and_lists_of_tokens(void **state)
{
    struct served *s = *state;
    static const struct {
        const char *body;
        int prompts, n0;
    } cases[] = {{"{\"prompt\": [5, 6, 7]}", 1, 3},
                 {"{\"prompt\": [[5, 6], [7]]}", 2, 2},
                 {"{\"prompt\": [5, 6, 7], \"truncate_prompt_tokens\": 2}", 1, 2},
                 {"{\"prompt\": \"<|im_end|>\"}", 1, 1},
                 {"{\"prompt\": [\"<|im_end|>\", \"a\", \"b\"], \"n\": 2}", 3, 1}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct request r = asked(s, API_COMPLETIONS, cases[i].body);
        struct engine_request x;
        assert_int_equal(r.n_prompts, cases[i].prompts);
        assert_int_equal(r.prompt[0].n, cases[i].n0);
        request_engine(&r, &s->model, request_choices(&r) - 1, &x);
        assert_ptr_equal(x.prompt, r.prompt[r.n_prompts - 1].tok);
        assert_int_equal(x.max_new, 16); /* OpenAI's default on this path */
        request_free(&r);
    }
}

/* What lm-eval asks for: how likely the prompt is, and nothing drawn. */
static void echo_with_logprobs_asks_for_those_of_the_prompt(void **state)
{
    struct served *s = *state;
    struct request r =
        asked(s, API_COMPLETIONS, TEXT("\"echo\": true, \"logprobs\": 2, \"max_tokens\": 0"));
    struct engine_request x;
    request_engine(&r, &s->model, 0, &x);
    assert_int_equal(x.n_prompt_top, 2);
    assert_int_equal(x.max_new, 0);
    request_free(&r);
}

static void best_of_needs_logprobs_of_the_engine(void **state)
{
    struct served *s = *state;
    struct request r = asked(s, API_COMPLETIONS, TEXT("\"best_of\": 3"));
    struct engine_request x;
    request_engine(&r, &s->model, 2, &x);
    assert_int_equal(request_choices(&r), 3);
    assert_int_equal(x.n_top, 0);
    assert_false(r.logprobs);
    request_free(&r);
}

static void defaults_are_openais_or_the_models(void **state)
{
    (void)state;
    struct generation g = {.sample = true,
                           .temperature = 0.6f,
                           .top_p = 0.9f,
                           .top_k = 20,
                           .repetition_penalty = 1.1f};
    struct sampling openai = api_sampling(&g, true), model = api_sampling(&g, false);
    assert_true(openai.temperature == 1 && openai.top_p == 1 && openai.repetition == 1);
    assert_true(model.temperature == 0.6f && model.top_k == 20 && model.repetition == 1.1f);
    g.sample = false;
    assert_true(api_sampling(&g, false).temperature == 1);
    assert_true(api_sampling(NULL, false).temperature == 1);
}

/* ------------------------------------------------------------------------------- constraints */

static void formats_become_constraints(void **state)
{
    struct served *s = *state;
    static const struct {
        const char *body;
        enum constraint_kind kind;
        const char *text;
    } cases[] = {
        {CHAT("\"response_format\": {\"type\": \"text\"}"), CONSTRAINT_NONE, NULL},
        {CHAT("\"response_format\": {\"type\": \"json_object\"}"), CONSTRAINT_OBJECT, NULL},
        {CHAT("\"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"n\", "
              "\"strict\": true, \"schema\": {\"type\":\"object\"}}}"),
         CONSTRAINT_SCHEMA, "{\"type\": \"object\"}"},
        {CHAT("\"structured_outputs\": {\"json\": \"{\\\"type\\\": \\\"null\\\"}\"}"),
         CONSTRAINT_SCHEMA, "{\"type\": \"null\"}"},
        {CHAT("\"structured_outputs\": {\"json_object\": true}"), CONSTRAINT_OBJECT, NULL},
        {CHAT("\"structured_outputs\": {\"regex\": \"a+\"}"), CONSTRAINT_REGEX, "a+"},
        {CHAT("\"structured_outputs\": {\"grammar\": \"root ::= x\"}"), CONSTRAINT_GRAMMAR,
         "root ::= x"},
        {CHAT("\"guided_choice\": [\"yes\", \"no\"]"), CONSTRAINT_CHOICE, NULL},
        {CHAT("\"guided_regex\": \"b\""), CONSTRAINT_REGEX, "b"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct request r = asked(s, API_CHAT, cases[i].body);
        assert_int_equal(r.constraint.kind, cases[i].kind);
        if (cases[i].text)
            assert_string_equal(r.constraint.text, cases[i].text);
        if (r.constraint.kind == CONSTRAINT_CHOICE)
            assert_string_equal(r.constraint.choice.at[1], "no");
        assert_null(r.constraint.after);
        request_free(&r);
    }
}

#define TWO_TOOLS "\"tools\": [" TOOL ", {\"function\": {\"name\": \"g\"}}]"

static struct request with_style(struct served *s, const char *body, enum tools_style style)
{
    struct request r = asked(s, API_CHAT, body);
    r.style = style;
    r.constraint = (struct constraint){0};
    request_settle(&r, false);
    return r;
}

static void tools_become_tags_in_the_models_style(void **state)
{
    struct served *s = *state;
    static const struct {
        enum tools_style style;
        const char *trigger, *begin, *end;
    } cases[] = {
        {TOOLS_HERMES, "<tool_call>",
         "<tool_call>\n{\"name\": \"f\", \"arguments\": ", "}\n</tool_call>"},
        {TOOLS_LLAMA, "{\"name\": \"", "{\"name\": \"f\", \"parameters\": ", "}"},
        {TOOLS_MISTRAL, "[TOOL_CALLS]", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": ", "}]"},
        {TOOLS_ARGS, "[TOOL_CALLS]", "[TOOL_CALLS]f[ARGS]", ""},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct request r = with_style(s, CHAT(TWO_TOOLS), cases[i].style);
        const struct constraint *c = &r.constraint;
        assert_int_equal(c->kind, CONSTRAINT_TAGS);
        assert_int_equal(c->n_tags, 2);
        assert_string_equal(c->trigger, cases[i].trigger);
        assert_string_equal(c->tag[0].begin, cases[i].begin);
        assert_string_equal(c->tag[0].schema, "{\"type\": \"object\"}");
        assert_string_equal(c->tag[0].end, cases[i].end);
        assert_int_equal(strncmp(c->tag[1].begin, c->trigger, strlen(c->trigger)), 0);
        assert_false(c->at_once);
        request_free(&r);
    }
}

static void tool_choice_decides_which_tags_and_when(void **state)
{
    struct served *s = *state;
    struct request r = with_style(s, CHAT(TWO_TOOLS ", \"tool_choice\": \"none\""), TOOLS_HERMES);
    assert_int_equal(r.constraint.kind, CONSTRAINT_NONE);
    request_free(&r);
    r = with_style(s, CHAT(TWO_TOOLS ", \"tool_choice\": \"required\""), TOOLS_HERMES);
    assert_true(r.constraint.at_once && !r.constraint.once);
    assert_int_equal(r.constraint.n_tags, 2);
    request_free(&r);
    r = with_style(
        s,
        CHAT(TWO_TOOLS
             ", \"tool_choice\": {\"type\": \"function\", \"function\": {\"name\": \"g\"}}"),
        TOOLS_HERMES);
    assert_true(r.constraint.at_once && r.constraint.once);
    assert_int_equal(r.constraint.n_tags, 1);
    assert_non_null(strstr(r.constraint.tag[0].begin, "\"g\""));
    request_free(&r);
    r = with_style(s, CHAT(TWO_TOOLS ", \"parallel_tool_calls\": false"), TOOLS_HERMES);
    assert_true(r.constraint.once && !r.constraint.at_once);
    request_free(&r);
}

/* The demo's template knows no calls; one that must come is had by its constraint. */
static void a_required_call_can_be_had_of_a_model_without_a_style(void **state)
{
    struct served *s = *state;
    struct request r = asked(s, API_CHAT, CHAT(TWO_TOOLS));
    assert_int_equal(r.style, TOOLS_NONE);
    assert_int_equal(r.constraint.kind, CONSTRAINT_NONE);
    request_free(&r);
    r = asked(s, API_CHAT, CHAT(TWO_TOOLS ", \"tool_choice\": \"required\""));
    assert_int_equal(r.style, TOOLS_LLAMA);
    assert_true(r.constraint.kind == CONSTRAINT_TAGS && r.constraint.at_once);
    request_free(&r);
}

static void reasoning_comes_before_the_constraint(void **state)
{
    struct served *s = *state;
    struct request r = asked(s, API_CHAT, CHAT("\"guided_regex\": \"b\""));
    r.think = (struct think_words){"<think>", "</think>"};
    request_settle(&r, true);
    assert_string_equal(r.constraint.open, "<think>");
    assert_string_equal(r.constraint.after, "</think>");
    r.opened = true;
    request_settle(&r, true);
    assert_null(r.constraint.open);
    request_free(&r);
}

/* Qwen3's own template: built-in where Jinja2 is absent, so this runs everywhere. */
static void a_real_template_decides_style_and_reasoning(void **state)
{
    struct served other = *(struct served *)*state;
    const char *shared = getenv("TANDEM_SHARED");
    char path[512], *text;
    struct err e;
    size_t n;
    snprintf(path, sizeof(path), "%s/data/chat_templates/templates/Qwen-Qwen3-0.6B.jinja",
             shared ? shared : "../shared");
    if (file_read(path, 1 << 20, &text, &n, &e)) {
        print_message("skipped: no shared test data at %s\n", path);
        skip();
    }
    chat_new(text, "", "", &other.chat, &e);
    other.model.chat = other.chat;
    other.model.ctx = 4096;
    struct request r = asked(&other, API_CHAT, CHAT(TWO_TOOLS));
    assert_int_equal(r.style, TOOLS_HERMES);
    assert_int_equal(r.constraint.n_tags, 2);
    assert_string_equal(r.constraint.after, "</think>");
    assert_non_null(strstr(r.prompt->text, "<tools>"));
    request_free(&r);
    r = asked(&other, API_CHAT, CHAT(TWO_TOOLS ", \"tool_choice\": \"none\""));
    assert_null(strstr(r.prompt->text, "<tools>"));
    request_free(&r);
    r = asked(&other, API_CHAT, CHAT("\"reasoning_effort\": \"none\", \"guided_regex\": \"a\""));
    assert_null(r.constraint.after); /* the prompt has closed the reasoning */
    request_free(&r);
    r = asked(&other, API_CHAT,
              CHAT("\"chat_template_kwargs\": {\"enable_thinking\": false, "
                   "\"messages\": 3}"));
    assert_true(think_closed(r.think, r.prompt->text));
    request_free(&r);
    chat_free(other.chat);
    free(text);
}

/* ------------------------------------------------------------------------------- the page */

static void the_page_lists_the_fields_as_the_table_has_them(void **state)
{
    (void)state;
    char *table, *page;
    size_t n, n_page;
    struct err e;
    FILE *to = open_memstream(&table, &n);
    api_fields_markdown(to);
    fclose(to);
    assert_int_equal(file_read(SOURCE_DIR "/docs/API.md", 1 << 20, &page, &n_page, &e), 0);
    if (!strstr(page, table)) {
        FILE *f = fopen(BUILD_DIR "/API-fields.md", "w");
        fwrite(table, 1, n, f);
        fclose(f);
        fail_msg("docs/API.md differs from src/serve/api.def: copy " BUILD_DIR "/API-fields.md");
    }
    free(page);
    free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_requests_are_refused_by_the_name_of_the_field),
        cmocka_unit_test(deep_nesting_is_refused_before_it_is_parsed),
        cmocka_unit_test(a_prompt_longer_than_the_context_is_refused_with_both_numbers),
        cmocka_unit_test(absent_and_null_fields_take_the_defaults),
        cmocka_unit_test(every_field_reaches_the_engine),
        cmocka_unit_test(a_seed_is_given_only_to_requests_without_one),
        cmocka_unit_test(messages_become_the_templates_prompt),
        cmocka_unit_test(arguments_of_earlier_calls_are_given_to_templates_as_objects),
        cmocka_unit_test(prompts_come_as_text_texts_tokens_and_lists_of_tokens),
        cmocka_unit_test(echo_with_logprobs_asks_for_those_of_the_prompt),
        cmocka_unit_test(best_of_needs_logprobs_of_the_engine),
        cmocka_unit_test(defaults_are_openais_or_the_models),
        cmocka_unit_test(formats_become_constraints),
        cmocka_unit_test(tools_become_tags_in_the_models_style),
        cmocka_unit_test(tool_choice_decides_which_tags_and_when),
        cmocka_unit_test(a_required_call_can_be_had_of_a_model_without_a_style),
        cmocka_unit_test(reasoning_comes_before_the_constraint),
        cmocka_unit_test(a_real_template_decides_style_and_reasoning),
        cmocka_unit_test(the_page_lists_the_fields_as_the_table_has_them),
    };
    return cmocka_run_group_tests(tests, serve_up, serve_down);
}
