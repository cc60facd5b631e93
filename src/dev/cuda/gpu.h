/* gpu.h - what kernels say to a GPU that is not plain C++: its own instructions, each behind a
 * function, and how a kernel is launched.
 *
 * The file with assembler of NVIDIA's virtual machine (PTX) and with differences of compilers; that
 * of compute capability 9.0 alone is in warpgroup.h.
 * Everything here runs on compute capability 8.0 and later. Besides it kernels use CUDA's own
 * words: threadIdx, __syncthreads(), __shfl_xor_sync(), __fmaf_rn() and so on. Compiled by a C++
 * compiler instead of nvcc, all of them come from the model of a GPU that the tests bring with
 * them.
 *
 * Registers of matrix instructions, lane = 4 * g + t of a warp, "2t,+1" the lower and upper half:
 *     a of 16 x 16 numbers of 16 bits:  a[0]: row g, columns 2t,+1   a[1]: row g + 8
 *                                       a[2]: row g, columns 2t + 8,+9   a[3]: row g + 8
 *     b of 16 x 8:                      b[0]: rows 2t,+1 of column g   b[1]: rows 2t + 8,+9
 *     c of 16 x 8:                      c[0], c[1]: row g, columns 2t,+1   c[2], c[3]: row g + 8
 * and of bytes, 16 x 32 and 32 x 8, the same with four numbers 4t.. for two, and + 16 for + 8.
 */
#ifndef TANDEM_GPU_H
#define TANDEM_GPU_H

#include <stddef.h>
#include <stdint.h>

enum { GPU_NO_MEMORY = 2 }; /* a cudaError_t */

#ifdef __CUDACC__

#include <cuda_runtime.h>

#define GPU_INLINE static __device__ __forceinline__

/* In clusters of so many blocks, 0: none; overlap: see LAUNCH_CHAINED. */
template <class... Takes, class... Gets>
static inline int gpu_launch_with(unsigned cluster, bool overlap, void (*kernel)(Takes...),
                                  dim3 grid, dim3 block, size_t shared, void *stream,
                                  Gets... arguments)
{
    cudaLaunchAttribute attribute[2] = {};
    cudaLaunchConfig_t config = {};
    unsigned n = 0;
    if (!grid.x || !grid.y || !grid.z)
        return 0;
    if (shared > 48 << 10) {
        cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
        if (error != cudaSuccess)
            return (int)error;
    }
    if (cluster) {
        attribute[n].id = cudaLaunchAttributeClusterDimension;
        attribute[n++].val.clusterDim = {cluster, 1, 1};
    }
    if (overlap) {
        attribute[n].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attribute[n++].val.programmaticStreamSerializationAllowed = 1;
    }
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = (cudaStream_t)stream;
    config.attrs = attribute;
    config.numAttrs = n;
    /* Its own error: cudaGetLastError() might tell of a call before. */
    return (int)cudaLaunchKernelEx(&config, kernel, arguments...);
}

/* LAUNCH(kernel, grid, block, bytes of shared memory, stream, arguments...) enqueues a kernel; its
 * value is a cudaError_t as int. An empty grid is nothing to do. */
#define LAUNCH(...) gpu_launch(__VA_ARGS__)

template <class... Takes, class... Gets>
static inline int gpu_launch(void (*kernel)(Takes...), dim3 grid, dim3 block, size_t shared,
                             void *stream, Gets... arguments)
{
    return gpu_launch_with(0, false, kernel, grid, block, shared, stream, arguments...);
}

/* The same of a kernel whose blocks say after_previous(): in a recording, from compute capability
 * 9.0 on, they may begin while the kernel before is still at work, so that launching it, and what
 * it does first, takes no time of its own. Elsewhere all kernels wait for those before. Code for
 * older GPUs that the driver translated for newer ones has nothing that would wait. */
#define LAUNCH_CHAINED(...) gpu_launch_chained(__VA_ARGS__)

template <class KERNEL> static inline bool gpu_may_overlap(KERNEL kernel, void *stream)
{
    enum cudaStreamCaptureStatus recording = cudaStreamCaptureStatusNone;
    struct cudaFuncAttributes of = {};
    return cudaStreamIsCapturing((cudaStream_t)stream, &recording) == cudaSuccess &&
           recording == cudaStreamCaptureStatusActive &&
           cudaFuncGetAttributes(&of, kernel) == cudaSuccess && of.ptxVersion >= 90;
}

template <class... Takes, class... Gets>
static inline int gpu_launch_chained(void (*kernel)(Takes...), dim3 grid, dim3 block, size_t shared,
                                     void *stream, Gets... arguments)
{
    return gpu_launch_with(0, gpu_may_overlap(kernel, stream), kernel, grid, block, shared, stream,
                           arguments...);
}

/* Until all kernels before this one are done. Before, a block touches nothing but weights and
 * shared memory. after_previous(): the next kernel may begin when all blocks of this one have come
 * here; its blocks take what room there is, fetch weights and wait for this one's end, and so does
 * what follows them. after_previous_alone(): not before this kernel has ended, for those that wait
 * for another GPU, perhaps for a rank on this one, which wants that room. (PTX ISA, griddepcontrol;
 * the guide of CUDA, "Programmatic dependent launch".) */
GPU_INLINE void after_previous_alone(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

GPU_INLINE void after_previous(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
    after_previous_alone();
}

/* The block's shared memory, as many bytes as it was launched with, aligned to 16. */
template <class T> GPU_INLINE T *gpu_shared(void)
{
    extern __shared__ uint4 gpu_shared_at[];
    return reinterpret_cast<T *>(gpu_shared_at);
}

GPU_INLINE uint32_t gpu_shared_address(const void *at)
{
    return (uint32_t)__cvta_generic_to_shared(at);
}

/* c += a * b, bf16, sums in f32. */
GPU_INLINE void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* c += a * b, whole numbers: a of bytes without sign, b with; exact modulo 2^32. */
GPU_INLINE void mma_u8s8(int c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Matrices of 8 x 8 numbers of 16 bits from shared memory. Row i of matrix m, 16 bytes at a
 * multiple of 16, is where lane 8m + i says. r[m] of lane 4g + t: columns 2t,+1 of row g; _trans:
 * rows 2t,+1 of column g. */
GPU_INLINE void load_matrix_x4(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(gpu_shared_address(row))
                 : "memory");
}

GPU_INLINE void load_matrix_x2(uint32_t r[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(gpu_shared_address(row))
                 : "memory");
}

GPU_INLINE void load_matrix_x4_trans(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(gpu_shared_address(row))
                 : "memory");
}

GPU_INLINE void load_matrix_x2_trans(uint32_t r[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(gpu_shared_address(row))
                 : "memory");
}

/* Begin copying 16 bytes from global to shared memory, both at multiples of 16; zeros when not
 * `there`, and then nothing is read. */
GPU_INLINE void copy_async(void *shared, const void *global, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(gpu_shared_address(shared)),
                 "l"(global), "r"(there ? 16 : 0)
                 : "memory");
}

/* The 128 bytes there will be wanted soon: a hint, which may come before after_previous(). */
GPU_INLINE void prefetch(const void *global)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
}

/* The copies begun by this thread since the last call are a group. */
GPU_INLINE void copy_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* Until all of this thread's groups but the latest N have arrived. */
template <int N> GPU_INLINE void copy_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* Two floats rounded to bf16, to nearest even, lo in the lower half. */
GPU_INLINE uint32_t to_bf16x2(float lo, float hi)
{
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(hi), "f"(lo));
    return both;
}

/* Two products of bf16, rounded to nearest even; numbers may be subnormal. */
GPU_INLINE uint32_t times_bf16x2(uint32_t a, uint32_t b)
{
    uint32_t both;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(both) : "r"(a), "r"(b), "r"(0x80008000u));
    return both;
}

GPU_INLINE float from_f16(uint16_t h)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

/* 2^x to 2^-22 of itself; 0 for what would be subnormal. fast_exp2(0) is 1. */
GPU_INLINE float fast_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Words that other GPUs and the host see too: what was written before a store is seen by whoever
 * loads its value. */
GPU_INLINE uint32_t load_acquire(const uint32_t *at)
{
    uint32_t value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
    return value;
}

GPU_INLINE void store_release(uint32_t *at, uint32_t value)
{
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
}

/* In every turn of a loop that waits for another GPU. */
GPU_INLINE void gpu_pause(void) { __nanosleep(64); }

#else
#include <cuda_model.h>
GPU_INLINE void prefetch(const void *global) { (void)global; }
GPU_INLINE void after_previous_alone(void) { after_previous(); }
#endif

/* All of n weights, by `threads` threads of which this is number `thread`; NULL: none. */
GPU_INLINE void prefetch_weights(const float *w, int n, int thread, int threads)
{
    for (int i = 32 * thread; w && i < n; i += 32 * threads)
        prefetch(w + i);
}

/* The number of 16 bits in the lower half of a word of bf16, or in the upper one. */
GPU_INLINE float low_bf16(uint32_t both) { return __uint_as_float(both << 16); }
GPU_INLINE float high_bf16(uint32_t both) { return __uint_as_float(both & 0xffff0000u); }

#endif
