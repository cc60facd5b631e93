/* attend.cu - which kernels attend. See attend_bf16.h for the arithmetic over a bf16 cache; all
 * others give the CPU's bits.
 */
#include "dev/cuda/attend_kernels.h"

enum { TENSOR_DIM = 256 }; /* the widest head that tensor cores do */

static struct attending attending_of(float *y, const float *q, int dim, const struct gpu_kv *cache,
                                     const struct gpu_heads *heads, const struct gpu_batch *batch)
{
    struct attending a = {};
    a.y = y, a.q = q, a.dim = dim, a.n_head = dim / heads->head_dim;
    a.values_at = gpu_values_at(cache->type, heads->head_dim);
    a.wide = gpu_wide(heads->head_dim);
    a.segments = 1;
    a.cache = *cache, a.heads = *heads, a.batch = *batch;
    return a;
}

/* Where there are no more tokens than sequences, each counts as a run of its own: that is true, or
 * no matter, for no row depends on another one. */
extern "C" int gpu_attend(void *stream, float *y, const float *q, int dim,
                          const struct gpu_kv *cache, const struct gpu_heads *heads,
                          const struct gpu_batch *batch, const struct gpu_room *room)
{
    struct attending a = attending_of(y, q, dim, cache, heads, batch);
    const bool alone = batch->n_tok <= batch->n_seq;
    if (!batch->n_tok || !a.n_head)
        return 0;
    if (cache->type != NUM_BF16 || heads->head_dim > TENSOR_DIM)
        return attend_exactly(stream, &a, room);
    const int error = attend_short_runs(stream, &a, alone, room);
    if (error || alone)
        return error;
    return (room->warpgroups & WARPGROUP_ATTENTION) && attend_wgmma_takes(&a)
               ? attend_wgmma(stream, &a)
               : attend_long_runs(stream, &a);
}
