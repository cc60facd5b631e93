/* attend_split.cu - attention over a bf16 cache for runs of few rows, decoding: the segments of a
 * sequence are done by blocks of their own, side by side, and joined by a second kernel. The
 * arithmetic is that of attend_bf16.h.
 *
 * A tile is sixteen rows. Its four warps share them: each scores one of a block's four pages, and
 * adds up a quarter of the numbers of a value.
 */
#include "dev/cuda/attend_bf16.h"
#include "dev/cuda/attend_kernels.h"

enum {
    TILE_ROWS = 16,
    PART_EXTRA = 4,       /* floats after a row's outputs: top, sum, two to align */
    ROOM_MOST = 128 << 20 /* with so many rows there are blocks enough without splitting */
};

/* Rows first .. first + n - 1 of a run, at most TILE_ROWS; n <= 0: nothing to do. */
struct tile {
    struct queries of;
    int first, n;
    struct reading read;
};

struct split {
    struct attending a;
    int tiles, rows; /* of a run, and of a tile, at most */
    bool alone;
};

/* ------------------------------------------------------------------------------- which rows */

/* The tokens of a sequence; they stand together. `found` is shared memory. */
GPU_INLINE struct keys find_run(const struct gpu_batch *b, int seq, int found[2])
{
    if (threadIdx.x < 2)
        found[threadIdx.x] = 0;
    __syncthreads();
    for (int t = threadIdx.x; t < b->n_tok; t += ATTEND_THREADS)
        if (b->seq[t] == seq) {
            if (t == 0 || b->seq[t - 1] != seq)
                found[0] = t;
            if (t == b->n_tok - 1 || b->seq[t + 1] != seq)
                found[1] = t + 1;
        }
    __syncthreads();
    return {found[0], found[1]};
}

GPU_INLINE struct tile find_tile(const struct split *s, int which, int head, int found[2])
{
    const struct attending *a = &s->a;
    const int run = which / s->tiles;
    struct keys tokens = {run, run + 1};
    struct tile t;
    t.of = queries_of(&a->heads, a->n_head, head);
    if (!s->alone)
        tokens = find_run(&a->batch, run, found);
    const int end = tokens.hi - tokens.lo > short_run(a) && !s->alone ? 0 : tokens.hi * t.of.n;
    t.first = tokens.lo * t.of.n + which % s->tiles * TILE_ROWS;
    t.n = min(end - t.first, (int)TILE_ROWS);
    if (t.n > 0) {
        const int *pos = a->batch.pos;
        t.read.seq = a->batch.seq[tokens.lo], t.read.head = head;
        t.read.keys.lo = keys_of(&a->heads, pos[t.first / t.of.n]).lo;
        t.read.keys.hi = keys_of(&a->heads, pos[(t.first + t.n - 1) / t.of.n]).hi;
    }
    return t;
}

/* The results of one segment of a row: its outputs, and then top and sum. */
GPU_INLINE float *part_of(const struct split *s, int tile, int head, int segment, int row)
{
    const struct attending *a = &s->a;
    const size_t which = ((size_t)tile * a->cache.n_head + head) * a->segments + segment;
    return a->part + (which * s->rows + row) * (a->wide + PART_EXTRA);
}

/* ------------------------------------------------------------------------------- a block of keys
 */

/* A lane's two rows, g and g + 8; of the numbers of a value, sixteen from 16 * (4k + warp) on. */
template <int WIDE> struct outputs {
    enum { CHUNKS = (WIDE / 16 + ATTEND_WARPS - 1) / ATTEND_WARPS };
    float top[2], sum[4], out[CHUNKS][2][4];
};

template <int WIDE> GPU_INLINE void clear_outputs(struct outputs<WIDE> *o)
{
    o->top[0] = o->top[1] = -INFINITY;
    for (int e = 0; e < 4; e++)
        o->sum[e] = 0;
#pragma unroll
    for (int k = 0; k < outputs<WIDE>::CHUNKS; k++)
        for (int e = 0; e < 8; e++)
            o->out[k][e / 4][e % 4] = 0;
}

template <int WIDE> struct places {
    static const int keys = 0, values = BLOCK_KEYS * WIDE * 2,
                     queries = values + BLOCK_KEYS * (WIDE * 2 + PAD),
                     weights = queries + TILE_ROWS * (WIDE * 2 + PAD),
                     tops = weights + TILE_ROWS * (BLOCK_KEYS * 2 + PAD),
                     found = tops + ATTEND_WARPS * TILE_ROWS * (int)sizeof(float),
                     bytes = found + 2 * (int)sizeof(int);
};

/* The scores of this warp's page; -infinity for what a row does not see. */
template <int WIDE>
GPU_INLINE void score_page(float score[2][4], char *shared, const struct keys sees[2], int block)
{
    for (int e = 0; e < 8; e++)
        score[e / 4][e % 4] = 0;
#pragma unroll
    for (int k = 0; k < WIDE / 16; k++) {
        uint32_t q[4], b[4];
        load_a<WIDE>(q, shared + places<WIDE>::queries, 0, k);
        load_keys<WIDE>(b, shared + places<WIDE>::keys, my_warp(), k);
        mma_bf16(score[0], q, b);
        mma_bf16(score[1], q, b + 2);
    }
    for (int i = 0; i < 2; i++)
        for (int e = 0; e < 4; e++) {
            const int key = block + KV_PAGE * my_warp() + 8 * i + my_lane() % 4 * 2 + e % 2;
            const struct keys see = sees[e / 2];
            if (key < see.lo || see.hi <= key)
                score[i][e] = -INFINITY;
        }
}

/* The largest scores of all warps' pages. */
GPU_INLINE void find_tops(float top[2], const float score[2][4], float *tops)
{
    for (int h = 0; h < 2; h++) {
        float mine = fmaxf(fmaxf(score[0][2 * h], score[0][2 * h + 1]),
                           fmaxf(score[1][2 * h], score[1][2 * h + 1]));
        mine = fmaxf(mine, __shfl_xor_sync(0xffffffffu, mine, 1));
        mine = fmaxf(mine, __shfl_xor_sync(0xffffffffu, mine, 2));
        if (my_lane() % 4 == 0)
            tops[my_warp() * TILE_ROWS + my_lane() / 4 + 8 * h] = mine;
    }
    __syncthreads();
    for (int h = 0; h < 2; h++)
        for (int w = 0; w < ATTEND_WARPS; w++)
            top[h] = fmaxf(top[h], tops[w * TILE_ROWS + my_lane() / 4 + 8 * h]);
}

template <int WIDE>
GPU_INLINE void soften(struct outputs<WIDE> *o, char *shared, const float score[2][4], float c)
{
    float top[2] = {o->top[0], o->top[1]}, keep[2];
    find_tops(top, score, (float *)(shared + places<WIDE>::tops));
    for (int h = 0; h < 2; h++) {
        char *row = row_of<BLOCK_KEYS>(shared + places<WIDE>::weights, my_lane() / 4 + 8 * h);
        keep[h] = keep_of(o->top[h], top[h], c);
        o->top[h] = top[h];
        for (int i = 0; i < 2; i++) {
            const int key = KV_PAGE * my_warp() + 8 * i + my_lane() % 4 * 2;
            *(uint32_t *)(row + key * 2) = to_bf16x2(weight_of(score[i][2 * h], top[h], c),
                                                     weight_of(score[i][2 * h + 1], top[h], c));
        }
    }
    for (int e = 0; e < 4; e++)
        o->sum[e] = __fmul_rn(o->sum[e], keep[e / 2]);
#pragma unroll
    for (int k = 0; k < outputs<WIDE>::CHUNKS; k++)
        for (int e = 0; e < 8; e++)
            o->out[k][e / 4][e % 4] = __fmul_rn(o->out[k][e / 4][e % 4], keep[e % 4 / 2]);
}

template <int WIDE> GPU_INLINE void multiply_values(struct outputs<WIDE> *o, char *shared)
{
#pragma unroll
    for (int page = 0; page < BLOCK_PAGES; page++) {
        uint32_t p[4], b[4];
        load_a<BLOCK_KEYS>(p, shared + places<WIDE>::weights, 0, page);
        add_ones(o->sum, p);
#pragma unroll
        for (int k = 0; k < outputs<WIDE>::CHUNKS; k++) {
            const int chunk = k * ATTEND_WARPS + my_warp();
            if (chunk >= WIDE / 16)
                break;
            load_values<WIDE>(b, shared + places<WIDE>::values, page, chunk);
            mma_bf16(o->out[k][0], p, b);
            mma_bf16(o->out[k][1], p, b + 2);
        }
    }
}

/* ------------------------------------------------------------------------------- segments */

/* to[first number of the lane's pairs] of row h; the value that number e of chunk k is. */
GPU_INLINE int number_of(int k, int e)
{
    return (k * ATTEND_WARPS + my_warp()) * 16 + e / 4 * 8 + my_lane() % 4 * 2 + e % 2;
}

template <int WIDE>
GPU_INLINE void write_part(const struct split *s, int tile, int head, int segment, int n,
                           const struct outputs<WIDE> *one)
{
    const int wide = s->a.wide;
    for (int h = 0; h < 2; h++) {
        const int row = my_lane() / 4 + 8 * h;
        float *to = part_of(s, tile, head, segment, row);
        if (row >= n)
            continue;
#pragma unroll
        for (int k = 0; k < outputs<WIDE>::CHUNKS; k++)
            for (int e = 0; e < 8; e++)
                if (e % 4 / 2 == h && number_of(k, e) < wide)
                    to[number_of(k, e)] = one->out[k][e / 4][e % 4];
        if (threadIdx.x % 4 == 0 && my_warp() == 0)
            to[wide] = one->top[h], to[wide + 1] = one->sum[2 * h];
    }
}

template <int WIDE>
GPU_INLINE void join_outputs(struct outputs<WIDE> *all, const struct outputs<WIDE> *one, float c)
{
    struct joined j[2];
    for (int h = 0; h < 2; h++) {
        j[h] = join_segment(all->top[h], one->top[h], c);
        all->top[h] = j[h].top;
    }
    for (int e = 0; e < 4; e++)
        all->sum[e] = join_number(all->sum[e], one->sum[e], j[e / 2]);
#pragma unroll
    for (int k = 0; k < outputs<WIDE>::CHUNKS; k++)
        for (int e = 0; e < 8; e++)
            all->out[k][e / 4][e % 4] =
                join_number(all->out[k][e / 4][e % 4], one->out[k][e / 4][e % 4], j[e % 4 / 2]);
}

template <int WIDE>
GPU_INLINE void write_rows(const struct attending *a, const struct tile *t,
                           const struct outputs<WIDE> *all)
{
    for (int h = 0; h < 2; h++) {
        const int row = my_lane() / 4 + 8 * h;
        if (row >= t->n)
            continue;
        float *to = a->y + row_at(a, &t->of, t->first + row);
#pragma unroll
        for (int k = 0; k < outputs<WIDE>::CHUNKS; k++)
            for (int e = 0; e < 8; e++)
                if (e % 4 / 2 == h && number_of(k, e) < a->heads.head_dim)
                    to[number_of(k, e)] = settled(all->out[k][e / 4][e % 4], all->sum[2 * h]);
    }
}

/* The keys of a tile that belong to a segment. */
GPU_INLINE struct keys keys_in(struct keys keys, int segment)
{
    return {max(keys.lo, segment * SEGMENT_KEYS), min(keys.hi, (segment + 1) * SEGMENT_KEYS)};
}

/* The keys of one segment, block by block. */
template <int WIDE>
GPU_INLINE void do_segment(struct outputs<WIDE> *one, const struct attending *a,
                           const struct tile *t, const struct keys sees[2], struct keys keys)
{
    char *shared = gpu_shared<char>();
    struct reading read = t->read;
    const float c = exponent_unit(&a->heads);
    const int begin = keys.lo / BLOCK_KEYS * BLOCK_KEYS;
    read.keys = keys;
    clear_outputs(one);
    fetch_keys<WIDE>(shared + places<WIDE>::keys, a, &read, begin);
    fetch_values<WIDE>(shared + places<WIDE>::values, a, &read, begin, 0);
    for (int block = begin, next; block < keys.hi; block = next) {
        float score[2][4];
        next = block + BLOCK_KEYS;
        copy_wait<1>();
        __syncthreads();
        score_page<WIDE>(score, shared, sees, block);
        soften(one, shared, score, c); /* all warps have their scores in the midst of it */
        fetch_keys<WIDE>(shared + places<WIDE>::keys, a, &read, next);
        copy_wait<1>();
        __syncthreads();
        multiply_values(one, shared);
        __syncthreads();
        fetch_values<WIDE>(shared + places<WIDE>::values, a, &read, next, 0);
    }
    copy_wait<0>();
    __syncthreads();
}

template <int WIDE>
__global__ static void __launch_bounds__(ATTEND_THREADS) attend_split(struct split s)
{
    after_previous();
    const struct attending *a = &s.a;
    char *shared = gpu_shared<char>();
    const struct tile t =
        find_tile(&s, blockIdx.x, blockIdx.y, (int *)(shared + places<WIDE>::found));
    struct outputs<WIDE> one, all;
    struct keys sees[2];
    if (t.n <= 0)
        return;
    const int first = a->part ? (int)blockIdx.z : t.read.keys.lo / SEGMENT_KEYS;
    const int last = a->part ? first : (t.read.keys.hi - 1) / SEGMENT_KEYS;
    if (first > (t.read.keys.hi - 1) / SEGMENT_KEYS || first < t.read.keys.lo / SEGMENT_KEYS)
        return;
    for (int h = 0; h < 2; h++) {
        const int row = min(my_lane() / 4 + 8 * h, t.n - 1);
        sees[h] = keys_of(&a->heads, a->batch.pos[(t.first + row) / t.of.n]);
    }
    fetch_queries<WIDE>(shared + places<WIDE>::queries, a, &t.of, t.first, t.n, TILE_ROWS,
                        threadIdx.x, ATTEND_THREADS);
    clear_outputs(&all);
    for (int segment = first; segment <= last; segment++) {
        do_segment<WIDE>(&one, a, &t, sees, keys_in(t.read.keys, segment));
        if (a->part)
            write_part(&s, blockIdx.x, blockIdx.y, segment, t.n, &one);
        else
            join_outputs(&all, &one, exponent_unit(&a->heads));
    }
    if (!a->part)
        write_rows(a, &t, &all);
}

/* A block per row. */
__global__ static void __launch_bounds__(ATTEND_THREADS) attend_join(struct split s)
{
    after_previous();
    const struct attending *a = &s.a;
    const struct tile t = find_tile(&s, blockIdx.x, blockIdx.y, gpu_shared<int>());
    const int row = blockIdx.z;
    if (row >= t.n)
        return;
    const struct keys sees = keys_of(&a->heads, a->batch.pos[(t.first + row) / t.of.n]);
    const float c = exponent_unit(&a->heads);
    float *to = a->y + row_at(a, &t.of, t.first + row);
    for (int i = threadIdx.x; i < a->heads.head_dim; i += ATTEND_THREADS) {
        float top = -INFINITY, sum = 0, out = 0;
#pragma unroll 4
        for (int seg = sees.lo / SEGMENT_KEYS; seg <= (sees.hi - 1) / SEGMENT_KEYS; seg++) {
            const float *one = part_of(&s, blockIdx.x, blockIdx.y, seg, row);
            const struct joined j = join_segment(top, one[a->wide], c);
            out = join_number(out, one[i], j);
            sum = join_number(sum, one[a->wide + 1], j);
            top = j.top;
        }
        to[i] = settled(out, sum);
    }
}

/* ------------------------------------------------------------------------------- launching */

template <int WIDE> static int launch(void *stream, const struct split *s, int tiles)
{
    const struct attending *a = &s->a;
    int error = LAUNCH_CHAINED((attend_split<WIDE>), dim3(tiles, a->cache.n_head, a->segments),
                               ATTEND_THREADS, (places<WIDE>::bytes), stream, *s);
    if (error || !a->part)
        return error;
    return LAUNCH_CHAINED(attend_join, dim3(tiles, a->cache.n_head, TILE_ROWS), ATTEND_THREADS,
                          2 * sizeof(int), stream, *s);
}

static int tiles_of(int rows) { return (rows + TILE_ROWS - 1) / TILE_ROWS; }

/* Without room enough for the results of all segments, blocks do segments one after the other. */
int attend_short_runs(void *stream, struct attending *a, bool alone, const struct gpu_room *room)
{
    const int heads = a->heads.group < a->n_head ? a->heads.group : a->n_head;
    const int rows = (alone ? 1 : short_run(a)) * heads, per_run = tiles_of(rows);
    const int tiles = per_run * (alone ? a->batch.n_tok : a->batch.n_seq);
    const int segments = (a->batch.most_keys + SEGMENT_KEYS - 1) / SEGMENT_KEYS;
    struct split s = {*a, per_run, rows < TILE_ROWS ? rows : TILE_ROWS, alone};
    const size_t bytes = (size_t)tiles * a->cache.n_head * segments * s.rows *
                         (a->wide + PART_EXTRA) * sizeof(float);
    const bool apart = segments > 1 && bytes <= room->bytes;
    s.a.part = apart ? (float *)room->at : NULL;
    s.a.segments = apart ? segments : 1;
    return a->wide <= 32    ? launch<32>(stream, &s, tiles)
           : a->wide <= 64  ? launch<64>(stream, &s, tiles)
           : a->wide <= 80  ? launch<80>(stream, &s, tiles)
           : a->wide <= 96  ? launch<96>(stream, &s, tiles)
           : a->wide <= 128 ? launch<128>(stream, &s, tiles)
                            : launch<256>(stream, &s, tiles);
}

/* For decoding: every token of a step in a sequence of its own. */
size_t attend_room_bytes(const struct gpu_sizes *s)
{
    const size_t segments = (s->ctx + SEGMENT_KEYS - 1) / SEGMENT_KEYS;
    const size_t bytes = (size_t)s->max_tok * s->heads * segments *
                         (gpu_wide(s->head_dim) + PART_EXTRA) * sizeof(float);
    return bytes < ROOM_MOST ? bytes : (size_t)ROOM_MOST;
}
