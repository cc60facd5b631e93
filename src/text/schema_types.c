/* schema_types.c - objects, arrays, strings, numbers and literal values of JSON Schema. See
 * grammar_schema.h. */
#include "text/grammar_schema.h"

/* ------------------------------------------------------------------------------- literals */

static int text_of(struct schema *s, int from, const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    must(text);
    int to = rules_text(s->r, from, text, strlen(text));
    free(text);
    return to;
}

int schema_literal(struct schema *s, int from, const json_t *value, int depth, int place)
{
    struct rules *r = s->r;
    const char *key;
    json_t *v;
    size_t i;
    if (depth > GRAMMAR_NESTING_MAX) {
        schema_fail(s, place, "a value nests more than %d deep", GRAMMAR_NESTING_MAX);
        return from;
    }
    if (!json_is_object(value) && !json_is_array(value))
        return text_of(s, from, value);
    bool object = json_is_object(value), first = true;
    int at = blank_inside(&s->json, rules_text(r, from, object ? "{" : "[", 1));
    if (object)
        json_object_foreach((json_t *)value, key, v)
        {
            if (!first)
                at = blank_after(&s->json, rules_text(r, at, ",", 1));
            first = false;
            json_t *name = json_string(key);
            at = blank_inside(&s->json, text_of(s, at, name));
            json_decref(name);
            at = blank_after(&s->json, rules_text(r, at, ":", 1));
            at = blank_inside(&s->json, schema_literal(s, at, v, depth + 1, place));
        }
    else
        json_array_foreach(value, i, v)
        {
            if (i)
                at = blank_after(&s->json, rules_text(r, at, ",", 1));
            at = blank_inside(&s->json, schema_literal(s, at, v, depth + 1, place));
        }
    return rules_text(r, at, object ? "}" : "]", 1);
}

/* ------------------------------------------------------------------------------- objects */

static bool is_required(const json_t *o, const char *key)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(o, "required"), i, v)
    {
        if (json_is_string(v) && !strcmp(json_string_value(v), key))
            return true;
    }
    return false;
}

/* Names in the order of their bytes, to be told apart letter by letter. */
struct names {
    const char **at;
    int n;
};

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names that begin alike, up to `depth` bytes, which were read on the way to `node`. */
struct branch {
    int node, lo, hi;
    size_t depth;
};

/* One more letter of a name: where it goes on like others, and where it is free from now on. */
static int branch_off(struct schema *s, struct branch b, struct names names, int rest, int beyond,
                      struct branch *to)
{
    struct rules *r = s->r;
    struct chars set = {0};
    bool ascii = true;
    int n = 0;
    chars_add(&r->pool, &set, 0, 0x1F);
    chars_add(&r->pool, &set, '"', '"');
    chars_add(&r->pool, &set, '\\', '\\');
    for (int i = b.lo, k; i < b.hi; i = k) {
        unsigned c = 0, next;
        const char *name = names.at[i] + b.depth;
        int length = chars_decode(name, strlen(name), &c);
        for (k = i + 1; k < b.hi; k++) {
            const char *other = names.at[k] + b.depth;
            if (!chars_decode(other, strlen(other), &next) || next != c)
                break;
        }
        if (!length || c < 0x20 || c == '"' || c == '\\')
            continue; /* cannot be written without an escape */
        ascii &= c < 0x80;
        chars_add(&r->pool, &set, c, c);
        to[n++] = (struct branch){rules_text(r, b.node, name, (size_t)length), i, k,
                                  b.depth + (size_t)length};
    }
    if (ascii) { /* what lies beyond is the same for all */
        rules_empty(r, b.node, beyond);
        chars_add(&r->pool, &set, 0x80, 0x10FFFF);
    }
    chars_invert(&r->pool, &set);
    rules_empty(r, chars_emit(r, b.node, &set, false), rest);
    return n;
}

/* A string that is none of the names; the node behind its quote. No escapes as long as it could
 * still become one of them, for they could spell it in another way. */
static int other_name(struct schema *s, int from, struct names names)
{
    struct rules *r = s->r;
    struct chars beyond_ascii = {0};
    int rest = rules_node(r), beyond = rules_node(r), n = 0;
    int to = string_rest(&s->json, rest);
    struct branch *todo = pool_get(&r->pool, ((size_t)names.n + 1) * sizeof(*todo) * 2);
    chars_add(&r->pool, &beyond_ascii, 0x80, 0x10FFFF);
    rules_empty(r, chars_emit(r, beyond, &beyond_ascii, false), rest);
    todo[n++] = (struct branch){rules_text(r, from, "\"", 1), 0, names.n, 0};
    while (n && !r->rc) {
        struct branch b = todo[--n];
        if (b.lo < b.hi && !names.at[b.lo][b.depth])
            b.lo++; /* the name ends here */
        else
            rules_bytes(r, b.node, '"', '"', to);
        n += branch_off(s, b, names, rest, beyond, todo + n);
    }
    return to;
}

/* The name and value of one property, from a node to the one behind. */
static int property(struct schema *s, int from, const char *key, const json_t *schema, int place)
{
    struct rules *r = s->r;
    json_t *name = json_string(key);
    int at = text_of(s, from, name);
    json_decref(name);
    at = blank_after(&s->json, rules_text(r, blank_inside(&s->json, at), ":", 1));
    return rules_call(r, at, schema_rule(s, schema, schema_place(s, place, key, -1)));
}

/* What properties there are beyond those named: NULL none, else their schema. Objects of which
 * nothing is known are open, others closed unless additionalProperties opens them. */
static const json_t *additional(const json_t *o)
{
    const json_t *more = json_object_get(o, "additionalProperties");
    if (more)
        return json_is_false(more) ? NULL : more;
    return json_object_size(json_object_get(o, "properties")) ? NULL : json_true();
}

/* The described properties, and behind them the required ones that are not described. */
static json_t *all_properties(struct schema *s, const json_t *o, int place)
{
    json_t *known = json_object_get(o, "properties"), *v;
    json_t *all = known ? json_copy(known) : json_object();
    const json_t *more = additional(o), *required = json_object_get(o, "required");
    size_t i;
    if ((known && !json_is_object(known)) || (required && !json_is_array(required)))
        schema_fail(s, place, "properties must be an object and required an array");
    json_array_foreach(required, i, v)
    {
        const char *key = json_string_value(v);
        if (!key || json_string_length(v) != strlen(key))
            schema_fail(s, place, "required must name properties");
        else if (!json_object_get(all, key) && !more)
            schema_fail(s, place, "the property \"%.60s\" is required but not allowed", key);
        else if (!json_object_get(all, key))
            json_object_set(all, key, (json_t *)more);
    }
    if (json_object_size(all) > SCHEMA_PROPERTIES_MAX)
        schema_fail(s, place, "%zu properties, more than the %d allowed", json_object_size(all),
                    SCHEMA_PROPERTIES_MAX);
    json_array_append_new(s->made, all);
    return all;
}

static struct names names_of(struct schema *s, const json_t *properties)
{
    const char *key;
    json_t *v;
    struct names names = {
        pool_get(&s->r->pool, (json_object_size(properties) + 1) * sizeof(char *)), 0};
    json_object_foreach((json_t *)properties, key, v) names.at[names.n++] = key;
    if (names.n)
        qsort(names.at, (size_t)names.n, sizeof(*names.at), by_text);
    return names;
}

/* Two tracks: nothing written yet (`fresh`), and something (`more`), which needs a comma before the
 * next. An optional property may be passed by on either. */
int schema_object(struct schema *s, int from, const json_t *o, int place)
{
    struct rules *r = s->r;
    const json_t *open = additional(o);
    json_t *all = all_properties(s, o, place), *v;
    const char *key;
    int of_properties = schema_place(s, place, "properties", -1);
    int fresh = blank_inside(&s->json, rules_text(r, from, "{", 1)), more = rules_node(r);
    json_object_foreach(all, key, v)
    {
        bool required = is_required(o, key);
        int name = rules_node(r), next = rules_node(r);
        if (r->rc)
            return from;
        rules_empty(r, fresh, name);
        rules_empty(r, blank_after(&s->json, rules_text(r, more, ",", 1)), name);
        rules_empty(r, blank_inside(&s->json, property(s, name, key, v, of_properties)), next);
        if (required) {
            fresh = rules_node(r); /* nobody comes here */
        } else {
            rules_empty(r, more, next);
        }
        more = next;
    }
    if (open) {
        int name = rules_node(r);
        struct names names = names_of(s, all);
        rules_empty(r, fresh, name);
        rules_empty(r, blank_after(&s->json, rules_text(r, more, ",", 1)), name);
        int at = names.n ? other_name(s, name, names) : rules_call(r, name, string_rule(&s->json));
        at = blank_after(&s->json, rules_text(r, blank_inside(&s->json, at), ":", 1));
        at = rules_call(r, at,
                        schema_rule(s, open, schema_place(s, place, "additionalProperties", -1)));
        rules_empty(r, blank_inside(&s->json, at), more);
    }
    int close = rules_node(r);
    rules_empty(r, fresh, close);
    rules_empty(r, more, close);
    return rules_text(r, close, "}", 1);
}

/* ------------------------------------------------------------------------------- arrays */

/* min to max items, the first some as prefixItems say. With k items written, the node k stands
 * behind the last of them. */
int schema_array(struct schema *s, int from, const json_t *o, int place)
{
    struct rules *r = s->r;
    const json_t *prefix = json_object_get(o, "prefixItems"), *items = json_object_get(o, "items");
    int min = schema_count(s, o, "minItems", 0, place);
    int max = schema_count(s, o, "maxItems", ENDLESS, place), n = (int)json_array_size(prefix);
    const json_t *rest = items ? items : json_array_size(prefix) ? json_false() : json_true();
    if (max < min || (prefix && !json_is_array(prefix)) || (json_is_false(rest) && min > n) ||
        n > SCHEMA_PROPERTIES_MAX) {
        schema_fail(s, place, "minItems, maxItems, prefixItems and items contradict each other");
        return from;
    }
    int at = blank_inside(&s->json, rules_text(r, from, "[", 1)), close = rules_node(r);
    int first = at;
    for (int i = 0; i < n && i < max && !r->rc; i++) {
        if (i >= min)
            rules_empty(r, at, close);
        int item = i ? blank_after(&s->json, rules_text(r, at, ",", 1)) : at;
        at = rules_call(r, item,
                        schema_rule(s, json_array_get(prefix, (size_t)i),
                                    schema_place(s, place, "prefixItems", i)));
        at = blank_inside(&s->json, at);
    }
    int have = min_int(n, max);
    if (have >= min)
        rules_empty(r, at, close);
    if (max > have && !json_is_false(rest)) {
        int rule = schema_rule(s, rest, schema_place(s, place, "items", -1));
        int pair = rules_new(r), begin = r->rc ? 0 : r->rule[pair].start;
        int item = blank_after(&s->json, rules_text(r, begin, ",", 1));
        if (r->rc)
            return from;
        rules_empty(r, blank_inside(&s->json, rules_call(r, item, rule)), r->rule[pair].end);
        if (at == first && !have) { /* the first item has no comma */
            at = blank_inside(&s->json, rules_call(r, at, rule));
            have = 1;
        }
        rules_empty(r,
                    rules_repeat(r, at, pair, max_int(min - have, 0),
                                 max == ENDLESS ? ENDLESS : max - have, false),
                    close);
    }
    return rules_text(r, close, "]", 1);
}

/* ------------------------------------------------------------------------------- strings */

static const char *format_pattern(const char *name)
{
#define DAY29 "(0[1-9]|[12]\\d)"
#define MONTHS31 "(0[13578]|1[02])-(" DAY29 "|3[01])"
#define MONTHS30 "(0[469]|11)-(" DAY29 "|30)"
#define FEBRUARY "02-(0[1-9]|1\\d|2[0-8])"
#define BY_FOUR "(0[48]|[2468][048]|[13579][26])"
#define LEAP_YEAR "(\\d\\d" BY_FOUR "|(00|" BY_FOUR ")00)"
#define DATE "(\\d{4}-(" MONTHS31 "|" MONTHS30 "|" FEBRUARY ")|" LEAP_YEAR "-02-29)"
#define TIME "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define BYTE "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}"
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    static const struct {
        const char *name, *pattern;
    } known[] = {
        {"date", "^" DATE "$"},
        {"time", "^" TIME "$"},
        {"date-time", "^" DATE "T" TIME "$"},
        {"uuid", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"},
        {"ipv4", "^(" BYTE "\\.){3}" BYTE "$"},
        {"hostname", "^" LABEL "(\\." LABEL "){0,9}$"},
        {"email", "^" ATOM "(\\." ATOM "){0,9}@" LABEL "(\\." LABEL "){1,9}$"},
    };
    for (size_t i = 0; name && i < COUNT(known); i++)
        if (!strcmp(known[i].name, name))
            return known[i].pattern;
    return NULL;
}

int schema_string(struct schema *s, int from, const json_t *o, int place)
{
    struct rules *r = s->r;
    const json_t *given = json_object_get(o, "pattern"), *format = json_object_get(o, "format");
    const char *pattern =
        given ? json_string_value(given) : format_pattern(json_string_value(format));
    int min = schema_count(s, o, "minLength", 0, place);
    int max = schema_count(s, o, "maxLength", ENDLESS, place);
    if (given && (!pattern || format_pattern(json_string_value(format))))
        schema_fail(s, place, "pattern must be a string, and not stand beside a format");
    if (max < min)
        schema_fail(s, place, "maxLength is smaller than minLength");
    if (!pattern && min == 0 && max == ENDLESS)
        return rules_call(r, from, string_rule(&s->json));
    if (!pattern)
        return string_emit(&s->json, from, min, max);
    if (given && (min > 0 || max != ENDLESS))
        schema_fail(s, place,
                    "minLength and maxLength beside pattern are not supported: say the "
                    "length in the pattern");
    size_t n = given ? json_string_length(given) : strlen(pattern);
    char what[128];
    snprintf(what, sizeof(what), "%.40s, pattern", s->what);
    int at = regex_emit(r, rules_text(r, from, "\"", 1), pattern, n, true, what);
    return rules_text(r, at, "\"", 1);
}

/* ------------------------------------------------------------------------------- numbers */

static bool read_bound(const json_t *v, struct bound *b)
{
    b->given = true;
    if (!json_is_integer(v))
        return json_is_real(v) && bound_of(json_real_value(v), b);
    long long n = json_integer_value(v);
    if (n <= -1000000000000000000 || n >= 1000000000000000000)
        return false;
    b->negative = n < 0;
    b->whole = n < 0 ? -n : n;
    memset(b->fraction, '0', 18);
    b->fraction[18] = 0;
    return true;
}

/* The stricter of an inclusive and an exclusive bound; sign: 1 lower, -1 upper. */
static struct bound bound_from(struct schema *s, const json_t *o, const char *at,
                               const char *beyond, double sign, int place)
{
    struct bound b = {0};
    const json_t *in = json_object_get(o, at), *out = json_object_get(o, beyond);
    if (json_is_boolean(out)) { /* as drafts up to 4 had it */
        b.open = json_is_true(out) && in;
        out = NULL;
    }
    if (out && (!in || sign * json_number_value(out) >= sign * json_number_value(in))) {
        in = out;
        b.open = true;
    }
    if (in && !read_bound(in, &b))
        schema_fail(s, place, "%s must be a number of at most 18 digits before and after the point",
                    b.open ? beyond : at);
    return b;
}

int schema_number(struct schema *s, int from, const json_t *o, bool integer, int place)
{
    struct bound lo = bound_from(s, o, "minimum", "exclusiveMinimum", 1, place);
    struct bound hi = bound_from(s, o, "maximum", "exclusiveMaximum", -1, place);
    if (!lo.given && !hi.given)
        return rules_call(s->r, from, number_rule(&s->json, integer));
    return number_between(&s->json, from, integer, lo, hi);
}
