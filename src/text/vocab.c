/* vocab.c - the tables of a tokenizer: tokens by id and by text, merges by pair. See vocab.h. */
#include "text/vocab.h"

#include <xxhash.h>

static size_t power_of_two(size_t n)
{
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    return size;
}

void vocab_reserve(struct tok *t, int n_vocab)
{
    t->n_vocab = n_vocab;
    t->token = pool_get(&t->pool, (size_t)n_vocab * sizeof(*t->token));
    t->map.size = power_of_two((size_t)n_vocab);
    t->map.slot = pool_get(&t->pool, t->map.size * sizeof(int));
}

/* The slot where the text is, or where it would go. */
static size_t slot_of(const struct tok *t, const char *s, size_t n)
{
    size_t at = XXH3_64bits(s, n) & (t->map.size - 1);
    for (;; at = (at + 1) & (t->map.size - 1)) {
        if (!t->map.slot[at])
            return at;
        const struct text *have = &t->token[t->map.slot[at] - 1].text;
        if (have->n == n && !memcmp(have->s, s, n))
            return at;
    }
}

/* The beginning of a text, for a sentence of one line. */
static const char *shown(const char *s, size_t n, char to[41])
{
    size_t k = n < 40 ? n : 40;
    for (size_t i = 0; i < k; i++)
        to[i] = (unsigned char)s[i] < ' ' ? '?' : s[i];
    to[k] = 0;
    return to;
}

int vocab_add(struct tok *t, int id, const char *s, size_t n, struct err *e)
{
    must(id >= 0 && id < t->n_vocab);
    struct token *token = &t->token[id];
    char a[41], b[41];
    if (token->text.s && (token->text.n != n || memcmp(token->text.s, s, n)))
        return err_set(e, -EINVAL, "two tokens have the id %d: \"%s\" and \"%s\"", id,
                       shown(token->text.s, token->text.n, a), shown(s, n, b));
    size_t at = slot_of(t, s, n);
    if (t->map.slot[at] && t->map.slot[at] - 1 != id)
        return err_set(e, -EINVAL, "token \"%s\" has two ids, %d and %d", shown(s, n, a),
                       t->map.slot[at] - 1, id);
    if (!token->text.s)
        token->text = (struct text){pool_text(&t->pool, s, n), n};
    t->map.slot[at] = id + 1;
    return 0;
}

int vocab_find(const struct tok *t, const char *s, size_t n)
{
    return t->map.slot[slot_of(t, s, n)] - 1;
}

/* ------------------------------------------------------------------------------- merges */

void vocab_reserve_merges(struct tok *t, size_t n)
{
    t->n_merge_slot = power_of_two(n);
    t->merge = pool_get(&t->pool, t->n_merge_slot * sizeof(*t->merge));
    for (size_t i = 0; i < t->n_merge_slot; i++)
        t->merge[i].pair = UINT64_MAX;
}

static struct merge *merge_slot(const struct tok *t, uint64_t pair)
{
    size_t at = (pair * 0x9E3779B97F4A7C15u >> 20) & (t->n_merge_slot - 1);
    while (t->merge[at].pair != pair && t->merge[at].pair != UINT64_MAX)
        at = (at + 1) & (t->n_merge_slot - 1);
    return &t->merge[at];
}

static uint64_t pair_of(int left, int right) { return (uint64_t)left << 32 | (uint32_t)right; }

/* The first rank of a pair wins, as in the list. */
void vocab_merge(struct tok *t, int left, int right, int to, int rank)
{
    uint64_t pair = pair_of(left, right);
    struct merge *m = merge_slot(t, pair);
    if (m->pair == UINT64_MAX)
        *m = (struct merge){pair, rank, to};
}

const struct merge *vocab_merged(const struct tok *t, int left, int right)
{
    if (!t->n_merge_slot || left < 0 || right < 0)
        return NULL;
    const struct merge *m = merge_slot(t, pair_of(left, right));
    return m->pair == UINT64_MAX ? NULL : m;
}

int vocab_merge_parts(struct tok *t, const int *order, int n, struct err *e)
{
    struct merge *all = NULL;
    size_t count = 0, room = 0;
    for (int rank = 0; rank < n; rank++) {
        const struct text *p = &t->token[order[rank]].text;
        if (p->n > PART_MAX) { /* its ways are many and long */
            free(all);
            return err_set(e, -EINVAL, "token %d has %zu bytes, more than %d", order[rank], p->n,
                           PART_MAX);
        }
        for (size_t k = 1; k < p->n; k++) {
            if (((unsigned char)p->s[k] & 0xC0) == 0x80)
                continue;
            int left = vocab_find(t, p->s, k);
            int right = left >= 0 ? vocab_find(t, p->s + k, p->n - k) : -1;
            if (right < 0)
                continue;
            if (count == room) {
                room = room ? 2 * room : 1024;
                all = realloc(all, room * sizeof(*all));
                must(all);
            }
            all[count++] = (struct merge){pair_of(left, right), rank, order[rank]};
        }
    }
    vocab_reserve_merges(t, count);
    for (size_t i = 0; i < count; i++)
        vocab_merge(t, (int)(all[i].pair >> 32), (int)(uint32_t)all[i].pair, all[i].to,
                    all[i].rank);
    free(all);
    return 0;
}

/* ------------------------------------------------------------------------------- added tokens */

static int by_first_then_length(const void *a, const void *b)
{
    const struct added *x = a, *y = b;
    unsigned char p = (unsigned char)x->text.s[0], q = (unsigned char)y->text.s[0];
    if (p != q)
        return p < q ? -1 : 1;
    return (x->text.n < y->text.n) - (x->text.n > y->text.n);
}

void vocab_sort_added(struct tok *t)
{
    if (t->n_added)
        qsort(t->added, (size_t)t->n_added, sizeof(*t->added), by_first_then_length);
    for (int b = 0, i = 0; b <= 256; b++) {
        while (i < t->n_added && (unsigned char)t->added[i].text.s[0] < b)
            i++;
        t->added_first[b] = b == 256 ? t->n_added : i;
    }
}

/* ------------------------------------------------------------------------------- bytes */

/* GPT-2 gives every byte a printable letter: itself where it is one, else 256, 257, ... */
static bool printable(unsigned b)
{
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
}

/* The others, in order: 0 to 32, 127 to 160, 173. */
static unsigned letter_of(unsigned char b)
{
    return printable(b) ? b : b <= ' ' ? 256u + b : b <= 160 ? 289u + b - 127u : 323u;
}

int byte_letter(unsigned char b, char to[2])
{
    unsigned c = letter_of(b);
    if (c < 128) {
        to[0] = (char)c;
        return 1;
    }
    to[0] = (char)(0xC0 | c >> 6);
    to[1] = (char)(0x80 | (c & 63));
    return 2;
}

int letter_byte(unsigned c)
{
    if (c < 256)
        return printable(c) ? (int)c : -1;
    return c < 289 ? (int)c - 256 : c < 323 ? (int)c - 289 + 127 : c == 323 ? 173 : -1;
}

void vocab_find_bytes(struct tok *t)
{
    for (int b = 0; b < 256; b++) {
        char s[8];
        int n = t->byte_level ? byte_letter((unsigned char)b, s)
                              : snprintf(s, sizeof(s), "<0x%02X>", b);
        t->byte_id[b] = vocab_find(t, s, (size_t)n);
    }
}

int utf8_length(const char *text, size_t n, size_t *bad)
{
    const unsigned char *s = (const unsigned char *)text;
    int want = s[0] < 0x80                    ? 1
               : s[0] >= 0xC2 && s[0] < 0xE0  ? 2
               : (s[0] & 0xF0) == 0xE0        ? 3
               : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4
                                              : 0;
    *bad = 1;
    for (int i = 1; i < want; i++) {
        unsigned lo = 0x80, hi = 0xBF;
        if (i == 1 && s[0] == 0xE0)
            lo = 0xA0; /* overlong */
        if (i == 1 && s[0] == 0xED)
            hi = 0x9F; /* surrogates */
        if (i == 1 && s[0] == 0xF0)
            lo = 0x90;
        if (i == 1 && s[0] == 0xF4)
            hi = 0x8F; /* beyond U+10FFFF */
        *bad = (size_t)i;
        if ((size_t)i == n)
            return -1;
        if (s[i] < lo || s[i] > hi)
            return 0;
    }
    return want;
}
