/* gpu_groups_rows.h - claims about rows on their way to experts and back: a part of gpu_groups.h.
 */
#ifndef TANDEM_GPU_GROUPS_ROWS_H
#define TANDEM_GPU_GROUPS_ROWS_H

/* Who needs row t: none but its owner at times, all at times; the same on every rank. */
static uint32_t need_of(int call, int t, int size)
{
    uint32_t x = (uint32_t)(call * 7919 + t * 104729 + 1) * 2654435761u;
    uint32_t all = ((uint32_t)1 << size) - 1, some = x >> 7 & all;
    return call % 5 == 4 ? all : some ? some : (uint32_t)1 << (x >> 3) % (uint32_t)size;
}

/* Rows that are not there are 0x55. */
static int wrong_row(const float *got, int call, int t, int dim, bool there)
{
    int wrong = 0;
    for (int k = 0; k < dim; k++) {
        float want = cell(call, t, k);
        if (!there)
            memset(&want, 0x55, sizeof(want));
        wrong += memcmp(&got[k], &want, sizeof(want)) != 0;
    }
    return wrong;
}

static int wrong_whole_row(const int64_t *got, uint32_t need, int size, size_t first, int dim)
{
    int wrong = 0;
    for (int k = 0; k < dim; k++) {
        int64_t want = 0;
        for (int r = 0; r < size; r++)
            if (need >> r & 1)
                want = whole_add(want, whole_term(r, first + (size_t)k));
        wrong += got[k] != want;
    }
    return wrong;
}

/* One call each way: rows go to those that need them, and nowhere else unless the kind brings all,
 * and what these make of them comes back. */
static int exchange_rows(struct desk *d, struct mat x, struct mat y, struct mat to, int call)
{
    const int n = x.n, size = d->c.size;
    const struct span mine = share(n, size, d->rank);
    struct mat bits = get(d, NUM_F32, 1, n);
    uint32_t *need = host(d, &bits);
    float *from = host(d, &x);
    int64_t *terms = host(d, &y);
    int wrong = 0;
    memset(from, 0x55, mat_bytes(&x));
    for (int t = 0; t < n; t++) {
        need[t] = need_of(call, t, size);
        for (int k = 0; k < x.dim; k++) {
            const size_t at = (size_t)t * (size_t)x.dim + (size_t)k;
            if (mine.lo <= t && t < mine.hi)
                from[at] = cell(call, t, k);
            terms[at] = need[t] >> d->rank & 1 ? whole_term(d->rank, at) : WHOLE_NONE;
        }
    }
    wrong += put(d, &bits, need) + put(d, &x, from) + put(d, &y, terms);
    wrong += put(d, &to, memset(host(d, &to), 0x55, mat_bytes(&to)));
    comm_dispatch(&d->c, &x, bits.at);
    const float *rows = fetch(d, &x);
    comm_combine(&d->c, &to, &y, bits.at);
    const int64_t *sums = fetch(d, &to);
    wrong += done(d);
    for (int t = 0; t < n; t++) {
        const size_t at = (size_t)t * (size_t)x.dim;
        const bool own = mine.lo <= t && t < mine.hi;
        wrong +=
            wrong_row(rows + at, call, t, x.dim, own || brings_all() || need[t] >> d->rank & 1);
        if (own)
            wrong += wrong_whole_row(sums + at, need[t], size, at, x.dim);
        for (int k = 0; k < x.dim && !own; k++)
            wrong += sums[at + (size_t)k] != 0x5555555555555555;
    }
    return wrong;
}

static int exchange_many(struct desk *d)
{
    static const int shape[][2] = {{37, 19}, {1, 40}, {2, 4100}, {64, 132}, {5, 6}};
    int wrong = 0;
    for (int call = 0; call < 10; call++) {
        const int n = shape[call % 5][0], dim = shape[call % 5][1];
        wrong += exchange_rows(d, get(d, NUM_F32, n, dim), get(d, NUM_I64, n, dim),
                               get(d, NUM_I64, n, dim), call);
    }
    return wrong + (d->c.calls != 20);
}

static void rows_go_to_those_that_need_them_and_back(void **state)
{
    (void)state;
    for (int size = 2; size <= 8; size += size == 4 ? 4 : 1) {
        struct task t = {.run = exchange_many, .size = size, .peer_bytes = 1 << 20};
        cut_task(&t, 8, 0);
        run_task(&t, "exchange");
    }
}

#endif
