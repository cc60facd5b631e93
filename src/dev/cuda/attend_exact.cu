/* attend_exact.cu - attention in the CPU's bits (dev/cpu/ref_kv.c, in the same order), for caches
 * of f32 and int8, and for bf16 with heads too wide for attend_tiles.cu.
 *
 * A tile is at most ROWS rows of one sequence. Per block of KV_BLOCK keys: a thread scores one key
 * for all rows; sixteen threads make a row's scores exponentials; a thread adds up one number of
 * the values for all rows. So no key and no value is read more than once per tile, and every sum is
 * one thread's, ascending, but for the sixteen partial sums that the CPU has too. Products of whole
 * numbers are exact, and their order is free.
 */
#include "dev/cuda/attend_exact.h"
#include "dev/cuda/attend_kernels.h"

enum { PART_EXTRA = 4 }; /* floats after a row's outputs: max, sum, two to align */

struct exact {
    struct attending a;
    int rows; /* of a tile, at most ROWS */
    int all;  /* rows of all tokens */
};

/* ------------------------------------------------------------------------------- a tile */

/* The keys from position `block` on. */
template <enum num TYPE>
GPU_INLINE void do_block(const struct scratch *s, const struct attending *a,
                         const struct exact_tile *t, struct soft *of, int block)
{
    const struct keys any = {max(t->keys.lo - block, 0), min(t->keys.hi - block, (int)KV_BLOCK)};
    const struct keys mine = s->sees[my_row()];
    const int key = threadIdx.x, first = key * KV_PAGE;
    if (key < KV_BLOCK / KV_PAGE && first + KV_PAGE > any.lo && first < any.hi)
        s->page[key] = page_of(a, t->seq, t->head, block + first);
    if (any.lo <= key && key < any.hi)
        score_key<TYPE>(s, a, page_of(a, t->seq, t->head, block + key), key % KV_PAGE);
    __syncthreads();
    soften<TYPE>(s, of, {mine.lo - block, mine.hi - block});
    __syncthreads();
    for (int number = threadIdx.x; number < a->heads.head_dim; number += THREADS)
        if (TYPE == NUM_INT8)
            add_whole(s, a, {any.lo / KV_PAGE, (any.hi + KV_PAGE - 1) / KV_PAGE}, number);
        else
            add_floats<TYPE>(s, a, block, any, number);
    __syncthreads();
}

/* all = all joined by s, which holds later keys: what numbers are multiplied with. */
struct joined {
    float all, one;
};

GPU_INLINE struct joined join_soft(struct soft *all, const struct soft *s)
{
    const float max = all->max > s->max ? all->max : s->max;
    const struct joined by = {num_exp(all->max - max), num_exp(s->max - max)};
    all->sum = __fmaf_rn(all->sum, by.all, __fmul_rn(s->sum, by.one));
    all->max = max;
    return by;
}

GPU_INLINE float join_number(float all, float one, struct joined by)
{
    return __fmaf_rn(all, by.all, __fmul_rn(one, by.one));
}

GPU_INLINE float *part_of(const struct exact *e, int head, int row, int segment)
{
    const size_t which = ((size_t)head * e->all + row) * e->a.segments + segment;
    return e->a.part + which * (e->a.wide + PART_EXTRA);
}

/* A segment is done: it is joined to those before, or written for attend_join. */
GPU_INLINE void end_segment(const struct scratch *s, const struct exact *e,
                            const struct exact_tile *t, int segment, struct soft *all,
                            const struct soft *of)
{
    const struct attending *a = &e->a;
    const struct keys mine = s->sees[my_row()];
    const bool live = mine.lo < (segment + 1) * KV_SEGMENT && mine.hi > segment * KV_SEGMENT;
    struct joined by = {1, 0};
    if (live && !a->part)
        by = join_soft(all, of);
    if (my_part() == 0) {
        s->by[my_row()] = by.all, s->then[my_row()] = by.one, s->live[my_row()] = live;
        if (a->part && live && my_row() < t->n) {
            float *to = part_of(e, t->head, t->first + my_row(), segment) + a->wide;
            to[0] = of->max, to[1] = of->sum;
        }
    }
    __syncthreads();
    for (int r = 0; r < t->n; r++)
        for (int i = threadIdx.x; s->live[r] && i < a->heads.head_dim; i += THREADS) {
            float *sum = s->all + r * a->wide + i, one = s->out[r * a->wide + i];
            if (a->part)
                part_of(e, t->head, t->first + r, segment)[i] = one;
            else
                *sum = join_number(*sum, one, {s->by[r], s->then[r]});
        }
    __syncthreads();
}

template <enum num TYPE>
GPU_INLINE void do_segment(const struct scratch *s, const struct exact *e,
                           const struct exact_tile *t, int segment, struct soft *all)
{
    const struct attending *a = &e->a;
    const int lo = max(t->keys.lo, segment * KV_SEGMENT) / KV_BLOCK * KV_BLOCK;
    const int hi = min(t->keys.hi, (segment + 1) * KV_SEGMENT);
    struct soft of = {-INFINITY, 0};
    for (int i = threadIdx.x; i < ROWS * a->wide; i += THREADS)
        s->out[i] = 0;
    __syncthreads();
    for (int block = lo; block < hi; block += KV_BLOCK)
        do_block<TYPE>(s, a, t, &of, block);
    end_segment(s, e, t, segment, all, &of);
}

GPU_INLINE void write_rows(const struct scratch *s, const struct attending *a,
                           const struct exact_tile *t, const struct soft *all)
{
    if (my_part() == 0)
        s->by[my_row()] = __fdiv_rn(1, all->sum);
    __syncthreads();
    for (int r = 0; r < t->n; r++)
        for (int i = threadIdx.x; i < a->heads.head_dim; i += THREADS)
            a->y[row_at(a, &t->of, t->first + r) + i] =
                __fmul_rn(s->all[r * a->wide + i], s->by[r]);
}

template <enum num TYPE> GPU_INLINE void do_tile(const struct exact *e, const struct exact_tile *t)
{
    const struct attending *a = &e->a;
    const struct scratch s = scratch_of(a);
    const int first = t->keys.lo / KV_SEGMENT, last = (t->keys.hi - 1) / KV_SEGMENT;
    struct soft all = {-INFINITY, 0};
    __syncthreads(); /* the tile before is done with shared memory */
    fetch_queries<TYPE>(&s, a, t);
    for (int i = threadIdx.x; i < ROWS * a->wide; i += THREADS)
        s.all[i] = 0;
    if (my_part() == 0) {
        const int row = t->first + min(my_row(), t->n - 1);
        s.sees[my_row()] = keys_of(&a->heads, a->batch.pos[row / t->of.n]);
    }
    __syncthreads();
    if (a->part) {
        if (first <= (int)blockIdx.z && (int)blockIdx.z <= last)
            do_segment<TYPE>(&s, e, t, blockIdx.z, &all);
        return;
    }
    for (int segment = first; segment <= last; segment++)
        do_segment<TYPE>(&s, e, t, segment, &all);
    write_rows(&s, a, t, &all);
}

/* Tiles do not cross from one sequence to the next. */
template <enum num TYPE> __global__ static void attend_exact(struct exact e)
{
    const struct attending *a = &e.a;
    const int *seq = a->batch.seq, *pos = a->batch.pos;
    const struct queries of = queries_of(&a->heads, a->n_head, blockIdx.y);
    int first = (gridDim.x - 1 - blockIdx.x) * e.rows;
    const int end = min(first + e.rows, a->batch.n_tok * of.n);
    while (first < end) {
        const int token = first / of.n;
        int last = token;
        while ((last + 1) * of.n < end && seq[last + 1] == seq[token])
            last++;
        const int next = min((last + 1) * of.n, end);
        const struct exact_tile t = {
            of,         first,           next - first,
            seq[token], (int)blockIdx.y, {keys_of(&a->heads, pos[token]).lo, pos[last] + 1}};
        do_tile<TYPE>(&e, &t);
        first = next;
    }
}

/* A block per row. */
__global__ static void join_exact(struct exact e)
{
    const struct attending *a = &e.a;
    const struct queries of = queries_of(&a->heads, a->n_head, blockIdx.y);
    const int row = blockIdx.x;
    if (row >= a->batch.n_tok * of.n)
        return;
    const struct keys sees = keys_of(&a->heads, a->batch.pos[row / of.n]);
    for (int i = threadIdx.x; i < a->heads.head_dim; i += THREADS) {
        struct soft all = {-INFINITY, 0};
        float out = 0;
        for (int seg = sees.lo / KV_SEGMENT; seg <= (sees.hi - 1) / KV_SEGMENT; seg++) {
            const float *one = part_of(&e, blockIdx.y, row, seg);
            const struct soft s = {one[a->wide], one[a->wide + 1]};
            out = join_number(out, one[i], join_soft(&all, &s));
        }
        a->y[row_at(a, &of, row) + i] = __fmul_rn(out, __fdiv_rn(1, all.sum));
    }
}

/* ------------------------------------------------------------------------------- launching */

template <enum num TYPE> static int launch(void *stream, const struct exact *e)
{
    const struct attending *a = &e->a;
    const dim3 grid((e->all + e->rows - 1) / e->rows, a->cache.n_head, a->segments);
    int error = LAUNCH(attend_exact<TYPE>, grid, THREADS, scratch_bytes(a), stream, *e);
    if (error || !a->part)
        return error;
    return LAUNCH(join_exact, dim3(e->all, a->cache.n_head), THREADS, 0, stream, *e);
}

/* With one token per sequence a tile is the heads of one token. */
int attend_exactly(void *stream, struct attending *a, const struct gpu_room *room)
{
    const int heads = a->heads.group < a->n_head ? a->heads.group : a->n_head;
    const int segments = (a->batch.most_keys + KV_SEGMENT - 1) / KV_SEGMENT;
    const bool alone = a->batch.n_tok <= a->batch.n_seq;
    struct exact e = {*a, heads < ROWS && alone ? heads : ROWS, a->batch.n_tok * heads};
    const size_t bytes =
        (size_t)e.all * a->cache.n_head * segments * (a->wide + PART_EXTRA) * sizeof(float);
    const bool apart = segments > 1 && bytes <= room->bytes;
    e.a.part = apart ? (float *)room->at : NULL;
    e.a.segments = apart ? segments : 1;
    return a->cache.type == NUM_F32    ? launch<NUM_F32>(stream, &e)
           : a->cache.type == NUM_BF16 ? launch<NUM_BF16>(stream, &e)
                                       : launch<NUM_INT8>(stream, &e);
}
