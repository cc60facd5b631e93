/* kernels.h - what a rank does with numbers that NCCL brought: one function enqueues one kernel, as
 * dev/cuda/kernels.h has it. */
#ifndef TANDEM_NCCL_KERNELS_H
#define TANDEM_NCCL_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { NCCL_PLANES = 32 };

/* to[n] = the planes, added in the order of comm/sum.h: after plane i, adds[i] additions of the two
 * topmost terms. Numbers are f32, or (whole) 64-bit fixed point. `to` overlaps no plane.
 * need: of rows of `dim` numbers, bit i of need[row] says that plane i counts; NULL: all count. */
struct nccl_terms {
    bool whole;
    uint8_t n_plane, adds[NCCL_PLANES];
    const void *plane[NCCL_PLANES];
    const uint32_t *need;
    int dim;
};
int nccl_add(void *stream, void *to, size_t n, const struct nccl_terms *);

/* Columns lo .. lo + dim of to[n][to_dim] = from[n][dim]. */
int nccl_columns(void *stream, float *to, int to_dim, int lo, const float *from, int n, int dim);

#ifdef __cplusplus
}
#endif

#endif
