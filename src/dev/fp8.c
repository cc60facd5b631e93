/* fp8.c - weights as e4m3 with a scale per row and group of columns. See weight.h. */
#include "dev/weight.h"

#include <math.h>

enum { GROUP = 128, NONE = 0x7f };

/* ------------------------------------------------------------------------------- where */

struct place {
    float *scale; /* [groups][16] of the block */
    uint8_t *number;
};

static struct place place_of(const struct part *p, int block)
{
    char *at = (char *)p->at + (size_t)block * pack_block_bytes(NUM_FP8, p->cols);
    return (struct place){(float *)(void *)at, (uint8_t *)at + pack_head_bytes(NUM_FP8, p->cols)};
}

/* The byte of column c of row r of a block. */
static size_t byte_of(int r, int c)
{
    static const uint8_t of_four[] = {0, 2, 1, 3};
    return ((size_t)(c / 4) * PACK_ROWS + (size_t)r) * 4 + of_four[c % 4];
}

/* ------------------------------------------------------------------------------- packing */

/* A group of one row, rounded. */
static int round_group(const float *x, int n, float *scale, uint8_t *to)
{
    float top = 0;
    for (int i = 0; i < n; i++) {
        if (!isfinite(x[i]))
            return -EDOM;
        top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    }
    *scale = top < 1e-30f ? 0 : top / 448;
    float inverse = top < 1e-30f ? 0 : 448 / top;
    for (int i = 0; i < n; i++)
        to[i] = f32_to_fp8(x[i] * inverse);
    return 0;
}

/* A group as the file has it, number by number. */
static int take_group(const uint8_t *from, int n, float *scale, uint8_t *to)
{
    bool none = false;
    for (int i = 0; i < n; i++) {
        none |= (from[i] & NONE) == NONE;
        to[i] = from[i];
    }
    return none || !isfinite(*scale) ? -EDOM : 0;
}

/* Does one scale of the file cover n columns from c on? */
static bool one_scale(const struct stored *from, int c, int n)
{
    int first = from->col + c;
    return from->type == NUM_FP8 &&
           first / from->scales.cols == (first + n - 1) / from->scales.cols;
}

static int pack_group(const struct stored *from, int r, int c, int n, float *scale, uint8_t *to)
{
    float x[GROUP];
    if (one_scale(from, c, n)) {
        *scale = scales_read(&from->scales, from->row + r, from->col + c);
        return take_group((const uint8_t *)stored_at(from, r, c), n, scale, to);
    }
    stored_read(from, r, c, n, x);
    return round_group(x, n, scale, to);
}

static int pack_block(const struct part *to, int block, const struct stored *from)
{
    struct place p = place_of(to, block);
    int rows = min_int(PACK_ROWS, to->rows - block * PACK_ROWS), rc = 0;
    uint8_t number[GROUP];
    memset(p.scale, 0, pack_block_bytes(NUM_FP8, to->cols));
    for (int c = 0, g = 0; c < to->cols; c += GROUP, g++) {
        int n = min_int(GROUP, to->cols - c);
        for (int r = 0; r < rows && !rc; r++) {
            rc = pack_group(from, block * PACK_ROWS + r, c, n, &p.scale[g * PACK_ROWS + r], number);
            for (int i = 0; i < n; i++)
                p.number[byte_of(r, c + i)] = number[i];
        }
    }
    return rc;
}

int fp8_pack(const struct part *to, const struct stored *from)
{
    int n_block = (to->rows + PACK_ROWS - 1) / PACK_ROWS, rc = 0;
    must(num_quant(NUM_FP8).group == GROUP);
    for (int b = 0; b < n_block && !rc; b++)
        rc = pack_block(to, b, from);
    return rc;
}

/* ------------------------------------------------------------------------------- reading */

void fp8_numbers(const struct part *p, int row, float *to)
{
    struct place at = place_of(p, row / PACK_ROWS);
    for (int c = 0; c < p->cols; c++)
        to[c] = fp8_to_f32(at.number[byte_of(row % PACK_ROWS, c)]);
}

float fp8_scale(const struct part *p, int row, int g)
{
    return place_of(p, row / PACK_ROWS).scale[g * PACK_ROWS + row % PACK_ROWS];
}

void fp8_row(const struct part *p, int row, float *to)
{
    fp8_numbers(p, row, to);
    for (int c = 0; c < p->cols; c++)
        to[c] *= fp8_scale(p, row, c / GROUP);
}
