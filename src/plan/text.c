/* text.c - the JSON form of a plan. See plan.h and docs/PLAN.md. */
#include "base/json.h"
#include "model/folder.h"
#include "plan/plan.h"

#include <xxhash.h>

enum { SCHEMA = 1 };

static const char *const scaling_name[] = {"plain", "linear", "dynamic", "llama3", "yarn"};

/* Every plain field once: written, read and bounded by the same rows. */
#define MODEL_FIELDS(INT, BOOL, FLOAT)                                                             \
    INT(n_layer, 1, MODEL_LAYERS)                                                                  \
    INT(n_embd, 1, 1 << 20)                                                                        \
    INT(n_head, 1, 1 << 16)                                                                        \
    INT(n_kv, 1, 1 << 16)                                                                          \
    INT(head_dim, 2, 1 << 14)                                                                      \
    INT(n_ff, 1, 1 << 24)                                                                          \
    INT(n_vocab, 1, 1 << 26)                                                                       \
    INT(n_ctx, 1, 1 << 28)                                                                         \
    BOOL(qkv_bias)                                                                                 \
    BOOL(o_bias)                                                                                   \
    BOOL(mlp_bias)                                                                                 \
    BOOL(qk_norm)                                                                                  \
    BOOL(tied)                                                                                     \
    FLOAT(eps)
#define EXPERT_FIELDS(INT, BOOL, FLOAT)                                                            \
    INT(n, 1, MODEL_EXPERTS)                                                                       \
    INT(top, 1, MODEL_TOP)                                                                         \
    INT(ff, 1, 1 << 24)                                                                            \
    INT(shared_ff, 0, 1 << 24)                                                                     \
    BOOL(renorm)                                                                                   \
    BOOL(shared_gate)                                                                              \
    BOOL(numbered)
#define ROPE_FIELDS(INT, BOOL, FLOAT)                                                              \
    FLOAT(theta)                                                                                   \
    FLOAT(factor)                                                                                  \
    FLOAT(low_freq)                                                                                \
    FLOAT(high_freq)                                                                               \
    FLOAT(beta_fast)                                                                               \
    FLOAT(beta_slow)                                                                               \
    FLOAT(attention)                                                                               \
    INT(original_ctx, 0, 1 << 28)                                                                  \
    BOOL(truncate)
#define PLAN_FIELDS(INT, BOOL, FLOAT)                                                              \
    INT(shares, 1, SHARES_MAX)                                                                     \
    INT(ff_unit, 1, 1 << 20)                                                                       \
    INT(pp, 1, PLAN_STAGES)                                                                        \
    INT(dp, 1, PLAN_REPLICAS)                                                                      \
    INT(tp, 1, SHARES_MAX)                                                                         \
    BOOL(sp)                                                                                       \
    INT(threads, 1, PLAN_THREADS)                                                                  \
    INT(max_tok, 1, 1 << 16)                                                                       \
    INT(max_seq, 1, 1 << 16)                                                                       \
    INT(max_out, 1, 1 << 16)                                                                       \
    INT(ctx, 1, 1 << 28)                                                                           \
    INT(pages, 1, 1 << 26)

/* ------------------------------------------------------------------------------- writing */

#define PUT_INT(f, ...) json_object_set_new(o, #f, json_integer(x->f));
#define PUT_BOOL(f) json_object_set_new(o, #f, json_boolean(x->f));
#define PUT_FLOAT(f) json_object_set_new(o, #f, json_real((double)x->f));

static json_t *rope_to_json(const struct rope *x)
{
    json_t *o = json_object();
    json_object_set_new(o, "scaling", json_string(scaling_name[x->scaling]));
    ROPE_FIELDS(PUT_INT, PUT_BOOL, PUT_FLOAT)
    return o;
}

static json_t *experts_to_json(const struct experts *x)
{
    json_t *o = json_object();
    EXPERT_FIELDS(PUT_INT, PUT_BOOL, PUT_FLOAT)
    return o;
}

static json_t *model_to_json(const struct model *x)
{
    json_t *o = json_object(), *kinds = json_array(), *of = json_array();
    json_object_set_new(o, "arch", json_string(x->arch));
    MODEL_FIELDS(PUT_INT, PUT_BOOL, PUT_FLOAT)
    int n = 1;
    for (int l = 0; l < x->n_layer; l++) {
        json_array_append_new(of, json_integer(x->kind_of[l]));
        n = max_int(n, x->kind_of[l] + 1);
    }
    for (int i = 0; i < n; i++) {
        json_t *kind = json_object();
        json_object_set_new(kind, "window", json_integer(x->kind[i].window));
        if (x->kind[i].dense)
            json_object_set_new(kind, "dense", json_true());
        json_object_set_new(kind, "rope", rope_to_json(&x->kind[i].rope));
        json_array_append_new(kinds, kind);
    }
    json_object_set_new(o, "kinds", kinds);
    json_object_set_new(o, "kind_of", of);
    if (x->qk_row)
        json_object_set_new(o, "qk_row", json_true());
    if (x->clip > 0)
        json_object_set_new(o, "clip", json_real((double)x->clip));
    if (x->experts.n)
        json_object_set_new(o, "experts", experts_to_json(&x->experts));
    return o;
}

json_t *plan_to_json(const struct plan *x)
{
    json_t *o = json_object(), *stage = json_array(), *cut = json_array(), *core = json_array();
    json_object_set_new(o, "schema", json_integer(SCHEMA));
    json_object_set_new(o, "numerics", json_string(x->numerics));
    json_object_set_new(o, "weight", json_string(num_name(x->weight)));
    json_object_set_new(o, "kv", json_string(num_name(x->kv)));
    PLAN_FIELDS(PUT_INT, PUT_BOOL, PUT_FLOAT)
    if (x->ep > 1) /* plans without it stay what they were */
        PUT_INT(ep)
    if (x->slots)
        PUT_INT(slots)
    for (int i = 0; i < x->pp; i++)
        json_array_append_new(stage, json_pack("[ii]", x->stage[i].lo, x->stage[i].hi));
    for (int i = 0; i <= x->tp; i++)
        json_array_append_new(cut, json_integer(x->cut[i]));
    for (int r = 0; r < x->dp * plan_ranks(x); r++)
        json_array_append_new(core, json_integer(x->core[r]));
    json_object_set_new(o, "stage", stage);
    json_object_set_new(o, "cut", cut);
    json_object_set_new(o, "core", core);
    json_object_set_new(o, "model", model_to_json(&x->model));
    return o;
}

/* Of the object, which is freed. */
static uint64_t hash_of(json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);
    must(text);
    uint64_t hash = XXH3_64bits(text, strlen(text));
    free(text);
    json_decref(o);
    return hash;
}

uint64_t plan_hash(const struct plan *p) { return hash_of(plan_to_json(p)); }

uint64_t plan_weights_hash(const struct plan *p)
{
    return hash_of(json_pack("{s:i,s:i,s:s,s:o}", "shares", p->shares, "ff_unit", p->ff_unit,
                             "weight", num_name(p->weight), "model", model_to_json(&p->model)));
}

/* ------------------------------------------------------------------------------- reading */

/* Every field of o must be one of names; a wrong spelling would otherwise be a silent default. All
 * are needed but the last `spare`. */
static int known_only(const json_t *o, const char *const *names, int n, int spare, struct err *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(o))
        return err_set(e, -EINVAL, "an object is needed");
    json_object_foreach((json_t *)o, key, v)
    {
        int i = 0;
        while (i < n && strcmp(names[i], key))
            i++;
        if (i == n)
            return err_set(e, -EINVAL, "unknown field \"%.60s\"", key);
    }
    for (int i = 0; i < n - spare; i++)
        if (!json_object_get(o, names[i]))
            return err_set(e, -EINVAL, "field \"%s\" is missing", names[i]);
    return 0;
}

#define NAME(f, ...) #f,
#define GET_INT(f, lo, hi)                                                                         \
    if (!rc)                                                                                       \
        rc = json_get_int(o, #f, lo, hi, &x->f, e);
#define GET_BOOL(f)                                                                                \
    if (!rc)                                                                                       \
        rc = json_get_bool(o, #f, &x->f, e);
#define GET_FLOAT(f)                                                                               \
    if (!rc)                                                                                       \
        rc = json_get_float(o, #f, 0, 1e12, &x->f, e);

/* The string's place in names[n]. */
static int get_choice(const json_t *o, const char *key, const char *const *names, int n, int *to,
                      struct err *e)
{
    const char *s = NULL;
    int rc = json_get_text(o, key, &s, e);
    if (rc)
        return rc;
    for (int i = 0; s && i < n; i++)
        if (!strcmp(names[i], s)) {
            *to = i;
            return 0;
        }
    return err_set(e, -EINVAL, "%s: \"%.40s\" is not one of those known", key, s ? s : "");
}

static int get_num(const json_t *o, const char *key, enum num *to, struct err *e)
{
    const char *names[NUM_COUNT];
    int at = 0;
    for (int i = 0; i < NUM_COUNT; i++)
        names[i] = num_name((enum num)i);
    int rc = get_choice(o, key, names, NUM_COUNT, &at, e);
    *to = (enum num)at;
    return rc;
}

static int array_of(const json_t *o, const char *key, size_t lo, size_t hi, const json_t **to,
                    struct err *e)
{
    *to = json_object_get(o, key);
    if (!json_is_array(*to) || json_array_size(*to) < lo || json_array_size(*to) > hi)
        return err_set(e, -EINVAL, "%s: a list of %zu to %zu is needed", key, lo, hi);
    return 0;
}

static int number_at(const json_t *list, size_t i, const char *key, int lo, int hi, int *to,
                     struct err *e)
{
    const json_t *v = json_array_get(list, i);
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v) || n < lo || n > hi)
        return err_set(e, -EINVAL, "%s: entry %zu must be a whole number, %d to %d", key, i, lo,
                       hi);
    *to = (int)n;
    return 0;
}

static int rope_from_json(const json_t *o, struct rope *x, struct err *e)
{
    static const char *const names[] = {"scaling", ROPE_FIELDS(NAME, NAME, NAME)};
    int scaling = 0, rc = known_only(o, names, COUNT(names), 0, e);
    if (!rc)
        rc = get_choice(o, "scaling", scaling_name, COUNT(scaling_name), &scaling, e);
    x->scaling = (enum rope_scaling)scaling;
    ROPE_FIELDS(GET_INT, GET_BOOL, GET_FLOAT)
    return rc;
}

static int kind_from_json(const json_t *o, struct layer_kind *x, struct err *e)
{
    static const char *const names[] = {"window", "rope", "dense"};
    int rc = known_only(o, names, COUNT(names), 1, e);
    GET_INT(window, 0, 1 << 28)
    GET_BOOL(dense)
    return rc ? rc : rope_from_json(json_object_get(o, "rope"), &x->rope, e);
}

static int experts_from_json(const json_t *o, struct experts *x, struct err *e)
{
    static const char *const names[] = {EXPERT_FIELDS(NAME, NAME, NAME)};
    int rc = known_only(o, names, COUNT(names), 0, e);
    EXPERT_FIELDS(GET_INT, GET_BOOL, GET_FLOAT)
    return rc ? err_add(e, rc, "experts") : 0;
}

static int model_from_json(const json_t *o, struct model *x, struct err *e)
{
    static const char *const names[] = {
        "arch", "kinds", "kind_of", MODEL_FIELDS(NAME, NAME, NAME) "qk_row", "clip", "experts"};
    const json_t *kinds, *of;
    const char *arch = "";
    int rc = known_only(o, names, COUNT(names), 3, e);
    if (!rc)
        rc = json_get_text(o, "arch", &arch, e);
    snprintf(x->arch, sizeof(x->arch), "%s", arch);
    MODEL_FIELDS(GET_INT, GET_BOOL, GET_FLOAT)
    GET_BOOL(qk_row)
    GET_FLOAT(clip)
    if (!rc && x->n_head % x->n_kv)
        rc = err_set(e, -EINVAL, "n_head=%d is not a multiple of n_kv=%d", x->n_head, x->n_kv);
    if (!rc && x->head_dim % 2)
        rc = err_set(e, -EINVAL, "head_dim=%d is odd", x->head_dim);
    if (!rc)
        rc = array_of(o, "kinds", 1, MODEL_KINDS, &kinds, e);
    if (!rc)
        rc = array_of(o, "kind_of", (size_t)x->n_layer, (size_t)x->n_layer, &of, e);
    for (size_t i = 0; !rc && i < json_array_size(kinds); i++)
        rc = kind_from_json(json_array_get(kinds, i), &x->kind[i], e);
    for (size_t l = 0; !rc && l < (size_t)x->n_layer; l++) {
        int k = 0;
        rc = number_at(of, l, "kind_of", 0, (int)json_array_size(kinds) - 1, &k, e);
        x->kind_of[l] = (uint8_t)k;
    }
    if (!rc && json_object_get(o, "experts"))
        rc = experts_from_json(json_object_get(o, "experts"), &x->experts, e);
    if (!rc)
        rc = model_check(x, e);
    return rc ? err_add(e, rc, "model") : 0;
}

static int spans_from_json(const json_t *o, struct plan *x, struct err *e)
{
    const json_t *stage = NULL, *cut = NULL, *core = NULL;
    size_t ranks = (size_t)(x->dp * x->pp * x->tp);
    if (ranks > PLAN_RANKS)
        return err_set(e, -EINVAL, "%zu ranks, more than %d", ranks, PLAN_RANKS);
    int rc = array_of(o, "stage", (size_t)x->pp, (size_t)x->pp, &stage, e);
    if (!rc)
        rc = array_of(o, "cut", (size_t)x->tp + 1, (size_t)x->tp + 1, &cut, e);
    if (!rc)
        rc = array_of(o, "core", ranks, ranks, &core, e);
    for (size_t i = 0; !rc && i < (size_t)x->pp; i++) {
        const json_t *pair = json_array_get(stage, i);
        if (json_array_size(pair) != 2)
            return err_set(e, -EINVAL, "stage: entry %zu must be [first layer, one past the last]",
                           i);
        rc = number_at(pair, 0, "stage", 0, MODEL_LAYERS, &x->stage[i].lo, e);
        if (!rc)
            rc = number_at(pair, 1, "stage", 0, MODEL_LAYERS, &x->stage[i].hi, e);
    }
    for (size_t i = 0; !rc && i <= (size_t)x->tp; i++)
        rc = number_at(cut, i, "cut", 0, SHARES_MAX, &x->cut[i], e);
    for (size_t r = 0; !rc && r < ranks; r++)
        rc = number_at(core, r, "core", -1, 4095, &x->core[r], e);
    return rc;
}

int plan_from_json(const json_t *o, struct plan *x, struct err *e)
{
    static const char *const names[] = {"schema", "numerics", "weight",
                                        "kv",     "stage",    "cut",
                                        "core",   "model",    PLAN_FIELDS(NAME, NAME, NAME) "ep",
                                        "slots"};
    const char *numerics = "";
    memset(x, 0, sizeof(*x));
    int rc = known_only(o, names, COUNT(names), 2, e), schema = 0;
    if (!rc)
        rc = json_get_int(o, "schema", SCHEMA, SCHEMA, &schema, e);
    if (!rc)
        rc = json_get_text(o, "numerics", &numerics, e);
    snprintf(x->numerics, sizeof(x->numerics), "%s", numerics);
    if (!rc)
        rc = get_num(o, "weight", &x->weight, e);
    if (!rc)
        rc = get_num(o, "kv", &x->kv, e);
    PLAN_FIELDS(GET_INT, GET_BOOL, GET_FLOAT)
    x->ep = 1;
    if (!rc && json_object_get(o, "ep"))
        rc = json_get_int(o, "ep", 1, SHARES_MAX, &x->ep, e);
    if (!rc && json_object_get(o, "slots"))
        rc = json_get_int(o, "slots", 0, MODEL_EXPERTS, &x->slots, e);
    if (!rc)
        rc = model_from_json(json_object_get(o, "model"), &x->model, e);
    if (!rc)
        rc = spans_from_json(o, x, e);
    if (rc)
        return err_add(e, rc, "plan");
    return plan_check(x, e);
}

int plan_load(const char *path, struct plan *p, struct err *e)
{
    int rc = 0;
    json_t *o = json_file(path, 1 << 24, &rc, e);
    if (!o)
        return rc;
    rc = plan_from_json(o, p, e);
    json_decref(o);
    return rc ? err_add(e, rc, "%s", path) : 0;
}
