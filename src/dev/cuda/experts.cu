/* experts.cu - sums of experts: rows are grouped on the GPU, multiplied (experts_stream.cu,
 * experts_plain.cu; many of each by experts_tile.cu), and added in fixed point, so that every order
 * gives the CPU's bits. More rows than the room holds are done some after the others.
 */
#include "dev/cuda/experts.h"

enum { THREADS = 512, FEW = 8, ROOM_ROWS = 2048 };

/* ------------------------------------------------------------------------------- grouping */

/* How many rows and tiles come before an expert's. */
struct before {
    int rows, tiles;
};

GPU_INLINE struct before before_expert(const int *count, int expert, int tile_rows)
{
    struct before b = {0, 0};
    for (int i = 0; i < expert; i++)
        b.rows += count[i], b.tiles += parts_of(count[i], tile_rows);
    return b;
}

/* By one block: a counting sort. Which of an expert's rows comes first is chance, and no matter. */
GPU_INLINE void group_rows(const struct experts &e, int *count)
{
    int *next = count + e.n_expert;
    for (int i = threadIdx.x; i < e.n_expert; i += THREADS)
        count[i] = 0;
    for (int i = threadIdx.x; i < e.tiles; i += THREADS)
        e.tile[i].expert = -1;
    for (int i = threadIdx.x; i < e.rows; i += THREADS)
        e.owner[i] = -1;
    if (threadIdx.x == 0)
        *e.none = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < e.rows; i += THREADS)
        if (0 <= e.chosen[i] && e.chosen[i] < e.n_expert)
            atomicAdd(&count[e.chosen[i]], 1);
    __syncthreads();
    for (int i = threadIdx.x; i < e.n_expert; i += THREADS) {
        const struct before b = before_expert(count, i, e.tile_rows);
        next[i] = b.rows;
        for (int r = 0, t = b.tiles; r < count[i]; r += e.tile_rows)
            e.tile[t++] = {i, b.rows + r, b.rows + min(r + e.tile_rows, count[i])};
    }
    __syncthreads();
    for (int i = threadIdx.x; i < e.rows; i += THREADS) {
        const int expert = e.chosen[i];
        if (expert < 0 || expert >= e.n_expert)
            continue;
        const int at = atomicAdd(&next[expert], 1);
        e.source[at] = i / e.per_row, e.owner[at] = expert, e.scale[at] = e.weight[i];
    }
}

/* The first block groups, the others clear y. */
__global__ static void begin_sums(const __grid_constant__ struct experts e)
{
    const size_t i = ((size_t)blockIdx.x - 1) * THREADS + threadIdx.x;
    if (blockIdx.x == 0)
        group_rows(e, gpu_shared<int>());
    else if (i < (size_t)e.n * e.dim)
        e.y[i] = 0;
}

/* Sums outside the range of what is added are none: there two highest bits differ. */
__global__ static void finish_sums(const __grid_constant__ struct experts e)
{
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (*e.none && i < (size_t)e.n * e.dim) {
        const uint64_t bits = (uint64_t)e.y[i];
        if ((bits ^ bits << 1) >> 63)
            e.y[i] = NUM_WHOLE_NONE;
    }
}

/* ------------------------------------------------------------------------------- the room */

/* Rows of tiles. Few rows of each expert: eight are done as fast as its weights can be read, in
 * bf16 sixteen. Many: larger tiles, so that less is read twice. */
static int tile_rows_of(const struct experts *e)
{
    const int each = e->rows / e->n_expert;
    if (e->type == NUM_F32 || e->type == NUM_F16)
        return FEW;
    if (each > 2 * FEW)
        return each > TILE_ROWS * 5 / 8 ? TILE_ROWS : TILE_ROWS / 2;
    const bool wide = e->type == NUM_BF16 || e->type == NUM_FP8;
    return wide && e->rows > FEW * e->n_expert ? 2 * FEW : FEW;
}

/* Where things are in the room for so many rows of x; the value is how many bytes that takes. */
static size_t place(struct experts *e, int n, char *room)
{
    size_t used = 0;
    auto take = [&](size_t bytes) {
        char *at = room + used;
        used += (bytes + 255) / 256 * 256;
        return (void *)at;
    };
    const bool whole = format_whole(e->type);
    e->n = n, e->rows = n * e->per_row;
    e->tile_rows = tile_rows_of(e);
    e->tiles = parts_of(e->rows, e->tile_rows) + e->n_expert;
    e->tiles = e->tiles < e->rows ? e->tiles : e->rows;
    const size_t rows = (size_t)e->rows, values = rows * (size_t)e->columns * sizeof(float);
    const size_t x = (size_t)n * (size_t)x_ready_row(*e), down = rows * (size_t)down_ready_row(*e);
    const size_t x_s = (size_t)n * (size_t)x_groups(*e), down_s = rows * (size_t)down_groups(*e);
    e->tile = (struct expert_tile *)take((size_t)e->tiles * sizeof(struct expert_tile));
    e->source = (int *)take(rows * sizeof(int));
    e->owner = (int *)take(rows * sizeof(int));
    e->scale = (float *)take(rows * sizeof(float));
    e->none = (int *)take(sizeof(int));
    e->gate = (float *)take(values);
    e->up = (float *)take(values);
    e->x_scale =
        (struct x_scale *)take(whole ? (x_s > down_s ? x_s : down_s) * sizeof(struct x_scale) : 0);
    e->ready = (char *)take(wants_ready(*e) ? (x > down ? x : down) : 0);
    return used;
}

/* For ROOM_ROWS rows, or all; of the formats that need most. */
size_t experts_room_bytes(const struct gpu_sizes *s)
{
    const int rows = s->max_tok < ROOM_ROWS ? s->max_tok : ROOM_ROWS;
    size_t most = 0;
    for (enum num type : {NUM_INT8_G32, NUM_BF16, NUM_FP8}) {
        struct experts e = {};
        e.dim = s->max_dim, e.n_expert = s->experts, e.per_row = s->top;
        e.columns = s->expert_columns, e.type = type;
        const size_t bytes = s->experts ? place(&e, rows, NULL) : 0;
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* ------------------------------------------------------------------------------- a call */

static int multiply(void *stream, const struct experts *e, bool down)
{
    const int error = wants_ready(*e) ? experts_prepare(stream, e, down) : 0;
    if (error)
        return error;
    return e->type == NUM_F32 || e->type == NUM_F16 ? experts_plain(stream, e, down)
           : tiled(*e)                              ? experts_tile(stream, e, down)
                                                    : experts_stream(stream, e, down);
}

static int sum_experts(void *stream, const struct experts *e)
{
    const int blocks = parts_of(e->n * e->dim, THREADS);
    int error =
        LAUNCH(begin_sums, 1 + blocks, THREADS, 2 * (size_t)e->n_expert * sizeof(int), stream, *e);
    error = error ? error : multiply(stream, e, false);
    if (!error && !wants_ready(*e))
        error = gpu_swiglu(stream, e->gate, e->up, e->rows, e->columns);
    error = error ? error : multiply(stream, e, true);
    return error ? error : LAUNCH(finish_sums, blocks, THREADS, 0, stream, *e);
}

extern "C" int gpu_experts(void *stream, int64_t *y, const float *x, int n, int dim,
                           const struct gpu_weight *expert, int n_expert, enum num type,
                           int columns, int parts, const int *chosen, const float *weight,
                           int per_row, const struct gpu_room *room)
{
    struct experts e = {};
    int most = n;
    e.dim = dim, e.expert = expert, e.n_expert = n_expert, e.type = type, e.columns = columns;
    e.parts = parts, e.per_row = per_row;
    while (most > 1 && place(&e, most, NULL) > room->bytes)
        most = (most + 1) / 2;
    if (n && place(&e, most, (char *)room->at) > room->bytes)
        return GPU_NO_MEMORY;
    for (int row = 0; row < n; row += most) {
        place(&e, n - row < most ? n - row : most, (char *)room->at);
        e.y = y + (size_t)row * (size_t)dim, e.x = x + (size_t)row * (size_t)dim;
        e.chosen = chosen + (size_t)row * (size_t)per_row;
        e.weight = weight + (size_t)row * (size_t)per_row;
        const int error = sum_experts(stream, &e);
        if (error)
            return error;
    }
    return 0;
}
