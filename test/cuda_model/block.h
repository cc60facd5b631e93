/* block.h - running a kernel: its clusters of blocks one after the other, their threads as fibers.
 */
#ifndef CUDA_MODEL_BLOCK_H
#define CUDA_MODEL_BLOCK_H

#include "cuda_model.h"

#include <string>

/* Of the smallest GPUs; of those that have clusters; fibers of a cluster. */
enum {
    MODEL_SHARED_MOST = 99 << 10,
    MODEL_THREADS_MOST = 1024,
    MODEL_SHARED_LARGE = 227 << 10,
    MODEL_CLUSTER_MOST = 8,
    MODEL_FIBERS = 4096
};

/* A kernel with its arguments. */
struct model_kernel {
    std::string what;
    dim3 grid, block;
    unsigned cluster; /* blocks of it, successive in x */
    bool chained;     /* its blocks say after_previous() */
    size_t shared;
    std::function<void()> thread;
};

/* Returns what went wrong, in words; empty: nothing. */
std::string model_run(const struct model_kernel *);

/* For what threads say: which one of the cluster runs, which block of it that is, where its shared
 * memory, or another block's, begins, and whether n bytes are in it. And what they must be told. */
int model_thread(void);
int model_block(void);
char *model_shared_of(int block);
void model_copies_forget(int n_thread); /* of the cluster before */
void model_groups_forget(void);
bool model_is_shared(const void *at, size_t n);
bool model_is_global(const void *at); /* the device's memory */

/* What a thread of a block does, it does after what others did before a barrier that is behind both
 * of them: barriers of the block, and __syncwarp()s of the warp, are counted. */
struct model_moment {
    int thread;
    unsigned block, kernel; /* counted by this thread of the host */
    unsigned barriers, warps;
};
bool model_now(struct model_moment *to); /* false: no thread of a block is at work */
bool model_on_stack(const void *at);     /* of that thread */

/* Who looks for races (races.cc) is told of accesses that no compiler sees; elsewhere there is no
 * such function. A copy begins, and later arrives. */
enum model_access { MODEL_READ, MODEL_WRITE, MODEL_ATOMIC, MODEL_COPY, MODEL_ARRIVE };
void model_access(const void *at, size_t n, enum model_access, const void *from)
    __attribute__((weak));

static inline void model_tell(const void *at, size_t n, enum model_access how)
{
    if (model_access)
        model_access(at, n, how, __builtin_return_address(0));
}

/* What all threads of a warpgroup do together, as model_meet() for a warp. */
enum { MODEL_GROUP = 128 };
void model_meet_group(const char *name, void (*all)(void *mine[MODEL_GROUP]), void *mine);
void model_meet_cluster(void);

/* A thread waits at `what` until somebody wakes all who do. */
void model_sleep(const void *what);
void model_wake(const void *what);

#endif
