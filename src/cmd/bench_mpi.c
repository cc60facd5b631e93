/* bench_mpi.c - see bench_mpi.h. Runs mpirun without a shell and reads what it prints. */
#include "cmd/bench_mpi.h"
#include "cmd/beside.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#define HELPER "tandem-mpi-allreduce"

static _Noreturn void exec_mpirun(int out, int ranks, bool own_cores, char *const args[4])
{
    char n[16];
    snprintf(n, sizeof(n), "%d", ranks);
    char *all[] = {"mpirun",    "--allow-run-as-root",
                   "-n",        n,
                   "--bind-to", own_cores ? "core" : "none",
                   args[0],     args[1],
                   args[2],     args[3],
                   NULL};
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(out, 1);
    dup2(null, 2);
    if (!own_cores) /* more ranks than it counts slots */
        setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
    execvp(all[0], all);
    _exit(127);
}

int bench_mpi(int ranks, bool own_cores, size_t min, size_t max, int calls, struct latency *to,
              int n, struct err *why)
{
    char helper[PATH_MAX], low[24], high[24], count[16];
    int link[2], status = 0, got = 0;
    find_beside(HELPER, helper);
    snprintf(low, sizeof(low), "%zu", min);
    snprintf(high, sizeof(high), "%zu", max);
    snprintf(count, sizeof(count), "%d", calls);
    if (pipe2(link, O_CLOEXEC))
        return err_set(why, 0, "Open MPI was not measured: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0)
        exec_mpirun(link[1], ranks, own_cores, (char *[]){helper, low, high, count});
    close(link[1]);
    FILE *f = fdopen(link[0], "r");
    must(f);
    size_t bytes;
    struct latency l;
    while (got < n && fscanf(f, "%zu %lf %lf", &bytes, &l.median_us, &l.p99_us) == 3 &&
           bytes == min << got && l.median_us > 0)
        to[got++] = l;
    fclose(f);
    if (pid > 0)
        waitpid(pid, &status, 0);
    if (pid < 0 || status)
        return err_set(why, got,
                       "Open MPI was not measured, or not to the end: it needs mpirun and " HELPER
                       " in PATH (exit status %d)",
                       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return got;
}
