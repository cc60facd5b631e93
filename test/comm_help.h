/* comm_help.h - for tests: a group over shared memory whose ranks are threads or processes, and
 * numbers whose sum shows the order of adding. */
#ifndef TANDEM_TEST_COMM_HELP_H
#define TANDEM_TEST_COMM_HELP_H

#include "base/arena.h"
#include "comm/shm.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum as { THREADS, PROCESSES };

struct seat;

/* What the ranks do. run() returns how many things were wrong: ranks must not use cmocka. */
struct job {
    int (*run)(struct seat *);
    int size, cut[SHARES_MAX + 1];
    size_t peer_bytes, outbox_bytes;
    int spins;
    const void *arg;
};

/* What all ranks see. */
struct table {
    _Atomic uint32_t stop, flag;
    _Atomic int wrong;
    uint64_t calls, bytes; /* of rank 1, at its end */
};

/* One rank. */
struct seat {
    const struct job *job;
    struct table *table;
    char *state, *arenas;
    int rank;
    struct comm c;
    struct comm_shm ctx;
    struct arena peer;
    uint64_t random;
};

static inline void *shared_get(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED);
    return at;
}

static inline void *seat_main(void *arg)
{
    struct seat *s = arg;
    const struct job *j = s->job;
    char *peer[SHARES_MAX];
    for (int r = 0; r < j->size; r++)
        peer[r] = s->arenas + (size_t)r * j->peer_bytes;
    s->peer = (struct arena){.base = peer[s->rank], .size = j->peer_bytes};
    s->random = (uint64_t)s->rank + 1;
    comm_shm_open(&s->c, &s->ctx, s->state, s->rank, j->size, j->cut[j->size] ? j->cut : NULL,
                  j->peer_bytes ? peer : NULL, j->peer_bytes, j->outbox_bytes,
                  (struct wait){&s->table->stop, j->spins});
    atomic_fetch_add(&s->table->wrong, j->run(s));
    if (s->rank == 1)
        s->table->calls = s->c.calls, s->table->bytes = s->c.bytes;
    return NULL;
}

static inline void run_threads(struct seat *seat, int n)
{
    pthread_t thread[SHARES_MAX];
    for (int r = 0; r < n; r++)
        assert_int_equal(pthread_create(&thread[r], NULL, seat_main, &seat[r]), 0);
    for (int r = 0; r < n; r++)
        pthread_join(thread[r], NULL);
}

static inline void run_processes(struct seat *seat, int n)
{
    pid_t pid[SHARES_MAX];
    fflush(stdout);
    for (int r = 0; r < n; r++) {
        pid[r] = fork();
        if (pid[r] == 0) {
            seat_main(&seat[r]);
            _exit(0);
        }
        assert_true(pid[r] > 0);
    }
    for (int r = 0; r < n; r++) {
        int status;
        assert_int_equal(waitpid(pid[r], &status, 0), pid[r]);
        if (status) {
            atomic_store(&seat->table->stop, 1); /* else the others would wait for ever */
            atomic_fetch_add(&seat->table->wrong, 1);
        }
    }
}

/* Run the job on all ranks to the end; what the table then says. Fails when anything was wrong. */
static inline struct table run_job(const struct job *j, enum as as, const char *what)
{
    size_t state = round_up(comm_shm_bytes(j->size, j->outbox_bytes), 4096);
    size_t all = 4096 + state + (size_t)j->size * j->peer_bytes;
    char *at = shared_get(all);
    struct seat *seat = shared_get((size_t)j->size * sizeof(*seat));
    for (int r = 0; r < j->size; r++)
        seat[r] = (struct seat){.job = j,
                                .table = (struct table *)(void *)at,
                                .state = at + 4096,
                                .arenas = at + 4096 + state,
                                .rank = r};
    if (as == THREADS)
        run_threads(seat, j->size);
    else
        run_processes(seat, j->size);
    struct table end;
    memcpy(&end, at, sizeof(end));
    munmap(seat, (size_t)j->size * sizeof(*seat));
    munmap(at, all);
    if (end.wrong)
        fail_msg("%s: %d wrong, %d ranks as %s", what, end.wrong, j->size,
                 as == THREADS ? "threads" : "processes");
    return end;
}

/* ------------------------------------------------------------------------------- mats */

static inline struct mat seat_mat(struct seat *s, int n, int dim)
{
    struct mat m = {n, dim, NUM_F32, NULL};
    m.at = arena_get(&s->peer, mat_bytes(&m));
    return m;
}

/* Planes of this rank, with room for those of any rank; n rows of dim. */
static inline struct planes seat_planes(struct seat *s, int n, int dim)
{
    struct planes p = {.n = 0};
    int most = 0;
    for (int r = 0; r < s->job->size; r++)
        most = max_int(most, s->ctx.sum.planes_of[r]);
    for (int i = 0; i < most; i++)
        p.at[i] = seat_mat(s, n, dim);
    p.n = s->ctx.sum.planes_of[s->rank];
    return p;
}

static inline size_t numbers(const struct mat *m) { return (size_t)m->n * (size_t)m->dim; }

/* Leaves of very different size: every other order of adding shows in the bits. */
static inline float leaf(int call, int share, size_t i)
{
    uint32_t x = (uint32_t)(share * 977 + call * 7577 + (int)i * 131 + 7) * 2654435761u;
    return (float)(int32_t)x * 0x1p-31f * (float)(1 << (x >> 5 & 15));
}

static inline float tree_sum(int call, struct span shares, size_t i)
{
    int mid = (shares.lo + shares.hi) / 2;
    if (len(shares) == 1)
        return leaf(call, shares.lo, i);
    return tree_sum(call, (struct span){shares.lo, mid}, i) +
           tree_sum(call, (struct span){mid, shares.hi}, i);
}

/* Fill the planes with the partial sums of this rank. */
static inline void fill_planes(struct seat *s, struct planes *p, int call)
{
    struct span tree[PLANES];
    tree_split((struct span){s->job->cut[s->rank], s->job->cut[s->rank + 1]}, tree);
    for (int k = 0; k < p->n; k++)
        for (size_t i = 0; i < numbers(&p->at[k]); i++)
            ((float *)p->at[k].at)[i] = tree_sum(call, tree[k], i);
}

/* Numbers in the rows `rows` of m that are not the sum of one rank alone, bit for bit. */
static inline int wrong_in(const struct seat *s, const struct mat *m, struct span rows, int call)
{
    int wrong = 0;
    size_t dim = (size_t)m->dim;
    for (size_t i = (size_t)rows.lo * dim; i < (size_t)rows.hi * dim; i++) {
        float want = tree_sum(call, (struct span){0, s->job->cut[s->job->size]}, i);
        wrong += memcmp((float *)m->at + i, &want, sizeof(want)) != 0;
    }
    return wrong;
}

static inline uint64_t seat_random(struct seat *s)
{
    s->random = s->random * 6364136223846793005u + 1442695040888963407u;
    return s->random >> 33;
}

/* Mostly nothing, at times long enough for the others to run far ahead if they may. */
static inline void seat_dawdle(struct seat *s)
{
    uint64_t x = seat_random(s) % 64;
    if (x == 0)
        usleep(20);
    else if (x < 16)
        sched_yield();
}

#endif
