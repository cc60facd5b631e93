/* keeper_inside.h - what the keeper knows, for itself and for the ranks that are its forks. */
#ifndef TANDEM_KEEPER_INSIDE_H
#define TANDEM_KEEPER_INSIDE_H

#include "engine/gpu_keeper.h"
#include "engine/keeper.h"

struct keeper {
    const struct plan *p;
    struct room *room;
    const struct host *host;
    enum isa isa;
    bool profile;
    const struct link *link; /* NULL: none */
    const struct gpus *gpus; /* NULL: ranks compute on the host */
    struct gpu_keepers keepers;
    size_t expert_cache; /* bytes, 0: all stay in memory */
    int fd, n_rank;
    struct pool pool;
    struct weights whole;
    char *base;
    size_t bytes;
    int pages_touched;
    pid_t pid[PLAN_RANKS], toucher;
};

/* Weights that GPUs have are read here no more, but for experts that move to other GPUs. */
static inline bool keeper_drops(const struct keeper *k)
{
    return k->gpus && k->base && !k->p->slots;
}

/* An arena of the pool large enough for what a measuring run needed. */
static inline struct arena host_arena(struct pool *pool, size_t bytes)
{
    bytes += ARENA_ALIGN;
    char *at = pool_get(pool, bytes);
    size_t skip = (size_t)(-(uintptr_t)at % ARENA_ALIGN);
    return (struct arena){.base = at + skip, .size = bytes - skip};
}

/* Bytes of it that say where a rank's tensors are. */
size_t rank_tables(const struct keeper *k, int rank);

/* The life of a rank, in a fork of the keeper: it opens its device and its groups, says that it is
 * ready, and works until the mailbox ends. What keeps it from starting stands in its rank_state. */
_Noreturn void rank_main(struct keeper *k, int id);

#endif
