/* wait.h - waiting for a word in shared memory: spin for a while, then yield, never for ever.
 *
 * A hand-off between spinning cores takes 0.1 us, a futex wake 30 us, so inside a step ranks spin;
 * but a rank whose peer lost its core must give way, so after `spins` pauses it yields the core
 * each time, and a raised stop word ends the wait.
 */
#ifndef TANDEM_WAIT_H
#define TANDEM_WAIT_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct wait {
    const _Atomic uint32_t *stop; /* non-zero: give up (NULL: never) */
    int spins;                    /* before yielding */
};

static inline void cpu_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Wait until *word >= at (acquire). Returns false when stopped. */
static inline bool wait_for(const struct wait *w, const _Atomic uint64_t *word, uint64_t at)
{
    for (int i = 0; i < w->spins; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) >= at)
            return true;
        cpu_pause();
    }
    while (atomic_load_explicit(word, memory_order_acquire) < at) {
        if (w->stop && atomic_load_explicit(w->stop, memory_order_relaxed))
            return false;
        sched_yield();
    }
    return true;
}

/* Sleep in the kernel until *word may differ from `seen`, for at most timeout_us (0: no limit);
 * wakes spuriously. The word lies in shared memory. futex_wake() wakes all sleepers. */
void futex_sleep(const _Atomic uint32_t *word, uint32_t seen, uint64_t timeout_us);
void futex_wake(_Atomic uint32_t *word);

#endif
