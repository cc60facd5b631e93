/* config_layers.c - how the layers of a model differ, as config.json has it: windows, and experts.
 * See config_inside.h. */
#include "model/config_inside.h"

/* ------------------------------------------------------------------------------- windows */

/* Without layer_types, and with use_sliding_window where the family has it. `first` is
 * max_window_layers: dense Qwen has windows from there on, Qwen2-MoE in every second layer before,
 * Qwen3-MoE in all layers whatever it says; so does transformers. */
static bool windowed(const struct family *f, int layer, int first)
{
    return f->window == WINDOW_FLAG        ? layer >= first
           : f->window == WINDOW_FLAG_EVEN ? layer < first && layer % 2 == 0
                                           : true;
}

/* Which layers see only a window: kind 1. layer_types wins over the older fields. */
int config_windows(const json_t *o, const struct family *f, struct model *m, struct err *e)
{
    const json_t *types = json_object_get(o, "layer_types");
    bool use = f->window == WINDOW_ALL;
    int window = 0, first = 28;
    if (json_get_int(o, "sliding_window", 0, 1 << 28, &window, e))
        return -EINVAL;
    if (f->window >= WINDOW_FLAG && (json_get_bool(o, "use_sliding_window", &use, e) ||
                                     json_get_int(o, "max_window_layers", 0, 4096, &first, e)))
        return -EINVAL;
    m->kind[1] = m->kind[0];
    m->kind[1].window = window;
    if (!use || f->window == WINDOW_NONE || !window)
        return 0;
    if (json_is_array(types) && json_array_size(types) != (size_t)m->n_layer)
        return err_set(e, -EINVAL, "layer_types lists %zu layers of %d", json_array_size(types),
                       m->n_layer);
    for (int l = 0; l < m->n_layer; l++) {
        const char *type = json_string_value(json_array_get(types, (size_t)l));
        if (type && strcmp(type, "sliding_attention") && strcmp(type, "full_attention"))
            return err_set(e, -ENOTSUP, "layer_types: \"%.40s\" is not supported", type);
        m->kind_of[l] = type ? !strcmp(type, "sliding_attention") : windowed(f, l, first);
    }
    return 0;
}

/* ------------------------------------------------------------------------------- experts */

enum { DENSE = 2 }; /* kinds of layers from here on have no experts, but are otherwise as before */

/* Qwen: layer l has experts when l + 1 is a multiple of decoder_sparse_step and it is not listed.
 */
static int dense_layers(const json_t *o, struct model *m, struct err *e)
{
    const json_t *list = json_object_get(o, "mlp_only_layers");
    int step = 1;
    if (json_get_int(o, "decoder_sparse_step", 1, MODEL_LAYERS, &step, e))
        return -EINVAL;
    bool dense[MODEL_LAYERS];
    for (int l = 0; l < m->n_layer; l++)
        dense[l] = (l + 1) % step != 0;
    if (list && !json_is_null(list) && !json_is_array(list))
        return err_set(e, -EINVAL, "mlp_only_layers: a list of layers is needed");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t l = json_integer_value(v);
        if (!json_is_integer(v) || l < 0 || l >= m->n_layer)
            return err_set(e, -EINVAL, "mlp_only_layers: entry %zu is none of the %d layers", i,
                           m->n_layer);
        dense[l] = true;
    }
    for (int l = 0; l < m->n_layer; l++)
        if (dense[l])
            m->kind_of[l] = (uint8_t)(m->kind_of[l] + DENSE);
    for (int k = 0; k < DENSE; k++) {
        m->kind[k + DENSE] = m->kind[k];
        m->kind[k + DENSE].dense = true;
    }
    return 0;
}

/* Both names are in use; transformers takes the one for the other. */
static int number_of_experts(const json_t *o, int *n, struct err *e)
{
    static const char *const name[] = {"num_experts", "num_local_experts"};
    int of[2] = {0};
    for (int i = 0; i < 2; i++)
        if (json_get_int(o, name[i], 1, MODEL_EXPERTS, &of[i], e))
            return -EINVAL;
    if (of[0] && of[1] && of[0] != of[1])
        return err_set(e, -EINVAL, "num_experts %d and num_local_experts %d differ", of[0], of[1]);
    *n = max_int(of[0], of[1]);
    return *n ? 0 : err_set(e, -EINVAL, "num_experts is missing");
}

int config_experts(const json_t *o, const struct family *f, struct model *m, struct err *e)
{
    struct experts *x = &m->experts;
    if (f->experts == EXPERTS_NONE)
        return 0;
    if (number_of_experts(o, &x->n, e) ||
        config_need_int(o, "num_experts_per_tok", MODEL_TOP, &x->top, e) ||
        json_get_bool(o, "norm_topk_prob", &x->renorm, e))
        return -EINVAL;
    x->ff = m->n_ff;
    if (f->experts == EXPERTS_MIXTRAL)
        x->renorm = x->numbered = true;
    if (f->experts != EXPERTS_QWEN)
        return 0;
    if (config_need_int(o, "moe_intermediate_size", 1 << 24, &x->ff, e))
        return -EINVAL;
    x->shared_gate = f->shared_expert;
    if (f->shared_expert &&
        config_need_int(o, "shared_expert_intermediate_size", 1 << 24, &x->shared_ff, e))
        return -EINVAL;
    return dense_layers(o, m, e);
}

int config_check_experts(const struct model *m, struct err *e)
{
    const struct experts *x = &m->experts;
    int sparse = 0;
    for (int l = 0; l < m->n_layer; l++)
        sparse += model_sparse(m, l);
    if (x->n && m->mlp_bias)
        return err_set(e, -ENOTSUP, "mlp_bias is not supported with experts");
    if (x->n && !sparse)
        return err_set(e, -EINVAL, "%d experts, but no layer that has them", x->n);
    if (x->n && x->top > x->n)
        return err_set(e, -EINVAL, "num_experts_per_tok %d is more than the %d experts", x->top,
                       x->n);
    if (x->shared_gate && !x->shared_ff)
        return err_set(e, -EINVAL, "a gate of a shared expert, but no shared expert");
    if ((int64_t)max_int(x->ff, x->shared_ff) * m->n_embd > (int64_t)1 << 40)
        return err_set(e, -EINVAL, "a matrix of more than 2^40 numbers in an expert");
    return 0;
}
