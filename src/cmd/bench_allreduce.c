/* bench_allreduce.c - see bench_allreduce.h. */
#include "cmd/bench_allreduce.h"
#include "comm/shm.h"

#include <jansson.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIZES_MAX = 40, WARM_UP = 20 };

struct line {
    size_t bytes;
    int iters;
    double median_us, p99_us, mpi_us; /* mpi_us 0: not measured */
    int wrong;
};

/* Shared by the ranks: group state, then every rank's planes and sum; rank 0 writes lines. */
struct shared {
    struct line line[SIZES_MAX];
    _Atomic uint32_t stop;
};

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int iters_for(const struct bench_allreduce *b, size_t bytes)
{
    size_t n = (256 << 20) / (bytes + 4096);
    return b->iters ? b->iters : (int)(n > 5000 ? 5000 : n < 10 ? 10 : n);
}

/* Numbers whose sum over ranks is exact in f32, different in every call. */
static float number(int rank, int turn, size_t i)
{
    return (float)((rank + 1) * (turn % 7 + (int)(i % 5)));
}

static float expected(int ranks, int turn, size_t i)
{
    return (float)(ranks * (ranks + 1) / 2 * (turn % 7 + (int)(i % 5)));
}

/* One size on one rank: planes alternate, as in forward(). Returns how many calls were wrong. */
static int measure(struct comm *c, const struct planes *planes, struct mat *to, size_t n, int iters,
                   double *us)
{
    int wrong = 0;
    for (int turn = -WARM_UP; turn < iters; turn++) {
        const struct planes *from = &planes[turn & 1];
        const float *sum = to->at;
        for (int p = 0; p < from->n; p++)
            for (size_t i = 0; i < n; i++)
                ((float *)from->at[p].at)[i] = p ? 0 : number(c->rank, turn + WARM_UP, i);
        double begin = now_us();
        comm_sum(c, to, from);
        if (turn >= 0)
            us[turn] = now_us() - begin;
        size_t probe[] = {0, n / 3, n - 1};
        bool good = true;
        for (size_t k = 0; k < COUNT(probe); k++)
            good = good && sum[probe[k]] == expected(c->size, turn + WARM_UP, probe[k]);
        wrong += !good;
    }
    return wrong;
}

static int count_sizes(const struct bench_allreduce *b)
{
    int n = 0;
    for (size_t bytes = b->min_bytes; bytes <= b->max_bytes && n < SIZES_MAX; bytes *= 2)
        n++;
    return n;
}

static struct planes planes_at(char *base, const struct span *mine, size_t n, size_t room)
{
    struct span tree[PLANES];
    struct planes p = {.n = tree_split(*mine, tree)};
    for (int i = 0; i < p.n; i++)
        p.at[i] = (struct mat){1, (int)n, NUM_F32, base + (size_t)i * room};
    return p;
}

static _Noreturn void rank_main(const struct bench_allreduce *b, struct shared *s, char *state,
                                char *peer, size_t peer_bytes, int rank, const int *cut)
{
    struct comm c;
    struct comm_shm ctx;
    char *base[SHARES_MAX];
    cpu_set_t core;
    size_t room = round_up(b->max_bytes, 64), planes_room = (peer_bytes - room) / 2;
    double *us = malloc(5000 * sizeof(*us) + (size_t)b->iters * sizeof(*us));
    bool own_core = b->ranks <= (int)sysconf(_SC_NPROCESSORS_ONLN);
    struct wait wait = {&s->stop, own_core ? 100000 : 20};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    must(us);
    CPU_ZERO(&core);
    CPU_SET((size_t)rank, &core);
    if (own_core)
        sched_setaffinity(0, sizeof(core), &core);
    for (int r = 0; r < b->ranks; r++)
        base[r] = peer + (size_t)r * peer_bytes;
    comm_shm_open(&c, &ctx, state, rank, b->ranks, cut, base, peer_bytes, 0, wait);
    struct span mine = {cut[rank], cut[rank + 1]};
    for (int k = 0; k < count_sizes(b); k++) {
        size_t bytes = b->min_bytes << k, n = bytes / sizeof(float);
        int iters = iters_for(b, bytes);
        struct mat to = {1, (int)n, NUM_F32, base[rank]};
        struct planes p[2] = {planes_at(base[rank] + room, &mine, n, room),
                              planes_at(base[rank] + room + planes_room, &mine, n, room)};
        int wrong = measure(&c, p, &to, n, iters, us);
        if (rank == 0) {
            qsort(us, (size_t)iters, sizeof(*us), by_value);
            s->line[k] = (struct line){bytes, iters, us[iters / 2], us[iters * 99 / 100], 0, wrong};
        }
    }
    _exit(0);
}

/* ------------------------------------------------------------------------------- Open MPI */

/* The helper prints "bytes median_us" lines. Absent or failing: nothing is filled in. */
static bool measure_mpi(const struct bench_allreduce *b, struct line *line, int n)
{
    char here[PATH_MAX - 64], command[PATH_MAX + 200];
    ssize_t k = readlink("/proc/self/exe", here, sizeof(here) - 1);
    here[k > 0 ? k : 0] = 0;
    if (strrchr(here, '/'))
        *strrchr(here, '/') = 0;
    snprintf(command, sizeof(command), "%s/tandem-mpi-allreduce", here);
    if (strchr(here, '\'') || access(command, X_OK))
        return false;
    snprintf(command, sizeof(command),
             "mpirun --allow-run-as-root --bind-to core --oversubscribe -n %d "
             "'%s/tandem-mpi-allreduce' %zu %zu 2>/dev/null",
             b->ranks, here, b->min_bytes, b->max_bytes);
    FILE *f = popen(command, "r");
    size_t bytes;
    double us;
    bool any = false;
    while (f && fscanf(f, "%zu %lf", &bytes, &us) == 2)
        for (int i = 0; i < n; i++)
            if (line[i].bytes == bytes)
                line[i].mpi_us = us, any = true;
    if (f)
        pclose(f);
    return any;
}

/* ------------------------------------------------------------------------------- printing */

static double busbw(const struct bench_allreduce *b, double bytes, double us)
{
    return bytes / us * 1e-3 * 2 * (b->ranks - 1) / b->ranks;
}

static void print_text(const struct bench_allreduce *b, const struct line *line, int n, bool mpi)
{
    printf("all-reduce of f32 over %d ranks in shared memory\n", b->ranks);
    printf("     bytes   calls  median us     p99 us  algbw GB/s  busbw GB/s%s\n",
           mpi ? "     MPI us  MPI / tandem" : "");
    for (int i = 0; i < n; i++) {
        const struct line *l = &line[i];
        printf("%10zu %7d %10.2f %10.2f %11.2f %11.2f", l->bytes, l->iters, l->median_us, l->p99_us,
               (double)l->bytes / l->median_us * 1e-3, busbw(b, (double)l->bytes, l->median_us));
        if (l->mpi_us > 0)
            printf(" %10.2f %13.1f", l->mpi_us, l->mpi_us / l->median_us);
        putchar('\n');
    }
}

static void print_json(const struct bench_allreduce *b, const struct line *line, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        json_t *o =
            json_pack("{s:I, s:i, s:f, s:f, s:f}", "bytes", (json_int_t)line[i].bytes, "calls",
                      line[i].iters, "median_us", line[i].median_us, "p99_us", line[i].p99_us,
                      "busbw_gb_s", busbw(b, (double)line[i].bytes, line[i].median_us));
        if (line[i].mpi_us > 0)
            json_object_set_new(o, "mpi_median_us", json_real(line[i].mpi_us));
        json_array_append_new(list, o);
    }
    json_t *all = json_pack("{s:i, s:o}", "ranks", b->ranks, "sizes", list);
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
}

/* ------------------------------------------------------------------------------- all */

static int run_ranks(const struct bench_allreduce *b, struct shared *s, char *state, char *peer,
                     size_t peer_bytes, const int *cut, struct err *e)
{
    pid_t pid[SHARES_MAX];
    bool failed = false;
    fflush(stdout);
    for (int r = 0; r < b->ranks; r++) {
        pid[r] = fork();
        if (pid[r] == 0)
            rank_main(b, s, state, peer, peer_bytes, r, cut);
        failed |= pid[r] < 0;
    }
    if (failed)
        atomic_store(&s->stop, 1);
    for (int r = 0; r < b->ranks; r++) {
        int status = 1;
        if (pid[r] > 0)
            waitpid(pid[r], &status, 0);
        failed |= status != 0;
    }
    return failed ? err_set(e, -EIO, "bench allreduce: a rank failed") : 0;
}

int bench_allreduce(const struct bench_allreduce *b, struct err *e)
{
    int cut[SHARES_MAX + 1], shares = b->ranks <= 8 ? 8 : b->ranks <= 16 ? 16 : 32;
    size_t room = round_up(b->max_bytes, 64),
           peer_bytes = room * 5; /* sum, two sets of <= 2 planes */
    size_t state = round_up(comm_shm_bytes(b->ranks, 0), 4096);
    size_t bytes = sizeof(struct shared) + 4096 + state + peer_bytes * (size_t)b->ranks;
    if (b->ranks < 2)
        return err_set(e, -EINVAL, "bench allreduce: --ranks must be 2 at least");
    for (int r = 0; r <= b->ranks; r++)
        cut[r] = r * shares / b->ranks;
    for (int r = 0; r < b->ranks; r++) {
        struct span tree[PLANES];
        int n = tree_split((struct span){cut[r], cut[r + 1]}, tree);
        if (n > 2)
            return err_set(e, -ENOTSUP, "bench allreduce: %d ranks do not divide %d shares well",
                           b->ranks, shares);
    }
    char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return err_set(e, -ENOMEM, "bench allreduce: cannot reserve %zu MiB", bytes >> 20);
    struct shared *s = (struct shared *)(void *)at;
    char *state_at = at + round_up(sizeof(*s), 4096);
    int n = count_sizes(b);
    int rc = run_ranks(b, s, state_at, state_at + state, peer_bytes, cut, e);
    for (int i = 0; !rc && i < n; i++)
        if (s->line[i].wrong)
            rc = err_set(e, -EIO, "bench allreduce: %d sums of %zu bytes were wrong",
                         s->line[i].wrong, s->line[i].bytes);
    if (!rc) {
        bool mpi = b->mpi && measure_mpi(b, s->line, n);
        if (b->json)
            print_json(b, s->line, n);
        else
            print_text(b, s->line, n, mpi);
        if (b->mpi && !mpi)
            fputs("tandem: note: Open MPI was not measured: mpirun or tandem-mpi-allreduce is "
                  "missing\n",
                  stderr);
    }
    munmap(at, bytes);
    return rc;
}
