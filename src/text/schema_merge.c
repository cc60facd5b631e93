/* schema_merge.c - two schemas that must both hold, as one. See grammar_schema.h.
 *
 * Bounds become the narrower ones, lists of types and values are intersected, properties are
 * united. What cannot be joined like that is refused. */
#include "text/grammar_schema.h"

static json_t *own(struct schema *s, json_t *v)
{
    json_array_append_new(s->made, v);
    return v;
}

/* What joining a and b costs at most, in steps; false when it has become too much. */
static bool pay(struct schema *s, const json_t *a, const json_t *b, int place)
{
    static const char *const list[] = {"required", "enum", "type", "allOf"};
    size_t cost = 256 + json_object_size(a) + json_object_size(b) +
                  json_object_size(json_object_get(a, "properties")) +
                  json_object_size(json_object_get(b, "properties"));
    for (size_t i = 0; i < COUNT(list); i++)
        cost += json_array_size(json_object_get(a, list[i])) *
                json_array_size(json_object_get(b, list[i]));
    s->merge_cost += cost;
    if (s->merge_cost > SCHEMA_MERGE_COST)
        schema_fail(s, place,
                    "joining schemas (allOf, anyOf with more, $ref with more) goes on too "
                    "long: write them out");
    return s->merge_cost <= SCHEMA_MERGE_COST;
}

/* Both of two schemas, to be merged when their turn comes. */
static json_t *both(json_t *a, json_t *b) { return json_pack("{s:[O, O]}", "allOf", a, b); }

static json_t *united(json_t *a, json_t *b)
{
    json_t *all = json_deep_copy(a), *v;
    size_t i;
    json_array_foreach(b, i, v)
    {
        bool there = false;
        for (size_t k = 0; k < json_array_size(a); k++)
            there |= json_equal(json_array_get(a, k), v);
        if (!there)
            json_array_append(all, v);
    }
    return all;
}

/* types: every integer is a number. */
static bool admits(json_t *list, json_t *v, bool types)
{
    bool yes = false,
         integer = types && !strcmp(json_string_value(v) ? json_string_value(v) : "", "integer");
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *has = json_array_get(list, i);
        yes |= json_equal(has, v) ||
               (integer && json_is_string(has) && !strcmp(json_string_value(has), "number"));
    }
    return yes;
}

static json_t *intersected(json_t *a, json_t *b, bool types)
{
    json_t *some = json_array(), *v;
    size_t i;
    json_t *left = json_is_array(a) ? json_incref(a) : json_pack("[O]", a);
    json_t *right = json_is_array(b) ? json_incref(b) : json_pack("[O]", b);
    json_array_foreach(left, i, v) if (admits(right, v, types)) json_array_append(some, v);
    json_array_foreach(right, i, v) if (!admits(some, v, false) && admits(left, v, types))
        json_array_append(some, v);
    json_decref(left);
    json_decref(right);
    return some;
}

static json_t *merged_properties(json_t *a, json_t *b)
{
    json_t *all = json_copy(a), *v;
    const char *key;
    json_object_foreach(b, key, v)
    {
        json_t *have = json_object_get(a, key);
        if (have && !json_equal(have, v))
            json_object_set_new(all, key, both(have, v));
        else if (!have)
            json_object_set(all, key, v);
    }
    return all;
}

static bool is_one_of(const char *key, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(*list, key))
            return true;
    return false;
}

/* The value of a key that both have; NULL: they cannot be joined. */
static json_t *joined(const char *key, json_t *a, json_t *b)
{
    static const char *const lower[] = {"minimum", "exclusiveMinimum", "minLength", "minItems",
                                        NULL},
                             *const upper[] = {"maximum", "exclusiveMaximum", "maxLength",
                                               "maxItems", NULL},
                             *const schema[] = {"items", "additionalProperties", NULL},
                             *const note[] = {
                                 "title",       "description", "default",   "examples",   "example",
                                 "$schema",     "$id",         "$comment",  "deprecated", "$defs",
                                 "definitions", "readOnly",    "writeOnly", NULL};
    if (json_equal(a, b) || is_one_of(key, note))
        return json_incref(a);
    if (is_one_of(key, lower))
        return json_incref(json_number_value(a) > json_number_value(b) ? a : b);
    if (is_one_of(key, upper))
        return json_incref(json_number_value(a) < json_number_value(b) ? a : b);
    if (is_one_of(key, schema))
        return json_is_false(a) || json_is_true(b)   ? json_incref(a)
               : json_is_false(b) || json_is_true(a) ? json_incref(b)
                                                     : both(a, b);
    if (!strcmp(key, "properties") && json_is_object(a) && json_is_object(b))
        return merged_properties(a, b);
    if (!strcmp(key, "required") || !strcmp(key, "allOf"))
        return json_is_array(a) && json_is_array(b) ? united(a, b) : NULL;
    if (!strcmp(key, "type"))
        return intersected(a, b, true);
    if (!strcmp(key, "enum"))
        return intersected(a, b, false);
    if (!strcmp(key, "nullable"))
        return json_false();
    return NULL;
}

/* additionalProperties and items of one side speak of all that this side does not name itself, also
 * of what the other names: that cannot be said in one schema. */
static bool speaks_of(const json_t *a, const json_t *b)
{
    const json_t *more = json_object_get(a, "additionalProperties");
    const json_t *have = json_object_get(a, "properties"), *items = json_object_get(a, "items");
    const char *key;
    json_t *v;
    if (items && !json_is_true(items) && json_object_get(b, "prefixItems") &&
        !json_equal(json_object_get(a, "prefixItems"), json_object_get(b, "prefixItems")))
        return true;
    if (!more || json_is_true(more))
        return false;
    json_object_foreach(json_object_get(b, "properties"), key, v)
    {
        if (!json_object_get(have, key))
            return true;
    }
    return false;
}

/* o, or what its $ref points to with the rest of o. */
static const json_t *resolved(struct schema *s, const json_t *o, int place)
{
    for (int i = 0; json_is_object(o) && json_object_get(o, "$ref") && !s->r->rc; i++) {
        const char *ref = json_string_value(json_object_get(o, "$ref"));
        const json_t *to = ref && i < 32 ? schema_target(s, ref, place) : NULL;
        if (!to) {
            schema_fail(s, place, "a $ref is wrong or leads in a circle");
            return NULL;
        }
        json_t *rest = own(s, json_copy((json_t *)o));
        json_object_del(rest, "$ref");
        o = json_object_size(rest) ? schema_merge(s, rest, to, place) : to;
    }
    return o;
}

const json_t *schema_merge(struct schema *s, const json_t *a, const json_t *b, int place)
{
    const char *key;
    json_t *v;
    if (s->r->rc || !pay(s, a, b, place))
        return NULL;
    a = resolved(s, a, place);
    b = a ? resolved(s, b, place) : NULL;
    if (json_is_true(a) || json_is_true(b))
        return json_is_true(a) ? b : a;
    if (!json_is_object(a) || !json_is_object(b)) {
        schema_fail(s, place, "what is joined by allOf, anyOf or $ref must be objects");
        return NULL;
    }
    if (speaks_of(a, b) || speaks_of(b, a)) {
        schema_fail(s, place,
                    "additionalProperties or items forbids what allOf, anyOf or $ref add");
        return NULL;
    }
    if (!pay(s, a, b, place))
        return NULL;
    json_t *all = own(s, json_copy((json_t *)a));
    json_object_foreach((json_t *)b, key, v)
    {
        json_t *have = json_object_get(a, key);
        json_t *both_of = have ? joined(key, have, v) : json_incref(v);
        if (!both_of) {
            schema_fail(s, place, "two values of \"%.60s\" cannot be joined", key);
            return NULL;
        }
        json_object_set_new(all, key, both_of);
    }
    return all;
}
