/* gpu_pair.c - see gpu_pair.h. */
#include "gpu_pair.h"
#include "comm/peer/peer.h"
#include "gpu_time.h"

#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { SHARES = 8, NUMBERS = 4096, PATIENCE_S = 20, CALLS_THREADS = 200, CALLS_PROCESSES = 20 };

/* In memory of both ranks. */
struct pair {
    pthread_barrier_t start;
    struct peer_card card[2];
    double seconds[2];
};

struct reducer {
    struct pair *pair;
    int rank, calls;
    bool tiny;
};

static struct pair *pair_open(int *fd, bool processes)
{
    pthread_barrierattr_t how;
    *fd = memfd_create("pair", 0);
    must(*fd >= 0 && !ftruncate(*fd, sizeof(struct pair)));
    struct pair *p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    must(p != MAP_FAILED && !pthread_barrierattr_init(&how));
    must(!pthread_barrierattr_setpshared(&how, processes ? PTHREAD_PROCESS_SHARED
                                                         : PTHREAD_PROCESS_PRIVATE));
    must(!pthread_barrier_init(&p->start, &how, 2));
    return p;
}

static void pair_close(struct pair *p, int fd)
{
    munmap(p, sizeof(*p));
    close(fd);
}

static double slower(const struct pair *p)
{
    return p->seconds[0] > p->seconds[1] ? p->seconds[0] : p->seconds[1];
}

/* One rank's sums, recorded and replayed; the other rank does the same meanwhile. */
static void *reduce(void *arg)
{
    const struct reducer *r = arg;
    const size_t peer_bytes = 2 * NUMBERS * sizeof(float), head = comm_peer_bytes(0);
    const int cut[] = {0, SHARES / 2, SHARES}, calls = r->tiny ? 2 : r->calls;
    struct comm c;
    struct comm_peer ctx;
    struct err e;
    void *stream, *memory, *recorded;
    ok(gpu_stream(&stream), "stream");
    ok(gpu_alloc(&memory, head + peer_bytes), "memory");
    ok(gpu_clear(memory, head + peer_bytes, stream), "memory");
    const struct comm_peer_opts o = {.rank = r->rank,
                                     .size = 2,
                                     .cut = cut,
                                     .card = r->pair->card,
                                     .memory = memory,
                                     .peer_bytes = peer_bytes,
                                     .wait = {NULL, 100},
                                     .stream = stream};
    if (comm_peer_open(&c, &ctx, &o, &e)) {
        fprintf(stderr, "tandem-bench-gpu: %s\n", e.text);
        exit(1);
    }
    struct mat to = {1, NUMBERS, NUM_F32, (char *)memory + head};
    struct planes from = {.n = 1,
                          .at = {{1, NUMBERS, NUM_F32, (char *)memory + head + peer_bytes / 2}}};
    ok(gpu_record_begin(stream), "record");
    for (int i = 0; i < calls; i++)
        comm_sum(&c, &to, &from);
    ok(gpu_record_end(stream, &recorded), "record");
    struct timing t = timing_new(stream);
    for (int i = 0; i <= TURNS; i++) {
        pthread_barrier_wait(&r->pair->start);
        timing_turn(&t, recorded);
        if (!i)
            t.least_s = 1e9; /* the first warmed up */
    }
    r->pair->seconds[r->rank] = t.least_s / calls;
    pthread_barrier_wait(&r->pair->start); /* the other one is done with this one's memory, too */
    gpu_record_free(recorded);
    comm_peer_close(&ctx);
    gpu_free(memory);
    return NULL;
}

double pair_threads(bool tiny)
{
    int fd;
    struct pair *p = pair_open(&fd, false);
    struct reducer r[2];
    pthread_t thread[2];
    for (int i = 0; i < 2; i++) {
        r[i] = (struct reducer){p, i, CALLS_THREADS, tiny};
        must(!pthread_create(&thread[i], NULL, reduce, &r[i]));
    }
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    double s = slower(p);
    pair_close(p, fd);
    return s;
}

/* ------------------------------------------------------------------------------- processes */

/* This program once more; 0 when it cannot be started. */
static pid_t again(char *const argv[], const posix_spawn_file_actions_t *files)
{
    pid_t pid = 0;
    return posix_spawn(&pid, "/proc/self/exe", files, NULL, argv, environ) ? 0 : pid;
}

static bool ended_well(pid_t pid)
{
    int status = 0;
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

int pair_main(int fd, int rank, bool tiny)
{
    struct pair *p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    must(p != MAP_FAILED && (rank == 0 || rank == 1));
    alarm(PATIENCE_S); /* the other one may have failed, or a GPU may not run both */
    ok(gpu_use(0), "GPU 0");
    reduce(&(struct reducer){p, rank, CALLS_PROCESSES, tiny});
    return 0;
}

double pair_processes(bool tiny)
{
    int fd;
    struct pair *p = pair_open(&fd, true);
    pid_t pid[2];
    char number[16];
    snprintf(number, sizeof(number), "%d", fd);
    for (int i = 0; i < 2; i++)
        pid[i] = again(
            (char *[]){"tandem-bench-gpu", "--pair", number, i ? "1" : "0", tiny ? "1" : "0", NULL},
            NULL);
    bool good = ended_well(pid[0]);
    good &= ended_well(pid[1]);
    double s = good ? slower(p) : 0;
    if (!good)
        fprintf(stderr, "tandem-bench-gpu: two processes did not add in %d s\n", PATIENCE_S);
    pair_close(p, fd);
    return s;
}

/* ------------------------------------------------------------------------------- memory */

enum { KEPT = 64 << 20 };

/* Say that it is there, and be there until standard input ends, or PATIENCE_S. */
static int stay(void)
{
    char c;
    if (write(STDOUT_FILENO, "\n", 1) != 1)
        return 1;
    return read(STDIN_FILENO, &c, 1) ? 1 : 0;
}

int idle_main(void)
{
    void *stream;
    alarm(PATIENCE_S);
    ok(gpu_use(0), "GPU 0");
    ok(gpu_stream(&stream), "stream");
    ok(gpu_wait(stream), "stream");
    return stay();
}

int keeper_main(void)
{
    int fd;
    alarm(PATIENCE_S);
    ok(gpu_keep(0, KEPT, &fd), "memory that is kept");
    ok(gpu_leave(0), "GPU 0");
    return stay();
}

static double free_bytes(void)
{
    struct gpu_about a;
    ok(gpu_about(0, &a), "GPU 0");
    return (double)a.memory_free;
}

/* What is not free while this program runs in that mode. */
static double taken_by(char *mode)
{
    int in[2], out[2];
    char c;
    posix_spawn_file_actions_t files;
    must(!pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC));
    must(!posix_spawn_file_actions_init(&files));
    must(!posix_spawn_file_actions_adddup2(&files, in[0], STDIN_FILENO));
    must(!posix_spawn_file_actions_adddup2(&files, out[1], STDOUT_FILENO));
    const double before = free_bytes();
    pid_t pid = again((char *[]){"tandem-bench-gpu", mode, NULL}, &files);
    posix_spawn_file_actions_destroy(&files);
    close(in[0]), close(out[1]);
    bool there = pid && read(out[0], &c, 1) == 1;
    const double after = free_bytes();
    close(in[1]), close(out[0]);
    return ended_well(pid) && there ? before - after : 0;
}

double idle_bytes(void) { return taken_by("--idle"); }

double keeper_bytes(void)
{
    const double taken = taken_by("--keep");
    return taken > 0 ? taken - KEPT : 0;
}
