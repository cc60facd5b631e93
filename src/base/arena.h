/* arena.h - a region with one lifetime.
 *
 * With base == NULL an arena only measures: the sizing calculator is the real allocation code run
 * over an arena without memory, so it cannot disagree with what is allocated.
 */
#ifndef TANDEM_ARENA_H
#define TANDEM_ARENA_H

#include "base/base.h"

enum { ARENA_ALIGN = 64 };

struct arena {
    char *base;
    size_t used, size;
};

/* n bytes aligned to a cache line; NULL from a measuring arena. The memory is the arena's. */
static inline void *arena_get(struct arena *a, size_t n)
{
    size_t at = a->used;
    a->used += round_up(n, ARENA_ALIGN);
    must(!a->base || a->used <= a->size);
    return a->base ? a->base + at : NULL;
}

/* Memory from the heap that grows by need, for control-plane data with one lifetime. */
struct pool {
    struct pool_chunk *chunk;
};

/* n zeroed bytes, aligned to 16; never NULL: running out of memory ends the program with one
 * line. Freed all at once by pool_free(). */
void *pool_get(struct pool *p, size_t n);
char *pool_text(struct pool *p, const char *s, size_t n); /* a copy of n bytes, 0-terminated */
void pool_free(struct pool *p);

#endif
