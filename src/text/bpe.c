/* bpe.c - byte-pair encoding of one piece: merge the pair of lowest rank, leftmost first, until
 * none is left. A heap holds the candidate pairs, so that even a text that is one piece takes
 * n log n steps. */
#include "base/buffer.h"
#include "text/vocab.h"

struct symbol {
    int id, previous, next; /* indices, -1: none */
};

struct candidate {
    int rank, at, left, right, to; /* left, right: what stood there when it was made */
};

struct bpe {
    const struct tok *tok;
    struct symbol *symbol;
    struct candidate *heap;
    size_t n_symbol, n_heap;
};

void ids_push(struct ids *out, int id)
{
    out->at = grow(out->at, &out->room, out->n + 1, sizeof(*out->at));
    out->at[out->n++] = id;
}

/* ------------------------------------------------------------------------------- the heap */

static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->at < b->at);
}

static void push(struct bpe *b, struct candidate c)
{
    size_t i = b->n_heap++;
    while (i > 0 && before(&c, &b->heap[(i - 1) / 2])) {
        b->heap[i] = b->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    b->heap[i] = c;
}

static struct candidate pop(struct bpe *b)
{
    struct candidate top = b->heap[0], last = b->heap[--b->n_heap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < b->n_heap; i = k) {
        if (k + 1 < b->n_heap && before(&b->heap[k + 1], &b->heap[k]))
            k++;
        if (!before(&b->heap[k], &last))
            break;
        b->heap[i] = b->heap[k];
    }
    b->heap[i] = last;
    return top;
}

/* The pair that begins at symbol i, when a merge knows it. */
static void consider(struct bpe *b, int i)
{
    if (i < 0 || b->symbol[i].next < 0)
        return;
    int left = b->symbol[i].id, right = b->symbol[b->symbol[i].next].id;
    const struct merge *m = vocab_merged(b->tok, left, right);
    if (m)
        push(b, (struct candidate){m->rank, i, left, right, m->to});
}

static void merge_all(struct bpe *b)
{
    for (size_t i = 0; i + 1 < b->n_symbol; i++)
        consider(b, (int)i);
    while (b->n_heap) {
        struct candidate c = pop(b);
        struct symbol *s = &b->symbol[c.at];
        if (s->id != c.left || s->next < 0 || b->symbol[s->next].id != c.right)
            continue; /* something there has merged since */
        struct symbol *gone = &b->symbol[s->next];
        s->id = c.to;
        gone->id = -2;
        s->next = gone->next;
        if (s->next >= 0)
            b->symbol[s->next].previous = c.at;
        consider(b, c.at);
        consider(b, s->previous);
    }
}

/* ------------------------------------------------------------------------------- symbols */

static void add_symbol(struct bpe *b, int id)
{
    int i = (int)b->n_symbol++;
    b->symbol[i] = (struct symbol){id, i - 1, -1};
    if (i > 0)
        b->symbol[i - 1].next = i;
}

static void add_unknown(struct bpe *b)
{
    bool again = b->n_symbol && b->symbol[b->n_symbol - 1].id == b->tok->unk;
    if (b->tok->unk >= 0 && !(again && b->tok->fuse_unk))
        add_symbol(b, b->tok->unk);
}

/* A character that is a token; else its bytes, when every one is a token; else unknown. */
static void add_character(struct bpe *b, const char *s, size_t n)
{
    const struct tok *t = b->tok;
    int id = vocab_find(t, s, n);
    bool bytes = t->byte_fallback;
    for (size_t i = 0; i < n; i++)
        bytes = bytes && t->byte_id[(unsigned char)s[i]] >= 0;
    if (id >= 0)
        add_symbol(b, id);
    else if (bytes)
        for (size_t i = 0; i < n; i++)
            add_symbol(b, t->byte_id[(unsigned char)s[i]]);
    else
        add_unknown(b);
}

static void add_symbols(struct bpe *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t bad;
        int k = b->tok->byte_level ? 1 : utf8_length(s + i, n - i, &bad);
        k = k > 0 ? k : 1;
        if (!b->tok->byte_level)
            add_character(b, s + i, (size_t)k);
        else if (b->tok->byte_id[(unsigned char)s[i]] >= 0)
            add_symbol(b, b->tok->byte_id[(unsigned char)s[i]]);
        else
            add_unknown(b);
        i += (size_t)k;
    }
}

/* The piece as a token of its own, spelt in the alphabet of the vocabulary; -1: none. */
static int whole(const struct tok *t, const char *s, size_t n)
{
    char spelt[512];
    size_t k = 0;
    if (!t->byte_level)
        return vocab_find(t, s, n);
    if (2 * n > sizeof(spelt))
        return -1;
    for (size_t i = 0; i < n; i++)
        k += (size_t)byte_letter((unsigned char)s[i], spelt + k);
    return vocab_find(t, spelt, k);
}

/* ------------------------------------------------------------------------------- pieces */

/* Whether a symbol may be this token without being spelt as it: unknown, or a byte "<0x0A>". */
static bool stands_in(const struct tok *t, int id)
{
    struct text s = t->token[id].text;
    return id == t->unk || (t->byte_fallback && s.n == 6 && !memcmp(s.s, "<0x", 3));
}

/* SentencePiece does not split text, so that a piece may be a book. But where no merge crosses the
 * beginning of a word, the words on either side never learn of each other, and each is merged on
 * its own: the same ids from small heaps. (Without an unknown token, a character may leave no
 * symbol, and what stands on either side of it meets.) */
void bpe_prepare(struct tok *t)
{
    const size_t mark = sizeof(MARK) - 1;
    bool can = !t->byte_level && t->unk >= 0 && vocab_find(t, MARK, mark) >= 0;
    memset(t->cut, can, sizeof(t->cut));
    for (size_t i = 0; can && i < t->n_merge_slot; i++) {
        if (t->merge[i].pair == UINT64_MAX)
            continue;
        int left_id = (int)(t->merge[i].pair >> 32), right_id = (int)(uint32_t)t->merge[i].pair;
        struct text left = t->token[left_id].text, right = t->token[right_id].text;
        if (left.n && right.n >= mark && !memcmp(right.s, MARK, mark))
            t->cut[(unsigned char)left.s[left.n - 1]] = false;
        if (stands_in(t, left_id) || stands_in(t, right_id)) {
            memset(t->cut, false, sizeof(t->cut));
            return;
        }
    }
}

/* How much of the piece can be merged on its own. */
static size_t stretch(const struct tok *t, const char *s, size_t n)
{
    const size_t mark = sizeof(MARK) - 1;
    for (size_t i = 1; !t->byte_level && i + mark <= n; i++)
        if (s[i] == MARK[0] && t->cut[(unsigned char)s[i - 1]] && !memcmp(s + i, MARK, mark))
            return i;
    return n;
}

static void encode_stretch(const struct tok *t, const char *s, size_t n, struct ids *out)
{
    enum { SMALL = 64 };
    struct symbol symbol[SMALL];
    struct candidate heap[3 * SMALL];
    struct bpe b = {.tok = t, .symbol = symbol, .heap = heap};
    if (n > SMALL) {
        b.symbol = malloc(n * sizeof(*b.symbol));
        b.heap = malloc(3 * n * sizeof(*b.heap)); /* n pairs, two new ones for each of n merges */
        must(b.symbol && b.heap);
    }
    add_symbols(&b, s, n);
    merge_all(&b);
    for (int i = b.n_symbol ? 0 : -1; i >= 0; i = b.symbol[i].next)
        ids_push(out, b.symbol[i].id);
    if (n > SMALL) {
        free(b.symbol);
        free(b.heap);
    }
}

void bpe_encode(const struct tok *t, const char *s, size_t n, struct ids *out)
{
    int id = t->ignore_merges ? whole(t, s, n) : -1;
    if (id >= 0) {
        ids_push(out, id);
        return;
    }
    for (size_t at = 0, k; at < n; at += k) {
        k = stretch(t, s + at, n - at);
        encode_stretch(t, s + at, k, out);
    }
}
