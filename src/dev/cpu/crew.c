/* crew.c - see crew.h. */
#include "dev/cpu/crew.h"
#include "base/wait.h"

#include <pthread.h>
#include <time.h>

/* About a millisecond: longer than control needs between two steps. On a core that others may want
 * (no thread is pinned), much less. */
enum { SPINS = 20000, SPINS_SHARED_CORE = 200 };

/* Who is later than the others by LATE_NS and by half of a run was descheduled: shares are more
 * even than that. Judged over WINDOW_NS of work; a thread that was left out is asked in again after
 * PAUSE_LEAST_NS, then after twice as long each time, up to PAUSE_MOST_NS. */
enum { LATE_NS = 200000, WINDOW_NS = 25000000, PAUSE_LEAST_NS = 200000000 };
static const int64_t PAUSE_MOST_NS = 4000000000;

struct worker {
    struct crew *crew;
    int number, core;
    pthread_t thread;
    _Alignas(64) _Atomic int64_t done_ns; /* when it had finished its last share */
};

/* Of the caller alone. */
struct watch {
    int64_t busy_ns, lost_ns; /* of this window */
    int64_t late_ns[CREW_MAX];
    int64_t again_ns, pause_ns; /* when who is left out is asked in */
};

/* The word that begins a run: its number, and in the low byte who is left out: 0 nobody, else that
 * thread. */
enum { OUT_BITS = 8, OUT_MASK = (1 << OUT_BITS) - 1 };

struct crew {
    int n, spins;
    uint32_t out; /* who is left out now */
    crew_fn *fn;
    void *arg;
    struct watch watch;
    uint64_t waited_ns;
    _Atomic uint32_t turn;   /* the word of the run that was last begun; what sleepers wait for */
    _Atomic uint32_t recall; /* counts how often somebody was asked in again */
    _Atomic uint32_t sleepers, stop;
    _Alignas(64) _Atomic int left; /* workers that have not returned from it */
    struct worker worker[CREW_MAX];
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ------------------------------------------------------------------------------- workers */

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
    uint32_t turn = atomic_load(&c->turn) >> OUT_BITS;
    atomic_store(&c->turn, (turn + 1) << OUT_BITS | c->out);
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
        uint32_t recall = atomic_load(&c->recall); /* before the word: see ask_in() */
        seen = next_turn(c, seen);
        if (atomic_load(&c->stop))
            return NULL;
        int out = (int)(seen & OUT_MASK), n = out ? c->n - 1 : c->n;
        if (out == w->number) {
            futex_sleep(&c->recall, recall, 0);
            continue;
        }
        c->fn(c->arg, w->number - (out && w->number > out), n);
        atomic_store_explicit(&w->done_ns, now_ns(), memory_order_relaxed);
        atomic_fetch_sub_explicit(&c->left, 1, memory_order_release);
    }
}

/* ------------------------------------------------------------------------------- start, stop */

struct crew *crew_start(int n, const int *core)
{
    struct crew *c = n > 1 ? aligned_alloc(64, round_up(sizeof(*c), 64)) : NULL;
    must(n <= CREW_MAX);
    if (!c)
        return NULL;
    memset(c, 0, sizeof(*c));
    c->n = n;
    c->spins = core && core[0] >= 0 ? SPINS : SPINS_SHARED_CORE;
    c->watch.pause_ns = PAUSE_LEAST_NS;
    for (int i = 1; i < n; i++) {
        c->worker[i].crew = c;
        c->worker[i].number = i;
        c->worker[i].core = core ? core[i] : -1;
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
    atomic_fetch_add(&c->recall, 1);
    futex_wake(&c->recall);
    for (int i = 1; i < c->n; i++)
        pthread_join(c->worker[i].thread, NULL);
    free(c);
}

/* ------------------------------------------------------------------------------- who is late */

/* The next run's word says that nobody is left out, and only then is recall raised: who sees the
 * old recall sleeps not at all or is woken, who sees the new one sees the new word, too. */
static void begin_run(struct crew *c, bool ask_in)
{
    if (ask_in)
        c->out = 0;
    atomic_store_explicit(&c->left, c->n - 1 - (c->out != 0), memory_order_relaxed);
    begin_turn(c);
    if (ask_in) {
        atomic_fetch_add(&c->recall, 1);
        futex_wake(&c->recall);
    }
}

/* A run from `begun` is over, the caller's share at `mine`: note who was late. */
static void note_run(struct crew *c, int64_t begun, int64_t mine, int64_t end)
{
    struct watch *w = &c->watch;
    int64_t first = mine, last = mine;
    int late = 0;
    for (int i = 1; i < c->n; i++) {
        int64_t done = atomic_load_explicit(&c->worker[i].done_ns, memory_order_relaxed);
        if (i == (int)c->out)
            continue;
        if (done < first)
            first = done;
        if (done > last)
            last = done, late = i;
    }
    w->busy_ns += end - begun;
    if (last - first > LATE_NS && 2 * (last - first) > end - begun) {
        w->lost_ns += last - first;
        w->late_ns[late] += last - first;
    }
}

/* After a window: leave out who was late most, if the others are better off without. */
static void judge(struct crew *c, int64_t now)
{
    struct watch *w = &c->watch;
    int worst = 0;
    for (int i = 1; i < c->n; i++)
        if (w->late_ns[i] > w->late_ns[worst])
            worst = i;
    if (!c->out && w->lost_ns > w->busy_ns / (c->n + 1)) {
        c->out = (uint32_t)(worst ? worst : c->n - 1);
        w->again_ns = now + w->pause_ns;
        w->pause_ns = 2 * w->pause_ns < PAUSE_MOST_NS ? 2 * w->pause_ns : PAUSE_MOST_NS;
    } else if (!c->out) {
        w->pause_ns = w->pause_ns / 2 > PAUSE_LEAST_NS ? w->pause_ns / 2 : PAUSE_LEAST_NS;
    }
    w->busy_ns = w->lost_ns = 0;
    memset(w->late_ns, 0, sizeof(w->late_ns));
}

void crew_run(struct crew *c, crew_fn *fn, void *arg)
{
    if (!c) {
        fn(arg, 0, 1);
        return;
    }
    int64_t begun = now_ns();
    c->fn = fn, c->arg = arg;
    begin_run(c, c->out && begun >= c->watch.again_ns);
    fn(arg, 0, c->out ? c->n - 1 : c->n);
    int64_t mine = now_ns();
    for (int i = 0; atomic_load_explicit(&c->left, memory_order_acquire); i++)
        if (i < c->spins)
            cpu_pause();
        else
            sched_yield();
    int64_t end = now_ns();
    c->waited_ns += (uint64_t)(end - mine);
    note_run(c, begun, mine, end);
    if (c->watch.busy_ns >= WINDOW_NS)
        judge(c, end);
}

uint64_t crew_waited_ns(const struct crew *c) { return c ? c->waited_ns : 0; }
