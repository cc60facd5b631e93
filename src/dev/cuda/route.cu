/* route.cu - which experts a row goes to, with which weights: the CPU's bits (dev/cpu/experts.c).
 * A warp per row.
 */
#include "dev/cuda/kernels.h"
#include "dev/cuda/number.h"

#include <limits.h>

enum { WARP = 32, ROWS = 4, LANES = 16 };

struct routing {
    int *expert;
    float *weight;
    const float *logits, *gate;
    int n, experts, top;
    bool shared, renorm;
    uint64_t *load; /* [experts] or NULL */
};

struct best {
    float logit;
    int expert;
};

GPU_INLINE bool better(struct best a, struct best b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.expert < b.expert);
}

/* The best of all lanes. */
GPU_INLINE struct best join_best(struct best mine)
{
    for (int h = WARP / 2; h; h /= 2) {
        struct best other;
        other.logit = __shfl_xor_sync(0xffffffffu, mine.logit, h);
        other.expert = __shfl_xor_sync(0xffffffffu, mine.expert, h);
        mine = better(other, mine) ? other : mine;
    }
    return mine;
}

/* The largest of those not yet taken, the first of equals. A NaN is larger than none, but nothing
 * is larger than a NaN that comes first. Bit j of `taken` is expert 32 j + lane. */
GPU_INLINE int largest(const float *logit, int n, uint32_t taken)
{
    const int lane = threadIdx.x % WARP;
    struct best most = {-INFINITY, INT_MAX};
    int first = INT_MAX;
    for (int i = lane; i < n; i += WARP) {
        const struct best one = {logit[i], i};
        if (taken >> i / WARP & 1)
            continue;
        first = min(first, i);
        most = better(one, most) ? one : most;
    }
    for (int h = WARP / 2; h; h /= 2)
        first = min(first, __shfl_xor_sync(0xffffffffu, first, h));
    most = join_best(most);
    return logit[first] != logit[first] ? first : most.expert;
}

/* exp(logit - top) of all to e; their sum in the order of cpu_join(). */
GPU_INLINE float exponents(float *e, const float *logit, int n, float top)
{
    const int lane = threadIdx.x % WARP;
    float sum = 0;
    for (int i = lane; i < n; i += WARP)
        e[i] = num_exp(logit[i] - top);
    __syncwarp();
    for (int i = lane; i < n; i += LANES)
        sum = lane < LANES ? __fadd_rn(sum, e[i]) : sum;
    sum = num_join(sum);
    return __shfl_sync(0xffffffffu, sum, 0);
}

__global__ static void route_rows(struct routing r)
{
    const int row = blockIdx.x * ROWS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int per_row = r.top + r.shared;
    const float *logit = r.logits + (size_t)row * r.experts;
    float *e = gpu_shared<float>() + threadIdx.x / WARP * r.experts, chosen = 0;
    if (row >= r.n)
        return;
    int *expert = r.expert + (size_t)row * per_row;
    float *weight = r.weight + (size_t)row * per_row, top = 0;
    uint32_t taken = 0;
    for (int c = 0; c < r.top; c++) {
        const int next = largest(logit, r.experts, taken);
        taken |= (uint32_t)(next % WARP == lane) << next / WARP;
        top = c ? top : logit[next];
        if (lane == 0)
            expert[c] = next;
        if (lane == 0 && r.load)
            atomicAdd((unsigned long long *)&r.load[next], 1ULL);
    }
    __syncwarp();
    const float sum = exponents(e, logit, r.experts, top);
    for (int c = 0; c < r.top; c++)
        chosen = __fadd_rn(chosen, e[expert[c]]);
    if (sum != sum) /* a NaN among those not chosen too */
        chosen = sum;
    for (int c = lane; c < r.top; c += WARP)
        weight[c] = __fdiv_rn(e[expert[c]], r.renorm ? chosen : sum);
    if (r.shared && lane == 0) {
        expert[r.top] = r.experts;
        weight[r.top] = r.gate ? num_sigmoid(r.gate[row]) : 1;
    }
}

extern "C" int gpu_route(void *stream, int *expert, float *weight, const float *logits, int n,
                         int experts, int top, bool shared, const float *gate, bool renorm,
                         uint64_t *load)
{
    const struct routing r = {expert, weight, logits, gate, n, experts, top, shared, renorm, load};
    return LAUNCH(route_rows, (n + ROWS - 1) / ROWS, ROWS * WARP,
                  ROWS * (size_t)experts * sizeof(float), stream, r);
}
