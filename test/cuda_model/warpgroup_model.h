/* warpgroup_model.h - the model of what compute capability 9.0 alone can do: see
 * dev/cuda/warpgroup.h, of which these are the functions.
 *
 * Barriers and clusters do what they do on a GPU, and who waits for ever is said. A bulk copy fills
 * its place with 0xff when it begins, and with what it copies when somebody has waited for its
 * barrier. A product begins when all threads of the warpgroup say so: d is NaN from then until
 * wgmma_wait(), b is read from shared memory no sooner, by what its descriptor says, and so whoever
 * looks at d, or fills b again, too early, gets other bits. Found and said: d or a written while
 * they are in use, products without wgmma_begin(), addresses and sizes that are no multiples of 16,
 * copies and matrices outside shared memory, descriptors with bits that no matrix has. Not found:
 * too many registers, and what comes of giving them away.
 */
#ifndef WARPGROUP_MODEL_H
#define WARPGROUP_MODEL_H

#include "cuda_model.h"

#define ONLY_SM90A(...) __VA_ARGS__

void barrier_begin(uint64_t *barrier, int arrivals);
static inline void barriers_begun(void) {}
void barrier_arrive(uint64_t *barrier);
void barrier_expect(uint64_t *barrier, int bytes);
void barrier_arrive_in(uint64_t *barrier, int block);
void barrier_wait(uint64_t *barrier, int parity);
void copy_bulk(void *shared, const void *global, int bytes, uint64_t *barrier);
void copy_bulk_to(void *shared, const void *global, int bytes, uint64_t *barrier, unsigned blocks);
int block_in_cluster(void);
void cluster_meet(void);
float load_from_block(const float *at, int block);
template <int N> static inline void registers_less(void) {}
template <int N> static inline void registers_more(void) {}
uint32_t gpu_shared_address(const void *at);

void wgmma_begin(void);
void wgmma_commit(void);
void model_wgmma(int n, bool by_row, float *d, const uint32_t *a, uint64_t b, bool add);
static inline void matrices_written(void) {} /* they are seen anyway */
void model_wgmma_wait(int newest);
template <int N> static inline void wgmma_wait(void) { model_wgmma_wait(N); }
template <int N> static inline void wgmma_done(float (&)[N][4]) {}
template <int N, enum bricks BY>
static inline void wgmma(float (&d)[N / 8][4], const uint32_t a[4], uint64_t b, bool add)
{
    model_wgmma(N, BY == BY_ROW, d[0], a, b, add);
}

#define LAUNCH_CLUSTERS(...) gpu_launch_clusters(#__VA_ARGS__, __VA_ARGS__)

template <class... Takes, class... Gets>
static inline int gpu_launch_clusters(const char *what, void (*kernel)(Takes...), unsigned cluster,
                                      dim3 grid, dim3 block, size_t shared, void *stream,
                                      Gets... arguments)
{
    return model_enqueue(
        what, grid, block, shared, stream, [=] { kernel(arguments...); }, cluster, true);
}

#endif
