/* arena.c - the growing kind of arena. See arena.h. */
#include "base/arena.h"

#include <stdalign.h>

/* Each chunk is twice the last one: small pools stay small. */
enum { FIRST_CHUNK = 512, MOST_CHUNK = 64 << 10 };

struct pool_chunk {
    struct pool_chunk *next;
    size_t used, size;
    alignas(16) char data[];
};

void *pool_get(struct pool *p, size_t n)
{
    n = round_up(n ? n : 1, 16);
    struct pool_chunk *c = p->chunk;
    if (!c || c->size - c->used < n) {
        size_t size = c ? 2 * c->size : FIRST_CHUNK;
        size = size > MOST_CHUNK ? MOST_CHUNK : size;
        size = size < n ? n : size;
        c = calloc(1, sizeof(*c) + size);
        if (!c) {
            fprintf(stderr, "tandem: out of memory (%zu bytes wanted)\n", size);
            exit(1);
        }
        c->size = size;
        c->next = p->chunk;
        p->chunk = c;
    }
    void *at = c->data + c->used;
    c->used += n;
    return at;
}

char *pool_text(struct pool *p, const char *s, size_t n)
{
    char *to = pool_get(p, n + 1);
    memcpy(to, s, n);
    to[n] = 0;
    return to;
}

void pool_free(struct pool *p)
{
    while (p->chunk) {
        struct pool_chunk *next = p->chunk->next;
        free(p->chunk);
        p->chunk = next;
    }
}
