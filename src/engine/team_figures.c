/* team_figures.c - what a team's ranks did and hold. See team.h. */
#include "engine/team_inside.h"
#include "run/gpu.h"

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
