/* vec_avx2.h - sixteen floats as two registers of eight; the words that kern.inc is written in.
 *
 * Needs AVX2, FMA and F16C. vec_avx512.h has the same words.
 */
#ifndef TANDEM_VEC_AVX2_H
#define TANDEM_VEC_AVX2_H

#include "base/whole.h"
#include "dev/cpu/vec_x86.h"

struct vec {
    __m256 lo, hi; /* lanes 0..7, 8..15 */
};

/* The widest tile, and how many row blocks go with mt rows of x. Six rows are 12 accumulators of 16
 * registers, and then pairs of bf16 do not fit: five are as fast for f32 and 1.2x for bf16. */
enum { TILE_TOK = 5 };
INLINE int tile_blocks(int mt) { return mt == 1 ? 4 : mt <= 3 ? 2 : 1; }

/* T(row blocks, rows of x) for all that tile_blocks() and its halves name. */
#define TILES(T) T(4, 1) T(2, 1) T(1, 1) T(2, 2) T(1, 2) T(2, 3) T(1, 3) T(1, 4) T(1, 5)

INLINE struct vec v_set(float f) { return (struct vec){_mm256_set1_ps(f), _mm256_set1_ps(f)}; }

INLINE struct vec v_load(const float *at)
{
    return (struct vec){_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)};
}

INLINE void v_store(float *at, struct vec v)
{
    _mm256_storeu_ps(at, v.lo);
    _mm256_storeu_ps(at + 8, v.hi);
}

/* All ones in the lanes from `base` on that are below n. */
INLINE __m256i v_below(int n, int base)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n - base), lane);
}

/* The first n lanes; the others are 0, or not written. */
INLINE struct vec v_load_n(const float *at, int n)
{
    return (struct vec){_mm256_maskload_ps(at, v_below(n, 0)),
                        n > 8 ? _mm256_maskload_ps(at + 8, v_below(n, 8)) : _mm256_setzero_ps()};
}

INLINE void v_store_n(float *at, struct vec v, int n)
{
    _mm256_maskstore_ps(at, v_below(n, 0), v.lo);
    if (n > 8)
        _mm256_maskstore_ps(at + 8, v_below(n, 8), v.hi);
}

/* v in lanes [from, to), other elsewhere. */
INLINE struct vec v_only(struct vec v, int from, int to, float other)
{
    __m256i lo = _mm256_andnot_si256(v_below(from, 0), v_below(to, 0));
    __m256i hi = _mm256_andnot_si256(v_below(from, 8), v_below(to, 8));
    __m256 o = _mm256_set1_ps(other);
    return (struct vec){_mm256_blendv_ps(o, v.lo, _mm256_castsi256_ps(lo)),
                        _mm256_blendv_ps(o, v.hi, _mm256_castsi256_ps(hi))};
}

#define V_BY_HALVES(name, op)                                                                      \
    INLINE struct vec name(struct vec a, struct vec b)                                             \
    {                                                                                              \
        return (struct vec){op(a.lo, b.lo), op(a.hi, b.hi)};                                       \
    }
V_BY_HALVES(v_add, _mm256_add_ps)
V_BY_HALVES(v_sub, _mm256_sub_ps)
V_BY_HALVES(v_mul, _mm256_mul_ps)
V_BY_HALVES(v_div, _mm256_div_ps)
V_BY_HALVES(v_max, _mm256_max_ps) /* b where one is a NaN */
V_BY_HALVES(v_min, _mm256_min_ps)
#undef V_BY_HALVES

INLINE struct vec v_fma(struct vec a, struct vec b, struct vec c)
{
    return (struct vec){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

INLINE struct vec v_fms(struct vec a, struct vec b, struct vec c) /* a * b - c */
{
    return (struct vec){_mm256_fmsub_ps(a.lo, b.lo, c.lo), _mm256_fmsub_ps(a.hi, b.hi, c.hi)};
}

/* n whole, -126 .. 127. The sum has n + 127 in its lowest bits. */
INLINE __m256 power_of_2(__m256 n)
{
    __m256 sum = _mm256_add_ps(n, _mm256_set1_ps(0x1.8p23f + 127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(sum), 23));
}

/* In two steps: 2^n may be subnormal, or too large for a number. */
INLINE __m256 times_power_of_2(__m256 v, __m256 n)
{
    __m256 round = _mm256_set1_ps(0x1.8p23f);
    __m256 half = _mm256_sub_ps(_mm256_fmadd_ps(n, _mm256_set1_ps(0.5f), round), round);
    return _mm256_mul_ps(_mm256_mul_ps(v, power_of_2(half)), power_of_2(_mm256_sub_ps(n, half)));
}

/* v * 2^n, n whole, -252 .. 254, rounded once if v is near 1. */
INLINE struct vec v_times_pow2(struct vec v, struct vec n)
{
    return (struct vec){times_power_of_2(v.lo, n.lo), times_power_of_2(v.hi, n.hi)};
}

INLINE float v_sum(struct vec v) { return sum8(_mm256_add_ps(v.lo, v.hi)); }
INLINE float v_top(struct vec v) { return top8(_mm256_max_ps(v.lo, v.hi)); }

INLINE struct vec v_from_f16(const void *at)
{
    const __m128i *half = at;
    return (struct vec){_mm256_cvtph_ps(_mm_loadu_si128(half)),
                        _mm256_cvtph_ps(_mm_loadu_si128(half + 1))};
}

INLINE __m256 widen(__m128i bf16)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bf16), 16));
}

INLINE struct vec v_from_bf16(const void *at)
{
    const __m128i *half = at;
    return (struct vec){widen(_mm_loadu_si128(half)), widen(_mm_loadu_si128(half + 1))};
}

/* Sixteen pairs of bf16: the first number of each, or the second. They are read twice: kept in
 * registers they would drive the sums out (two rows of x: 1.3x). */
INLINE struct vec v_pair(const void *at, int which)
{
    if (which)
        __asm__("" : "+r"(at));
    const __m256i *pair = at;
    __m256i lo = _mm256_loadu_si256(pair), hi = _mm256_loadu_si256(pair + 1);
    __m256i upper = _mm256_set1_epi32((int)0xffff0000);
    lo = which ? _mm256_and_si256(lo, upper) : _mm256_slli_epi32(lo, 16);
    hi = which ? _mm256_and_si256(hi, upper) : _mm256_slli_epi32(hi, 16);
    return (struct vec){_mm256_castsi256_ps(lo), _mm256_castsi256_ps(hi)};
}

INLINE __m256 from_fp8(__m256i v, int column)
{
    v = column == 0   ? _mm256_slli_epi32(v, 24)
        : column == 1 ? _mm256_slli_epi32(v, 8)
        : column == 2 ? _mm256_slli_epi32(v, 16)
                      : v;
    v = _mm256_and_si256(_mm256_srai_epi32(v, 4), _mm256_set1_epi32((int)0x87f00000));
    return _mm256_mul_ps(_mm256_castsi256_ps(v), _mm256_set1_ps(0x1p120f));
}

/* Sixteen words of four e4m3 (dev/weight.h): number `column` of each. Bits are brought to where f32
 * has them; its exponent is larger by 120 then. They are read every time, as in v_pair(). */
INLINE struct vec v_from_fp8(const void *at, int column)
{
    if (column)
        __asm__("" : "+r"(at));
    const __m256i *word = at;
    return (struct vec){from_fp8(_mm256_loadu_si256(word), column),
                        from_fp8(_mm256_loadu_si256(word + 1), column)};
}

/* ------------------------------------------------------------------------------- whole numbers */

struct ivec { /* sixteen of 32 bits, or of four bytes each */
    __m256i lo, hi;
};

/* The widest tile of bytes, and its row blocks. */
enum { INT_TOK = 4, INT_PANEL = 4, INT_KEEP = 0 }; /* as in vec_avx512.h */
INLINE int int_blocks(int mt) { return mt == 1 ? 4 : mt == 2 ? 2 : 1; }
#define INT_TILES(T) T(4, 1) T(2, 1) T(1, 1) T(2, 2) T(1, 2) T(1, 3) T(1, 4)

INLINE struct ivec i_set(int32_t n)
{
    return (struct ivec){_mm256_set1_epi32(n), _mm256_set1_epi32(n)};
}
INLINE struct ivec i_load(const void *at)
{
    const __m256i *half = at;
    return (struct ivec){_mm256_loadu_si256(half), _mm256_loadu_si256(half + 1)};
}
INLINE struct ivec i_low(struct ivec a) /* the lower half of every byte */
{
    __m256i mask = _mm256_set1_epi8(15);
    return (struct ivec){_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)};
}
INLINE struct ivec i_high(struct ivec a)
{
    return i_low((struct ivec){_mm256_srli_epi16(a.lo, 4), _mm256_srli_epi16(a.hi, 4)});
}

INLINE __m256i dot_bytes(__m256i acc, __m256i a, __m256i b)
{
    __m256i even = _mm256_and_si256(a, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(a, 8);
    even = _mm256_madd_epi16(even, _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
    odd = _mm256_madd_epi16(odd, _mm256_srai_epi16(b, 8));
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}

/* acc + the four products of bytes: a without sign, b with. */
INLINE struct ivec i_dot(struct ivec acc, struct ivec a, struct ivec b)
{
    return (struct ivec){dot_bytes(acc.lo, a.lo, b.lo), dot_bytes(acc.hi, a.hi, b.hi)};
}

/* Bytes without sign, two of every four, as 16-bit numbers: 0 and 2, 1 and 3. */
INLINE struct ivec i_even(struct ivec a)
{
    __m256i mask = _mm256_set1_epi16(255);
    return (struct ivec){_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)};
}
INLINE struct ivec i_odd(struct ivec a)
{
    return (struct ivec){_mm256_srli_epi16(a.lo, 8), _mm256_srli_epi16(a.hi, 8)};
}

/* acc + the two products of 16-bit numbers with sign. */
INLINE struct ivec i_dot_halves(struct ivec acc, struct ivec a, struct ivec b)
{
    return (struct ivec){_mm256_add_epi32(acc.lo, _mm256_madd_epi16(a.lo, b.lo)),
                         _mm256_add_epi32(acc.hi, _mm256_madd_epi16(a.hi, b.hi))};
}

INLINE struct ivec i_add(struct ivec a, struct ivec b)
{
    return (struct ivec){_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
INLINE struct ivec i_max(struct ivec a, struct ivec b)
{
    return (struct ivec){_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)};
}

INLINE int32_t i_sum(struct ivec a)
{
    __m256i s = _mm256_add_epi32(a.lo, a.hi);
    __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(t, _mm_shuffle_epi32(t, 0xb1)));
}

INLINE int32_t i_top(struct ivec a)
{
    __m256i s = _mm256_max_epi32(a.lo, a.hi);
    __m128i t = _mm_max_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1)));
}

INLINE struct ivec i_magnitude(struct vec v) /* as bits: ordered as the numbers are */
{
    __m256i mask = _mm256_set1_epi32(0x7fffffff);
    return (struct ivec){_mm256_and_si256(_mm256_castps_si256(v.lo), mask),
                         _mm256_and_si256(_mm256_castps_si256(v.hi), mask)};
}
INLINE struct ivec i_round(struct vec v)
{
    return (struct ivec){_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi)};
}
INLINE struct vec v_from_i(struct ivec a)
{
    return (struct vec){_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
INLINE void i_put_halves(void *at, struct ivec a)
{
    __m256i half = _mm256_packs_epi32(a.lo, a.hi);
    _mm256_storeu_si256(at, _mm256_permute4x64_epi64(half, 0xd8));
}
INLINE void i_put_bytes(void *at, struct ivec a)
{
    __m256i half = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), 0xd8);
    __m128i lo = _mm256_castsi256_si128(half), hi = _mm256_extracti128_si256(half, 1);
    _mm_storeu_si128(at, _mm_packs_epi16(lo, hi));
}

/* ------------------------------------------------------------------------------- fixed point */

struct wsum { /* as in vec_avx512.h; a lane of none is all ones or zero */
    __m256i sum[4];
    __m256 none[2];
};

INLINE struct wsum w_zero(void)
{
    __m256i zero = _mm256_setzero_si256();
    return (struct wsum){{zero, zero, zero, zero}, {_mm256_setzero_ps(), _mm256_setzero_ps()}};
}

/* Below 2^51 a number and 1.5 * 2^52 have their sum's unit at 1: it is rounded, and the difference
 * of the bits is the whole number. */
INLINE __m256i whole_quad(__m128 v)
{
    const __m256d shift = _mm256_set1_pd(0x1.8p52);
    __m256d sum = _mm256_add_pd(_mm256_cvtps_pd(v), shift);
    return _mm256_sub_epi64(_mm256_castpd_si256(sum), _mm256_castpd_si256(shift));
}

INLINE __m256 out_of_range(__m256 v)
{
    __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
    return _mm256_cmp_ps(magnitude, _mm256_set1_ps(WHOLE_LIMIT * 0x1p32f), _CMP_NLT_UQ);
}

INLINE struct wsum w_add(struct wsum s, struct vec v)
{
    __m256 half[2] = {v.lo, v.hi};
    UNROLL for (int i = 0; i < 2; i++)
    {
        __m256i lower = whole_quad(_mm256_castps256_ps128(half[i]));
        __m256i upper = whole_quad(_mm256_extractf128_ps(half[i], 1));
        s.sum[2 * i] = _mm256_add_epi64(s.sum[2 * i], lower);
        s.sum[2 * i + 1] = _mm256_add_epi64(s.sum[2 * i + 1], upper);
        s.none[i] = _mm256_or_ps(s.none[i], out_of_range(half[i]));
    }
    return s;
}

INLINE void w_put_n(int64_t *at, struct wsum s, int n)
{
    int64_t sum[16];
    int none = _mm256_movemask_ps(s.none[0]) | _mm256_movemask_ps(s.none[1]) << 8;
    UNROLL for (int i = 0; i < 4; i++) _mm256_storeu_si256((__m256i *)sum + i, s.sum[i]);
    for (int i = 0; i < min_int(n, 16); i++)
        at[i] = whole_add(at[i], none >> i & 1 ? WHOLE_NONE : sum[i]);
}

#endif
