/* rows.cu - rows to those ranks that need them, and back: see kernels.h and comm/shm_exchange.c.
 *
 * A rank reads where the rows are: nothing is packed, and each call is one meeting. Who needs what
 * stands in the GPU's memory, so the host knows neither which rows travel nor how many.
 */
#include "comm/peer/meet.h"

namespace
{

enum { AT_ONCE = 4 }; /* pieces of rows, and ranks, read before any is written or added */

/* A row of `each` numbers V in pieces of one block's threads. */
struct pieces {
    size_t each, per_row, n;
};

template <class V> GPU_INLINE pieces pieces_of(const peer_rows &x, int rows)
{
    const size_t each = x.row_bytes / sizeof(V);
    const size_t per_row = (each + PEER_THREADS - 1) / PEER_THREADS;
    return {each, per_row, per_row * (size_t)rows};
}

GPU_INLINE bool needs(const peer_rows &x, size_t row, int rank) { return x.need[row] >> rank & 1; }

GPU_INLINE int owner(const peer_rows &x, int size, size_t row)
{
    int r = 0;
    while (r + 1 < size && (size_t)x.first[r + 1] <= row)
        r++;
    return r;
}

/* This thread's number of piece i, those behind this rank's own rows first, so that not all read
 * one rank; and whose it is: -1 when it is not to be copied. */
template <class V>
GPU_INLINE int find(const peer_view &v, const peer_rows &x, const pieces &p, size_t i, size_t *at)
{
    const size_t rows = (size_t)x.first[v.size];
    const size_t row = (i / p.per_row + (size_t)x.first[v.rank + 1]) % rows;
    const size_t k = i % p.per_row * PEER_THREADS + threadIdx.x;
    *at = row * p.each + k;
    if (i >= p.n || k >= p.each || !needs(x, row, v.rank))
        return -1;
    const int from = owner(x, v.size, row);
    return from == v.rank ? -1 : from;
}

template <class V>
__global__ void __launch_bounds__(PEER_THREADS) dispatch(const peer_view v, const peer_rows x)
{
    uint32_t turn = v.state[v.rank]->turn[blockIdx.x];
    if (!meet(v, ++turn))
        return;
    const pieces p = pieces_of<V>(x, x.first[v.size]);
    V *to = static_cast<V *>(x.mat[v.rank]);
    for (size_t first = blockIdx.x; first < p.n; first += AT_ONCE * gridDim.x) {
        V in[AT_ONCE] = {};
        size_t at[AT_ONCE];
        int from[AT_ONCE];
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            from[j] = find<V>(v, x, p, first + (size_t)j * gridDim.x, &at[j]);
            if (from[j] >= 0)
                in[j] = static_cast<const V *>(x.mat[from[j]])[at[j]];
        }
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            if (from[j] >= 0)
                to[at[j]] = in[j];
    }
    end_at(v, turn);
}

/* The sum over the ranks that need a row of their number `at`, some ranks at once. */
template <class V> GPU_INLINE V sum_over(const peer_rows &x, uint32_t ranks, size_t at)
{
    V sum = {};
    while (ranks) {
        V in[AT_ONCE] = {};
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            if (ranks) {
                in[j] = static_cast<const V *>(x.mat[__ffs((int)ranks) - 1])[at];
                ranks &= ranks - 1;
            }
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            sum = add(sum, in[j]);
    }
    return sum;
}

template <class V>
__global__ void __launch_bounds__(PEER_THREADS) combine(const peer_view v, const peer_rows x, V *to)
{
    uint32_t turn = v.state[v.rank]->turn[blockIdx.x];
    if (!meet(v, ++turn))
        return;
    const size_t lo = (size_t)x.first[v.rank];
    const pieces p = pieces_of<V>(x, x.first[v.rank + 1] - x.first[v.rank]);
    for (size_t i = blockIdx.x; i < p.n; i += gridDim.x) {
        const size_t row = lo + i / p.per_row, k = i % p.per_row * PEER_THREADS + threadIdx.x;
        if (k < p.each)
            to[row * p.each + k] = sum_over<V>(x, x.need[row], row * p.each + k);
    }
    end_at(v, turn);
}

} // namespace

int peer_dispatch(void *stream, const struct peer_view *v, const struct peer_rows *x)
{
    const unsigned blocks = peer_blocks((size_t)x->first[v->size] * x->row_bytes);
    return x->row_bytes % sizeof(uint4)
               ? LAUNCH(dispatch<uint32_t>, blocks, PEER_THREADS, 0, stream, *v, *x)
               : LAUNCH(dispatch<uint4>, blocks, PEER_THREADS, 0, stream, *v, *x);
}

int peer_combine(void *stream, const struct peer_view *v, const struct peer_rows *x, void *to)
{
    const unsigned blocks = peer_blocks((size_t)x->first[v->size] * x->row_bytes / v->size);
    return x->row_bytes % sizeof(whole2)
               ? LAUNCH(combine<long long>, blocks, PEER_THREADS, 0, stream, *v, *x,
                        (long long *)to)
               : LAUNCH(combine<whole2>, blocks, PEER_THREADS, 0, stream, *v, *x, (whole2 *)to);
}
