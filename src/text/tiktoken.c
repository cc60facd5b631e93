/* tiktoken.c - reading tokenizer.model in tiktoken's format (untrusted), one line "base64 rank" a
 * token, into the tables of vocab.h. Such a file says neither how to split text nor which special
 * tokens there are: both are Llama 3's, the one model known to come this way. Bytes that join to a
 * token merge, lower ranks first. */
#include "text/vocab.h"

#define LLAMA3_PATTERN                                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"                      \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

enum { LLAMA3_RANKS = 128000, LLAMA3_SPECIAL = 256, LLAMA3_BOS = 0, LLAMA3_EOS = 1 };

struct lines { /* what is left */
    const char *at, *end;
    int number;
};

static int base64_digit(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

/* The bytes of n > 0 characters, to[n / 4 * 3]; how many, -1: not base64. */
static int base64(const char *s, size_t n, unsigned char *to)
{
    int k = 0;
    size_t pad = n >= 4 && s[n - 1] == '=' ? 1 + (s[n - 2] == '=') : 0;
    uint32_t bits = 0;
    if (n % 4)
        return -1;
    for (size_t i = 0; i < n; i++) {
        int digit = i < n - pad ? base64_digit(s[i]) : 0;
        if (digit < 0)
            return -1;
        bits = bits << 6 | (uint32_t)digit;
        for (int part = 16; i % 4 == 3 && part >= 0; part -= 8)
            to[k++] = (unsigned char)(bits >> part);
    }
    return k - (int)pad;
}

/* "IQ== 0\n": its bytes spelt in letters, its rank; false: the line is not of this kind. */
static bool next_line(struct lines *w, char spelt[2 * PART_MAX], size_t *n, int *rank)
{
    unsigned char bytes[PART_MAX];
    const char *line = w->at, *end = memchr(line, '\n', (size_t)(w->end - line));
    end = end ? end : w->end;
    const char *blank = memchr(line, ' ', (size_t)(end - line));
    w->at = end + (end < w->end);
    w->number++;
    if (!blank || blank == line || blank - line > PART_MAX || end - blank < 2 || end - blank > 9)
        return false;
    int k = base64(line, (size_t)(blank - line), bytes);
    *n = 0;
    for (int i = 0; i < k; i++)
        *n += (size_t)byte_letter(bytes[i], spelt + *n);
    *rank = 0;
    for (const char *c = blank + 1; c < end; c++) {
        if (*c < '0' || *c > '9')
            return false;
        *rank = 10 * *rank + (*c - '0');
    }
    return k > 0;
}

bool tiktoken_bytes(const char *s, size_t n)
{
    struct lines w = {s, s + (n < PART_MAX ? n : PART_MAX), 0};
    char spelt[2 * PART_MAX];
    size_t k;
    int rank;
    return n && next_line(&w, spelt, &k, &rank);
}

static int read_ranks(struct tok *t, const char *s, size_t n, int ranks, struct err *e)
{
    struct lines w = {s, s + n, 0};
    char spelt[2 * PART_MAX];
    size_t k;
    int rank;
    while (w.at < w.end) {
        if (!next_line(&w, spelt, &k, &rank))
            return err_set(e, -EINVAL, "line %d is not \"base64 rank\"", w.number);
        if (rank >= ranks)
            return err_set(e, -EINVAL, "line %d: rank %d, but there are only %d lines", w.number,
                           rank, ranks);
        int rc = vocab_add(t, rank, spelt, k, e);
        if (rc)
            return err_add(e, rc, "line %d", w.number);
    }
    for (int b = 0; b < 256; b++)
        if (vocab_find(t, spelt, (size_t)byte_letter((unsigned char)b, spelt)) < 0)
            return err_set(e, -EINVAL, "the byte %d has no rank", b);
    return 0;
}

/* Those with a meaning, by their place; the others are reserved. */
static const char *const llama3_special[LLAMA3_SPECIAL] = {
    [LLAMA3_BOS] = "<|begin_of_text|>",
    [LLAMA3_EOS] = "<|end_of_text|>",
    [4] = "<|finetune_right_pad_id|>",
    [6] = "<|start_header_id|>",
    [7] = "<|end_header_id|>",
    [8] = "<|eom_id|>",
    [9] = "<|eot_id|>",
    [10] = "<|python_tag|>",
};

static int add_special(struct tok *t, struct err *e)
{
    t->added = pool_get(&t->pool, LLAMA3_SPECIAL * sizeof(*t->added));
    for (int i = 0, reserved = 0; i < LLAMA3_SPECIAL; i++) {
        char name[40];
        int id = LLAMA3_RANKS + i;
        if (llama3_special[i])
            snprintf(name, sizeof(name), "%s", llama3_special[i]);
        else
            snprintf(name, sizeof(name), "<|reserved_special_token_%d|>", reserved++);
        int rc = vocab_add(t, id, name, strlen(name), e);
        if (rc)
            return rc;
        t->token[id].added = t->token[id].special = true;
        t->added[t->n_added++] =
            (struct added){.text = t->token[id].text, .id = id, .special = true};
    }
    vocab_sort_added(t);
    return 0;
}

static int build(struct tok *t, const char *s, size_t n, struct err *e)
{
    int ranks = n && s[n - 1] != '\n'; /* as many as lines */
    for (size_t i = 0; i < n && ranks <= VOCAB_MAX; i++)
        ranks += s[i] == '\n';
    if (!ranks || ranks > VOCAB_MAX)
        return err_set(e, -EINVAL, "%d lines of tokens", ranks);
    vocab_reserve(t, ranks + LLAMA3_SPECIAL);
    int rc = read_ranks(t, s, n, ranks, e);
    if (!rc && ranks != LLAMA3_RANKS)
        rc = err_set(e, -ENOTSUP,
                     "%d ranks; how text is split is known for Llama 3's %d only: use the model's "
                     "tokenizer.json",
                     ranks, LLAMA3_RANKS);
    if (!rc)
        rc = add_special(t, e);
    if (rc)
        return rc;
    int *order = pool_get(&t->pool, LLAMA3_RANKS * sizeof(*order));
    for (int i = 0; i < LLAMA3_RANKS; i++)
        order[i] = i;
    rc = vocab_merge_parts(t, order, LLAMA3_RANKS, e);
    struct step *split = &t->split.at[t->split.n++];
    *split = (struct step){.kind = STEP_SPLIT, .behaviour = ISOLATED};
    split->regex = regex_new(LLAMA3_PATTERN, strlen(LLAMA3_PATTERN), e);
    must(split->regex);
    t->byte_level = t->ignore_merges = true;
    t->bos = t->prefix[t->n_prefix++] = LLAMA3_RANKS + LLAMA3_BOS;
    t->eos = LLAMA3_RANKS + LLAMA3_EOS;
    vocab_find_bytes(t);
    detok_prepare(t);
    return rc;
}

int tok_load_tiktoken(const char *text, size_t n, const char *what, struct tok **out, struct err *e)
{
    struct tok *t = calloc(1, sizeof(*t));
    must(t);
    t->bos = t->eos = t->unk = -1;
    int rc = build(t, text, n, e);
    *out = rc ? NULL : t;
    if (rc)
        tok_free(t);
    return rc ? err_add(e, rc, "%s", what) : 0;
}
