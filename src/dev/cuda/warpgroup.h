/* warpgroup.h - what compute capability 9.0 alone can do (sm_90a): matrices of four warps, bulk
 * copies that arrive at barriers in shared memory, and blocks of threads in clusters.
 *
 * The assembler of gpu.h goes on here; the model of a GPU has the same functions. Compiled for
 * other GPUs too, where nothing may call them.
 *
 * A warpgroup is four successive warps, the first a multiple of four. wgmma() multiplies a of
 * 64 x 16 by b of 16 x N, both bf16, into d of 64 x N, f32. Warp w has rows 16w .. 16w + 15 of a
 * and d, in registers as mma_bf16() has them (gpu.h): of lane 4g + t
 *     a[0]: row g, columns 2t,+1   a[1]: row g + 8   a[2]: row g, columns 2t + 8,+9   a[3]: g + 8
 *     d[j][0], d[j][1]: row g, columns 8j + 2t,+1    d[j][2], d[j][3]: row g + 8
 * (PTX ISA, "Matrix fragments for wgmma.mma_async.m64nNk16"; CUTLASS, CLayout_64xN and
 * ALayout_64x16 in cute/atom/mma_traits_sm90_gmma.hpp.)
 *
 * b lies in shared memory in bricks of 8 columns by 8 rows of it, 128 bytes, nothing swizzled: the
 * eight rows of a column are 16 bytes, columns follow each other (BY_COLUMN: K-major), or the eight
 * columns of a row, and rows follow each other (BY_ROW: MN-major, imm-trans-b is 1). matrix_at()
 * describes it: BRICK bytes from the brick of rows 0 .. 7 to that of rows 8 .. 15, and so many from
 * 8 columns to the next 8. (PTX ISA, "Matrix descriptor": bits 0-13 address, 16-29 leading, 32-45
 * stride, all / 16, 62-63 swizzling, 0: none. "Leading dimension byte offset", without swizzling:
 * from rows of b to the next, be they the first column of 128 bits and the second of K-major or
 * eight of MN-major; "Stride dimension byte offset": from 8 columns of b to the next. CUTLASS,
 * make_gmma_desc(): INTERLEAVE is ((8, n), 2) : ((1, SBO), LBO) for Major::K and
 * ((1, n), (8, k)) : ((X, SBO), (1, LBO)) for Major::MN, in units of 128 bits.)
 */
#ifndef TANDEM_CUDA_WARPGROUP_H
#define TANDEM_CUDA_WARPGROUP_H

#include "dev/cuda/gpu.h"

enum { WARPGROUP = 128, BRICK = 128 };
enum bricks { BY_COLUMN, BY_ROW };

#ifdef __CUDACC__

/* Kernels have no body for other GPUs. */
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define ONLY_SM90A(...) __VA_ARGS__
#else
#define ONLY_SM90A(...)                                                                            \
    if (false) {                                                                                   \
        __VA_ARGS__                                                                                \
    }
#endif

/* ------------------------------------------------------------------------------- barriers */

/* A barrier is 8 bytes of shared memory. Its phase ends when so many have arrived as it began with
 * and all bytes that they expected are there; then the next one begins. */
GPU_INLINE void barrier_begin(uint64_t *barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(gpu_shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
}

/* By who began them, before the blocks that use them meet. */
GPU_INLINE void barriers_begun(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

GPU_INLINE void barrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(gpu_shared_address(barrier))
                 : "memory");
}

/* Arrive, and so many bytes more are expected. */
GPU_INLINE void barrier_expect(uint64_t *barrier, int bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(gpu_shared_address(barrier)),
        "r"(bytes)
        : "memory");
}

/* The address in the shared memory of block `block` of the cluster. */
GPU_INLINE uint32_t address_in_block(const void *at, int block)
{
    uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(there)
                 : "r"(gpu_shared_address(at)), "r"(block));
    return there;
}

/* Arrive at the barrier of that place in another block, or in this one. */
GPU_INLINE void barrier_arrive_in(uint64_t *barrier, int block)
{
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(
                     address_in_block(barrier, block))
                 : "memory");
}

/* Until the phase of this parity has ended: 0 for the first. Of one that begins, the phase before,
 * parity 1, has. */
GPU_INLINE void barrier_wait(uint64_t *barrier, int parity)
{
    uint32_t ended = 0;
    while (!ended)
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(ended)
                     : "r"(gpu_shared_address(barrier)), "r"(parity)
                     : "memory");
}

/* ------------------------------------------------------------------------------- copies */

/* Begin copying bytes from global to shared memory, all multiples of 16; they arrive at the
 * barrier. */
GPU_INLINE void copy_bulk(void *shared, const void *global, int bytes, uint64_t *barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(gpu_shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(gpu_shared_address(barrier))
                 : "memory");
}

/* The same to this place in all blocks of the cluster whose bit is set, at their barriers. */
GPU_INLINE void copy_bulk_to(void *shared, const void *global, int bytes, uint64_t *barrier,
                             unsigned blocks)
{
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1], %2, [%3], %4;" ::"r"(gpu_shared_address(shared)),
        "l"(global), "r"(bytes), "r"(gpu_shared_address(barrier)), "h"((uint16_t)blocks)
        : "memory");
}

/* By every thread that wrote to shared memory otherwise, or whose copy_async() has arrived, before
 * who multiplies by matrices there is told. */
GPU_INLINE void matrices_written(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ------------------------------------------------------------------------------- clusters */

GPU_INLINE int block_in_cluster(void)
{
    int rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/* All threads of all blocks of the cluster; what they wrote to shared memory is seen. */
GPU_INLINE void cluster_meet(void)
{
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

/* A number in the shared memory of block `block` of the cluster. */
GPU_INLINE float load_from_block(const float *at, int block)
{
    float value;
    asm volatile("ld.shared::cluster.f32 %0, [%1];"
                 : "=f"(value)
                 : "r"(address_in_block(at, block))
                 : "memory");
    return value;
}

/* ------------------------------------------------------------------------------- matrices */

/* Registers of each thread of the warpgroup from here on: a multiple of 8, up to 240. All its warps
 * say so; `more` waits until others have given them away. */
template <int N> GPU_INLINE void registers_less(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> GPU_INLINE void registers_more(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* Before the first product, and after registers that products use were written otherwise. */
GPU_INLINE void wgmma_begin(void) { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

/* The products since the last call are a group. */
GPU_INLINE void wgmma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Until all groups but the latest N are done; before, nobody may look at d or write a. */
template <int N> GPU_INLINE void wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* After wgmma_wait<0>(): the compiler takes d for done where wgmma() stands, and might move what
 * looks at d before the wait. */
template <int N> GPU_INLINE void wgmma_done(float (&d)[N][4])
{
#pragma unroll
    for (int i = 0; i < 4 * N; i++)
        asm volatile("" : "+f"(d[i / 4][i % 4])::"memory");
}

#define WG_D4(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define WG_D16(i) WG_D4(i), WG_D4(i + 1), WG_D4(i + 2), WG_D4(i + 3)
#define WG_D32(i) WG_D16(i), WG_D16(i + 4)
#define WG_R16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define WG_R32                                                                                     \
    WG_R16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WG_R64                                                                                     \
    WG_R32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "    \
           "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WG_R96                                                                                     \
    WG_R64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "    \
           "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define WG_PRODUCT(n, registers, a_, b_, add_, trans_, ...)                                        \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add_ ", 0;\n"                                 \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" registers "}, {" a_   \
                 "}, " b_ ", p, 1, 1, %" trans_ ";\n}"                                             \
                 : __VA_ARGS__                                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add),              \
                   "n"((int)BY))

/* d = a * b, or d += a * b when `add`; done when wgmma_wait() says so. */
template <int N, enum bricks BY>
GPU_INLINE void wgmma(float (&d)[N / 8][4], const uint32_t a[4], uint64_t b, bool add)
{
    static_assert(N == 32 || N == 64 || N == 128 || N == 192, "not written down");
    if constexpr (N == 32)
        WG_PRODUCT("32", WG_R16, "%16, %17, %18, %19", "%20", "%21", "22", WG_D16(0));
    else if constexpr (N == 64)
        WG_PRODUCT("64", WG_R32, "%32, %33, %34, %35", "%36", "%37", "38", WG_D32(0));
    else if constexpr (N == 128)
        WG_PRODUCT("128", WG_R64, "%64, %65, %66, %67", "%68", "%69", "70", WG_D32(0), WG_D32(8));
    else
        WG_PRODUCT("192", WG_R96, "%96, %97, %98, %99", "%100", "%101", "102", WG_D32(0), WG_D32(8),
                   WG_D32(16));
}

#undef WG_PRODUCT

/* ------------------------------------------------------------------------------- launches */

/* As LAUNCH_CHAINED, with clusters of so many successive blocks, and up to 227 KiB of shared
 * memory. */
#define LAUNCH_CLUSTERS(...) gpu_launch_clusters(__VA_ARGS__)

template <class... Takes, class... Gets>
static inline int gpu_launch_clusters(void (*kernel)(Takes...), unsigned cluster, dim3 grid,
                                      dim3 block, size_t shared, void *stream, Gets... arguments)
{
    return gpu_launch_with(cluster, gpu_may_overlap(kernel, stream), kernel, grid, block, shared,
                           stream, arguments...);
}

#else
#include <warpgroup_model.h>
#endif

/* Describes the matrix b whose first brick is there: `stride` bytes from 8 columns to the next. An
 * address has the number of the block in its cluster from bit 24 on, a description has not ("Matrix
 * descriptor": of the address 18 bits). */
GPU_INLINE uint64_t matrix_at(const void *shared, int stride)
{
    return (uint64_t)((gpu_shared_address(shared) & 0x3ffff) >> 4) | (uint64_t)(BRICK >> 4) << 16 |
           (uint64_t)(stride >> 4) << 32;
}

#endif
