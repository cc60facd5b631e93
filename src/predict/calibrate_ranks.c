/* calibrate_ranks.c - see calibrate_ranks.h. */
#include "predict/calibrate_ranks.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SPINS_OWN_CORE = 100000, SPINS_SHARED_CORE = 20, MEMBERS_MAX = HOST_CORES };

/* What all members and the parent see beside the caller's memory. */
struct common {
    _Atomic uint32_t stop;
    _Atomic uint64_t done;
    struct err why; /* of the first that failed */
    struct member_line line[];
};

double member_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int members_share(size_t bytes, char **to, struct err *e)
{
    *to = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1,
               0);
    if (*to != MAP_FAILED)
        return 0;
    *to = NULL;
    return err_set(e, -ENOMEM, "cannot share %zu MiB of memory: %s", bytes >> 20, strerror(errno));
}

void members_unshare(char *at, size_t bytes)
{
    if (at)
        munmap(at, bytes);
}

void member_meet(struct member *m)
{
    atomic_store_explicit(&m->line[m->rank].turn, ++m->turn, memory_order_release);
    for (int r = 0; r < m->n; r++)
        if (!wait_for(&m->wait, &m->line[r].turn, m->turn))
            _exit(0); /* another one failed and has said why */
}

double member_time(struct member *m, member_call *call, void *arg, int calls)
{
    struct member_line *own = &m->line[m->rank];
    double begin = 0, end = 0;
    member_meet(m);
    own->begin_s = member_seconds();
    for (int i = 0; i < calls; i++)
        call(arg, i);
    own->end_s = member_seconds();
    member_meet(m);
    for (int r = 0; r < m->n; r++) {
        begin = m->line[r].begin_s > begin ? m->line[r].begin_s : begin;
        end = m->line[r].end_s > end ? m->line[r].end_s : end;
    }
    member_meet(m); /* all have read */
    return (end - begin) / calls;
}

void member_done(struct member *m)
{
    if (!m->rank)
        atomic_fetch_add(m->done, 1);
}

static int pin(int cpu, struct err *e)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    if (sched_setaffinity(0, sizeof(one), &one))
        return err_set(e, -errno, "cannot run on core %d: %s", cpu, strerror(errno));
    return 0;
}

static _Noreturn void member_main(const struct members *g, struct common *c, int rank,
                                  member_fn *fn, void *arg)
{
    const int at = rank * g->stride % g->host->n_core;
    const bool own = g->n <= g->host->n_core;
    struct err e = {""};
    struct member m = {.rank = rank,
                       .n = g->n,
                       .wait = {&c->stop, own ? SPINS_OWN_CORE : SPINS_SHARED_CORE},
                       .line = c->line,
                       .done = &c->done,
                       .shared = g->shared};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int rc = pin(g->host->core[at].cpu, &e);
    if (!rc)
        rc = fn(&m, arg, &e);
    if (rc && !atomic_exchange(&c->stop, 1))
        c->why = e;
    _exit(rc ? 1 : 0);
}

/* The first that ends badly is why, and stops the others. */
static int watch(const struct members *g, struct common *c, const pid_t *pid, int n, struct err *e)
{
    bool ended[MEMBERS_MAX] = {false};
    int rc = 0;
    for (int left = n; left;) {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        for (int r = 0; r < n; r++) {
            int status = 0;
            if (ended[r] || waitpid(pid[r], &status, WNOHANG) == 0)
                continue;
            ended[r] = true, left--;
            if (!status || rc)
                continue;
            atomic_store(&c->stop, 1);
            rc = err_set(e, -EIO, "measuring on core %d failed: %s",
                         g->host->core[r * g->stride % g->host->n_core].cpu,
                         *c->why.text          ? c->why.text
                         : WIFSIGNALED(status) ? strsignal(WTERMSIG(status))
                                               : "?");
        }
        if (g->opts->progress)
            g->opts->progress(g->opts->arg, g->done + atomic_load(&c->done), g->all);
    }
    return rc;
}

int members_run(const struct members *g, member_fn *fn, void *arg, struct err *e)
{
    pid_t pid[MEMBERS_MAX];
    char *memory = NULL;
    size_t bytes = sizeof(struct common) + (size_t)g->n * sizeof(struct member_line);
    must(0 < g->n && g->n <= MEMBERS_MAX);
    int rc = members_share(bytes, &memory, e), n = 0;
    struct common *c = (void *)memory;
    fflush(NULL);
    for (; !rc && n < g->n; n++) {
        pid[n] = fork();
        if (pid[n] == 0)
            member_main(g, c, n, fn, arg);
        if (pid[n] < 0) {
            rc = err_set(e, -errno, "cannot start a process: %s", strerror(errno));
            break;
        }
    }
    if (rc && c)
        atomic_store(&c->stop, 1);
    struct err other;
    int watched = n ? watch(g, c, pid, n, rc ? &other : e) : 0;
    members_unshare(memory, bytes);
    return rc ? rc : watched;
}
