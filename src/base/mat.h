/* mat.h - number formats, and n rows of dim numbers. */
#ifndef TANDEM_MAT_H
#define TANDEM_MAT_H

#include "base/base.h"

enum num { NUM_F32, NUM_F16, NUM_BF16, NUM_I32, NUM_COUNT };

static inline size_t num_bytes(enum num t)
{
    static const uint8_t bytes[NUM_COUNT] = {
        [NUM_F32] = 4, [NUM_F16] = 2, [NUM_BF16] = 2, [NUM_I32] = 4};
    return bytes[t];
}

static inline const char *num_name(enum num t)
{
    static const char *const name[NUM_COUNT] = {
        [NUM_F32] = "f32", [NUM_F16] = "f16", [NUM_BF16] = "bf16", [NUM_I32] = "i32"};
    return name[t];
}

static inline float bf16_to_f32(uint16_t b)
{
    uint32_t u = (uint32_t)b << 16;
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

/* Round to nearest even, as the hardware instruction does; a NaN stays a NaN. */
static inline uint16_t f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* round to nearest even */

/* n rows of dim numbers, dense, on one device: activations, one row per token. at is not owned. */
struct mat {
    int n, dim;
    enum num type;
    void *at;
};

static inline size_t mat_bytes(const struct mat *m)
{
    return (size_t)m->n * (size_t)m->dim * num_bytes(m->type);
}

/* The rows s of m, shared, not copied. */
static inline struct mat mat_rows(const struct mat *m, struct span s)
{
    size_t skip = (size_t)s.lo * (size_t)m->dim * num_bytes(m->type);
    must(0 <= s.lo && s.lo <= s.hi && s.hi <= m->n);
    return (struct mat){len(s), m->dim, m->type, m->at ? (char *)m->at + skip : NULL};
}

static inline float *mat_row(const struct mat *m, int i)
{
    return (float *)m->at + (size_t)i * (size_t)m->dim;
}

#endif
