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

#endif
