/* mat.c - conversions between number formats, and numbers to measure with. See mat.h. */
#include "base/mat.h"

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023, u;
    float f;
    if (e == 0) { /* zero or subnormal: m counts 2^-24 */
        f = (float)m * 0x1p-24f;
        return sign ? -f : f;
    }
    u = sign | (e == 31 ? 0x7f800000 : (e + 112) << 23) | m << 13;
    memcpy(&f, &u, sizeof(f));
    return f;
}

uint16_t f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return sign | 0x7e00;
    if (u >= 0x477ff000) /* rounds to more than 65504 */
        return sign | 0x7c00;
    if (u < 0x38800000) { /* subnormal: let the adder round to a multiple of 2^-24 */
        float a;
        memcpy(&a, &u, sizeof(a));
        a += 0.5f;
        memcpy(&u, &a, sizeof(u));
        return sign | (uint16_t)(u - 0x3f000000);
    }
    u += 0xfff + (u >> 13 & 1);
    return sign | (uint16_t)((u - 0x38000000) >> 13);
}

float fp8_to_f32(uint8_t b)
{
    uint32_t u = (uint32_t)(b & 0x80) << 24 | (uint32_t)(b & 0x7f) << 20;
    float f;
    if ((b & 0x7f) == 0x7f)
        u = 0x7fc00000;
    memcpy(&f, &u, sizeof(f));
    return f * 0x1p120f; /* the exponent's bias is less by so much; subnormals come right too */
}

uint8_t f32_to_fp8(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    uint8_t sign = (uint8_t)(u >> 24 & 0x80);
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return sign | 0x7f;
    if (u >= 0x43e00000) /* 448 */
        return sign | 0x7e;
    if (u < 0x3c800000) { /* below 2^-6: let the adder round to a multiple of 2^-9 */
        float a;
        memcpy(&a, &u, sizeof(a));
        a += 0x1p14f;
        memcpy(&u, &a, sizeof(u));
        return sign | (uint8_t)(u - 0x46800000);
    }
    u += 0x7ffff + (u >> 20 & 1);
    return sign | (uint8_t)((u >> 20) - (120 << 3));
}

float scales_read(const struct scales *s, int r, int c)
{
    uint16_t half;
    float f;
    const char *at = (const char *)s->at + scales_at(s, r, c) * num_bytes(s->type);
    if (s->type == NUM_F32) {
        memcpy(&f, at, sizeof(f));
        return f;
    }
    memcpy(&half, at, sizeof(half));
    return s->type == NUM_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
}

struct mat mat_sample(struct pool *pool, int n, int dim)
{
    struct mat m = {n, dim, NUM_F32, NULL};
    m.at = pool_get(pool, mat_bytes(&m) + ARENA_ALIGN);
    m.at = (char *)m.at + (ARENA_ALIGN - (uintptr_t)m.at % ARENA_ALIGN) % ARENA_ALIGN;
    for (int64_t i = 0; i < (int64_t)n * dim; i++)
        ((float *)m.at)[i] = (float)(i % 2001 * 7919 % 2001 - 1000) * 1e-3f;
    return m;
}
