/* store.cu - heads of queries, keys and values as products made them, on their way to attention:
 * norms, rotation, and keys and values into their slots of the cache, in the CPU's bits: as
 * ref_norm() and ref_rope() of dev/cpu/ref.c, store_floats(), store_bytes() of dev/cpu/ref_kv.c and
 * kv_round() of dev/kv.c.
 *
 * A warp does a head, which lies in shared memory meanwhile.
 */
#include "dev/cuda/kernels.h"
#include "dev/cuda/number.h"
#include "dev/cuda/page.h"

enum { WARPS = 4, WARP = 32, LANES = 16 };

struct placing {
    struct gpu_kv cache;
    struct gpu_qkv of; /* angle NULL: nothing is rotated */
    const int *slot;
    int n_q; /* heads of queries, of a token; then come those of keys, then those of values */
    int wide;
    size_t values_at; /* bytes from a page's begin to its values */
};

enum kind { QUERY, KEY, VALUE, NOTHING };

/* ------------------------------------------------------------------------------- in its place */

GPU_INLINE int lane(void) { return threadIdx.x % WARP; }

GPU_INLINE void put(float *to, float f) { *to = f; }
GPU_INLINE void put(uint16_t *to, float f) { *to = num_to_bf16(f); }

/* The value's padding is written too. */
template <class NUMBER>
GPU_INLINE void put_head(const struct placing &s, NUMBER *keys, int place, bool value,
                         const float *x)
{
    const int dim = s.cache.head_dim;
    NUMBER *values = (NUMBER *)((char *)keys + s.values_at);
    for (int i = lane(); !value && i < dim; i += WARP)
        put(&keys[i * KV_PAGE + place], x[i]);
    for (int i = lane(); value && i < s.wide; i += WARP)
        put(&values[place * s.wide + i], i < dim ? x[i] : 0.0f);
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
    for (int i = lane(); i < n; i += WARP)
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

GPU_INLINE void put_head(const struct placing &s, uint8_t *page, int place, bool value,
                         const float *x)
{
    const int dim = s.cache.head_dim;
    uint16_t scale;
    const float by = factor_of(top_of(x, dim), &scale);
    for (int i = lane(); i < dim; i += WARP) {
        const size_t at = value
                              ? s.values_at + (place / 4 * s.wide + i) * 4 + byte_of(place % 4)
                              : (size_t)KV_SCALES + (i / 4 * KV_PAGE + place) * 4 + byte_of(i % 4);
        page[at] = whole(x[i], by);
    }
    if (lane() == 0)
        ((uint16_t *)page)[value * KV_PAGE + place] = scale;
}

/* ------------------------------------------------------------------------------- before */

/* Lanes 16 .. 31 add up what 0 .. 15 do. */
GPU_INLINE void norm_head(float *x, int dim, const float *w, float eps)
{
    float s = 0;
    for (int i = lane() % LANES; i < dim; i += LANES)
        s = __fmaf_rn(x[i], x[i], s);
    const float by = num_norm_factor(num_join(s), dim, eps);
    __syncwarp();
    for (int i = lane(); i < dim; i += WARP)
        x[i] = num_scaled(x[i], by, w[i]);
    __syncwarp();
}

GPU_INLINE void rotate_head(float *x, int dim, const float *angle)
{
    const int half = dim / 2;
    for (int i = lane(); i < half; i += WARP) {
        const float cosine = angle[i], sine = angle[half + i], a = x[i], b = x[half + i];
        x[i] = __fmaf_rn(a, cosine, -__fmul_rn(b, sine));
        x[half + i] = __fmaf_rn(b, cosine, __fmul_rn(a, sine));
    }
    __syncwarp();
}

/* Which head the warp does. */
GPU_INLINE enum kind kind_of(const struct placing &s, int *head)
{
    const int n = s.cache.n_head, which = blockIdx.y * WARPS + threadIdx.x / WARP;
    *head = which < s.n_q ? which : n ? (which - s.n_q) % n : 0;
    return which < s.n_q           ? QUERY
           : which < s.n_q + n     ? KEY
           : which < s.n_q + 2 * n ? VALUE
                                   : NOTHING;
}

template <class NUMBER> __global__ static void place_heads(const struct placing s)
{
    int head;
    const enum kind kind = kind_of(s, &head);
    const int dim = s.cache.head_dim, token = blockIdx.x;
    const float *norm = kind == QUERY ? s.of.q_norm : kind == KEY ? s.of.k_norm : NULL;
    prefetch_weights(norm, dim, lane(), WARP);
    after_previous();
    if (kind == NOTHING)
        return;
    float *x = gpu_shared<float>() + (size_t)(threadIdx.x / WARP) * dim;
    const int heads = kind == QUERY ? s.n_q : s.cache.n_head;
    const size_t at = ((size_t)token * heads + head) * dim;
    const float *from = (kind == QUERY ? s.of.q : kind == KEY ? s.of.k : s.of.v) + at;
#pragma unroll 4
    for (int i = lane(); i < dim; i += WARP)
        x[i] = from[i];
    __syncwarp();
    if (norm)
        norm_head(x, dim, norm, s.of.eps);
    if (kind != VALUE && s.of.angle)
        rotate_head(x, dim, s.of.angle + (size_t)token * dim);
    if (kind == QUERY) {
        for (int i = lane(); i < dim; i += WARP)
            s.of.q[at + i] = x[i];
        return;
    }
    const int slot = s.slot[token];
    char *page = s.cache.at + slot / KV_PAGE * s.cache.page_bytes + head * s.cache.head_bytes;
    put_head(s, (NUMBER *)page, slot % KV_PAGE, kind == VALUE, x);
}

/* ------------------------------------------------------------------------------- launching */

extern "C" int gpu_rope_store(void *stream, const struct gpu_kv *cache, const struct gpu_qkv *of,
                              int n, int q_dim, const int *slot)
{
    const int dim = cache->head_dim;
    const struct placing s = {*cache,      *of,           slot,
                              q_dim / dim, gpu_wide(dim), gpu_values_at(cache->type, dim)};
    const dim3 grid(n, (s.n_q + 2 * cache->n_head + WARPS - 1) / WARPS);
    const size_t shared = WARPS * (size_t)dim * sizeof(float);
    return cache->type == NUM_F32
               ? LAUNCH_CHAINED(place_heads<float>, grid, WARPS * WARP, shared, stream, s)
           : cache->type == NUM_BF16
               ? LAUNCH_CHAINED(place_heads<uint16_t>, grid, WARPS * WARP, shared, stream, s)
               : LAUNCH_CHAINED(place_heads<uint8_t>, grid, WARPS * WARP, shared, stream, s);
}

extern "C" int gpu_rope(void *stream, float *x, int n, int dim, int head_dim, const float *angle)
{
    struct gpu_kv none = {};
    struct gpu_qkv of = {};
    none.type = NUM_F32, none.head_dim = head_dim;
    of.q = x, of.angle = angle;
    return gpu_rope_store(stream, &none, &of, n, dim, NULL);
}

extern "C" int gpu_store(void *stream, const struct gpu_kv *cache, const float *k, const float *v,
                         int n, const int *slot)
{
    struct gpu_qkv of = {};
    of.k = k, of.v = v;
    return gpu_rope_store(stream, cache, &of, n, 0, slot);
}
