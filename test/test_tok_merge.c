/* test_tok_merge.c - merging: against merging as it is defined, and of what was made to take for
 * ever. */
#include "base/json.h"
#include "text/tok.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { LETTERS = 4, RULES = 24, LONG = 40 };
static const char *const letter[LETTERS] = {"a", "b", "\xE2\x96\x81", "\xE2\x80\x81"};

struct rules { /* merge i makes token LETTERS + i */
    int left[RULES], right[RULES], n;
    char text[LETTERS + RULES][LETTERS * LONG];
};

static struct rules random_rules(void)
{
    struct rules r = {0};
    for (int i = 0; i < LETTERS; i++)
        strcpy(r.text[i], letter[i]);
    for (int tries = 0; tries < RULES; tries++) {
        int id = LETTERS + r.n, a = rand() % id, b = rand() % id;
        size_t n = strlen(r.text[a]), m = strlen(r.text[b]);
        if (n + m > 20)
            continue;
        memcpy(r.text[id], r.text[a], n);
        memcpy(r.text[id] + n, r.text[b], m + 1);
        bool new = true;
        for (int k = 0; k < id; k++)
            new = new &&strcmp(r.text[k], r.text[id]);
        if (new)
            r.left[r.n] = a, r.right[r.n] = b, r.n++;
    }
    return r;
}

/* Merging as it is defined, one rule's first place at a time. */
static int merge_plainly(const struct rules *r, int *id, int n)
{
    for (;;) {
        int rule = r->n, at = 0;
        for (int i = 0; i + 1 < n; i++)
            for (int k = 0; k < rule; k++)
                if (r->left[k] == id[i] && r->right[k] == id[i + 1])
                    rule = k, at = i;
        if (rule == r->n)
            return n;
        id[at] = LETTERS + rule;
        memmove(id + at + 1, id + at + 2, (size_t)(--n - at - 1) * sizeof(*id));
    }
}

/* Other letters are "?", when unknown ones have a token, or leave nothing. */
static struct tok *tok_of_rules(const struct rules *r, bool unknown)
{
    struct tok *t;
    struct err e;
    json_t *vocab = json_object(), *merges = json_array();
    for (int i = 0; i < LETTERS + r->n; i++)
        json_object_set_new(vocab, r->text[i], json_integer(i));
    if (unknown)
        json_object_set_new(vocab, "?", json_integer(LETTERS + r->n));
    for (int i = 0; i < r->n; i++)
        json_array_append_new(merges,
                              json_pack("[s,s]", r->text[r->left[i]], r->text[r->right[i]]));
    json_t *all = json_pack("{s:{s:s,s:s,s:o,s:o}}", "model", "type", "BPE", "unk_token",
                            unknown ? "?" : "none", "vocab", vocab, "merges", merges);
    char *text = json_dumps(all, 0);
    if (tok_load_json(text, strlen(text), "rules", &t, &e))
        fail_msg("%s", e.text);
    free(text);
    json_decref(all);
    return t;
}

static void merging_word_by_word_gives_what_merging_plainly_gives(void **state)
{
    (void)state;
    srand(11);
    for (int turn = 0; turn < 400; turn++) {
        struct rules r = random_rules();
        bool unknown = turn % 2;
        struct tok *t = tok_of_rules(&r, unknown);
        for (int k = 0; k < 20; k++) {
            int want[2 * LONG], *ids, n = 0;
            char text[LETTERS * LONG + LONG] = "";
            size_t got;
            struct err e;
            for (int i = 0; i < LONG; i++) {
                strcat(text, letter[want[n++] = rand() % LETTERS]);
                if (rand() % 8)
                    continue;
                strcat(text, "z");
                if (unknown)
                    want[n++] = LETTERS + r.n;
            }
            n = merge_plainly(&r, want, n);
            assert_int_equal(tok_encode(t, text, strlen(text), 0, &ids, &got, &e), 0);
            assert_int_equal(got, n);
            assert_memory_equal(ids, want, got * sizeof(*ids));
            free(ids);
        }
        tok_free(t);
    }
}

/* Bounded by size: were the time quadratic, this would not end. */
static void a_megabyte_without_blanks_is_one_piece_that_ends(void **state)
{
    const char *json =
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1,\"aaaa\":2,\"b\":3},"
        "\"merges\":[\"a a\",\"aa aa\"]}}";
    enum { N = (1 << 20) + 3 };
    struct tok *t;
    struct err e;
    int *ids;
    size_t n;
    char *text = malloc(N);
    (void)state;
    memset(text, 'a', N);
    assert_int_equal(tok_load_json(json, strlen(json), "file", &t, &e), 0);
    assert_int_equal(tok_encode(t, text, N, 0, &ids, &n, &e), 0);
    assert_int_equal(n, N / 4 + 2); /* three letters are left: aa a */
    for (size_t i = 0; i < N / 4; i++)
        assert_int_equal(ids[i], 2);
    assert_int_equal(ids[n - 2], 1);
    assert_int_equal(ids[n - 1], 0);
    free(ids);
    free(text);
    tok_free(t);
}

#define ONE_TOKEN(vocab, merges, more)                                                             \
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]}" more "}"

/* An empty token could join with "a" to "a" for ever, but no text begins as one. */
static void a_merge_with_nothing_never_happens(void **state)
{
    const char *json = ONE_TOKEN("\"\":0,\"a\":1,\"aa\":2",
                                 "[\"\",\"a\"],[\"a\",\"\"],[\"\",\"\"],[\"a\",\"a\"]", "");
    struct tok *t;
    struct err e;
    int *ids;
    size_t n;
    (void)state;
    if (tok_load_json(json, strlen(json), "file", &t, &e))
        fail_msg("%s", e.text);
    assert_int_equal(tok_encode(t, "aaa", 3, 0, &ids, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_int_equal(ids[0], 2);
    assert_int_equal(ids[1], 1);
    free(ids);
    tok_free(t);
}

/* Bounded by size: one that doubles its tries with every letter would not end. */
static void a_hostile_pattern_ends_and_a_deep_one_is_met(void **state)
{
    const char *hostile = ONE_TOKEN("\"a\":0,\"b\":1", "",
                                    ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":"
                                    "{\"Regex\":\"(a+)+$\"},\"behavior\":\"Removed\"}");
    const char *deep = ONE_TOKEN("\"a\":0,\"b\":1", "",
                                 ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":"
                                 "{\"Regex\":\"(?:a|b)+\"},\"behavior\":\"Removed\"}");
    enum { N = 100000 };
    char *text = malloc(N);
    struct tok *t;
    struct err e;
    int *ids;
    size_t n;
    (void)state;
    memset(text, 'a', N);
    text[59] = 'b';
    assert_int_equal(tok_load_json(hostile, strlen(hostile), "file", &t, &e), 0);
    assert_int_equal(tok_encode(t, text, 60, 0, &ids, &n, &e), 0);
    assert_int_equal(n, 60); /* given up: the text is one piece */
    free(ids);
    tok_free(t);
    assert_int_equal(tok_load_json(deep, strlen(deep), "file", &t, &e), 0);
    assert_int_equal(tok_encode(t, text, N, 0, &ids, &n, &e), 0);
    assert_int_equal(n, 0); /* all of it matched, and was removed */
    free(ids);
    free(text);
    tok_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merging_word_by_word_gives_what_merging_plainly_gives),
        cmocka_unit_test(a_megabyte_without_blanks_is_one_piece_that_ends),
        cmocka_unit_test(a_merge_with_nothing_never_happens),
        cmocka_unit_test(a_hostile_pattern_ends_and_a_deep_one_is_met),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
