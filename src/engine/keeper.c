/* keeper.c - see keeper.h. Single-threaded whenever it forks. */
#include "engine/keeper_inside.h"
#include "engine/near.h"
#include "engine/suspect.h"
#include "run/load.h"
#include "run/work.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000 }; /* with ranks that were killed */

enum { KV_FIRST = 32 << 20, KV_PIECE = 4 << 20 }; /* bytes made real at start, and at a time */

static void say(const struct keeper *k, const struct keeper_word *w)
{
    send(k->fd, w, sizeof(*w), MSG_NOSIGNAL);
    atomic_fetch_add(&k->room->mailbox->done_bell, 1);
    futex_wake(&k->room->mailbox->done_bell);
}

/* Die with the keeper; leave Ctrl-C to control. Returns false when the keeper is gone already. The
 * name is what top shows. */
static bool follow(pid_t parent, const char *name)
{
    prctl(PR_SET_NAME, name);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    return getppid() == parent;
}

/* ------------------------------------------------------------------------------- weights */

/* Memory for k->bytes of weights; packed ones are there at once. */
static int get_weights(struct keeper *k, const struct packed *f, int n_thread, struct err *e)
{
    if (!f)
        return map_memory(k->bytes, false, &k->base, e);
    int rc = packed_check(f, k->p, e);
    if (!rc && k->bytes != f->bytes)
        rc = err_set(e, -EINVAL, "packed weights of %zu bytes, but the plan lays out %zu", f->bytes,
                     k->bytes);
    if (!rc)
        rc = packed_map(f, n_thread, &k->room->mailbox->loaded, &k->base, e);
    if (!rc && k->expert_cache)
        cache_forget(k->base, f->bytes);
    return rc;
}

/* So many pages of the cache as are about so many bytes. */
static int pages_in(const struct keeper *k, size_t bytes)
{
    size_t n = bytes / rank_page_bytes(k->p);
    return n < (size_t)k->p->pages ? max_int((int)n, 1) : k->p->pages;
}

static struct weights view_of(struct keeper *k, int rank)
{
    struct weights view;
    struct arena host = host_arena(&k->pool, rank_tables(k, rank));
    weights_view(&view, &k->whole, k->p, rank, &host);
    return view;
}

/* Reserve, list, pack; then nobody may write the weights any more. */
static int load_weights(struct keeper *k, const struct store *s, const struct packed *f,
                        int n_thread, struct err *e)
{
    struct arena tables = {0}, data = {0};
    struct load *list;
    weights_lay_out(&k->whole, k->p, PLAN_WHOLE, &tables, &data);
    k->bytes = data.used;
    int rc = get_weights(k, f, n_thread, e);
    if (rc)
        return rc;
    struct arena host = host_arena(&k->pool, tables.used);
    data = (struct arena){.base = k->base, .size = k->bytes};
    weights_lay_out(&k->whole, k->p, PLAN_WHOLE, &host, &data);
    if (!f)
        rc = load_list(&list, k->p, &k->whole, s, &k->pool, e);
    for (int r = 0; !f && !rc && !k->gpus && r < k->n_rank; r++) {
        struct weights view = view_of(k, r);
        near_weights(k->host, k->p, r, &view);
    }
    if (!f && !rc)
        rc = load_all(list, n_thread, &k->room->mailbox->loaded, e);
    if (!rc)
        mprotect(k->base, k->bytes, PROT_READ);
    return rc;
}

static int load(struct keeper *k, const struct store *s, const struct packed *f, int n_thread,
                struct err *e)
{
    near_begin(k->host, k->p);
    int rc = load_weights(k, s, f, n_thread, e);
    near_end(k->host, k->p);
    if (rc || k->gpus)
        return rc;
    near_cache_open(k->host, k->p, k->room->kv);
    k->pages_touched = pages_in(k, KV_FIRST);
    return near_cache(k->host, k->p, k->room->kv, 0, k->pages_touched, e);
}

static int fork_ranks(struct keeper *k, struct err *e)
{
    pid_t self = getpid();
    for (int r = 0; r < k->n_rank; r++) {
        k->pid[r] = fork();
        if (k->pid[r] < 0)
            return err_set(e, -errno, "cannot start rank %d: %s", r, strerror(errno));
        if (k->pid[r] == 0) {
            sigset_t none;
            sigemptyset(&none);
            sigprocmask(SIG_SETMASK, &none, NULL);
            close(k->fd);
            char name[32];
            snprintf(name, sizeof(name), "tandem-rank-%d", r);
            if (!follow(self, name))
                _exit(1);
            rank_main(k, r);
        }
        say(k, &(struct keeper_word){.kind = KEEPER_RANK, .rank = r, .pid = k->pid[r]});
    }
    return 0;
}

/* Ranks own nothing: there is nothing to say good-bye to. */
static void end_ranks(struct keeper *k)
{
    atomic_store(&k->room->mailbox->stop, 1);
    futex_wake(&k->room->mailbox->step_bell);
    for (int r = 0; r < k->n_rank; r++)
        if (k->pid[r] > 0)
            kill(k->pid[r], SIGKILL);
}

static void pause_ms(void) { nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

/* A process that a driver does not let go is not waited for: the next ones say what is wrong. */
static _Noreturn void leave(struct keeper *k, int code)
{
    pid_t pid;
    end_ranks(k);
    gpu_keepers_kill(&k->keepers);
    if (k->toucher > 0)
        kill(k->toucher, SIGKILL);
    for (int ms = 0; ms < PATIENCE_MS && (pid = waitpid(-1, NULL, WNOHANG)) >= 0;)
        if (!pid)
            pause_ms(), ms++;
    _exit(code);
}

/* Report every rank that has died. */
static void reap(struct keeper *k)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid == k->toucher)
            k->toucher = 0;
        gpu_keepers_died(&k->keepers, pid);
        for (int r = 0; r < k->n_rank; r++)
            if (k->pid[r] == pid) {
                k->pid[r] = 0;
                atomic_store(&k->room->mailbox->stop, 1);
                say(k, &(struct keeper_word){.kind = KEEPER_DIED, .rank = r, .status = status});
            }
    }
}

static bool any_rank(const struct keeper *k)
{
    for (int r = 0; r < k->n_rank; r++)
        if (k->pid[r] > 0)
            return true;
    return false;
}

/* Make the rest of the KV pool real in a process of its own that runs when nothing else wants to:
 * zeroing memory would take a core from the ranks for seconds. Pages are given out from the low
 * end, and those that are needed before are made real by their ranks. That there is enough memory
 * was checked before. */
static void touch_rest(struct keeper *k)
{
    struct sched_param no_claim = {0};
    struct err e;
    pid_t self = getpid();
    if (k->gpus || k->pages_touched == k->p->pages || (k->toucher = fork()) != 0)
        return;
    close(k->fd);
    if (!follow(self, "tandem-touch") || sched_setscheduler(0, SCHED_IDLE, &no_claim))
        _exit(1);
    const int most = pages_in(k, KV_PIECE);
    for (int at = k->pages_touched; at < k->p->pages; at += most)
        near_cache(k->host, k->p, k->room->kv, at, min_int(k->p->pages - at, most), &e);
    _exit(0);
}

static bool all_ready(const struct keeper *k)
{
    for (int r = 0; r < k->n_rank; r++)
        if (!atomic_load(&k->room->mailbox->rank[r].ready))
            return false;
    return true;
}

/* When every GPU has its weights, the host's copy is not needed. */
static void drop_weights(struct keeper *k)
{
    if (!keeper_drops(k) || !all_ready(k))
        return;
    munmap(k->base, k->bytes);
    k->base = NULL;
}

static void fail(struct keeper *k, int rc, const struct err *e)
{
    struct keeper_word w = {.kind = KEEPER_FAILED, .status = rc};
    snprintf(w.text, sizeof(w.text), "%s", e->text);
    say(k, &w);
}

/* A driver can hold a process against any signal. Then neither is its memory free to be used again,
 * nor is there hope in its GPU. */
static int end_all(struct keeper *k, struct err *e)
{
    end_ranks(k);
    for (int ms = 0; ms < PATIENCE_MS && any_rank(k); ms++)
        pause_ms(), reap(k);
    for (int r = 0; r < k->n_rank; r++)
        if (k->pid[r] > 0) {
            char name[256];
            suspects_name(name, sizeof(name), r, k->pid[r], k->gpus);
            return err_set(e, -EBUSY, "%s was killed and does not end: %s", name,
                           k->gpus ? "its driver holds it. Look at nvidia-smi and dmesg, and start "
                                     "without that GPU (CUDA_VISIBLE_DEVICES)"
                                   : "the kernel holds it");
        }
    return 0;
}

/* What a rank stores is the same whenever a step is run, so new ranks go on where not all of the
 * old ones had come. */
static void start_again(struct keeper *k)
{
    struct err e;
    int rc = end_all(k, &e);
    if (!rc && k->gpus && !gpu_keepers_kept(&k->keepers))
        rc = err_set(&e, -EIO, "a rank's memory on its GPU ended with it");
    if (!rc) {
        room_again(k->room, k->p);
        say(k, &(struct keeper_word){.kind = KEEPER_AGAIN});
        rc = fork_ranks(k, &e);
    }
    if (rc)
        fail(k, rc, &e);
}

static _Noreturn void watch(struct keeper *k, int signals)
{
    const int look_again_ms = 100;
    struct pollfd on[] = {{.fd = k->fd, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    for (;;) {
        struct signalfd_siginfo info;
        char asked;
        if (poll(on, COUNT(on), keeper_drops(k) ? look_again_ms : -1) < 0 && errno != EINTR)
            leave(k, 1);
        drop_weights(k);
        if (on[0].revents && recv(k->fd, &asked, sizeof(asked), 0) <= 0)
            leave(k, 0); /* control closed its end, or is gone */
        if (on[0].revents)
            start_again(k);
        if (on[1].revents && read(signals, &info, sizeof(info)) > 0)
            reap(k);
    }
}

/* Weights and ranks. Memory of GPUs is asked for while weights are read. */
static int start(struct keeper *k, const struct store *s, const struct packed *f, int n_thread,
                 struct err *e)
{
    int rc = k->gpus ? gpu_keepers_start(&k->keepers, k->p, k->gpus, e) : 0;
    if (!rc)
        rc = load(k, s, f, n_thread, e);
    if (!rc)
        rc = gpu_keepers_take(&k->keepers, e);
    return rc ? rc : fork_ranks(k, e);
}

static size_t view_bytes(struct keeper *k, int rank)
{
    const struct weights view = view_of(k, rank);
    return weights_bytes(&view, k->p, rank);
}

/* With slots that wait for experts, of which the host's copy has nothing. */
static size_t laid_out_bytes(const struct keeper *k, int rank)
{
    struct weights w;
    struct arena tables = {0}, data = {0};
    weights_lay_out(&w, k->p, rank, &tables, &data);
    return data.used;
}

/* What each rank has, so that control can hold the plan against it. */
static void report(struct keeper *k)
{
    struct keeper_word w = {.kind = KEEPER_READY, .weight_bytes = k->bytes};
    for (int r = 0; r < k->n_rank; r++) {
        w.rank_weights[r] = k->p->slots ? laid_out_bytes(k, r) : view_bytes(k, r);
    }
    say(k, &w);
}

_Noreturn void keeper_run(const struct plan *p, const struct store *s, const struct team_opts *opts,
                          struct room *room, int fd, int n_thread)
{
    struct keeper k = {.p = p,
                       .room = room,
                       .host = opts->host,
                       .isa = opts->isa,
                       .profile = opts->profile,
                       .link = opts->link,
                       .gpus = opts->gpus,
                       .expert_cache = opts->expert_cache,
                       .fd = fd,
                       .n_rank = plan_ranks(p)};
    struct err e = {{0}};
    sigset_t child;

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    int signals = signalfd(-1, &child, SFD_CLOEXEC);
    int rc = signals < 0 ? -errno : start(&k, s, opts->packed, n_thread, &e);
    if (rc) {
        fail(&k, rc, &e);
        leave(&k, 1);
    }
    report(&k);
    touch_rest(&k);
    watch(&k, signals);
}
