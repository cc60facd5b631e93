/* tok_json.c - reading tokenizer.json (untrusted) into the tables of vocab.h: the model and the
 * added tokens. The steps around it are for tok_steps.c. */
#include "text/vocab.h"

/* ------------------------------------------------------------------------------- the model */

static int check_id(const json_t *v, const char *what, int *id, struct err *e)
{
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v) || n < 0 || n >= VOCAB_MAX)
        return err_set(e, -EINVAL, "the id of \"%.60s\" is not a whole number below %d", what,
                       VOCAB_MAX);
    *id = (int)n;
    return 0;
}

static int size_vocab(struct tok *t, const json_t *vocab, const json_t *added, struct err *e)
{
    const char *text;
    json_t *v;
    size_t i;
    int id = 0, most = -1;
    json_object_foreach((json_t *)vocab, text, v)
    {
        if (check_id(v, text, &id, e))
            return -EINVAL;
        most = max_int(most, id);
    }
    json_array_foreach((json_t *)added, i, v)
    {
        if (check_id(json_object_get(v, "id"), "an added token", &id, e))
            return -EINVAL;
        most = max_int(most, id);
    }
    if (most < 0)
        return err_set(e, -EINVAL, "the vocabulary is empty");
    size_t tokens = json_object_size(vocab) + json_array_size(added);
    if ((size_t)most > 64 * tokens + 65536)
        return err_set(e, -EINVAL, "token id %d with only %zu tokens", most, tokens);
    vocab_reserve(t, most + 1);
    return 0;
}

static int fill_vocab(struct tok *t, const json_t *vocab, struct err *e)
{
    json_t *v;
    /* keys may hold any byte but 0, which JSON strings of keys cannot */
    for (void *it = json_object_iter((json_t *)vocab); it;
         it = json_object_iter_next((json_t *)vocab, it)) {
        const char *text = json_object_iter_key(it);
        v = json_object_iter_value(it);
        int rc = vocab_add(t, (int)json_integer_value(v), text, strlen(text), e);
        if (rc)
            return rc;
    }
    return 0;
}

/* One merge, "left right" or ["left", "right"]. */
static int read_merge(struct tok *t, const json_t *v, int rank, struct err *e)
{
    const char *a = json_string_value(json_array_get(v, 0)), *b;
    size_t n, m;
    if (json_is_string(v)) {
        a = json_string_value(v);
        const char *blank = strchr(a, ' ');
        if (!blank)
            return err_set(e, -EINVAL, "merge %d: \"%.40s\" is not two tokens", rank, a);
        b = blank + 1;
        n = (size_t)(blank - a);
    } else {
        b = json_string_value(json_array_get(v, 1));
        n = a ? strlen(a) : 0;
    }
    if (!a || !b)
        return err_set(e, -EINVAL, "merge %d is not two tokens", rank);
    m = strlen(b);
    char small[256], *both = n + m <= sizeof(small) ? small : pool_get(&t->pool, n + m);
    memcpy(both, a, n);
    memcpy(both + n, b, m);
    int left = vocab_find(t, a, n), right = vocab_find(t, b, m), to = vocab_find(t, both, n + m);
    if (left < 0 || right < 0 || to < 0)
        return err_set(e, -EINVAL, "merge %d: \"%.40s\" is not in the vocabulary", rank,
                       left < 0    ? a
                       : right < 0 ? b
                                   : "its result");
    vocab_merge(t, left, right, to, rank);
    return 0;
}

static int read_model(struct tok *t, const json_t *model, const json_t *added, struct err *e)
{
    const json_t *vocab = json_object_get(model, "vocab"),
                 *merges = json_object_get(model, "merges");
    const char *unk = json_string_value(json_object_get(model, "unk_token"));
    const char *type = json_string_value(json_object_get(model, "type"));
    if ((type && strcmp(type, "BPE")) || !json_is_object(vocab))
        return err_set(e, -ENOTSUP, "model type \"%.40s\" is not supported; BPE is",
                       type ? type : "(none)");
    if (json_string_length(json_object_get(model, "continuing_subword_prefix")) ||
        json_string_length(json_object_get(model, "end_of_word_suffix")))
        return err_set(e, -ENOTSUP,
                       "a BPE model with continuing_subword_prefix or end_of_word_suffix is not "
                       "supported");
    if (!json_is_array(merges))
        return err_set(e, -EINVAL, "the BPE model has no list of merges");
    int rc = size_vocab(t, vocab, added, e);
    if (!rc)
        rc = fill_vocab(t, vocab, e);
    if (rc)
        return rc;
    vocab_reserve_merges(t, json_array_size(merges));
    for (size_t i = 0; !rc && i < json_array_size(merges); i++)
        rc = read_merge(t, json_array_get(merges, i), (int)i, e);
    t->unk = unk ? vocab_find(t, unk, strlen(unk)) : -1;
    if (!rc)
        rc = json_get_bool(model, "byte_fallback", &t->byte_fallback, e);
    if (!rc)
        rc = json_get_bool(model, "fuse_unk", &t->fuse_unk, e);
    if (!rc)
        rc = json_get_bool(model, "ignore_merges", &t->ignore_merges, e);
    return rc;
}

static int read_flags(const json_t *o, struct added *a, struct err *e)
{
    const struct {
        const char *key;
        bool *to;
    } row[] = {{"special", &a->special},
               {"lstrip", &a->lstrip},
               {"rstrip", &a->rstrip},
               {"normalized", &a->normalized},
               {"single_word", &a->single_word}};
    int rc = 0;
    for (size_t i = 0; !rc && i < COUNT(row); i++)
        rc = json_get_bool(o, row[i].key, row[i].to, e);
    return rc;
}

static int read_added(struct tok *t, const json_t *list, struct err *e)
{
    size_t i;
    json_t *o;
    t->added = pool_get(&t->pool, (json_array_size(list) + 1) * sizeof(*t->added));
    json_array_foreach((json_t *)list, i, o)
    {
        const json_t *content = json_object_get(o, "content");
        if (!json_is_string(content) || !json_string_length(content))
            return err_set(e, -EINVAL, "added token %zu has no text", i);
        struct added a = {.id = (int)json_integer_value(json_object_get(o, "id")),
                          .normalized = true};
        int rc = read_flags(o, &a, e);
        if (!rc)
            rc = vocab_add(t, a.id, json_string_value(content), json_string_length(content), e);
        if (rc)
            return rc;
        a.text = t->token[a.id].text;
        t->token[a.id].added = true;
        t->token[a.id].special = a.special;
        t->added[t->n_added++] = a;
    }
    return 0;
}

/* Added tokens that are looked for in normalised text are looked for as they look there. */
static void normalise_added(struct tok *t)
{
    int kept = 0;
    for (int i = 0; i < t->n_added; i++) {
        struct added a = t->added[i];
        if (a.normalized && t->normal.n) {
            size_t n;
            char *text = normalise(t, a.text.s, a.text.n, &n);
            a.text = (struct text){pool_text(&t->pool, text, n), n};
            free(text);
        }
        if (a.text.n)
            t->added[kept++] = a;
    }
    t->n_added = kept;
    vocab_sort_added(t);
}

/* ------------------------------------------------------------------------------- all */

static int read_all(struct tok *t, const json_t *o, struct err *e)
{
    const json_t *added = json_object_get(o, "added_tokens");
    int rc = read_model(t, json_object_get(o, "model"), added, e);
    if (!rc)
        rc = read_added(t, added, e);
    if (!rc)
        rc = read_steps(t, o, e);
    if (rc)
        return rc;
    normalise_added(t);
    vocab_find_bytes(t);
    bpe_prepare(t);
    detok_prepare(t);
    return 0;
}

int tok_load_json(const char *text, size_t n, const char *what, struct tok **out, struct err *e)
{
    *out = NULL;
    json_t *o = json_parse(text, n, what, e);
    if (!o)
        return -EINVAL;
    struct tok *t = calloc(1, sizeof(*t));
    must(t);
    t->bos = t->eos = t->unk = -1;
    int rc = json_is_object(o) ? read_all(t, o, e) : err_set(e, -EINVAL, "not a JSON object");
    json_decref(o);
    if (rc) {
        tok_free(t);
        return err_add(e, rc, "%s", what);
    }
    *out = t;
    return 0;
}
