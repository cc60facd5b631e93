/* gguf_config.c - the config.json of a model, from the metadata of a GGUF file. See gguf.h. */
#include "model/gguf_inside.h"

#include <math.h>

/* A value's key behind the name of its architecture. */
static double number(const struct gguf *g, const char *arch, const char *key, double other)
{
    char whole[128];
    snprintf(whole, sizeof(whole), "%s.%s", arch, key);
    return gguf_number(g, whole, other);
}

static const struct tensor *tensor(const struct gguf *g, const char *name)
{
    for (int i = 0; i < g->n; i++)
        if (!strcmp(g->t[i].name, name))
            return &g->t[i];
    return NULL;
}

static const struct {
    const char *name, *dense, *mixture; /* NULL: not with, or without, experts */
} architectures[] = {{"llama", "LlamaForCausalLM", "MixtralForCausalLM"},
                     {"qwen2", "Qwen2ForCausalLM", NULL},
                     {"qwen3", "Qwen3ForCausalLM", NULL},
                     {"qwen2moe", NULL, "Qwen2MoeForCausalLM"},
                     {"qwen3moe", NULL, "Qwen3MoeForCausalLM"},
                     {"olmoe", NULL, "OlmoeForCausalLM"}};

static int put_count(json_t *o, const char *name, const struct gguf *g, const char *arch,
                     const char *key, double other, struct err *e)
{
    double n = number(g, arch, key, other);
    if (isnan(n))
        return err_set(e, -EINVAL, "%s.%s is missing from its metadata", arch, key);
    if (!(n >= 0 && n < 1 << 30))
        return err_set(e, -EINVAL, "%s.%s makes no sense", arch, key);
    json_object_set_new(o, name, json_integer((json_int_t)n));
    return 0;
}

/* The frequencies of Llama 3 are a tensor of divisors; the numbers they were made of are the same
 * in every such model but for the factor, which is the largest. Whether that is so is checked. */
static int llama3_scaling(const struct tensor *t, double theta, json_t *o, struct err *e)
{
    const double original = 8192, low = 1, high = 4;
    int half = (int)t->dim[0];
    float factor = 1;
    if (t->n_dim != 1 || t->type != NUM_F32 || half < 1 || half > 4096)
        return err_set(e, -EINVAL, "rope_freqs.weight is no list of numbers");
    for (int i = 0; i < half; i++) {
        float f;
        memcpy(&f, (const char *)t->data + 4 * i, sizeof(f));
        factor = f > factor ? f : factor;
    }
    for (int i = 0; i < half; i++) {
        float f;
        memcpy(&f, (const char *)t->data + 4 * i, sizeof(f));
        double wave = 2 * M_PI * pow(theta, (double)i / half), want = 1;
        double smooth = (original / wave - low) / (high - low);
        if (wave > original / low)
            want = (double)factor;
        else if (wave >= original / high)
            want = 1 / ((1 - smooth) / (double)factor + smooth);
        if (!(fabs((double)f - want) <= 1e-3 * want))
            return err_set(e, -ENOTSUP,
                           "rope_freqs.weight is not the scaling of Llama 3: use the "
                           "Hugging Face folder of this model");
    }
    json_object_set_new(o, "rope_scaling",
                        json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor",
                                  (double)factor, "low_freq_factor", low, "high_freq_factor", high,
                                  "original_max_position_embeddings", (int)original));
    return 0;
}

static int put_rope(json_t *o, const struct gguf *g, const char *arch, struct err *e)
{
    char key[64];
    size_t n;
    double theta = number(g, arch, "rope.freq_base", 10000);
    double factor = number(g, arch, "rope.scaling.factor", 0);
    const struct tensor *freqs = tensor(g, "rope_freqs.weight");
    snprintf(key, sizeof(key), "%s.rope.scaling.type", arch);
    const char *kind = gguf_text(g, key, &n);
    json_object_set_new(o, "rope_theta", json_real(theta));
    if (freqs)
        return llama3_scaling(freqs, theta, o, e);
    if (!kind || !factor || (n == 4 && !memcmp(kind, "none", 4)))
        return 0;
    json_t *s = json_pack("{s:s%, s:f}", "rope_type", kind, n, "factor", factor);
    double original = number(g, arch, "rope.scaling.original_context_length", 0);
    if (original > 0 && original < 1 << 28)
        json_object_set_new(s, "original_max_position_embeddings", json_integer((int)original));
    json_object_set_new(o, "rope_scaling", s);
    return 0;
}

/* Layers without a router are dense; only Qwen's may be. */
static json_t *dense_layers(const struct gguf *g, int n_layer)
{
    json_t *list = json_array();
    for (int l = 0; l < n_layer; l++) {
        char name[80];
        snprintf(name, sizeof(name), "model.layers.%d.mlp.gate.weight", l);
        if (!tensor(g, name))
            json_array_append_new(list, json_integer(l));
    }
    return list;
}

/* What the file does not say is as llama.cpp has it for these families: weights of the chosen are
 * made to add up to 1 in Qwen3-MoE (and Mixtral), not in the others. */
static int put_experts(json_t *o, const struct gguf *g, const char *arch, struct err *e)
{
    double n = number(g, arch, "expert_count", 0), layers = number(g, arch, "block_count", 0);
    if (!(n > 0))
        return 0;
    double gating = number(g, arch, "expert_gating_func", 0);
    double gain = number(g, arch, "expert_weights_scale", 0);
    if ((gating != 0 && gating != 1) || (gain != 0 && gain != 1))
        return err_set(e, -ENOTSUP,
                       "experts are weighed by function %g times %g (expert_gating_func, "
                       "expert_weights_scale): only a softmax (1) is supported",
                       gating, gain);
    bool qwen = !strncmp(arch, "qwen", 4), shared = !strcmp(arch, "qwen2moe");
    int rc = put_count(o, "num_experts", g, arch, "expert_count", NAN, e);
    rc = rc ? rc : put_count(o, "num_experts_per_tok", g, arch, "expert_used_count", NAN, e);
    if (!rc && qwen)
        rc = put_count(o, "moe_intermediate_size", g, arch, "expert_feed_forward_length", NAN, e);
    if (!rc && shared)
        rc = put_count(o, "shared_expert_intermediate_size", g, arch,
                       "expert_shared_feed_forward_length", NAN, e);
    if (qwen && layers < 4096)
        json_object_set_new(o, "mlp_only_layers", dense_layers(g, (int)layers));
    json_object_set_new(
        o, "norm_topk_prob",
        json_boolean(number(g, arch, "expert_weights_norm", !strcmp(arch, "qwen3moe")) != 0));
    double clip = number(g, arch, "attention.clamp_kqv", 0);
    if (clip > 0)
        json_object_set_new(o, "clip_qkv", json_real(clip));
    return rc;
}

int gguf_config_of(const struct gguf *g, struct pool *pool, char **to, struct err *e)
{
    size_t n;
    char arch[32];
    const char *named = gguf_text(g, "general.architecture", &n), *ours = NULL;
    bool experts = false;
    for (size_t i = 0; named && i < COUNT(architectures); i++) {
        const char *name = architectures[i].name;
        if (n != strlen(name) || memcmp(named, name, n))
            continue;
        snprintf(arch, sizeof(arch), "%s", name);
        experts = number(g, arch, "expert_count", 0) > 0;
        ours = experts ? architectures[i].mixture : architectures[i].dense;
    }
    if (!ours)
        return err_set(
            e, -ENOTSUP,
            "architecture \"%.*s\"%s is not supported; llama (with experts, too), qwen2, "
            "qwen3, qwen2moe, qwen3moe and olmoe are",
            named ? (int)(n < 40 ? n : 40) : 0, named ? named : "", experts ? " with experts" : "");
    const struct tensor *embed = tensor(g, "model.embed_tokens.weight");
    if (!embed)
        return err_set(e, -EINVAL, "token_embd.weight is missing: a file of a vocabulary only?");
    json_t *o = json_pack("{s:[s], s:s, s:I, s:b}", "architectures", ours, "hidden_act", "silu",
                          "vocab_size", (json_int_t)embed->dim[0], "tie_word_embeddings",
                          !tensor(g, "lm_head.weight"));
    double heads = number(g, arch, "attention.head_count", NAN);
    double width = number(g, arch, "embedding_length", NAN);
    int rc = 0;
    rc = rc ? rc : put_count(o, "hidden_size", g, arch, "embedding_length", NAN, e);
    rc = rc ? rc : put_count(o, "num_hidden_layers", g, arch, "block_count", NAN, e);
    rc = rc ? rc : put_count(o, "num_attention_heads", g, arch, "attention.head_count", NAN, e);
    rc =
        rc ? rc : put_count(o, "num_key_value_heads", g, arch, "attention.head_count_kv", heads, e);
    rc = rc ? rc : put_count(o, "intermediate_size", g, arch, "feed_forward_length", NAN, e);
    rc = rc ? rc : put_count(o, "max_position_embeddings", g, arch, "context_length", 2048, e);
    rc = rc ? rc
            : put_count(o, "head_dim", g, arch, "attention.key_length", floor(width / heads), e);
    rc = rc ? rc : put_rope(o, g, arch, e);
    rc = rc ? rc : put_experts(o, g, arch, e);
    json_object_set_new(o, "rms_norm_eps",
                        json_real(number(g, arch, "attention.layer_norm_rms_epsilon", 1e-5)));
    if (tensor(g, "model.layers.0.self_attn.o_proj.bias"))
        json_object_set_new(o, "attention_bias", json_true());
    if (rc)
        json_decref(o);
    else
        *to = gguf_json(o, pool);
    return rc || *to ? rc : err_set(e, -EINVAL, "its metadata holds numbers that are none");
}
