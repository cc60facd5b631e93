/* draw_choose.cu - drawing tokens, second half: of rows with top-k or top-p the words that can
 * matter are gathered; then a block for each row finds the one that is drawn.
 */
#include "dev/cuda/drawing.h"

enum {
    THREADS = 512,
    WARPS = THREADS / 32,
    DIGITS = 256, /* of a rank, that are told apart at once */
    HELD = 2048   /* words of a list that find room in shared memory */
};

/* Sums of weights that a fraction of them makes, both exact: the least that is not below it. */
GPU_INLINE whole part_of(double fraction, whole mass)
{
    const double want = fraction * (double)mass;
    const whole down = (whole)want;
    return down + ((double)down < want);
}

/* ------------------------------------------------------------------------------- gathering */

/* The last tier that is needed: choose_head() of run/sample.c. */
GPU_INLINE int last_tier(const struct tiers *t, const struct gpu_draw_row *r)
{
    const int count = r->top_k > 0 ? r->top_k : 1;
    const whole mass = r->top_k > 0 ? 0 : part_of(r->top_p, t->mass[TIERS - 1]);
    for (int last = 0; last < TIERS - 1; last++)
        if (t->count[last] >= count && t->mass[last] >= mass)
            return last;
    return TIERS - 1;
}

__global__ static void gather_span(const __grid_constant__ struct drawing d)
{
    __shared__ struct tiers tiers;
    const int row = blockIdx.y, lane = threadIdx.x % 32;
    const struct gpu_draw_row *r = &d.draws.row[row];
    const float *logits = own_logits(&d, row);
    const int words = words_of(&d, d.own);
    if (r->skip || r->scale == 0 || !is_ranked(r))
        return;
    const float most = row_most(&d, row);
    if (!(fabsf(most) < INFINITY))
        return;
    row_tiers(&d, row, &tiers);
    const int last = last_tier(&tiers, r);
    for (int k = 0; k < DRAW_EACH; k++) {
        const int i = blockIdx.x * DRAW_SPAN + k * DRAW_THREADS + threadIdx.x;
        const float w = i < words ? weight_of(logits[i], most, r->scale) : 0;
        const unsigned in = __ballot_sync(0xffffffffu, w > 0 && tier_of(w) <= last);
        int at = 0;
        if (!in)
            continue;
        if (lane == 0)
            at = atomicAdd(&d.n_list[row], __popc(in));
        at = __shfl_sync(0xffffffffu, at, 0);
        if (in >> lane & 1)
            d.list[(size_t)row * d.width + at + __popc(in & ((1u << lane) - 1))] = i;
    }
}

int draw_gather(void *stream, const struct drawing *d, int n)
{
    return LAUNCH(gather_span, dim3(d->spans, n), DRAW_THREADS, 0, stream, *d);
}

/* ------------------------------------------------------------------------------- searching */

/* A word: words of greater rank go first, of equal logits those of lower numbers. */
struct word {
    whole rank;
    float weight;
};

/* What a block keeps in shared memory. */
struct choosing {
    whole rank[HELD];
    float weight[HELD];
    whole mass[DIGITS], scan[WARPS], before, found_mass;
    int count[DIGITS], count_before, digit, found;
    int listed[GPU_SLICES + 1]; /* words of the lists of the slices before */
    bool alone;
    struct tiers tiers;
};

/* What all threads of a block agree on: the words of all lists, in any order. */
struct source {
    struct choosing *c;
    const struct drawing *d;
    int row, n;
    float most, scale;
};

GPU_INLINE whole rank_of(float x, int id)
{
    const uint32_t bits = __float_as_uint(__fadd_rn(x, 0)); /* -0 is 0 */
    const uint32_t up = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (whole)up << 32 | (uint32_t)~id;
}

GPU_INLINE struct word make_word(const struct source *s, int i)
{
    int of = 0;
    while (of < s->d->slices - 1 && i >= s->c->listed[of + 1])
        of++;
    const int *list = of_slice(s->d, of, s->d->list) + (size_t)s->row * s->d->width;
    const int id = list[i - s->c->listed[of]];
    const float x = logits_of(s->d, of, s->row)[id];
    return {rank_of(x, s->d->first[of] + id), weight_of(x, s->most, s->scale)};
}

GPU_INLINE struct word word_of(const struct source *s, int i)
{
    if (s->n > HELD)
        return make_word(s, i);
    return {s->c->rank[i], s->c->weight[i]};
}

/* The sum over the threads before this one; *all: over all. */
GPU_INLINE whole sum_before(struct choosing *c, whole x, whole *all)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    whole sum = x, before = 0;
    for (int h = 1; h < 32; h *= 2) {
        const whole other = __shfl_up_sync(0xffffffffu, sum, h);
        sum += lane >= h ? other : 0;
    }
    __syncthreads();
    if (lane == 31)
        c->scan[warp] = sum;
    __syncthreads();
    *all = 0;
    for (int w = 0; w < WARPS; w++) {
        before += w < warp ? c->scan[w] : 0;
        *all += c->scan[w];
    }
    return before + sum - x;
}

/* Ranks of a list that are not told apart yet: those whose bits in `mask` are `value`. The next
 * digit is the eight bits from `shift` on. */
struct range {
    whole mask, value;
    int shift;
};

GPU_INLINE int highest_bit(whole x)
{
    const int high = (int)(x >> 32), low = (int)x;
    return high ? 63 - __clz(high) : 31 - (low ? __clz(low) : 31);
}

/* Words to shared memory when they find room, and the digit in which their ranks begin to differ.
 */
GPU_INLINE struct range begin_search(const struct source *s)
{
    struct choosing *c = s->c;
    whole all = ~(whole)0, any = 0;
    for (int i = threadIdx.x; i < s->n; i += THREADS) {
        const struct word w = make_word(s, i);
        if (s->n <= HELD)
            c->rank[i] = w.rank, c->weight[i] = w.weight;
        all &= w.rank, any |= w.rank;
    }
    for (int h = 16; h; h /= 2) {
        all &= __shfl_xor_sync(0xffffffffu, all, h);
        any |= __shfl_xor_sync(0xffffffffu, any, h);
    }
    if (threadIdx.x % 32 == 0)
        c->mass[threadIdx.x / 32] = all, c->scan[threadIdx.x / 32] = any;
    __syncthreads();
    for (int w = 0; w < WARPS; w++)
        all &= c->mass[w], any |= c->scan[w];
    __syncthreads();
    const int shift = max(highest_bit(any & ~all) - 7, 0);
    return {0, shift < 56 ? all >> (shift + 8) << (shift + 8) : 0, shift};
}

/* Of the words in the range, how many have which digit, and what these weigh. */
GPU_INLINE void count_digits(const struct source *s, struct range in)
{
    struct choosing *c = s->c;
    if (threadIdx.x < DIGITS)
        c->mass[threadIdx.x] = 0, c->count[threadIdx.x] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < s->n; i += THREADS) {
        const struct word w = word_of(s, i);
        if ((w.rank & in.mask) != (in.value & in.mask))
            continue;
        const int digit = (int)(w.rank >> in.shift & (DIGITS - 1));
        atomicAdd(&c->mass[digit], units_of(w.weight));
        atomicAdd(&c->count[digit], 1);
    }
    __syncthreads();
}

/* The digit at which the running count, or the running weight, is `want` at least; the greatest
 * digits go first. */
GPU_INLINE void choose_digit(const struct source *s, bool by_count, whole want)
{
    struct choosing *c = s->c;
    const int digit = DIGITS - 1 - (int)threadIdx.x;
    const whole mass = digit >= 0 ? c->mass[digit] : 0, count = digit >= 0 ? c->count[digit] : 0;
    whole all;
    const whole mass_before = c->before + sum_before(c, mass, &all);
    const whole count_before = c->count_before + sum_before(c, count, &all);
    const whole before = by_count ? count_before : mass_before, here = by_count ? count : mass;
    __syncthreads();
    if (before < want && want <= before + here) {
        c->digit = digit;
        c->before = mass_before;
        c->count_before = (int)count_before;
        c->alone = count == 1;
    }
    __syncthreads();
}

struct reached {
    whole mass; /* of the words up to it */
    int id;
};

/* The first word in the order of ranks at which the number of words, or the sum of their weights,
 * is `want` at least: 1 to what all of the list make. */
GPU_INLINE struct reached reach(const struct source *s, struct range in, bool by_count, whole want)
{
    struct choosing *c = s->c;
    __syncthreads();
    if (threadIdx.x == 0)
        c->before = 0, c->count_before = 0;
    for (;;) {
        count_digits(s, in);
        choose_digit(s, by_count, want);
        in.mask = ~(whole)0 << in.shift;
        in.value |= (whole)c->digit << in.shift;
        if (c->alone || in.shift == 0)
            break;
        in.shift = max(in.shift - 8, 0);
    }
    for (int i = threadIdx.x; i < s->n; i += THREADS) {
        const struct word w = word_of(s, i);
        if ((w.rank & in.mask) != in.value)
            continue;
        c->found = (int)~(uint32_t)w.rank;
        c->found_mass = c->before + units_of(w.weight);
    }
    __syncthreads();
    return {c->found_mass, c->found};
}

/* ------------------------------------------------------------------------------- choosing */

/* What the words of the list weigh that are at least so likely. */
GPU_INLINE whole mass_of_likely(const struct source *s, float least)
{
    whole mine = 0, all;
    for (int i = threadIdx.x; i < s->n; i += THREADS) {
        const struct word w = word_of(s, i);
        mine += w.weight >= least ? units_of(w.weight) : 0;
    }
    sum_before(s->c, mine, &all);
    return all;
}

/* The word under u of the mass: the running sum exceeds it, so it is one more at least. */
GPU_INLINE whole drawn_at(double u, whole mass)
{
    const whole under = (whole)(u * (double)mass);
    return (under < mass ? under : mass - 1) + 1;
}

/* Among the gathered words: what top-k, top-p and min-p keep is where a running sum ends. */
GPU_INLINE int draw_ranked(const struct source *s, const struct gpu_draw_row *r)
{
    const struct range all = begin_search(s);
    whole mass = s->c->tiers.mass[TIERS - 1];
    if (r->top_k > 0)
        mass = reach(s, all, true, min(r->top_k, s->n)).mass;
    if (r->top_p < 1)
        mass = reach(s, all, false, max(part_of(r->top_p, mass), (whole)1)).mass;
    if (r->min_p > 0)
        mass = min(mass, mass_of_likely(s, r->min_p));
    return reach(s, all, false, drawn_at(r->u, mass)).id;
}

/* Of all slices' spans the one in which the running sum of weights comes to `want`, and how much of
 * that is left there. */
GPU_INLINE void find_span(struct choosing *c, const struct drawing *d, int row, whole want)
{
    const int spans = d->slices * d->spans;
    whole before = 0, all;
    if (threadIdx.x == 0)
        c->digit = 0;
    for (int lo = 0; lo < spans; lo += THREADS, before += all) {
        const int i = lo + (int)threadIdx.x;
        whole here = 0;
        if (i < spans)
            here = of_slice(d, i / d->spans, d->tier)[(row * d->spans + i % d->spans) * TIERS] &
                   (((whole)1 << COUNT_AT) - 1);
        const whole sum = before + sum_before(c, here, &all);
        if (sum < want && want <= sum + here)
            c->digit = i, c->before = want - sum;
    }
    __syncthreads();
}

/* Among all words, in the order of their numbers. */
GPU_INLINE int draw_of_all(struct choosing *c, const struct drawing *d, int row, float most)
{
    enum { EACH = DRAW_SPAN / THREADS };
    const struct gpu_draw_row *r = &d->draws.row[row];
    find_span(c, d, row, drawn_at(r->u, c->tiers.mass[TIERS - 1]));
    const int of = c->digit / d->spans, words = words_of(d, of);
    const int first = c->digit % d->spans * DRAW_SPAN + (int)threadIdx.x * EACH;
    const float *logits = logits_of(d, of, row);
    whole w[EACH], mine = 0, all;
    for (int k = 0; k < EACH; k++) {
        const float one = first + k < words ? weight_of(logits[first + k], most, r->scale) : 0;
        w[k] = one >= r->min_p ? units_of(one) : 0;
        mine += w[k];
    }
    whole sum = sum_before(c, mine, &all);
    for (int k = 0; k < EACH; sum += w[k++])
        if (sum < c->before && c->before <= sum + w[k])
            c->found = d->first[of] + first + k;
    __syncthreads();
    return c->found;
}

/* Where the largest is first. */
GPU_INLINE int first_of(struct choosing *c, const struct drawing *d, int row, float most)
{
    if (threadIdx.x == 0)
        c->found = ~d->first[d->slices];
    __syncthreads();
    for (int i = threadIdx.x; i < d->slices * d->spans; i += THREADS) {
        const int of = i / d->spans, at = row * d->spans + i % d->spans;
        if (of_slice(d, of, d->most)[at] == most)
            atomicMax(&c->found, ~of_slice(d, of, d->most_at)[at]);
    }
    __syncthreads();
    return ~c->found;
}

/* How many words the lists have. */
GPU_INLINE int count_lists(struct choosing *c, const struct drawing *d, int row)
{
    if ((int)threadIdx.x < d->slices)
        c->listed[threadIdx.x + 1] = of_slice(d, (int)threadIdx.x, d->n_list)[row];
    __syncthreads();
    if (threadIdx.x == 0) {
        c->listed[0] = 0;
        for (int i = 0; i < d->slices; i++)
            c->listed[i + 1] += c->listed[i];
    }
    __syncthreads();
    return c->listed[d->slices];
}

__global__ static void choose_row(const __grid_constant__ struct drawing d)
{
    __shared__ struct choosing c;
    const int row = blockIdx.x;
    const struct gpu_draw_row *r = &d.draws.row[row];
    if (r->skip)
        return;
    const float most = row_most(&d, row);
    int token = -1;
    if (fabsf(most) < INFINITY && r->scale == 0) {
        token = first_of(&c, &d, row, most);
    } else if (fabsf(most) < INFINITY) {
        row_tiers(&d, row, &c.tiers);
        if (is_ranked(r)) {
            const struct source s = {&c, &d, row, count_lists(&c, &d, row), most, r->scale};
            token = draw_ranked(&s, r);
        } else {
            token = draw_of_all(&c, &d, row, most);
        }
    }
    if (threadIdx.x == 0)
        d.token[row] = token;
}

int draw_choose(void *stream, const struct drawing *d, int n)
{
    return LAUNCH(choose_row, n, THREADS, 0, stream, *d);
}
