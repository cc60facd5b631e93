/* draw.cu - drawing tokens, first half: what is added to logits and taken away, the largest of
 * every span, and what all weigh. Both passes read the logits once, by many blocks for each row.
 */
#include "dev/cuda/drawing.h"

enum { FEED_THREADS = 64 };

__global__ static void feed_tokens(int *tok, int n, const int *token)
{
    const int i = blockIdx.x * FEED_THREADS + threadIdx.x;
    if (i < n && tok[i] < 0)
        tok[i] = token[~tok[i]];
}

extern "C" int gpu_feed(void *stream, int *tok, int n, const int *token)
{
    return LAUNCH(feed_tokens, (n + FEED_THREADS - 1) / FEED_THREADS, FEED_THREADS, 0, stream, tok,
                  n, token);
}

/* ------------------------------------------------------------------------------- rules */

/* As penalise() of run/sample.c: a token counts twice for every time that it was generated, and
 * once when it is in the prompt. Whoever takes a token's count applies it. */
GPU_INLINE void penalise(const struct drawing *d, const struct gpu_draw_row *r, int row)
{
    const unsigned words = (unsigned)words_of(d, d->own);
    int *times = d->times + (size_t)row * d->width;
    float *logits = own_logits(d, row);
    const int *seen = d->draws.seen + r->seen;
    for (int i = threadIdx.x; i < r->n_seen; i += DRAW_THREADS) {
        const unsigned word = (unsigned)(seen[i] - d->first[d->own]);
        if (word < words)
            atomicExch(&times[word], 0);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < r->n_seen; i += DRAW_THREADS) {
        const unsigned word = (unsigned)(seen[i] - d->first[d->own]);
        if (word >= words)
            continue;
        if (i < r->n_prompt)
            atomicOr(&times[word], 1);
        else
            atomicAdd(&times[word], 2);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < r->n_seen; i += DRAW_THREADS) {
        const unsigned word = (unsigned)(seen[i] - d->first[d->own]);
        if (word >= words)
            continue;
        const int n = atomicExch(&times[word], 0);
        float *x = &logits[word];
        if (!n)
            continue;
        *x = *x > 0 ? __fdiv_rn(*x, r->repetition) : __fmul_rn(*x, r->repetition);
        if (n >= 2)
            *x = __fsub_rn(*x,
                           __fadd_rn(r->presence, __fmul_rn(r->frequency, __int2float_rn(n / 2))));
    }
}

/* The first entry of a token adds all of them, in their order. */
GPU_INLINE void add_bias(const struct drawing *d, const struct gpu_draw_row *r, int row)
{
    const struct gpu_bias *bias = d->draws.bias + r->bias;
    for (int i = threadIdx.x; i < r->n_bias; i += DRAW_THREADS) {
        const int token = bias[i].token, word = token - d->first[d->own];
        bool first = word >= 0 && word < words_of(d, d->own);
        for (int k = 0; first && k < i; k++)
            first = bias[k].token != token;
        if (!first)
            continue;
        float *x = &own_logits(d, row)[word], sum = *x;
        for (int k = i; k < r->n_bias; k++)
            if (bias[k].token == token)
                sum = __fadd_rn(sum, bias[k].value);
        *x = sum;
    }
}

__global__ static void apply_rules(const __grid_constant__ struct drawing d)
{
    const int row = blockIdx.x;
    const struct gpu_draw_row *r = &d.draws.row[row];
    if (r->skip)
        return;
    if (r->repetition != 1 || r->presence != 0 || r->frequency != 0)
        penalise(&d, r, row);
    __syncthreads();
    add_bias(&d, r, row);
}

/* ------------------------------------------------------------------------------- the largest */

struct largest {
    float x;
    int at;
    bool bad;
};

/* Of equals the first. */
GPU_INLINE struct largest larger(struct largest a, struct largest b)
{
    const bool second = b.x > a.x || (b.x == a.x && b.at < a.at);
    struct largest to = second ? b : a;
    to.bad = a.bad || b.bad;
    return to;
}

GPU_INLINE struct largest largest_of_warp(struct largest m)
{
    for (int h = 16; h; h /= 2) {
        struct largest other;
        other.x = __shfl_xor_sync(0xffffffffu, m.x, h);
        other.at = __shfl_xor_sync(0xffffffffu, m.at, h);
        other.bad = __shfl_xor_sync(0xffffffffu, (int)m.bad, h);
        m = larger(m, other);
    }
    return m;
}

/* What is not allowed is taken out at last. */
__global__ static void find_most(const __grid_constant__ struct drawing d)
{
    __shared__ struct largest of_warp[DRAW_THREADS / 32];
    const int span = blockIdx.x, row = blockIdx.y, lo = span * DRAW_SPAN;
    const struct gpu_draw_row *r = &d.draws.row[row];
    const uint64_t *allow = r->allow < 0 ? NULL : d.draws.allow + r->allow;
    const int first = d.first[d.own], words = words_of(&d, d.own);
    float *logits = own_logits(&d, row);
    struct largest m = {-INFINITY, first + words, false};
    if (r->skip)
        return;
    for (int k = 0; k < DRAW_EACH; k++) {
        const int i = lo + k * DRAW_THREADS + threadIdx.x;
        if (i >= words)
            break;
        const int number = first + i;
        struct largest one = {logits[i], number, false};
        if (allow && !(allow[number / 64] >> number % 64 & 1))
            logits[i] = one.x = -INFINITY;
        one.bad = one.x != one.x;
        m = larger(m, one);
    }
    m = largest_of_warp(m);
    if (threadIdx.x % 32 == 0)
        of_warp[threadIdx.x / 32] = m;
    __syncthreads();
    if (threadIdx.x)
        return;
    for (int w = 1; w < DRAW_THREADS / 32; w++)
        m = larger(m, of_warp[w]);
    d.most[(size_t)row * d.spans + span] = m.bad ? __uint_as_float(0x7fc00000u) : m.x;
    d.most_at[(size_t)row * d.spans + span] = m.at;
    if (span == 0)
        d.n_list[row] = 0;
}

/* ------------------------------------------------------------------------------- weights */

__global__ static void weigh_span(const __grid_constant__ struct drawing d)
{
    __shared__ whole of_warp[DRAW_THREADS / 32][TIERS];
    const int span = blockIdx.x, row = blockIdx.y;
    const struct gpu_draw_row *r = &d.draws.row[row];
    const float *logits = own_logits(&d, row);
    const int words = words_of(&d, d.own);
    const bool ranked = is_ranked(r);
    if (r->skip || r->scale == 0)
        return;
    const float most = row_most(&d, row), least = ranked ? 0 : r->min_p;
    if (!(fabsf(most) < INFINITY))
        return;
    whole sum[TIERS] = {0};
    for (int k = 0; k < DRAW_EACH; k++) {
        const int i = span * DRAW_SPAN + k * DRAW_THREADS + threadIdx.x;
        const float w = i < words ? weight_of(logits[i], most, r->scale) : 0;
        const int tier = ranked && w > 0 ? tier_of(w) : 0;
        const whole both = w > 0 && w >= least ? units_of(w) | (whole)1 << COUNT_AT : 0;
        for (int t = 0; t < TIERS; t++)
            sum[t] += t == tier ? both : 0;
    }
    for (int t = 0; t < TIERS; t++) {
        for (int h = 16; h; h /= 2)
            sum[t] += __shfl_xor_sync(0xffffffffu, sum[t], h);
        if (threadIdx.x % 32 == 0)
            of_warp[threadIdx.x / 32][t] = sum[t];
    }
    __syncthreads();
    if (threadIdx.x >= TIERS)
        return;
    whole all = 0;
    for (int w = 0; w < DRAW_THREADS / 32; w++)
        all += of_warp[w][threadIdx.x];
    d.tier[((size_t)row * d.spans + span) * TIERS + threadIdx.x] = all;
}

/* ------------------------------------------------------------------------------- all of it */

static int spans_of(int words) { return (words + DRAW_SPAN - 1) / DRAW_SPAN; }
static int rows_of(int n) { return n < DRAW_ROWS ? n : (int)DRAW_ROWS; }

/* The room of n rows from `at` on; returns its bytes. */
static size_t lay_out(struct drawing *d, char *at, int n, int words)
{
    const size_t spans = (size_t)n * spans_of(words), all = (size_t)n * words;
    char *const begin = at;
    d->tier = (whole *)at, at += spans * TIERS * sizeof(whole);
    d->most = (float *)at, at += spans * sizeof(float);
    d->most_at = (int *)at, at += spans * sizeof(int);
    d->n_list = (int *)at, at += (size_t)n * sizeof(int);
    d->list = (int *)at, at += all * sizeof(int);
    d->times = (int *)at, at += all * sizeof(int);
    return (size_t)(at - begin);
}

extern "C" size_t gpu_draw_bytes(int n, int words)
{
    struct drawing d;
    return lay_out(&d, NULL, rows_of(n), words);
}

static int meet(const struct gpu_vocab *s) { return s->n > 1 ? s->meet(s->arg) : 0; }

static int draw_rows(void *stream, const struct drawing *d, int n, const struct gpu_vocab *s)
{
    const dim3 all(d->spans, n);
    int rc = d->draws.rules ? LAUNCH(apply_rules, n, DRAW_THREADS, 0, stream, *d) : 0;
    if (!rc)
        rc = LAUNCH(find_most, all, DRAW_THREADS, 0, stream, *d);
    if (!rc)
        rc = meet(s);
    if (!rc && d->draws.warm)
        rc = LAUNCH(weigh_span, all, DRAW_THREADS, 0, stream, *d);
    if (!rc && d->draws.warm)
        rc = meet(s);
    if (!rc && d->draws.ranked)
        rc = draw_gather(stream, d, n);
    if (!rc && d->draws.ranked)
        rc = meet(s);
    return rc ? rc : draw_choose(stream, d, n);
}

/* All rows of it. */
static struct drawing drawing_of(const struct gpu_draw_rows *draws, const struct gpu_vocab *s)
{
    struct drawing d = {};
    d.draws = *draws;
    d.slices = s->n, d.own = s->own;
    for (int i = 0; i < s->n; i++) {
        d.first[i] = s->first[i], d.first[i + 1] = s->first[i + 1];
        d.away[i] = s->away[i];
        const int words = s->first[i + 1] - s->first[i];
        d.width = d.width > words ? d.width : words;
    }
    d.spans = spans_of(d.width);
    return d;
}

extern "C" int gpu_draw(void *stream, int *token, float *logits, int n,
                        const struct gpu_draw_rows *draws, const struct gpu_vocab *s, void *room)
{
    struct drawing d = drawing_of(draws, s);
    int rc = 0;
    d.logits = logits;
    lay_out(&d, (char *)room, rows_of(n), d.width);
    for (d.row = 0; !rc && d.row < n; d.row += DRAW_ROWS) {
        d.draws.row = draws->row + d.row;
        d.token = token + d.row;
        if (d.row) /* the others may still read what is in the room */
            rc = meet(s);
        if (!rc)
            rc = draw_rows(stream, &d, rows_of(n - d.row), s);
    }
    return rc;
}
