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

static void check_vectors_of(struct tok *t, const char *tokenizer, const char *vectors)
{
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

static void check_vectors(const char *tokenizer, const char *vectors)
{
    check_vectors_of(load(tokenizer), tokenizer, vectors);
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

/* A folder with a link to tokenizer.model and, when config is not NULL, a tokenizer_config.json;
 * loaded, then removed. */
static struct tok *load_model_file(const char *model, const char *config, struct err *e)
{
    char folder[] = "/tmp/tandem-tok-XXXXXX", link[64], named[64], *target;
    struct tok *t;
    assert_non_null(mkdtemp(folder));
    snprintf(link, sizeof(link), "%s/tokenizer.model", folder);
    snprintf(named, sizeof(named), "%s/tokenizer_config.json", folder);
    target = realpath(data(model), NULL);
    assert_int_equal(symlink(target, link), 0);
    free(target);
    FILE *f = config ? fopen(named, "w") : NULL;
    if (f) {
        fputs(config, f);
        fclose(f);
    }
    int rc = tok_load(folder, &t, e);
    assert_true((rc == 0) == (t != NULL));
    unlink(link);
    unlink(named);
    rmdir(folder);
    return t;
}

/* Byte for byte: characters that tokens cut in two come together again. */
static void the_bytes_of_tokens_are_the_text(void **state)
{
    static const char text[] = "Zwei Wörter, 日本語 🙂 and\n\ttabs";
    static const char *const folder[] = {"tokenizers/llama3", "tokenizers/gpt2",
                                         "tokenizers/mistral-v1"};
    (void)state;
    for (size_t f = 0; f < COUNT(folder); f++) {
        struct err e;
        struct tok *t;
        int *ids;
        size_t n, k, at = 0;
        char all[256];
        if (tok_load(data(folder[f]), &t, &e))
            fail_msg("%s", e.text);
        assert_int_equal(tok_encode(t, text, strlen(text), 0, &ids, &n, &e), 0);
        for (size_t i = 0; i < n; i++) {
            const char *s = tok_bytes(t, ids[i], &k);
            assert_true(at + k < sizeof(all));
            memcpy(all + at, s, k);
            at += k;
        }
        size_t blank = all[0] == ' '; /* SentencePiece puts one in front */
        assert_int_equal(at - blank, strlen(text));
        assert_memory_equal(all + blank, text, strlen(text));
        free(ids);
        tok_free(t);
    }
}

static void ranks_of_tiktoken_meet_every_vector_too(void **state)
{
    const char *model = "tokenizers/llama3/tokenizer.model";
    struct err e;
    (void)state;
    struct tok *t = load_model_file(model, NULL, &e), *json = load("tokenizers/llama3");
    assert_non_null(t);
    assert_int_equal(tok_n_vocab(t), tok_n_vocab(json));
    for (int id = 0; id < tok_n_vocab(t); id++) {
        size_t n, m;
        const char *a = tok_bytes(t, id, &n), *b = tok_bytes(json, id, &m);
        assert_int_equal(n, m);
        assert_memory_equal(a, b, n);
        assert_int_equal(tok_is_special(t, id), tok_is_special(json, id));
    }
    assert_int_equal(tok_bos(t), tok_id(t, "<|begin_of_text|>"));
    assert_int_equal(tok_eos(t), tok_id(t, "<|end_of_text|>"));
    tok_free(json);
    check_vectors_of(t, model, "tokenizers/llama3");
}

static void expect_refused_ranks(const char *text, const char *word)
{
    struct tok *t;
    struct err e;
    assert_true(tok_load_tiktoken(text, strlen(text), "file", &t, &e) < 0);
    assert_null(t);
    if (!strstr(e.text, word) || strchr(e.text, '\n'))
        fail_msg("\"%s\" does not say \"%s\" in one line", e.text, word);
}

static void bad_ranks_are_one_clear_line(void **state)
{
    char all[256 * 12];
    size_t n = 0;
    (void)state;
    expect_refused_ranks("", "0 lines");
    expect_refused_ranks("IQ== 0\nIg= 1\n", "line 2 is not");
    expect_refused_ranks("IQ== 0\nIg== x\n", "line 2 is not");
    expect_refused_ranks("IQ== 0\nIg== 99999999999\n", "line 2 is not");
    expect_refused_ranks("IQ== 0\n\n", "line 2 is not");
    expect_refused_ranks("I*== 0\n", "line 1 is not");
    expect_refused_ranks("IQ== 0\nIg== 2\n", "rank 2");
    expect_refused_ranks("IQ== 0\nIg== 0\n", "two tokens");
    expect_refused_ranks("IQ== 0\nIQ== 1\n", "two ids");
    expect_refused_ranks("IQ== 0\nIg== 1\n", "the byte 0 has no rank");
    for (int b = 0; b < 256; b++) { /* nothing wrong, but of no known model */
        const char *digit = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        n += (size_t)snprintf(all + n, sizeof(all) - n, "%c%c== %d\n", digit[b >> 2],
                              digit[(b & 3) << 4], b);
    }
    expect_refused_ranks(all, "use the model's tokenizer.json");
}

/* The ids that TOK_SPECIAL puts around "a". */
static void expect_around(const char *config, int bos, int eos)
{
    struct err e;
    struct tok *t = load_model_file("tokenizers/llama2/tokenizer.model", config, &e);
    int *ids;
    size_t n;
    assert_non_null(t);
    assert_int_equal(tok_encode(t, "a", 1, TOK_SPECIAL, &ids, &n, &e), 0);
    assert_int_equal(n, 1 + (bos >= 0) + (eos >= 0));
    if (bos >= 0)
        assert_int_equal(ids[0], bos);
    if (eos >= 0)
        assert_int_equal(ids[n - 1], eos);
    free(ids);
    tok_free(t);
}

static void tokenizer_config_says_what_is_added_to_a_tokenizer_model(void **state)
{
    struct err e;
    int *ids;
    size_t n;
    (void)state;
    expect_around(NULL, 1, -1);
    expect_around("{}", 1, -1);
    expect_around("{\"add_bos_token\":null}", 1, -1);
    expect_around("{\"add_bos_token\":false}", -1, -1);
    expect_around("{\"add_eos_token\":true}", 1, 2);
    expect_around("{\"add_bos_token\":false,\"add_eos_token\":true,\"eos_token\":\"<s>\"}", -1, 1);
    assert_null(load_model_file("tokenizers/llama2/tokenizer.model", "{\"add_bos_token\":1}", &e));
    assert_non_null(strstr(e.text, "tokenizer_config.json: add_bos_token"));

    struct tok *t =
        load_model_file("tokenizers/llama2/tokenizer.model", "{\"add_prefix_space\":false}", &e);
    assert_int_equal(tok_encode(t, "Hello", 5, 0, &ids, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], tok_id(t, "Hello"));
    char *text = tok_decode(t, (int[]){tok_id(t, "\xE2\x96\x81Hello")}, 1, true);
    assert_string_equal(text, " Hello"); /* no first blank was added, none is taken away */
    free(text);
    free(ids);
    tok_free(t);
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

/* Of one kind of character, through the patterns of real tokenizers; what goes in comes out. */
static void a_megabyte_of_one_kind_comes_back_as_it_was(void **state)
{
    static const char *const folder[] = {"tokenizers/llama3", "tokenizers/gpt2",
                                         "tokenizers/llama2"};
    static const char *const unit[] = {"a", " ", "\n", "1", "!", "\xE4\xB8\xAD", " \n", "A'", "\t"};
    enum { N = 1 << 20 };
    struct err e;
    char *text = malloc(N + 1);
    (void)state;
    for (size_t f = 0; f < COUNT(folder); f++) {
        struct tok *t = load(folder[f]);
        for (size_t u = 0; u < COUNT(unit); u++) {
            size_t k = strlen(unit[u]), n;
            int *ids;
            for (size_t i = 0; i + k <= N; i += k)
                memcpy(text + i, unit[u], k + 1);
            assert_int_equal(tok_encode(t, text, strlen(text), 0, &ids, &n, &e), 0);
            char *back = tok_decode(t, ids, n, true);
            assert_true(!strcmp(back, text));
            free(back);
            free(ids);
        }
        tok_free(t);
    }
    free(text);
}

/* ------------------------------------------------------------------------------- refusals */

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

#define ONE_TOKEN(vocab, merges, more)                                                             \
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]}" more "}"

static void ids_that_no_table_can_hold_are_refused(void **state)
{
    static const char *const id[] = {
        "2147483647",          "2147483648", "4294967295", "-2147483648",
        "9223372036854775807", "1e9",        "16777216",   "\"1\""};
    char json[256];
    (void)state;
    for (size_t i = 0; i < COUNT(id); i++) {
        snprintf(json, sizeof(json), ONE_TOKEN("\"a\":%s", "", ""), id[i]);
        expect_refusal(json, "id of \"a\"");
        snprintf(json, sizeof(json),
                 ONE_TOKEN("\"a\":0", "", ",\"added_tokens\":[{\"id\":%s,\"content\":\"x\"}]"),
                 id[i]);
        expect_refusal(json, "id of \"an added token\"");
        snprintf(json, sizeof(json),
                 ONE_TOKEN("\"a\":0", "",
                           ",\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",%s]}"),
                 id[i]);
        expect_refusal(json, "names no token");
    }
}

static void what_cannot_be_done_is_refused_by_name(void **state)
{
    (void)state;
    expect_refusal(ONE_TOKEN("\"a\":0,\"a\":1", "", ""), "duplicate");
    expect_refusal(ONE_TOKEN("\"a\":0", "", ",\"added_tokens\":[{\"id\":1,\"content\":\"\"}]"),
                   "added token 0 has no text");
    expect_refusal(ONE_TOKEN("\"a\":0", "[\"a\",\"\"]", ""), "merge 0");
    expect_refusal(ONE_TOKEN("\"a\":0", "[\"a\"]", ""), "merge 0");
    expect_refusal(ONE_TOKEN("\"a\":0", "3", ""), "merge 0");
    expect_refusal(ONE_TOKEN("\"a\":0", "", ",\"normalizer\":{\"type\":\"Precompiled\"}"),
                   "Precompiled");
    expect_refusal(ONE_TOKEN("\"a\":0", "", ",\"decoder\":{\"type\":\"WordPiece\"}"), "WordPiece");
    expect_refusal(ONE_TOKEN("\"a\":0", "", ",\"decoder\":{\"type\":\"Strip\",\"start\":1}"),
                   "Fuse");
    expect_refusal("{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "WordPiece");
    expect_refusal("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],"
                   "\"end_of_word_suffix\":\"</w>\"}}",
                   "end_of_word_suffix");
}

/* A SentencePiece model of the two pieces "a\nb" and "a\nb", in memory that ends with it. */
static void a_piece_that_is_there_twice_is_named_in_one_line(void **state)
{
    static const char model[] = "\x0A\x05\x0A\x03"
                                "a\nb"
                                "\x0A\x05\x0A\x03"
                                "a\nb"
                                "\x12\x02\x18\x02";
    size_t n = sizeof(model) - 1;
    char *bytes = malloc(n);
    struct tok *t;
    struct err e;
    (void)state;
    memcpy(bytes, model + n - 4, 4); /* the trainer first, the pieces last */
    memcpy(bytes + 4, model, n - 4);
    assert_true(tok_load_spm(bytes, n, "file", &t, &e) < 0);
    assert_string_equal(e.text, "file: token \"a?b\" has two ids, 0 and 1");
    free(bytes);
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
        cmocka_unit_test(the_bytes_of_tokens_are_the_text),
        cmocka_unit_test(ranks_of_tiktoken_meet_every_vector_too),
        cmocka_unit_test(bad_ranks_are_one_clear_line),
        cmocka_unit_test(tokenizer_config_says_what_is_added_to_a_tokenizer_model),
        cmocka_unit_test(tokenizer_model_gives_the_ids_of_tokenizer_json),
        cmocka_unit_test(decoding_gives_the_golden_story),
        cmocka_unit_test(half_a_character_is_never_emitted),
        cmocka_unit_test(a_megabyte_of_one_kind_comes_back_as_it_was),
        cmocka_unit_test(bad_files_are_one_clear_line),
        cmocka_unit_test(ids_that_no_table_can_hold_are_refused),
        cmocka_unit_test(what_cannot_be_done_is_refused_by_name),
        cmocka_unit_test(a_piece_that_is_there_twice_is_named_in_one_line),
        cmocka_unit_test(invalid_utf8_is_refused_with_its_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
