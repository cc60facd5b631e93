/* gguf.c - the container: metadata and tensors of a GGUF file. See gguf.h. */
#include "model/gguf.h"

enum { MANY = 1 << 16, ALIGN = 32 };

struct reader {
    const char *base, *at, *end;
};

static bool take(struct reader *r, void *to, size_t n)
{
    if ((size_t)(r->end - r->at) < n)
        return false;
    memcpy(to, r->at, n);
    r->at += n;
    return true;
}

static bool take_text(struct reader *r, const char **s, uint64_t *n)
{
    if (!take(r, n, sizeof(*n)) || *n > (uint64_t)(r->end - r->at))
        return false;
    *s = r->at;
    r->at += *n;
    return true;
}

bool gguf_is(const char *path)
{
    size_t n = strlen(path);
    return n > 5 && !strcmp(path + n - 5, ".gguf");
}

/* ------------------------------------------------------------------------------- metadata */

static size_t value_bytes(int type)
{
    static const uint8_t bytes[GGUF_TYPES] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2,
        [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_F32] = 4, [GGUF_BOOL] = 1,
        [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8};
    return bytes[type];
}

static bool skip_values(struct reader *r, int type, uint64_t n)
{
    const char *s;
    uint64_t length;
    if (type == GGUF_TEXT) {
        while (n--)
            if (!take_text(r, &s, &length))
                return false;
        return true;
    }
    size_t bytes = value_bytes(type);
    if (!bytes || n > (uint64_t)(r->end - r->at) / bytes)
        return false;
    r->at += n * bytes;
    return true;
}

static bool take_value(struct reader *r, struct pool *pool, struct gguf_value *v)
{
    const char *key;
    uint64_t n;
    uint32_t type;
    *v = (struct gguf_value){.n = 1};
    if (!take_text(r, &key, &n) || n > 4096 || !take(r, &type, 4) || type >= GGUF_TYPES)
        return false;
    v->key = pool_text(pool, key, n);
    if (type == GGUF_ARRAY) {
        v->array = true;
        if (!take(r, &type, 4) || type >= GGUF_TYPES || type == GGUF_ARRAY || !take(r, &v->n, 8))
            return false;
    }
    v->type = type;
    v->at = r->at;
    return skip_values(r, (int)type, v->n);
}

const struct gguf_value *gguf_find(const struct gguf *g, const char *key)
{
    for (int i = 0; i < g->n_value; i++)
        if (!strcmp(g->value[i].key, key))
            return &g->value[i];
    return NULL;
}

double gguf_number(const struct gguf *g, const char *key, double other)
{
    const struct gguf_value *v = gguf_find(g, key);
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        float f32;
        uint64_t u64;
        int64_t i64;
        double f64;
    } u;
    if (!v || v->array || v->type == GGUF_TEXT)
        return other;
    memcpy(&u, v->at, value_bytes((int)v->type));
    switch ((int)v->type) {
    case GGUF_U8:
    case GGUF_BOOL: return u.u8;
    case GGUF_I8: return u.i8;
    case GGUF_U16: return u.u16;
    case GGUF_I16: return u.i16;
    case GGUF_U32: return u.u32;
    case GGUF_I32: return u.i32;
    case GGUF_F32: return (double)u.f32;
    case GGUF_U64: return (double)u.u64;
    case GGUF_I64: return (double)u.i64;
    default: return u.f64;
    }
}

const char *gguf_next_text(const char **at, size_t *n)
{
    uint64_t length;
    memcpy(&length, *at, sizeof(length));
    const char *s = *at + sizeof(length);
    *n = (size_t)length;
    *at = s + length;
    return s;
}

const char *gguf_text(const struct gguf *g, const char *key, size_t *n)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (!v || v->array || v->type != GGUF_TEXT)
        return NULL;
    const char *at = v->at;
    return gguf_next_text(&at, n);
}

/* ------------------------------------------------------------------------------- tensors */

static const struct {
    const char *name; /* NULL: of no number that is in use */
    int type;         /* enum num; NUM_I32: not read */
} types[] = {
    {"F32", NUM_F32},       {"F16", NUM_F16},    {"Q4_0", NUM_INT4_G32}, {"Q4_1", NUM_INT4_G32Z},
    {NULL, NUM_I32},        {NULL, NUM_I32},     {"Q5_0", NUM_I32},      {"Q5_1", NUM_I32},
    {"Q8_0", NUM_INT8_G32}, {"Q8_1", NUM_I32},   {"Q2_K", NUM_I32},      {"Q3_K", NUM_I32},
    {"Q4_K", NUM_I32},      {"Q5_K", NUM_I32},   {"Q6_K", NUM_I32},      {"Q8_K", NUM_I32},
    {"IQ2_XXS", NUM_I32},   {"IQ2_XS", NUM_I32}, {"IQ3_XXS", NUM_I32},   {"IQ1_S", NUM_I32},
    {"IQ4_NL", NUM_I32},    {"IQ3_S", NUM_I32},  {"IQ2_S", NUM_I32},     {"IQ4_XS", NUM_I32},
    {"I8", NUM_I32},        {"I16", NUM_I32},    {"I32", NUM_I32},       {"I64", NUM_I32},
    {"F64", NUM_I32},       {"IQ1_M", NUM_I32},  {"BF16", NUM_BF16},
};

/* "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; other names stay. The third
 * name is Mixtral's, which GGUF files call a llama; %d is the expert's number (gguf_experts.c). */
static const char *hugging_face_name(struct pool *pool, const char *s, size_t n, bool llama)
{
    static const char *const part[][3] = {
        {"attn_norm", "input_layernorm"},
        {"ffn_norm", "post_attention_layernorm"},
        {"attn_q", "self_attn.q_proj"},
        {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},
        {"attn_output", "self_attn.o_proj"},
        {"attn_q_norm", "self_attn.q_norm"},
        {"attn_k_norm", "self_attn.k_norm"},
        {"ffn_gate", "mlp.gate_proj"},
        {"ffn_up", "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"},
        {"ffn_gate_inp", "mlp.gate", "block_sparse_moe.gate"},
        {"ffn_gate_exps", "mlp.experts.%d.gate_proj", "block_sparse_moe.experts.%d.w1"},
        {"ffn_up_exps", "mlp.experts.%d.up_proj", "block_sparse_moe.experts.%d.w3"},
        {"ffn_down_exps", "mlp.experts.%d.down_proj", "block_sparse_moe.experts.%d.w2"},
        {"ffn_gate_inp_shexp", "mlp.shared_expert_gate"},
        {"ffn_gate_shexp", "mlp.shared_expert.gate_proj"},
        {"ffn_up_shexp", "mlp.shared_expert.up_proj"},
        {"ffn_down_shexp", "mlp.shared_expert.down_proj"}};
    static const char *const whole[][2] = {{"token_embd.weight", "model.embed_tokens.weight"},
                                           {"output_norm.weight", "model.norm.weight"},
                                           {"output.weight", "lm_head.weight"}};
    char *name = pool_text(pool, s, n), to[160], of[32], kind[16];
    int layer;
    for (size_t i = 0; i < COUNT(whole); i++)
        if (!strcmp(name, whole[i][0]))
            return whole[i][1];
    if (sscanf(name, "blk.%d.%31[a-z_].%15[a-z]", &layer, of, kind) != 3)
        return name;
    for (size_t i = 0; i < COUNT(part); i++)
        if (!strcmp(of, part[i][0])) {
            const char *ours = llama && part[i][2] ? part[i][2] : part[i][1];
            snprintf(to, sizeof(to), "model.layers.%d.%s.%s", layer, ours, kind);
            return pool_text(pool, to, strlen(to));
        }
    return name;
}

static bool is_llama(const struct gguf *g)
{
    size_t n = 0;
    const char *arch = gguf_text(g, "general.architecture", &n);
    return arch && n == 5 && !memcmp(arch, "llama", 5);
}

/* The file's sizes are the fastest first; ours the other way round. A gate of the shared expert is
 * a matrix of one row to us. */
static int take_tensor(struct reader *r, struct pool *pool, bool llama, struct tensor *t,
                       uint64_t *offset, struct err *e)
{
    const char *name;
    uint64_t n, dim[4], numbers = 1;
    uint32_t n_dim, type;
    if (!take_text(r, &name, &n) || n > 256 || !take(r, &n_dim, 4) || n_dim < 1 || n_dim > 4 ||
        !take(r, dim, 8 * n_dim) || !take(r, &type, 4) || !take(r, offset, 8))
        return err_set(e, -EINVAL, "the list of tensors is cut short or makes no sense");
    *t = (struct tensor){.name = hugging_face_name(pool, name, n, llama), .n_dim = (int)n_dim};
    for (uint32_t i = 0; i < n_dim; i++) {
        t->dim[n_dim - 1 - i] = (int64_t)dim[i];
        if (!dim[i] || __builtin_mul_overflow(numbers, dim[i], &numbers) || numbers >> 45)
            return err_set(e, -EINVAL, "tensor \"%.80s\" has an absurd size", t->name);
    }
    if (n_dim == 1 && strstr(t->name, ".shared_expert_gate."))
        t->n_dim = 2, t->dim[1] = t->dim[0], t->dim[0] = 1;
    bool known = type < COUNT(types) && types[type].name;
    t->type = known ? (enum num)types[type].type : NUM_I32;
    t->format = known ? types[type].name : "of an unknown type";
    int group = num_quant(t->type).group;
    if (group && dim[0] % (uint64_t)group)
        return err_set(e, -EINVAL, "tensor \"%.80s\": rows of %llu numbers are not whole groups",
                       t->name, (unsigned long long)dim[0]);
    t->bytes = t->type == NUM_I32 ? 0 : tensor_bytes(t->type, numbers);
    return 0;
}

static int take_tensors(struct reader *r, struct pool *pool, struct gguf *g, struct err *e)
{
    uint64_t *offset = pool_get(pool, (size_t)g->n * sizeof(*offset));
    size_t align = (size_t)gguf_number(g, "general.alignment", ALIGN);
    const bool llama = is_llama(g);
    for (int i = 0; i < g->n; i++) {
        int rc = take_tensor(r, pool, llama, &g->t[i], &offset[i], e);
        if (rc)
            return rc;
    }
    if (!align || align > 1 << 20 || align & (align - 1))
        return err_set(e, -EINVAL, "general.alignment makes no sense");
    size_t begin = round_up((size_t)(r->at - r->base), align), all = (size_t)(r->end - r->base);
    for (int i = 0; i < g->n; i++) {
        struct tensor *t = &g->t[i];
        if (begin > all || offset[i] > all - begin || t->bytes > all - begin - offset[i] ||
            offset[i] % align)
            return err_set(e, -EINVAL,
                           "tensor \"%.80s\" lies outside the file: it is cut short or "
                           "damaged",
                           t->name);
        t->data = r->base + begin + offset[i];
    }
    return 0;
}

/* Of the family "llama", rows of q and k stand in pairs. */
static void mark_pairs(struct gguf *g)
{
    double heads = gguf_number(g, "llama.attention.head_count", 0);
    double dim = gguf_number(g, "llama.attention.key_length",
                             heads > 0 ? gguf_number(g, "llama.embedding_length", 0) / heads : 0);
    if (!is_llama(g) || !(dim >= 2) || dim > 1 << 14)
        return;
    for (int i = 0; i < g->n; i++)
        if ((strstr(g->t[i].name, ".q_proj.") || strstr(g->t[i].name, ".k_proj.")) &&
            g->t[i].dim[0] % (int)dim == 0)
            g->t[i].pairs = (int)dim;
}

int gguf_parse(const void *bytes, size_t n, struct pool *pool, struct gguf *to, struct err *e)
{
    struct reader r = {bytes, bytes, (const char *)bytes + n};
    char magic[4];
    uint32_t version;
    uint64_t tensors, values;
    *to = (struct gguf){0};
    if (!take(&r, magic, 4) || memcmp(magic, "GGUF", 4) || !take(&r, &version, 4))
        return err_set(e, -EINVAL, "not a GGUF file");
    if (version != 2 && version != 3)
        return err_set(e, -ENOTSUP, "GGUF version %u is not read; 2 and 3 are", version);
    if (!take(&r, &tensors, 8) || !take(&r, &values, 8) || tensors > MANY || values > MANY)
        return err_set(e, -EINVAL, "its header makes no sense");
    to->value = pool_get(pool, (size_t)(values + 1) * sizeof(*to->value));
    to->t = pool_get(pool, (size_t)(tensors + 1) * sizeof(*to->t));
    for (; (uint64_t)to->n_value < values; to->n_value++)
        if (!take_value(&r, pool, &to->value[to->n_value]))
            return err_set(e, -EINVAL, "value %d of its metadata is cut short or makes no sense",
                           to->n_value);
    to->n = (int)tensors;
    int rc = take_tensors(&r, pool, to, e);
    if (!rc)
        mark_pairs(to);
    return rc ? rc : gguf_split_experts(to, pool, e);
}
