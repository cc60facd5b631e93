/* vec_avx512.h - sixteen floats as one register; the words that kern.inc is written in.
 *
 * Needs AVX-512 F, BW, DQ, VL. vec_avx2.h has the same words.
 */
#ifndef TANDEM_VEC_AVX512_H
#define TANDEM_VEC_AVX512_H

#include "base/whole.h"
#include "dev/cpu/vec_x86.h"

struct vec {
    __m512 v;
};

/* The widest tile, and how many row blocks go with mt rows of x: 24 accumulators of 32 registers.
 */
enum { TILE_TOK = 12 };
INLINE int tile_blocks(int mt) { return mt <= 2 ? 8 : mt <= 6 ? 4 : 2; }

/* T(row blocks, rows of x) for all that tile_blocks() and its halves name. */
/* clang-format off */
#define TILES(T)                                                                                   \
    T(8, 1) T(4, 1) T(2, 1) T(1, 1) T(8, 2) T(4, 2) T(2, 2) T(1, 2) T(4, 3) T(2, 3) T(1, 3)         \
    T(4, 4) T(2, 4) T(1, 4) T(4, 5) T(2, 5) T(1, 5) T(4, 6) T(2, 6) T(1, 6) T(2, 7) T(1, 7)         \
    T(2, 8) T(1, 8) T(2, 9) T(1, 9) T(2, 10) T(1, 10) T(2, 11) T(1, 11) T(2, 12) T(1, 12)
/* clang-format on */

INLINE struct vec v_set(float f) { return (struct vec){_mm512_set1_ps(f)}; }
INLINE struct vec v_load(const float *at) { return (struct vec){_mm512_loadu_ps(at)}; }
INLINE void v_store(float *at, struct vec v) { _mm512_storeu_ps(at, v.v); }

INLINE __mmask16 v_below(int n) { return (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1); }

/* The first n lanes; the others are 0, or not written. */
INLINE struct vec v_load_n(const float *at, int n)
{
    return (struct vec){_mm512_maskz_loadu_ps(v_below(n), at)};
}

INLINE void v_store_n(float *at, struct vec v, int n)
{
    _mm512_mask_storeu_ps(at, v_below(n), v.v);
}

/* v in lanes [from, to), 0 <= from, to; other elsewhere. */
INLINE struct vec v_only(struct vec v, int from, int to, float other)
{
    __mmask16 m = (__mmask16)(v_below(to) & ~v_below(from));
    return (struct vec){_mm512_mask_mov_ps(_mm512_set1_ps(other), m, v.v)};
}

INLINE struct vec v_add(struct vec a, struct vec b)
{
    return (struct vec){_mm512_add_ps(a.v, b.v)};
}
INLINE struct vec v_sub(struct vec a, struct vec b)
{
    return (struct vec){_mm512_sub_ps(a.v, b.v)};
}
INLINE struct vec v_mul(struct vec a, struct vec b)
{
    return (struct vec){_mm512_mul_ps(a.v, b.v)};
}
INLINE struct vec v_div(struct vec a, struct vec b)
{
    return (struct vec){_mm512_div_ps(a.v, b.v)};
}
/* b where one is a NaN */
INLINE struct vec v_max(struct vec a, struct vec b)
{
    return (struct vec){_mm512_max_ps(a.v, b.v)};
}
INLINE struct vec v_min(struct vec a, struct vec b)
{
    return (struct vec){_mm512_min_ps(a.v, b.v)};
}

INLINE struct vec v_fma(struct vec a, struct vec b, struct vec c)
{
    return (struct vec){_mm512_fmadd_ps(a.v, b.v, c.v)};
}

INLINE struct vec v_fms(struct vec a, struct vec b, struct vec c) /* a * b - c */
{
    return (struct vec){_mm512_fmsub_ps(a.v, b.v, c.v)};
}

/* v * 2^n, n whole, rounded once. */
INLINE struct vec v_times_pow2(struct vec v, struct vec n)
{
    return (struct vec){_mm512_scalef_ps(v.v, n.v)};
}

INLINE float v_sum(struct vec v)
{
    return sum8(_mm256_add_ps(_mm512_castps512_ps256(v.v), _mm512_extractf32x8_ps(v.v, 1)));
}

INLINE float v_top(struct vec v)
{
    return top8(_mm256_max_ps(_mm512_castps512_ps256(v.v), _mm512_extractf32x8_ps(v.v, 1)));
}

INLINE struct vec v_from_f16(const void *at)
{
    return (struct vec){_mm512_cvtph_ps(_mm256_loadu_si256(at))};
}

INLINE struct vec v_from_bf16(const void *at)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at));
    return (struct vec){_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}

/* Sixteen pairs of bf16: the first number of each, or the second. */
INLINE struct vec v_pair(const void *at, int which)
{
    __m512i pair = _mm512_loadu_si512(at), upper = _mm512_set1_epi32((int)0xffff0000);
    pair = which ? _mm512_and_si512(pair, upper) : _mm512_slli_epi32(pair, 16);
    return (struct vec){_mm512_castsi512_ps(pair)};
}

/* ------------------------------------------------------------------------------- e4m3 */

#ifdef __AVX512VBMI__

/* Sixteen words of four numbers (dev/weight.h): pairs of them as bf16, whose bytes are looked up.
 * Below 8 a number is so many times 2^-9, else its bits four places higher, the exponent + 120. */
/* clang-format off */
#define FP8_UP(i) (i) / 16 + 0x3c
#define FP8_LOW(i) (i) % 16 * 16
#define FP8_8(of, i)                                                                               \
    of(i), of(i + 1), of(i + 2), of(i + 3), of(i + 4), of(i + 5), of(i + 6), of(i + 7)
#define FP8_32(of, i) FP8_8(of, i), FP8_8(of, i + 8), FP8_8(of, i + 16), FP8_8(of, i + 24)
#define FP8_ALL(of) FP8_8(of, 8), FP8_8(of, 16), FP8_8(of, 24), FP8_32(of, 32), FP8_32(of, 64), FP8_32(of, 96)

_Alignas(64) static const uint8_t fp8_up[128] = {0,    0x3b, 0x3b, 0x3b, 0x3c,
                                                 0x3c, 0x3c, 0x3c, FP8_ALL(FP8_UP)};
_Alignas(64) static const uint8_t fp8_low[128] = {0,    0,    0x80, 0xc0, 0,
                                                  0x20, 0x40, 0x60, FP8_ALL(FP8_LOW)};
/* clang-format on */
INLINE __m512i fp8_look_up(const uint8_t table[128], __m512i number)
{
    return _mm512_permutex2var_epi8(_mm512_load_si512(table), number,
                                    _mm512_load_si512(table + 64));
}

/* a, or b where mask has bits. */
INLINE __m512i fp8_or(__m512i a, __m512i b, __m512i mask)
{
    return _mm512_ternarylogic_epi32(a, b, mask, 0xf8); /* a | (b & mask) */
}

INLINE struct vec v_from_fp8(const void *at, int pair)
{
    __m512i number = _mm512_loadu_si512(at), low = fp8_look_up(fp8_low, number);
    __m512i up = fp8_or(fp8_look_up(fp8_up, number), number, _mm512_set1_epi8((char)0x80));
    __m512i even = _mm512_set1_epi16(0x00ff), odd = _mm512_set1_epi16((short)0xff00);
    return (struct vec){(__m512)(pair ? fp8_or(_mm512_srli_epi16(low, 8), up, odd)
                                      : fp8_or(_mm512_slli_epi16(up, 8), low, even))};
}

#else

/* Sixteen words of four numbers (dev/weight.h): number `column` of each. Bits are brought to where
 * f32 has them; its exponent is larger by 120 then. */
INLINE struct vec v_from_fp8(const void *at, int column)
{
    __m512i v = _mm512_loadu_si512(at);
    v = column == 0   ? _mm512_slli_epi32(v, 24)
        : column == 1 ? _mm512_slli_epi32(v, 8)
        : column == 2 ? _mm512_slli_epi32(v, 16)
                      : v;
    v = _mm512_and_si512(_mm512_srai_epi32(v, 4), _mm512_set1_epi32((int)0x87f00000));
    return (struct vec){_mm512_mul_ps(_mm512_castsi512_ps(v), _mm512_set1_ps(0x1p120f))};
}

#endif

/* ------------------------------------------------------------------------------- whole numbers */

struct ivec { /* sixteen of 32 bits, or of four bytes each */
    __m512i v;
};

/* The widest tile of bytes, and its row blocks. */
enum { INT_TOK = 12 };
/* Rows of a panel when there are several. Tiles of up to INT_KEEP sums keep two of each in
 * registers: products of bytes that are made of other instructions leave no room for that. */
#ifdef __AVX512VNNI__
enum { INT_PANEL = 6, INT_KEEP = 12 };
#else
enum { INT_PANEL = 12, INT_KEEP = 0 };
#endif
INLINE int int_blocks(int mt) { return mt == 1 ? 8 : mt <= 5 ? 4 : 2; }

/* clang-format off */
#define INT_TILES(T)                                                                               \
    T(8, 1) T(4, 1) T(2, 1) T(1, 1) T(4, 2) T(2, 2) T(1, 2) T(4, 3) T(2, 3) T(1, 3)                 \
    T(4, 4) T(2, 4) T(1, 4) T(4, 5) T(2, 5) T(1, 5) T(2, 6) T(1, 6) T(2, 7) T(1, 7)                 \
    T(2, 8) T(1, 8) T(2, 9) T(1, 9) T(2, 10) T(1, 10) T(2, 11) T(1, 11) T(2, 12) T(1, 12)
/* clang-format on */

INLINE struct ivec i_set(int32_t n) { return (struct ivec){_mm512_set1_epi32(n)}; }
INLINE struct ivec i_load(const void *at) { return (struct ivec){_mm512_loadu_si512(at)}; }
INLINE struct ivec i_low(struct ivec a) /* the lower half of every byte */
{
    return (struct ivec){_mm512_and_si512(a.v, _mm512_set1_epi8(15))};
}
INLINE struct ivec i_high(struct ivec a)
{
    return (struct ivec){_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
}

/* acc + the four products of bytes: a without sign, b with. */
INLINE struct ivec i_dot(struct ivec acc, struct ivec a, struct ivec b)
{
#ifdef __AVX512VNNI__
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc.v) : "v"(a.v), "v"(b.v));
    return acc;
#else
    __m512i even = _mm512_and_si512(a.v, _mm512_set1_epi16(255));
    __m512i odd = _mm512_srli_epi16(a.v, 8);
    even = _mm512_madd_epi16(even, _mm512_srai_epi16(_mm512_slli_epi16(b.v, 8), 8));
    odd = _mm512_madd_epi16(odd, _mm512_srai_epi16(b.v, 8));
    return (struct ivec){_mm512_add_epi32(acc.v, _mm512_add_epi32(even, odd))};
#endif
}

/* Bytes without sign, two of every four, as 16-bit numbers: 0 and 2, 1 and 3. */
INLINE struct ivec i_even(struct ivec a)
{
    return (struct ivec){_mm512_and_si512(a.v, _mm512_set1_epi16(255))};
}
INLINE struct ivec i_odd(struct ivec a) { return (struct ivec){_mm512_srli_epi16(a.v, 8)}; }

/* acc + the two products of 16-bit numbers with sign. */
INLINE struct ivec i_dot_halves(struct ivec acc, struct ivec a, struct ivec b)
{
#ifdef __AVX512VNNI__
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc.v) : "v"(a.v), "v"(b.v));
    return acc;
#else
    return (struct ivec){_mm512_add_epi32(acc.v, _mm512_madd_epi16(a.v, b.v))};
#endif
}

INLINE struct ivec i_add(struct ivec a, struct ivec b)
{
    return (struct ivec){_mm512_add_epi32(a.v, b.v)};
}
INLINE struct ivec i_max(struct ivec a, struct ivec b)
{
    return (struct ivec){_mm512_max_epi32(a.v, b.v)};
}
INLINE int32_t i_sum(struct ivec a) { return _mm512_reduce_add_epi32(a.v); }
INLINE int32_t i_top(struct ivec a) { return _mm512_reduce_max_epi32(a.v); }
INLINE struct ivec i_magnitude(struct vec v) /* as bits: ordered as the numbers are */
{
    __m512i bits = _mm512_castps_si512(v.v);
    return (struct ivec){_mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff))};
}
INLINE struct ivec i_round(struct vec v) { return (struct ivec){_mm512_cvtps_epi32(v.v)}; }
INLINE struct vec v_from_i(struct ivec a) { return (struct vec){_mm512_cvtepi32_ps(a.v)}; }
INLINE void i_put_halves(void *at, struct ivec a)
{
    _mm256_storeu_si256(at, _mm512_cvtepi32_epi16(a.v));
}
INLINE void i_put_bytes(void *at, struct ivec a)
{
    _mm_storeu_si128(at, _mm512_cvtepi32_epi8(a.v));
}

/* ------------------------------------------------------------------------------- fixed point */

/* Sixteen sums of base/whole.h; none: lanes with a term out of range. */
struct wsum {
    __m512i lo, hi;
    __mmask16 none;
};

INLINE struct wsum w_zero(void)
{
    return (struct wsum){_mm512_setzero_si512(), _mm512_setzero_si512(), 0};
}

/* sum + whole_of(v / 2^32): the factor is the caller's, who has one to multiply with anyway. */
INLINE struct wsum w_add(struct wsum s, struct vec v)
{
    const __m512 limit = _mm512_set1_ps(WHOLE_LIMIT * 0x1p32f);
    s.none |= _mm512_cmp_ps_mask(_mm512_abs_ps(v.v), limit, _CMP_NLT_UQ);
    s.lo = _mm512_add_epi64(s.lo, _mm512_cvtps_epi64(_mm512_castps512_ps256(v.v)));
    s.hi = _mm512_add_epi64(s.hi, _mm512_cvtps_epi64(_mm512_extractf32x8_ps(v.v, 1)));
    return s;
}

INLINE void add_half(int64_t *at, __m512i sum, __mmask8 none, __mmask8 lanes)
{
    const __m512i never = _mm512_set1_epi64(WHOLE_NONE);
    __m512i old = _mm512_maskz_loadu_epi64(lanes, at);
    none |= _mm512_cmpeq_epi64_mask(old, never);
    sum = _mm512_mask_mov_epi64(_mm512_add_epi64(old, sum), none, never);
    _mm512_mask_storeu_epi64(at, lanes, sum);
}

/* at[i] = whole_add(at[i], sum i), for the first n. */
INLINE void w_put_n(int64_t *at, struct wsum s, int n)
{
    __mmask16 lanes = v_below(n);
    add_half(at, s.lo, (__mmask8)s.none, (__mmask8)lanes);
    add_half(at + 8, s.hi, (__mmask8)(s.none >> 8), (__mmask8)(lanes >> 8));
}

#endif
