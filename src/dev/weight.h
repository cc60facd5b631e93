/* weight.h - weights as kernels want them: packed, in parts that ranks can share out.
 *
 * A part is a dense sub-matrix packed on its own:
 *
 *     [ceil(rows / 16)][ceil(cols / k)][16][k]      k = PACK_K(type): 2 for bf16, otherwise 1
 *
 * so that SIMD lanes are outputs, no kernel needs a horizontal sum, and a product with one row
 * gives the same bits as a product with many. Missing rows and columns are zeros.
 *   Whole numbers: a block of 16 rows is
 *
 *     [groups][16] scales, perhaps [groups][16] least numbers, both f16 and filled up to 64 bytes;
 *     [ceil(cols / 8)][2][16][4] numbers; of 4 bits: [ceil(cols / 8)][16][4] bytes, the first
 *     four columns in their lower halves and the next four in the upper ones.
 *
 *   e4m3: the same with bytes, but scales are f32, and of every four columns the bytes are those of
 *   columns 0, 2, 1, 3: the even bytes of a word are one pair of neighbours, the odd ones the next.
 *
 *   Groups begin anew in every part, so a part can be multiplied without its neighbours.
 *   Cut by rows:  the parts hold successive rows; each yields successive outputs.
 *   Cut by cols:  part i holds the columns of share first + i; each yields one leaf of the tree
 *                 of base/tree.h over all rows. A share without columns is a part with cols == 0.
 * Parts of one tensor follow each other in memory, so a rank's run of parts is one run of bytes.
 */
#ifndef TANDEM_WEIGHT_H
#define TANDEM_WEIGHT_H

#include "base/mat.h"

enum { PACK_ROWS = 16 };

enum cut { CUT_NONE, CUT_ROWS, CUT_COLS };

struct part {
    int rows, cols;
    void *at; /* not owned; aligned to 64 bytes */
};

/* What one rank holds of a matrix [out, in]. */
struct weight {
    enum num type;
    int rows, cols; /* of the rank's slice */
    int first;      /* share of part[0] */
    int n_part;
    const struct part *part;
    /* On a device that wants it so as well: bf16, row by row, [rows][weight_plain_stride()]. */
    const void *plain;
};

/* Numbers from one row to the next: rows begin at multiples of 16 bytes. */
static inline int weight_plain_stride(int cols) { return (cols + 7) / 8 * 8; }

/* What one rank holds of an expert: the parts of gate and up have the rows that those of down have
 * columns. */
struct expert {
    struct weight gate, up, down;
};

static inline int pack_k(enum num type) { return type == NUM_BF16 ? 2 : 1; }

/* Scales, or least numbers, of a block of 16 rows. */
static inline size_t pack_scale_bytes(enum num type, int cols)
{
    size_t group = (size_t)num_quant(type).group;
    return round_up(((size_t)cols + group - 1) / group * PACK_ROWS * num_scale_bytes(type), 64);
}

/* What stands before the numbers of a block of 16 rows. */
static inline size_t pack_head_bytes(enum num type, int cols)
{
    struct quant q = num_quant(type);
    return q.bits ? pack_scale_bytes(type, cols) * (q.least ? 2 : 1) : 0;
}

/* A block of 16 rows. */
static inline size_t pack_block_bytes(enum num type, int cols)
{
    size_t k = (size_t)pack_k(type), n = (size_t)cols;
    int bits = num_quant(type).bits;
    if (bits)
        return pack_head_bytes(type, cols) + round_up(n, 8) * PACK_ROWS * (size_t)bits / 8;
    return round_up(n, k) * PACK_ROWS * num_bytes(type);
}

/* Bytes of a packed part: a multiple of 64. */
static inline size_t part_bytes(enum num type, int rows, int cols)
{
    size_t block = round_up((size_t)rows, PACK_ROWS) / PACK_ROWS;
    return round_up(block * pack_block_bytes(type, cols), 64);
}

/* A matrix in a file, possibly unaligned: element (r, c) of what is to be packed is number
 * (row + r, col + c) of rows of `stride` numbers. Whole numbers stand as GGUF has them: row by row
 * in groups of 32, first the scale, perhaps the least number, then the numbers; of 4 bits, number i
 * and number i + 16 share a byte. e4m3 has its scales elsewhere. */
struct stored {
    const void *at;
    enum num type; /* f32, f16, bf16, e4m3, or in groups of 32 */
    size_t stride;
    int row, col;
    int pairs; /* rows of each head of so many are interleaved: 0, D/2, 1, D/2 + 1 ...; or 0 */
    struct scales scales; /* of e4m3; of the whole matrix */
};

/* n <= 128 numbers of row r from column c on, as f32. */
void stored_read(const struct stored *s, int r, int c, int n, float *to);

/* Fill a part of type `type` from a matrix in a file. Converts between f32, f16 and bf16 (round to
 * nearest even), from formats in groups to these, and from all to formats in groups: then a number
 * that is infinite or none gives -EDOM. Numbers of the part's own format stay exactly as they are;
 * of e4m3, those of a group that one scale of the file covers.
 * Thread-safe; the loader calls it for different parts at once. */
int part_pack(const struct part *to, enum num type, const struct stored *from);

/* The inverse for one row, to f32: the embedding and the tests read it. */
void part_row(const struct part *p, enum num type, int row, float *to);

/* Number (r, c) of a matrix in a file, of a format that is not in groups, or e4m3. */
const char *stored_at(const struct stored *s, int r, int c);

/* A group of 32 in a file: its bytes, and where the one with (r, c) begins. */
size_t stored_group_bytes(enum num type);
const uint8_t *stored_group(const struct stored *s, int r, int c);

/* quant.c: the same two for whole numbers. */
int quant_pack(const struct part *to, enum num type, const struct stored *from);
void quant_row(const struct part *p, enum num type, int row, float *to);

/* fp8.c: the same two for e4m3. A group that is rounded here has the scale top / 448, where top is
 * its largest magnitude (below 1e-30 all is 0), and numbers x * (448 / top) to the nearest, ties to
 * even. And a row without its scales; the scale of group g of a row. */
int fp8_pack(const struct part *to, const struct stored *from);
void fp8_row(const struct part *p, int row, float *to);
void fp8_numbers(const struct part *p, int row, float *to);
float fp8_scale(const struct part *p, int row, int g);

/* n <= 128 activations as whole numbers -127 .. 127 by a scale of their own:
 *     top = the largest magnitude; below 1e-30 all is 0
 *     q = x * (127 / top), to the nearest, ties to even;  scale = top / 127
 * With an infinite number or none among them scale is a NaN and q is 0. *total is the sum of q. */
void quant_x(const float *x, int n, int8_t *q, float *scale, int32_t *total);

#endif
