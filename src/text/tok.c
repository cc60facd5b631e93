/* tok.c - the tokenizer as others see it: loading a folder, encoding with added tokens. See tok.h.
 */
#include "text/vocab.h"

#include <unistd.h>

enum { FILE_LIMIT = 256 << 20 };

/* ------------------------------------------------------------------------------- loading */

static void free_steps(struct steps *s)
{
    for (int i = 0; i < s->n; i++)
        pcre2_code_free(s->at[i].regex);
}

void tok_free(struct tok *t)
{
    if (!t)
        return;
    free_steps(&t->normal);
    free_steps(&t->split);
    free_steps(&t->decode);
    pool_free(&t->pool);
    free(t);
}

/* bos_token and eos_token are texts, or objects with the text in "content". */
static int named_token(const struct tok *t, const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v))
        v = json_object_get(v, "content");
    return json_is_string(v) ? vocab_find(t, json_string_value(v), json_string_length(v)) : -1;
}

/* A tokenizer.model does not say whether bos, eos and a first blank are added. */
static int read_additions(struct tok *t, const json_t *config, struct err *e)
{
    bool add_bos = true, add_eos = false, blank = true;
    int rc = json_get_bool(config, "add_bos_token", &add_bos, e);
    if (!rc)
        rc = json_get_bool(config, "add_eos_token", &add_eos, e);
    if (!rc)
        rc = json_get_bool(config, "add_prefix_space", &blank, e);
    t->n_prefix = t->n_suffix = 0;
    if (add_bos && t->bos >= 0)
        t->prefix[t->n_prefix++] = t->bos;
    if (add_eos && t->eos >= 0)
        t->suffix[t->n_suffix++] = t->eos;
    struct steps *normal = &t->normal, *decode = &t->decode;
    if (!blank && normal->n && normal->at[0].kind == STEP_PREPEND) {
        memmove(normal->at, normal->at + 1, (size_t)--normal->n * sizeof(normal->at[0]));
        decode->n -= decode->n && decode->at[decode->n - 1].kind == STEP_STRIP;
    }
    return rc;
}

static int read_config(struct tok *t, const char *folder, bool additions, struct err *e)
{
    char path[4096];
    int rc;
    snprintf(path, sizeof(path), "%s/tokenizer_config.json", folder);
    json_t *config = json_file(path, FILE_LIMIT, &rc, e);
    if (!config)
        return rc == -ENOENT ? 0 : rc;
    int bos = named_token(t, config, "bos_token"), eos = named_token(t, config, "eos_token");
    t->bos = bos >= 0 ? bos : t->bos;
    t->eos = eos >= 0 ? eos : t->eos;
    rc = additions ? read_additions(t, config, e) : 0;
    json_decref(config);
    return rc ? err_add(e, rc, "%s", path) : 0;
}

static int read_file(const char *path, bool json, struct tok **out, struct err *e)
{
    char *bytes;
    size_t n;
    int rc = file_read(path, FILE_LIMIT, &bytes, &n, e);
    if (rc)
        return rc;
    rc = json                       ? tok_load_json(bytes, n, path, out, e)
         : tiktoken_bytes(bytes, n) ? tok_load_tiktoken(bytes, n, path, out, e)
                                    : tok_load_spm(bytes, n, path, out, e);
    free(bytes);
    return rc;
}

int tok_load(const char *folder, struct tok **out, struct err *e)
{
    static const char *const file[] = {"tokenizer.json", "tokenizer.model"};
    char path[4096];
    *out = NULL;
    for (size_t i = 0; i < COUNT(file); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, file[i]);
        if (access(path, F_OK))
            continue;
        int rc = read_file(path, i == 0, out, e);
        if (!rc)
            rc = read_config(*out, folder, i > 0, e);
        if (rc) {
            tok_free(*out);
            *out = NULL;
        }
        return rc;
    }
    return err_set(e, -ENOENT, "%s has neither tokenizer.json nor tokenizer.model", folder);
}

/* ------------------------------------------------------------------------------- asking */

int tok_n_vocab(const struct tok *t) { return t->n_vocab; }
int tok_id(const struct tok *t, const char *s) { return vocab_find(t, s, strlen(s)); }
int tok_bos(const struct tok *t) { return t->bos; }
int tok_eos(const struct tok *t) { return t->eos; }

bool tok_is_special(const struct tok *t, int id)
{
    return id >= 0 && id < t->n_vocab && t->token[id].special;
}

const char *tok_bytes(const struct tok *t, int id, size_t *n)
{
    if (id < 0 || id >= t->n_vocab)
        return NULL;
    *n = t->bytes[id].n;
    return t->bytes[id].s;
}

/* ------------------------------------------------------------------------------- encoding */

struct encoding {
    const struct tok *tok;
    struct ids out;
    bool parse; /* special tokens in the text count */
    bool first; /* nothing stands before in the text */
};

/* Where the character before s[i] begins; i > 0. */
static size_t step_back(const char *s, size_t i)
{
    do
        i--;
    while (i > 0 && ((unsigned char)s[i] & 0xC0) == 0x80);
    return i;
}

/* Whether s[lo..hi) stands between characters that are not of words. */
static bool alone(const char *s, size_t lo, size_t hi, size_t n)
{
    size_t before = lo ? step_back(s, lo) : 0;
    return !(lo && word_at(s + before, lo - before)) && !(hi < n && word_at(s + hi, n - hi));
}

/* The longest added token that begins at s[i], of those that are looked for in normalised text or
 * in the text as it came. */
static const struct added *added_at(const struct encoding *w, bool normalized, const char *s,
                                    size_t i, size_t n)
{
    const struct tok *t = w->tok;
    unsigned char first = (unsigned char)s[i];
    for (int k = t->added_first[first]; k < t->added_first[first + 1]; k++) {
        const struct added *a = &t->added[k];
        bool looked_for = a->normalized == normalized && (w->parse || !a->special);
        if (!looked_for || a->text.n > n - i || memcmp(s + i, a->text.s, a->text.n))
            continue;
        if (a->single_word && !alone(s, i, i + a->text.n, n))
            continue;
        return a;
    }
    return NULL;
}

typedef void stretch_fn(struct encoding *w, const char *s, size_t n);

/* Cut at added tokens; what lies between goes to fn. */
static void cut_added(struct encoding *w, bool normalized, const char *s, size_t n, stretch_fn *fn)
{
    size_t open = 0;
    for (size_t i = 0; i < n;) {
        const struct added *a = added_at(w, normalized, s, i, n);
        if (!a) {
            i++;
            continue;
        }
        size_t lo = i, hi = i + a->text.n, k;
        while (a->lstrip && lo > open && blank_at(s + step_back(s, lo), n, &k))
            lo -= k;
        while (a->rstrip && hi < n && blank_at(s + hi, n - hi, &k))
            hi += k;
        if (lo > open)
            fn(w, s + open, lo - open);
        ids_push(&w->out, a->id);
        w->first = false;
        i = open = hi;
    }
    if (n > open)
        fn(w, s + open, n - open);
}

static void on_piece(void *arg, const char *s, size_t n)
{
    struct encoding *w = arg;
    bpe_encode(w->tok, s, n, &w->out);
}

static void plain_stretch(struct encoding *w, const char *s, size_t n)
{
    split_text(w->tok, s, n, w->first, on_piece, w);
    w->first = false;
}

static void raw_stretch(struct encoding *w, const char *s, size_t n)
{
    size_t k;
    char *normal = normalise(w->tok, s, n, &k);
    cut_added(w, true, normal, k, plain_stretch);
    free(normal);
}

static int check_utf8(const char *s, size_t n, struct err *e)
{
    for (size_t i = 0, bad; i < n;) {
        int k = utf8_length(s + i, n - i, &bad);
        if (k <= 0)
            return err_set(e, -EILSEQ, "the text is not valid UTF-8 at byte %zu: convert it first",
                           i);
        i += (size_t)k;
    }
    return 0;
}

int tok_encode(const struct tok *t, const char *text, size_t n, int flags, int **ids, size_t *n_ids,
               struct err *e)
{
    struct encoding w = {.tok = t, .parse = flags & TOK_PARSE, .first = true};
    *ids = NULL, *n_ids = 0;
    int rc = check_utf8(text, n, e);
    if (rc)
        return rc;
    for (int i = 0; flags & TOK_SPECIAL && i < t->n_prefix; i++)
        ids_push(&w.out, t->prefix[i]);
    cut_added(&w, false, text, n, raw_stretch);
    for (int i = 0; flags & TOK_SPECIAL && i < t->n_suffix; i++)
        ids_push(&w.out, t->suffix[i]);
    *ids = w.out.at;
    *n_ids = w.out.n;
    return 0;
}
