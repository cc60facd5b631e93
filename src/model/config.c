/* config.c - config.json into struct model. See folder.h.
 *
 * Families differ by the defaults of a few fields; everything else is one reading of one set of
 * fields. What changes the arithmetic and is not known here is refused, what is harmless passes,
 * and what is neither is noted for the user.
 */
#include "model/config_inside.h"
#include "model/gguf.h"

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

int config_need_int(const json_t *o, const char *key, int hi, int *to, struct err *e)
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
    if (config_need_int(o, "hidden_size", 1 << 20, &m->n_embd, e) ||
        config_need_int(o, "num_hidden_layers", MODEL_LAYERS, &m->n_layer, e) ||
        config_need_int(o, "num_attention_heads", 1 << 16, &m->n_head, e) ||
        config_need_int(o, "intermediate_size", 1 << 24, &m->n_ff, e) ||
        config_need_int(o, "vocab_size", 1 << 26, &m->n_vocab, e))
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
    return config_check_experts(m, e);
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
        rc = config_quantised(json_object_get(o, "quantization_config"), notes, e);
    if (!rc)
        rc = read_shape(o, f, m, e);
    if (!rc)
        rc = config_rope(o, m->n_ctx, &m->kind[0].rope, e);
    if (!rc)
        rc = config_windows(o, f, m, e);
    if (!rc)
        rc = config_experts(o, f, m, e);
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
