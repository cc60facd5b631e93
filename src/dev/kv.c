/* kv.c - rows of the KV cache, and what they are multiplied with, as whole numbers. See kv.h. */
#include "dev/kv.h"

#include <math.h>

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

/* The largest magnitude; a NaN when a number is infinite or none. */
static float top_of(const float *x, int n)
{
    uint32_t top = 0;
    float f;
    for (int i = 0; i < n; i++) {
        uint32_t u = bits_of(x[i]) & 0x7fffffff;
        top = u > top ? u : top;
    }
    memcpy(&f, &top, sizeof(f));
    return top < 0x7f800000 ? f : NAN;
}

/* Adding 1.5 * 2^23 leaves the nearest whole number, of 22 bits, in the lowest bits. */
static uint32_t nearest(float f) { return bits_of(f + 0x1.8p23f); }

void kv_round(const float *x, int n, uint8_t *to, uint16_t *scale)
{
    float top = top_of(x, n);
    *scale = top != top ? 0x7fc0 : 0;
    memset(to, 128, (size_t)n);
    if (!(top >= 1e-30f))
        return;
    *scale = (uint16_t)((bits_of(top / 127) + 0xffff) >> 16); /* up: no q beyond 127 */
    float by = 1 / bf16_to_f32(*scale);
    for (int i = 0; i < n; i++)
        to[i] = (uint8_t)(nearest(x[i] * by) + 128);
}

void kv_round_factor(const float *x, int n, int16_t *to, float *scale)
{
    float top = top_of(x, n);
    *scale = top != top ? NAN : 0;
    memset(to, 0, (size_t)n * sizeof(*to));
    if (!(top >= 1e-30f))
        return;
    *scale = top / 32767;
    float by = 32767 / top;
    for (int i = 0; i < n; i++)
        to[i] = (int16_t)nearest(x[i] * by);
}
