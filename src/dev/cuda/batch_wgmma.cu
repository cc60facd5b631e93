/* batch_wgmma.cu - products of 17 rows to a few hundred by bf16 on compute capability 9.0: see
 * product_wgmma.h.
 *
 * So few rows want weights at memory speed, and a matrix has fewer tiles than a GPU has
 * multiprocessors: 4096 outputs are 32. So the blocks of a cluster share a tile out: each
 * multiplies one run of the columns, or, where shares are summed, one share, and leaves its sums in
 * its shared memory; then each adds up some of the outputs, reading the others' memory, in the one
 * order there is. Nothing goes through global memory, and no block waits for one that may not run.
 *
 * Bytes of weights on their way, of a multiprocessor: up to 64 rows 2 blocks of 4 or 5 slots of
 * 16 KiB, 128 or 160 KiB; more rows 1 block of 6, 96 KiB. 4.8 TB/s over 132 multiprocessors at a
 * latency of 1 us want 36 KiB.
 */
#include "dev/cuda/product_wgmma.h"

/* Cluster: the largest that every GPU of 9.0 takes. */
enum { CLUSTER = 8, THREADS = CONSUMERS + 32, SUM_ROW = OUTPUTS + 4 };

/* What a block multiplies: columns from .. to - 1 of a piece. */
struct share {
    int piece, from, to;
};

GPU_INLINE struct share share_of(const struct product &p, const struct duty &duty, int rank)
{
    if (p.together)
        return {rank, 0, rank < p.n_piece ? p.piece[rank].cols : 0};
    const int cols = p.piece[duty.first].cols, run = run_columns(NUM_BF16, cols);
    return {duty.first, rank * run, min((rank + 1) * run, cols)};
}

/* The sums of a block, for others of the cluster to read: [row][output]. The ring is done with. */
template <class S> GPU_INLINE void leave_sums(const struct sums<S> &s)
{
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    float *to = gpu_shared<float>() + 16 * ((int)threadIdx.x / 32) + 2 * g;
#pragma unroll
    for (int j = 0; j < S::ROWS / 8; j++)
#pragma unroll
        for (int r = 0; r < 2; r++)
            *(float2 *)(to + (8 * j + 2 * t + r) * SUM_ROW) =
                make_float2(s.all[j][r], s.all[j][2 + r]);
}

/* One output of one row, from the sums of all blocks. */
GPU_INLINE void join_output(const struct product &p, const struct duty &duty,
                            const struct corner &at, int row, int o)
{
    const float *sum = gpu_shared<float>() + row * SUM_ROW + o;
    const int place = 16 * at.block + o;
    struct put_shares<1> put(p);
    if (p.together) {
        for (int i = 0; i < p.n_piece; i++)
            put.sum(0, p.piece[i], at.row + row, place, load_from_block(sum, i));
        return;
    }
    const struct piece &k = p.piece[duty.first];
    const int runs = parts_of(k.cols, run_columns(NUM_BF16, k.cols));
    float all = 0;
    for (int i = 0; i < runs; i++) {
        const float run = load_from_block(sum, i);
        all = i ? __fadd_rn(all, run) : run;
    }
    put_output(p, k, at.row + row, place, all);
}

template <class S> GPU_INLINE void do_tile(const struct product &p, int cluster)
{
    const int rank = block_in_cluster(), mine = OUTPUTS / cluster;
    const struct duty duty = duty_of(p, (int)blockIdx.x / cluster);
    const struct corner at = {duty.place * (OUTPUTS / 16), (int)blockIdx.y * S::ROWS};
    const struct share share = share_of(p, duty, rank);
    const struct piece &k = p.piece[min(share.piece, p.n_piece - 1)];
    struct sums<S> s;

    if (threadIdx.x == 0)
        begin_ring<S>(1, CONSUMERS / 32);
    __syncthreads();
    if (threadIdx.x == CONSUMERS) {
        struct turn t = {0, 0};
        fetch_columns<S, 1>(p, k, at, share.from, share.to, &t);
    } else if (threadIdx.x < CONSUMERS) {
        after_previous();
        begin_sums(s);
        add_columns<S, 1>(s, k, share.from, share.to);
    }
    __syncwarp(); /* one lane has fetched */
    __syncthreads();
    if (threadIdx.x < CONSUMERS)
        leave_sums(s);
    cluster_meet();
    const int rows = min((int)S::ROWS, p.n - at.row);
    for (int i = (int)threadIdx.x; i < rows * mine; i += THREADS)
        join_output(p, duty, at, i / mine, rank * mine + i % mine);
    cluster_meet(); /* others still read what this one has left */
}

template <class S>
__global__ void __launch_bounds__(THREADS, S::ROWS > 64 ? 1 : 2)
    batch_kernel(const __grid_constant__ struct product p, int cluster)
{
    ONLY_SM90A(do_tile<S>(p, cluster);)
}

template <class S> static int launch(void *stream, const struct product *p)
{
    struct product placed = *p;
    const int tiles = place_blocks(&placed, OUTPUTS);
    int cluster = p->together ? 1 : CLUSTER;
    while (cluster < p->n_piece && p->together)
        cluster *= 2;
    static_assert(S::ROWS * SUM_ROW * sizeof(float) <= S::SLOTS * S::SLOT_BYTES, "sums fit");
    return LAUNCH_CLUSTERS(batch_kernel<S>, (unsigned)cluster,
                           dim3((unsigned)(tiles * cluster), (unsigned)parts_of(p->n, S::ROWS)),
                           dim3(THREADS), (size_t)ring_bytes<S>(), stream, placed, cluster);
}

bool product_batch_takes(const struct product *p) { return !p->together || p->n_piece <= CLUSTER; }

int product_batch(void *stream, const struct product *p)
{
    return p->n <= 32   ? launch<shape<32, 5>>(stream, p)
           : p->n <= 64 ? launch<shape<64, 4>>(stream, p)
                        : launch<shape<128, 6>>(stream, p);
}
