/* experts.h - a layer's experts: rows are grouped by expert, and a product's block of threads makes
 * outputs of some rows of one expert. What the files experts*.cu share.
 *
 * Sorted rows: every choice of a row is one, those of an expert stand together. No row is dropped
 * and none is padded.
 */
#ifndef TANDEM_CUDA_EXPERTS_H
#define TANDEM_CUDA_EXPERTS_H

#include "dev/cuda/number.h"
#include "dev/cuda/product.h"

enum { TILE_ROWS = 64 }; /* of the largest tiles */

/* Sorted rows first .. end - 1, at most tile_rows, are of one expert; expert < 0: there is no such
 * tile. */
struct expert_tile {
    int expert, first, end;
};

/* Rows of one call. y, x and chosen are those of its first row. */
struct experts {
    int64_t *y;
    const float *x;
    int n, dim, n_expert, per_row;
    const struct gpu_weight *expert; /* gate, up, down of each */
    const int *chosen;
    const float *weight;
    enum num type;
    int columns, parts;         /* the most that an expert has, and parts of a gate or up */
    int rows, tiles, tile_rows; /* of sorted rows; tiles at most */

    /* In the room. */
    struct expert_tile *tile;
    int *source, *owner;     /* [rows] row of x of a sorted row; its expert, or -1 */
    float *scale;            /* [rows] its weight */
    int *none;               /* is a sum none of y's? (base/whole.h) */
    float *gate, *up;        /* [rows][columns] */
    struct x_scale *x_scale; /* of rows made ready */
    char *ready;
};

/* Whether products want their rows made ready: formats in groups, and tiles of more than 16 rows.
 */
GPU_BOTH bool tiled(const struct experts &e) { return e.tile_rows > 16; }
GPU_BOTH bool wants_ready(const struct experts &e) { return format_grouped(e.type) || tiled(e); }

/* Rows made ready, in bytes: of x for gate and up, then of gate for down, whose shares begin anew.
 */
GPU_BOTH int x_ready_row(const struct experts &e)
{
    return up_to(e.dim, X_BLOCK) * ready_bytes(e.type);
}
GPU_BOTH int x_groups(const struct experts &e) { return parts_of(e.dim, format_group(e.type)); }
GPU_BOTH int down_ready_row(const struct experts &e)
{
    return (up_to(e.columns, X_BLOCK) + GPU_PARTS * X_BLOCK) * ready_bytes(e.type);
}
GPU_BOTH int down_groups(const struct experts &e)
{
    return parts_of(e.columns, format_group(e.type)) + GPU_PARTS;
}

/* Blocks of so many outputs of gate and of up, at most: parts may end in the midst of one. */
GPU_BOTH int gate_blocks(const struct experts &e, int outputs)
{
    return parts_of(e.columns, outputs) + e.parts - 1;
}

/* ------------------------------------------------------------------------------- products */

/* The product of which a block of threads makes a part; it puts p together in shared memory. */
GPU_INLINE void begin_product(struct product *p, const struct experts &e, bool down)
{
    p->x = down ? e.gate : e.x;
    p->dim = down ? e.columns : e.dim;
    p->ready = e.ready, p->scale = e.x_scale;
    p->ready_row = down ? down_ready_row(e) : x_ready_row(e);
    p->ready_rows = down ? e.rows : e.n;
    p->groups = down ? down_groups(e) : x_groups(e);
    p->together = down;
}

/* Of gate, or of up when blockIdx.z, the part and which `outputs` of it block `block` makes; false:
 * none. */
GPU_INLINE bool gate_product(struct product *p, const struct experts &e, int expert, int block,
                             int outputs, struct duty *duty)
{
    const struct gpu_weight *w = &e.expert[3 * expert + (int)blockIdx.z];
    int part = 0, out = 0;
    while (part < w->n_part && block >= parts_of(w->part[part].rows, outputs)) {
        block -= parts_of(w->part[part].rows, outputs);
        out += w->part[part++].rows;
    }
    if (part == w->n_part)
        return false;
    *duty = {0, 1, block};
    if (threadIdx.x == 0) {
        struct piece k = {};
        begin_product(p, e, false);
        k.at = (const char *)w->part[part].at;
        k.rows = w->part[part].rows, k.cols = w->part[part].cols;
        k.out = out, k.last = true;
        p->to[0] = {blockIdx.z ? e.up : e.gate, NULL, e.columns};
        p->piece[0] = k, p->n_piece = 1;
    }
    __syncthreads();
    return true;
}

/* Share i of down. */
GPU_INLINE struct piece down_piece(const struct experts &e, const struct gpu_weight *w, int i)
{
    struct piece k = {};
    for (int j = 0; j < i; j++) {
        const int cols = w->part[j].cols;
        k.x += cols, k.ready += up_to(cols, X_BLOCK) * ready_bytes(e.type),
            k.group += parts_of(cols, format_group(e.type));
    }
    k.at = (const char *)w->part[i].at;
    k.rows = w->part[i].rows, k.cols = w->part[i].cols;
    k.last = i == w->n_part - 1;
    return k;
}

GPU_INLINE struct duty down_product(struct product *p, const struct experts &e, int expert,
                                    int block)
{
    const struct gpu_weight *w = &e.expert[3 * expert + 2];
    if ((int)threadIdx.x < w->n_part)
        p->piece[threadIdx.x] = down_piece(e, w, (int)threadIdx.x);
    if (threadIdx.x == 0) {
        begin_product(p, e, true);
        p->n_piece = w->n_part;
    }
    __syncthreads();
    return {0, w->n_part, block};
}

/* ------------------------------------------------------------------------------- sums */

/* Outputs of gate and up. */
struct put_rows {
    const struct product &p;
    int end;

    __device__ void sum(int, const struct piece &k, int row, int o, float v)
    {
        if (row < end && o < k.rows)
            p.to[0].y[(size_t)row * (size_t)p.to[0].stride + (size_t)(k.out + o)] = v;
    }
};

/* y += weight * sum of every share, in fixed point: who comes first is no matter. A sum that is
 * none stays out of the range of others, whatever is added: finish_sums() finds it. */
template <int N> struct add_terms {
    const struct experts &e;
    int end;
    int64_t whole[N];

    __device__ add_terms(const struct experts &of, int end_of) : e(of), end(end_of), whole() {}
    __device__ void sum(int i, const struct piece &k, int row, int o, float v)
    {
        if (row >= end || o >= k.rows)
            return;
        if (k.cols) {
            const int64_t term = num_whole(__fmul_rn(e.scale[row], v));
            whole[i] = term == NUM_WHOLE_NONE || whole[i] == NUM_WHOLE_NONE ? NUM_WHOLE_NONE
                                                                            : whole[i] + term;
        }
        if (!k.last || !whole[i])
            return;
        unsigned long long *to =
            (unsigned long long *)e.y + (size_t)e.source[row] * (size_t)e.dim + o;
        if (whole[i] == NUM_WHOLE_NONE) {
            atomicExch(to, (unsigned long long)whole[i]);
            atomicExch(e.none, 1);
        } else {
            atomicAdd(to, (unsigned long long)whole[i]);
        }
    }
};

/* ------------------------------------------------------------------------------- launches */

size_t experts_room_bytes(const struct gpu_sizes *);

/* Each enqueues a product of all tiles: gate and up from x, or y from gate. */
int experts_stream(void *stream, const struct experts *e, bool down);
int experts_plain(void *stream, const struct experts *e, bool down);
int experts_tile(void *stream, const struct experts *e, bool down);

/* Makes rows ready for them, where they want that: of x, or of what stands between up and down,
 * which then nobody else works out. */
int experts_prepare(void *stream, const struct experts *e, bool down);

#endif
