/* test_grammar.c - what grammars admit and what they refuse: schemas, numbers within bounds,
 * patterns, EBNF, choices, tool calls in free text; and which descriptions are refused, and why. */
#include "grammar_help.h"

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
        {SCHEMA("{\"allOf\":[{\"type\":[\"integer\",\"string\"],\"minimum\":2,\"maximum\":8},{"
                "\"type\":"
                "\"number\",\"minimum\":4,\"maximum\":9}]}"),
         {"4", "8"},
         {"3", "9", "4.5", "\"\""}},
        {SCHEMA("{}"),
         {"{}", "[1, \"a\", {\"b\": null}]", "-1.5e3", "true", "\"\""},
         {"", "nul", "{\"a\"}", "+1", ".5", "1.", "--1"}},
        {SCHEMA("{\"type\":\"object\"}"), {"{}", "{\"a\": [1]}"}, {"[]", "1"}},
        {SCHEMA("{\"type\":\"integer\",\"nullable\":true,\"minimum\":5,\"maximum\":120}"),
         {"5", "9", "10", "99", "100", "120", "null"},
         {"4", "121", "05", "500", "-6", "5.0", "1"}},
    };
    (void)state;
    check_rows(row, COUNT(row));
}

static void schemas_of_strings_admit_what_they_say_and_nothing_else(void **state)
{
    static const struct row row[] = {
        {SCHEMA("{\"type\":\"string\",\"pattern\":\"^[a-c]+\\\\d{2,3}$\"}"),
         {"\"a12\"", "\"abc123\""},
         {"\"12\"", "\"a1\"", "\"a1234\"", "\"xa12\""}},
        {SCHEMA("{\"type\":\"string\",\"pattern\":\"b[\\\"\\\\n]\"}"),
         {"\"b\\n\"", "\"ab\\\"c\"", "\"b\\\"\""},
         {"\"b\"", "\"b\"\"", "\"bn\""}},
        {SCHEMA("{\"type\":\"string\",\"format\":\"date-time\"}"),
         {"\"2024-02-29T23:59:59Z\"", "\"1999-12-31T00:00:00.25+02:00\""},
         {"\"2024-13-01T00:00:00Z\"", "\"2024-02-28\"", "\"\"", "\"1900-02-29T00:00:00Z\"",
          "\"2023-02-29T00:00:00Z\"", "\"2024-04-31T00:00:00Z\""}},
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schemas_admit_what_they_say_and_nothing_else),
        cmocka_unit_test(schemas_of_strings_admit_what_they_say_and_nothing_else),
        cmocka_unit_test(bounded_numbers_are_those_within_the_bounds),
        cmocka_unit_test(blanks_are_as_many_as_configured),
        cmocka_unit_test(what_is_not_supported_is_refused_by_name_and_place),
        cmocka_unit_test(patterns_choices_and_grammars_admit_what_they_say),
        cmocka_unit_test(tags_are_constrained_and_the_text_around_them_is_free),
        cmocka_unit_test(markers_may_come_as_special_tokens),
    };
    return cmocka_run_group_tests(tests, open_demo, close_demo);
}
