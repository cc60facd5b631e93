/* whole.h - sums that do not depend on their order: 64-bit fixed point.
 *
 * A term is a float of magnitude below 2^18, rounded to a multiple of 2^-32 (to nearest, ties to
 * even). 4096 terms cannot overflow. A term that is too large, infinite or none makes the sum
 * WHOLE_NONE, whatever is added later, and that becomes a NaN: a wrong number is never a silent
 * one. Adding is associative and commutative, so who adds what, and when, changes no bit.
 */
#ifndef TANDEM_WHOLE_H
#define TANDEM_WHOLE_H

#include "base/base.h"

enum { WHOLE_TERMS = 4096 };
#define WHOLE_LIMIT 0x1p18f
#define WHOLE_NONE INT64_MIN

static inline int64_t whole_of(float f)
{
    return __builtin_fabsf(f) < WHOLE_LIMIT ? (int64_t)__builtin_rint((double)f * 0x1p32)
                                            : WHOLE_NONE;
}

static inline int64_t whole_add(int64_t a, int64_t b)
{
    return a == WHOLE_NONE || b == WHOLE_NONE ? WHOLE_NONE : a + b;
}

static inline float whole_float(int64_t a)
{
    return a == WHOLE_NONE ? __builtin_nanf("") : (float)a * 0x1p-32f;
}

#endif
