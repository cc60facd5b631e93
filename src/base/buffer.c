/* buffer.c - see buffer.h. */
#include "base/buffer.h"

void *grow(void *at, size_t *room, size_t n, size_t size)
{
    if (n <= *room)
        return at;
    *room = 2 * n + 16;
    at = realloc(at, *room * size);
    must(at);
    return at;
}

void buffer_add(struct buffer *b, const char *s, size_t n)
{
    b->at = grow(b->at, &b->room, b->n + n + 1, 1);
    if (n)
        memcpy(b->at + b->n, s, n);
    b->n += n;
    b->at[b->n] = 0;
}

void buffer_drop(struct buffer *b, size_t n)
{
    must(n <= b->n);
    if (!n)
        return;
    memmove(b->at, b->at + n, b->n - n);
    b->n -= n;
    b->at[b->n] = 0;
}

void buffer_free(struct buffer *b)
{
    free(b->at);
    *b = (struct buffer){0};
}
