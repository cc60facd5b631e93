/* experts_stream.cu - products of experts by bf16 and whole numbers: see experts.h. */
#include "dev/cuda/experts.h"
#include "dev/cuda/prepare.h"
#include "dev/cuda/product_stream.h"

enum { PREPARE_WARPS = 8 };

/* ------------------------------------------------------------------------------- ready rows */

/* GROUP 0: pairs of bf16, for e4m3. Row blockIdx.y of x, or, for down, of sorted rows, by its
 * expert's shares. A block per warp. */
template <int GROUP, bool FOUR_BITS, bool DOWN>
__global__ static void prepare_experts(const __grid_constant__ struct experts e)
{
    const int row = (int)blockIdx.y;
    int block = (int)blockIdx.x * PREPARE_WARPS + (int)threadIdx.x / 32, part = 0;
    char *ready = e.ready + (size_t)row * (size_t)(DOWN ? down_ready_row(e) : x_ready_row(e));
    struct x_scale *scale = e.x_scale + row;
    if (!DOWN) {
        const float *x = e.x + (size_t)row * (size_t)e.dim;
        if (block >= parts_of(e.dim, X_BLOCK))
            return;
        if constexpr (GROUP)
            round_block<GROUP, FOUR_BITS>(ready, scale, e.n, x, e.dim, e.dim, block);
        else
            pair_block(ready, x, e.dim, block);
        return;
    }
    if (e.owner[row] < 0)
        return;
    const struct gpu_weight *w = &e.expert[3 * e.owner[row] + 2];
    while (part < w->n_part && block >= parts_of(w->part[part].cols, X_BLOCK))
        block -= parts_of(w->part[part++].cols, X_BLOCK);
    if (part == w->n_part)
        return;
    const struct piece k = down_piece(e, w, part);
    const float *x = e.gate + (size_t)row * (size_t)e.columns + k.x;
    if constexpr (GROUP)
        round_block<GROUP, FOUR_BITS>(ready + k.ready, scale + (size_t)k.group * (size_t)e.rows,
                                      e.rows, x, k.cols, k.cols, block);
    else
        pair_block(ready + k.ready, x, k.cols, block);
}

template <int GROUP, bool FOUR_BITS>
static int prepare(void *stream, const struct experts *e, bool down)
{
    const int blocks =
        (down ? down_ready_row(*e) : x_ready_row(*e)) / (X_BLOCK * ready_bytes(e->type));
    const dim3 grid((unsigned)parts_of(blocks, PREPARE_WARPS), (unsigned)(down ? e->rows : e->n));
    const dim3 block(32 * PREPARE_WARPS);
    return down ? LAUNCH((prepare_experts<GROUP, FOUR_BITS, true>), grid, block, 0, stream, *e)
                : LAUNCH((prepare_experts<GROUP, FOUR_BITS, false>), grid, block, 0, stream, *e);
}

static int prepare_rows(void *stream, const struct experts *e, bool down)
{
    switch (e->type) {
    case NUM_BF16: return 0;
    case NUM_FP8: return prepare<0, false>(stream, e, down);
    case NUM_INT8: return prepare<128, false>(stream, e, down);
    case NUM_INT8_G32: return prepare<32, false>(stream, e, down);
    case NUM_INT4_G128: return prepare<128, true>(stream, e, down);
    case NUM_INT4: return prepare<64, true>(stream, e, down);
    default: return prepare<32, true>(stream, e, down);
    }
}

/* ------------------------------------------------------------------------------- products */

template <enum num TYPE, int TILES, bool DOWN>
__global__ static void __launch_bounds__(STREAM_THREADS, 2)
    experts_kernel(const __grid_constant__ struct experts e)
{
    const struct expert_tile tile = e.tile[blockIdx.y];
    const struct some_rows at = {tile.first, tile.end, DOWN ? NULL : e.source};
    struct product *p = (struct product *)(gpu_shared<char>() + stream_bytes<TYPE, TILES>());
    struct duty duty;
    if (tile.expert < 0)
        return;
    if constexpr (DOWN) {
        duty = down_product(p, e, tile.expert, (int)blockIdx.x);
        struct add_terms<TILES> add(e, tile.end);
        stream_rows<TYPE, TILES>(*p, duty, at, add);
    } else if (gate_product(p, e, tile.expert, (int)blockIdx.x, &duty)) {
        struct put_rows put = {*p, tile.end};
        stream_rows<TYPE, TILES>(*p, duty, at, put);
    }
}

template <enum num TYPE, int TILES>
static int launch(void *stream, const struct experts *e, bool down)
{
    const size_t shared = stream_bytes<TYPE, TILES>() + sizeof(struct product);
    const dim3 grid((unsigned)(down ? parts_of(e->dim, PAIR) : gate_blocks(*e)), (unsigned)e->tiles,
                    down ? 1 : 2);
    return down ? LAUNCH((experts_kernel<TYPE, TILES, true>), grid, dim3(STREAM_THREADS), shared,
                         stream, *e)
                : LAUNCH((experts_kernel<TYPE, TILES, false>), grid, dim3(STREAM_THREADS), shared,
                         stream, *e);
}

int experts_stream(void *stream, const struct experts *e, bool down)
{
    const int error = prepare_rows(stream, e, down);
    if (error)
        return error;
    switch (e->type) {
    case NUM_BF16:
        return e->tile_rows <= 8 ? launch<NUM_BF16, 1>(stream, e, down)
                                 : launch<NUM_BF16, 2>(stream, e, down);
    case NUM_FP8:
        return e->tile_rows <= 8 ? launch<NUM_FP8, 1>(stream, e, down)
                                 : launch<NUM_FP8, 2>(stream, e, down);
    case NUM_INT8: return launch<NUM_INT8, 1>(stream, e, down);
    case NUM_INT4: return launch<NUM_INT4, 1>(stream, e, down);
    case NUM_INT8_G32: return launch<NUM_INT8_G32, 1>(stream, e, down);
    case NUM_INT4_G32: return launch<NUM_INT4_G32, 1>(stream, e, down);
    case NUM_INT4_G32Z: return launch<NUM_INT4_G32Z, 1>(stream, e, down);
    default: return launch<NUM_INT4_G128, 1>(stream, e, down);
    }
}
