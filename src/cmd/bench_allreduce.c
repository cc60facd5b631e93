/* bench_allreduce.c - see bench_allreduce.h. The ranks of every size are processes of their own,
 * forked for it, so that sizes do not influence each other. */
#include "cmd/bench_allreduce.h"
#include "base/arena.h"
#include "cmd/bench_mpi.h"
#include "comm/shm.h"
#include "run/room.h"

#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIZES_MAX = 31, SPINS_OWN_CORE = 100000, SPINS_SHARED_CORE = 20 };

struct line {
    size_t bytes;
    int calls;
    struct latency own, mpi; /* mpi.median_us 0: not measured */
};

struct table {
    _Atomic uint32_t stop;
    _Atomic uint64_t wrong; /* numbers that were not the sum */
};

/* One size, in memory that all ranks share. */
struct run {
    int ranks, cut[SHARES_MAX + 1], calls;
    size_t bytes;
    bool own_cores;
    struct table *table;
    struct call_time *time; /* [ranks][calls] */
    char *state, *peer[SHARES_MAX];
    size_t peer_bytes;
};

/* What a rank has in its peer arena. */
struct mats {
    struct mat sum, ready; /* ready: a gather of one number each lines the ranks up */
    struct planes y[2];    /* filled in turn, as in a forward pass */
};

static int cores(cpu_set_t *set)
{
    if (sched_getaffinity(0, sizeof(*set), set))
        CPU_ZERO(set);
    return CPU_COUNT(set);
}

static void pin(int rank)
{
    cpu_set_t may, one;
    cores(&may);
    CPU_ZERO(&one);
    for (size_t core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &may) && rank-- == 0)
            CPU_SET(core, &one);
    sched_setaffinity(0, sizeof(one), &one);
}

/* ------------------------------------------------------------------------------- memory */

static struct mat get(struct arena *a, int n, int dim)
{
    struct mat m = {n, dim, NUM_F32, NULL};
    m.at = arena_get(a, mat_bytes(&m));
    return m;
}

/* Subtrees of all ranks, in order; returns how many. of[r], if any: the number of rank r's. */
static int all_subtrees(const struct run *b, struct span *tree, int *of)
{
    int n = 0;
    for (int r = 0; r < b->ranks; r++) {
        int planes = tree_split((struct span){b->cut[r], b->cut[r + 1]}, tree + n);
        if (of)
            of[r] = planes;
        n += planes;
    }
    return n;
}

static struct mats lay_out(const struct run *b, int rank, struct arena *a)
{
    int n = (int)(b->bytes / sizeof(float)), of[SHARES_MAX], most = 0;
    struct span tree[SHARES_MAX];
    struct mats m = {.sum = get(a, 1, n), .ready = get(a, b->ranks, 1)};
    all_subtrees(b, tree, of);
    for (int r = 0; r < b->ranks; r++)
        most = max_int(most, of[r]);
    for (int i = 0; i < 2 * most; i++)
        m.y[i & 1].at[i / 2] = get(a, 1, n);
    m.y[0].n = m.y[1].n = of[rank];
    return m;
}

static void lay_out_all(struct run *b, struct arena *a)
{
    struct arena peer = {0};
    lay_out(b, 0, &peer);
    b->peer_bytes = peer.used;
    b->table = arena_get(a, sizeof(*b->table));
    b->time = arena_get(a, (size_t)b->ranks * (size_t)b->calls * sizeof(*b->time));
    b->state = arena_get(a, comm_shm_bytes(b->ranks, 0));
    for (int r = 0; r < b->ranks; r++)
        b->peer[r] = arena_get(a, b->peer_bytes);
}

/* ------------------------------------------------------------------------------- numbers */

/* Number i of a plane in a call. Sums of these are rounded, so their order shows. */
static float number(int plane, int turn, size_t i)
{
    uint32_t salt = (uint32_t)(turn * SHARES_MAX + plane) * 0x9e3779b9u;
    return (float)(int32_t)((uint32_t)i * 0x85ebca6bu + salt) * 0x1p-31f;
}

static float expected(const struct span *tree, int n, struct span shares, int turn, size_t i)
{
    int mid = (shares.lo + shares.hi) / 2;
    for (int k = 0; k < n; k++)
        if (tree[k].lo == shares.lo && tree[k].hi == shares.hi)
            return number(k, turn, i);
    return expected(tree, n, (struct span){shares.lo, mid}, turn, i) +
           expected(tree, n, (struct span){mid, shares.hi}, turn, i);
}

static void fill(const struct run *b, int rank, const struct planes *y, int turn)
{
    struct span tree[SHARES_MAX];
    int of[SHARES_MAX], first = 0;
    all_subtrees(b, tree, of);
    for (int r = 0; r < rank; r++)
        first += of[r];
    for (int k = 0; k < y->n; k++)
        for (size_t i = 0; i < b->bytes / sizeof(float); i++)
            ((float *)y->at[k].at)[i] = number(first + k, turn, i);
}

/* How many of about `probes` numbers of the sum are wrong, bit for bit. */
static uint64_t wrong_in(const struct run *b, const struct mat *sum, int turn, size_t probes)
{
    struct span tree[SHARES_MAX], all = {0, b->cut[b->ranks]};
    size_t n = (size_t)sum->dim, step = n / probes + 1;
    int planes = all_subtrees(b, tree, NULL);
    uint64_t wrong = 0;
    for (size_t i = 0; i < n; i += step) {
        float want = expected(tree, planes, all, turn, i);
        wrong += memcmp((float *)sum->at + i, &want, sizeof(want)) != 0;
    }
    return wrong;
}

/* ------------------------------------------------------------------------------- ranks */

static _Noreturn void rank_main(const struct run *b, int rank)
{
    struct comm c;
    struct comm_shm ctx;
    struct arena peer = {.base = b->peer[rank], .size = b->peer_bytes};
    struct mats m = lay_out(b, rank, &peer);
    struct wait wait = {&b->table->stop, b->own_cores ? SPINS_OWN_CORE : SPINS_SHARED_CORE};
    struct call_time *time = b->time + (size_t)rank * (size_t)b->calls;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (b->own_cores)
        pin(rank);
    comm_shm_open(&c, &ctx, b->state, rank, b->ranks, b->cut, b->peer, b->peer_bytes, 0, wait);
    for (int turn = -warm_up_for(b->calls); turn < b->calls; turn++) {
        const struct planes *from = &m.y[turn & 1];
        bool last = turn == b->calls - 1;
        fill(b, rank, from, turn);
        comm_gather(&c, &m.ready);
        double begin_us = clock_us();
        comm_sum(&c, &m.sum, from);
        if (turn >= 0)
            time[turn] = (struct call_time){begin_us, clock_us()};
        atomic_fetch_add(&b->table->wrong, wrong_in(b, &m.sum, turn, last ? 1 << 20 : 64));
    }
    _exit(c.err ? 1 : 0);
}

/* Reap what was started; the first that fails is why, and stops the others. */
static int reap(const struct run *b, const pid_t *pid, int n, struct err *e)
{
    int rc = 0;
    for (int left = n, status; left > 0; left--) {
        pid_t done = waitpid(-1, &status, 0);
        if (done < 0)
            return err_set(e, -errno, "bench allreduce: cannot wait for a rank: %s",
                           strerror(errno));
        if (!status || rc)
            continue;
        int rank = 0;
        while (rank < n && pid[rank] != done)
            rank++;
        rc = err_set(e, -EIO, "bench allreduce: rank %d failed (%s %d)", rank,
                     WIFSIGNALED(status) ? "signal" : "exit status",
                     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        atomic_store(&b->table->stop, 1);
    }
    return rc;
}

static int start_ranks(const struct run *b, struct err *e)
{
    pid_t pid[SHARES_MAX];
    int n = 0, rc = 0;
    fflush(stdout);
    for (; n < b->ranks && !rc; n++) {
        pid[n] = fork();
        if (pid[n] == 0)
            rank_main(b, n);
        if (pid[n] < 0)
            rc =
                err_set(e, -errno, "bench allreduce: cannot start rank %d: %s", n, strerror(errno));
    }
    if (rc)
        atomic_store(&b->table->stop, 1);
    struct err why;
    int reaped = reap(b, pid, rc ? n - 1 : n, rc ? &why : e);
    return rc ? rc : reaped;
}

static struct run run_of(const struct bench_allreduce *opts, const struct line *line,
                         bool own_cores)
{
    int shares = opts->ranks <= 8 ? 8 : opts->ranks <= 16 ? 16 : 32;
    struct run b = {
        .ranks = opts->ranks, .calls = line->calls, .bytes = line->bytes, .own_cores = own_cores};
    for (int r = 0; r < b.ranks; r++)
        b.cut[r + 1] = share(shares, b.ranks, r).hi;
    return b;
}

static int check_memory(const struct bench_allreduce *opts, const struct line *largest,
                        struct err *e)
{
    struct run b = run_of(opts, largest, false);
    struct arena a = {0};
    size_t have = memory_available();
    lay_out_all(&b, &a);
    if (a.used <= have)
        return 0;
    return err_set(e, -ENOMEM,
                   "bench allreduce: %zu bytes over %d ranks take %zu MiB of memory, but %zu are "
                   "free; lower --max or --ranks",
                   b.bytes, b.ranks, a.used >> 20, have >> 20);
}

/* Measure one size; fills line->own. */
static int measure(const struct bench_allreduce *opts, bool own_cores, struct line *line,
                   struct err *e)
{
    struct run b = run_of(opts, line, own_cores);
    struct arena a = {0};
    lay_out_all(&b, &a);
    a.size = a.used, a.used = 0;
    a.base = mmap(NULL, a.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (a.base == MAP_FAILED)
        return err_set(e, -errno, "bench allreduce: cannot map %zu MiB: %s", a.size >> 20,
                       strerror(errno));
    lay_out_all(&b, &a);
    int rc = start_ranks(&b, e);
    if (!rc && b.table->wrong)
        rc = err_set(e, -EIO, "bench allreduce: %llu numbers of sums of %zu bytes are wrong",
                     (unsigned long long)b.table->wrong, b.bytes);
    line->own = latency_of(b.time, b.ranks, b.calls);
    munmap(a.base, a.size);
    return rc;
}

/* ------------------------------------------------------------------------------- printing */

/* nccl-tests, doc/PERFORMANCE.md: 10^9 bytes a second. */
static double algbw(const struct line *l) { return (double)l->bytes / l->own.median_us * 1e-3; }
static double busbw(const struct line *l, int n) { return algbw(l) * 2 * (n - 1) / n; }

static void print_head(const struct bench_allreduce *b, bool own_cores, bool mpi)
{
    printf("sum of f32 over %d processes in shared memory, %s\n", b->ranks,
           own_cores ? "each on its own core" : "more than cores: they take turns");
    printf("     bytes  calls  median us     p99 us  algbw GB/s  busbw GB/s%s\n",
           mpi ? "  Open MPI us  Open MPI / tandem" : "");
}

static void print_line(const struct bench_allreduce *b, const struct line *l)
{
    printf("%10zu %6d %10.2f %10.2f %11.2f %11.2f", l->bytes, l->calls, l->own.median_us,
           l->own.p99_us, algbw(l), busbw(l, b->ranks));
    if (l->mpi.median_us > 0)
        printf(" %12.2f %18.1f", l->mpi.median_us, l->mpi.median_us / l->own.median_us);
    putchar('\n');
    fflush(stdout);
}

static json_t *line_json(const struct bench_allreduce *b, const struct line *l)
{
    json_t *o = json_pack("{s:I, s:i, s:f, s:f, s:f, s:f}", "bytes", (json_int_t)l->bytes, "calls",
                          l->calls, "median_us", l->own.median_us, "p99_us", l->own.p99_us,
                          "algbw_gb_s", algbw(l), "busbw_gb_s", busbw(l, b->ranks));
    if (l->mpi.median_us > 0) {
        json_object_set_new(o, "mpi_median_us", json_real(l->mpi.median_us));
        json_object_set_new(o, "mpi_p99_us", json_real(l->mpi.p99_us));
    }
    return o;
}

static void print_json(const struct bench_allreduce *b, bool own_cores, const struct line *line,
                       int n)
{
    json_t *sizes = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(sizes, line_json(b, &line[i]));
    json_t *all = json_pack("{s:i, s:b, s:o}", "ranks", b->ranks, "own_cores", (int)own_cores,
                            "sizes", sizes);
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
}

/* ------------------------------------------------------------------------------- all */

/* Open MPI goes first, so that every line of the table can be printed whole. */
static bool measure_mpi(const struct bench_allreduce *b, bool own_cores, struct line *line, int n)
{
    struct latency l[SIZES_MAX];
    struct err why = {""};
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "tandem: measuring Open MPI first\n");
    int got = bench_mpi(b->ranks, own_cores, line[0].bytes, b->max_bytes, b->iters, l, n, &why);
    for (int i = 0; i < got; i++)
        line[i].mpi = l[i];
    if (why.text[0])
        fprintf(stderr, "tandem: note: %s\n", why.text);
    return got > 0;
}

int bench_allreduce(const struct bench_allreduce *b, struct err *e)
{
    struct line line[SIZES_MAX] = {0};
    cpu_set_t set;
    bool own_cores = b->ranks <= cores(&set);
    int n = 0, rc = 0;
    must(sizeof(float) <= b->min_bytes && b->min_bytes <= b->max_bytes);
    if (b->ranks < 2 || b->ranks > SHARES_MAX)
        return err_set(e, -EINVAL, "bench allreduce: --ranks %d, but a sum takes 2 to %d", b->ranks,
                       SHARES_MAX);
    for (size_t bytes = b->min_bytes & ~(size_t)3; bytes <= b->max_bytes && n < SIZES_MAX;
         bytes *= 2, n++)
        line[n] = (struct line){.bytes = bytes, .calls = b->iters ? b->iters : calls_for(bytes)};
    if ((rc = check_memory(b, &line[n - 1], e)))
        return rc;
    bool mpi = b->mpi && measure_mpi(b, own_cores, line, n);
    if (!b->json)
        print_head(b, own_cores, mpi);
    for (int i = 0; i < n && !rc; i++) {
        rc = measure(b, own_cores, &line[i], e);
        if (!rc && !b->json)
            print_line(b, &line[i]);
    }
    if (!rc && b->json)
        print_json(b, own_cores, line, n);
    return rc;
}
