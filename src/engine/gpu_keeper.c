/* gpu_keeper.c - see gpu_keeper.h. */
#include "engine/gpu_keeper.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENCE_MS = 120000 }; /* with a driver that starts */

/* What a process has for one rank, its descriptors beside it; or, rc, why it has none. */
struct word {
    int rc, rank, part[KEPT_PARTS], n;
    struct err err;
};

/* ------------------------------------------------------------------------------- the process */

static void tell(int to, const struct word *w, const int *fd)
{
    _Alignas(struct cmsghdr) char room[CMSG_SPACE(KEPT_PARTS * sizeof(int))] = {0};
    struct iovec text = {(void *)(uintptr_t)w, sizeof(*w)};
    struct msghdr m = {.msg_iov = &text, .msg_iovlen = 1};
    if (w->n) {
        m.msg_control = room, m.msg_controllen = CMSG_SPACE((size_t)w->n * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        *c = (struct cmsghdr){.cmsg_len = CMSG_LEN((size_t)w->n * sizeof(int)),
                              .cmsg_level = SOL_SOCKET,
                              .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(c), fd, (size_t)w->n * sizeof(int));
    }
    if (sendmsg(to, &m, MSG_NOSIGNAL) != (ssize_t)sizeof(*w))
        _exit(1);
}

static void tell_rank(int to, int rank, const int *fd)
{
    struct word w = {.rank = rank};
    int sent[KEPT_PARTS];
    for (int i = 0; i < KEPT_PARTS; i++)
        if (fd[i] >= 0) {
            w.part[w.n] = i;
            sent[w.n++] = fd[i];
        }
    tell(to, &w, sent);
}

static void keep(const struct plan *p, const struct gpus *g, int gpu, int to)
{
    size_t bytes[PLAN_RANKS * KEPT_PARTS];
    int rank[PLAN_RANKS], fd[PLAN_RANKS * KEPT_PARTS], n = 0;
    struct word failed = {0};
    for (int r = 0; r < plan_ranks(p); r++)
        if (gpus_index(g, r) == gpu) {
            gpu_kept_bytes(p, r, g, bytes + (size_t)n * KEPT_PARTS);
            rank[n++] = r;
        }
    failed.rc = g->plugin->keep(gpu, bytes, n * KEPT_PARTS, fd, &failed.err);
    if (failed.rc)
        tell(to, &failed, NULL);
    for (int i = 0; !failed.rc && i < n; i++)
        tell_rank(to, rank[i], fd + (size_t)i * KEPT_PARTS);
}

/* Nothing else of the keeper's lives on in it; it ends with the keeper. */
static _Noreturn void run(const struct plan *p, const struct gpus *g, int gpu, int fd, pid_t parent)
{
    char name[32], none;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(name, sizeof(name), "gpu-keeper-%d", gpu);
    prctl(PR_SET_NAME, name);
    if (getppid() != parent || dup2(fd, STDIN_FILENO) < 0)
        _exit(1);
    close_range(STDERR_FILENO + 1, ~0U, 0);
    keep(p, g, gpu, STDIN_FILENO);
    while (recv(STDIN_FILENO, &none, 1, 0) < 0 && errno == EINTR)
        ;
    _exit(0);
}

/* ------------------------------------------------------------------------------- the keeper */

static int start(struct gpu_keepers *k, const struct plan *p, const struct gpus *g, int gpu,
                 int ranks, struct err *e)
{
    int fd[2];
    pid_t self = getpid();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd))
        return err_set(e, -errno, "cannot make a socket: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0)
        run(p, g, gpu, fd[1], self);
    close(fd[1]);
    if (pid < 0) {
        close(fd[0]);
        return err_set(e, -EAGAIN, "cannot start a process to keep memory of GPU %d", gpu);
    }
    k->of[k->n].fd = fd[0], k->of[k->n].ranks = ranks, k->of[k->n].pid = pid;
    k->n++;
    return 0;
}

static void say_lost(const char *why)
{
    fprintf(stderr, "tandem: %s: when a rank dies, weights are loaded and answers computed again\n",
            why);
}

int gpu_keepers_start(struct gpu_keepers *k, const struct plan *p, const struct gpus *g,
                      struct err *e)
{
    int ranks[GPUS] = {0}, rc = 0;
    k->n = 0;
    for (int r = 0; r < PLAN_RANKS; r++)
        for (int i = 0; i < KEPT_PARTS; i++)
            k->kept[r].fd[i] = -1;
    for (int r = 0; r < plan_ranks(p); r++) {
        const int gpu = gpus_index(g, r);
        ranks[gpu]++;
        if (!g->gpu[gpu].unit) {
            say_lost("this GPU or its driver does not share memory by descriptors");
            return 0;
        }
    }
    for (int gpu = 0; !rc && gpu < g->n; gpu++)
        if (ranks[gpu])
            rc = start(k, p, g, gpu, ranks[gpu], e);
    return rc;
}

/* The next word; its descriptors are the keeper's from now on. */
static int hear(int from, struct word *w, int fd[KEPT_PARTS], struct err *e)
{
    _Alignas(struct cmsghdr) char room[CMSG_SPACE(KEPT_PARTS * sizeof(int))];
    struct iovec text = {w, sizeof(*w)};
    struct msghdr m = {
        .msg_iov = &text, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
    struct pollfd on = {.fd = from, .events = POLLIN};
    int ready;
    while ((ready = poll(&on, 1, PATIENCE_MS)) < 0 && errno == EINTR)
        ;
    if (!ready)
        return err_set(e, -ETIMEDOUT, "the driver gave no memory in %d s: look at dmesg",
                       PATIENCE_MS / 1000);
    if (recvmsg(from, &m, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(*w))
        return err_set(e, -EIO, "a process that was to keep memory of a GPU has died");
    if (w->rc)
        return err_set(e, w->rc, "%s", w->err.text);
    const struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    const int n = c ? (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(*fd)) : 0;
    if (n)
        memcpy(fd, CMSG_DATA(c), (size_t)n * sizeof(*fd));
    if (n == w->n)
        return 0;
    for (int i = 0; i < n; i++)
        close(fd[i]);
    return err_set(e, -EMFILE, "of %d descriptors of a GPU's memory %d came: raise ulimit -n", w->n,
                   n);
}

static int take(struct gpu_keepers *k, int from, int ranks, struct err *e)
{
    struct word w;
    int fd[KEPT_PARTS], rc = 0;
    for (int i = 0; !rc && i < ranks; i++) {
        rc = hear(from, &w, fd, e);
        for (int j = 0; !rc && j < w.n; j++)
            k->kept[w.rank].fd[w.part[j]] = fd[j];
    }
    return rc;
}

static void forget(struct gpu_keepers *k)
{
    gpu_keepers_kill(k);
    for (int r = 0; r < PLAN_RANKS; r++)
        for (int i = 0; i < KEPT_PARTS; i++)
            if (k->kept[r].fd[i] >= 0)
                close(k->kept[r].fd[i]);
    for (int i = 0; i < k->n; i++)
        close(k->of[i].fd);
    k->n = 0;
}

int gpu_keepers_take(struct gpu_keepers *k, struct err *e)
{
    int rc = 0;
    for (int i = 0; !rc && i < k->n; i++)
        rc = take(k, k->of[i].fd, k->of[i].ranks, e);
    if (!rc || rc == -ENOMEM)
        return rc;
    forget(k);
    say_lost(e->text);
    return 0;
}

const struct gpu_kept *gpu_keepers_kept(const struct gpu_keepers *k)
{
    return k->n ? k->kept : NULL;
}

void gpu_keepers_died(struct gpu_keepers *k, pid_t pid)
{
    for (int i = 0; i < k->n; i++)
        if (k->of[i].pid == pid) {
            k->of[i].pid = 0;
            forget(k);
            say_lost("a process that kept memory of a GPU has died");
        }
}

void gpu_keepers_kill(struct gpu_keepers *k)
{
    for (int i = 0; i < k->n; i++)
        if (k->of[i].pid > 0)
            kill(k->of[i].pid, SIGKILL);
}
