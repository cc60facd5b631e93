/* team.c - control's side of a team. See team.h. */
#include "engine/keeper.h"
#include "engine/suspect.h"
#include "engine/team_inside.h"
#include "run/gpu.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    ANSWER_MS = 30000, /* the keeper's, which waits for ranks that were killed; and its end */
    KILLED_MS = 5000,  /* until a killed process has ended, unless a driver holds it */
    START_S = 300,     /* nothing moves while a driver begins, or compiles kernels */
    AGAIN_S = 30       /* or, when ranks start again, three times as long as at first */
};

/* ------------------------------------------------------------------------------- words */

static int died(const struct team *t, const struct keeper_word *w, struct err *e)
{
    const char *why = t->room.mailbox->rank[w->rank].why;
    if (*why)
        return err_set(e, -EIO, "rank %d: %s", w->rank, why);
    if (WIFSIGNALED(w->status))
        return err_set(e, -EIO, "rank %d was killed by signal %d (%s)", w->rank,
                       WTERMSIG(w->status), strsignal(WTERMSIG(w->status)));
    return err_set(e, -EIO, "rank %d ended with status %d", w->rank, WEXITSTATUS(w->status));
}

int team_listen(struct team *t, bool *ready, struct err *e)
{
    struct keeper_word w;
    for (;;) {
        ssize_t n = recv(t->fd, &w, sizeof(w), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (n != (ssize_t)sizeof(w)) {
            t->failed = true;
            return err_set(e, -EIO, "the keeper process has died");
        }
        if (w.kind == KEEPER_RANK)
            t->pid[w.rank] = w.pid;
        if (w.kind == KEEPER_READY) {
            t->weight_bytes = w.weight_bytes;
            memcpy(t->rank_weights, w.rank_weights, sizeof(w.rank_weights));
            *ready = true;
        }
        if (w.kind == KEEPER_FAILED || w.kind == KEEPER_DIED)
            t->failed = true;
        if (w.kind == KEEPER_FAILED)
            return err_set(e, -EIO, "%s", w.text);
        if (w.kind == KEEPER_DIED)
            return died(t, &w, e);
    }
}

/* ------------------------------------------------------------------------------- start, stop */

/* Files of control, sockets of clients above all, must not live on in its children. */
static void close_others(int keep, int keep_too)
{
    int lo = min_int(keep, keep_too), hi = max_int(keep, keep_too);
    if (lo > 3)
        close_range(3, (unsigned)lo - 1, 0);
    if (hi > lo + 1)
        close_range((unsigned)max_int(lo + 1, 3), (unsigned)hi - 1, 0);
    close_range((unsigned)hi + 1, ~0U, 0);
}

static int start_keeper(struct team *t, const struct store *s, const struct team_opts *opts,
                        struct err *e)
{
    int fd[2];
    pid_t parent = getpid();
    cpu_set_t cores;
    int n_core = sched_getaffinity(0, sizeof(cores), &cores) ? 1 : CPU_COUNT(&cores);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd))
        return err_set(e, -errno, "cannot make a socket: %s", strerror(errno));
    fflush(NULL);
    t->keeper = fork();
    if (t->keeper < 0) {
        close(fd[0]);
        close(fd[1]);
        return err_set(e, -errno, "cannot start the keeper process: %s", strerror(errno));
    }
    if (t->keeper == 0) {
        close(fd[0]);
        prctl(PR_SET_NAME, "tandem-keeper");
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        static const int control_decides[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP};
        for (size_t i = 0; i < COUNT(control_decides); i++)
            signal(control_decides[i], SIG_IGN);
        close_others(fd[1], opts->packed ? opts->packed->fd : -1);
        if (getppid() != parent)
            _exit(1);
        keeper_run(&t->plan, s, opts, &t->room, fd[1], n_core);
    }
    close(fd[1]);
    t->fd = fd[0];
    return 0;
}

static bool all_ready(const struct team *t)
{
    for (int r = 0; r < plan_ranks(&t->plan); r++)
        if (!atomic_load(&t->room.mailbox->rank[r].ready))
            return false;
    return true;
}

uint64_t team_moves(const struct team *t)
{
    const struct mailbox *m = t->room.mailbox;
    uint64_t sum = atomic_load(&m->loaded);
    for (int r = 0; r < plan_ranks(&t->plan); r++)
        sum += atomic_load(&m->rank[r].pulse) + atomic_load(&m->rank[r].done) +
               atomic_load(&m->rank[r].copied) + atomic_load(&m->rank[r].ready);
    return sum;
}

static int start_hangs(struct team *t, bool loaded, double still_s, struct err *e)
{
    char name[256];
    int r = 0;
    t->failed = true;
    if (!loaded) /* nobody knows what it does */
        t->deaf = true;
    if (!loaded)
        return err_set(e, -ETIMEDOUT, "loading does not get on: nothing has moved for %.0f s",
                       still_s);
    while (r < plan_ranks(&t->plan) - 1 && atomic_load(&t->room.mailbox->rank[r].ready))
        r++;
    suspects_name(name, sizeof(name), r, t->pid[r], t->gpus);
    return err_set(e, -ETIMEDOUT, "%s does not start: nothing has moved for %.0f s%s", name,
                   still_s, t->gpus ? "; look at nvidia-smi and dmesg" : "");
}

static int wait_ready(struct team *t, const struct store *s, const struct team_opts *opts,
                      bool loaded, struct err *e)
{
    struct stillness still;
    still_begin(&still, team_moves(t), now_s());
    while (!loaded || !all_ready(t)) {
        uint32_t bell = atomic_load(&t->room.mailbox->done_bell);
        int rc = team_listen(t, &loaded, e);
        if (rc)
            return rc;
        if (opts && opts->progress)
            opts->progress(opts->arg, atomic_load(&t->room.mailbox->loaded),
                           s ? store_bytes(s) : opts->packed->bytes);
        if (still_look(&still, team_moves(t), now_s()) > t->start_s)
            return start_hangs(t, loaded, still.still_s, e);
        if (!loaded || !all_ready(t))
            futex_sleep(&t->room.mailbox->done_bell, bell, loaded ? 1000 : 20000);
    }
    if (opts) /* the first time */
        t->start_s = 3 * still.longest_s > AGAIN_S ? 3 * still.longest_s : AGAIN_S;
    return 0;
}

/* The plan says which bits its users expect. */
static int check_numerics(const struct plan *p, const struct team_opts *opts, struct err *e)
{
    char gpu[16];
    const char *have = isa_numerics(opts->isa, p->weight), *what = isa_name(opts->isa);
    if (opts->gpus) {
        gpu_numerics(gpu, opts->gpus->gpu[0].arch, p->weight, p->kv, plan_fast(p));
        have = gpu, what = opts->gpus->gpu[0].name;
    }
    if (!strcmp(p->numerics, have))
        return 0;
    return err_set(e, -EINVAL,
                   "the plan promises the bits of \"%s\", but %s on this machine gives \"%s\": "
                   "choose another --isa or --device, or change \"numerics\" in the plan",
                   p->numerics, what, have);
}

int team_start(struct team **out, const struct plan *p, const struct store *s,
               const struct team_opts *opts, struct err *e)
{
    *out = NULL;
    int rc = check_numerics(p, opts, e);
    if (!rc && opts->gpus)
        rc = gpu_check(p, opts->gpus, e);
    if (rc)
        return rc;
    struct team *t = calloc(1, sizeof(*t));
    if (!t)
        return err_set(e, -ENOMEM, "out of memory");
    t->plan = *p;
    t->gpus = opts->gpus;
    t->fd = -1;
    t->start_s = opts->start_patience_s > 0 ? opts->start_patience_s : START_S;
    watch_open(&t->watch, opts->patience_s);
    rc = room_open(&t->room, &t->plan, opts->isa, opts->gpus, opts->keep_logits, opts->expert_cache,
                   e);
    if (!rc)
        rc = start_keeper(t, s, opts, e);
    if (!rc)
        rc = wait_ready(t, s, opts, false, e);
    if (rc) {
        team_stop(t);
        return rc;
    }
    *out = t;
    return 0;
}

/* Words about the old ranks are no news. */
static int hear_again(struct team *t, struct err *e)
{
    struct pollfd on = {.fd = t->fd, .events = POLLIN};
    struct keeper_word w;
    for (int ready;;) {
        if ((ready = poll(&on, 1, ANSWER_MS)) < 0 && errno == EINTR)
            continue;
        t->deaf = ready <= 0;
        if (t->deaf)
            return err_set(e, -EIO, "the keeper process does not answer");
        ssize_t n = recv(t->fd, &w, sizeof(w), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n != (ssize_t)sizeof(w))
            return err_set(e, -EIO, "the keeper process has died");
        if (w.kind == KEEPER_FAILED)
            return err_set(e, w.status ? w.status : -EIO, "%s", w.text);
        if (w.kind == KEEPER_AGAIN)
            return 0;
    }
}

static int start_again(struct team *t, struct err *e)
{
    const char ask = 0;
    if (send(t->fd, &ask, sizeof(ask), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return err_set(e, -EIO, "the keeper process has died");
    int rc = hear_again(t, e);
    return rc ? rc : wait_ready(t, NULL, NULL, true, e);
}

int team_again(struct team *t, struct err *e)
{
    if (watch_in_vain(&t->watch))
        return err_set(e, -EIO, "new ranks hang, too");
    int rc = start_again(t, e);
    if (rc == -ETIMEDOUT) /* one was stopped while it started */
        rc = start_again(t, e);
    t->failed = rc != 0;
    return rc;
}

/* Whether it has within the time. */
static bool has_ended(pid_t pid, int patience_ms)
{
    for (int ms = 0; ms < patience_ms; ms++) {
        if (waitpid(pid, NULL, WNOHANG))
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return false;
}

static void end_keeper(const struct team *t)
{
    if (!t->deaf && has_ended(t->keeper, ANSWER_MS))
        return;
    kill(t->keeper, SIGKILL);
    if (!has_ended(t->keeper, KILLED_MS))
        fprintf(stderr, "tandem: process %d was killed and does not end; it is left behind\n",
                t->keeper);
}

void team_stop(struct team *t)
{
    if (!t)
        return;
    if (t->room.mailbox && t->room.base) {
        atomic_store(&t->room.mailbox->stop, 1);
        futex_wake(&t->room.mailbox->step_bell);
    }
    if (t->fd >= 0) {
        shutdown(t->fd, SHUT_RDWR); /* a later team's processes hold copies of it */
        close(t->fd);
    }
    if (t->keeper > 0)
        end_keeper(t);
    room_close(&t->room);
    free(t->holders);
    free(t);
}
