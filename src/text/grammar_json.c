/* grammar_json.c - what JSON is made of: values, objects, strings, blanks. Numbers within bounds
 * are in grammar_number.c. See grammar_rules.h. */
#include "text/grammar_rules.h"

enum { WHOLE_DIGITS = 18, FRACTION_DIGITS = 18, EXPONENT_DIGITS = 2 };

struct json_rules json_rules_of(struct rules *r, int blanks)
{
    return (struct json_rules){r, blanks, -1, -1, -1, -1, -1, -1, -1, -1};
}

/* ------------------------------------------------------------------------------- blanks */

/* Never endless: a model that may write blanks for ever sometimes does. */
static int blanks(struct json_rules *j, int from)
{
    struct rules *r = j->r;
    if (j->blank < 0) {
        j->blank = rules_new(r);
        struct rule b = r->rule[j->blank];
        rules_bytes(r, b.start, ' ', ' ', b.end);
        rules_bytes(r, b.start, '\t', '\n', b.end);
    }
    return rules_repeat(r, from, j->blank, 0, j->blanks, true);
}

int blank_after(struct json_rules *j, int from)
{
    if (j->blanks > 1)
        return blanks(j, from);
    if (j->blanks == 1) {
        int to = rules_text(j->r, from, " ", 1);
        rules_empty(j->r, from, to);
        return to;
    }
    return from;
}

int blank_inside(struct json_rules *j, int from) { return j->blanks > 1 ? blanks(j, from) : from; }

/* ------------------------------------------------------------------------------- strings */

static int hex_digit(struct rules *r, int from, const char *set)
{
    int to = rules_node(r);
    for (; *set; set++)
        rules_bytes(r, from, (unsigned char)*set, (unsigned char)*set, to);
    return to;
}

static void hex_digits(struct rules *r, int from, int n, int to)
{
    for (int i = 0; i < n; i++) {
        int next = i + 1 < n ? rules_node(r) : to;
        rules_bytes(r, from, '0', '9', next);
        rules_bytes(r, from, 'A', 'F', next);
        rules_bytes(r, from, 'a', 'f', next);
        from = next;
    }
}

/* One character of a string: itself, or escaped; surrogates in pairs only. */
static void letter(struct rules *r, int from, int to)
{
    struct chars plain = {0};
    chars_add(&r->pool, &plain, 0x20, '"' - 1);
    chars_add(&r->pool, &plain, '"' + 1, '\\' - 1);
    chars_add(&r->pool, &plain, '\\' + 1, 0x10FFFF);
    rules_empty(r, chars_emit(r, from, &plain, false), to);
    int slash = rules_text(r, from, "\\", 1);
    rules_empty(r, hex_digit(r, slash, "\"\\/bfnrt"), to);
    int u = rules_text(r, slash, "u", 1);
    hex_digits(r, hex_digit(r, u, "0123456789ABCEFabcef"), 3, to);
    int d = hex_digit(r, u, "dD");
    hex_digits(r, hex_digit(r, d, "01234567"), 2, to);
    int high = hex_digit(r, d, "89abAB"), low = rules_node(r);
    hex_digits(r, high, 2, low);
    low = hex_digit(r, rules_text(r, low, "\\u", 2), "dD");
    hex_digits(r, hex_digit(r, low, "cdefCDEF"), 2, to);
}

int string_rest(struct json_rules *j, int from)
{
    letter(j->r, from, from);
    return rules_text(j->r, from, "\"", 1);
}

int string_emit(struct json_rules *j, int from, int min, int max)
{
    struct rules *r = j->r;
    int at = rules_text(r, from, "\"", 1);
    if (min == 0 && max == ENDLESS)
        return string_rest(j, at);
    if (j->letter < 0) {
        j->letter = rules_new(r);
        letter(r, r->rule[j->letter].start, r->rule[j->letter].end);
    }
    return rules_text(r, rules_repeat(r, at, j->letter, min, max, true), "\"", 1);
}

int string_rule(struct json_rules *j)
{
    struct rules *r = j->r;
    if (j->string < 0) {
        j->string = rules_new(r);
        rules_empty(r, string_emit(j, r->rule[j->string].start, 0, ENDLESS),
                    r->rule[j->string].end);
    }
    return j->string;
}

/* ------------------------------------------------------------------------------- numbers */

/* 1 to most digits; every one may be the last. */
static int digits(struct rules *r, int from, int most, int to)
{
    for (int i = 0; i < most; i++) {
        int next = rules_node(r);
        rules_bytes(r, from, '0', '9', next);
        rules_empty(r, next, to);
        from = next;
    }
    return to;
}

int number_rule(struct json_rules *j, bool integer)
{
    struct rules *r = j->r;
    int *rule = integer ? &j->integer : &j->number;
    if (*rule >= 0)
        return *rule;
    *rule = rules_new(r);
    int start = r->rule[*rule].start, end = r->rule[*rule].end;
    int minus = rules_text(r, start, "-", 1), whole = rules_node(r);
    if (!integer)
        rules_bytes(r, minus, '0', '0', whole);
    rules_bytes(r, start, '0', '0', whole);
    int lead = rules_node(r);
    rules_bytes(r, start, '1', '9', lead);
    rules_bytes(r, minus, '1', '9', lead);
    rules_empty(r, lead, whole);
    digits(r, lead, WHOLE_DIGITS - 1, whole);
    rules_empty(r, whole, end);
    if (integer)
        return *rule;
    int fraction = digits(r, rules_text(r, whole, ".", 1), FRACTION_DIGITS, rules_node(r));
    int mantissa = rules_node(r), power = rules_node(r), sign = rules_node(r);
    rules_empty(r, whole, mantissa);
    rules_empty(r, fraction, mantissa);
    rules_empty(r, mantissa, end);
    rules_bytes(r, mantissa, 'E', 'E', power);
    rules_bytes(r, mantissa, 'e', 'e', power);
    rules_empty(r, power, sign);
    rules_bytes(r, power, '+', '+', sign);
    rules_bytes(r, power, '-', '-', sign);
    digits(r, sign, EXPONENT_DIGITS, end);
    return *rule;
}

/* ------------------------------------------------------------------------------- values */

/* open (item (, item)*)? close; item: what follows from one node to another. */
static void list(struct json_rules *j, int rule, char open, char close, int item_from, int item_to)
{
    struct rules *r = j->r;
    int at = blank_inside(j, rules_text(r, r->rule[rule].start, &open, 1));
    rules_empty(r, at, item_from);
    int before = blank_inside(j, item_to);
    int comma = rules_text(r, before, ",", 1);
    rules_empty(r, blank_after(j, comma), item_from);
    rules_bytes(r, before, close, close, r->rule[rule].end);
    rules_bytes(r, at, close, close, r->rule[rule].end);
}

int object_rule(struct json_rules *j)
{
    struct rules *r = j->r;
    if (j->object >= 0)
        return j->object;
    j->object = rules_new(r);
    int from = rules_node(r), at = rules_call(r, from, string_rule(j));
    at = blank_after(j, rules_text(r, blank_inside(j, at), ":", 1));
    list(j, j->object, '{', '}', from, rules_call(r, at, value_rule(j)));
    return j->object;
}

int array_rule(struct json_rules *j)
{
    struct rules *r = j->r;
    if (j->array >= 0)
        return j->array;
    j->array = rules_new(r);
    int from = rules_node(r);
    list(j, j->array, '[', ']', from, rules_call(r, from, value_rule(j)));
    return j->array;
}

int value_rule(struct json_rules *j)
{
    static const char *const word[] = {"true", "false", "null"};
    struct rules *r = j->r;
    if (j->value >= 0)
        return j->value;
    j->value = rules_new(r);
    int start = r->rule[j->value].start, end = r->rule[j->value].end;
    int rule[] = {string_rule(j), number_rule(j, false), object_rule(j), array_rule(j)};
    for (size_t i = 0; i < COUNT(rule); i++)
        rules_empty(r, rules_call(r, start, rule[i]), end);
    for (size_t i = 0; i < COUNT(word); i++)
        rules_empty(r, rules_text(r, start, word[i], strlen(word[i])), end);
    return j->value;
}
