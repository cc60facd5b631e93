/* mask.h - the tokens of a model as a tree of bytes, and which of them a state allows. Private to
 * text/.
 *
 * The tree lies flat, in depth-first order: each node knows its byte, its depth and where its
 * subtree ends. One pass over the array with a stack of states decides all tokens; what is refused
 * is skipped with all that begins like it.
 */
#ifndef TANDEM_MASK_H
#define TANDEM_MASK_H

#include "text/grammar_states.h"
#include "text/vocab.h"

enum { MASK_TOKEN_BYTES = 250, MASK_CACHE = 192 };

struct trie_node {
    int end, token; /* token -1: none ends here */
    unsigned char byte, depth;
};

struct added_text {
    struct text text; /* as the tree has it: with the byte before */
    int id;
};

struct grammar_vocab {
    struct pool pool;
    const struct tok *tok;
    int n_vocab, n_words; /* n_words: of 64 bits */
    struct trie_node *node;
    int n_nodes, longest; /* bytes of a token */
    struct text *text;    /* [n_vocab]: s NULL: never allowed */
    struct added_text *added;
    int n_added;
    int *eos, n_eos;
    uint64_t *eos_mask;
    bool strips; /* a blank before the first word goes missing when tokens become text */
};

static inline void bit_set(uint64_t *bits, int i) { bits[i >> 6] |= UINT64_C(1) << (i & 63); }
static inline bool bit_of(const uint64_t *bits, int i) { return bits[i >> 6] >> (i & 63) & 1; }

/* A mask of one state; of a local state also the nodes of the tree where the rule may end, below
 * which the stack decides. */
struct mask {
    int state; /* STATE_NEW: unused */
    bool used;
    uint64_t *bits;
    int *leave, n_leave;
    size_t leave_room;
};

struct mask_cache {
    const struct grammar_vocab *v;
    struct mask mask[MASK_CACHE];
    int hand;
    int *slot; /* by state: mask + 1 */
    int n_slots;
};

void mask_cache_init(struct mask_cache *c, const struct grammar_vocab *v);
void mask_cache_clear(struct mask_cache *c); /* the states have new numbers */
void mask_cache_free(struct mask_cache *c);

/* Which tokens may come in a state (ends are not looked at), into bits[n_words]. The mask kept is
 * the cache's. NULL when the states exceed what a call may cost: `effort` of them. */
const uint64_t *mask_of(struct mask_cache *c, struct states *a, int state, long long effort);

#endif
