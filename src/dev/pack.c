/* pack.c - from rows in a file to the blocks that kernels read, and back. See weight.h.
 *
 * Sixteen rows are brought to the target type, CHUNK columns at a time, and then transposed; so
 * what is read and what is written stays in the nearest cache.
 */
#include "dev/weight.h"

enum { CHUNK = 64 };

/* One row of a chunk; read as halves, floats, or pairs of halves. */
union line {
    uint16_t half[CHUNK];
    uint32_t word[CHUNK];
    float f[CHUNK];
};

/* The row in the file. */
static size_t file_row(const struct stored *s, int r)
{
    int row = s->row + r, half = s->pairs / 2;
    if (!s->pairs)
        return (size_t)row;
    int i = row % s->pairs;
    return (size_t)(row - i + (i < half ? 2 * i : 2 * (i - half) + 1));
}

const char *stored_at(const struct stored *s, int r, int c)
{
    size_t bytes = s->type == NUM_FP8 ? 1 : num_bytes(s->type);
    return (const char *)s->at + (file_row(s, r) * s->stride + (size_t)(s->col + c)) * bytes;
}

size_t stored_group_bytes(enum num type)
{
    struct quant q = num_quant(type);
    return (q.least ? 4 : 2) + (size_t)(q.group * q.bits) / 8;
}

const uint8_t *stored_group(const struct stored *s, int r, int c)
{
    size_t group = (size_t)num_quant(s->type).group;
    return (const uint8_t *)s->at + (file_row(s, r) * s->stride + (size_t)(s->col + c)) / group *
                                        stored_group_bytes(s->type);
}

static void read_groups(const struct stored *s, int r, int c, int n, float *to)
{
    struct quant q = num_quant(s->type);
    for (int i = 0; i < n; i++) {
        const uint8_t *group = stored_group(s, r, c + i), *number = group + (q.least ? 4 : 2);
        int k = (s->col + c + i) % q.group;
        uint16_t half[2];
        memcpy(half, group, sizeof(half));
        float scale = f16_to_f32(half[0]), least = q.least ? f16_to_f32(half[1]) : 0;
        int v = q.bits == 8 ? (int8_t)number[k] : (number[k % 16] >> (k / 16 * 4) & 15) - q.zero;
        to[i] = (float)v * scale + least;
    }
}

static void read_fp8(const struct stored *s, int r, int c, int n, float *to)
{
    const uint8_t *number = (const uint8_t *)stored_at(s, r, c);
    for (int i = 0; i < n; i++)
        to[i] = fp8_to_f32(number[i]) * scales_read(&s->scales, s->row + r, s->col + c + i);
}

void stored_read(const struct stored *s, int r, int c, int n, float *to)
{
    uint16_t half[128];
    must(n <= (int)COUNT(half));
    if (s->type == NUM_FP8) {
        read_fp8(s, r, c, n, to);
    } else if (num_quant(s->type).bits) {
        read_groups(s, r, c, n, to);
    } else if (s->type == NUM_F32) {
        memcpy(to, stored_at(s, r, c), (size_t)n * sizeof(*to));
    } else {
        memcpy(half, stored_at(s, r, c), (size_t)n * sizeof(*half));
        for (int i = 0; i < n; i++)
            to[i] = s->type == NUM_BF16 ? bf16_to_f32(half[i]) : f16_to_f32(half[i]);
    }
}

static void convert(union line *to, enum num type, const struct stored *s, int r, int c, int n)
{
    float f[CHUNK];
    if (type == s->type) {
        memcpy(to, stored_at(s, r, c), (size_t)n * num_bytes(type));
        return;
    }
    stored_read(s, r, c, n, type == NUM_F32 ? to->f : f);
    for (int i = 0; type != NUM_F32 && i < n; i++)
        to->half[i] = type == NUM_BF16 ? f32_to_bf16(f[i]) : f32_to_f16(f[i]);
}

typedef uint32_t word4 __attribute__((vector_size(16)));

static word4 load4(const uint32_t *at)
{
    word4 v;
    memcpy(&v, at, sizeof(v));
    return v;
}

/* to[i][0..3] = column i of four rows. */
static void transpose4(uint32_t *to, const union line *from, int at)
{
    word4 a = load4(from[0].word + at), b = load4(from[1].word + at);
    word4 c = load4(from[2].word + at), d = load4(from[3].word + at);
    word4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5),
          cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    word4 ef = __builtin_shufflevector(a, b, 2, 6, 3, 7),
          gh = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    word4 out[4] = {
        __builtin_shufflevector(ab, cd, 0, 1, 4, 5), __builtin_shufflevector(ab, cd, 2, 3, 6, 7),
        __builtin_shufflevector(ef, gh, 0, 1, 4, 5), __builtin_shufflevector(ef, gh, 2, 3, 6, 7)};
    for (int i = 0; i < 4; i++)
        memcpy(to + i * PACK_ROWS, &out[i], sizeof(out[i]));
}

static void put_words(uint32_t *to, const union line *from, int n)
{
    int whole = n / 4 * 4;
    for (int at = 0; at < whole; at += 4)
        for (int r = 0; r < PACK_ROWS; r += 4)
            transpose4(to + at * PACK_ROWS + r, from + r, at);
    for (int i = whole; i < n; i++)
        for (int r = 0; r < PACK_ROWS; r++)
            to[i * PACK_ROWS + r] = from[r].word[i];
}

static void put_halves(uint16_t *to, const union line *from, int n)
{
    for (int i = 0; i < n; i++)
        for (int r = 0; r < PACK_ROWS; r++)
            to[i * PACK_ROWS + r] = from[r].half[i];
}

/* n columns from c on of the rows, of which there may be less than 16. */
static void pack_chunk(char *to, enum num type, const struct stored *s, struct span rows, int c,
                       int n)
{
    union line line[PACK_ROWS];
    if (len(rows) < PACK_ROWS || n < CHUNK)
        memset(line, 0, sizeof(line));
    for (int r = 0; r < len(rows); r++)
        convert(&line[r], type, s, rows.lo + r, c, n);
    if (type == NUM_F16)
        put_halves((uint16_t *)to, line, n);
    else
        put_words((uint32_t *)to, line, type == NUM_BF16 ? (n + 1) / 2 : n);
}

int part_pack(const struct part *to, enum num type, const struct stored *from)
{
    char *at = to->at;

    must(num_is_float(from->type) || from->type == NUM_FP8 || num_quant(from->type).group == 32);
    if (type == NUM_FP8)
        return fp8_pack(to, from);
    if (num_quant(type).bits)
        return quant_pack(to, type, from);
    for (int r = 0; r < to->rows; r += PACK_ROWS, at += pack_block_bytes(type, to->cols))
        for (int c = 0; c < to->cols; c += CHUNK)
            pack_chunk(at + (size_t)c * PACK_ROWS * num_bytes(type), type, from,
                       (struct span){r, min_int(to->rows, r + PACK_ROWS)}, c,
                       min_int(CHUNK, to->cols - c));
    char *end = (char *)to->at + part_bytes(type, to->rows, to->cols);
    memset(at, 0, (size_t)(end - at));
    return 0;
}

void part_row(const struct part *p, enum num type, int row, float *to)
{
    int k = pack_k(type);
    size_t wide = round_up((size_t)p->cols, (size_t)k);
    size_t first = (size_t)(row / PACK_ROWS) * wide * PACK_ROWS + (size_t)(row % PACK_ROWS * k);

    must(row >= 0 && row < p->rows);
    if (type == NUM_FP8) {
        fp8_row(p, row, to);
        return;
    }
    if (num_quant(type).bits) {
        quant_row(p, type, row, to);
        return;
    }
    for (int c = 0; c < p->cols; c++) {
        size_t at = first + (size_t)(c / k * k * PACK_ROWS + c % k);
        if (type == NUM_F32)
            to[c] = ((const float *)p->at)[at];
        else if (type == NUM_BF16)
            to[c] = bf16_to_f32(((const uint16_t *)p->at)[at]);
        else
            to[c] = f16_to_f32(((const uint16_t *)p->at)[at]);
    }
}
