/* crew.c - see crew.h. */
#include "dev/cpu/crew.h"
#include "base/wait.h"

#include <pthread.h>

/* About a millisecond: longer than control needs between two steps. On a core that others may want
 * (no thread is pinned), much less. */
enum { SPINS = 20000, SPINS_SHARED_CORE = 200 };

struct worker {
    struct crew *crew;
    int number, core;
    pthread_t thread;
};

struct crew {
    int n, spins;
    crew_fn *fn;
    void *arg;
    _Atomic uint32_t turn; /* the run that was last begun; what sleepers wait for */
    _Atomic uint32_t sleepers, stop;
    _Alignas(64) _Atomic int left; /* workers that have not returned from it */
    struct worker worker[CREW_MAX];
};

static uint32_t next_turn(struct crew *c, uint32_t seen)
{
    for (int i = 0; i < c->spins; i++) {
        uint32_t turn = atomic_load_explicit(&c->turn, memory_order_acquire);
        if (turn != seen)
            return turn;
        cpu_pause();
    }
    atomic_fetch_add(&c->sleepers, 1);
    while (atomic_load(&c->turn) == seen)
        futex_sleep(&c->turn, seen, 0);
    atomic_fetch_sub(&c->sleepers, 1);
    return atomic_load(&c->turn);
}

static void begin_turn(struct crew *c)
{
    atomic_fetch_add(&c->turn, 1);
    if (atomic_load(&c->sleepers))
        futex_wake(&c->turn);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct crew *c = w->crew;
    uint32_t seen = 0;
    cpu_set_t one;
    if (w->core >= 0) {
        CPU_ZERO(&one);
        CPU_SET((size_t)w->core, &one);
        pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
    }
    for (;;) {
        seen = next_turn(c, seen);
        if (atomic_load(&c->stop))
            return NULL;
        c->fn(c->arg, w->number, c->n);
        atomic_fetch_sub_explicit(&c->left, 1, memory_order_release);
    }
}

struct crew *crew_start(int n, const int *core)
{
    struct crew *c = n > 1 ? aligned_alloc(64, round_up(sizeof(*c), 64)) : NULL;
    must(n <= CREW_MAX);
    if (!c)
        return NULL;
    memset(c, 0, sizeof(*c));
    c->n = n;
    c->spins = core && core[0] >= 0 ? SPINS : SPINS_SHARED_CORE;
    for (int i = 1; i < n; i++) {
        c->worker[i] = (struct worker){.crew = c, .number = i, .core = core ? core[i] : -1};
        if (!pthread_create(&c->worker[i].thread, NULL, work, &c->worker[i]))
            continue;
        c->n = i; /* those that run already have not looked yet */
        crew_stop(c);
        return NULL;
    }
    return c;
}

void crew_stop(struct crew *c)
{
    if (!c)
        return;
    atomic_store(&c->stop, 1);
    begin_turn(c);
    for (int i = 1; i < c->n; i++)
        pthread_join(c->worker[i].thread, NULL);
    free(c);
}

void crew_run(struct crew *c, crew_fn *fn, void *arg)
{
    if (!c) {
        fn(arg, 0, 1);
        return;
    }
    c->fn = fn, c->arg = arg;
    atomic_store_explicit(&c->left, c->n - 1, memory_order_relaxed);
    begin_turn(c);
    fn(arg, 0, c->n);
    for (int i = 0; atomic_load_explicit(&c->left, memory_order_acquire); i++)
        if (i < c->spins)
            cpu_pause();
        else
            sched_yield();
}
