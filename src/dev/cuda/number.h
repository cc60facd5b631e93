/* number.h - numbers on the GPU as the CPU makes them: exp, sums of sixteen, bf16, fixed point.
 *
 * Each function is its namesake of dev/cpu/ref.c, dev/kv.c, base/mat.h or base/whole.h, operation
 * by operation; nothing is contracted (-fmad=false, and every fused one is written).
 */
#ifndef TANDEM_CUDA_NUMBER_H
#define TANDEM_CUDA_NUMBER_H

#include "dev/cuda/gpu.h"
#include "dev/exp.h"

GPU_INLINE float num_exp(float x)
{
    x = EXP_MIN > x ? EXP_MIN : x;
    x = EXP_MAX < x ? EXP_MAX : x;
    if (x != x)
        return x;
    float n = __fadd_rn(__fmaf_rn(x, EXP_LOG2E, EXP_ROUND), -EXP_ROUND);
    float r = __fmaf_rn(n, -EXP_LN2_LO, __fmaf_rn(n, -EXP_LN2_HI, x));
    float q = __fmaf_rn(__fmaf_rn(EXP_Q4, r, EXP_Q3), r, EXP_Q2);
    q = __fmaf_rn(__fmaf_rn(q, r, EXP_Q1), r, EXP_Q0);
    float e = __fadd_rn(__fmaf_rn(__fmul_rn(r, r), q, r), 1);
    float half = __fadd_rn(__fmaf_rn(n, 0.5f, EXP_ROUND), -EXP_ROUND); /* n / 2 is exact */
    float by = __uint_as_float((uint32_t)((int)half + 127) << 23);
    float then = __uint_as_float((uint32_t)((int)(n - half) + 127) << 23);
    return __fmul_rn(__fmul_rn(e, by), then);
}

GPU_INLINE float num_sigmoid(float x) { return __fdiv_rn(1, __fadd_rn(1, num_exp(-x))); }

/* silu(gate) * up */
GPU_INLINE float num_swiglu(float gate, float up)
{
    return __fmul_rn(__fdiv_rn(gate, __fadd_rn(1, num_exp(-gate))), up);
}

/* Sixteen partial sums, one in each of sixteen neighbouring lanes of a whole warp; all get the sum.
 * Both sides of a pair add the same two numbers, so the order of the operands is no matter. */
GPU_INLINE float num_join(float s)
{
    for (int h = 8; h; h /= 2)
        s = __fadd_rn(s, __shfl_xor_sync(0xffffffffu, s, h));
    return s;
}

/* What a run is multiplied with by its norm, from the sum of its squares; and one number of it. */
GPU_INLINE float num_norm_factor(float squares, int dim, float eps)
{
    return __fdiv_rn(1, __fsqrt_rn(__fadd_rn(__fdiv_rn(squares, (float)dim), eps)));
}
GPU_INLINE float num_scaled(float x, float by, float w) { return __fmul_rn(__fmul_rn(x, by), w); }

GPU_INLINE float num_from_bf16(uint16_t b) { return __uint_as_float((uint32_t)b << 16); }

GPU_INLINE uint16_t num_to_bf16(float f)
{
    uint32_t u = __float_as_uint(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

#define NUM_WHOLE_NONE ((int64_t)((uint64_t)1 << 63))

/* f * 2^32 is exact. */
GPU_INLINE int64_t num_whole(float f)
{
    return fabsf(f) < 0x1p18f ? (int64_t)__float2ll_rn(f * 0x1p32f) : NUM_WHOLE_NONE;
}

GPU_INLINE float num_from_whole(int64_t a)
{
    return a == NUM_WHOLE_NONE ? __uint_as_float(0x7fc00000u) : __ll2float_rn(a) * 0x1p-32f;
}

#endif
