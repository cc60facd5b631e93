/* test_grammar.c - what grammars admit and refuse, masks against trying every token, random answers
 * by the masks, rollback, tool calls in free text, and what hostile descriptions get. */
#include "text/grammar.h"
#include "text/vocab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

enum { WALK_TOKENS = 3000 };

static struct tok *tok;
static struct grammar_vocab *vocab;
static int eos;

static int open_demo(void **state)
{
    struct err e;
    (void)state;
    if (tok_load(SOURCE_DIR "/models/demo", &tok, &e))
        return -1;
    eos = tok_id(tok, "<|endoftext|>");
    vocab = grammar_vocab_new(tok, tok_n_vocab(tok), &eos, 1);
    return 0;
}

static int close_demo(void **state)
{
    (void)state;
    grammar_vocab_free(vocab);
    tok_free(tok);
    return 0;
}

/* ------------------------------------------------------------------------------- helpers */

static struct grammar *compiled(struct grammar_spec spec)
{
    struct grammar *g;
    struct err e;
    spec.n_text = spec.text ? strlen(spec.text) : 0;
    if (grammar_new(&spec, vocab, &g, &e))
        fail_msg("%s: %s", spec.text ? spec.text : "", e.text);
    return g;
}

/* How many bytes of a text fit, each as the token of one byte. */
static size_t fitting(struct grammar *g, const char *s, size_t n, bool *whole)
{
    struct matcher *m = matcher_new(g);
    size_t i = 0;
    while (i < n && matcher_take(m, &tok->byte_id[(unsigned char)s[i]], 1))
        i++;
    *whole = i == n && matcher_accepting(m);
    matcher_free(m);
    return i;
}

static bool fits(struct grammar *g, const char *s)
{
    bool whole;
    fitting(g, s, strlen(s), &whole);
    return whole;
}

struct row {
    struct grammar_spec spec;
    const char *yes[12], *no[12];
};

static void check_rows(const struct row *row, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct grammar *g = compiled(row[i].spec);
        for (int k = 0; k < 12 && row[i].yes[k]; k++)
            if (!fits(g, row[i].yes[k]))
                fail_msg("%s should admit %s", row[i].spec.text, row[i].yes[k]);
        for (int k = 0; k < 12 && row[i].no[k]; k++)
            if (fits(g, row[i].no[k]))
                fail_msg("%s should refuse %s", row[i].spec.text, row[i].no[k]);
        grammar_free(g);
    }
}

static void refused(struct grammar_spec spec, const char *because)
{
    struct grammar *g;
    struct err e;
    spec.n_text = spec.text ? strlen(spec.text) : 0;
    if (!grammar_new(&spec, vocab, &g, &e))
        fail_msg("%.200s should be refused", spec.text);
    if (!strstr(e.text, because))
        fail_msg("\"%s\" does not say \"%s\"", e.text, because);
}

#define SCHEMA(t)                                                                                  \
    {                                                                                              \
        .kind = GRAMMAR_SCHEMA, .text = t, .blanks = 1                                             \
    }
#define REGEX(t)                                                                                   \
    {                                                                                              \
        .kind = GRAMMAR_REGEX, .text = t                                                           \
    }
#define EBNF(t)                                                                                    \
    {                                                                                              \
        .kind = GRAMMAR_EBNF, .text = t                                                            \
    }

/* ------------------------------------------------------------------------------- schemas */

static void schemas_admit_what_they_say_and_nothing_else(void **state)
{
    static const struct row row[] = {
        {SCHEMA("{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":"
                "\"string\"},\"c\":{\"type\":\"boolean\"}},\"required\":[\"b\"]}"),
         {"{\"a\":1,\"b\":\"x\"}", "{\"b\": \"\"}", "{\"b\":\"\", \"c\":true}",
          "{\"a\": -20, \"b\": \"\\n\\u00e9\", \"c\": false}"},
         {"{}", "{\"a\":1}", "{\"b\":\"x\",\"a\":1}", "{\"b\":\"x\",\"d\":1}", "{\"b\":\"x\",}",
          "{\"b\":  \"x\"}", "{ \"b\":\"x\"}", "{\"b\":1}", "{\"a\":01,\"b\":\"\"}"}},
        {SCHEMA("{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"null\"}},"
                "\"additionalProperties\":{\"type\":\"integer\"}}"),
         {"{}", "{\"n\":null}", "{\"n\":null,\"nn\":1,\"m\":2}", "{\"\":3}", "{\"\xC3\xA9\":3}",
          "{\"m\\n\":3}"},
         {"{\"n\":1}", "{\"m\":null}", "{\"\\u006e\":1}", "{\"m\":1,\"n\":null}"}},
        {SCHEMA(
             "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}"),
         {"[1]", "[1,2]", "[1, 2,3]"},
         {"[]", "[1,2,3,4]", "[\"a\"]", "[1,]", "[,1]"}},
        {SCHEMA("{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"const\":\"x\"}],"
                "\"items\":{\"type\":\"null\"},\"maxItems\":3}"),
         {"[]", "[1]", "[1,\"x\"]", "[1, \"x\", null]"},
         {"[\"x\"]", "[1,null]", "[1,\"x\",null,null]"}},
        {SCHEMA("{\"enum\":[\"r\xC3\xA9\",1,2.5,null,[1,{\"a\":2}],\"q\\\"\"]}"),
         {"\"r\xC3\xA9\"", "1", "2.5", "null", "[1, {\"a\": 2}]", "[1,{\"a\":2}]", "\"q\\\"\""},
         {"\"r\"", "2", "[1]", "true"}},
        {SCHEMA("{\"type\":[\"string\",\"null\"],\"maxLength\":3,\"minLength\":2}"),
         {"\"ab\"", "\"a\xE2\x82\xAC\xF0\x9F\x98\x80\"", "\"\\n\\ud83d\\ude00\"", "null"},
         {"\"a\"", "\"abcd\"", "\"\\ud83d\"", "\"\xC3\"", "1"}},
        {SCHEMA("{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}"
                "]}"),
         {"1", "[]", "[1,[2,[]]]"},
         {"[", "[true]", "{}"}},
        {SCHEMA(
             "{\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"next\":{\"anyOf\":[{"
             "\"$ref\":\"#/$defs/node\"},{\"type\":\"null\"}]}},\"required\":[\"next\"]}},\"$ref\":"
             "\"#/$defs/node\"}"),
         {"{\"next\":null}", "{\"next\":{\"next\":null}}"},
         {"{}", "{\"next\":{}}"}},
        {SCHEMA("{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"number\"}}},{"
                "\"properties\":{\"a\":{\"minimum\":3},\"b\":{\"const\":true}},\"required\":[\"b\"]"
                "}]}"),
         {"{\"a\":3.5,\"b\":true}", "{\"b\":true}"},
         {"{\"a\":2,\"b\":true}", "{\"a\":3}", "{\"a\":\"\",\"b\":true}"}},
        {SCHEMA(
             "{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"integer\"}},\"anyOf\":[{"
             "\"properties\":{\"x\":{\"const\":1}},\"required\":[\"x\"]},{\"properties\":{\"y\":{"
             "\"const\":2}},\"required\":[\"y\"]}]}"),
         {"{\"k\":5,\"x\":1}", "{\"y\":2}"},
         {"{\"k\":5}", "{\"x\":2}", "{\"x\":1,\"y\":2}"}},
        {SCHEMA("{}"),
         {"{}", "[1, \"a\", {\"b\": null}]", "-1.5e3", "true", "\"\""},
         {"", "nul", "{\"a\"}", "+1", ".5", "1.", "--1"}},
        {SCHEMA("{\"type\":\"object\"}"), {"{}", "{\"a\": [1]}"}, {"[]", "1"}},
        {SCHEMA("{\"type\":\"integer\",\"nullable\":true,\"minimum\":5,\"maximum\":120}"),
         {"5", "9", "10", "99", "100", "120", "null"},
         {"4", "121", "05", "500", "-6", "5.0", "1"}},
        {SCHEMA("{\"type\":\"string\",\"pattern\":\"^[a-c]+\\\\d{2,3}$\"}"),
         {"\"a12\"", "\"abc123\""},
         {"\"12\"", "\"a1\"", "\"a1234\"", "\"xa12\""}},
        {SCHEMA("{\"type\":\"string\",\"pattern\":\"b[\\\"\\\\n]\"}"),
         {"\"b\\n\"", "\"ab\\\"c\"", "\"b\\\"\""},
         {"\"b\"", "\"b\"\"", "\"bn\""}},
        {SCHEMA("{\"type\":\"string\",\"format\":\"date-time\"}"),
         {"\"2024-02-30T23:59:59Z\"", "\"1999-12-31T00:00:00.25+02:00\""},
         {"\"2024-13-01T00:00:00Z\"", "\"2024-02-30\"", "\"\""}},
        {SCHEMA("{\"type\":\"string\",\"format\":\"ipv4\"}"),
         {"\"0.0.0.0\"", "\"255.255.255.255\""},
         {"\"256.1.1.1\"", "\"1.1.1\"", "\"01.1.1.1\""}},
        {SCHEMA("{\"type\":\"string\",\"format\":\"uuid\"}"),
         {"\"123e4567-e89b-12d3-a456-426614174000\""},
         {"\"123e4567e89b12d3a456426614174000\""}},
        {SCHEMA("{\"type\":\"string\",\"format\":\"email\"}"),
         {"\"a.b@example.org\""},
         {"\"a.b@org\"", "\"@example.org\"", "\"a b@example.org\""}},
    };
    (void)state;
    check_rows(row, COUNT(row));
}

/* Every number of a grid of texts against the bounds, as values. */
static void bounded_numbers_are_those_within_the_bounds(void **state)
{
    static const double bound[] = {-120.5, -100, -7, -0.25, 0, 0.1, 0.5, 1, 9, 10, 99.75, 1000};
    char schema[256], text[64];
    (void)state;
    for (size_t a = 0; a < COUNT(bound); a++)
        for (size_t b = a; b < COUNT(bound); b++)
            for (int open = 0; open < 4; open++)
                for (int integer = 0; integer < 2; integer++) {
                    double lo = bound[a], hi = bound[b], ceil_lo = (double)(long long)lo;
                    ceil_lo += ceil_lo < lo || (open & 1 && ceil_lo == lo);
                    bool some =
                        integer ? ceil_lo < hi || (ceil_lo == hi && !(open & 2)) : lo < hi || !open;
                    if (!some)
                        continue;
                    snprintf(schema, sizeof(schema), "{\"type\":\"%s\",\"%s\":%.17g,\"%s\":%.17g}",
                             integer ? "integer" : "number",
                             open & 1 ? "exclusiveMinimum" : "minimum", lo,
                             open & 2 ? "exclusiveMaximum" : "maximum", hi);
                    struct grammar_spec spec = SCHEMA(schema);
                    struct grammar *g = compiled(spec);
                    for (int v = -13000; v <= 101000; v += v > -800 && v < 1300 ? 5 : 125) {
                        double x = v / 100.0;
                        bool want = (open & 1 ? x > lo : x >= lo) && (open & 2 ? x < hi : x <= hi);
                        if (integer && v % 100)
                            continue;
                        snprintf(text, sizeof(text),
                                 integer  ? "%.0f"
                                 : v % 10 ? "%.2f"
                                          : "%.1f",
                                 x);
                        if (fits(g, text) != want)
                            fail_msg("%s: %s", schema, text);
                    }
                    grammar_free(g);
                }
}

static void blanks_are_as_many_as_configured(void **state)
{
    static const char *const schema =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"array\"}}}";
    struct grammar *none = compiled((struct grammar_spec){.kind = GRAMMAR_SCHEMA, .text = schema});
    struct grammar *some =
        compiled((struct grammar_spec){.kind = GRAMMAR_SCHEMA, .text = schema, .blanks = 3});
    (void)state;
    assert_true(fits(none, "{\"a\":[1,2]}"));
    assert_false(fits(none, "{\"a\": [1,2]}"));
    assert_true(fits(some, "{\n  \"a\" : [\n 1 ,\t2]\n}"));
    assert_false(fits(some, "{\n   \"a\":[]}"));
    assert_false(fits(some, "{\"a\":[1    ,2]}"));
    grammar_free(none);
    grammar_free(some);
}

static void what_is_not_supported_is_refused_by_name_and_place(void **state)
{
    static const struct {
        const char *schema, *because;
    } row[] = {
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"not\":{}}}}",
         "#/properties/a: the keyword \"not\""},
        {"{\"type\":\"array\",\"uniqueItems\":true}", "uniqueItems"},
        {"{\"type\":\"integer\",\"multipleOf\":3}", "multipleOf"},
        {"{\"type\":\"thing\"}", "type \"thing\" is unknown"},
        {"{\"$ref\":\"#/$defs/a\"}", "leads nowhere"},
        {"{\"$ref\":\"http://example.org\"}", "only references within"},
        {"{\"$ref\":\"#\"}", "leads back to itself"},
        {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "leads back to itself"},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
         "nothing can fulfil"},
        {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", "nothing can fulfil"},
        {"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", "maxLength"},
        {"{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"b\"]}",
         "required but not"},
        {"{\"type\":\"string\",\"pattern\":\"a(?=b)\"}", "looking around"},
        {"{\"type\":\"string\",\"pattern\":\"(a\"}", "never closed"},
        {"{\"type\":\"string\",\"pattern\":\"\\\\bword\"}", "not supported"},
        {"{\"type\":\"string\",\"pattern\":\"a\",\"maxLength\":3}", "beside pattern"},
        {"{\"enum\":[]}", "enum has no value"},
        {"{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"a\":{}},\"allOf\":["
         "{"
         "\"properties\":{\"b\":{}}}]}",
         "forbids"},
        {"{\"allOf\":[{\"pattern\":\"a\"},{\"pattern\":\"b\"}]}", "\"pattern\" cannot be joined"},
        {"false", "nothing fulfils"},
        {"[1]", "must be an object or true"},
        {"{\"type\":", "line 1"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct grammar_spec spec = SCHEMA(row[i].schema);
        refused(spec, row[i].because);
    }
}

/* ------------------------------------------------------------------------------- other kinds */

static void patterns_choices_and_grammars_admit_what_they_say(void **state)
{
    static const char *const choice[] = {"yes", "no", "nobody"};
    static const struct row row[] = {
        {REGEX("(foo|ba[rz])+-?\\d{2,}"), {"foo12", "barbaz-123"}, {"foo", "foo1", "12", "fo12"}},
        {REGEX("^[^a-y\\s]{1,2}$"), {"z", "Z\xC3\xA9", "\xF0\x9F\x98\x80"}, {"", "a", "z ", "zzz"}},
        {REGEX("(a{0,1000}){0,3}b*"), {"", "aaab"}, {"ba"}},
        {REGEX("x(?:y|)z??"), {"x", "xy", "xyz", "xz"}, {"y"}},
        {REGEX("[\\u00e0-\\u00ff\\x41]\\.\\u{"), {NULL}, {NULL}},
        {EBNF("root ::= item (\",\" item){0,2} # three\nitem ::= \"a\\n\" | [0-9]+ | \"(\" root "
              "\")\"\n"),
         {"1", "a\n,22", "(1,2,3),4"},
         {"", "1,", "1,2,3,4", "a"}},
        {EBNF("root ::= \"x\" root | \"y\""), {"y", "xxxy"}, {"x", "yy"}},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(row); i++)
        if (i != 2 && i != 4)
            check_rows(&row[i], 1);
    refused(row[2].spec, "may be empty");
    refused(row[4].spec, "not supported");
    struct grammar_spec spec = {.kind = GRAMMAR_CHOICE, .choice = choice, .n_choices = 3};
    struct grammar *g = compiled(spec);
    assert_true(fits(g, "yes") && fits(g, "no") && fits(g, "nobody"));
    assert_false(fits(g, "nob") || fits(g, "") || fits(g, "yesno"));
    grammar_free(g);
    refused((struct grammar_spec)EBNF("root ::= root \"a\" | \"b\""), "leads back to itself");
    refused((struct grammar_spec)EBNF("root ::= a"), "no rule a");
    refused((struct grammar_spec)EBNF("a ::= \"b\""), "no rule root");
    refused((struct grammar_spec)EBNF("root ::= \"b"), "line 1");
}

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
    if (allow[eos >> 6] >> (eos & 63) & 1 && turn(seed) % 4 == 0)
        return eos;
    for (int i = 0; i < n_vocab; i++)
        count += allow[i >> 6] >> (i & 63) & 1;
    if (!count)
        return -1;
    int pick = (int)(turn(seed) % (uint64_t)count), last = -1;
    for (int i = 0; i < n_vocab; i++)
        if (allow[i >> 6] >> (i & 63) & 1) {
            size_t length;
            const char *s = tok_bytes(tok, i, &length);
            bool closes = length == 1 && (strchr("\"]}", *s) != NULL);
            if (k++ == pick || (n > 60 && closes))
                last = last < 0 || closes ? i : last;
        }
    return last;
}

/* A random answer; text in *to. Masks allowed a token at every step. */
static bool random_answer(struct grammar *g, uint64_t seed, char *to, size_t room)
{
    uint64_t allow[64];
    int ids[WALK_TOKENS], n = 0, id;
    struct matcher *m = matcher_new(g);
    assert_true(tok_n_vocab(tok) <= 64 * 64);
    while (n < WALK_TOKENS) {
        assert_int_equal(matcher_mask(m, allow), 0);
        id = draw(allow, tok_n_vocab(tok), n, &seed);
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

static void random_answers_are_json_and_fit_again(void **state)
{
    static char text[1 << 16];
    int complete = 0;
    (void)state;
    for (size_t i = 0; i <= COUNT(SCHEMAS); i++) {
        struct grammar_spec spec = SCHEMA(i < COUNT(SCHEMAS) ? SCHEMAS[i] : "{}");
        struct grammar *g = compiled(spec);
        for (uint64_t seed = 0; seed < 40; seed++) {
            struct err e;
            if (!random_answer(g, seed, text, sizeof(text)))
                continue;
            complete++;
            json_t *v = json_parse(text, strlen(text), "answer", &e);
            if (!v || !fits(g, text))
                fail_msg("%s: %s", SCHEMAS[i], text);
            json_decref(v);
        }
        grammar_free(g);
    }
    print_message("%d of 160 random answers were complete\n", complete);
    assert_true(complete > 120);
}

/* At every place of random answers: a token's bit says whether the matcher takes it. */
static void a_mask_says_for_every_token_whether_it_would_be_taken(void **state)
{
    uint64_t allow[64], seed = 7;
    int n_vocab = tok_n_vocab(tok), places = 0;
    (void)state;
    for (size_t i = 0; i < COUNT(SCHEMAS); i++) {
        struct grammar_spec spec = SCHEMA(SCHEMAS[i]);
        spec.blanks = (int)i + 1;
        struct grammar *g = compiled(spec);
        for (int walk = 0; walk < 3; walk++) {
            struct matcher *m = matcher_new(g);
            for (int n = 0; n < 150 && !matcher_stopped(m); n++, places++) {
                assert_int_equal(matcher_mask(m, allow), 0);
                for (int id = 0; id < n_vocab; id++) {
                    struct matcher *copy = matcher_clone(m);
                    bool taken = matcher_take(copy, &id, 1) == 1;
                    matcher_free(copy);
                    if (taken != (allow[id >> 6] >> (id & 63) & 1))
                        fail_msg("schema %zu, place %d, token %d: taken %d", i, n, id, taken);
                }
                int id = draw(allow, n_vocab, n, &seed);
                assert_true(id >= 0);
                assert_int_equal(matcher_take(m, &id, 1), 1);
            }
            matcher_free(m);
        }
        grammar_free(g);
    }
    print_message("%d places, %d tokens each\n", places, n_vocab);
    assert_true(places > 200);
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

/* ------------------------------------------------------------------------------- tool calls */

#define ARGUMENTS                                                                                  \
    "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}},\"required\":[\"n\"]}"

static void tags_are_constrained_and_the_text_around_them_is_free(void **state)
{
    static const struct grammar_tag tag[] = {
        {"<call>\n{\"name\": \"add\", \"arguments\": ", ARGUMENTS, "}\n</call>"},
        {"<call>\n{\"name\": \"now\", \"arguments\": ", NULL, "}\n</call>"}};
    struct grammar_spec spec = {
        .kind = GRAMMAR_TAGS, .trigger = "<call>\n", .tag = tag, .n_tags = 2};
    static const char add[] = "<call>\n{\"name\": \"add\", \"arguments\": {\"n\":1}}\n</call>";
    char text[256];
    struct grammar *g = compiled(spec);
    (void)state;
    assert_true(fits(g, "") && fits(g, "Just <b>text</b> <call> \xC3") && fits(g, add));
    snprintf(text, sizeof(text), "Hm. <<call%s and %s", add, add);
    assert_true(fits(g, text));
    assert_false(fits(g, "<call>\nfree"));
    assert_false(fits(g, "a <<call>\n{\"name\": \"sub\""));
    assert_false(fits(g, "<call>\n{\"name\": \"add\", \"arguments\": {}}\n</call>"));
    assert_true(fits(g, "<call>\n{\"name\": \"now\", \"arguments\": {}}\n</call>"));
    grammar_free(g);

    spec.at_least_one = true;
    g = compiled(spec);
    assert_false(fits(g, "") || fits(g, "text"));
    assert_true(fits(g, text));
    grammar_free(g);

    spec.at_once = spec.once = true;
    g = compiled(spec);
    assert_true(fits(g, add));
    assert_false(fits(g, text) || fits(g, "text"));
    snprintf(text, sizeof(text), "%s\n%s", add, add);
    assert_false(fits(g, text));
    spec.once = false;
    grammar_free(g);
    g = compiled(spec);
    assert_true(fits(g, text));
    grammar_free(g);

    spec.after = "</think>";
    g = compiled(spec);
    assert_false(fits(g, add));
    snprintf(text, sizeof(text), "<think>Hm <call>\n?</think>%s", add);
    assert_true(fits(g, text));
    grammar_free(g);
}

/* A marker may be one added token, special or not; elsewhere special tokens are never allowed. */
static void markers_may_come_as_special_tokens(void **state)
{
    const struct grammar_tag tag = {"<|im_start|>[", ARGUMENTS, "]<|im_end|>"};
    struct grammar_spec spec = {
        .kind = GRAMMAR_TAGS, .trigger = "<|im_start|>", .tag = &tag, .n_tags = 1};
    int start = tok_id(tok, "<|im_start|>"), end = tok_id(tok, "<|im_end|>");
    uint64_t allow[64];
    (void)state;
    struct grammar *g = compiled(spec);
    struct matcher *m = matcher_new(g);
    assert_true(start > 0 && end > 0);
    assert_int_equal(matcher_take(m, &tok->byte_id['x'], 1), 1);
    assert_int_equal(matcher_mask(m, allow), 0);
    assert_true(allow[start >> 6] >> (start & 63) & 1);
    assert_false(allow[end >> 6] >> (end & 63) & 1);
    assert_int_equal(matcher_take(m, &end, 1), 0);
    assert_int_equal(matcher_take(m, &start, 1), 1);
    for (const char *s = "[{\"n\":1}]"; *s; s++)
        assert_int_equal(matcher_take(m, &tok->byte_id[(unsigned char)*s], 1), 1);
    assert_int_equal(matcher_take(m, &start, 1), 0);
    assert_int_equal(matcher_take(m, &end, 1), 1);
    assert_true(matcher_accepting(m));
    matcher_free(m);
    grammar_free(g);
    assert_true(fits(g = compiled(spec), "a<|im_start|>[{\"n\":1}]<|im_end|>"));
    grammar_free(g);
    struct grammar_spec json = SCHEMA("{\"type\":\"string\"}");
    g = compiled(json);
    m = matcher_new(g);
    assert_int_equal(matcher_take(m, &tok->byte_id['"'], 1), 1);
    assert_int_equal(matcher_mask(m, allow), 0);
    assert_false(allow[start >> 6] >> (start & 63) & 1);
    matcher_free(m);
    grammar_free(g);
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

/* Nesting beyond the limit is not allowed, and what was begun can always be completed. */
static void depth_ends_before_there_is_no_way_back(void **state)
{
    struct grammar_spec spec = SCHEMA("{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}");
    struct grammar *g = compiled(spec);
    struct matcher *m = matcher_new(g);
    int n = 0, k = 0;
    (void)state;
    while (n < 5000 && matcher_take(m, &tok->byte_id['['], 1))
        n++;
    assert_in_range(n, 100, 2000);
    while (!matcher_stopped(m) && matcher_take(m, &tok->byte_id[']'], 1))
        k++;
    assert_int_equal(k, n);
    matcher_free(m);
    grammar_free(g);
}

/* More states than are kept: they are forgotten, matchers go on, clones and rollbacks agree. */
static void forgotten_states_are_found_again(void **state)
{
    struct grammar_spec spec = SCHEMA("{\"type\":\"string\",\"maxLength\":900000}");
    struct grammar *g = compiled(spec);
    struct matcher *m = matcher_new(g), *early = NULL;
    (void)state;
    assert_int_equal(matcher_take(m, &tok->byte_id['"'], 1), 1);
    for (int i = 0; i < 150000; i++) {
        assert_int_equal(matcher_take(m, &tok->byte_id['x'], 1), 1);
        if (i == 1000)
            early = matcher_clone(m);
    }
    assert_int_equal(matcher_take(early, &tok->byte_id['y'], 1), 1);
    matcher_rollback(m, 149000);
    assert_int_equal(matcher_take(m, &tok->byte_id['"'], 1), 1);
    assert_true(matcher_stopped(m));
    matcher_free(early);
    matcher_free(m);
    grammar_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schemas_admit_what_they_say_and_nothing_else),
        cmocka_unit_test(bounded_numbers_are_those_within_the_bounds),
        cmocka_unit_test(blanks_are_as_many_as_configured),
        cmocka_unit_test(what_is_not_supported_is_refused_by_name_and_place),
        cmocka_unit_test(patterns_choices_and_grammars_admit_what_they_say),
        cmocka_unit_test(random_answers_are_json_and_fit_again),
        cmocka_unit_test(a_mask_says_for_every_token_whether_it_would_be_taken),
        cmocka_unit_test(rollback_equals_replay),
        cmocka_unit_test(forced_tokens_are_allowed_and_spell_what_must_come),
        cmocka_unit_test(an_end_comes_only_where_the_answer_may_end),
        cmocka_unit_test(tags_are_constrained_and_the_text_around_them_is_free),
        cmocka_unit_test(markers_may_come_as_special_tokens),
        cmocka_unit_test(bombs_are_refused_or_bounded),
        cmocka_unit_test(depth_ends_before_there_is_no_way_back),
        cmocka_unit_test(forgotten_states_are_found_again),
    };
    return cmocka_run_group_tests(tests, open_demo, close_demo);
}
