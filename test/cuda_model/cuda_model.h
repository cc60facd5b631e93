/* cuda_model.h - a GPU in software, on which kernels run in tests on any machine.
 *
 * How to test a kernel. The .cu files of src/dev/cuda are compiled as plain C++ into the library
 * cuda_model, which has the functions of dev/cuda/kernels.h, and those of dev/cuda/runtime.h with a
 * body of its own. A test named test_gpu_NAME.c is linked with it and says, as the device does:
 *
 *     void *stream, *x;
 *     gpu_stream(&stream);
 *     gpu_alloc(&x, bytes);                    full of 0xff: NaN, or -1
 *     gpu_copy_in(x, from, bytes, stream);
 *     gpu_norm(stream, x, x, n, dim, ...);
 *     gpu_copy_out(to, x, bytes, stream);
 *     int error = gpu_wait(stream);            only now is any of it done; gpu_error(error) says
 * why
 *
 * The host cannot touch the device's memory, and nobody what lies behind the end of an allocation
 * (rounded up to 16 bytes) or of a block's shared memory: the test dies of SIGSEGV there.
 * The blocks of a grid run one after the other, ascending, so a block must not wait for another one
 * of its grid that is not of its cluster (warpgroup_model.h); it may wait for a kernel of another
 * thread of the host, which is another GPU (load_acquire() and gpu_pause() in turns). The threads
 * of a block run one at a time, each until it meets others; which is first changes from block to
 * block. So numbers that are read without
 * __syncthreads() differ sooner or later; compare bits, and run twice. Shared memory is full of
 * 0xff when a block begins, and so is where copy_async() goes, until copy_wait(). Found and said by
 * gpu_wait(): threads that wait for others who have left or wait elsewhere, a matrix or a copy that
 * is not aligned to 16 bytes or lies outside shared memory, a launch that the smallest of the GPUs
 * could not do. Tests named race_gpu_NAME, of the same sources, look for races too, of blocks,
 * warps and lanes (races.cc). TANDEM_MODEL_ORDER=N chooses another order of threads and blocks. Not
 * found: bank conflicts, time, sums of other GPUs' tensor cores.
 *
 * mma_bf16: products and sums in f32, c + a[0] b[0] + a[1] b[1] ..., ascending, each rounded to
 * nearest. Tensor cores add in an order of their own, so bits differ from theirs.
 */
#ifndef CUDA_MODEL_H
#define CUDA_MODEL_H

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <math.h>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__                                                                                 \
    static thread_local /* not guarded, and zero or what another block left there                  \
                         */
#define __forceinline__ inline
#define __grid_constant__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define GPU_INLINE static inline

struct int2 {
    int x, y;
};
struct int4 {
    int x, y, z, w;
};
struct uint2 {
    unsigned x, y;
};
struct uint3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

/* Of the thread of a block that runs. */
extern __thread uint3 threadIdx, blockIdx, blockDim, gridDim;
enum { warpSize = 32 };

/* ------------------------------------------------------------------------------- launching */

#define LAUNCH(...) gpu_launch(#__VA_ARGS__, __VA_ARGS__)

/* cluster: blocks of one; 0: a GPU need not know clusters. chained: every block must say
 * after_previous(). */
int model_enqueue(const char *what, dim3 grid, dim3 block, size_t shared, void *stream,
                  std::function<void()> thread, unsigned cluster = 0, bool chained = false);

template <class... Takes, class... Gets>
static inline int gpu_launch(const char *what, void (*kernel)(Takes...), dim3 grid, dim3 block,
                             size_t shared, void *stream, Gets... arguments)
{
    return model_enqueue(what, grid, block, shared, stream, [=] { kernel(arguments...); });
}

#define LAUNCH_CHAINED(...) gpu_launch_chained(#__VA_ARGS__, __VA_ARGS__)

template <class... Takes, class... Gets>
static inline int gpu_launch_chained(const char *what, void (*kernel)(Takes...), dim3 grid,
                                     dim3 block, size_t shared, void *stream, Gets... arguments)
{
    return model_enqueue(
        what, grid, block, shared, stream, [=] { kernel(arguments...); }, 0, true);
}

void after_previous(void); /* kernels follow each other anyway */

void *model_shared(void);
template <class T> static inline T *gpu_shared(void) { return static_cast<T *>(model_shared()); }

/* ------------------------------------------------------------------------------- meeting */

/* What all lanes of a warp do together: the last to arrive does it for all, with what each of them
 * has brought, and where it finds what it gets. */
struct model_meeting {
    const char *name;
    void (*all)(void *lane[32]);
    bool orders; /* what each lane did before it, others see after it */
};
void model_meet(const model_meeting *, void *mine);
void __syncthreads(void);
[[noreturn]] void model_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline void model_full(unsigned mask)
{
    if (mask != 0xffffffffu)
        model_fail("the model knows whole warps only, not mask %#x", mask);
}

static inline void model_nothing(void **) {}

static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    static const model_meeting here = {"__syncwarp", model_nothing, true};
    model_full(mask);
    model_meet(&here, NULL);
}

template <class T> struct model_shuffled {
    T value;
    int from;
};

template <class T> static inline void model_shuffle_all(void **lane)
{
    T value[32];
    for (int l = 0; l < 32; l++)
        value[l] = static_cast<model_shuffled<T> *>(lane[l])->value;
    for (int l = 0; l < 32; l++) {
        model_shuffled<T> *one = static_cast<model_shuffled<T> *>(lane[l]);
        one->value = value[one->from];
    }
}

template <class T> static inline T model_shuffle(unsigned mask, T value, int from)
{
    static const model_meeting here = {"a shuffle", model_shuffle_all<T>, false};
    model_shuffled<T> mine = {value, from};
    model_full(mask);
    model_meet(&here, &mine);
    return mine.value;
}

static inline int model_lane(void)
{
    return (int)((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32);
}

/* Lanes outside the segment of `width` read themselves. */
static inline int model_source(int from, int width)
{
    int lane = model_lane(), first = lane / width * width;
    return first <= from && from < first + width ? from : lane;
}

template <class T> static inline T __shfl_sync(unsigned mask, T value, int from, int width = 32)
{
    return model_shuffle(mask, value, model_lane() / width * width + from % width);
}

template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32)
{
    return model_shuffle(mask, value, model_source(model_lane() ^ by, width));
}

template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32)
{
    return model_shuffle(mask, value, model_source(model_lane() + (int)by, width));
}

template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32)
{
    return model_shuffle(mask, value, model_source(model_lane() - (int)by, width));
}

static inline void model_ballot_all(void **lane)
{
    unsigned bits = 0;
    for (int l = 0; l < 32; l++)
        bits |= (unsigned)(*static_cast<unsigned *>(lane[l]) != 0) << l;
    for (int l = 0; l < 32; l++)
        *static_cast<unsigned *>(lane[l]) = bits;
}

static inline unsigned __ballot_sync(unsigned mask, int yes)
{
    static const model_meeting here = {"__ballot_sync", model_ballot_all, false};
    unsigned mine = yes != 0;
    model_full(mask);
    model_meet(&here, &mine);
    return mine;
}

static inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }
static inline int __all_sync(unsigned mask, int yes) { return __ballot_sync(mask, !yes) == 0; }

/* ------------------------------------------------------------------------------- of gpu.h */

void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2]);
void mma_u8s8(int c[4], const uint32_t a[4], const uint32_t b[2]);
void load_matrix_x4(uint32_t r[4], const void *row);
void load_matrix_x2(uint32_t r[2], const void *row);
void load_matrix_x4_trans(uint32_t r[4], const void *row);
void load_matrix_x2_trans(uint32_t r[2], const void *row);
void copy_async(void *shared, const void *global, bool there);
void copy_commit(void);
void model_copy_wait(int newest);
template <int N> static inline void copy_wait(void) { model_copy_wait(N); }
uint32_t to_bf16x2(float lo, float hi);
uint32_t times_bf16x2(uint32_t a, uint32_t b);
float from_f16(uint16_t h);
float fast_exp2(float x);
void gpu_pause(void);

static inline uint32_t load_acquire(const uint32_t *at)
{
    return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

static inline void store_release(uint32_t *at, uint32_t value)
{
    __atomic_store_n(at, value, __ATOMIC_RELEASE);
}

/* ------------------------------------------------------------------------------- of CUDA */

template <class To, class From> static inline To model_bits(From from)
{
    To to;
    static_assert(sizeof(to) == sizeof(from), "as many bits");
    memcpy(&to, &from, sizeof(to));
    return to;
}

static inline float __uint_as_float(unsigned u) { return model_bits<float>(u); }
static inline float __int_as_float(int i) { return model_bits<float>(i); }
static inline unsigned __float_as_uint(float f) { return model_bits<unsigned>(f); }
static inline int __float_as_int(float f) { return model_bits<int>(f); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1 / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline int __float2int_rn(float f) { return (int)rintf(f); }
static inline float __int2float_rn(int i) { return (float)i; }
static inline float __ll2float_rn(long long i) { return (float)i; }
static inline long long __float2ll_rn(float f) { return (long long)rintf(f); }
static inline long long __double2ll_rn(double d) { return (long long)rint(d); }
static inline int __popc(unsigned u) { return __builtin_popcount(u); }
static inline int __clz(int i) { return i ? __builtin_clz((unsigned)i) : 32; }
static inline int __ffs(int i) { return __builtin_ffs(i); }
static inline void __threadfence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_system(void) { __threadfence(); }
static inline void __threadfence_block(void) {}
template <class T> static inline T __ldg(const T *at) { return *at; }
template <class T> static inline T min(T a, T b) { return b < a ? b : a; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }

static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 32; i += 8)
        c += (int)(int8_t)(a >> i) * (int)(int8_t)(b >> i);
    return c;
}

/* The lower two of b's bytes; __dp2a_hi the upper two. */
static inline int __dp2a_lo(int a, int b, int c)
{
    return c + (int)(int16_t)a * (int)(int8_t)b + (int)(int16_t)(a >> 16) * (int)(int8_t)(b >> 8);
}

static inline int __dp2a_hi(int a, int b, int c) { return __dp2a_lo(a, b >> 16, c); }

/* A byte of the result is the one of yx that a digit of which names. */
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned which)
{
    uint64_t both = (uint64_t)y << 32 | x;
    unsigned to = 0;
    for (int i = 0; i < 4; i++)
        to |= (unsigned)(both >> (which >> 4 * i & 7) * 8 & 255) << 8 * i;
    return to;
}

/* Atomics give what was there before. */
template <class T> static inline T atomicAdd(T *at, T by)
{
    return __atomic_fetch_add(at, by, __ATOMIC_RELAXED);
}

template <class T> static inline T atomicOr(T *at, T by)
{
    return __atomic_fetch_or(at, by, __ATOMIC_RELAXED);
}

template <class T> static inline T atomicExch(T *at, T to)
{
    return __atomic_exchange_n(at, to, __ATOMIC_RELAXED);
}

template <class T> static inline T atomicCAS(T *at, T from, T to)
{
    __atomic_compare_exchange_n(at, &from, to, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return from;
}

template <class T> static inline T atomicMax(T *at, T to)
{
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (old < to &&
           !__atomic_compare_exchange_n(at, &old, to, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return old;
}

#endif
