/* attend_exact.cu - attention in the CPU's bits (dev/cpu/ref_kv.c, in the same order), for caches
 * of f32 and int8, and for bf16 with heads too wide for attend_tiles.cu.
 *
 * A tile is at most ROWS rows of one sequence. Per block of KV_BLOCK keys: a thread scores one key
 * for all rows; sixteen threads make a row's scores exponentials; a thread adds up one number of
 * the values for all rows. So no key and no value is read more than once per tile, and every sum is
 * one thread's, ascending, but for the sixteen partial sums that the CPU has too. Products of whole
 * numbers are exact, and their order is free.
 */
#include "dev/cuda/attend_kernels.h"

enum { THREADS = KV_BLOCK, LANES = 16, ROWS = THREADS / LANES, PART_EXTRA = 4 };

struct exact {
    struct attending a;
    int rows; /* of a tile, at most ROWS */
    int all;  /* rows of all tokens */
};

struct exact_tile {
    struct queries of;
    int first, n, seq, head;
    struct keys keys;
};

/* What a row is known of after some keys; the sixteen threads of a row have the same. */
struct soft {
    float max, sum;
};

/* Shared memory of a block. */
struct scratch {
    float *query;      /* [head_dim][ROWS]; of an int8 cache pairs, [words of four][2][ROWS] */
    float *out, *all;  /* [ROWS][wide]: of this segment, of all */
    float *p;          /* [ROWS][KV_BLOCK] */
    int *pair;         /* weights of an int8 cache's values: [KV_BLOCK / 4][2][ROWS] */
    float *asks;       /* [ROWS] of an int8 cache: the query's scale */
    float *by, *then;  /* [ROWS] what outputs are multiplied with; then: the segment's */
    int *live;         /* [ROWS] does the row see any of it? */
    struct keys *sees; /* [ROWS] positions that a row sees */
    const char **page; /* of the block's pages */
};

static size_t query_floats(enum num type, int dim)
{
    return (size_t)(type == NUM_INT8 ? (dim + 3) / 4 * 2 : dim) * ROWS;
}

static size_t scratch_bytes(const struct attending *a)
{
    return (query_floats(a->cache.type, a->heads.head_dim) + 2 * ROWS * (size_t)a->wide +
            ROWS * KV_BLOCK + KV_BLOCK / 2 * ROWS + 6 * ROWS) *
               sizeof(float) +
           KV_BLOCK / KV_PAGE * sizeof(char *);
}

GPU_INLINE struct scratch scratch_of(const struct attending *a)
{
    const int dim = a->heads.head_dim;
    struct scratch s;
    s.page = gpu_shared<const char *>();
    s.query = (float *)(s.page + KV_BLOCK / KV_PAGE);
    s.out = s.query + (a->cache.type == NUM_INT8 ? (dim + 3) / 4 * 2 : dim) * ROWS;
    s.all = s.out + ROWS * a->wide;
    s.p = s.all + ROWS * a->wide;
    s.pair = (int *)(s.p + ROWS * KV_BLOCK);
    s.asks = (float *)(s.pair + KV_BLOCK / 2 * ROWS);
    s.by = s.asks + ROWS, s.then = s.by + ROWS, s.live = (int *)(s.then + ROWS);
    s.sees = (struct keys *)(s.live + ROWS);
    return s;
}

GPU_INLINE int my_row(void) { return threadIdx.x / LANES; }
GPU_INLINE int my_part(void) { return threadIdx.x % LANES; }

/* ------------------------------------------------------------------------------- whole numbers */

/* The largest of sixteen threads' bits of magnitudes, as top_of() of dev/kv.c. */
GPU_INLINE float join_top(uint32_t top)
{
    for (int h = 8; h; h /= 2)
        top = max(top, __shfl_xor_sync(0xffffffffu, top, h));
    return __uint_as_float(top < 0x7f800000u ? top : 0x7fc00000u);
}

GPU_INLINE uint32_t magnitude(float f) { return __float_as_uint(f) & 0x7fffffffu; }

/* What kv_round_factor() multiplies with; 0: all numbers are 0. */
GPU_INLINE float factor_of(float top, float *scale)
{
    *scale = top != top ? top : 0;
    if (!(top >= 1e-30f))
        return 0;
    *scale = __fdiv_rn(top, 32767);
    return __fdiv_rn(32767, top);
}

GPU_INLINE uint32_t whole_of(float x, float by)
{
    return by != 0 ? __float_as_uint(__fadd_rn(__fmul_rn(x, by), 0x1.8p23f)) & 0xffffu : 0;
}

/* Four numbers as two pairs, of the first and third and of the second and fourth: so the bytes of a
 * word of the cache stand (kv.h). */
GPU_INLINE void put_pairs(int *to, const float x[4], float by)
{
    to[0] = (int)(whole_of(x[0], by) | whole_of(x[2], by) << 16);
    to[ROWS] = (int)(whole_of(x[1], by) | whole_of(x[3], by) << 16);
}

GPU_INLINE int multiply_word(uint32_t word, const int *pair, int sum)
{
    const int bytes = (int)(word ^ 0x80808080u);
    return __dp2a_hi(pair[ROWS], bytes, __dp2a_lo(pair[0], bytes, sum));
}

/* ------------------------------------------------------------------------------- queries */

GPU_INLINE void fetch_whole_query(const struct scratch *s, const float *q, int dim)
{
    uint32_t top = 0;
    for (int i = my_part(); i < dim; i += LANES)
        top = max(top, magnitude(q ? q[i] : 0));
    float scale;
    const float by = factor_of(join_top(top), &scale);
    if (my_part() == 0)
        s->asks[my_row()] = scale;
    for (int w = my_part(); w < (dim + 3) / 4; w += LANES) {
        float x[4];
        for (int k = 0; k < 4; k++)
            x[k] = q && 4 * w + k < dim ? q[4 * w + k] : 0;
        put_pairs((int *)s->query + w * 2 * ROWS + my_row(), x, by);
    }
}

template <enum num TYPE>
GPU_INLINE void fetch_queries(const struct scratch *s, const struct attending *a,
                              const struct exact_tile *t)
{
    const float *q = my_row() < t->n ? a->q + row_at(a, &t->of, t->first + my_row()) : NULL;
    const int dim = a->heads.head_dim;
    if (TYPE == NUM_INT8)
        fetch_whole_query(s, q, dim);
    else
        for (int i = my_part(); i < dim; i += LANES)
            s->query[i * ROWS + my_row()] = q ? q[i] : 0;
}

/* ------------------------------------------------------------------------------- scores */

template <enum num TYPE> GPU_INLINE float number_at(const void *at, size_t i)
{
    return TYPE == NUM_F32 ? ((const float *)at)[i] : num_from_bf16(((const uint16_t *)at)[i]);
}

/* This thread's key for all rows, of an int8 cache. */
GPU_INLINE void score_whole(const struct scratch *s, const struct attending *a, const char *page,
                            int lane)
{
    const uint32_t *word = (const uint32_t *)(page + KV_SCALES) + lane;
    const float scale = num_from_bf16(((const uint16_t *)page)[lane]);
    int sum[ROWS] = {0};
    for (int w = 0; w < (a->heads.head_dim + 3) / 4; w++)
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] = multiply_word(word[w * KV_PAGE], (int *)s->query + w * 2 * ROWS + r, sum[r]);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        s->p[r * KV_BLOCK + threadIdx.x] =
            __fmul_rn((float)sum[r], __fmul_rn(scale, __fmul_rn(s->asks[r], a->heads.scale)));
}

template <enum num TYPE>
GPU_INLINE void score_floats(const struct scratch *s, const struct attending *a, const char *page,
                             int lane)
{
    const int dim = a->heads.head_dim;
    float sum[ROWS] = {0};
    for (int i = 0; i < dim; i++) {
        const float key = number_at<TYPE>(page, (size_t)i * KV_PAGE + lane);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] = __fmaf_rn(key, s->query[i * ROWS + r], sum[r]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        s->p[r * KV_BLOCK + threadIdx.x] = __fmul_rn(sum[r], a->heads.scale);
}

template <enum num TYPE>
GPU_INLINE void score_key(const struct scratch *s, const struct attending *a, const char *page,
                          int lane)
{
    if (TYPE == NUM_INT8)
        score_whole(s, a, page, lane);
    else
        score_floats<TYPE>(s, a, page, lane);
}

/* ------------------------------------------------------------------------------- exponentials */

GPU_INLINE float largest(float a, float b) { return b > a ? b : a; } /* never a NaN b */

/* Exponentials become whole numbers; by[row] is then their scale. */
GPU_INLINE void weigh_whole(const struct scratch *s, struct keys see)
{
    const int row = my_row();
    float weight[KV_BLOCK / LANES];
    uint32_t top = 0;
    /* A thread has keys 4l .. 4l + 3 and 64 + 4l ..: whole words. */
    for (int k = 0; k < KV_BLOCK / LANES; k++) {
        const int key = k / 4 * 64 + my_part() * 4 + k % 4;
        weight[k] = 0;
        if (see.lo <= key && key < see.hi) {
            const uint16_t *scale = (const uint16_t *)s->page[key / KV_PAGE] + KV_PAGE;
            weight[k] = __fmul_rn(s->p[row * KV_BLOCK + key], num_from_bf16(scale[key % KV_PAGE]));
        }
        top = max(top, magnitude(weight[k]));
    }
    float scale_of_all;
    const float by = factor_of(join_top(top), &scale_of_all);
    if (my_part() == 0)
        s->then[row] = scale_of_all;
    for (int k = 0; k < KV_BLOCK / LANES; k += 4)
        put_pairs(s->pair + (k / 4 * 16 + my_part()) * 2 * ROWS + row, weight + k, by);
}

/* One row's scores of a block, of which it sees `see`, counted from the block's begin. */
template <enum num TYPE>
GPU_INLINE void soften(const struct scratch *s, struct soft *of, struct keys see)
{
    float *p = s->p + my_row() * KV_BLOCK, max = of->max, sum = 0;
    const bool live = see.lo < KV_BLOCK && see.hi > 0;
    for (int i = my_part(); i < KV_BLOCK; i += LANES)
        max = see.lo <= i && i < see.hi ? largest(max, p[i]) : max;
    for (int h = 8; h; h /= 2)
        max = largest(max, __shfl_xor_sync(0xffffffffu, max, h));
    for (int i = my_part(); i < KV_BLOCK; i += LANES) {
        p[i] = see.lo <= i && i < see.hi ? num_exp(p[i] - max) : 0;
        sum = __fadd_rn(sum, p[i]);
    }
    sum = num_join(sum);
    const float keep = live ? num_exp(of->max - max) : 1;
    if (live)
        of->sum = __fmaf_rn(of->sum, keep, sum), of->max = max;
    if (my_part() == 0)
        s->by[my_row()] = keep, s->live[my_row()] = live;
    __syncwarp();
    if (TYPE == NUM_INT8)
        weigh_whole(s, see);
}

/* ------------------------------------------------------------------------------- values */

GPU_INLINE void add_whole(const struct scratch *s, const struct attending *a, struct keys pages,
                          int number)
{
    int sum[ROWS] = {0};
    for (int i = pages.lo * (KV_PAGE / 4); i < pages.hi * (KV_PAGE / 4); i++) {
        const char *page = s->page[i / (KV_PAGE / 4)] + a->values_at;
        const uint32_t word =
            ((const uint32_t *)page)[(size_t)(i % (KV_PAGE / 4)) * a->wide + number];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] = multiply_word(word, s->pair + i * 2 * ROWS + r, sum[r]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float *out = s->out + r * a->wide + number;
        if (s->live[r])
            *out = __fmaf_rn((float)sum[r], s->then[r], __fmul_rn(*out, s->by[r]));
    }
}

template <enum num TYPE>
GPU_INLINE void add_floats(const struct scratch *s, const struct attending *a, int block,
                           struct keys any, int number)
{
    struct keys see[ROWS];
    float out[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        out[r] = __fmul_rn(s->out[r * a->wide + number], s->by[r]);
        see[r] = {s->sees[r].lo - block, s->sees[r].hi - block};
    }
    for (int i = any.lo; i < any.hi; i++) {
        const char *page = s->page[i / KV_PAGE] + a->values_at;
        const float value = number_at<TYPE>(page, (size_t)(i % KV_PAGE) * a->wide + number);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (see[r].lo <= i && i < see[r].hi)
                out[r] = __fmaf_rn(value, s->p[r * KV_BLOCK + i], out[r]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        s->out[r * a->wide + number] = out[r];
}

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
