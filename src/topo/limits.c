/* limits.c - see limits.h. A thread per core, started for every measurement: what all together did
 * over the time from the first beginning to the last end. */
#include "topo/limits.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

struct core {
    struct limits *all;
    int number;
    pthread_t thread;
    char *memory;
    double done; /* bytes or operations */
    double begin, end;
};

struct limits {
    int n;
    size_t bytes; /* per core */
    enum math math;
    bool reads;
    pthread_barrier_t start;
    char *memory;
    struct core core[];
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ------------------------------------------------------------------------------- memory */

typedef uint64_t word2 __attribute__((vector_size(16)));

/* Read n bytes in one stream, fetched ahead: the fastest of the ways that were tried. */
static double read_all(const char *at, size_t n)
{
    enum { AHEAD = 8192 };
    word2 a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i < n; i += 4 * sizeof(a)) {
        const word2 *from = (const void *)(at + i);
        __builtin_prefetch(at + i + AHEAD);
        a += from[0], b += from[1], c += from[2], d += from[3];
    }
    a += b + c + d;
    __asm__ volatile("" : : "m"(a));
    return (double)n;
}

/* ------------------------------------------------------------------------------- arithmetic */

enum { CHAINS = 12, LOOPS = 400000 };

#if defined(__x86_64__)

__attribute__((target("avx2,fma"))) static double fma_avx2(void)
{
    __m256 acc[CHAINS], x = _mm256_set1_ps(0.999f);
    for (int i = 0; i < CHAINS; i++)
        acc[i] = x;
    for (int n = 0; n < LOOPS; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm256_fmadd_ps(acc[i], x, x);
        __asm__ volatile("" : "+x"(x));
    }
    __asm__ volatile("" : : "m"(acc));
    return 2.0 * 8 * CHAINS * LOOPS;
}

__attribute__((target("avx512f"))) static double fma_avx512(void)
{
    __m512 acc[CHAINS], x = _mm512_set1_ps(0.999f);
    for (int i = 0; i < CHAINS; i++)
        acc[i] = x;
    for (int n = 0; n < LOOPS; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm512_fmadd_ps(acc[i], x, x);
        __asm__ volatile("" : "+v"(x));
    }
    __asm__ volatile("" : : "m"(acc));
    return 2.0 * 16 * CHAINS * LOOPS;
}

__attribute__((target("avx512f,avx512bf16"))) static double dot_bf16(void)
{
    __m512 acc[CHAINS];
    __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f7f3f7f);
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_setzero_ps();
    for (int n = 0; n < LOOPS; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm512_dpbf16_ps(acc[i], x, x);
        __asm__ volatile("" : "+v"(x));
    }
    __asm__ volatile("" : : "m"(acc));
    return 2.0 * 32 * CHAINS * LOOPS;
}

__attribute__((target("avx512f,avx512vnni"))) static double dot_int8(void)
{
    __m512i acc[CHAINS], x = _mm512_set1_epi8(1);
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_setzero_si512();
    for (int n = 0; n < LOOPS; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm512_dpbusd_epi32(acc[i], x, x);
        __asm__ volatile("" : "+v"(x));
    }
    __asm__ volatile("" : : "m"(acc));
    return 2.0 * 64 * CHAINS * LOOPS;
}

/* Four sums of 16 x 16 numbers over 64 bytes each. */
static double tiles_int8(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } c = {.palette = 1};
    for (int i = 0; i < 8; i++)
        c.bytes[i] = 64, c.rows[i] = 16;
    __asm__ volatile("ldtilecfg %0" : : "m"(c));
    for (int n = 0; n < LOOPS / 16; n++)
        __asm__ volatile("tdpbsud %tmm5, %tmm4, %tmm0\n\ttdpbsud %tmm5, %tmm4, %tmm1\n\t"
                         "tdpbsud %tmm5, %tmm4, %tmm2\n\ttdpbsud %tmm5, %tmm4, %tmm3");
    __asm__ volatile("tilerelease");
    return 2.0 * 16 * 16 * 64 * 4 * (LOOPS / 16);
}

/* The state of tiles is large, so Linux (5.16 on) lets only processes have it that ask. */
static bool tiles_granted(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    enum { AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 }; /* leaf 7, edx */
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d & AMX_TILE && d & AMX_INT8 &&
           !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
}

bool math_here(enum math m)
{
    switch (m) {
    case MATH_AVX2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case MATH_AVX512: return __builtin_cpu_supports("avx512f");
    case MATH_AVX512_BF16: return __builtin_cpu_supports("avx512bf16");
    case MATH_AVX512_VNNI: return __builtin_cpu_supports("avx512vnni");
    case MATH_AMX_INT8: return tiles_granted();
    case MATH_NONE:
    case MATH_COUNT: break;
    }
    return m == MATH_NONE;
}

static double compute(enum math m)
{
    switch (m) {
    case MATH_AVX2: return fma_avx2();
    case MATH_AVX512: return fma_avx512();
    case MATH_AVX512_BF16: return dot_bf16();
    case MATH_AVX512_VNNI: return dot_int8();
    case MATH_AMX_INT8: return tiles_int8();
    case MATH_NONE:
    case MATH_COUNT: break;
    }
    return 0;
}

#else

bool math_here(enum math m) { return m == MATH_NONE; }
static double compute(enum math m) { return (void)m, 0; }

#endif

const char *math_name(enum math m)
{
    static const char *const name[MATH_COUNT] = {"none",        "avx2 f32",    "avx512 f32",
                                                 "avx512 bf16", "avx512 int8", "amx int8"};
    return name[m];
}

/* ------------------------------------------------------------------------------- threads */

static void *work(void *arg)
{
    struct core *c = arg;
    struct limits *l = c->all;
    cpu_set_t one;
    CPU_ZERO(&one);
    if (c->number >= 0) {
        CPU_SET((size_t)c->number, &one);
        pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
    }
    pthread_barrier_wait(&l->start);
    c->begin = now();
    c->done = l->reads ? read_all(c->memory, l->bytes) : compute(l->math);
    c->end = now();
    return NULL;
}

static double measure(struct limits *l)
{
    double done = 0, begin = 0, end = 0;
    for (int i = 0; i < l->n; i++)
        must(!pthread_create(&l->core[i].thread, NULL, work, &l->core[i]));
    for (int i = 0; i < l->n; i++) {
        const struct core *c = &l->core[i];
        pthread_join(c->thread, NULL);
        begin = !i || c->begin < begin ? c->begin : begin;
        end = c->end > end ? c->end : end;
        done += c->done;
    }
    return end > begin ? done / (end - begin) : 0;
}

double limits_read(struct limits *l)
{
    l->reads = true;
    return measure(l);
}

double limits_math(struct limits *l, enum math m)
{
    must(math_here(m));
    l->reads = false, l->math = m;
    return m == MATH_NONE ? 0 : measure(l);
}

struct limits *limits_open(const int *core, int n_core, size_t bytes_per_core, struct err *e)
{
    struct limits *l = calloc(1, sizeof(*l) + (size_t)n_core * sizeof(l->core[0]));
    must(l && n_core > 0);
    l->n = n_core;
    l->bytes = round_up(bytes_per_core, 4096);
    size_t all = l->bytes * (size_t)n_core;
    l->memory = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (l->memory == MAP_FAILED) {
        free(l);
        err_set(e, -ENOMEM, "cannot map %zu MiB to measure memory with", all >> 20);
        return NULL;
    }
    madvise(l->memory, all, MADV_HUGEPAGE);
    memset(l->memory, 1, all);
    pthread_barrier_init(&l->start, NULL, (unsigned)n_core);
    for (int i = 0; i < n_core; i++)
        l->core[i] =
            (struct core){.all = l, .number = core[i], .memory = l->memory + (size_t)i * l->bytes};
    return l;
}

void limits_close(struct limits *l)
{
    if (!l)
        return;
    munmap(l->memory, l->bytes * (size_t)l->n);
    pthread_barrier_destroy(&l->start);
    free(l);
}
