/* draws.h - how tokens are to be drawn, on its way to the GPU. */
#ifndef TANDEM_CUDA_DRAWS_H
#define TANDEM_CUDA_DRAWS_H

#include "dev/cuda/kernels.h"
#include "dev/draw.h"

/* Bytes of what a step of so many rows takes along at most, of a vocabulary of so many words. */
size_t draws_bytes(int max_out, int max_seq, int ctx, int words);

/* Which kernels are needed for it, as a number of so many bits. */
enum { DRAWS_KIND_BITS = 4 };
static inline int draws_kind(const struct gpu_draw_rows *r)
{
    return r->any | r->rules << 1 | r->warm << 2 | r->ranked << 3;
}

/* Write it to `to`, which is at a multiple of 8 and will be at `there` on the device; returns the
 * bytes. Where things begin follows from d->n alone, so that a recording finds them. */
size_t draws_put(struct gpu_draw_rows *out, char *to, const char *there, const struct draw_rows *d,
                 int words);

#endif
