/* example.h - small kernels on which the model itself is tested. */
#ifndef CUDA_MODEL_EXAMPLE_H
#define CUDA_MODEL_EXAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* to[block] = the sum of from[block * 256 .. + 256], through shared memory; without `barrier` by
 * threads that do not wait for each other. */
int example_sum(void *stream, int *to, const int *from, int blocks, bool barrier);
/* to[16][8] = a[16][16] * b[16][8], bf16, by one warp. */
int example_multiply(void *stream, float *to, const uint16_t *a, const uint16_t *b);
/* to[8][8] = from[8][8], transposed: copied to shared memory, loaded as a matrix. Waits for its
 * copies, or does not. */
int example_transpose(void *stream, uint16_t *to, const uint16_t *from, bool wait);
/* Kernels that are wrong: half of the threads leave before a barrier; half of a warp shuffles while
 * the other half votes; shared memory behind its end is written; a copy is not aligned. */
enum example { EXAMPLE_LEAVES, EXAMPLE_DIVIDED, EXAMPLE_UNALIGNED };
int example_wrong(void *stream, enum example, const int *from);

/* 64 threads of each of two blocks, who touch the same number of to[2]: by atomics; with a barrier
 * between; in one warp with __syncwarp() between. And without any: of two warps; of one, though it
 * votes in between; of two blocks; bytes of one word, which is none. */
enum example_race {
    EXAMPLE_ATOMICS,
    EXAMPLE_BARRIER,
    EXAMPLE_SYNCWARP,
    EXAMPLE_BYTES,
    EXAMPLE_OF_WARPS,
    EXAMPLE_OF_LANES,
    EXAMPLE_OF_BLOCKS
};
int example_race(void *stream, enum example_race, int *to);

#ifdef __cplusplus
}
#endif

#endif
