/* test_tok.c - tokenizers against vectors of other implementations, and what they must refuse. */
#include "base/json.h"
#include "text/tok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

static const char *data(const char *name)
{
    static char path[8][512];
    static int turn;
    char *to = path[turn++ % 8];
    const char *shared = getenv("TANDEM_SHARED");
    snprintf(to, sizeof(path[0]), "%s/data/%s", shared ? shared : "../shared", name);
    if (access(to, R_OK)) {
        print_message("skipped: no shared test data at %s\n", to);
        skip();
    }
    return to;
}

static struct tok *load(const char *folder)
{
    struct tok *t;
    struct err e;
    if (tok_load(data(folder), &t, &e))
        fail_msg("%s", e.text);
    return t;
}

/* One family of vectors; wrong ones are printed, then counted. */
static int wrong_of(const struct tok *t, const json_t *family, int *tried)
{
    size_t i, n;
    json_t *one;
    int wrong = 0, flags = TOK_PARSE;
    if (json_is_true(json_object_get(family, "add_special_tokens")))
        flags |= TOK_SPECIAL;
    json_array_foreach(json_object_get(family, "cases"), i, one)
    {
        const json_t *text = json_object_get(one, "text"), *want = json_object_get(one, "ids");
        int *ids;
        struct err e;
        if (tok_encode(t, json_string_value(text), json_string_length(text), flags, &ids, &n, &e))
            fail_msg("%s", e.text);
        bool same = n == json_array_size(want);
        for (size_t k = 0; same && k < n; k++)
            same = ids[k] == json_integer_value(json_array_get(want, k));
        if (!same)
            print_message("differs: \"%s\"\n", json_string_value(text));
        wrong += !same;
        ++*tried;
        free(ids);
    }
    return wrong;
}

static void check_vectors(const char *tokenizer, const char *vectors)
{
    struct tok *t = load(tokenizer);
    struct err e;
    char name[256];
    size_t i;
    json_t *family;
    int wrong = 0, tried = 0;
    snprintf(name, sizeof(name), "%s/vectors.json", vectors);
    json_t *all = json_file(data(name), 1 << 26, NULL, &e);
    json_array_foreach(all, i, family) wrong += wrong_of(t, family, &tried);
    print_message("%s: %d of %d vectors equal\n", tokenizer, tried - wrong, tried);
    assert_true(tried > 0);
    assert_int_equal(wrong, 0);
    json_decref(all);
    tok_free(t);
}

static void every_vector_of_other_implementations_is_met(void **state)
{
    (void)state;
    check_vectors("tokenizers/llama2", "tokenizers/llama2");
    check_vectors("tokenizers/llama3", "tokenizers/llama3");
    check_vectors("tokenizers/gpt2", "tokenizers/gpt2");
    check_vectors("tokenizers/mistral-v1", "tokenizers/mistral-v1");
    check_vectors("tokenizers/qwen3", "tokenizers/qwen2.5"); /* the same splitting and merges */
}

static void tokenizer_model_gives_the_ids_of_tokenizer_json(void **state)
{
    static const char *const folder[] = {"tokenizers/llama2", "tokenizers/mistral-v1",
                                         "models/stories260K-hf"};
    struct err e;
    (void)state;
    json_t *all = json_file(data("tokenizers/llama2/vectors.json"), 1 << 26, NULL, &e);
    for (size_t f = 0; f < COUNT(folder); f++) {
        struct tok *json = load(folder[f]), *spm;
        char name[256], *bytes;
        size_t n, i, k, nj, ns;
        json_t *family, *one;
        snprintf(name, sizeof(name), "%s/tokenizer.model", folder[f]);
        if (file_read(data(name), 1 << 26, &bytes, &n, &e) ||
            tok_load_spm(bytes, n, name, &spm, &e))
            fail_msg("%s", e.text);
        json_array_foreach(all, k, family)
            json_array_foreach(json_object_get(family, "cases"), i, one)
        {
            const char *text = json_string_value(json_object_get(one, "text"));
            int *a, *b;
            assert_int_equal(tok_encode(json, text, strlen(text), 0, &a, &nj, &e), 0);
            assert_int_equal(tok_encode(spm, text, strlen(text), 0, &b, &ns, &e), 0);
            assert_int_equal(nj, ns);
            if (nj)
                assert_memory_equal(a, b, nj * sizeof(*a));
            free(a);
            free(b);
        }
        free(bytes);
        tok_free(json);
        tok_free(spm);
    }
    json_decref(all);
}

static void decoding_gives_the_golden_story(void **state)
{
    struct tok *t = load("models/stories260K-hf");
    struct err e;
    size_t i;
    json_t *one;
    (void)state;
    json_t *golden = json_file(data("models/stories260K-hf/golden.json"), 1 << 24, NULL, &e);
    json_array_foreach(json_object_get(golden, "cases"), i, one)
    {
        const char *prompt = json_string_value(json_object_get(one, "prompt"));
        const json_t *want = json_object_get(one, "prompt_ids"),
                     *greedy = json_object_get(one, "greedy_ids");
        int *ids, all[512];
        size_t n, k;
        assert_int_equal(tok_encode(t, prompt, strlen(prompt), TOK_SPECIAL, &ids, &n, &e), 0);
        assert_int_equal(n, json_array_size(want));
        for (k = 0; k < n; k++)
            assert_int_equal(ids[k], json_integer_value(json_array_get(want, k)));
        for (k = 0; k < json_array_size(greedy); k++)
            all[k] = (int)json_integer_value(json_array_get(greedy, k));
        char *text = tok_decode(t, all, k, true);
        const char *golden_text = json_string_value(json_object_get(one, "greedy_text"));
        assert_non_null(strstr(golden_text, text[0] == ' ' ? text + 1 : text));
        free(text);
        free(ids);
    }
    json_decref(golden);
    tok_free(t);
}

/* Valid UTF-8 at every moment, and the pieces together are the whole. */
static void half_a_character_is_never_emitted(void **state)
{
    static const char *const folder[] = {"tokenizers/llama3", "tokenizers/llama2",
                                         "tokenizers/gpt2"};
    const char *text =
        "na\xC3\xAFve \xF0\x9F\xA6\x99\xF0\x9F\x8F\xBD \xE4\xB8\xAD\xE6\x96\x87  \xE0\xB8\x81 end";
    struct err e;
    (void)state;
    for (size_t f = 0; f < COUNT(folder); f++) {
        struct tok *t = load(folder[f]);
        struct detok *d = detok_new(t, true);
        char all[512] = "";
        int *ids;
        size_t n, k;
        assert_int_equal(tok_encode(t, text, strlen(text), 0, &ids, &n, &e), 0);
        for (size_t i = 0; i <= n; i++) {
            const char *s = i < n ? detok_next(d, ids[i], &k) : detok_flush(d, &k);
            json_t *valid = json_stringn(s, k);
            assert_non_null(valid);
            json_decref(valid);
            strncat(all, s, sizeof(all) - strlen(all) - 1);
        }
        assert_string_equal(all, text);
        char *whole = tok_decode(t, ids, n, true);
        assert_string_equal(whole, text);
        free(whole);
        free(ids);
        detok_free(d);
        tok_free(t);
    }
}

static void expect_refusal(const char *json, const char *word)
{
    struct tok *t;
    struct err e;
    assert_true(tok_load_json(json, strlen(json), "file", &t, &e) < 0);
    assert_null(t);
    if (!strstr(e.text, word) || strchr(e.text, '\n'))
        fail_msg("\"%s\" does not say \"%s\" in one line", e.text, word);
}

static void bad_files_are_one_clear_line(void **state)
{
    (void)state;
    expect_refusal("", "file");
    expect_refusal("[]", "JSON object");
    expect_refusal("{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "Unigram");
    expect_refusal("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "merges");
    expect_refusal("{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "empty");
    expect_refusal("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "id of");
    expect_refusal("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":9999999},\"merges\":[]}}",
                   "only 1");
    expect_refusal("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}",
                   "two tokens");
    expect_refusal("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}",
                   "merge 0");
    expect_refusal("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}",
                   "merge 0");
    expect_refusal("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
                   "\"added_tokens\":[{\"id\":1,\"content\":\"a\"}]}",
                   "two ids");
    expect_refusal("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
                   "\"pre_tokenizer\":{\"type\":\"Nonsense\"}}",
                   "Nonsense");
    expect_refusal("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
                   "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"}}}",
                   "pattern");
}

static void invalid_utf8_is_refused_with_its_place(void **state)
{
    const char *json = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}";
    struct tok *t;
    struct err e;
    int *ids;
    size_t n;
    (void)state;
    assert_int_equal(tok_load_json(json, strlen(json), "file", &t, &e), 0);
    assert_int_equal(tok_encode(t, "aa\xFF", 3, 0, &ids, &n, &e), -EILSEQ);
    assert_non_null(strstr(e.text, "byte 2"));
    tok_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vector_of_other_implementations_is_met),
        cmocka_unit_test(tokenizer_model_gives_the_ids_of_tokenizer_json),
        cmocka_unit_test(decoding_gives_the_golden_story),
        cmocka_unit_test(half_a_character_is_never_emitted),
        cmocka_unit_test(bad_files_are_one_clear_line),
        cmocka_unit_test(invalid_utf8_is_refused_with_its_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
