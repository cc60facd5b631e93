/* page.h - where the numbers of a page of the KV cache lie: dev/kv.h. */
#ifndef TANDEM_CUDA_PAGE_H
#define TANDEM_CUDA_PAGE_H

#include "base/num.h"
#include "dev/kv_page.h"

#include <stddef.h>

/* Bytes from the begin of a head's page to its values: scales and keys. */
static inline size_t gpu_values_at(enum num type, int head_dim)
{
    const size_t dim = (size_t)head_dim;
    return type == NUM_INT8 ? KV_SCALES + (dim + 3) / 4 * 4 * KV_PAGE
                            : dim * KV_PAGE * (type == NUM_F32 ? 4 : 2);
}

/* Numbers of a value as it is stored. */
static inline int gpu_wide(int head_dim) { return (head_dim + 15) / 16 * 16; }

#endif
