/* peer.c - see peer.h. Finds out what a kernel is to do, and enqueues it. */
#include "comm/peer/peer.h"
#include "comm/shots.h"

#include <unistd.h>

enum { ALIGN = 256 };

static size_t state_bytes(void) { return round_up(sizeof(struct peer_state), ALIGN); }

size_t comm_peer_bytes(size_t outbox_bytes)
{
    return state_bytes() + PEER_SLOTS * round_up(outbox_bytes, ALIGN);
}

static char *outbox_of(const struct comm_peer *p, int rank)
{
    return p->memory[rank] + state_bytes();
}

static size_t slot_bytes(const struct comm_peer *p)
{
    return round_up(p->opts.outbox_bytes, ALIGN);
}

/* ------------------------------------------------------------------------------- calls */

/* Whether a call enqueues anything, which note() then ends; it counts anyway. */
static bool enqueues(struct comm *c, const char *what, size_t read_bytes)
{
    const struct comm_peer *p = c->ctx;
    const bool does = !p->opts.replays || !*p->opts.replays;
    c->calls++;
    c->bytes += read_bytes;
    if (does)
        gpu_span_begin(what);
    return does;
}

static void note(struct comm *c, int code)
{
    struct comm_peer *p = c->ctx;
    gpu_span_end();
    if (!code)
        return;
    p->code = code;
    c->err = -EIO;
}

/* What lies where m lies here in the arena of another rank. */
static void *of_peer(const struct comm *c, int rank, const struct mat *m)
{
    const struct comm_peer *p = c->ctx;
    const char *arena = p->memory[c->rank] + p->arena;
    size_t at = (size_t)((char *)m->at - arena), bytes = mat_bytes(m);
    must((char *)m->at >= arena && at <= p->opts.peer_bytes && bytes <= p->opts.peer_bytes - at);
    return p->memory[rank] + p->arena + at;
}

static size_t numbers(const struct mat *m) { return (size_t)m->n * (size_t)m->dim; }

/* Where the parts of a two-shot sum begin: multiples of 16 numbers. */
static size_t part_begins(size_t n, int size, int r)
{
    size_t at = (n + 15) / 16 * (size_t)r / (size_t)size * 16;
    return at < n ? at : n;
}

/* ------------------------------------------------------------------------------- sums */

/* The planes of all ranks and how they are added. */
static void find_planes(const struct comm *c, const struct mat *to, const struct planes *from,
                        struct peer_job *x)
{
    const struct comm_peer *p = c->ctx;
    x->whole = to->type == NUM_I64;
    must(x->whole ? from->n == 1 : p->sum.n_plane > 0 && from->n == p->sum.planes_of[c->rank]);
    for (int r = 0; r < c->size; r++)
        for (int i = 0; i < (x->whole ? 1 : p->sum.planes_of[r]); i++) {
            const struct mat plane = {to->n, to->dim, to->type, from->at[i].at};
            x->plane[x->n_plane++] = of_peer(c, r, &plane);
        }
    for (int i = 0; i < x->n_plane; i++)
        x->adds[i] = x->whole ? i > 0 : p->adds[i];
    for (int i = 0; i < from->n; i++)
        must(from->at[i].n == to->n && from->at[i].dim == to->dim && from->at[i].type == to->type);
}

static void find_mats(const struct comm *c, const struct mat *m, struct peer_job *x)
{
    for (int r = 0; r < c->size; r++)
        x->mat[r] = of_peer(c, r, m);
    x->n = numbers(m);
}

/* Bytes of other ranks that adding so many numbers reads. */
static size_t others_bytes(const struct comm *c, const struct peer_job *x)
{
    const struct comm_peer *p = c->ctx;
    int mine = x->whole ? 1 : p->sum.planes_of[c->rank];
    return (x->hi - x->lo) * (size_t)(x->n_plane - mine) * (x->whole ? 8 : sizeof(float));
}

static void run(struct comm *c, const char *what, const struct peer_job *x, size_t read_bytes)
{
    const struct comm_peer *p = c->ctx;
    if (enqueues(c, what, read_bytes))
        note(c, peer_exchange(p->opts.stream, &p->view, x));
}

/* That the planes are complete is said by their place in the stream. */
static void peer_begin(struct comm *c)
{
    struct comm_peer *p = c->ctx;
    must(p->n_begun < COMM_SUMS);
    p->n_begun++;
}

static void peer_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    struct comm_peer *p = c->ctx;
    struct peer_job x = {.add = true, .copy = comm_peer_two_shot(c->size, mat_bytes(to))};
    size_t n = numbers(to), copied = 0;

    must(p->n_begun > 0);
    p->n_begun--;
    find_planes(c, to, from, &x);
    find_mats(c, to, &x);
    x.hi = n;
    if (x.copy) {
        for (int r = 0; r <= c->size; r++)
            x.bound[r] = part_begins(n, c->size, r);
        x.lo = x.bound[c->rank], x.hi = x.bound[c->rank + 1];
        copied = (n - (x.hi - x.lo)) * num_bytes(to->type);
    }
    run(c, "sum", &x, others_bytes(c, &x) + copied);
}

static void peer_scatter_sum(struct comm *c, struct mat *to, const struct planes *from)
{
    struct peer_job x = {.add = true};
    struct span mine = share(to->n, c->size, c->rank);
    size_t dim = (size_t)to->dim;

    find_planes(c, to, from, &x);
    x.mat[c->rank] = to->at;
    x.n = numbers(to) / (size_t)c->size;
    x.lo = (size_t)mine.lo * dim, x.hi = (size_t)mine.hi * dim;
    run(c, "scatter-sum", &x, others_bytes(c, &x));
}

static void peer_gather(struct comm *c, struct mat *m)
{
    struct peer_job x = {.copy = true, .whole = m->type == NUM_I64};
    size_t mine = (size_t)len(share(m->n, c->size, c->rank));

    must(m->type == NUM_F32 || m->type == NUM_I64);
    find_mats(c, m, &x);
    for (int r = 0; r < c->size; r++)
        x.bound[r + 1] = (size_t)share(m->n, c->size, r).hi * (size_t)m->dim;
    run(c, "gather", &x, ((size_t)m->n - mine) * (size_t)m->dim * num_bytes(m->type));
}

/* ------------------------------------------------------------------------------- rows */

static struct peer_rows find_rows(const struct comm *c, const struct mat *m, const uint32_t *need)
{
    struct peer_rows x = {.row_bytes = (size_t)m->dim * num_bytes(m->type), .need = need};
    for (int r = 0; r < c->size; r++) {
        x.first[r + 1] = share(m->n, c->size, r).hi;
        x.mat[r] = of_peer(c, r, m);
    }
    return x;
}

/* Which rows travel only the GPU knows: their bytes are not counted. */
static void peer_rows_out(struct comm *c, struct mat *m, const uint32_t *need)
{
    const struct comm_peer *p = c->ctx;
    const struct peer_rows x = find_rows(c, m, need);
    if (enqueues(c, "dispatch", 0))
        note(c, peer_dispatch(p->opts.stream, &p->view, &x));
}

static void peer_rows_back(struct comm *c, struct mat *to, const struct mat *from,
                           const uint32_t *need)
{
    const struct comm_peer *p = c->ctx;
    const struct peer_rows x = find_rows(c, from, need);
    if (enqueues(c, "combine", 0))
        note(c, peer_combine(p->opts.stream, &p->view, &x, to->at));
}

/* ------------------------------------------------------------------------------- no sums */

static void peer_bits(struct comm *c, struct mat *to, const struct mat *from)
{
    const struct comm_peer *p = c->ctx;
    const uint32_t *all[PEER_RANKS];

    must(to->type == NUM_F32 && numbers(to) == numbers(from) && to->at != from->at);
    for (int r = 0; r < c->size; r++)
        all[r] = of_peer(c, r, from);
    if (enqueues(c, "merge", mat_bytes(from) * (size_t)(c->size - 1)))
        note(c, peer_merge(p->opts.stream, &p->view, to->at, all, numbers(from)));
}

static void peer_columns(struct comm *c, struct mat *to, const struct mat *from, const int *col)
{
    const struct comm_peer *p = c->ctx;
    float *root = of_peer(c, 0, to);

    must(from->dim == col[c->rank + 1] - col[c->rank] && to->dim == col[c->size]);
    must(to->n == from->n && from->type == NUM_F32);
    if (enqueues(c, "join", c->rank ? mat_bytes(from) : 0))
        note(c, peer_join(p->opts.stream, &p->view, root, to->dim, col[c->rank], from->at, from->n,
                          from->dim));
}

/* ------------------------------------------------------------------------------- messages */

static void check_message(const struct comm *c, int peer, const struct mat *m)
{
    const struct comm_peer *p = c->ctx;
    must(0 <= peer && peer < c->size && peer != c->rank);
    must(mat_bytes(m) <= p->opts.outbox_bytes && mat_bytes(m) % 4 == 0);
}

static void peer_message_out(struct comm *c, int peer, const struct mat *m)
{
    const struct comm_peer *p = c->ctx;
    check_message(c, peer, m);
    if (enqueues(c, "send", 0))
        note(c, peer_send(p->opts.stream, &p->view, peer, outbox_of(p, c->rank), slot_bytes(p),
                          m->at, mat_bytes(m)));
}

static void peer_message_in(struct comm *c, int peer, struct mat *m)
{
    const struct comm_peer *p = c->ctx;
    check_message(c, peer, m);
    if (enqueues(c, "recv", mat_bytes(m)))
        note(c, peer_recv(p->opts.stream, &p->view, peer, outbox_of(p, peer), slot_bytes(p), m->at,
                          mat_bytes(m)));
}

/* ------------------------------------------------------------------------------- the group */

int comm_peer_meet(struct comm_peer *p) { return peer_meet(p->opts.stream, &p->view); }

static void peer_end(struct comm *c)
{
    const struct comm_peer *p = c->ctx;
    if (!c->err && *(const volatile uint32_t *)p->failed)
        c->err = -ECANCELED;
}

static const struct comm_ops comm_peer_ops = {
    .name = "peer",
    .begin = peer_begin,
    .sum = peer_sum,
    .scatter_sum = peer_scatter_sum,
    .gather = peer_gather,
    .dispatch = peer_rows_out,
    .combine = peer_rows_back,
    .merge = peer_bits,
    .join = peer_columns,
    .send = peer_message_out,
    .recv = peer_message_in,
    .end = peer_end,
};

static int words_for_kernels(struct comm_peer *p)
{
    void *failed = NULL, *seen = NULL;
    int rc = gpu_pinned(&failed, sizeof(uint32_t));
    if (rc)
        return rc;
    p->failed = failed;
    *p->failed = 0;
    p->view.failed = p->failed;
    p->view.stop = p->failed; /* nobody's stop word: never raised before */
    if (!p->opts.wait.stop)
        return 0;
    p->shown = (uint32_t *)(uintptr_t)p->opts.wait.stop;
    rc = gpu_show(&seen, p->shown, sizeof(uint32_t));
    p->view.stop = seen;
    return rc;
}

/* Tell the others where this rank's memory is, once its state is clear. */
static int tell(struct comm_peer *p)
{
    const struct comm_peer_opts *o = &p->opts;
    struct peer_card *card = &o->card[o->rank];
    int rc = gpu_clear(o->memory, state_bytes(), o->stream);
    if (!rc)
        rc = gpu_wait(o->stream);
    if (!rc && !p->kept)
        rc = gpu_handle(&card->handle, o->memory);
    if (rc)
        return rc;
    card->pid = (int)getpid();
    card->at = o->memory;
    card->bytes = p->arena + o->peer_bytes;
    atomic_store_explicit(&card->told, 1, memory_order_release);
    return 0;
}

static int find(struct comm_peer *p, int r, struct err *e)
{
    const struct comm_peer_opts *o = &p->opts;
    struct peer_card *card = &o->card[r];
    void *at = NULL;
    if (!wait_for(&o->wait, &card->told, 1))
        return err_set(e, -ECANCELED, "stopped while ranks were starting");
    int rc = 0;
    if (card->pid == (int)getpid())
        at = card->at;
    else
        rc = p->kept ? gpu_kept_map(&at, o->kept[r], card->bytes) : gpu_map(&at, &card->handle);
    if (rc)
        return err_set(
            e, -EOPNOTSUPP,
            "rank %d cannot reach the GPU memory of rank %d (%s): put both on one GPU, or "
            "on GPUs with peer access (tandem topo shows links)",
            o->rank, r, gpu_error(rc));
    p->memory[r] = at;
    return 0;
}

int comm_peer_open(struct comm *c, struct comm_peer *p, const struct comm_peer_opts *o,
                   struct err *e)
{
    must(1 < o->size && o->size <= PEER_RANKS && 0 <= o->rank && o->rank < o->size);
    must((uintptr_t)o->memory % 16 == 0);
    *p = (struct comm_peer){
        .opts = *o, .kept = o->kept, .arena = comm_peer_bytes(o->outbox_bytes) + o->room_bytes};
    if (o->cut) {
        sum_compile(&p->sum, o->size, o->cut);
        sum_adds(&p->sum, p->adds);
    }
    int rc = words_for_kernels(p);
    if (!rc)
        rc = tell(p);
    if (rc)
        return err_set(e, -EIO, "rank %d cannot share its GPU's memory: %s", o->rank,
                       gpu_error(rc));
    p->memory[o->rank] = o->memory;
    for (int r = 0; r < o->size && !rc; r++)
        if (r != o->rank)
            rc = find(p, r, e);
    p->view.rank = o->rank, p->view.size = o->size;
    for (int r = 0; r < o->size && !rc; r++)
        p->view.state[r] = (struct peer_state *)(void *)p->memory[r];
    *c = (struct comm){.ops = &comm_peer_ops, .rank = o->rank, .size = o->size, .ctx = p};
    return rc;
}

void comm_peer_close(struct comm_peer *p)
{
    for (int r = 0; r < p->opts.size; r++) {
        const struct peer_card *card = &p->opts.card[r];
        if (!p->memory[r] || card->pid == (int)getpid())
            continue;
        p->kept ? gpu_kept_unmap(p->memory[r], card->bytes) : gpu_unmap(p->memory[r]);
    }
    if (p->shown)
        gpu_hide(p->shown);
    if (p->failed)
        gpu_pinned_free(p->failed);
}
