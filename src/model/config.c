/* config.c - config.json into struct model. See folder.h.
 *
 * Families differ by the defaults of a few fields; everything else is one reading of one set of
 * fields. What changes the arithmetic and is not known here is refused, what is harmless passes,
 * and what is neither is noted for the user.
 */
#include "base/json.h"
#include "model/folder.h"
#include "model/gguf.h"

#include <math.h>

struct family {
    const char *arch;
    bool qkv_bias;   /* always, whatever attention_bias says */
    bool bias_field; /* attention_bias is read: q, k, v and o */
    bool qk_norm;
    bool qk_row;  /* of all heads at once */
    int head_dim; /* when the field is absent; 0: hidden_size / heads */
    enum { WINDOW_NONE, WINDOW_ALL, WINDOW_FLAG, WINDOW_FLAG_EVEN, WINDOW_FLAG_ALL } window;
    enum { EXPERTS_NONE, EXPERTS_MIXTRAL, EXPERTS_OLMOE, EXPERTS_QWEN } experts;
    bool shared_expert; /* one, behind a gate */
};

static const struct family families[] = {
    {.arch = "LlamaForCausalLM", .bias_field = true},
    {.arch = "MistralForCausalLM", .window = WINDOW_ALL},
    {.arch = "Qwen2ForCausalLM", .qkv_bias = true, .window = WINDOW_FLAG},
    {.arch = "Qwen3ForCausalLM",
     .bias_field = true,
     .qk_norm = true,
     .head_dim = 128,
     .window = WINDOW_FLAG},
    {.arch = "MixtralForCausalLM", .window = WINDOW_ALL, .experts = EXPERTS_MIXTRAL},
    {.arch = "Qwen2MoeForCausalLM",
     .qkv_bias = true,
     .window = WINDOW_FLAG_EVEN,
     .experts = EXPERTS_QWEN,
     .shared_expert = true},
    {.arch = "Qwen3MoeForCausalLM",
     .bias_field = true,
     .qk_norm = true,
     .window = WINDOW_FLAG_ALL,
     .experts = EXPERTS_QWEN},
    {.arch = "OlmoeForCausalLM",
     .bias_field = true,
     .qk_norm = true,
     .qk_row = true,
     .experts = EXPERTS_OLMOE},
};

/* Fields that are read here, or that change nothing in a forward pass. */
static const char *const known[] = {
    "architectures",
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "attention_bias",
    "mlp_bias",
    "clip_qkv",
    "tie_word_embeddings",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "num_local_experts",
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "norm_topk_prob",
    "decoder_sparse_step",
    "mlp_only_layers",
    "output_router_logits",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "use_cache",
    "initializer_range",
    "pretraining_tp",
    "attention_dropout",
    "_name_or_path",
    "attn_implementation",
    "id2label",
    "label2id",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "use_return_dict",
    "unsloth_version",
    "unsloth_fixed",
    "use_mrope",
    "rope_interleaved",
    "resid_pdrop",
    "embd_pdrop",
    "hidden_dropout",
    "is_llama_config",
    "cross_attention_hidden_size",
    "auto_map",
    "bos_token",
    "eos_token",
    "partial_rotary_factor",
    "chunk_size_feed_forward",
    "is_encoder_decoder",
    "problem_type",
    "tokenizer_class",
    "task_specific_params",
    "_attn_implementation_autoset",
    "_attn_implementation",
    "quantization_config",
};

/* ------------------------------------------------------------------------------- helpers */

static int need_int(const json_t *o, const char *key, int hi, int *to, struct err *e)
{
    const json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v))
        return err_set(e, -EINVAL, "%s is missing", key);
    return json_get_int(o, key, 1, hi, to, e);
}

static const struct family *family_of(const json_t *o, struct err *e)
{
    const json_t *list = json_object_get(o, "architectures");
    const char *arch = json_string_value(json_array_get(list, 0));
    char names[200] = "";
    for (size_t i = 0; arch && i < COUNT(families); i++)
        if (!strcmp(families[i].arch, arch))
            return &families[i];
    for (size_t i = 0; i < COUNT(families); i++)
        snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i ? ", " : "",
                 families[i].arch);
    err_set(e, -ENOTSUP, "architecture \"%.60s\" is not supported; these are: %s",
            arch ? arch : "(none named)", names);
    return NULL;
}

/* ------------------------------------------------------------------------------- rope */

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

static int rope_from(const json_t *o, int n_ctx, struct rope *r, struct err *e)
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
static int windows(const json_t *o, const struct family *f, struct model *m, struct err *e)
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

static int read_experts(const json_t *o, const struct family *f, struct model *m, struct err *e)
{
    struct experts *x = &m->experts;
    if (f->experts == EXPERTS_NONE)
        return 0;
    if (m->mlp_bias)
        return err_set(e, -ENOTSUP, "mlp_bias is not supported with experts");
    if (number_of_experts(o, &x->n, e) ||
        need_int(o, "num_experts_per_tok", MODEL_TOP, &x->top, e) ||
        json_get_bool(o, "norm_topk_prob", &x->renorm, e))
        return -EINVAL;
    x->ff = m->n_ff;
    if (f->experts == EXPERTS_MIXTRAL)
        x->renorm = x->numbered = true;
    if (f->experts != EXPERTS_QWEN)
        return 0;
    if (need_int(o, "moe_intermediate_size", 1 << 24, &x->ff, e))
        return -EINVAL;
    x->shared_gate = f->shared_expert;
    if (f->shared_expert &&
        need_int(o, "shared_expert_intermediate_size", 1 << 24, &x->shared_ff, e))
        return -EINVAL;
    return dense_layers(o, m, e);
}

static int check_experts(const struct model *m, struct err *e)
{
    const struct experts *x = &m->experts;
    int sparse = 0;
    for (int l = 0; l < m->n_layer; l++)
        sparse += model_sparse(m, l);
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

/* ------------------------------------------------------------------------------- the model */

static int refuse_unknown_arithmetic(const json_t *o, struct err *e)
{
    const char *act = "silu";
    float rotary = 1;
    if (json_get_text(o, "hidden_act", &act, e) ||
        json_get_float(o, "partial_rotary_factor", 0, 1, &rotary, e))
        return -EINVAL;
    if (strcmp(act, "silu"))
        return err_set(e, -ENOTSUP, "hidden_act \"%.40s\" is not supported; silu is", act);
    if (rotary != 1)
        return err_set(e, -ENOTSUP, "partial_rotary_factor %g is not supported", (double)rotary);
    const json_t *q = json_object_get(o, "quantization_config");
    if (q && !json_is_null(q))
        return err_set(e, -ENOTSUP,
                       "the weights are quantised (quantization_config), which is not "
                       "read yet: use the bf16 or f16 version of the model");
    return 0;
}

static void note_unknown(const json_t *o, struct notes *notes)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v)
    {
        size_t i = 0;
        while (i < COUNT(known) && strcmp(known[i], key))
            i++;
        if (i == COUNT(known) && notes->n < (int)COUNT(notes->text))
            snprintf(notes->text[notes->n++], sizeof(notes->text[0]),
                     "config.json: field \"%.80s\" is unknown and was ignored", key);
    }
}

static int read_shape(const json_t *o, const struct family *f, struct model *m, struct err *e)
{
    bool bias = false;
    m->eps = 1e-6f;
    m->n_ctx = 2048;
    if (need_int(o, "hidden_size", 1 << 20, &m->n_embd, e) ||
        need_int(o, "num_hidden_layers", MODEL_LAYERS, &m->n_layer, e) ||
        need_int(o, "num_attention_heads", 1 << 16, &m->n_head, e) ||
        need_int(o, "intermediate_size", 1 << 24, &m->n_ff, e) ||
        need_int(o, "vocab_size", 1 << 26, &m->n_vocab, e))
        return -EINVAL;
    m->n_kv = m->n_head;
    m->head_dim = f->head_dim ? f->head_dim : m->n_embd / m->n_head;
    if (json_get_int(o, "num_key_value_heads", 1, 1 << 16, &m->n_kv, e) ||
        json_get_int(o, "head_dim", 1, 1 << 14, &m->head_dim, e) ||
        json_get_int(o, "max_position_embeddings", 1, 1 << 28, &m->n_ctx, e) ||
        json_get_float(o, "rms_norm_eps", 0, 1, &m->eps, e) ||
        json_get_bool(o, "tie_word_embeddings", &m->tied, e) ||
        json_get_bool(o, "mlp_bias", &m->mlp_bias, e) ||
        (f->qk_row && json_get_float(o, "clip_qkv", 1e-6, 1e6, &m->clip, e)) ||
        (f->bias_field && json_get_bool(o, "attention_bias", &bias, e)))
        return -EINVAL;
    m->qkv_bias = f->qkv_bias || bias;
    m->o_bias = bias;
    m->qk_norm = f->qk_norm;
    m->qk_row = f->qk_row;
    return 0;
}

int model_check(const struct model *m, struct err *e)
{
    if (m->n_head % m->n_kv)
        return err_set(e, -EINVAL,
                       "num_attention_heads %d is not a multiple of "
                       "num_key_value_heads %d",
                       m->n_head, m->n_kv);
    if (m->head_dim < 2 || m->head_dim % 2)
        return err_set(e, -EINVAL, "head_dim %d must be even and positive", m->head_dim);
    if ((int64_t)m->n_head * m->head_dim > 1 << 22)
        return err_set(e, -EINVAL, "%d heads of %d numbers are more than 4194304", m->n_head,
                       m->head_dim);
    if ((int64_t)m->n_vocab * m->n_embd > (int64_t)1 << 40 ||
        (int64_t)m->n_ff * m->n_embd > (int64_t)1 << 40)
        return err_set(e, -EINVAL,
                       "a matrix of more than 2^40 numbers: vocab_size %d, "
                       "intermediate_size %d, hidden_size %d",
                       m->n_vocab, m->n_ff, m->n_embd);
    return check_experts(m, e);
}

static int model_from(const json_t *o, struct model *m, struct notes *notes, struct err *e)
{
    if (!json_is_object(o))
        return err_set(e, -EINVAL, "not a JSON object");
    const struct family *f = family_of(o, e);
    if (!f)
        return -ENOTSUP;
    memset(m, 0, sizeof(*m));
    snprintf(m->arch, sizeof(m->arch), "%s", f->arch);
    int rc = refuse_unknown_arithmetic(o, e);
    if (!rc)
        rc = read_shape(o, f, m, e);
    if (!rc)
        rc = rope_from(o, m->n_ctx, &m->kind[0].rope, e);
    if (!rc)
        rc = windows(o, f, m, e);
    if (!rc)
        rc = read_experts(o, f, m, e);
    if (!rc)
        rc = model_check(m, e);
    if (!rc)
        note_unknown(o, notes);
    return rc;
}

/* ------------------------------------------------------------------------------- generation */

static int eos_from(const json_t *o, struct generation *g, struct err *e)
{
    const json_t *v = json_object_get(o, "eos_token_id");
    size_t n = json_is_array(v) ? json_array_size(v) : json_is_integer(v);
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_array(v) && !json_is_integer(v))
        return err_set(e, -EINVAL, "eos_token_id must be a token id or a list of them");
    if (n > COUNT(g->eos))
        return err_set(e, -EINVAL, "eos_token_id lists %zu ids, more than %zu", n, COUNT(g->eos));
    g->n_eos = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_integer(one) || json_integer_value(one) < 0 ||
            json_integer_value(one) > 1 << 26)
            return err_set(e, -EINVAL, "eos_token_id must be a token id or a list of them");
        g->eos[g->n_eos++] = (int)json_integer_value(one);
    }
    return 0;
}

/* Defaults as transformers: sampling without a word about how is temperature 1, top-k 50. */
static int generation_from(const json_t *o, struct generation *g, struct err *e)
{
    if (!json_is_object(o))
        return err_set(e, -EINVAL, "not a JSON object");
    if (eos_from(o, g, e) || json_get_bool(o, "do_sample", &g->sample, e))
        return -EINVAL;
    if (g->sample)
        g->top_k = 50;
    if (json_get_float(o, "temperature", 0, 100, &g->temperature, e) ||
        json_get_float(o, "top_p", 1e-9, 1, &g->top_p, e) ||
        json_get_float(o, "min_p", 0, 1, &g->min_p, e) ||
        json_get_float(o, "repetition_penalty", 1e-3, 10, &g->repetition_penalty, e) ||
        json_get_int(o, "top_k", 0, 1 << 26, &g->top_k, e))
        return -EINVAL;
    return 0;
}

static int parse(const json_t *config, const json_t *generation, struct model *m,
                 struct generation *g, struct notes *notes, struct err *e)
{
    notes->n = 0;
    *g = (struct generation){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    int rc = model_from(config, m, notes, e);
    if (!rc)
        rc = eos_from(config, g, e);
    if (rc)
        return err_add(e, rc, "config.json");
    if (generation)
        rc = generation_from(generation, g, e);
    return rc ? err_add(e, rc, "generation_config.json") : 0;
}

int model_parse(const char *config, size_t n, const char *generation, size_t n_generation,
                struct model *m, struct generation *g, struct notes *notes, struct err *e)
{
    json_t *c = json_parse(config, n, "config.json", e), *o = NULL;
    if (!c)
        return -EINVAL;
    if (n_generation)
        o = json_parse(generation, n_generation, "generation_config.json", e);
    int rc = n_generation && !o ? -EINVAL : parse(c, o, m, g, notes, e);
    json_decref(c);
    json_decref(o);
    return rc;
}

static int load_gguf(const char *path, struct model *m, struct generation *g, struct notes *notes,
                     struct err *e)
{
    struct pool pool = {0};
    struct gguf_files f;
    int rc = gguf_files(path, &pool, &f, e);
    if (!rc)
        rc = model_parse(f.config, strlen(f.config), f.generation, strlen(f.generation), m, g,
                         notes, e);
    pool_free(&pool);
    return rc;
}

int model_load(const char *path, struct model *m, struct generation *g, struct notes *notes,
               struct err *e)
{
    enum { LIMIT = 16 << 20 };
    char file[4096];
    int rc = 0, no_generation = 0;
    if (gguf_is(path))
        return load_gguf(path, m, g, notes, e);
    size_t n = strlen(path);
    bool is_file = n > 5 && !strcmp(path + n - 5, ".json");
    snprintf(file, sizeof(file), "%s%s", path, is_file ? "" : "/config.json");
    json_t *c = json_file(file, LIMIT, &rc, e), *o = NULL;
    if (!c)
        return rc;
    snprintf(file, sizeof(file), "%s/generation_config.json", path);
    if (!is_file)
        o = json_file(file, LIMIT, &no_generation, e);
    rc = o || is_file || no_generation == -ENOENT ? parse(c, o, m, g, notes, e) : no_generation;
    json_decref(c);
    json_decref(o);
    return rc;
}
