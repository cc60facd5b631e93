/* store.cu - keys and values into their slots of the cache, in the CPU's bits: as store_floats(),
 * store_bytes() of dev/cpu/ref_kv.c and kv_round() of dev/kv.c.
 */
#include "dev/cuda/kernels.h"
#include "dev/cuda/number.h"
#include "dev/cuda/page.h"

enum { THREADS = 128, WARP = 32 };

struct storing {
    struct gpu_kv cache;
    const float *k, *v;
    const int *slot;
    int wide;
    size_t values_at; /* bytes from a page's begin to its values */
};

/* The page of this block's token and head. */
GPU_INLINE char *page_of(const struct storing *s)
{
    const size_t page = s->slot[blockIdx.x] / KV_PAGE;
    return s->cache.at + page * s->cache.page_bytes + blockIdx.y * s->cache.head_bytes;
}

GPU_INLINE size_t from_at(const struct storing *s)
{
    return ((size_t)blockIdx.x * s->cache.n_head + blockIdx.y) * s->cache.head_dim;
}

GPU_INLINE void put(float *to, float f) { *to = f; }
GPU_INLINE void put(uint16_t *to, float f) { *to = num_to_bf16(f); }

/* A block for each token and head. The value's padding is written too. */
template <class NUMBER> __global__ static void store_floats(struct storing s)
{
    after_previous();
    const int lane = s.slot[blockIdx.x] % KV_PAGE, dim = s.cache.head_dim;
    NUMBER *keys = (NUMBER *)page_of(&s), *values = (NUMBER *)(page_of(&s) + s.values_at);
    const float *k = s.k + from_at(&s), *v = s.v + from_at(&s);
    for (int i = threadIdx.x; i < s.wide; i += THREADS) {
        if (i < dim)
            put(&keys[i * KV_PAGE + lane], k[i]);
        put(&values[lane * s.wide + i], i < dim ? v[i] : 0.0f);
    }
}

/* What numbers are multiplied with to become whole; 0: all are 0. */
GPU_INLINE float factor_of(float top, uint16_t *scale)
{
    *scale = top != top ? 0x7fc0 : 0;
    if (!(top >= 1e-30f))
        return 0;
    *scale = (uint16_t)((__float_as_uint(__fdiv_rn(top, 127)) + 0xffff) >> 16);
    return __fdiv_rn(1, num_from_bf16(*scale));
}

GPU_INLINE float top_of(const float *x, int n)
{
    uint32_t top = 0;
    for (int i = threadIdx.x % WARP; i < n; i += WARP)
        top = max(top, __float_as_uint(x[i]) & 0x7fffffffu);
    for (int h = WARP / 2; h; h /= 2)
        top = max(top, __shfl_xor_sync(0xffffffffu, top, h));
    return __uint_as_float(top < 0x7f800000u ? top : 0x7fc00000u);
}

GPU_INLINE uint8_t whole(float x, float by)
{
    const uint32_t q = by != 0 ? __float_as_uint(__fadd_rn(__fmul_rn(x, by), 0x1.8p23f)) : 0;
    return (uint8_t)(q + 128);
}

GPU_INLINE int byte_of(int k) { return (k & 1) << 1 | k >> 1; } /* kv_byte() */

/* A block for each token and head: a warp for its key, one for its value. */
__global__ static void store_bytes(struct storing s)
{
    after_previous();
    const int lane = s.slot[blockIdx.x] % KV_PAGE, dim = s.cache.head_dim;
    const bool value = threadIdx.x >= WARP;
    const float *x = (value ? s.v : s.k) + from_at(&s);
    uint8_t *page = (uint8_t *)page_of(&s);
    uint16_t scale;
    const float by = factor_of(top_of(x, dim), &scale);
    for (int i = threadIdx.x % WARP; i < dim; i += WARP) {
        const size_t at = value ? s.values_at + (lane / 4 * s.wide + i) * 4 + byte_of(lane % 4)
                                : (size_t)KV_SCALES + (i / 4 * KV_PAGE + lane) * 4 + byte_of(i % 4);
        page[at] = whole(x[i], by);
    }
    if (threadIdx.x % WARP == 0)
        ((uint16_t *)page)[value * KV_PAGE + lane] = scale;
}

extern "C" int gpu_store(void *stream, const struct gpu_kv *cache, const float *k, const float *v,
                         int n, const int *slot)
{
    const struct storing s = {
        *cache, k, v, slot, gpu_wide(cache->head_dim), gpu_values_at(cache->type, cache->head_dim)};
    const dim3 grid(n, cache->n_head);
    return cache->type == NUM_F32 ? LAUNCH_CHAINED(store_floats<float>, grid, THREADS, 0, stream, s)
           : cache->type == NUM_BF16
               ? LAUNCH_CHAINED(store_floats<uint16_t>, grid, THREADS, 0, stream, s)
               : LAUNCH_CHAINED(store_bytes, grid, 2 * WARP, 0, stream, s);
}
