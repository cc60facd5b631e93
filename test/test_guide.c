/* test_guide.c - a request's constraint as the engine's guide: what may be drawn, and when the
 * answer is complete. */
#include "serve_help.h"

#include "serve/api_read.h"
#include "serve/guide.h"

#define CHAT(fields) "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], " fields "}"

enum { MASK = 1024 / 64 };

static struct engine_guide guide_of(struct guides *all, const struct served *s,
                                    const struct request *r)
{
    struct api_error e = {0};
    const struct form *form = guides_get(all, &s->model, &r->constraint, &e);
    if (!form)
        fail_msg("%s", e.message);
    return guide_new(all, form);
}

static bool may_come(const struct engine_guide *g, int token)
{
    uint64_t allow[MASK] = {0};
    return !g->allow(g->ctx, allow) || (allow[token / 64] >> (token % 64) & 1);
}

/* Draw the first token allowed, or the end when nothing else is, until the answer is complete. */
static char *written(const struct served *s, const struct engine_guide *g)
{
    struct tokens t = {.n = 0};
    bool more = true;
    while (more && t.n < 100) {
        int id = 0;
        while (id < s->model.n_vocab && (id == s->eos[0] || !may_come(g, id)))
            id++;
        if (id == s->model.n_vocab)
            break;
        t.id[t.n++] = id;
        more = g->take(g->ctx, id);
    }
    assert_true(!more || may_come(g, s->eos[0]));
    return tok_decode(s->tok, t.id, (size_t)t.n, false);
}

static void answers_are_held_to_what_was_asked(void **state)
{
    const struct served *s = *state;
    static const char *const cases[][2] = {
        {CHAT("\"guided_choice\": [\"yes\"]"), "yes"},
        {CHAT("\"guided_regex\": \"a{3}\""), "aaa"},
        {CHAT("\"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"schema\": "
              "{\"const\": 17}}}"),
         "17"},
        {CHAT("\"tools\": [{\"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\", "
              "\"properties\": {}, \"additionalProperties\": false}}}], \"tool_choice\": "
              "\"required\""),
         "{\"name\": \"f\", \"parameters\": {}}"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct request r = asked(s, API_CHAT, cases[i][0]);
        struct guides all = {0};
        struct engine_guide g = guide_of(&all, s, &r);
        request_free(&r); /* a guide outlives its request */
        char *text = written(s, &g);
        assert_string_equal(text, cases[i][1]);
        free(text);
        g.free(g.ctx);
        guides_free(&all);
    }
}

static void choices_of_a_request_do_not_disturb_each_other(void **state)
{
    const struct served *s = *state;
    struct request r = asked(s, API_CHAT, CHAT("\"guided_regex\": \"ab\", \"n\": 2"));
    struct guides all = {0};
    struct engine_guide one = guide_of(&all, s, &r), two = guide_of(&all, s, &r);
    assert_true(all.n_used == 2 && !all.kept[1].used); /* compiled once */
    int a = spell(s, "a", 0, 1).id[0], b = spell(s, "b", 0, 1).id[0];
    assert_true(one.take(one.ctx, a));
    assert_true(may_come(&one, b) && !may_come(&one, a));
    assert_true(may_come(&two, a) && !may_come(&two, b));
    assert_false(one.take(one.ctx, b));
    one.free(one.ctx);
    two.free(two.ctx);
    guides_free(&all);
    request_free(&r);
}

static void what_cannot_be_compiled_is_refused_by_its_field(void **state)
{
    const struct served *s = *state;
    static const char *const cases[][2] = {
        {CHAT("\"guided_regex\": \"(a\""), "guided_regex"},
        {CHAT("\"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"schema\": "
              "{\"type\": \"wrong\"}}}"),
         "response_format"},
        {CHAT("\"structured_outputs\": {\"grammar\": \"root ::= missing\"}"), "structured_outputs"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct request r;
        struct api_error e = {0};
        const char *body = cases[i][0];
        assert_int_equal(request_parse(API_CHAT, body, strlen(body), &s->model, &r, &e), 0);
        struct guides all = {0};
        assert_int_equal(request_prompts(&r, &s->model, &e), 0);
        assert_null(guides_get(&all, &s->model, &r.constraint, &e));
        assert_int_equal(e.status, 400);
        assert_string_equal(e.param, cases[i][1]);
        assert_int_equal(strncmp(e.message, e.param, strlen(e.param)), 0);
        guides_free(&all);
        request_free(&r);
    }
}

/* A model that may reason first: the first token says whether it does. */
static void reasoning_is_free_and_the_answer_after_it_is_not(void **state)
{
    struct served other = *(struct served *)*state;
    static const char words[] =
        "{\"added_tokens\": [{\"id\": 2, \"content\": \"<think>\"}, {\"id\": 3, \"content\": "
        "\"</think>\"}], \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", "
        "\"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": []}}";
    enum { A, B, OPEN, CLOSE };
    struct request r = asked(&other, API_CHAT, CHAT("\"guided_regex\": \"aa\""));
    struct guides all = {0};
    struct err why;
    struct tok *tok;
    assert_int_equal(tok_load_json(words, strlen(words), "words", &tok, &why), 0);
    other.model.tok = tok;
    other.model.n_vocab = 4;
    other.model.n_eos = 0;
    r.think = (struct think_words){"<think>", "</think>"};
    request_settle(&r, true);
    struct engine_guide with = guide_of(&all, &other, &r), without = guide_of(&all, &other, &r);
    assert_true(may_come(&with, A) && may_come(&with, OPEN) && !may_come(&with, B));
    assert_true(with.take(with.ctx, OPEN));
    assert_true(may_come(&with, B) && with.take(with.ctx, B));
    assert_true(with.take(with.ctx, CLOSE));
    assert_true(may_come(&with, A) && !may_come(&with, B) && !may_come(&with, OPEN));
    assert_true(with.take(with.ctx, A));
    assert_false(with.take(with.ctx, A));
    assert_true(without.take(without.ctx, A));
    assert_true(may_come(&without, A) && !may_come(&without, B) && !may_come(&without, OPEN));
    with.free(with.ctx);
    without.free(without.ctx);
    request_free(&r);
    guides_free(&all);
    tok_free(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_held_to_what_was_asked),
        cmocka_unit_test(choices_of_a_request_do_not_disturb_each_other),
        cmocka_unit_test(what_cannot_be_compiled_is_refused_by_its_field),
        cmocka_unit_test(reasoning_is_free_and_the_answer_after_it_is_not),
    };
    return cmocka_run_group_tests(tests, serve_up, serve_down);
}
