/* mask_vocab.c - a tokenizer's tokens as a tree of bytes. See mask.h. */
#include "text/mask.h"

struct entry {
    struct text text;
    int id;
};

static int by_bytes(const void *p, const void *q)
{
    const struct entry *x = p, *y = q;
    size_t n = x->text.n < y->text.n ? x->text.n : y->text.n;
    int c = n ? memcmp(x->text.s, y->text.s, n) : 0;
    return c                        ? c
           : x->text.n != y->text.n ? (x->text.n > y->text.n) - (x->text.n < y->text.n)
                                    : (x->id > y->id) - (x->id < y->id);
}

static size_t common(struct text a, struct text b)
{
    size_t n = 0;
    while (n < a.n && n < b.n && a.s[n] == b.s[n])
        n++;
    return n;
}

/* The tree of sorted entries. A token with the bytes of the one before is a leaf beside it. */
static void build(struct grammar_vocab *v, const struct entry *all, int n)
{
    size_t total = 0;
    for (int i = 0; i < n; i++)
        total += all[i].text.n;
    v->node = pool_get(&v->pool, (total + 1) * sizeof(*v->node));
    int open[256] = {0}; /* the node on the way, by depth */
    size_t depth = 0;
    for (int i = 0; i < n; i++) {
        struct text t = all[i].text;
        size_t same = i ? common(all[i - 1].text, t) : 0;
        if (same == t.n)
            same--; /* a twin */
        while (depth > same)
            v->node[open[--depth]].end = v->n_nodes;
        for (; depth < t.n; depth++) {
            open[depth] = v->n_nodes;
            v->node[v->n_nodes++] =
                (struct trie_node){0, -1, (unsigned char)t.s[depth], (unsigned char)depth};
        }
        v->node[v->n_nodes - 1].token = all[i].id;
        v->longest = max_int(v->longest, (int)t.n);
    }
    while (depth > 0)
        v->node[open[--depth]].end = v->n_nodes;
}

/* Bytes of token id: what it stands for, with a mark before when it is an added one. */
static struct text bytes_of(struct grammar_vocab *v, int id)
{
    const struct token *t = &v->tok->token[id];
    struct text bytes = v->tok->bytes[id];
    if (!t->text.s || !bytes.n || bytes.n > MASK_TOKEN_BYTES)
        return (struct text){NULL, 0};
    if (!t->added && !t->special)
        return bytes;
    char *to = pool_get(&v->pool, bytes.n + 1);
    to[0] = (char)(t->special ? BYTE_SPECIAL : BYTE_ADDED);
    memcpy(to + 1, bytes.s, bytes.n);
    v->added[v->n_added++] = (struct added_text){{to, bytes.n + 1}, id};
    return (struct text){to, bytes.n + 1};
}

struct grammar_vocab *grammar_vocab_new(const struct tok *t, int n_vocab, const int *eos, int n_eos)
{
    struct grammar_vocab *v = calloc(1, sizeof(*v));
    must(v);
    int n = 0, own = min_int(n_vocab, t->n_vocab);
    v->tok = t;
    v->n_vocab = n_vocab;
    v->n_words = (n_vocab + 63) / 64;
    v->text = pool_get(&v->pool, (size_t)n_vocab * sizeof(*v->text));
    v->added = pool_get(&v->pool, (size_t)own * sizeof(*v->added));
    v->eos = pool_get(&v->pool, (size_t)n_eos * sizeof(int));
    v->eos_mask = pool_get(&v->pool, (size_t)v->n_words * sizeof(uint64_t));
    for (int i = 0; i < n_eos; i++)
        if (eos[i] >= 0 && eos[i] < n_vocab) {
            v->eos[v->n_eos++] = eos[i];
            bit_set(v->eos_mask, eos[i]);
        }
    struct entry *all = malloc(((size_t)own + 1) * sizeof(*all));
    must(all);
    for (int id = 0; id < own; id++) {
        if (bit_of(v->eos_mask, id))
            continue;
        v->text[id] = bytes_of(v, id);
        if (v->text[id].n)
            all[n++] = (struct entry){v->text[id], id};
    }
    qsort(all, (size_t)n, sizeof(*all), by_bytes);
    build(v, all, n);
    free(all);
    for (int i = 0; i < t->decode.n; i++)
        v->strips |= t->decode.at[i].kind == STEP_STRIP || t->decode.at[i].kind == STEP_METASPACE;
    return v;
}

void grammar_vocab_free(struct grammar_vocab *v)
{
    if (!v)
        return;
    pool_free(&v->pool);
    free(v);
}
