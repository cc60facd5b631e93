/* hardware_json.c - the JSON form of a hardware profile. See hardware.h and docs/HARDWARE.md. */
#include "base/json.h"
#include "topo/hardware.h"
#include "topo/hardware_fields.h"

#include <math.h>

enum { SCHEMA = 1 };

static const char *const kind_name[] = {[DEVICE_CPU] = "cpu", [DEVICE_GPU] = "gpu"};

/* Kinds of words in a profile; each gives the name of its i-th. */
typedef const char *word_fn(int i);
static const char *source_word(int i) { return source_name((enum source)i); }
static const char *op_word(int i) { return collective_name((enum collective_op)i); }
static const char *way_word(int i) { return way_name((enum collective_way)i); }
static const char *kind_word(int i) { return kind_name[i]; }
static const char *num_word(int i) { return num_name((enum num)i); }

/* ------------------------------------------------------------------------------- writing */

/* Whole numbers are written as such: bytes are easier to read. */
static json_t *number(double x)
{
    return floor(x) == x && fabs(x) < 0x1p53 ? json_integer((json_int_t)x) : json_real(x);
}

static json_t *figure_to_json(const struct figure *x)
{
    return json_pack("{s:o,s:o,s:s}", "value", number(x->value), "error", number(x->error),
                     "source", source_name(x->source));
}

static json_t *numbers(const double *x, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, number(x[i]));
    return list;
}

static json_t *curve_to_json(const struct curve *c)
{
    return json_pack("{s:o,s:o,s:o,s:s}", "x", numbers(c->x, c->n), "y", numbers(c->y, c->n),
                     "error", number(c->error), "source", source_name(c->source));
}

/* What is not known is left out. */
static json_t *figures_to_json(const struct figure *x)
{
    json_t *o = json_object();
    for (int t = 0; t < NUM_COUNT; t++)
        if (x[t].source)
            json_object_set_new(o, num_name((enum num)t), figure_to_json(&x[t]));
    return o;
}

static json_t *curves_to_json(const struct curve *x)
{
    json_t *o = json_object();
    for (int t = 0; t < NUM_COUNT; t++)
        if (x[t].n)
            json_object_set_new(o, num_name((enum num)t), curve_to_json(&x[t]));
    return o;
}

#define PUT_FIGURE(f, needed)                                                                      \
    if (x->f.source)                                                                               \
        json_object_set_new(o, #f, figure_to_json(&x->f));

static bool any_curve(const struct curve x[NUM_COUNT])
{
    for (int t = 0; t < NUM_COUNT; t++)
        if (x[t].n)
            return true;
    return false;
}

static json_t *rates_to_json(const struct rates *x)
{
    json_t *o = json_object();
    json_object_set_new(o, "active", json_integer(x->active));
    json_object_set_new(o, "product", curves_to_json(x->product));
    if (any_curve(x->experts))
        json_object_set_new(o, "experts", curves_to_json(x->experts));
    json_object_set_new(o, "attend_byte_s", figures_to_json(x->attend_byte_s));
    json_object_set_new(o, "attend_madd_s", curves_to_json(x->attend_madd_s));
    RATES_FIGURES(PUT_FIGURE)
    return o;
}

static json_t *collective_to_json(const struct collective *x)
{
    json_t *o = json_object();
    json_object_set_new(o, "op", json_string(collective_name(x->op)));
    json_object_set_new(o, "way", json_string(way_name(x->way)));
    json_object_set_new(o, "ranks", json_integer(x->ranks));
    COLLECTIVE_FIGURES(PUT_FIGURE)
    json_object_set_new(o, "knee_bytes", number(x->knee_bytes));
    return o;
}

static json_t *level_to_json(const struct level *x)
{
    json_t *o = json_object(), *list = json_array();
    json_object_set_new(o, "name", json_string(x->name));
    json_object_set_new(o, "size", json_integer(x->size));
    json_object_set_new(o, "same_host", json_boolean(x->same_host));
    if (x->all_rows)
        json_object_set_new(o, "all_rows", json_true());
    for (int i = 0; i < x->n_collective; i++)
        json_array_append_new(list, collective_to_json(&x->collective[i]));
    json_object_set_new(o, "collectives", list);
    return o;
}

json_t *hardware_to_json(const struct hardware *x)
{
    json_t *o = json_object(), *rates = json_array(), *levels = json_array();
    json_object_set_new(o, "schema", json_integer(SCHEMA));
    json_object_set_new(o, "name", json_string(x->name));
    json_object_set_new(o, "device", json_string(x->device));
    json_object_set_new(o, "about", json_string(x->about));
    json_object_set_new(o, "date", json_string(x->date));
    json_object_set_new(o, "kind", json_string(kind_name[x->kind]));
    HARDWARE_FIGURES(PUT_FIGURE)
    json_object_set_new(o, "math_rate", figures_to_json(x->math_rate));
    for (int i = 0; i < x->n_rates; i++)
        json_array_append_new(rates, rates_to_json(&x->rates[i]));
    for (int i = 0; i < x->n_level; i++)
        json_array_append_new(levels, level_to_json(&x->level[i]));
    json_object_set_new(o, "rates", rates);
    json_object_set_new(o, "levels", levels);
    return o;
}

/* ------------------------------------------------------------------------------- reading */

static bool listed(const char *key, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(names[i], key))
            return true;
    return false;
}

/* Every field of o must be one of names, and the first `needed` of these must be there. */
static int known_only(const json_t *o, const char *const *names, int n, int needed, struct err *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(o))
        return err_set(e, -EINVAL, "an object is needed");
    json_object_foreach((json_t *)o, key, v)
    {
        if (!listed(key, names, n))
            return err_set(e, -EINVAL, "unknown field \"%.60s\"", key);
    }
    for (int i = 0; i < needed; i++)
        if (!json_object_get(o, names[i]))
            return err_set(e, -EINVAL, "field \"%s\" is missing", names[i]);
    return 0;
}

static int get_number(const json_t *o, const char *key, double *to, struct err *e)
{
    const json_t *v = json_object_get(o, key);
    if (v && !json_is_number(v))
        return err_set(e, -EINVAL, "%s: a number is needed", key);
    *to = v ? json_number_value(v) : 0;
    return 0;
}

static int get_count(const json_t *o, const char *key, int *to, struct err *e)
{
    const json_t *v = json_object_get(o, key);
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v) || n < 0 || n > 1 << 30)
        return err_set(e, -EINVAL, "%s: a whole number is needed", key);
    *to = (int)n;
    return 0;
}

static int get_bool(const json_t *o, const char *key, bool *to, struct err *e)
{
    const json_t *v = json_object_get(o, key);
    *to = json_is_true(v);
    return json_is_boolean(v) ? 0 : err_set(e, -EINVAL, "%s: true or false is needed", key);
}

/* A text that fits in n bytes with its end; absent is empty. */
static int get_text(const json_t *o, const char *key, char *to, size_t n, struct err *e)
{
    const json_t *v = json_object_get(o, key);
    if (!v)
        return 0;
    if (!json_is_string(v) || json_string_length(v) != strlen(json_string_value(v)))
        return err_set(e, -EINVAL, "%s: a string is needed", key);
    if (json_string_length(v) >= n)
        return err_set(e, -EINVAL, "%s: longer than %zu bytes", key, n - 1);
    memcpy(to, json_string_value(v), json_string_length(v) + 1);
    return 0;
}

/* Which of n words, from word number `first` on. */
static int get_word(const json_t *o, const char *key, word_fn *word, int first, int n, int *to,
                    struct err *e)
{
    const json_t *v = json_object_get(o, key);
    const char *text = json_string_value(v);
    char all[160] = "";
    for (int i = first; i < n; i++) {
        if (text && !strcmp(text, word(i))) {
            *to = i;
            return 0;
        }
        size_t used = strlen(all);
        snprintf(all + used, sizeof(all) - used, "%s%s", used ? ", " : "", word(i));
    }
    return err_set(e, -EINVAL, "%s: \"%.40s\" is none of %s", key, text ? text : "", all);
}

static int get_source(const json_t *o, enum source *to, struct err *e)
{
    int at = SOURCE_NONE;
    int rc = get_word(o, "source", source_word, SOURCE_NONE + 1, SOURCE_COUNT, &at, e);
    *to = (enum source)at;
    return rc;
}

static int figure_from_json(const json_t *o, const char *key, struct figure *x, struct err *e)
{
    static const char *const names[] = {"value", "source", "error"};
    int rc = known_only(o, names, COUNT(names), 2, e);
    if (!rc)
        rc = get_number(o, "value", &x->value, e);
    if (!rc)
        rc = get_number(o, "error", &x->error, e);
    if (!rc)
        rc = get_source(o, &x->source, e);
    return rc ? err_add(e, rc, "%s", key) : 0;
}

static int get_numbers(const json_t *o, const char *key, double *to, int *n, struct err *e)
{
    const json_t *list = json_object_get(o, key);
    size_t size = json_array_size(list);
    if (size < 1 || size > CURVE_MAX)
        return err_set(e, -EINVAL, "%s: a list of 1 to %d numbers is needed", key, CURVE_MAX);
    for (size_t i = 0; i < size; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_number(v))
            return err_set(e, -EINVAL, "%s: entry %zu must be a number", key, i);
        to[i] = json_number_value(v);
    }
    *n = (int)size;
    return 0;
}

static int curve_from_json(const json_t *o, const char *key, struct curve *c, struct err *e)
{
    static const char *const names[] = {"x", "y", "source", "error"};
    int n = 0, rc = known_only(o, names, COUNT(names), 3, e);
    if (!rc)
        rc = get_numbers(o, "x", c->x, &c->n, e);
    if (!rc)
        rc = get_numbers(o, "y", c->y, &n, e);
    if (!rc && n != c->n)
        rc = err_set(e, -EINVAL, "x and y must be equally long, not %d and %d", c->n, n);
    if (!rc)
        rc = get_number(o, "error", &c->error, e);
    if (!rc)
        rc = get_source(o, &c->source, e);
    return rc ? err_add(e, rc, "%s", key) : 0;
}

/* Figures or curves by number format; whichever of the two is not NULL. */
static int by_format(const json_t *parent, const char *key, struct figure *figure,
                     struct curve *curve, struct err *e)
{
    const json_t *o = json_object_get(parent, key);
    const char *names[NUM_COUNT];
    int rc = 0;
    for (int t = 0; t < NUM_COUNT; t++)
        names[t] = num_word(t);
    if (o)
        rc = known_only(o, names, NUM_COUNT, 0, e);
    for (int t = 0; o && !rc && t < NUM_COUNT; t++) {
        const json_t *v = json_object_get(o, names[t]);
        if (v)
            rc = figure ? figure_from_json(v, names[t], &figure[t], e)
                        : curve_from_json(v, names[t], &curve[t], e);
    }
    return rc ? err_add(e, rc, "%s", key) : 0;
}

#define NAME(f, needed) #f,
#define GET_FIGURE(f, needed)                                                                      \
    if (!rc && json_object_get(o, #f))                                                             \
        rc = figure_from_json(json_object_get(o, #f), #f, &x->f, e);

static int rates_from_json(const json_t *o, struct rates *x, struct err *e)
{
    static const char *const names[] = {"active",        "product",       "experts",
                                        "attend_byte_s", "attend_madd_s", RATES_FIGURES(NAME)};
    int rc = known_only(o, names, COUNT(names), 2, e);
    if (!rc)
        rc = get_count(o, "active", &x->active, e);
    if (!rc)
        rc = by_format(o, "product", NULL, x->product, e);
    if (!rc)
        rc = by_format(o, "experts", NULL, x->experts, e);
    if (!rc)
        rc = by_format(o, "attend_byte_s", x->attend_byte_s, NULL, e);
    if (!rc)
        rc = by_format(o, "attend_madd_s", NULL, x->attend_madd_s, e);
    RATES_FIGURES(GET_FIGURE)
    return rc;
}

static int collective_from_json(const json_t *o, struct collective *x, struct err *e)
{
    static const char *const names[] = {"op", "way", "ranks",
                                        COLLECTIVE_FIGURES(NAME) "knee_bytes"};
    int op = 0, way = 0, rc = known_only(o, names, COUNT(names), COUNT(names) - 1, e);
    if (!rc)
        rc = get_word(o, "op", op_word, 0, COLLECTIVE_COUNT, &op, e);
    if (!rc)
        rc = get_word(o, "way", way_word, 0, WAY_COUNT, &way, e);
    if (!rc)
        rc = get_count(o, "ranks", &x->ranks, e);
    x->op = (enum collective_op)op, x->way = (enum collective_way)way;
    COLLECTIVE_FIGURES(GET_FIGURE)
    return rc ? rc : get_number(o, "knee_bytes", &x->knee_bytes, e);
}

/* The list's size, at most `most`; e names the field otherwise. */
static int get_list(const json_t *o, const char *key, int most, const json_t **list, int *n,
                    struct err *e)
{
    *list = json_object_get(o, key);
    if (!json_is_array(*list) || json_array_size(*list) > (size_t)most)
        return err_set(e, -EINVAL, "%s: a list of at most %d is needed", key, most);
    *n = (int)json_array_size(*list);
    return 0;
}

static int level_from_json(const json_t *o, struct level *x, struct err *e)
{
    static const char *const names[] = {"name", "size", "same_host", "collectives", "all_rows"};
    const json_t *list = NULL;
    int rc = known_only(o, names, COUNT(names), 4, e);
    if (!rc)
        rc = get_text(o, "name", x->name, sizeof(x->name), e);
    if (!rc)
        rc = get_count(o, "size", &x->size, e);
    if (!rc)
        rc = get_bool(o, "same_host", &x->same_host, e);
    if (!rc && json_object_get(o, "all_rows"))
        rc = get_bool(o, "all_rows", &x->all_rows, e);
    if (!rc)
        rc = get_list(o, "collectives", COLLECTIVES_MAX, &list, &x->n_collective, e);
    for (int i = 0; !rc && i < x->n_collective; i++)
        if ((rc = collective_from_json(json_array_get(list, (size_t)i), &x->collective[i], e)))
            rc = err_add(e, rc, "collectives: entry %d", i);
    return rc;
}

static int lists_from_json(const json_t *o, struct hardware *x, struct err *e)
{
    const json_t *rates = NULL, *levels = NULL;
    int rc = get_list(o, "rates", RATES_MAX, &rates, &x->n_rates, e);
    if (!rc)
        rc = get_list(o, "levels", LEVELS_MAX, &levels, &x->n_level, e);
    for (int i = 0; !rc && i < x->n_rates; i++)
        if ((rc = rates_from_json(json_array_get(rates, (size_t)i), &x->rates[i], e)))
            rc = err_add(e, rc, "rates: entry %d", i);
    for (int i = 0; !rc && i < x->n_level; i++)
        if ((rc = level_from_json(json_array_get(levels, (size_t)i), &x->level[i], e)))
            rc = err_add(e, rc, "levels: entry %d", i);
    return rc;
}

static int all_from_json(const json_t *o, struct hardware *x, struct err *e)
{
    static const char *const names[] = {
        "schema", "name",      "device", "kind", "rates",
        "levels", "math_rate", "about",  "date", HARDWARE_FIGURES(NAME)};
    int schema = 0, kind = 0, rc = known_only(o, names, COUNT(names), 6, e);
    if (!rc)
        rc = get_count(o, "schema", &schema, e);
    if (!rc && schema != SCHEMA)
        rc = err_set(e, -EINVAL, "schema: %d is not %d", schema, SCHEMA);
    if (!rc)
        rc = get_text(o, "name", x->name, sizeof(x->name), e);
    if (!rc)
        rc = get_text(o, "device", x->device, sizeof(x->device), e);
    if (!rc)
        rc = get_text(o, "about", x->about, sizeof(x->about), e);
    if (!rc)
        rc = get_text(o, "date", x->date, sizeof(x->date), e);
    if (!rc)
        rc = get_word(o, "kind", kind_word, 0, COUNT(kind_name), &kind, e);
    x->kind = (enum device_kind)kind;
    HARDWARE_FIGURES(GET_FIGURE)
    if (!rc)
        rc = by_format(o, "math_rate", x->math_rate, NULL, e);
    return rc ? rc : lists_from_json(o, x, e);
}

int hardware_from_json(const json_t *o, struct hardware *x, struct err *e)
{
    memset(x, 0, sizeof(*x));
    int rc = all_from_json(o, x, e);
    return rc ? err_add(e, rc, "hardware profile") : hardware_check(x, e);
}
