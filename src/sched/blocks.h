/* blocks.h - who uses which page of the KV cache, and which pages can be used again.
 *
 * Pure: no clock, no memory but the arena's. A page holds the keys and values of KV_PAGE tokens.
 * A full page is known by the hash of its tokens and of all before them, so sequences that begin
 * alike share pages: the known pages form a prefix tree. Invariants:
 *   1. a page has users (its count), or is spare and in the list of spare pages, oldest first;
 *   2. a known page keeps its name while it is spare, until it is given away;
 *   3. two pages never have the same name.
 */
#ifndef TANDEM_BLOCKS_H
#define TANDEM_BLOCKS_H

#include "base/arena.h"
#include "base/base.h"

struct page_name {
    uint64_t lo, hi; /* 0, 0: none */
};

struct blocks {
    int n, n_spare, n_known; /* pages; without users; spare ones that are known */
    struct block *at;        /* [n] */
    int *table;              /* hash table of known pages: index of a page, or -1 */
    int n_table;             /* a power of two, at least 2 n; 0: no page was named so far */
    int oldest, newest;      /* the list of spare pages */
    int n_begun;             /* pages from here on were never taken: they are spare, in no list */
};

void blocks_init(struct blocks *b, int n, struct arena *a);

/* The name of a page of n tokens (KV_PAGE) that follows the page (or salt) named `before`. */
struct page_name page_name(struct page_name before, const int *tok, int n);

/* Take the spare page that has been spare for longest, preferring unknown ones; it becomes
 * unknown and has one user. -1: there is none. */
int blocks_take(struct blocks *b);

/* Become one more user of the page of that name. -1: there is none. */
int blocks_share(struct blocks *b, struct page_name name);

/* The page is (about to be) filled with what its name says. Ignored when another page has it. */
void blocks_name(struct blocks *b, int page, struct page_name name);

/* One user less. */
void blocks_drop(struct blocks *b, int page);

/* Forget every name: what the pages hold is lost. */
void blocks_forget(struct blocks *b);

#endif
