/* weight.h - weights as kernels want them: packed, in parts that ranks can share out.
 *
 * A part is a dense sub-matrix packed on its own:
 *
 *     [ceil(rows / 16)][ceil(cols / k)][16][k]      k = PACK_K(type): 2 for bf16, otherwise 1
 *
 * so that SIMD lanes are outputs, no kernel needs a horizontal sum, and a product with one row
 * gives the same bits as a product with many. Missing rows and columns are zeros.
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
};

static inline int pack_k(enum num type) { return type == NUM_BF16 ? 2 : 1; }

/* Bytes of a packed part: a multiple of 64. */
static inline size_t part_bytes(enum num type, int rows, int cols)
{
    size_t k = (size_t)pack_k(type);
    return round_up(round_up((size_t)rows, PACK_ROWS) * round_up((size_t)cols, k) * num_bytes(type),
                    64);
}

/* Fill a part of type `type` from a dense matrix in a file: element (r, c) of the part is
 * src[r * stride + c], of type `from`, possibly unaligned. Converts between all of f32, f16, bf16
 * (round to nearest even). Thread-safe; the loader calls it for different parts at once. */
void part_pack(const struct part *to, enum num type, const void *src, enum num from, size_t stride);

/* The inverse for one row, to f32: the embedding and the tests read it. */
void part_row(const struct part *p, enum num type, int row, float *to);

#endif
