/* config_rope.c - rotary embeddings as config.json has them. See config_inside.h. */
#include "model/config_inside.h"

#include <math.h>

static int rope_kind(const json_t *s, enum rope_scaling *to, struct err *e)
{
    static const char *const name[] = {[ROPE_PLAIN] = "default",
                                       [ROPE_LINEAR] = "linear",
                                       [ROPE_DYNAMIC] = "dynamic",
                                       [ROPE_LLAMA3] = "llama3",
                                       [ROPE_YARN] = "yarn"};
    const char *kind = "default";
    if (json_get_text(s, "type", &kind, e) || json_get_text(s, "rope_type", &kind, e))
        return -EINVAL;
    for (size_t i = 0; i < COUNT(name); i++)
        if (!strcmp(name[i], kind)) {
            *to = (enum rope_scaling)i;
            return 0;
        }
    return err_set(e, -ENOTSUP,
                   "type \"%.40s\" is not supported; default, linear, dynamic, llama3 "
                   "and yarn are",
                   kind);
}

/* The gain on cos and sin, with the defaults of the paper and of transformers. */
static float yarn_gain(float factor, float mscale, float mscale_all)
{
    double a = factor <= 1 ? 1 : 0.1 * (double)mscale * log((double)factor) + 1;
    double b = factor <= 1 ? 1 : 0.1 * (double)mscale_all * log((double)factor) + 1;
    if (mscale != 0 && mscale_all != 0)
        return (float)(a / b);
    return (float)(factor <= 1 ? 1 : 0.1 * log((double)factor) + 1);
}

static int rope_scaling(const json_t *s, int n_ctx, struct rope *r, struct err *e)
{
    float mscale = 0, mscale_all = 0;
    int rc = rope_kind(s, &r->scaling, e);
    if (rc || r->scaling == ROPE_PLAIN)
        return rc;
    r->original_ctx = n_ctx;
    r->beta_fast = 32, r->beta_slow = 1, r->truncate = true;
    if (json_get_float(s, "factor", 1e-3, 1e6, &r->factor, e) ||
        json_get_float(s, "low_freq_factor", 1e-6, 1e6, &r->low_freq, e) ||
        json_get_float(s, "high_freq_factor", 1e-6, 1e6, &r->high_freq, e) ||
        json_get_float(s, "beta_fast", 1e-6, 1e6, &r->beta_fast, e) ||
        json_get_float(s, "beta_slow", 1e-6, 1e6, &r->beta_slow, e) ||
        json_get_float(s, "mscale", 0, 1e3, &mscale, e) ||
        json_get_float(s, "mscale_all_dim", 0, 1e3, &mscale_all, e) ||
        json_get_bool(s, "truncate", &r->truncate, e) ||
        json_get_int(s, "original_max_position_embeddings", 1, 1 << 28, &r->original_ctx, e))
        return -EINVAL;
    if (!(r->factor > 0))
        return err_set(e, -EINVAL, "factor is missing");
    if (r->scaling == ROPE_LLAMA3 && !(r->high_freq > r->low_freq))
        return err_set(e, -EINVAL, "high_freq_factor must be larger than low_freq_factor");
    if (r->scaling != ROPE_YARN)
        return 0;
    r->attention = yarn_gain(r->factor, mscale, mscale_all);
    return json_get_float(s, "attention_factor", 1e-6, 1e6, &r->attention, e);
}

int config_rope(const json_t *o, int n_ctx, struct rope *r, struct err *e)
{
    const json_t *s = json_object_get(o, "rope_parameters"); /* the newer spelling */
    r->theta = 10000;
    if (json_get_float(o, "rope_theta", 1, 1e12, &r->theta, e))
        return -EINVAL;
    if (!json_is_object(s))
        s = json_object_get(o, "rope_scaling");
    else if (json_get_float(s, "rope_theta", 1, 1e12, &r->theta, e))
        return -EINVAL;
    if (!s || json_is_null(s))
        return 0;
    if (!json_is_object(s))
        return err_set(e, -EINVAL, "rope_scaling: an object is needed");
    int rc = rope_scaling(s, n_ctx, r, e);
    return rc ? err_add(e, rc, "rope_scaling") : 0;
}
