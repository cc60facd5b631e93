/* quant.c - weights and activations as whole numbers with scales. See weight.h. */
#include "dev/weight.h"

#include <math.h>

enum { GROUP_MAX = 128 };

/* ------------------------------------------------------------------------------- where */

struct place {
    struct quant q;
    uint16_t *scale, *least; /* [groups][16] of the block */
    uint8_t *number;
};

static struct place place_of(const struct part *p, enum num type, int block)
{
    char *at = (char *)p->at + (size_t)block * pack_block_bytes(type, p->cols);
    return (struct place){num_quant(type), (uint16_t *)at,
                          (uint16_t *)(at + pack_scale_bytes(type, p->cols)),
                          (uint8_t *)at + pack_head_bytes(type, p->cols)};
}

/* The byte of column c of row r of a block, and by how many bits it is shifted there. */
static size_t byte_of(struct quant q, int r, int c, int *shift)
{
    *shift = q.bits == 4 && c % 8 >= 4 ? 4 : 0;
    int word = q.bits == 4 ? c / 8 : c / 4;
    return ((size_t)word * PACK_ROWS + (size_t)r) * 4 + (size_t)(c % 4);
}

/* ------------------------------------------------------------------------------- weights */

static bool all_finite(const float *x, int n)
{
    uint32_t worst = 0;
    for (int i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof(u));
        u &= 0x7fffffff;
        worst = u > worst ? u : worst;
    }
    return worst < 0x7f800000;
}

static int clamp(long v, int lo, int hi) { return (int)(v < lo ? lo : v > hi ? hi : v); }

/* The number of largest magnitude, with its sign. */
static float top_of(const float *x, int n)
{
    float lo = 0, hi = 0;
    for (int i = 0; i < n; i++)
        lo = x[i] < lo ? x[i] : lo, hi = x[i] > hi ? x[i] : hi;
    return -lo > hi ? lo : hi;
}

/* One group of one row. The scale is rounded first, so that numbers are chosen for what will be
 * multiplied. Four bits have one number more below zero than above: the largest gets it. */
static int choose(struct quant q, const float *x, int n, uint16_t *scale, uint16_t *least,
                  uint8_t *to)
{
    int most = (1 << q.bits) - 1;
    float base = 0, d = top_of(x, n) / (q.bits == 4 ? -8.0f : 127.0f);
    if (q.least) {
        float lo = x[0], hi = x[0];
        for (int i = 1; i < n; i++)
            lo = x[i] < lo ? x[i] : lo, hi = x[i] > hi ? x[i] : hi;
        *least = f32_to_f16(lo);
        base = f16_to_f32(*least);
        d = (hi - base) / 15;
    }
    *scale = f32_to_f16(d);
    d = f16_to_f32(*scale);
    if (!isfinite(d) || !isfinite(base))
        return -ERANGE;
    float inverse = d != 0 ? 1 / d : 0;
    for (int i = 0; i < n; i++)
        to[i] = (uint8_t)clamp(lrintf((x[i] - base) * inverse) + q.zero, q.bits == 8, most);
    return 0;
}

/* A group as the file has it, number by number. */
static void take_group(struct quant q, const uint8_t *group, uint16_t *scale, uint16_t *least,
                       uint8_t *to)
{
    const uint8_t *number = group + (q.least ? 4 : 2);
    memcpy(scale, group, sizeof(*scale));
    if (q.least)
        memcpy(least, group + 2, sizeof(*least));
    for (int i = 0; i < q.group; i++)
        to[i] = q.bits == 8 ? number[i] ^ 128 : number[i % 16] >> (i / 16 * 4) & 15;
}

/* Sixteen rows of one group into words: column by column of four. */
static void put_group(const struct place *p, uint8_t number[PACK_ROWS][GROUP_MAX], int first, int n)
{
    for (int c = 0; c < n; c += 8) {
        uint8_t *to = p->number + (size_t)(first + c) * PACK_ROWS * (size_t)p->q.bits / 8;
        for (int r = 0; r < PACK_ROWS; r++) {
            const uint8_t *from = &number[r][c];
            for (int i = 0; i < 4; i++) {
                if (p->q.bits == 4) {
                    to[4 * r + i] = (uint8_t)(from[i] | from[i + 4] << 4);
                } else {
                    to[4 * r + i] = from[i];
                    to[4 * (r + PACK_ROWS) + i] = from[i + 4];
                }
            }
        }
    }
}

static int pack_group(const struct place *p, const struct stored *from, int r, int c, int n, int i,
                      uint8_t *to)
{
    float x[GROUP_MAX];
    bool same = num_is_whole(from->type) && num_quant(from->type).group == p->q.group &&
                num_quant(from->type).bits == p->q.bits &&
                num_quant(from->type).least == p->q.least && (from->col + c) % p->q.group == 0;
    if (same && n == p->q.group) {
        take_group(p->q, stored_group(from, r, c), &p->scale[i], &p->least[i], to);
        return 0;
    }
    stored_read(from, r, c, n, x);
    return all_finite(x, n) ? choose(p->q, x, n, &p->scale[i], &p->least[i], to) : -EDOM;
}

static int pack_block(const struct part *to, enum num type, int block, const struct stored *from)
{
    struct place p = place_of(to, type, block);
    int rows = min_int(PACK_ROWS, to->rows - block * PACK_ROWS);
    uint8_t number[PACK_ROWS][GROUP_MAX];
    memset(p.scale, 0, pack_head_bytes(type, to->cols));
    for (int c = 0, g = 0; c < to->cols; c += p.q.group, g++) {
        int n = min_int(p.q.group, to->cols - c);
        memset(number, p.q.zero, sizeof(number));
        for (int r = 0; r < rows; r++)
            if (pack_group(&p, from, block * PACK_ROWS + r, c, n, g * PACK_ROWS + r, number[r]))
                return -EDOM;
        put_group(&p, number, c, n);
    }
    return 0;
}

int quant_pack(const struct part *to, enum num type, const struct stored *from)
{
    int n_block = (to->rows + PACK_ROWS - 1) / PACK_ROWS, rc = 0;
    for (int b = 0; b < n_block && !rc; b++)
        rc = pack_block(to, type, b, from);
    return rc;
}

void quant_row(const struct part *p, enum num type, int row, float *to)
{
    struct place at = place_of(p, type, row / PACK_ROWS);
    int r = row % PACK_ROWS;
    for (int c = 0; c < p->cols; c++) {
        int shift, g = c / at.q.group;
        size_t byte = byte_of(at.q, r, c, &shift);
        int q = at.number[byte] >> shift & ((1 << at.q.bits) - 1);
        float scale = f16_to_f32(at.scale[g * PACK_ROWS + r]);
        to[c] = at.q.least ? fmaf((float)q, scale, f16_to_f32(at.least[g * PACK_ROWS + r]))
                           : (float)(q - at.q.zero) * scale;
    }
}

/* ------------------------------------------------------------------------------- activations */

void quant_x(const float *x, int n, int8_t *q, float *scale, int32_t *total)
{
    uint32_t most = 0;
    float top;
    for (int i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof(u));
        u &= 0x7fffffff;
        most = u > most ? u : most;
    }
    memcpy(&top, &most, sizeof(top));
    *total = 0;
    if (most >= 0x7f800000 || top < 1e-30f) {
        *scale = most >= 0x7f800000 ? NAN : 0;
        memset(q, 0, (size_t)n);
        return;
    }
    float by = 127 / top;
    for (int i = 0; i < n; i++)
        *total += q[i] = (int8_t)lrintf(x[i] * by);
    *scale = top / 127;
}
