/* placement_text.c - placements of experts as JSON. See placement.h and docs/PLAN.md. */
#include "base/json.h"
#include "plan/placement.h"

enum { SCHEMA = 1, LIMIT_BYTES = 64 << 20 };

/* ------------------------------------------------------------------------------- writing */

static json_t *holds_to_json(const struct placement *p)
{
    json_t *runs = json_array();
    for (int r = 0; r < p->n_run; r++) {
        json_t *run = json_array();
        for (int e = 0; e < p->n_expert; e++)
            if (placement_holds(p, r, e))
                json_array_append_new(run, json_integer(e));
        json_array_append_new(runs, run);
    }
    return runs;
}

static bool alike(const struct placement *layer, int n_layer)
{
    for (int l = 1; l < n_layer; l++)
        if (memcmp(&layer[l], &layer[0], sizeof(*layer)) != 0)
            return false;
    return true;
}

json_t *placement_to_json(const struct placement *layer, int n_layer)
{
    json_t *layers = json_array();
    bool once = alike(layer, n_layer);
    for (int l = 0; l < (once ? 1 : n_layer); l++) {
        json_t *one = json_object();
        if (!once)
            json_object_set_new(one, "layer", json_integer(l));
        json_object_set_new(one, "holds", holds_to_json(&layer[l]));
        json_array_append_new(layers, one);
    }
    return json_pack("{sisisiso}", "schema", SCHEMA, "experts", layer->n_expert, "runs",
                     layer->n_run, "layers", layers);
}

/* ------------------------------------------------------------------------------- reading */

static int read_run(const json_t *run, int r, struct placement *to, struct err *e)
{
    const uint64_t bit = (uint64_t)1 << r;
    if (!json_is_array(run))
        return err_set(e, -EINVAL, "holds of run %d must be a list of experts", r);
    for (size_t i = 0; i < json_array_size(run); i++) {
        const json_t *x = json_array_get(run, i);
        json_int_t expert = json_is_integer(x) ? json_integer_value(x) : -1;
        if (expert < 0 || expert >= to->n_expert)
            return err_set(e, -EINVAL, "holds of run %d must name experts from 0 to %d", r,
                           to->n_expert - 1);
        if (to->holders[expert] & bit)
            return err_set(e, -EINVAL, "run %d names expert %lld twice: name it once", r,
                           (long long)expert);
        to->holders[expert] |= bit;
    }
    return 0;
}

static int read_holds(const json_t *holds, struct placement *to, struct err *e)
{
    int code = 0;
    if (!json_is_array(holds) || json_array_size(holds) != (size_t)to->n_run)
        return err_set(e, -EINVAL, "holds must be a list of %d lists of experts, one per run",
                       to->n_run);
    memset(to->holders, 0, sizeof(to->holders));
    for (int r = 0; r < to->n_run && !code; r++)
        code = read_run(json_array_get(holds, (size_t)r), r, to, e);
    return code ? code : placement_check(to, e);
}

static int read_layer(const json_t *o, struct placement *layer, int n_layer, struct err *e)
{
    int l = -1;
    int code = json_is_object(o) ? json_get_int(o, "layer", 0, n_layer - 1, &l, e)
                                 : err_set(e, -EINVAL, "layers must be a list of objects");
    if (code)
        return code;
    struct placement p = layer[max_int(l, 0)];
    code = read_holds(json_object_get(o, "holds"), &p, e);
    if (code)
        return l < 0 ? code : err_add(e, code, "layer %d", l);
    for (int i = 0; i < n_layer; i++)
        if (l < 0 || l == i)
            layer[i] = p;
    return 0;
}

int placement_from_json(const json_t *o, struct placement *layer, int n_layer, struct err *e)
{
    const json_t *layers = json_object_get(o, "layers");
    int schema = 0, experts = 0, runs = 0, code = 0;
    if (!json_is_object(o) || !json_is_array(layers))
        return err_set(e, -EINVAL, "a placement is an object with a list of layers");
    if ((code = json_get_int(o, "schema", 1, SCHEMA, &schema, e)) ||
        (code = json_get_int(o, "experts", 1, MODEL_EXPERTS, &experts, e)) ||
        (code = json_get_int(o, "runs", 1, PLACEMENT_RUNS, &runs, e)))
        return code;
    if (!schema)
        return err_set(e, -EINVAL, "a placement must say \"schema\": %d", SCHEMA);
    if (experts != layer->n_expert || runs != layer->n_run)
        return err_set(e, -EINVAL, "it places %d experts on %d runs of ranks; here are %d on %d",
                       experts, runs, layer->n_expert, layer->n_run);
    for (size_t i = 0; i < json_array_size(layers) && !code; i++)
        code = read_layer(json_array_get(layers, i), layer, n_layer, e);
    return code;
}

int placement_load(const char *path, struct placement *layer, int n_layer, struct err *e)
{
    int code = 0;
    json_t *o = json_file(path, LIMIT_BYTES, &code, e);
    if (!o)
        return code;
    code = placement_from_json(o, layer, n_layer, e);
    json_decref(o);
    return code ? err_add(e, code, "%s", path) : 0;
}
