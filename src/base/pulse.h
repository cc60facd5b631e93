/* pulse.h - how far a rank has come, as one word in shared memory that others read.
 *
 * Its number of the step (32 bits), the layer it has begun and one more (16), and the calls of
 * groups that it has entered and left there (16): odd inside of one, where it may wait for others.
 * Only the rank writes it, and while it gets on it grows.
 */
#ifndef TANDEM_PULSE_H
#define TANDEM_PULSE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A word that is NULL: nobody looks. */
static inline void pulse_step(_Atomic uint64_t *word, uint64_t step)
{
    if (word)
        atomic_store_explicit(word, step << 32, memory_order_relaxed);
}

static inline void pulse_layer(_Atomic uint64_t *word, int layer)
{
    const uint64_t here = (1 << 16) - 1;
    if (word)
        atomic_store_explicit(
            word,
            (atomic_load_explicit(word, memory_order_relaxed) & ~(uint64_t)UINT32_MAX) |
                (((uint64_t)layer + 1) & here) << 16,
            memory_order_relaxed);
}

static inline void pulse_call(_Atomic uint64_t *word) /* entered, or left */
{
    if (word)
        atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + 1,
                              memory_order_relaxed);
}

static inline bool pulse_in_call(uint64_t pulse) { return pulse & 1; }

/* -1: no layer of the step has begun. */
static inline int pulse_in_layer(uint64_t pulse) { return (int)(pulse >> 16 & 0xffff) - 1; }

#endif
