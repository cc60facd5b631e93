/* ring.h - slots of shared memory that go around between who fetches and who multiplies: each with
 * a barrier that says it is full, and one that says it is empty (warpgroup.h).
 *
 * R says where they are: SLOTS of SLOT_BYTES behind the first BEFORE bytes of shared memory, and
 * then the barriers.
 */
#ifndef TANDEM_CUDA_RING_H
#define TANDEM_CUDA_RING_H

#include "dev/cuda/warpgroup.h"

template <class R> constexpr int ring_bytes(void)
{
    return R::BEFORE + R::SLOTS * (R::SLOT_BYTES + 2 * (int)sizeof(uint64_t));
}

/* Where somebody is on the way around the ring. */
struct turn {
    int slot, parity;
};

template <class R> GPU_INLINE void next_turn(struct turn *t)
{
    if (++t->slot == R::SLOTS) {
        t->slot = 0;
        t->parity ^= 1;
    }
}

template <class R> GPU_INLINE char *slot_of(struct turn t)
{
    return gpu_shared<char>() + R::BEFORE + t.slot * R::SLOT_BYTES;
}

template <class R> GPU_INLINE uint64_t *full_of(int slot)
{
    return (uint64_t *)(gpu_shared<char>() + R::BEFORE + R::SLOTS * R::SLOT_BYTES) + slot;
}

template <class R> GPU_INLINE uint64_t *empty_of(int slot) { return full_of<R>(R::SLOTS + slot); }

/* By one thread: a slot is full, and empty, when so many have arrived. */
template <class R> GPU_INLINE void begin_ring(int full, int empty)
{
    for (int i = 0; i < R::SLOTS; i++) {
        barrier_begin(full_of<R>(i), full);
        barrier_begin(empty_of<R>(i), empty);
    }
    barriers_begun();
}

#endif
