/* loads.c - see loads.h. */
#include "sched/loads.h"
#include "base/json.h"

enum { SCHEMA = 1, LIMIT_BYTES = 64 << 20 };

static int read_rows(const json_t *rows, int n, double *to, struct err *e)
{
    if (!json_is_array(rows) || json_array_size(rows) != (size_t)n)
        return err_set(e, -EINVAL, "rows must be a list of %d numbers, one per expert", n);
    for (int i = 0; i < n; i++) {
        to[i] = json_number_value(json_array_get(rows, (size_t)i));
        if (!json_is_number(json_array_get(rows, (size_t)i)) || !(to[i] >= 0) || to[i] > 0x1p53)
            return err_set(e, -EINVAL, "rows of expert %d must be a count", i);
    }
    return 0;
}

static int read_layer(const json_t *o, const struct model *m, double *rows, struct err *e)
{
    const int n = m->experts.n;
    int l = -1;
    int code = json_is_object(o) ? json_get_int(o, "layer", 0, m->n_layer - 1, &l, e)
                                 : err_set(e, -EINVAL, "layers must be a list of objects");
    if (code)
        return code;
    if (l < 0)
        return err_set(e, -EINVAL, "every layer must say its number");
    if (!model_sparse(m, l))
        return err_set(e, -EINVAL, "layer %d of the model has no experts", l);
    code = read_rows(json_object_get(o, "rows"), n, rows + (size_t)l * (size_t)n, e);
    return code ? err_add(e, code, "layer %d", l) : 0;
}

int loads_from_json(const json_t *o, const struct model *m, double *rows, struct err *e)
{
    const json_t *layers = json_object_get(o, "layers");
    int schema = 0, experts = 0, code = 0;
    if (!m->experts.n)
        return err_set(e, -EINVAL, "the model has no experts: leave the loads out");
    if (!json_is_array(layers))
        return err_set(e, -EINVAL, "loads of experts are an object with a list of layers");
    if ((code = json_get_int(o, "schema", 1, SCHEMA, &schema, e)) ||
        (code = json_get_int(o, "experts", 1, MODEL_EXPERTS, &experts, e)))
        return code;
    if (!schema)
        return err_set(e, -EINVAL, "loads of experts must say \"schema\": %d", SCHEMA);
    if (experts != m->experts.n)
        return err_set(e, -EINVAL, "these are loads of %d experts; the model has %d", experts,
                       m->experts.n);
    memset(rows, 0, (size_t)m->n_layer * (size_t)m->experts.n * sizeof(*rows));
    for (size_t i = 0; i < json_array_size(layers) && !code; i++)
        code = read_layer(json_array_get(layers, i), m, rows, e);
    return code;
}

int loads_load(const char *path, const struct model *m, double *rows, struct err *e)
{
    int code = 0;
    json_t *o = json_file(path, LIMIT_BYTES, &code, e);
    if (!o)
        return code;
    code = loads_from_json(o, m, rows, e);
    json_decref(o);
    return code ? err_add(e, code, "%s", path) : 0;
}
