/* blocks.c - see blocks.h. */
#include "sched/blocks.h"

#include <xxhash.h>

struct block {
    struct page_name name;
    int users;
    int older, newer; /* in the list of spare pages; -1: end */
};

static bool same(struct page_name a, struct page_name b) { return a.lo == b.lo && a.hi == b.hi; }
static bool known(const struct block *k) { return k->name.lo || k->name.hi; }

static int table_size(int n)
{
    int size = 16;
    while (size < 2 * n)
        size *= 2;
    return size;
}

void blocks_init(struct blocks *b, int n, struct arena *a)
{
    *b = (struct blocks){.n = n, .n_spare = n, .oldest = -1, .newest = -1};
    b->at = arena_get(a, (size_t)n * sizeof(*b->at));
    b->table = arena_get(a, (size_t)table_size(n) * sizeof(int));
}

struct page_name page_name(struct page_name before, const int *tok, int n)
{
    struct {
        struct page_name before;
        int tok[64];
    } key = {.before = before};
    must(n > 0 && n <= (int)COUNT(key.tok));
    memcpy(key.tok, tok, (size_t)n * sizeof(int));
    XXH128_hash_t h = XXH3_128bits(&key, sizeof(before) + (size_t)n * sizeof(int));
    return (struct page_name){h.low64 | 1, h.high64}; /* never 0, 0 */
}

/* ------------------------------------------------------------------------------- the table */

/* Where a name is, or the empty place where it would be. */
static int place(const struct blocks *b, struct page_name name)
{
    int mask = b->n_table - 1, i = (int)(name.hi & (uint64_t)mask);
    while (b->table[i] >= 0 && !same(b->at[b->table[i]].name, name))
        i = (i + 1) & mask;
    return i;
}

/* Linear probing without tombstones: what follows an emptied place moves up if it may. */
static void forget(struct blocks *b, int page)
{
    int mask = b->n_table - 1, hole = place(b, b->at[page].name);
    must(b->table[hole] == page);
    for (int i = (hole + 1) & mask; b->table[i] >= 0; i = (i + 1) & mask) {
        int home = (int)(b->at[b->table[i]].name.hi & (uint64_t)mask);
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            b->table[hole] = b->table[i];
            hole = i;
        }
    }
    b->table[hole] = -1;
    b->at[page].name = (struct page_name){0, 0};
}

/* ------------------------------------------------------------------------------- spare pages */

/* Known pages wait at the new end, so that they are given away last; unknown ones at the old. */
static void make_spare(struct blocks *b, int page)
{
    struct block *k = &b->at[page];
    bool keep = known(k);
    k->older = keep ? b->newest : -1;
    k->newer = keep ? -1 : b->oldest;
    if (k->older >= 0)
        b->at[k->older].newer = page;
    if (k->newer >= 0)
        b->at[k->newer].older = page;
    if (keep || b->newest < 0)
        b->newest = page;
    if (!keep || b->oldest < 0)
        b->oldest = page;
    b->n_spare++;
    b->n_known += keep;
}

static void make_used(struct blocks *b, int page)
{
    struct block *k = &b->at[page];
    if (k->older >= 0)
        b->at[k->older].newer = k->newer;
    else
        b->oldest = k->newer;
    if (k->newer >= 0)
        b->at[k->newer].older = k->older;
    else
        b->newest = k->older;
    b->n_spare--;
    b->n_known -= known(k);
    k->users = 1;
}

/* The first page that was never taken. */
static int begin(struct blocks *b)
{
    b->at[b->n_begun] = (struct block){.users = 1};
    b->n_spare--;
    return b->n_begun++;
}

int blocks_take(struct blocks *b)
{
    int page = b->oldest;
    if (b->n_begun < b->n && (page < 0 || known(&b->at[page])))
        return begin(b);
    if (page < 0)
        return -1;
    make_used(b, page);
    if (known(&b->at[page]))
        forget(b, page);
    return page;
}

int blocks_share(struct blocks *b, struct page_name name)
{
    int page = b->n_table ? b->table[place(b, name)] : -1;
    if (page < 0)
        return -1;
    if (b->at[page].users)
        b->at[page].users++;
    else
        make_used(b, page);
    return page;
}

static void open_table(struct blocks *b)
{
    b->n_table = table_size(b->n);
    for (int i = 0; i < b->n_table; i++)
        b->table[i] = -1;
}

void blocks_name(struct blocks *b, int page, struct page_name name)
{
    if (!b->n_table)
        open_table(b);
    int i = place(b, name);
    must(b->at[page].users > 0 && !known(&b->at[page]));
    if (b->table[i] >= 0)
        return;
    b->table[i] = page;
    b->at[page].name = name;
}

void blocks_drop(struct blocks *b, int page)
{
    must(b->at[page].users > 0);
    if (--b->at[page].users == 0)
        make_spare(b, page);
}

void blocks_forget(struct blocks *b)
{
    b->n_table = 0;
    b->oldest = b->newest = -1;
    b->n_spare = b->n - b->n_begun;
    b->n_known = 0;
    for (int i = b->n_begun - 1; i >= 0; i--) {
        b->at[i].name = (struct page_name){0, 0};
        if (!b->at[i].users)
            make_spare(b, i);
    }
}
