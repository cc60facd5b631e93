/* rank_main.c - see keeper_inside.h. */
#include "comm/delay.h"
#include "comm/shm.h"
#include "engine/keeper_inside.h"
#include "run/load.h"
#include "run/work.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SPINS_OWN_CORE = 4000, SPINS_SHARED_CORE = 20 };

static void pin(int core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (core < 0)
        return;
    CPU_SET((size_t)core, &set);
    sched_setaffinity(0, sizeof(set), &set); /* a wish: a cgroup may forbid the core */
}

size_t rank_tables(const struct keeper *k, int rank)
{
    struct rank r;
    struct arena tables = {0}, dev = {0}, peer = {0};
    if (k->gpus)
        return gpu_tables(k->p, rank) + ARENA_ALIGN;
    rank_lay_out(&r, k->p, rank, &tables, &dev, &peer);
    weights_view(&r.weights, &k->whole, k->p, rank, &tables);
    return tables.used + ARENA_ALIGN;
}

/* The same group over a slower link, when one was asked for. */
static void slow_down(struct keeper *k, struct comm *c)
{
    if (!k->link || c->size == 1)
        return;
    struct comm *inner = pool_get(&k->pool, sizeof(*inner));
    *inner = *c;
    comm_delay_open(c, pool_get(&k->pool, sizeof(struct comm_delay)), inner, *k->link);
}

static void open_groups(struct keeper *k, int id, struct comm *tp, struct comm *pp, struct wait w)
{
    const struct plan *p = k->p;
    struct room *room = k->room;
    int stage = plan_stage(p, id), slice = plan_slice(p, id);
    char *peer[SHARES_MAX] = {0};
    struct comm_shm *ctx = pool_get(&k->pool, 2 * sizeof(*ctx));

    for (int i = 0; i < p->tp; i++)
        peer[i] = room->rank[stage * p->tp + i].peer.base;
    *tp = (struct comm){.ops = &comm_self, .size = 1};
    *pp = (struct comm){.ops = &comm_self, .size = 1};
    if (p->tp > 1)
        comm_shm_open(tp, &ctx[0], room->tp_state[stage], slice, p->tp, p->cut, peer,
                      room->rank[id].peer.size, 0, w);
    if (p->pp > 1)
        comm_shm_open(pp, &ctx[1], room->pp_state[slice], stage, p->pp, NULL, NULL, 0,
                      room->outbox_bytes, w);
    slow_down(k, tp);
    slow_down(k, pp);
}

/* A rank that cannot start says why. */
static _Noreturn void give_up(struct rank_state *state, const struct err *e)
{
    snprintf(state->why, sizeof(state->why), "%s", e->text);
    _exit(1);
}

/* The rank in the host's memory: a view of the one copy of the weights. `threads` lies in the
 * rank's part of the room, and with a GPU is all that does. */
static void open_host(struct keeper *k, struct rank *r, struct dev *threads, struct arena *host,
                      struct err *e)
{
    const struct plan *p = k->p;
    const int id = r->id;
    struct arena *dev = &k->room->rank[id].dev, *peer = &k->room->rank[id].peer;
    if (touch_memory(dev->base, dev->size, e) || touch_memory(peer->base, peer->size, e))
        give_up(&k->room->mailbox->rank[id], e);
    if (!k->gpus) {
        rank_lay_out(r, p, id, host, dev, peer);
        rank_bind(r, &k->whole, k->room->kv, host);
    }
    dev_cpu_init(threads, k->isa, k->gpus ? 1 : p->max_tok, k->gpus ? 1 : rank_max_dim(p),
                 p->threads, dev);
    must(dev->used == dev->size && peer->used == peer->size);
}

/* The rank on its GPU. */
static void open_gpu(struct keeper *k, struct rank *r, int id, struct gpu_rank *gpu,
                     struct dev *threads, struct arena *host)
{
    struct rank_state *state = &k->room->mailbox->rank[id];
    const struct gpu_start start = {.gpus = k->gpus,
                                    .profile = k->profile,
                                    .whole = &k->whole,
                                    .host = threads,
                                    .kept = gpu_keepers_kept(&k->keepers),
                                    .complete = &state->complete,
                                    .copied = &state->copied,
                                    .lies = state->lies,
                                    .load = k->room->mailbox->load};
    struct err e;
    if (gpu_rank_open(gpu, r, k->p, id, &start, host, &e))
        give_up(state, &e);
    if (keeper_drops(k))
        munmap(k->base, k->bytes);
}

static void join_gpus(struct keeper *k, const struct rank *r, struct gpu_rank *gpu, struct comm *tp,
                      struct comm *pp, struct wait w)
{
    const struct room *room = k->room;
    struct err e;
    if (gpu_rank_join(gpu, r, room->tp_state[plan_stage(k->p, r->id)],
                      room->pp_state[plan_slice(k->p, r->id)], w, tp, pp, &e))
        give_up(&room->mailbox->rank[r->id], &e);
}

_Noreturn void rank_main(struct keeper *k, int id)
{
    const struct plan *p = k->p;
    struct room *room = k->room;
    struct mailbox *m = room->mailbox;
    bool own_core = p->core[id] >= 0;
    struct wait w = {.stop = &m->stop, .spins = own_core ? SPINS_OWN_CORE : SPINS_SHARED_CORE};
    struct arena host = host_arena(&k->pool, rank_tables(k, id));
    struct rank r = {.id = id};
    struct gpu_rank gpu;
    struct dev threads = {0}, profiled;
    struct dev *dev = k->gpus ? &gpu.dev : &threads;
    struct profile profile = {.inner = dev, .op = m->rank[id].op};
    struct comm tp, pp;
    struct expert_cache cache;
    struct err e;
    int core[PLAN_THREADS];

    pin(p->core[id]);
    open_host(k, &r, &threads, &host, &e);
    host_run(k->host, p->core[id], p->threads, core);
    dev_cpu_start(&threads, core);
    if (k->gpus) {
        open_gpu(k, &r, id, &gpu, &threads, &host);
        join_gpus(k, &r, &gpu, &tp, &pp, w);
    } else {
        open_groups(k, id, &tp, &pp, w);
    }
    r.dev = dev, r.tp = &tp, r.pp = &pp, r.host = &threads;
    if (k->profile) {
        dev_profile_init(&profiled, &profile);
        r.dev = &profiled;
        r.host = k->gpus ? &threads : &profiled;
    }

    if (k->expert_cache) {
        cache_open(&cache, p, &r.weights, k->expert_cache / (size_t)k->n_rank, &m->rank[id].cache,
                   &k->pool);
        r.turns.cache = &cache;
    }

    atomic_store(&m->rank[id].ready, 1);
    rank_work(&r, m, w.spins, room->rank[id].scratch);
    _exit(atomic_load(&m->stop) ? 0 : 1);
}
