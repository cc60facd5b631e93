/* buffer.h - memory that grows: bytes that are collected, and arrays of anything.
 *
 * What is never known to be large: running out of memory aborts through must().
 */
#ifndef TANDEM_BASE_BUFFER_H
#define TANDEM_BASE_BUFFER_H

#include "base/base.h"

/* n bytes with a 0 behind them, once something was added. Begins as zeros. */
struct buffer {
    char *at;
    size_t n, room;
};

void buffer_add(struct buffer *b, const char *s, size_t n);
void buffer_drop(struct buffer *b, size_t n); /* the first n bytes */
void buffer_free(struct buffer *b);           /* and begin anew */

/* The array `at` with room for at least n items of `size` bytes, perhaps moved; *room says how
 * many. Grows by doubling. */
void *grow(void *at, size_t *room, size_t n, size_t size);

#endif
