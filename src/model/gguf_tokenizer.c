/* gguf_tokenizer.c - the tokenizer of a model as a Hugging Face folder would hold it, with its
 * template and the tokens that end a text, from the metadata of a GGUF file. See gguf.h. */
#include "model/gguf_inside.h"

/* The three arrays of a vocabulary, walked together. */
struct tokens {
    uint64_t n;
    const char *at;
    const char *type, *score; /* i32, f32; or NULL */
};

enum { NORMAL = 1, CONTROL = 3, USER_DEFINED = 4 };

static int take_tokens(const struct gguf *g, struct tokens *t, struct err *e)
{
    const struct gguf_value *list = gguf_find(g, "tokenizer.ggml.tokens");
    const struct gguf_value *type = gguf_find(g, "tokenizer.ggml.token_type");
    const struct gguf_value *score = gguf_find(g, "tokenizer.ggml.scores");
    if (!list || !list->array || list->type != GGUF_TEXT || !list->n || list->n > 1 << 24)
        return err_set(e, -EINVAL, "tokenizer.ggml.tokens is missing: a file without tokenizer?");
    if ((type && (!type->array || type->type != GGUF_I32 || type->n != list->n)) ||
        (score && (!score->array || score->type != GGUF_F32 || score->n != list->n)))
        return err_set(e, -EINVAL, "tokenizer.ggml.token_type or scores do not fit the tokens");
    *t = (struct tokens){list->n, list->at, type ? type->at : NULL, score ? score->at : NULL};
    return 0;
}

static int type_of(const struct tokens *t, uint64_t i)
{
    int32_t type = NORMAL;
    if (t->type)
        memcpy(&type, t->type + 4 * i, sizeof(type));
    return type;
}

/* The text of token `id`, in the pool; NULL when there is none. */
static const char *token_text(const struct gguf *g, struct pool *pool, const char *key)
{
    struct tokens t;
    struct err ignored;
    double id = gguf_number(g, key, -1);
    if (take_tokens(g, &t, &ignored) || !(id >= 0 && id < (double)t.n))
        return NULL;
    const char *at = t.at, *s = NULL;
    size_t n = 0;
    for (uint64_t i = 0; i <= (uint64_t)id; i++)
        s = gguf_next_text(&at, &n);
    return pool_text(pool, s, n);
}

/* ------------------------------------------------------------------------------- SentencePiece */

static void put_varint(FILE *f, uint64_t v)
{
    for (; v > 127; v >>= 7)
        putc((int)(v & 127) | 128, f);
    putc((int)v, f);
}

static size_t varint_bytes(uint64_t v)
{
    size_t n = 1;
    while (v >>= 7)
        n++;
    return n;
}

/* As SentencePiece would store it: a ModelProto of pieces, with a BPE trainer. */
static int make_spm(const struct gguf *g, struct pool *pool, struct gguf_files *to, struct err *e)
{
    struct tokens t;
    char *text;
    size_t bytes, n;
    int rc = take_tokens(g, &t, e);
    if (rc)
        return rc;
    FILE *f = open_memstream(&text, &bytes);
    must(f);
    const char *at = t.at;
    for (uint64_t i = 0; i < t.n; i++) {
        const char *s = gguf_next_text(&at, &n);
        float score = 0;
        if (t.score)
            memcpy(&score, t.score + 4 * i, sizeof(score));
        putc(1 << 3 | 2, f);
        put_varint(f, 1 + varint_bytes(n) + n + 5 + 2);
        putc(1 << 3 | 2, f);
        put_varint(f, n);
        fwrite(s, 1, n, f);
        putc(2 << 3 | 5, f);
        fwrite(&score, sizeof(score), 1, f);
        putc(3 << 3, f);
        putc(type_of(&t, i) & 7, f);
    }
    static const char *const id[] = {"unknown", "bos", "eos"};
    char trainer[64], *end = trainer;
    *end++ = 3 << 3, *end++ = 2; /* model_type BPE */
    for (int i = 0; i < 3; i++) {
        char key[64];
        snprintf(key, sizeof(key), "tokenizer.ggml.%s_token_id", id[i]);
        uint64_t v = (uint64_t)gguf_number(g, key, i) & 0x1fffff, field = (uint64_t)(40 + i) << 3;
        for (int k = 0; k < 2; k++, field = v) {
            for (; field > 127; field >>= 7)
                *end++ = (char)(field | 128);
            *end++ = (char)field;
        }
    }
    putc(2 << 3 | 2, f);
    put_varint(f, (uint64_t)(end - trainer));
    fwrite(trainer, 1, (size_t)(end - trainer), f);
    putc(3 << 3 | 2, f); /* normalizer: add_dummy_prefix */
    putc(2, f);
    putc(3 << 3, f);
    putc(gguf_number(g, "tokenizer.ggml.add_space_prefix", 1) != 0, f);
    fclose(f);
    to->tokenizer = pool_text(pool, text, bytes);
    to->n_tokenizer = bytes;
    to->spm = true;
    free(text);
    return 0;
}

/* ------------------------------------------------------------------------------- tokenizer.json */

#define LLAMA3_SPLIT                                                                               \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "                     \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QWEN2_SPLIT                                                                                \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "                          \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
    const char *pre, *split; /* NULL: the pattern of GPT-2, built in */
    bool nfc, whole_first;
} splits[] = {
    {"llama-bpe", LLAMA3_SPLIT, false, true},
    {"llama3", LLAMA3_SPLIT, false, true},
    {"llama-v3", LLAMA3_SPLIT, false, true},
    {"qwen2", QWEN2_SPLIT, true, false},
    {"olmo", NULL, true, false},
    {"gpt-2", NULL, false, false},
    {"default", NULL, false, false},
};

static json_t *merges_of(const struct gguf *g)
{
    const struct gguf_value *v = gguf_find(g, "tokenizer.ggml.merges");
    json_t *list = json_array();
    if (!v || !v->array || v->type != GGUF_TEXT)
        return list;
    const char *at = v->at;
    for (uint64_t i = 0; i < v->n; i++) {
        size_t n;
        const char *s = gguf_next_text(&at, &n);
        json_array_append_new(list, json_stringn(s, n));
    }
    return list;
}

static json_t *vocab_of(const struct tokens *t, json_t *added, struct err *e)
{
    json_t *vocab = json_object();
    const char *at = t->at;
    for (uint64_t i = 0; i < t->n; i++) {
        size_t n;
        const char *s = gguf_next_text(&at, &n);
        int type = type_of(t, i);
        json_t *text = json_stringn(s, n);
        if (!text || memchr(s, 0, n)) {
            json_decref(text);
            json_decref(vocab);
            err_set(e, -EINVAL, "token %llu is not valid UTF-8", (unsigned long long)i);
            return NULL;
        }
        if (type == CONTROL || type == USER_DEFINED)
            json_array_append_new(added, json_pack("{s:I, s:O, s:b, s:b, s:b, s:b, s:b}", "id",
                                                   (json_int_t)i, "content", text, "special",
                                                   type == CONTROL, "normalized", 0, "lstrip", 0,
                                                   "rstrip", 0, "single_word", 0));
        json_object_set_new(vocab, json_string_value(text), json_integer((json_int_t)i));
        json_decref(text);
    }
    return vocab;
}

static json_t *splitter(size_t i)
{
    if (!splits[i].split)
        return json_pack("{s:s, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "use_regex",
                         1);
    return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b}]}", "type", "Sequence",
                     "pretokenizers", "type", "Split", "pattern", "Regex", splits[i].split,
                     "behavior", "Isolated", "invert", 0, "type", "ByteLevel", "add_prefix_space",
                     0, "use_regex", 0);
}

static json_t *bos_template(const struct gguf *g, struct pool *pool, bool always)
{
    const char *bos = token_text(g, pool, "tokenizer.ggml.bos_token_id");
    int id = (int)gguf_number(g, "tokenizer.ggml.bos_token_id", 0);
    if (!bos || gguf_number(g, "tokenizer.ggml.add_bos_token", always) == 0)
        return json_null();
    return json_pack("{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:[], s:{s:{s:s, s:[i], s:[s]}}}",
                     "type", "TemplateProcessing", "single", "SpecialToken", "id", bos, "type_id",
                     0, "Sequence", "id", "A", "type_id", 0, "pair", "special_tokens", bos, "id",
                     bos, "ids", id, "tokens", bos);
}

static int make_bpe(const struct gguf *g, struct pool *pool, struct gguf_files *to, struct err *e)
{
    struct tokens t;
    size_t n = 0, i = 0;
    const char *pre = gguf_text(g, "tokenizer.ggml.pre", &n);
    int rc = take_tokens(g, &t, e);
    while (pre && i < COUNT(splits) &&
           (strlen(splits[i].pre) != n || memcmp(pre, splits[i].pre, n)))
        i++;
    if (!rc && (!pre || i == COUNT(splits)))
        rc = err_set(e, -ENOTSUP,
                     "tokenizer.ggml.pre \"%.*s\" is not known; llama-bpe, qwen2 and "
                     "gpt-2 are",
                     (int)(n < 40 ? n : 40), pre ? pre : "");
    if (rc)
        return rc;
    json_t *added = json_array(), *vocab = vocab_of(&t, added, e);
    if (!vocab) {
        json_decref(added);
        return -EINVAL;
    }
    json_t *normalizer = splits[i].nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
    json_t *o = json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:{s:s, s:b, s:b, s:b}, s:{s:s, s:b, s:o, s:o}}", "version",
        "1.0", "added_tokens", added, "normalizer", normalizer, "pre_tokenizer", splitter(i),
        "post_processor", bos_template(g, pool, splits[i].whole_first), "decoder", "type",
        "ByteLevel", "add_prefix_space", 0, "trim_offsets", 0, "use_regex", 0, "model", "type",
        "BPE", "ignore_merges", splits[i].whole_first, "vocab", vocab, "merges", merges_of(g));
    to->tokenizer = o ? gguf_json(o, pool) : NULL;
    if (!to->tokenizer)
        return err_set(e, -EINVAL, "its tokens or merges are not valid UTF-8");
    to->n_tokenizer = strlen(to->tokenizer);
    return 0;
}

/* ------------------------------------------------------------------------------- together */

static void make_small(const struct gguf *g, struct pool *pool, struct gguf_files *to)
{
    static const char *const end[] = {"eos", "eot", "eom"};
    json_t *eos = json_array(), *o = json_object();
    size_t n;
    for (size_t i = 0; i < COUNT(end); i++) {
        char key[64];
        snprintf(key, sizeof(key), "tokenizer.ggml.%s_token_id", end[i]);
        double id = gguf_number(g, key, -1);
        if (id >= 0 && id < 1 << 24)
            json_array_append_new(eos, json_integer((json_int_t)id));
    }
    to->generation = gguf_json(json_pack("{s:o}", "eos_token_id", eos), pool);
    to->bos = token_text(g, pool, "tokenizer.ggml.bos_token_id");
    to->eos = token_text(g, pool, "tokenizer.ggml.eos_token_id");
    const char *template = gguf_text(g, "tokenizer.chat_template", &n);
    to->template = template ? pool_text(pool, template, n) : NULL;
    if (to->bos)
        json_object_set_new(o, "bos_token", json_string(to->bos));
    if (to->eos)
        json_object_set_new(o, "eos_token", json_string(to->eos));
    if (to->template)
        json_object_set_new(o, "chat_template", json_string(to->template));
    if (to->spm)
        json_object_set_new(o, "add_bos_token",
                            json_boolean(gguf_number(g, "tokenizer.ggml.add_bos_token", 1) != 0));
    to->tokenizer_config = gguf_json(o, pool);
}

int gguf_tokenizer_of(const struct gguf *g, struct pool *pool, struct gguf_files *to, struct err *e)
{
    size_t n;
    int rc;
    const char *kind = gguf_text(g, "tokenizer.ggml.model", &n);
    if (kind && n == 4 && !memcmp(kind, "gpt2", 4))
        rc = make_bpe(g, pool, to, e);
    else if (kind && n == 5 && !memcmp(kind, "llama", 5))
        rc = make_spm(g, pool, to, e);
    else
        rc = err_set(e, -ENOTSUP, "tokenizer.ggml.model \"%.*s\" is not read; llama and gpt2 are",
                     kind ? (int)(n < 40 ? n : 40) : 0, kind ? kind : "");
    if (!rc)
        make_small(g, pool, to);
    return rc;
}
