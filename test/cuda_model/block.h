/* block.h - running a kernel: its blocks one after the other, the threads of a block as fibers. */
#ifndef CUDA_MODEL_BLOCK_H
#define CUDA_MODEL_BLOCK_H

#include "cuda_model.h"

#include <string>

enum { MODEL_SHARED_MOST = 99 << 10, MODEL_THREADS_MOST = 1024 }; /* of the smallest GPUs */

/* A kernel with its arguments. */
struct model_kernel {
    std::string what;
    dim3 grid, block;
    size_t shared;
    std::function<void()> thread;
};

/* Returns what went wrong, in words; empty: nothing. */
std::string model_run(const struct model_kernel *);

/* For what threads of a block say: which one runs, and whether n bytes are shared memory's. And
 * what they must be told. */
int model_thread(void);
void model_copies_forget(int n_thread); /* of the block before */
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

#endif
