/* gpu_keeper.h - processes that own memory of GPUs, one for each GPU of a team, so that weights and
 * caches there outlive a rank.
 *
 * Such a process only takes the memory, hands out its descriptors and then waits: it runs no
 * kernel, has no context, and what happens to a rank on the GPU does not touch it. It ends with the
 * keeper that started it, by whatever death. The keeper holds the descriptors, and ranks, which are
 * its forks, map what they name (run/gpu.h).
 */
#ifndef TANDEM_GPU_KEEPER_H
#define TANDEM_GPU_KEEPER_H

#include "run/gpu.h"

#include <sys/types.h>

struct gpu_keepers {
    int n; /* 0: nothing is kept */
    struct {
        int fd, ranks;
        pid_t pid;
    } of[GPUS];
    struct gpu_kept kept[PLAN_RANKS];
};

/* Start them, when all GPUs of the plan's ranks can share memory; otherwise say so in one line on
 * standard error and start none. */
int gpu_keepers_start(struct gpu_keepers *k, const struct plan *p, const struct gpus *g,
                      struct err *e);

/* Wait for what they have. -ENOMEM: too little memory, with how much is missing; when memory cannot
 * be kept for another reason, that is said and nothing is kept. */
int gpu_keepers_take(struct gpu_keepers *k, struct err *e);

/* The memory of ranks that start now; NULL: their own. */
const struct gpu_kept *gpu_keepers_kept(const struct gpu_keepers *k);

/* A process has died; if it was one of these, nothing is kept any more, and that is said. Ranks
 * that map the memory work on. */
void gpu_keepers_died(struct gpu_keepers *k, pid_t pid);

void gpu_keepers_kill(struct gpu_keepers *k);

#endif
