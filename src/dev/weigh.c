/* weigh.c - see weigh.h. Speed: bench/text.c. */
#include "dev/weigh.h"

#include "base/base.h"

#include <math.h>

/* Vectors never cross a call: everything here is inlined. */
#pragma GCC diagnostic ignored "-Wpsabi"
#define INLINE static inline __attribute__((always_inline))

/* Vectors of the compiler's, as wide as the order of the sums; every machine cuts them to its own.
 */
typedef float lanes __attribute__((vector_size(64)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef double half_lanes __attribute__((vector_size(64)));
typedef float half_floats __attribute__((vector_size(32)));

/* e^x of x <= 0: 2^n e^r, r in [-ln 2 / 2, ln 2 / 2], e^r by its Taylor series of degree 7, whose
 * rest is below 2^-27; 0 where the result would be subnormal. */
INLINE lanes exp_below(lanes x)
{
    ints real = x > WEIGH_MIN;
    x = (lanes)((ints)x & real);
    lanes n = (x * WEIGH_LOG2E + WEIGH_ROUND) - WEIGH_ROUND;
    lanes r = (x - n * WEIGH_LN2_HI) - n * WEIGH_LN2_LO;
    lanes q = r * (1.0f / 5040) + 1.0f / 720;
    q = q * r + 1.0f / 120;
    q = q * r + 1.0f / 24;
    q = q * r + 1.0f / 6;
    q = q * r + 0.5f;
    q = q * r + 1;
    q = q * r + 1;
    ints power = (__builtin_convertvector(n, ints) + 127) << 23;
    return (lanes)((ints)(q * (lanes)power) & real);
}

/* Rounded to a multiple of WEIGHT_UNIT: from WEIGH_WHOLE on a float is one anyway, and below that
 * adding it rounds to one. */
INLINE lanes whole_units(lanes e)
{
    ints small = e < WEIGH_WHOLE;
    lanes rounded = (e + WEIGH_WHOLE) - WEIGH_WHOLE;
    return (lanes)(((ints)rounded & small) | ((ints)e & ~small));
}

/* Behind the end stand numbers that weigh nothing. */
INLINE lanes load(const float *x, int n)
{
    lanes v;
    for (int l = n; l < 16; l++)
        v[l] = -INFINITY;
    memcpy(&v, x, (size_t)min_int(n, 16) * sizeof(float));
    return v;
}

INLINE double join(half_lanes lo, half_lanes hi)
{
    lo += hi;
    return ((lo[0] + lo[4]) + (lo[2] + lo[6])) + ((lo[1] + lo[5]) + (lo[3] + lo[7]));
}

INLINE void weigh_body(const float *x, int n, float most, float scale, float *to, double *sum)
{
    for (int from = 0; from < n; from += WEIGH_BLOCK) {
        int end = min_int(n, from + WEIGH_BLOCK);
        half_lanes lo = {0}, hi = {0};
        for (int i = from; i < end; i += 16) {
            lanes e = whole_units(exp_below((load(x + i, end - i) - most) * scale));
            half_floats part[2];
            memcpy(part, &e, sizeof(e));
            lo += __builtin_convertvector(part[0], half_lanes);
            hi += __builtin_convertvector(part[1], half_lanes);
            memcpy(to + i, &e, (size_t)min_int(end - i, 16) * sizeof(float));
        }
        sum[from / WEIGH_BLOCK] = join(lo, hi);
    }
}

INLINE float most_body(const float *x, int n)
{
    lanes most = load(x, n);
    ints bad = {0};
    for (int i = 0; i < n; i += 16) {
        lanes v = load(x + i, n - i);
        ints more = v > most;
        bad |= v != v;
        most = (lanes)(((ints)v & more) | ((ints)most & ~more));
    }
    float all = -INFINITY;
    for (int l = 0; l < 16; l++) {
        if (bad[l])
            return NAN;
        all = most[l] > all ? most[l] : all;
    }
    return all;
}

#if defined(__x86_64__)
#define FOR_MACHINE(target_name, suffix)                                                           \
    __attribute__((target(target_name))) static void weigh_##suffix(                               \
        const float *x, int n, float most, float scale, float *to, double *sum)                    \
    {                                                                                              \
        weigh_body(x, n, most, scale, to, sum);                                                    \
    }                                                                                              \
    __attribute__((target(target_name))) static float most_##suffix(const float *x, int n)         \
    {                                                                                              \
        return most_body(x, n);                                                                    \
    }
FOR_MACHINE("avx2", avx2)
FOR_MACHINE("avx512f", avx512)
#define CHOOSE(name, ...)                                                                          \
    if (__builtin_cpu_supports("avx512f"))                                                         \
        return name##_avx512(__VA_ARGS__);                                                         \
    if (__builtin_cpu_supports("avx2"))                                                            \
        return name##_avx2(__VA_ARGS__);
#else
#define CHOOSE(name, ...)
#endif

float weigh_most(const float *x, int n)
{
    CHOOSE(most, x, n)
    return most_body(x, n);
}

void weigh(const float *x, int n, float most, float scale, float *to, double *sum)
{
    CHOOSE(weigh, x, n, most, scale, to, sum)
    weigh_body(x, n, most, scale, to, sum);
}
