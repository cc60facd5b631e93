/* config_quant.c - quantization_config of config.json: weights of e4m3 with scales, as several
 * programs write them. What the scales are for is seen from their shapes (model/store.h); here
 * everything else is refused. Activations are never rounded to fp8, whatever the field says.
 */
#include "model/config_inside.h"

static void note(struct notes *notes, const char *text)
{
    if (notes->n < (int)COUNT(notes->text))
        snprintf(notes->text[notes->n++], sizeof(notes->text[0]), "%s", text);
}

static bool is_text(const json_t *o, const char *key, const char *text)
{
    const char *have = json_string_value(json_object_get(o, key));
    return have && !strcmp(have, text);
}

static bool is_there(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return v && !json_is_null(v);
}

/* Blocks of 128 x 128 are read, or none. */
static int check_block(const json_t *o, const char *key, struct err *e)
{
    const json_t *v = json_object_get(o, key);
    if (!is_there(o, key))
        return 0;
    if (json_array_size(v) == 2 && json_integer_value(json_array_get(v, 0)) == 128 &&
        json_integer_value(json_array_get(v, 1)) == 128)
        return 0;
    return err_set(e, -ENOTSUP, "quantization_config: %s must be [128, 128]", key);
}

/* A module that stays wide here too: the head, and what is no matrix of a layer's format. */
static bool wide_here(const char *module)
{
    static const char *const part[] = {"lm_head", "embed", "norm", "rotary"};
    const size_t n = strlen(module);
    for (size_t i = 0; i < COUNT(part); i++)
        if (strstr(module, part[i]))
            return true;
    return (n >= 4 && !strcmp(module + n - 4, "gate")) || strstr(module, "gate$") ||
           strstr(module, "shared_expert_gate");
}

static int check_left_out(const json_t *list, struct notes *notes, struct err *e)
{
    const char *first = NULL;
    int n = 0;
    if (list && !json_is_null(list) && !json_is_array(list))
        return err_set(e, -EINVAL, "quantization_config: modules left out must be a list");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *module = json_string_value(json_array_get(list, i));
        if (!module)
            return err_set(e, -EINVAL, "quantization_config: modules left out must be names");
        if (wide_here(module))
            continue;
        first = first ? first : module;
        n++;
    }
    if (!n)
        return 0;
    char text[sizeof(notes->text[0])];
    snprintf(
        text, sizeof(text),
        "config.json leaves %d modules of layers wide (\"%.80s\"%s): in fp8 they are rounded like "
        "the others; --dtype bf16 keeps them",
        n, first, n > 1 ? " ..." : "");
    note(notes, text);
    return 0;
}

/* A group of compressed-tensors. */
static int check_group(const json_t *group, struct notes *notes, struct err *e)
{
    const json_t *w = json_object_get(group, "weights"),
                 *x = json_object_get(group, "input_activations");
    if (!is_text(w, "type", "float") || json_integer_value(json_object_get(w, "num_bits")) != 8)
        return err_set(e, -ENOTSUP,
                       "quantization_config: weights of a type other than float of 8 "
                       "bits are not read");
    if (!is_text(w, "strategy", "tensor") && !is_text(w, "strategy", "channel") &&
        !is_text(w, "strategy", "block"))
        return err_set(e, -ENOTSUP,
                       "quantization_config: the strategy of weights must be tensor, channel or "
                       "block");
    if (json_is_false(json_object_get(x, "dynamic")))
        note(notes, "config.json rounds activations by fixed scales; they are not rounded here");
    return check_block(w, "block_structure", e);
}

static int check_compressed(const json_t *q, struct notes *notes, struct err *e)
{
    const json_t *groups = json_object_get(q, "config_groups");
    const char *name;
    json_t *group;
    int rc = 0;
    if (!is_text(q, "format", "float-quantized") || !json_object_size(groups))
        return err_set(e, -ENOTSUP,
                       "quantization_config: of compressed-tensors only float-quantized is read: "
                       "use the bf16 version of the model");
    if (is_there(q, "kv_cache_scheme"))
        note(notes, "config.json names a format for keys and values; --kv says it here");
    json_object_foreach((json_t *)groups, name, group) if (!rc) rc = check_group(group, notes, e);
    return rc;
}

int config_quantised(const json_t *q, struct notes *notes, struct err *e)
{
    int rc = 0;
    if (!q || json_is_null(q))
        return 0;
    if (is_text(q, "quant_method", "compressed-tensors"))
        rc = check_compressed(q, notes, e);
    else if (is_text(q, "quant_method", "fp8"))
        rc = check_block(q, "weight_block_size", e);
    else if (!is_text(q, "quant_method", "fbgemm_fp8"))
        return err_set(e, -ENOTSUP,
                       "the weights are quantised (quantization_config) in a way that is not read; "
                       "fp8, fbgemm_fp8 and compressed-tensors are, of e4m3: use the bf16 or f16 "
                       "version of the model");
    if (is_text(q, "activation_scheme", "static"))
        note(notes, "config.json rounds activations by fixed scales; they are not rounded here");
    if (!rc)
        rc = check_left_out(json_object_get(q, "modules_to_not_convert"), notes, e);
    return rc ? rc : check_left_out(json_object_get(q, "ignore"), notes, e);
}
