/* kernels.cu - sums, gathering, bits, columns and messages: see kernels.h and meet.h. */
#include "comm/peer/meet.h"

namespace
{

enum {
    AT_ONCE = 8,               /* planes read before any is added: their latencies overlap */
    DEPTH = 6,                 /* terms on the stack: log2 of the most shares, and one */
    MESSAGE_BLOCKS = 16,       /* of every message, whatever its size: blocks number them alike */
    CHUNK = PEER_THREADS * 16, /* bytes of a message: one block's */
};

/* ------------------------------------------------------------------------------- numbers */

GPU_INLINE uint32_t join(uint32_t a, uint32_t b) { return a | b; }

GPU_INLINE uint4 join(uint4 a, uint4 b)
{
    return make_uint4(a.x | b.x, a.y | b.y, a.z | b.z, a.w | b.w);
}

/* The block's piece of numbers lo .. hi. */
struct piece {
    size_t lo, hi;
};

GPU_INLINE piece piece_of(size_t lo, size_t hi)
{
    const size_t each = (hi - lo + gridDim.x - 1) / gridDim.x;
    const size_t from = min(lo + each * blockIdx.x, hi);
    return {from, min(from + each, hi)};
}

/* ------------------------------------------------------------------------------- sums, gathering
 */

/* The sum of the planes at i. Terms are a stack that moves, so that it stays in registers. */
template <class V> GPU_INLINE V sum_at(const peer_job &x, size_t i)
{
    V stack[DEPTH] = {};
    for (int first = 0; first < x.n_plane; first += AT_ONCE) {
        V in[AT_ONCE] = {};
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            if (first + j < x.n_plane)
                in[j] = static_cast<const V *>(x.plane[first + j])[i];
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            if (first + j >= x.n_plane)
                break;
#pragma unroll
            for (int k = DEPTH - 1; k > 0; k--)
                stack[k] = stack[k - 1];
            stack[0] = in[j];
            for (int n = x.adds[first + j]; n > 0; n--) {
                stack[0] = add(stack[1], stack[0]);
#pragma unroll
                for (int k = 1; k < DEPTH - 1; k++)
                    stack[k] = stack[k + 1];
            }
        }
    }
    return stack[0];
}

/* Numbers are counted in V, of `per` each. */
template <class V>
__global__ void __launch_bounds__(PEER_THREADS)
    exchange(const peer_view v, const peer_job x, const int per)
{
    after_previous_alone();
    uint32_t turn = turns(v);
    if (x.add) {
        if (!meet(v, ++turn))
            return;
        const piece mine = piece_of(x.lo / per, x.hi / per);
        V *to = static_cast<V *>(x.mat[v.rank]);
        for (size_t i = mine.lo + threadIdx.x; i < mine.hi; i += PEER_THREADS)
            to[i] = sum_at<V>(x, i);
    }
    if (x.copy) {
        if (!meet(v, ++turn))
            return;
        V *to = static_cast<V *>(x.mat[v.rank]);
        for (int r = (v.rank + 1) % v.size; r != v.rank; r = (r + 1) % v.size) {
            const piece theirs = piece_of(x.bound[r] / per, x.bound[r + 1] / per);
            const V *from = static_cast<const V *>(x.mat[r]);
#pragma unroll 4
            for (size_t i = theirs.lo + threadIdx.x; i < theirs.hi; i += PEER_THREADS)
                to[i] = from[i];
        }
    }
    end_at(v, turn);
}

/* Whether all bounds are multiples of `per`. */
bool divides(const peer_job &x, int size, size_t per)
{
    size_t rest = x.lo % per + x.hi % per;
    for (int r = 0; x.copy && r <= size; r++)
        rest += x.bound[r] % per;
    return rest == 0;
}

/* ------------------------------------------------------------------------------- bits, columns */

struct everyone {
    const uint32_t *from[PEER_RANKS];
};

template <class V>
__global__ void __launch_bounds__(PEER_THREADS)
    merge(const peer_view v, uint32_t *to, const everyone all, const size_t n)
{
    uint32_t turn = turns(v);
    if (!meet(v, ++turn))
        return;
    const piece mine = piece_of(0, n);
    for (size_t i = mine.lo + threadIdx.x; i < mine.hi; i += PEER_THREADS) {
        V bits = reinterpret_cast<const V *>(all.from[0])[i];
#pragma unroll 4
        for (int r = 1; r < v.size; r++)
            bits = join(bits, reinterpret_cast<const V *>(all.from[r])[i]);
        reinterpret_cast<V *>(to)[i] = bits;
    }
    if (meet(v, ++turn)) /* what was read is free again */
        end_at(v, turn);
}

__global__ void __launch_bounds__(PEER_THREADS)
    join_columns(const peer_view v, float *root, const int root_dim, const int lo,
                 const float *from, const int n, const int dim)
{
    uint32_t turn = turns(v);
    if (!meet(v, ++turn)) /* rank 0 may still be reading what was joined last */
        return;
    const piece mine = piece_of(0, (size_t)n * dim);
    for (size_t i = mine.lo + threadIdx.x; i < mine.hi; i += PEER_THREADS)
        root[i / dim * root_dim + lo + i % dim] = from[i];
    if (meet(v, ++turn)) /* complete at rank 0 */
        end_at(v, turn);
}

__global__ void __launch_bounds__(32) meet_all(const peer_view v)
{
    const uint32_t turn = turns(v) + 1;
    if (meet(v, turn))
        end_at(v, turn);
}

/* ------------------------------------------------------------------------------- messages */

/* A byte of a slot is always the same block's, whatever the size of the message: a block that may
 * write it again knows only that this block of the receiver's has read it. */
template <class V> GPU_INLINE void copy_message(char *to, const char *from, size_t bytes)
{
    const size_t n = bytes / sizeof(V), each = CHUNK / sizeof(V);
    for (size_t at = blockIdx.x * each; at < n; at += MESSAGE_BLOCKS * each)
        for (size_t i = at + threadIdx.x; i < min(at + each, n); i += PEER_THREADS)
            reinterpret_cast<V *>(to)[i] = reinterpret_cast<const V *>(from)[i];
}

/* Message n lies in slot n % 2; the one before in that slot was taken by whoever got it. */
template <class V>
__global__ void __launch_bounds__(PEER_THREADS)
    send_message(const peer_view v, const int to, char *outbox, const size_t slot_bytes,
                 const char *from, const size_t bytes)
{
    peer_state *mine = v.state[v.rank];
    const unsigned b = blockIdx.x;
    const uint32_t number = mine->n_sent[b] + 1, k = mine->n_to[to][b] + 1;
    const unsigned slot = number % PEER_SLOTS;
    bool good = true;
    if (threadIdx.x == 0)
        good = await(v, &mine->taken[slot][b], number - PEER_SLOTS);
    if (!all_told(good))
        return;
    copy_message<V>(outbox + slot * slot_bytes, from, bytes);
    __syncthreads();
    if (threadIdx.x == 0) {
        mine->n_sent[b] = number;
        mine->n_to[to][b] = k;
        store_release(&v.state[to]->inbox[v.rank][k % PEER_SLOTS][b], number);
    }
}

template <class V>
__global__ void __launch_bounds__(PEER_THREADS)
    recv_message(const peer_view v, const int from, const char *outbox, const size_t slot_bytes,
                 char *to, const size_t bytes)
{
    peer_state *mine = v.state[v.rank];
    const unsigned b = blockIdx.x;
    const uint32_t k = mine->n_from[from][b] + 1;
    const uint32_t *inbox = &mine->inbox[from][k % PEER_SLOTS][b];
    uint32_t *seen = &mine->seen[from][k % PEER_SLOTS][b];
    bool good = true;
    if (threadIdx.x == 0)
        good = await(v, inbox, *seen + 1);
    if (!all_told(good))
        return;
    const uint32_t number = load_acquire(inbox);
    const unsigned slot = number % PEER_SLOTS;
    copy_message<V>(to, outbox + slot * slot_bytes, bytes);
    __syncthreads();
    if (threadIdx.x == 0) {
        *seen = number;
        mine->n_from[from][b] = k;
        store_release(&v.state[from]->taken[slot][b], number);
    }
}

} // namespace

/* ------------------------------------------------------------------------------- as C calls it */

int peer_exchange(void *stream, const struct peer_view *v, const struct peer_job *x)
{
    const int wide = x->whole ? 2 : 4;
    const bool vectors = divides(*x, v->size, wide);
    const unsigned blocks = peer_blocks(x->n * (x->whole ? 8 : 4));
    if (x->whole && vectors)
        return LAUNCH_CHAINED(exchange<whole2>, blocks, PEER_THREADS, 0, stream, *v, *x, wide);
    if (x->whole)
        return LAUNCH_CHAINED(exchange<long long>, blocks, PEER_THREADS, 0, stream, *v, *x, 1);
    if (vectors)
        return LAUNCH_CHAINED(exchange<float4>, blocks, PEER_THREADS, 0, stream, *v, *x, wide);
    return LAUNCH_CHAINED(exchange<float>, blocks, PEER_THREADS, 0, stream, *v, *x, 1);
}

int peer_merge(void *stream, const struct peer_view *v, uint32_t *to,
               const uint32_t *const from[PEER_RANKS], size_t n)
{
    const unsigned blocks = peer_blocks(n * 4);
    everyone all = {};
    for (int r = 0; r < v->size; r++)
        all.from[r] = from[r];
    if (n % 4)
        return LAUNCH(merge<uint32_t>, blocks, PEER_THREADS, 0, stream, *v, to, all, n);
    return LAUNCH(merge<uint4>, blocks, PEER_THREADS, 0, stream, *v, to, all, n / 4);
}

int peer_join(void *stream, const struct peer_view *v, float *root, int root_dim, int lo,
              const float *from, int n, int dim)
{
    const unsigned blocks = peer_blocks((size_t)n * root_dim * 4 / v->size);
    return LAUNCH(join_columns, blocks, PEER_THREADS, 0, stream, *v, root, root_dim, lo, from, n,
                  dim);
}

int peer_meet(void *stream, const struct peer_view *v)
{
    return LAUNCH(meet_all, 1, 32, 0, stream, *v);
}

static bool in_vectors(const void *at, size_t bytes)
{
    return (reinterpret_cast<uintptr_t>(at) | bytes) % sizeof(uint4) == 0;
}

int peer_send(void *stream, const struct peer_view *v, int to, char *outbox, size_t slot_bytes,
              const void *at, size_t bytes)
{
    const char *from = static_cast<const char *>(at);
    if (in_vectors(at, bytes))
        return LAUNCH(send_message<uint4>, MESSAGE_BLOCKS, PEER_THREADS, 0, stream, *v, to, outbox,
                      slot_bytes, from, bytes);
    return LAUNCH(send_message<uint32_t>, MESSAGE_BLOCKS, PEER_THREADS, 0, stream, *v, to, outbox,
                  slot_bytes, from, bytes);
}

int peer_recv(void *stream, const struct peer_view *v, int from, const char *outbox,
              size_t slot_bytes, void *at, size_t bytes)
{
    char *to = static_cast<char *>(at);
    if (in_vectors(at, bytes))
        return LAUNCH(recv_message<uint4>, MESSAGE_BLOCKS, PEER_THREADS, 0, stream, *v, from,
                      outbox, slot_bytes, to, bytes);
    return LAUNCH(recv_message<uint32_t>, MESSAGE_BLOCKS, PEER_THREADS, 0, stream, *v, from, outbox,
                  slot_bytes, to, bytes);
}
