/* test_grammar_mask.c - masks against trying every token, random answers by the masks, rollback,
 * forced tokens, ends; and what hostile descriptions get. */
#include "grammar_help.h"

enum { WALK_TOKENS = 3000, MASK_WORDS = 1 << 12 };

static bool allowed(const uint64_t *allow, int id) { return allow[id >> 6] >> (id & 63) & 1; }

/* ------------------------------------------------------------------------------- masks */

static const char *const SCHEMAS[] = {
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":12},\"age\":{"
    "\"type\":\"integer\",\"minimum\":0,\"maximum\":150},\"tags\":{\"type\":\"array\",\"items\":{"
    "\"enum\":[\"red\",\"green\",\"blue\"]},\"maxItems\":4},\"where\":{\"type\":\"object\","
    "\"properties\":{\"lat\":{\"type\":\"number\",\"minimum\":-90,\"maximum\":90},\"note\":{"
    "\"type\":["
    "\"string\",\"null\"],\"maxLength\":5}},\"required\":[\"lat\"]}},\"required\":[\"name\","
    "\"tags\"]}",
    "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\",\"pattern\":\"^[a-f]{2,40}$"
    "\"}}",
    "{\"type\":\"array\",\"minItems\":2,\"maxItems\":6,\"items\":{\"anyOf\":[{\"type\":\"string\","
    "\"format\":\"date\"},{\"type\":\"number\"},{\"type\":\"boolean\"},{\"type\":\"string\","
    "\"minLength\":"
    "300,\"maxLength\":310}]}}",
};

static uint64_t turn(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

/* One of the tokens allowed, by chance; -1: none. Answers are led to their end after some length.
 */
static int draw(const uint64_t *allow, int n_vocab, int n, uint64_t *seed)
{
    int count = 0, k = 0;
    if (allowed(allow, eos) && turn(seed) % 4 == 0)
        return eos;
    for (int i = 0; i < n_vocab; i++)
        count += allowed(allow, i);
    if (!count)
        return -1;
    int pick = (int)(turn(seed) % (uint64_t)count);
    for (const char *c = "\"]}"; n > 60 && *c; c++)
        if (allowed(allow, tok->byte_id[(unsigned char)*c]))
            return tok->byte_id[(unsigned char)*c];
    for (int i = 0; i < n_vocab; i++)
        if (allowed(allow, i) && k++ == pick)
            return i;
    return -1;
}

/* Whether the matcher takes a token, without taking it. */
static bool would_take(const struct matcher *m, int id)
{
    struct matcher *copy = matcher_clone(m);
    bool taken = matcher_take(copy, &id, 1) == 1;
    matcher_free(copy);
    return taken;
}

/* A random answer; text in *to. Something is allowed at every step, and of `tries` tokens by chance
 * the mask says whether they would be taken. False when it grew too long. */
static bool random_answer(struct grammar *g, uint64_t seed, int tries, char *to, size_t room)
{
    static uint64_t allow[MASK_WORDS];
    static int ids[WALK_TOKENS];
    int n = 0, id, n_vocab = tok_n_vocab(tok);
    struct matcher *m = matcher_new(g);
    assert_true(n_vocab <= 64 * MASK_WORDS);
    while (n < WALK_TOKENS) {
        assert_int_equal(matcher_mask(m, allow), 0);
        for (int i = 0; i < tries; i++) {
            id = (int)(turn(&seed) % (uint64_t)n_vocab);
            if (would_take(m, id) != allowed(allow, id))
                fail_msg("place %d, token %d: mask says %d", n, id, allowed(allow, id));
        }
        id = draw(allow, n_vocab, n, &seed);
        if (id < 0)
            fail_msg("nothing is allowed after %d tokens", n);
        assert_int_equal(matcher_take(m, &id, 1), 1);
        if (id == eos)
            break;
        ids[n++] = id;
    }
    bool complete = matcher_stopped(m);
    char *text = tok_decode(tok, ids, (size_t)n, false);
    snprintf(to, room, "%s", text);
    free(text);
    matcher_free(m);
    return complete;
}

/* Random answers to all schemas parse, and fit byte by byte; how many were complete. */
static int check_answers(int walks, int tries)
{
    static char text[1 << 16];
    int complete = 0;
    for (size_t i = 0; i <= COUNT(SCHEMAS); i++) {
        struct grammar_spec spec = SCHEMA(i < COUNT(SCHEMAS) ? SCHEMAS[i] : "{}");
        struct grammar *g = compiled(spec);
        for (int seed = 0; seed < walks; seed++) {
            struct err e;
            if (!random_answer(g, (uint64_t)seed, tries, text, sizeof(text)))
                continue;
            complete++;
            json_t *v = json_parse(text, strlen(text), "answer", &e);
            if (!v || !fits(g, text))
                fail_msg("schema %zu: %s", i, text);
            json_decref(v);
        }
        grammar_free(g);
    }
    print_message("%d of %d random answers were complete\n", complete, 4 * walks);
    return complete;
}

static void random_answers_are_json_and_fit_again(void **state)
{
    (void)state;
    assert_true(check_answers(40, 0) > 150);
}

/* The same with the tokens of a well-known model, which is where words straddle everything. */
static void with_tokens_of(const char *name, const char *end)
{
    struct tok *demo_tok = tok;
    struct grammar_vocab *demo_vocab = vocab;
    int demo_eos = eos;
    char path[512];
    struct err e;
    const char *shared = getenv("TANDEM_SHARED");
    snprintf(path, sizeof(path), "%s/data/tokenizers/%s", shared ? shared : "../shared", name);
    if (access(path, R_OK)) {
        print_message("skipped: no shared test data at %s\n", path);
        skip();
    }
    if (tok_load(path, &tok, &e))
        fail_msg("%s", e.text);
    eos = tok_id(tok, end);
    vocab = grammar_vocab_new(tok, tok_n_vocab(tok), &eos, 1);
    assert_true(check_answers(4, 40) > 12);
    grammar_vocab_free(vocab);
    tok_free(tok);
    tok = demo_tok, vocab = demo_vocab, eos = demo_eos;
}

static void answers_in_byte_level_tokens_are_json(void **state)
{
    (void)state;
    with_tokens_of("qwen3", "<|im_end|>");
}

static void answers_in_sentencepiece_tokens_are_json(void **state)
{
    (void)state;
    with_tokens_of("llama2", "</s>");
}

/* At every place of random answers: a token's bit says whether the matcher takes it. */
static void a_mask_says_for_every_token_whether_it_would_be_taken(void **state)
{
    const struct grammar_spec spec[] = {
        {.kind = GRAMMAR_SCHEMA, .text = SCHEMAS[0], .blanks = 1},
        {.kind = GRAMMAR_SCHEMA, .text = SCHEMAS[1], .blanks = 2},
        {.kind = GRAMMAR_SCHEMA, .text = SCHEMAS[2], .blanks = 3},
        EBNF("root ::= item{40,90}\nitem ::= [a-hA] | \"(\" item \" \" item \")\""),
        REGEX("([a-f]{2,5}-){9}(\\d\\d|xy?){1,300}"),
    };
    uint64_t allow[64], seed = 7;
    int n_vocab = tok_n_vocab(tok), places = 0;
    (void)state;
    for (size_t i = 0; i < COUNT(spec); i++) {
        struct grammar *g = compiled(spec[i]);
        for (int walk = 0; walk < 3; walk++) {
            struct matcher *m = matcher_new(g);
            for (int n = 0; n < 150 && !matcher_stopped(m); n++, places++) {
                assert_int_equal(matcher_mask(m, allow), 0);
                for (int id = 0; id < n_vocab; id++)
                    if (would_take(m, id) != allowed(allow, id))
                        fail_msg("grammar %zu, place %d, token %d: mask says %d", i, n, id,
                                 allowed(allow, id));
                int id = draw(allow, n_vocab, n, &seed);
                assert_true(id >= 0);
                assert_int_equal(matcher_take(m, &id, 1), 1);
            }
            matcher_free(m);
        }
        grammar_free(g);
    }
    print_message("%d places, %d tokens each\n", places, n_vocab);
    assert_true(places > 400);
}

static void rollback_equals_replay(void **state)
{
    uint64_t seed = 3, allow[64], again[64];
    struct grammar_spec spec = SCHEMA("{}");
    struct grammar *g = compiled(spec);
    struct matcher *m = matcher_new(g);
    int ids[400], n = 0;
    (void)state;
    for (int turns = 0; turns < 300; turns++) {
        int back = turn(&seed) % 3 == 0 ? (int)(turn(&seed) % (uint64_t)(n + 1)) / 3 : 0;
        matcher_rollback(m, back);
        n -= back;
        struct matcher *fresh = matcher_new(g);
        assert_int_equal(matcher_take(fresh, ids, n), n);
        assert_int_equal(matcher_mask(m, allow), 0);
        assert_int_equal(matcher_mask(fresh, again), 0);
        assert_memory_equal(allow, again, (size_t)(tok_n_vocab(tok) + 63) / 64 * 8);
        matcher_free(fresh);
        int id = draw(allow, tok_n_vocab(tok), n, &seed);
        if (id < 0 || n == 400)
            continue;
        assert_int_equal(matcher_take(m, &id, 1), 1);
        ids[n++] = id;
    }
    matcher_free(m);
    grammar_free(g);
}

static void forced_tokens_are_allowed_and_spell_what_must_come(void **state)
{
    struct grammar_spec spec =
        SCHEMA("{\"type\":\"object\",\"properties\":{\"temperature\":{\"type\":"
               "\"integer\"}},\"required\":[\"temperature\"]}");
    struct grammar *g = compiled(spec);
    struct matcher *m = matcher_new(g);
    int ids[32];
    (void)state;
    int n = matcher_forced(m, ids, 32);
    assert_in_range(n, 1, 31);
    assert_int_equal(matcher_take(m, ids, n), n);
    char *text = tok_decode(tok, ids, (size_t)n, false);
    assert_memory_equal(text, "{\"temperature\":", strlen(text));
    free(text);
    matcher_free(m);
    grammar_free(g);
}

static void an_end_comes_only_where_the_answer_may_end(void **state)
{
    static const char *const choice[] = {"a", "ab"};
    struct grammar *g =
        compiled((struct grammar_spec){.kind = GRAMMAR_CHOICE, .choice = choice, .n_choices = 2});
    struct matcher *m = matcher_new(g);
    (void)state;
    grammar_free(g); /* the matcher holds it */
    assert_int_equal(matcher_take(m, &eos, 1), 0);
    assert_int_equal(matcher_take(m, &tok->byte_id['a'], 1), 1);
    assert_true(matcher_accepting(m));
    assert_false(matcher_stopped(m));
    assert_int_equal(matcher_take(m, &eos, 1), 1);
    assert_true(matcher_stopped(m));
    assert_int_equal(matcher_take(m, &tok->byte_id['b'], 1), 0);
    matcher_rollback(m, 1);
    assert_int_equal(matcher_take(m, &tok->byte_id['b'], 1), 1);
    assert_true(matcher_stopped(m) && matcher_accepting(m));
    matcher_free(m);
}

/* ------------------------------------------------------------------------------- hostile */

static char *repeated(const char *head, const char *s, int n, const char *tail)
{
    size_t k = strlen(s), at = strlen(head);
    char *all = malloc(at + k * (size_t)n + strlen(tail) + 1);
    memcpy(all, head, at);
    for (int i = 0; i < n; i++, at += k)
        memcpy(all + at, s, k);
    strcpy(all + at, tail);
    return all;
}

static void bombs_are_refused_or_bounded(void **state)
{
    (void)state;
    char *deep = repeated("", "{\"items\":", 500, "{}");
    char *closed = repeated(deep, "}", 500, "");
    refused((struct grammar_spec)SCHEMA(closed), "nest more than 64");
    char *groups = repeated("", "(", 100, "");
    refused((struct grammar_spec)REGEX(groups), "nest too deeply");
    char *long_text = repeated("", "a", GRAMMAR_TEXT_MAX + 1, "");
    refused((struct grammar_spec)REGEX(long_text), "more than the 262144 allowed");
    char *nodes = repeated("", "\\S", 30000, "");
    refused((struct grammar_spec)REGEX(nodes), "make it smaller");
    free(deep), free(closed), free(groups), free(long_text), free(nodes);

    struct grammar *g = compiled((struct grammar_spec)SCHEMA(
        "{\"type\":\"string\",\"minLength\":0,\"maxLength\":1000000000}"));
    assert_true(fits(g, "\"short\""));
    grammar_free(g);
    /* Too many ways at once: a mask or a token says so, and nothing runs away. */
    g = compiled((struct grammar_spec)REGEX("((a{1,900}){1,900}){1,900}b"));
    struct matcher *m = matcher_new(g);
    uint64_t allow[64];
    int n = 0;
    while (n < 4000 && !matcher_mask(m, allow) && matcher_take(m, &tok->byte_id['a'], 1))
        n++;
    assert_non_null(matcher_error(m));
    assert_int_equal(matcher_mask(m, allow), -E2BIG);
    matcher_free(m);
    grammar_free(g);
}

/* Nesting beyond the limit is not allowed, and what was begun can always be completed, though each
 * level needs several more. */
static void depth_ends_before_there_is_no_way_back(void **state)
{
    static const char level[] = "[{\"a\":{\"b\":{\"c\":";
    struct grammar_spec spec = SCHEMA(
        "{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":"
        "\"object\",\"properties\":{\"b\":{\"type\":\"object\",\"properties\":{\"c\":{\"$ref\":"
        "\"#\"}},\"required\":[\"c\"]}},\"required\":[\"b\"]}},\"required\":[\"a\"]}}");
    struct grammar *g = compiled(spec);
    struct matcher *m = matcher_new(g);
    uint64_t allow[64], seed = 1;
    int n = 0, k = 0;
    (void)state;
    while (n < 9000 &&
           matcher_take(m, &tok->byte_id[(unsigned char)level[n % (int)(sizeof(level) - 1)]], 1))
        n++;
    assert_in_range(n, 1000, 8000);
    for (; k < 9000 && !matcher_stopped(m); k++) {
        assert_int_equal(matcher_mask(m, allow), 0);
        int id = draw(allow, tok_n_vocab(tok), 1000, &seed);
        assert_true(id >= 0);
        assert_int_equal(matcher_take(m, &id, 1), 1);
    }
    assert_true(matcher_stopped(m));
    matcher_free(m);
    grammar_free(g);
}

/* More states than are kept: they are forgotten, matchers go on, clones and rollbacks agree. */
static void forgotten_states_are_found_again(void **state)
{
    enum { LETTERS = 150000, EARLY = 1000 };
    struct grammar_spec spec = SCHEMA("{\"type\":\"string\",\"maxLength\":900000}");
    struct grammar *g = compiled(spec), *other = compiled(spec);
    struct matcher *m = matcher_new(g), *early = NULL, *fresh = matcher_new(other);
    uint64_t allow[64], want[64], first[64];
    size_t bytes = (size_t)(tok_n_vocab(tok) + 63) / 64 * sizeof(*allow);
    (void)state;
    assert_int_equal(matcher_mask(m, first), 0);
    assert_int_equal(matcher_take(m, &tok->byte_id['"'], 1), 1);
    assert_int_equal(matcher_take(fresh, &tok->byte_id['"'], 1), 1);
    assert_int_equal(matcher_mask(fresh, want), 0);
    for (int i = 0; i < LETTERS; i++) {
        assert_int_equal(matcher_take(m, &tok->byte_id['x'], 1), 1);
        if (i == EARLY)
            early = matcher_clone(m);
        if (i % 1000 == 0) {
            assert_int_equal(matcher_mask(m, allow), 0);
            assert_memory_equal(allow, want, bytes);
        }
    }
    assert_int_equal(matcher_take(early, &tok->byte_id['y'], 1), 1);
    matcher_rollback(m, LETTERS - EARLY);
    assert_int_equal(matcher_mask(m, allow), 0);
    assert_memory_equal(allow, want, bytes);
    matcher_rollback(m, EARLY + 1);
    assert_int_equal(matcher_mask(m, allow), 0);
    assert_memory_equal(allow, first, bytes);
    assert_int_equal(matcher_take(early, &tok->byte_id['"'], 1), 1);
    assert_true(matcher_stopped(early));
    matcher_free(early);
    matcher_free(m);
    matcher_free(fresh);
    grammar_free(g);
    grammar_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_answers_are_json_and_fit_again),
        cmocka_unit_test(answers_in_byte_level_tokens_are_json),
        cmocka_unit_test(answers_in_sentencepiece_tokens_are_json),
        cmocka_unit_test(a_mask_says_for_every_token_whether_it_would_be_taken),
        cmocka_unit_test(rollback_equals_replay),
        cmocka_unit_test(forced_tokens_are_allowed_and_spell_what_must_come),
        cmocka_unit_test(an_end_comes_only_where_the_answer_may_end),
        cmocka_unit_test(bombs_are_refused_or_bounded),
        cmocka_unit_test(depth_ends_before_there_is_no_way_back),
        cmocka_unit_test(forgotten_states_are_found_again),
    };
    return cmocka_run_group_tests(tests, open_demo, close_demo);
}
