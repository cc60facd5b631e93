/* schema.c - JSON Schema to rules: which keywords there are, references, alternatives, types. See
 * grammar_schema.h and docs/STRUCTURED.md. */
#include "text/grammar_schema.h"

/* ------------------------------------------------------------------------------- places */

static void *grown(struct schema *s, void *old, int n, int *room, size_t size)
{
    if (n < *room)
        return old;
    *room = *room ? 2 * *room : 64;
    void *more = pool_get(&s->r->pool, (size_t)*room * size);
    if (n)
        memcpy(more, old, (size_t)n * size);
    return more;
}

int schema_place(struct schema *s, int up, const char *key, int number)
{
    s->at = grown(s, s->at, s->n_places, &s->place_room, sizeof(*s->at));
    int depth = up < 0 ? 0 : s->at[up].depth + (strcmp(key, "properties") != 0);
    s->at[s->n_places] = (struct place){up, key, number, depth};
    return s->n_places++;
}

/* "#/properties/a/items", its beginning left out when it is long. */
static void write_place(const struct schema *s, int place, char *to, size_t room)
{
    int chain[6], n = 0;
    size_t at = 0;
    for (; place >= 0 && s->at[place].up >= 0 && n < (int)COUNT(chain); place = s->at[place].up)
        chain[n++] = place;
    bool cut = place >= 0 && s->at[place].up >= 0;
    const char *root = place >= 0 && s->at[place].key[0] ? s->at[place].key : "#";
    at += (size_t)snprintf(to, room, "%.60s", cut ? "..." : root);
    while (n-- && at < room) {
        const struct place *p = &s->at[chain[n]];
        int k = p->number >= 0 ? snprintf(to + at, room - at, "/%.40s/%d", p->key, p->number)
                               : snprintf(to + at, room - at, "/%.40s", p->key);
        at += (size_t)k;
    }
}

void schema_fail(struct schema *s, int place, const char *fmt, ...)
{
    char path[320], why[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    write_place(s, place, path, sizeof(path));
    rules_fail(s->r, "%.80s: at %.280s: %.140s", s->what, path, why);
}

/* ------------------------------------------------------------------------------- rules */

static size_t slot_of(const struct schema *s, const json_t *schema)
{
    size_t at = ((uintptr_t)schema >> 4) * 0x9E3779B97F4A7C15u >> 20 & (s->n_slots - 1);
    while (s->slot[at] && s->todo[s->slot[at] - 1].schema != schema)
        at = (at + 1) & (s->n_slots - 1);
    return at;
}

int schema_rule(struct schema *s, const json_t *schema, int place)
{
    if (s->r->rc)
        return 0;
    if (json_is_true(schema))
        return value_rule(&s->json); /* true is one object for all of jansson */
    size_t at = slot_of(s, schema);
    if (s->slot[at])
        return s->todo[s->slot[at] - 1].rule;
    if (s->at[place].depth > GRAMMAR_NESTING_MAX) {
        schema_fail(s, place, "schemas nest more than %d deep", GRAMMAR_NESTING_MAX);
        return 0;
    }
    int rule = rules_new(s->r);
    s->todo = grown(s, s->todo, s->n_todo, &s->todo_room, sizeof(*s->todo));
    s->todo[s->n_todo++] = (struct todo){schema, rule, place};
    s->slot[at] = s->n_todo;
    return rule;
}

static const json_t *follow(const json_t *at, char *key)
{
    char *to = key;
    for (const char *from = key; *from; from++) { /* ~0 is ~, ~1 is / */
        bool escaped = *from == '~' && (from[1] == '0' || from[1] == '1');
        *to++ = !escaped ? *from : from[1] == '0' ? '~' : '/';
        from += escaped;
    }
    *to = 0;
    if (json_is_array(at))
        return json_array_get(at, (size_t)strtoul(key, NULL, 10));
    return json_object_get(at, key);
}

const json_t *schema_target(struct schema *s, const char *ref, int place)
{
    const json_t *at = s->root;
    if (ref[0] != '#' || (ref[1] && ref[1] != '/')) {
        schema_fail(s, place, "$ref \"%.60s\": only references within the schema (#/...)", ref);
        return NULL;
    }
    char *part = pool_text(&s->r->pool, ref + 1, strlen(ref + 1));
    while (at && part && *part) { /* at the / before a part */
        char *end = strchr(++part, '/'), *next = end;
        if (end)
            *end = 0;
        at = follow(at, part);
        if ((part = next))
            *part = '/';
    }
    if (!at)
        schema_fail(s, place, "$ref \"%.60s\" leads nowhere", ref);
    return at;
}

/* ------------------------------------------------------------------------------- keywords */

/* Keywords that are understood, and those that say nothing about what is valid. */
static const char *const KNOWN[] = {
    "$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "definitions", "enum",
    "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maxLength", "maximum",
    "minItems", "minLength", "minimum", "nullable", "oneOf", "pattern", "prefixItems", "properties",
    "required", "type", "uniqueItems",
    /* annotations */
    "$comment", "$id", "$schema", "contentEncoding", "contentMediaType", "default", "deprecated",
    "description", "discriminator", "example", "examples", "externalDocs", "id", "readOnly",
    "strict", "title", "writeOnly", "xml"};

static bool known(const char *key)
{
    for (size_t i = 0; i < COUNT(KNOWN); i++)
        if (!strcmp(KNOWN[i], key))
            return true;
    return !strncmp(key, "x-", 2);
}

static void check_keywords(struct schema *s, const json_t *o, int place)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v) if (!known(key))
        schema_fail(s, place, "the keyword \"%.60s\" is not supported", key);
    v = json_object_get(o, "uniqueItems");
    if (v && !json_is_false(v))
        schema_fail(s, place, "the keyword \"uniqueItems\" is not supported");
}

int schema_count(struct schema *s, const json_t *o, const char *key, int fallback, int place)
{
    const json_t *v = json_object_get(o, key);
    double n = json_number_value(v);
    if (!v)
        return fallback;
    if (!json_is_number(v) || !(n >= 0 && n <= 1e9) || n != (double)(int)n) {
        schema_fail(s, place, "%s must be a whole number from 0 to 1000000000", key);
        return fallback;
    }
    return (int)n;
}

/* ------------------------------------------------------------------------------- types */

enum type {
    T_NULL = 1,
    T_BOOLEAN = 2,
    T_INTEGER = 4,
    T_NUMBER = 8,
    T_STRING = 16,
    T_ARRAY = 32,
    T_OBJECT = 64,
    T_ALL = 127 & ~T_INTEGER
};

static int type_named(struct schema *s, const json_t *name, int place)
{
    static const char *const is[] = {"null",   "boolean", "integer", "number",
                                     "string", "array",   "object"};
    const char *text = json_string_value(name);
    for (int i = 0; text && i < (int)COUNT(is); i++)
        if (!strcmp(is[i], text))
            return 1 << i;
    schema_fail(s, place, "type \"%.40s\" is unknown", text ? text : "");
    return 0;
}

/* What `type` says; without it, what the other keywords speak of; else everything. */
static int types_of(struct schema *s, const json_t *o, int place)
{
    static const struct {
        const char *key;
        int type;
    } speaks[] = {{"properties", T_OBJECT},
                  {"required", T_OBJECT},
                  {"additionalProperties", T_OBJECT},
                  {"items", T_ARRAY},
                  {"prefixItems", T_ARRAY},
                  {"minItems", T_ARRAY},
                  {"maxItems", T_ARRAY},
                  {"pattern", T_STRING},
                  {"format", T_STRING},
                  {"minLength", T_STRING},
                  {"maxLength", T_STRING},
                  {"minimum", T_NUMBER},
                  {"maximum", T_NUMBER},
                  {"exclusiveMinimum", T_NUMBER},
                  {"exclusiveMaximum", T_NUMBER}};
    const json_t *type = json_object_get(o, "type");
    int types = 0;
    for (size_t i = 0; i < json_array_size(type); i++)
        types |= type_named(s, json_array_get(type, i), place);
    if (type && !json_is_array(type))
        types = type_named(s, type, place);
    for (size_t i = 0; !type && i < COUNT(speaks); i++)
        types |= json_object_get(o, speaks[i].key) ? speaks[i].type : 0;
    if (json_is_true(json_object_get(o, "nullable")))
        types |= types ? T_NULL : 0;
    return types ? types : T_ALL;
}

static int type_of_value(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return T_OBJECT;
    case JSON_ARRAY: return T_ARRAY;
    case JSON_STRING: return T_STRING;
    case JSON_INTEGER: return T_INTEGER | T_NUMBER;
    case JSON_REAL: return T_NUMBER;
    case JSON_TRUE:
    case JSON_FALSE: return T_BOOLEAN;
    case JSON_NULL: return T_NULL;
    }
    return 0;
}

static void word(struct rules *r, int from, const char *text, int to)
{
    rules_empty(r, rules_text(r, from, text, strlen(text)), to);
}

static void emit_types(struct schema *s, const json_t *o, int types, struct rule rule, int place)
{
    struct rules *r = s->r;
    if (types & T_NULL)
        word(r, rule.start, "null", rule.end);
    if (types & T_BOOLEAN) {
        word(r, rule.start, "true", rule.end);
        word(r, rule.start, "false", rule.end);
    }
    if (types & (T_NUMBER | T_INTEGER))
        rules_empty(r, schema_number(s, rule.start, o, !(types & T_NUMBER), place), rule.end);
    if (types & T_STRING)
        rules_empty(r, schema_string(s, rule.start, o, place), rule.end);
    if (types & T_ARRAY)
        rules_empty(r, schema_array(s, rule.start, o, place), rule.end);
    if (types & T_OBJECT)
        rules_empty(r, schema_object(s, rule.start, o, place), rule.end);
}

/* enum and const: those of the values that the types admit. */
static void emit_values(struct schema *s, const json_t *o, struct rule rule, int place)
{
    const json_t *list = json_object_get(o, "enum"), *only = json_object_get(o, "const");
    int types = json_object_get(o, "type") ? types_of(s, o, place) : 127;
    size_t n = only ? 1 : json_array_size(list), used = 0;
    if (n > SCHEMA_CHOICES_MAX || (!only && !json_is_array(list)))
        schema_fail(s, place, "enum must be an array of at most %d values", SCHEMA_CHOICES_MAX);
    for (size_t i = 0; i < n && !s->r->rc; i++) {
        const json_t *v = only ? only : json_array_get(list, i);
        if (!(type_of_value(v) & types))
            continue;
        used++;
        rules_empty(s->r, schema_literal(s, rule.start, v, 0, place), rule.end);
    }
    if (!used)
        schema_fail(s, place, "%s has no value of the type", only ? "const" : "enum");
}

/* ------------------------------------------------------------------------------- combinations */

/* o without some keys; owned by s. */
static json_t *without(struct schema *s, const json_t *o, const char *key)
{
    json_t *copy = json_copy((json_t *)o);
    json_array_append_new(s->made, copy);
    json_object_del(copy, key);
    return copy;
}

/* Whether o says anything but `key` and annotations. */
static bool says_more(const json_t *o, const char *key)
{
    const char *k;
    json_t *v;
    json_object_foreach((json_t *)o, k, v)
    {
        bool constrains = false;
        for (size_t i = 0; i < COUNT(KNOWN) && strcmp(KNOWN[i], "$comment"); i++)
            constrains |= !strcmp(KNOWN[i], k);
        if (constrains && strcmp(k, key) && strcmp(k, "$defs") && strcmp(k, "definitions"))
            return true;
    }
    return false;
}

static void call(struct schema *s, struct rule rule, const json_t *schema, int place)
{
    if (schema)
        rules_empty(s->r, rules_call(s->r, rule.start, schema_rule(s, schema, place)), rule.end);
}

static void emit_reference(struct schema *s, const json_t *o, struct rule rule, int place)
{
    const json_t *ref = json_object_get(o, "$ref");
    const json_t *to = json_is_string(ref) ? schema_target(s, json_string_value(ref), place) : NULL;
    if (!json_is_string(ref))
        schema_fail(s, place, "$ref must be a string");
    if (to && says_more(o, "$ref"))
        to = schema_merge(s, without(s, o, "$ref"), to, place);
    /* Nesting begins anew: a chain of references is not deep. */
    call(s, rule, to, schema_place(s, -1, json_is_string(ref) ? json_string_value(ref) : "", -1));
}

static void emit_all(struct schema *s, const json_t *o, struct rule rule, int place)
{
    const json_t *list = json_object_get(o, "allOf");
    const json_t *all = without(s, o, "allOf");
    if (!json_is_array(list) || !json_array_size(list))
        schema_fail(s, place, "allOf must be an array of schemas");
    for (size_t i = 0; i < json_array_size(list) && all && !s->r->rc; i++)
        all = schema_merge(s, all, json_array_get(list, i), place);
    call(s, rule, all, schema_place(s, place, "allOf", -1));
}

static void emit_any(struct schema *s, const json_t *o, const char *key, struct rule rule,
                     int place)
{
    const json_t *list = json_object_get(o, key);
    const json_t *base = says_more(o, key) ? without(s, o, key) : NULL;
    if (!json_is_array(list) || !json_array_size(list) ||
        json_array_size(list) > SCHEMA_CHOICES_MAX)
        schema_fail(s, place, "%s must be an array of 1 to %d schemas", key, SCHEMA_CHOICES_MAX);
    for (size_t i = 0; i < json_array_size(list) && !s->r->rc; i++) {
        const json_t *one = json_array_get(list, i);
        call(s, rule, base ? schema_merge(s, base, one, place) : one,
             schema_place(s, place, key, (int)i));
    }
    if (json_is_true(json_object_get(o, "nullable")))
        word(s->r, rule.start, "null", rule.end);
}

static void compile(struct schema *s, struct todo t)
{
    const json_t *o = t.schema;
    struct rule rule = s->r->rule[t.rule];
    if (!json_is_object(o)) {
        schema_fail(s, t.place,
                    json_is_false(o) ? "nothing fulfils the schema false"
                                     : "a schema must be an object or true");
        return;
    }
    check_keywords(s, o, t.place);
    if (s->r->rc)
        return;
    if (json_object_get(o, "$ref"))
        emit_reference(s, o, rule, t.place);
    else if (json_object_get(o, "allOf"))
        emit_all(s, o, rule, t.place);
    else if (json_object_get(o, "anyOf"))
        emit_any(s, o, "anyOf", rule, t.place);
    else if (json_object_get(o, "oneOf"))
        emit_any(s, o, "oneOf", rule, t.place);
    else if (json_object_get(o, "enum") || json_object_get(o, "const"))
        emit_values(s, o, rule, t.place);
    else if (!says_more(o, ""))
        call(s, rule, json_true(), t.place);
    else
        emit_types(s, o, types_of(s, o, t.place), rule, t.place);
}

int schema_emit(struct rules *r, const char *text, size_t n, int blanks, const char *what)
{
    struct err e;
    struct schema s = {.r = r, .json = json_rules_of(r, blanks), .what = what};
    if (n > GRAMMAR_TEXT_MAX) {
        rules_fail(r, "%s has %zu bytes, more than the %d allowed", what, n, GRAMMAR_TEXT_MAX);
        return 0;
    }
    s.root = json_parse(text, n, what, &e);
    if (!s.root) {
        rules_fail(r, "%s", e.text);
        return 0;
    }
    s.made = json_array();
    s.n_slots = 4 * GRAMMAR_RULES_MAX;
    s.slot = pool_get(&r->pool, s.n_slots * sizeof(int));
    int rule = schema_rule(&s, s.root, schema_place(&s, -1, "", -1));
    while (s.done < s.n_todo && !r->rc)
        compile(&s, s.todo[s.done++]);
    json_decref(s.made);
    json_decref(s.root);
    return rule;
}
