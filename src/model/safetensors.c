/* safetensors.c - see safetensors.h. Format: huggingface.co/docs/safetensors. */
#include "model/safetensors.h"
#include "base/json.h"

enum { HEADER_MAX = 100000000 };

static int type_of(const char *s, enum num *type, size_t *bytes)
{
    static const struct {
        const char *name;
        int type;
        size_t bytes;
    } row[] = {{"F32", NUM_F32, 4},     {"F16", NUM_F16, 2},     {"BF16", NUM_BF16, 2},
               {"F64", TYPE_OTHER, 8},  {"I64", TYPE_OTHER, 8},  {"U64", TYPE_OTHER, 8},
               {"I32", NUM_I32, 4},     {"U32", TYPE_OTHER, 4},  {"I16", TYPE_OTHER, 2},
               {"U16", TYPE_OTHER, 2},  {"I8", TYPE_OTHER, 1},   {"U8", TYPE_OTHER, 1},
               {"BOOL", TYPE_OTHER, 1}, {"F8_E4M3", NUM_FP8, 1}, {"F8_E5M2", TYPE_OTHER, 1}};
    for (size_t i = 0; i < COUNT(row); i++)
        if (!strcmp(row[i].name, s)) {
            *type = (enum num)row[i].type;
            *bytes = row[i].bytes;
            return 0;
        }
    return -EINVAL;
}

static int shape_of(const json_t *shape, struct tensor *t, uint64_t *numbers, struct err *e)
{
    if (!json_is_array(shape) || json_array_size(shape) > COUNT(t->dim))
        return err_set(e, -EINVAL, "shape must be a list of at most %zu sizes", COUNT(t->dim));
    *numbers = 1; /* of an empty shape: a scalar */
    t->n_dim = (int)json_array_size(shape);
    for (int i = 0; i < t->n_dim; i++) {
        const json_t *v = json_array_get(shape, (size_t)i);
        json_int_t n = json_integer_value(v);
        if (!json_is_integer(v) || n < 0 || n > (json_int_t)1 << 40)
            return err_set(e, -EINVAL, "shape: size %d is not a whole number from 0 to 2^40", i);
        t->dim[i] = n;
        if (__builtin_mul_overflow(*numbers, (uint64_t)n, numbers) || *numbers >> 50)
            return err_set(e, -EINVAL, "shape: more than 2^50 numbers");
    }
    return 0;
}

/* One entry of the header; its data lies in data[0..size). */
static int entry(const json_t *v, struct tensor *t, const char *data, size_t size, struct err *e)
{
    const char *type = NULL;
    const json_t *at = json_object_get(v, "data_offsets");
    uint64_t numbers = 0;
    size_t bytes;
    if (json_get_text(v, "dtype", &type, e))
        return -EINVAL;
    if (!type || type_of(type, &t->type, &bytes))
        return err_set(e, -EINVAL, "dtype \"%.20s\" is unknown", type ? type : "");
    if (shape_of(json_object_get(v, "shape"), t, &numbers, e))
        return -EINVAL;
    json_int_t lo = json_integer_value(json_array_get(at, 0));
    json_int_t hi = json_integer_value(json_array_get(at, 1));
    if (json_array_size(at) != 2 || !json_is_integer(json_array_get(at, 0)) ||
        !json_is_integer(json_array_get(at, 1)) || lo < 0 || hi < lo)
        return err_set(e, -EINVAL, "data_offsets must be two ascending whole numbers");
    if ((uint64_t)hi > size)
        return err_set(e, -EINVAL, "its data ends at byte %lld of %zu: the file is cut short",
                       (long long)hi, size);
    t->bytes = (size_t)(hi - lo);
    t->data = data + lo;
    if (t->bytes != numbers * bytes)
        return err_set(e, -EINVAL, "%zu bytes of data for %llu numbers of %zu bytes", t->bytes,
                       (unsigned long long)numbers, bytes);
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Data must be covered exactly once, as the format demands: no hidden bytes, no sharing. */
static int check_cover(struct tensor *t, int n, const char *data, size_t size, struct err *e)
{
    const char *at = data;
    qsort(t, (size_t)n, sizeof(*t), by_place);
    for (int i = 0; i < n; i++) {
        if ((const char *)t[i].data < at)
            return err_set(e, -EINVAL, "tensor \"%.80s\" overlaps another", t[i].name);
        if ((const char *)t[i].data > at)
            return err_set(e, -EINVAL, "a gap of %td bytes before tensor \"%.80s\"",
                           (const char *)t[i].data - at, t[i].name);
        at += t[i].bytes;
    }
    if (at != data + size)
        return err_set(e, -EINVAL, "%td bytes after the last tensor", data + size - at);
    return 0;
}

static int read_header(const json_t *header, const char *data, size_t size, struct pool *pool,
                       struct tensor **list, int *count, struct err *e)
{
    const char *name;
    json_t *v;
    int n = 0, old = *count;
    if (!json_is_object(header))
        return err_set(e, -EINVAL, "the header is not a JSON object");
    struct tensor *all = pool_get(pool, ((size_t)old + json_object_size(header)) * sizeof(*all)),
                  *t = all + old;
    if (old)
        memcpy(all, *list, (size_t)old * sizeof(*all));
    json_object_foreach((json_t *)header, name, v)
    {
        if (!strcmp(name, "__metadata__"))
            continue;
        t[n].name = pool_text(pool, name, strlen(name));
        int rc = entry(v, &t[n++], data, size, e);
        if (rc)
            return err_add(e, rc, "tensor \"%.80s\"", name);
    }
    *list = all;
    *count = old + n;
    return check_cover(t, n, data, size, e);
}

int safetensors_parse(const void *bytes, size_t n, const char *what, struct pool *pool,
                      struct tensor **list, int *count, struct err *e)
{
    uint64_t header;
    if (n < sizeof(header))
        return err_set(e, -EINVAL, "%s: %zu bytes are too few for a safetensors file", what, n);
    memcpy(&header, bytes, sizeof(header));
    if (header > HEADER_MAX)
        return err_set(e, -EINVAL, "%s: a header of %llu bytes; is it a safetensors file?", what,
                       (unsigned long long)header);
    if (header > n - sizeof(header))
        return err_set(e, -EINVAL, "%s: the header wants %llu bytes, the file has %zu: cut short",
                       what, (unsigned long long)header, n - sizeof(header));
    const char *text = (const char *)bytes + sizeof(header), *data = text + header;
    json_t *o = json_parse(text, (size_t)header, what, e);
    if (!o)
        return -EINVAL;
    int rc = read_header(o, data, n - sizeof(header) - (size_t)header, pool, list, count, e);
    json_decref(o);
    return rc ? err_add(e, rc, "%s", what) : 0;
}
