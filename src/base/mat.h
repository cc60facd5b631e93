/* mat.h - number formats, and n rows of dim numbers. */
#ifndef TANDEM_MAT_H
#define TANDEM_MAT_H

#include "base/arena.h"
#include "base/num.h"

/* In groups of columns. Of whole numbers a weight is scale * (q - zero), or scale * q + least,
 * where q has no sign; of e4m3 it is scale * q. bits == 0: not in groups. */
struct quant {
    int bits, group, zero;
    bool least;
};

static inline struct quant num_quant(enum num t)
{
    static const struct quant quant[NUM_COUNT] = {
        [NUM_INT8] = {8, 128, 128, false},    [NUM_INT4] = {4, 64, 8, false},
        [NUM_INT8_G32] = {8, 32, 128, false}, [NUM_INT4_G32] = {4, 32, 8, false},
        [NUM_INT4_G32Z] = {4, 32, 0, true},   [NUM_INT4_G128] = {4, 128, 8, false},
        [NUM_FP8] = {8, 128, 0, false}};
    return quant[t];
}

/* Whole numbers in groups: x is made whole too, and sums are exact. */
static inline bool num_is_whole(enum num t) { return t >= NUM_INT8 && t < NUM_FP8; }

/* Of a scale, or of a least number. */
static inline size_t num_scale_bytes(enum num t) { return t == NUM_FP8 ? 4 : 2; }

static inline bool num_is_float(enum num t) { return t <= NUM_BF16; }

/* Whether weights can be held in it. */
static inline bool num_can_weigh(enum num t) { return num_is_float(t) || num_quant(t).bits; }

/* Of one number; 0 for a quantised one. */
static inline size_t num_bytes(enum num t)
{
    static const uint8_t bytes[NUM_COUNT] = {
        [NUM_F32] = 4, [NUM_F16] = 2, [NUM_BF16] = 2, [NUM_I32] = 4, [NUM_I64] = 8};
    return bytes[t];
}

static inline const char *num_name(enum num t)
{
    static const char *const name[NUM_COUNT] = {[NUM_F32] = "f32",
                                                [NUM_F16] = "f16",
                                                [NUM_BF16] = "bf16",
                                                [NUM_I32] = "i32",
                                                [NUM_I64] = "i64",
                                                [NUM_INT8] = "int8",
                                                [NUM_INT4] = "int4",
                                                [NUM_INT8_G32] = "int8-g32",
                                                [NUM_INT4_G32] = "int4-g32",
                                                [NUM_INT4_G32Z] = "int4-g32z",
                                                [NUM_INT4_G128] = "int4-g128",
                                                [NUM_FP8] = "fp8"};
    return name[t];
}

/* The format of that name; NUM_COUNT if none has it. */
static inline enum num num_named(const char *name)
{
    int i = 0;
    while (i < NUM_COUNT && strcmp(name, num_name((enum num)i)) != 0)
        i++;
    return (enum num)i;
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

/* e4m3 without infinities, as the OCP's 8-bit formats have it ("fn"): a sign, four bits of exponent
 * (bias 7), three more; 448 at most, 2^-9 at least; 0x7f is none. Rounds to nearest even, numbers
 * beyond 448 to 448. */
float fp8_to_f32(uint8_t b);
uint8_t f32_to_fp8(float f);

/* Scales that stand beside a matrix of e4m3 in a file: number (r, c) is times number (r / rows,
 * c / cols) of rows of `stride` scales. at NULL: there are none. Nothing is owned. */
struct scales {
    const void *at; /* may be unaligned */
    enum num type;  /* f32, f16 or bf16 */
    int rows, cols;
    size_t stride;
};

static inline size_t scales_at(const struct scales *s, int r, int c)
{
    return (size_t)(r / s->rows) * s->stride + (size_t)(c / s->cols);
}

float scales_read(const struct scales *s, int r, int c);

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

/* To measure with: f32 numbers between -1 and 1, the same ones in every run, the pool's. */
struct mat mat_sample(struct pool *pool, int n, int dim);

static inline float *mat_row(const struct mat *m, int i)
{
    return (float *)m->at + (size_t)i * (size_t)m->dim;
}

#endif
