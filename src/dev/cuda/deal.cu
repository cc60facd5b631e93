/* deal.cu - which rank computes which rows of a layer's experts, worked out alike on every GPU of a
 * group: see dev_deal() in dev/dev.h. One block; an expert that one run holds is that run's, and
 * what several hold goes to the one with the least to do, where there are many rows in sixteenths.
 */
#include "dev/cuda/gpu.h"
#include "dev/cuda/kernels.h"

#include <limits.h>

enum { THREADS = 512, WARP = 32, UNITS = 16 };

struct dealing {
    int *chosen; /* [n][top + shared] */
    int n, top;
    bool shared;
    struct gpu_deal d;
};

/* In shared memory. run: of each sixteenth of an expert's rows. */
struct table {
    int *count, *load;
    uint8_t *run;
};

GPU_INLINE struct table table_of(const struct gpu_deal &d)
{
    int *at = gpu_shared<int>();
    return {at, at + d.n_expert, (uint8_t *)(at + d.n_expert + WARP)};
}

static size_t table_bytes(const struct gpu_deal *d)
{
    return ((size_t)d->n_expert + WARP) * sizeof(int) + (size_t)d->n_expert * UNITS;
}

/* ------------------------------------------------------------------------------- runs */

GPU_INLINE void count_rows(const struct dealing &x, const struct table &t)
{
    const int per_row = x.top + x.shared;
    for (int i = (int)threadIdx.x; i < x.d.n_expert + WARP; i += THREADS)
        t.count[i] = 0; /* and load, which follows */
    __syncthreads();
    for (int i = (int)threadIdx.x; i < x.n * x.top; i += THREADS)
        atomicAdd(&t.count[x.chosen[i / x.top * per_row + i % x.top]], 1);
    __syncthreads();
}

/* Experts of which there is no choice. */
GPU_INLINE void give_single(const struct dealing &x, const struct table &t)
{
    for (int e = (int)threadIdx.x; e < x.d.n_expert; e += THREADS) {
        const uint32_t holders = (uint32_t)x.d.holders[e];
        const int run = __ffs((int)holders) - 1;
        if (holders & (holders - 1))
            continue;
        for (int u = 0; u < UNITS; u++)
            t.run[e * UNITS + u] = (uint8_t)run;
        if (t.count[e])
            atomicAdd(&t.load[run], t.count[e] + x.d.weights);
    }
    __syncthreads();
}

/* By one warp, whose lane r knows the load of run r: units of an expert go to the idlest holder,
 * the first of equals. */
GPU_INLINE int give_units(const struct dealing &x, const struct table &t, int expert, int load)
{
    const int lane = (int)threadIdx.x, rows = t.count[expert];
    const int units = rows >= 2 * x.d.tile ? UNITS : 1;
    const bool holds = x.d.holders[expert] >> lane & 1;
    bool begun = false;
    for (int u = 0; u < units; u++) {
        const int with = load + (begun ? 0 : x.d.weights);
        int least = holds ? with * WARP + lane : INT_MAX;
        for (int by = WARP / 2; by; by /= 2)
            least = min(least, __shfl_xor_sync(0xffffffffu, least, by));
        if (least % WARP == lane) {
            load = with + (u + 1) * rows / units - u * rows / units;
            begun = true;
            for (int i = u; i < UNITS; i += units)
                t.run[expert * UNITS + i] = (uint8_t)lane;
        }
    }
    return load;
}

GPU_INLINE void give_others(const struct dealing &x, const struct table &t)
{
    const int lane = (int)threadIdx.x;
    if (lane < WARP) {
        int load = t.load[lane];
        for (int first = 0; first < x.d.n_expert; first += WARP) {
            const int mine = min(first + lane, x.d.n_expert - 1);
            const uint64_t holders = x.d.holders[mine];
            uint32_t busy =
                __ballot_sync(0xffffffffu, first + lane < x.d.n_expert && t.count[mine] &&
                                               (holders & (holders - 1)));
            for (; busy; busy &= busy - 1)
                load = give_units(x, t, first + __ffs((int)busy) - 1, load);
        }
        t.load[lane] = load;
    }
    __syncthreads();
}

/* ------------------------------------------------------------------------------- rows */

/* Which rank's a row is, as share() of base.h cuts them. */
GPU_INLINE int owner(int n, int size, int row)
{
    const int q = n / size, r = n % size;
    return row < r * (q + 1) ? row / (q + 1) : r + (row - r * (q + 1)) / q;
}

/* A thread goes through a row's choices. */
GPU_INLINE void deal_row(const struct dealing &x, const struct table &t, int row)
{
    const struct gpu_deal &d = x.d;
    const int mine = d.rank / d.slices;
    const uint32_t all = 0xffffffffu >> (32 - d.slices);
    int *chosen = x.chosen + (size_t)row * (size_t)(x.top + x.shared);
    uint32_t need = 0;
    for (int c = 0; c < x.top; c++) {
        const int run = t.run[chosen[c] * UNITS + row % UNITS];
        need |= all << run * d.slices;
        if (run != mine)
            chosen[c] = -1;
    }
    if (!d.need)
        return;
    if (x.shared) { /* the row's own rank has all of it */
        const int rank = owner(x.n, d.n_run * d.slices, row);
        need |= 1u << rank;
        if (rank != d.rank)
            chosen[x.top] = -1;
    }
    d.need[row] = need;
}

GPU_INLINE void add_loads(const struct dealing &x, const struct table &t)
{
    int most = 0, all = 0;
    for (int r = 0; r < x.d.n_run; r++)
        most = max(most, t.load[r]), all += t.load[r];
    x.d.load[0] += (uint64_t)most, x.d.load[1] += (uint64_t)all;
}

__global__ static void __launch_bounds__(THREADS)
    deal_rows(const __grid_constant__ struct dealing x)
{
    const struct table t = table_of(x.d);
    count_rows(x, t);
    give_single(x, t);
    give_others(x, t);
    for (int row = (int)threadIdx.x; row < x.n; row += THREADS)
        deal_row(x, t, row);
    if (threadIdx.x == 0 && x.d.load)
        add_loads(x, t);
}

extern "C" int gpu_deal_rows(void *stream, int *chosen, int n, int top, bool shared,
                             const struct gpu_deal *d)
{
    const struct dealing x = {chosen, n, top, shared, *d};
    return LAUNCH(deal_rows, n ? 1 : 0, THREADS, table_bytes(d), stream, x);
}
