/* test_reply.c - events of the engine as replies: whole, streamed, cut anywhere. */
#include "serve_help.h"

#include "base/json.h"

#include <math.h>

#define USER "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]"
#define CHAT(fields) "{" USER ", " fields "}"
#define TEXT(fields) "{\"prompt\": \"Hi\", " fields "}"
#define TOOLS "\"tools\": [{\"function\": {\"name\": \"f\"}}, {\"function\": {\"name\": \"g\"}}]"

static json_t *whole_reply(const struct served *s, const struct request *r, const struct tokens *t,
                           enum finish why)
{
    struct out out = {0};
    struct reply *p = reply_new(r, &s->model, &head);
    feed(p, r, t, why, &out);
    assert_true(reply_done(p));
    assert_int_equal(out.n, 0);
    assert_int_equal(reply_end(p, &out), 200);
    json_t *o = parsed(out.at, out.n);
    out_free(&out);
    reply_free(p);
    return o;
}

/* ------------------------------------------------------------------------------- streams */

static void join_text(json_t *to, const char *key, const json_t *piece)
{
    const char *s = json_string_value(json_object_get(piece, key));
    const char *old = json_string_value(json_object_get(to, key));
    if (s && *s)
        json_object_set_new(to, key, json_sprintf("%s%s", old ? old : "", s));
}

static void join_calls(json_t *to, const json_t *pieces)
{
    size_t i;
    json_t *piece;
    json_array_foreach((json_t *)pieces, i, piece)
    {
        size_t index = (size_t)json_integer_value(json_object_get(piece, "index"));
        const json_t *function = json_object_get(piece, "function");
        if (index == json_array_size(to)) { /* the name comes once, and first */
            assert_true(json_is_string(json_object_get(piece, "id")));
            assert_true(json_is_string(json_object_get(function, "name")));
            json_array_append_new(to, json_deep_copy(function));
            continue;
        }
        assert_int_equal(index + 1, json_array_size(to));
        assert_null(json_object_get(function, "name"));
        join_text(json_array_get(to, index), "arguments", function);
    }
}

/* What a client makes of a stream: {"content", "reasoning_content", "text", "calls", "reason",
 * "logprobs"} of choice 0, and "usage". */
static json_t *joined(const struct out *out)
{
    json_t *to = json_pack("{s:[], s:[]}", "calls", "logprobs"), *one;
    const char *at = out->at, *end;
    size_t i;
    for (; (end = memmem(at, out->n - (size_t)(at - out->at), "\n\n", 2)); at = end + 2) {
        assert_memory_equal(at, "data: ", 6);
        if (!memcmp(at, "data: [DONE]", 12))
            break;
        json_t *o = parsed(at + 6, (size_t)(end - at) - 6);
        const json_t *choice = json_array_get(json_object_get(o, "choices"), 0);
        const json_t *delta = json_object_get(choice, "delta");
        const json_t *reason = json_object_get(choice, "finish_reason");
        const json_t *lp = json_object_get(choice, "logprobs");
        assert_null(json_object_get(to, "reason")); /* comes last */
        join_text(to, "content", delta);
        join_text(to, "reasoning_content", delta);
        join_text(to, "text", choice);
        join_calls(json_object_get(to, "calls"), json_object_get(delta, "tool_calls"));
        json_array_foreach(json_object_get(lp, "content"), i, one)
            json_array_append(json_object_get(to, "logprobs"), one);
        if (json_is_string(reason))
            json_object_set(to, "reason", (json_t *)reason);
        json_decref(o);
    }
    assert_non_null(end);
    return to;
}

static json_t *stream_reply(const struct served *s, const struct request *r, const struct tokens *t,
                            enum finish why)
{
    struct out out = {0};
    struct request streamed = *r;
    streamed.stream = true;
    struct reply *p = reply_new(&streamed, &s->model, &head);
    feed(p, &streamed, t, why, &out);
    reply_end(p, &out);
    json_t *o = joined(&out);
    out_free(&out);
    reply_free(p);
    return o;
}

static const json_t *choice_of(const json_t *reply, size_t i)
{
    return json_array_get(json_object_get(reply, "choices"), i);
}

static void assert_same_text(const json_t *a, const json_t *b, const char *key)
{
    const char *x = json_string_value(json_object_get(a, key));
    const char *y = json_string_value(json_object_get(b, key));
    assert_string_equal(x ? x : "", y ? y : "");
}

/* A stream's message, joined, is the whole reply's. */
static void assert_same(const json_t *stream, const json_t *whole)
{
    const json_t *choice = choice_of(whole, 0), *message = json_object_get(choice, "message");
    const json_t *calls = json_object_get(stream, "calls");
    const json_t *all = json_object_get(message, "tool_calls");
    assert_same_text(stream, message, "content");
    assert_same_text(stream, message, "reasoning_content");
    assert_int_equal(json_array_size(calls), json_array_size(all));
    for (size_t i = 0; i < json_array_size(all); i++)
        assert_true(json_equal(json_array_get(calls, i),
                               json_object_get(json_array_get(all, i), "function")));
    const json_t *reason = json_object_get(choice, "finish_reason");
    assert_true(json_equal(json_object_get(stream, "reason"), reason));
    const json_t *lp = json_object_get(json_object_get(choice, "logprobs"), "content");
    assert_true(!lp || json_equal(json_object_get(stream, "logprobs"), lp));
}

static const struct {
    const char *fields;
    enum tools_style style;
    bool thinks, opened;
    const char *text, *content, *reasoning, *reason;
    int calls;
} answers[] = {
    {"\"n\": 1", TOOLS_NONE, false, false, "Well, na\xC3\xAFve \xF0\x9F\x98\x80!",
     "Well, na\xC3\xAFve \xF0\x9F\x98\x80!", "", "stop", 0},
    {"\"stop\": [\"END\", \"\\n\\n\"]", TOOLS_NONE, false, false, "One EN\nENDING", "One EN\n", "",
     "stop", 0},
    {"\"stop\": [\"aab\"]", TOOLS_NONE, false, false, "xaaab and", "xa", "", "stop", 0},
    {"\"stop\": \"\\u00ef\"", TOOLS_NONE, false, false, "\xC3\xA9na\xC3\xAFve", "\xC3\xA9na", "",
     "stop", 0},
    {"\"stop\": \"lo\", \"include_stop_str_in_output\": true", TOOLS_NONE, false, false,
     "Hello you", "Hello", "", "stop", 0},
    {"\"stop\": \"never\"", TOOLS_NONE, false, false, "It will nev", "It will nev", "", "stop", 0},
    {"\"logprobs\": true, \"top_logprobs\": 3, \"stop\": \" cat\"", TOOLS_NONE, false, false,
     "the cat sat", "the", "", "stop", 0},
    {"\"n\": 1", TOOLS_NONE, true, false, "<think>\nHm.\n</think>\n\nYes.", "Yes.", "Hm.", "stop",
     0},
    {"\"n\": 1", TOOLS_NONE, true, true, "Hm.\n</think>\n\nYes.", "Yes.", "Hm.", "stop", 0},
    {TOOLS, TOOLS_HERMES, true, false,
     "<think>Call.</think>\nI ask.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": "
     "\"\xC3\xA9\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": "
     "{}}\n</tool_call>",
     "I ask.", "Call.", "tool_calls", 2},
    {TOOLS ", \"parallel_tool_calls\": false", TOOLS_HERMES, false, false,
     "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"
     "<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call> and",
     "", "", "tool_calls", 1},
    {TOOLS, TOOLS_LLAMA, false, false, "{\"name\": \"f\", \"parameters\": {\"x\": [1, 2]}}", "", "",
     "tool_calls", 1},
    {TOOLS, TOOLS_MISTRAL, false, false, "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}]", "",
     "", "tool_calls", 1},
    {TOOLS, TOOLS_HERMES, false, false, "<tool_call>broken</tool_call>",
     "<tool_call>broken</tool_call>", "", "stop", 0},
};

static struct request asked_of(const struct served *s, size_t i)
{
    char body[1024];
    snprintf(body, sizeof(body), CHAT("%s"), answers[i].fields);
    struct request r = asked(s, API_CHAT, body);
    r.style = answers[i].style;
    r.opened = answers[i].opened;
    if (answers[i].thinks)
        r.think = (struct think_words){"<think>", "</think>"};
    return r;
}

static void text_is_split_into_content_reasoning_and_calls(void **state)
{
    const struct served *s = *state;
    for (size_t i = 0; i < COUNT(answers); i++) {
        struct request r = asked_of(s, i);
        struct tokens t = spell(s, answers[i].text, 0, 64);
        json_t *o = whole_reply(s, &r, &t, FINISH_STOP);
        const json_t *choice = choice_of(o, 0), *message = json_object_get(choice, "message");
        const json_t *content = json_object_get(message, "content");
        const json_t *reasoning = json_object_get(message, "reasoning_content");
        assert_string_equal(json_is_null(content) ? "" : json_string_value(content),
                            answers[i].content);
        assert_string_equal(reasoning ? json_string_value(reasoning) : "", answers[i].reasoning);
        assert_int_equal(json_array_size(json_object_get(message, "tool_calls")), answers[i].calls);
        assert_string_equal(json_string_value(json_object_get(choice, "finish_reason")),
                            answers[i].reason);
        json_decref(o);
        request_free(&r);
    }
}

static void streams_cut_at_every_byte_give_the_same_message(void **state)
{
    const struct served *s = *state;
    for (size_t i = 0; i < COUNT(answers); i++) {
        struct request r = asked_of(s, i);
        for (size_t cut = 0; cut <= strlen(answers[i].text) + 1; cut++) {
            bool bytes = cut > strlen(answers[i].text); /* a token for each byte */
            struct tokens t = spell(s, answers[i].text, cut, bytes ? 1 : 64);
            json_t *stream = stream_reply(s, &r, &t, FINISH_STOP);
            json_t *whole = whole_reply(s, &r, &t, FINISH_STOP);
            assert_same(stream, whole);
            const char *content = json_string_value(json_object_get(stream, "content"));
            assert_string_equal(content ? content : "", answers[i].content);
            json_decref(stream);
            json_decref(whole);
        }
        request_free(&r);
    }
}

static int occurrences(const struct out *out, const char *word)
{
    int n = 0;
    const char *at = out->at, *end = at + out->n;
    while (out->n && (at = memmem(at, (size_t)(end - at), word, strlen(word))))
        n++, at++;
    return n;
}

/* Nothing of a stop string is ever sent, nor how likely its tokens were; what cannot become one is
 * sent at once. */
static void text_is_held_back_only_while_a_stop_string_may_come(void **state)
{
    const struct served *s = *state;
    struct request r =
        asked(s, API_CHAT, CHAT("\"stop\": \"abc\", \"stream\": true, \"logprobs\": true"));
    struct reply *p = reply_new(&r, &s->model, &head);
    struct tokens t = spell(s, "xababcd", 0, 1);
    static const char *const sent[] = {"x", NULL, NULL, "ab", NULL, NULL};
    static const int likelihoods[] = {1, 0, 0, 2, 0, 0};
    for (int i = 0; i < 6; i++) {
        struct out out = {0};
        struct engine_event ev = drawn(&r, t.id[i]);
        bool more = reply_event(p, 0, &ev, &out);
        char want[64];
        snprintf(want, sizeof(want), "\"delta\":{\"content\":\"%s\"}", sent[i] ? sent[i] : "");
        assert_int_equal(occurrences(&out, want), sent[i] != NULL);
        assert_int_equal(occurrences(&out, "\"top_logprobs\""), likelihoods[i]);
        assert_int_equal(more, i < 5); /* the c of abc; what follows is not asked for */
        out_free(&out);
    }
    assert_false(reply_done(p)); /* until the engine says so */
    struct out out = {0};
    struct engine_event end = ended(FINISH_CANCELLED);
    reply_event(p, 0, &end, &out);
    assert_true(reply_done(p));
    assert_int_equal(out.n, 0); /* finish_reason had been sent with the stop string */
    out_free(&out);
    reply_free(p);
    request_free(&r);
}

/* ------------------------------------------------------------------------------- shapes */

/* test/replies.txt: cases that end with a line "====", each a line with path, style and end, the
 * request, the text the model writes, and the reply. They were accepted by the types of OpenAI's
 * own Python client (openai 3.52.0). */
struct golden {
    char path[16], style[16], end[16];
    char *body, *text, *reply;
};

static struct golden golden(char *block)
{
    struct golden g;
    char *save;
    sscanf(strtok_r(block, "\n", &save), "%15s %15s %15s", g.path, g.style, g.end);
    g.body = strtok_r(NULL, "\n", &save);
    g.text = strtok_r(NULL, "\n", &save);
    g.reply = save;
    return g;
}

static enum finish finish_of(const char *word)
{
    return !strcmp(word, "length")   ? FINISH_LENGTH
           : !strcmp(word, "failed") ? FINISH_FAILED
                                     : FINISH_STOP;
}

static void check_golden(const struct served *s, const struct golden *g)
{
    bool chat = !strcmp(g->path, "chat");
    struct request r = asked(s, chat ? API_CHAT : API_COMPLETIONS, g->body);
    struct out out = {0};
    r.style = strcmp(g->style, "hermes") ? TOOLS_NONE : TOOLS_HERMES;
    struct tokens t = spell(s, g->text, 0, 64);
    struct reply *p = reply_new(&r, &s->model, &head);
    feed(p, &r, &t, finish_of(g->end), &out);
    reply_end(p, &out);
    out_bytes(&out, "\n", 2);
    if (strcmp(out.at, g->reply))
        fail_msg("%s\n got %s\nwant %s", g->body, out.at, g->reply);
    out_free(&out);
    reply_free(p);
    request_free(&r);
}

static void replies_have_exactly_the_recorded_shape(void **state)
{
    char *all, *at, *end;
    size_t n;
    struct err e;
    int cases = 0;
    assert_int_equal(file_read(SOURCE_DIR "/test/replies.txt", 1 << 20, &all, &n, &e), 0);
    for (at = all; (end = strstr(at, "====\n")); at = end + 5, cases++) {
        *end = 0;
        struct golden g = golden(at);
        check_golden(*state, &g);
    }
    assert_int_equal(cases, 9);
    free(all);
}

/* ------------------------------------------------------------------------------- the rest */

static struct reply *fed(const struct served *s, const struct request *r, const char *text,
                         enum finish why, struct out *out)
{
    struct tokens t = spell(s, text, 0, 64);
    struct reply *p = reply_new(r, &s->model, &head);
    feed(p, r, &t, why, out);
    return p;
}

static void a_stop_string_counts_only_after_min_tokens(void **state)
{
    const struct served *s = *state;
    struct request r = asked(s, API_CHAT, CHAT("\"stop\": \" cat\", \"min_tokens\": 2"));
    struct tokens t = spell(s, " cat cat cat dog", 0, 64);
    json_t *o = whole_reply(s, &r, &t, FINISH_STOP);
    const json_t *message = json_object_get(choice_of(o, 0), "message");
    assert_string_equal(json_string_value(json_object_get(message, "content")), " cat cat");
    json_decref(o);
    request_free(&r);
}

static void the_end_token_counts_but_is_not_text(void **state)
{
    const struct served *s = *state;
    struct request r = asked(s, API_CHAT, CHAT("\"logprobs\": true"));
    struct reply *p = reply_new(&r, &s->model, &head);
    struct out out = {0};
    struct tokens t = spell(s, "go", 0, 64);
    for (int i = 0; i < t.n; i++) {
        struct engine_event ev = drawn(&r, t.id[i]);
        reply_event(p, 0, &ev, &out);
    }
    struct engine_event end = drawn(&r, s->eos[0]);
    end.is_end = true;
    end.finish = FINISH_STOP;
    reply_event(p, 0, &end, &out);
    assert_true(reply_done(p));
    assert_int_equal(reply_usage(p).new_tok, t.n + 1);
    reply_end(p, &out);
    json_t *o = parsed(out.at, out.n);
    const json_t *choice = choice_of(o, 0);
    assert_int_equal(
        json_array_size(json_object_get(json_object_get(choice, "logprobs"), "content")), t.n);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(choice, "message"), "content")), "go");
    json_decref(o);
    out_free(&out);
    reply_free(p);
    request_free(&r);
}

/* What lm-eval reads: the prompt's tokens with their likelihood, the first without. */
static void echo_gives_the_prompts_logprobs(void **state)
{
    const struct served *s = *state;
    struct request r =
        asked(s, API_COMPLETIONS, TEXT("\"echo\": true, \"logprobs\": 1, \"max_tokens\": 0"));
    struct reply *p = reply_new(&r, &s->model, &head);
    struct out out = {0};
    for (int i = 1; i < r.prompt->n; i++) {
        struct engine_event ev = {
            .token = -1, .prompt = i, .logprobs = likely(r.prompt->tok[i], 1)};
        reply_event(p, 0, &ev, &out);
    }
    struct engine_event end = ended(FINISH_LENGTH);
    reply_event(p, 0, &end, &out);
    reply_end(p, &out);
    json_t *o = parsed(out.at, out.n);
    const json_t *lp = json_object_get(choice_of(o, 0), "logprobs");
    const json_t *each = json_object_get(lp, "token_logprobs");
    assert_int_equal(json_array_size(each), 2);
    assert_true(json_is_null(json_array_get(each, 0)));
    assert_true(json_real_value(json_array_get(each, 1)) == -0.25);
    assert_string_equal(json_string_value(json_array_get(json_object_get(lp, "tokens"), 1)), "i");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(lp, "text_offset"), 1)), 1);
    assert_string_equal(json_string_value(json_object_get(choice_of(o, 0), "text")), "Hi");
    json_decref(o);
    out_free(&out);
    reply_free(p);
    request_free(&r);
}

static void best_of_gives_the_likeliest(void **state)
{
    const struct served *s = *state;
    struct request r = asked(s, API_COMPLETIONS, TEXT("\"n\": 2, \"best_of\": 3"));
    struct reply *p = reply_new(&r, &s->model, &head);
    struct out out = {0};
    static const float how[] = {-0.5f, -3, -0.25f};
    static const char *const texts[] = {"a", "b", "c"};
    for (int c = 0; c < 3; c++) {
        struct engine_event ev = drawn(&r, spell(s, texts[c], 0, 64).id[0]);
        ev.logprobs = (struct logprobs){.n_top = 0, .chosen = {ev.token, how[c], 1}};
        ev.finish = FINISH_LENGTH;
        reply_event(p, c, &ev, &out);
    }
    reply_end(p, &out);
    json_t *o = parsed(out.at, out.n);
    assert_int_equal(json_array_size(json_object_get(o, "choices")), 2);
    assert_string_equal(json_string_value(json_object_get(choice_of(o, 0), "text")), "a");
    assert_string_equal(json_string_value(json_object_get(choice_of(o, 1), "text")), "c");
    assert_int_equal(json_integer_value(json_object_get(choice_of(o, 1), "index")), 1);
    assert_int_equal(reply_usage(p).new_tok, 3);
    json_decref(o);
    out_free(&out);
    reply_free(p);
    request_free(&r);
}

static void special_tokens_are_left_out_unless_asked_for(void **state)
{
    const struct served *s = *state;
    static const char *const bodies[] = {"{" USER "}", CHAT("\"skip_special_tokens\": false")};
    static const char *const want[] = {"go", "go<|im_start|>"};
    for (int i = 0; i < 2; i++) {
        struct request r = asked(s, API_CHAT, bodies[i]);
        struct tokens t = spell(s, "go", 0, 64);
        t.id[t.n++] = tok_id(s->tok, "<|im_start|>");
        json_t *o = whole_reply(s, &r, &t, FINISH_LENGTH);
        const json_t *message = json_object_get(choice_of(o, 0), "message");
        assert_string_equal(json_string_value(json_object_get(message, "content")), want[i]);
        json_decref(o);
        request_free(&r);
    }
}

/* Mistral's [TOOL_CALLS], Llama's <|python_tag|>: left out of texts, but calls begin with them. */
static void marks_that_are_special_tokens_are_seen(void **state)
{
    const struct served *s = *state;
    static const char words[] = "{\"added_tokens\": [{\"id\": 1, \"content\": \"[TOOL_CALLS]\", "
                                "\"special\": true}, {\"id\": 2, "
                                "\"content\": \"[{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": "
                                "{}}]\", \"special\": false}, {\"id\": 3, "
                                "\"content\": \"<think>\", \"special\": true}], \"decoder\": "
                                "{\"type\": \"ByteLevel\"}, \"model\": {\"type\": "
                                "\"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}}";
    struct request r = asked(s, API_CHAT, "{" USER "}");
    struct tokens t = {.id = {3, 0, 1, 2}, .n = 4};
    struct served other = *s;
    struct tok *tok;
    struct err e;
    assert_int_equal(tok_load_json(words, strlen(words), "words", &tok, &e), 0);
    other.model.tok = tok;
    r.style = TOOLS_MISTRAL;
    json_t *o = whole_reply(&other, &r, &t, FINISH_STOP);
    const json_t *message = json_object_get(choice_of(o, 0), "message");
    const json_t *call = json_array_get(json_object_get(message, "tool_calls"), 0);
    assert_string_equal(json_string_value(json_object_get(message, "content")), "a");
    assert_int_equal(strlen(json_string_value(json_object_get(call, "id"))), 9);
    json_decref(o);
    tok_free(tok);
    request_free(&r);
}

static void reasoning_tokens_are_counted(void **state)
{
    const struct served *s = *state;
    struct request r = asked(s, API_CHAT, "{" USER "}");
    struct out out = {0};
    r.think = (struct think_words){"<think>", "</think>"};
    r.opened = true;
    struct reply *p = fed(s, &r, "a</think>b", FINISH_STOP, &out);
    int all = spell(s, "a</think>b", 0, 64).n, after = spell(s, "b", 0, 64).n;
    assert_int_equal(reply_usage(p).reasoning_tok, all - after);
    out_free(&out);
    reply_free(p);
    request_free(&r);
}

static void small_paths_answer_as_vllm(void **state)
{
    const struct served *s = *state;
    struct out out = {0};
    struct request r = asked(s, API_TOKENIZE, "{\"prompt\": \"Hi\", \"return_token_strs\": true}");
    reply_tokenize(&out, &r, &s->model);
    out_bytes(&out, "", 1);
    assert_string_equal(out.at, "{\"count\":2,\"max_model_len\":256,\"tokens\":[42,75],"
                                "\"token_strs\":[\"H\",\"i\"]}");
    request_free(&r);
    out.n = 0;
    r = asked(s, API_DETOKENIZE, "{\"tokens\": [42, 75]}");
    reply_detokenize(&out, &r, &s->model);
    out_bytes(&out, "", 1);
    assert_string_equal(out.at, "{\"prompt\":\"Hi\"}");
    request_free(&r);
    out.n = 0;
    reply_models(&out, &s->model, 5);
    json_t *o = parsed(out.at, out.n);
    assert_int_equal(json_array_size(json_object_get(o, "data")), 2);
    json_decref(o);
    out_free(&out);
}

/* Whatever bytes a model writes, a client gets valid JSON. */
static void broken_bytes_stay_valid_json(void **state)
{
    const struct served *s = *state;
    struct request r = asked(s, API_CHAT, "{" USER "}");
    struct tokens t = {.n = 0};
    for (int i = 0; i < s->model.n_vocab; i++) {
        size_t n = 0;
        tok_bytes(s->tok, i, &n);
        if (n == 1 && !tok_is_special(s->tok, i))
            t.id[t.n++] = i; /* all bytes, in the order of their ids */
    }
    assert_true(t.n >= 256);
    json_decref(whole_reply(s, &r, &t, FINISH_LENGTH));
    json_decref(stream_reply(s, &r, &t, FINISH_LENGTH));
    request_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_split_into_content_reasoning_and_calls),
        cmocka_unit_test(streams_cut_at_every_byte_give_the_same_message),
        cmocka_unit_test(text_is_held_back_only_while_a_stop_string_may_come),
        cmocka_unit_test(replies_have_exactly_the_recorded_shape),
        cmocka_unit_test(a_stop_string_counts_only_after_min_tokens),
        cmocka_unit_test(the_end_token_counts_but_is_not_text),
        cmocka_unit_test(echo_gives_the_prompts_logprobs),
        cmocka_unit_test(best_of_gives_the_likeliest),
        cmocka_unit_test(special_tokens_are_left_out_unless_asked_for),
        cmocka_unit_test(marks_that_are_special_tokens_are_seen),
        cmocka_unit_test(reasoning_tokens_are_counted),
        cmocka_unit_test(small_paths_answer_as_vllm),
        cmocka_unit_test(broken_bytes_stay_valid_json),
    };
    return cmocka_run_group_tests(tests, serve_up, serve_down);
}
