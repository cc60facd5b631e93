/* team.c - control's side of a team. See team.h. */
#include "engine/team.h"
#include "engine/keeper.h"
#include "run/gpu.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct team {
    struct plan plan;
    struct room room;
    const struct gpus *gpus; /* NULL: ranks compute on the host */
    int fd;
    pid_t keeper;
    int64_t submitted;
    bool failed;
    size_t weight_bytes, rank_weights[PLAN_RANKS];
    int pid[PLAN_RANKS];
    struct rank_time since[PLAN_RANKS]; /* counters at the last reset */
    uint64_t placed, *holders;          /* the last placement, as struct slot has it; NULL: none */
};

/* ------------------------------------------------------------------------------- words */

static int died(const struct team *t, const struct keeper_word *w, struct err *e)
{
    const char *why = t->room.mailbox->rank[w->rank].why;
    if (*why)
        return err_set(e, -EIO, "rank %d: %s", w->rank, why);
    if (WIFSIGNALED(w->status))
        return err_set(e, -EIO, "rank %d was killed by signal %d (%s); start again", w->rank,
                       WTERMSIG(w->status), strsignal(WTERMSIG(w->status)));
    return err_set(e, -EIO, "rank %d ended with status %d; start again", w->rank,
                   WEXITSTATUS(w->status));
}

/* Take every word that has come from the keeper. *ready is set by KEEPER_READY. */
static int listen_keeper(struct team *t, bool *ready, struct err *e)
{
    struct keeper_word w;
    for (;;) {
        ssize_t n = recv(t->fd, &w, sizeof(w), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (n != (ssize_t)sizeof(w)) {
            t->failed = true;
            return err_set(e, -EIO, "the keeper process has died; start again");
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

static int wait_ready(struct team *t, const struct store *s, const struct team_opts *opts,
                      bool loaded, struct err *e)
{
    while (!loaded || !all_ready(t)) {
        uint32_t bell = atomic_load(&t->room.mailbox->done_bell);
        int rc = listen_keeper(t, &loaded, e);
        if (rc)
            return rc;
        if (opts && opts->progress)
            opts->progress(opts->arg, atomic_load(&t->room.mailbox->loaded),
                           s ? store_bytes(s) : opts->packed->bytes);
        if (!loaded || !all_ready(t))
            futex_sleep(&t->room.mailbox->done_bell, bell, loaded ? 1000 : 20000);
    }
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
    struct keeper_word w;
    for (;;) {
        ssize_t n = recv(t->fd, &w, sizeof(w), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n != (ssize_t)sizeof(w))
            return err_set(e, -EIO, "the keeper process has died");
        if (w.kind == KEEPER_FAILED)
            return err_set(e, -EIO, "%s", w.text);
        if (w.kind == KEEPER_AGAIN)
            return 0;
    }
}

int team_again(struct team *t, struct err *e)
{
    const char ask = 0;
    if (send(t->fd, &ask, sizeof(ask), MSG_NOSIGNAL) < 0)
        return err_set(e, -EIO, "the keeper process has died");
    int rc = hear_again(t, e);
    if (!rc)
        rc = wait_ready(t, NULL, NULL, true, e);
    t->failed = rc != 0;
    return rc;
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
        while (waitpid(t->keeper, NULL, 0) < 0 && errno == EINTR)
            ;
    room_close(&t->room);
    free(t->holders);
    free(t);
}

/* ------------------------------------------------------------------------------- steps */

static bool step_done(const struct team *t, int64_t step)
{
    for (int r = 0; r < plan_ranks(&t->plan); r++)
        if (atomic_load(&t->room.mailbox->rank[r].done) < (uint64_t)step)
            return false;
    return true;
}

static int rank_errors(const struct team *t, struct err *e)
{
    for (int r = 0; r < plan_ranks(&t->plan); r++) {
        int code = atomic_load(&t->room.mailbox->rank[r].err);
        const char *why = t->room.mailbox->rank[r].why;
        if (code && code != -ECANCELED)
            return err_set(e, code, "rank %d failed: %s; start again", r,
                           *why ? why : strerror(-code));
    }
    return 0;
}

static int wait_done(struct team *t, int64_t step, struct err *e)
{
    while (!step_done(t, step)) {
        uint32_t bell = atomic_load(&t->room.mailbox->done_bell);
        bool ready;
        int rc = listen_keeper(t, &ready, e);
        if (!rc)
            rc = rank_errors(t, e);
        if (rc) {
            t->failed = true;
            return rc;
        }
        if (!step_done(t, step))
            futex_sleep(&t->room.mailbox->done_bell, bell, 100000);
    }
    return 0;
}

int team_flight(const struct team *t) { return mailbox_flight(&t->plan); }

/* Where the runs of the next row begin; they begin anew unless it shares the arrays of the last. */
struct putting {
    int seen, n_seen, bias, n_bias;
    const struct sample_rules *last;
};

static void put_rules(struct putting *at, struct slot *s, const struct sample_rules *r)
{
    if (!at->last || r->seen != at->last->seen)
        at->seen += at->n_seen, at->n_seen = 0;
    if (r->n_seen > at->n_seen)
        memcpy(s->seen + at->seen + at->n_seen, r->seen + at->n_seen,
               (size_t)(r->n_seen - at->n_seen) * sizeof(int));
    at->n_seen = max_int(at->n_seen, r->n_seen);
    if (!at->last || r->bias != at->last->bias || r->n_bias != at->last->n_bias) {
        at->bias += at->n_bias, at->n_bias = r->n_bias;
        if (r->n_bias)
            memcpy(s->bias + at->bias, r->bias, (size_t)r->n_bias * sizeof(*r->bias));
    }
    at->last = r;
}

static void put_draws(const struct plan *p, struct slot *s, const struct batch *b,
                      const struct draw *draw)
{
    struct putting at = {0};
    for (int i = 0; i < b->n_out; i++) {
        const struct draw *d = &draw[i];
        const struct sample_rules *r = &d->rules;
        must(r->n_bias <= SAMPLE_BIAS && r->n_seen <= p->ctx);
        put_rules(&at, s, r);
        s->draw[i] = (struct draw_row){.sampling = d->sampling,
                                       .position = (uint64_t)b->pos[b->out[i]] + 1,
                                       .seen = at.seen,
                                       .n_seen = r->n_seen,
                                       .n_prompt = r->n_prompt,
                                       .bias = at.bias,
                                       .n_bias = r->n_bias,
                                       .restricted = r->allow != NULL,
                                       .given = d->is_given ? d->given : -1,
                                       .n_top = d->logprobs ? d->n_top : -1};
        if (r->allow)
            memcpy(s->allow + (size_t)i * allow_words(p), r->allow,
                   allow_words(p) * sizeof(*r->allow));
    }
}

static size_t holders_bytes(const struct plan *p)
{
    return (size_t)p->model.n_layer * (size_t)p->model.experts.n * sizeof(uint64_t);
}

void team_place(struct team *t, const struct placement *layer)
{
    const struct plan *p = &t->plan;
    const size_t n = (size_t)p->model.experts.n;
    if (p->ep == 1)
        return;
    if (!t->holders)
        t->holders = malloc(holders_bytes(p));
    must(t->holders);
    for (int l = 0; l < p->model.n_layer; l++) {
        must(layer[l].n_expert == p->model.experts.n && layer[l].n_run == p->ep);
        memcpy(t->holders + (size_t)l * n, layer[l].holders, n * sizeof(*t->holders));
    }
    t->placed++;
}

int64_t team_submit(struct team *t, const struct batch *b, const struct draw *draw, struct err *e)
{
    const struct plan *p = &t->plan;
    struct mailbox *m = t->room.mailbox;
    int64_t step = t->submitted + 1;
    struct slot *s = &m->slot[step % m->slots];

    must(b->n_tok <= p->max_tok && b->n_seq <= p->max_seq && b->n_out <= p->max_out);
    if (t->failed)
        return err_set(e, -EIO, "the ranks have failed; start again");
    if (step > team_flight(t)) {
        int rc = wait_done(t, step - team_flight(t), e);
        if (rc)
            return rc;
    }
    const size_t tok = (size_t)b->n_tok * sizeof(int);
    s->n_tok = b->n_tok, s->n_seq = b->n_seq, s->n_out = b->n_out, s->stride = b->stride;
    memcpy(s->tok, b->tok, tok);
    memcpy(s->pos, b->pos, tok);
    memcpy(s->slot, b->slot, tok);
    memcpy(s->seq, b->seq, tok);
    memcpy(s->page, b->page, (size_t)b->n_seq * (size_t)b->stride * sizeof(int));
    if (b->n_out)
        memcpy(s->out, b->out, (size_t)b->n_out * sizeof(int));
    put_draws(p, s, b, draw);
    if (s->placed != t->placed)
        memcpy(s->holders, t->holders, holders_bytes(p));
    s->placed = t->placed;
    t->submitted = step;
    atomic_store(&m->submitted, (uint64_t)step);
    atomic_fetch_add(&m->step_bell, 1);
    futex_wake(&m->step_bell);
    return step;
}

int team_wait(struct team *t, int64_t step, struct team_result *to, struct err *e)
{
    struct mailbox *m = t->room.mailbox;
    const struct slot *s = &m->slot[step % m->slots];
    must(step <= t->submitted && step > t->submitted - m->slots);
    *to = (struct team_result){
        .token = s->token, .top = s->top, .logits = s->logits, .n_out = s->n_out};
    return wait_done(t, step, e);
}

/* ------------------------------------------------------------------------------- figures */

void team_times(struct team *t, struct rank_time *to, bool reset)
{
    for (int r = 0; r < plan_ranks(&t->plan); r++) {
        const struct rank_state *s = &t->room.mailbox->rank[r];
        struct rank_time now = {.compute = 1e-9 * (double)atomic_load(&s->compute_ns),
                                .wait = 1e-9 * (double)atomic_load(&s->wait_ns),
                                .move = 1e-9 * (double)atomic_load(&s->move_ns),
                                .idle = 1e-9 * (double)atomic_load(&s->idle_ns),
                                .calls = atomic_load(&s->calls),
                                .bytes = atomic_load(&s->bytes),
                                .led = atomic_load(&s->led)};
        struct rank_time *old = &t->since[r];
        to[r] = (struct rank_time){.compute = now.compute - old->compute,
                                   .wait = now.wait - old->wait,
                                   .move = now.move - old->move,
                                   .idle = now.idle - old->idle,
                                   .calls = now.calls - old->calls,
                                   .bytes = now.bytes - old->bytes,
                                   .led = now.led - old->led};
        if (reset)
            *old = now;
    }
}

void team_loads(const struct team *t, uint64_t *rows, struct turn_load *turns)
{
    const struct model *m = &t->plan.model;
    const struct layer_load *load = t->room.mailbox->load;
    for (int l = 0; l < m->n_layer; l++) {
        turns[l] = (struct turn_load){0};
        for (int e = 0; e < m->experts.n; e++)
            *rows++ = load[l].rows ? atomic_load(&load[l].rows[e]) : 0;
        if (load)
            turns[l] = (struct turn_load){atomic_load(&load[l].most), atomic_load(&load[l].all)};
    }
}

struct cache_use team_cache(const struct team *t)
{
    struct cache_use sum = {0};
    for (int r = 0; r < plan_ranks(&t->plan); r++) {
        const struct cache_figures *f = &t->room.mailbox->rank[r].cache;
        sum.hits += atomic_load(&f->hits);
        sum.misses += atomic_load(&f->misses);
        sum.bytes += atomic_load(&f->bytes);
    }
    return sum;
}

uint64_t team_copied(const struct team *t)
{
    uint64_t sum = 0;
    for (int r = 0; r < plan_ranks(&t->plan); r++)
        sum += atomic_load(&t->room.mailbox->rank[r].copied);
    return sum;
}

void team_profile(const struct team *t, int rank, struct op_seconds to[OP_COUNT])
{
    const struct op_time *op = t->room.mailbox->rank[rank].op;
    for (int i = 0; i < OP_COUNT; i++)
        to[i] = (struct op_seconds){.all = 1e-9 * (double)atomic_load(&op[i].ns),
                                    .waiting = 1e-9 * (double)atomic_load(&op[i].wait_ns),
                                    .calls = atomic_load(&op[i].calls)};
}

void team_memory(const struct team *t, struct team_memory *host, struct rank_memory *rank)
{
    const struct plan *p = &t->plan;
    *host = (struct team_memory){
        .weights = t->weight_bytes, .kv = t->room.kv_bytes, .mailbox = t->room.mailbox_bytes};
    for (int r = 0; r < plan_ranks(p); r++) {
        host->scratch += t->room.rank_bytes[r];
        if (rank)
            rank[r] = (struct rank_memory){.weights = t->rank_weights[r],
                                           .kv = plan_kv_bytes(p, r),
                                           .scratch = t->gpus ? gpu_need(p, r, t->gpus).scratch
                                                              : t->room.rank_bytes[r],
                                           .core = p->core[r],
                                           .pid = t->pid[r]};
    }
}
