/* cpu.c - which instruction set, and the scratch. The operations are in ref.c and kern.inc. */
#include "dev/cpu/cpu.h"

#include <limits.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const struct {
    const char *name;
    const struct dev_ops *ops;
} table[ISA_COUNT] = {
    [ISA_REF] = {"ref", &cpu_ref},
#if defined(__x86_64__)
    [ISA_AVX2] = {"avx2", &cpu_avx2},
    [ISA_AVX512] = {"avx512", &cpu_avx512},
    [ISA_AVX512_BF16] = {"avx512-bf16", &cpu_avx512bf16},
    [ISA_AMX] = {"amx", &cpu_avx512bf16},
#else
    [ISA_AVX2] = {"avx2", NULL},
    [ISA_AVX512] = {"avx512", NULL},
    [ISA_AVX512_BF16] = {"avx512-bf16", NULL},
    [ISA_AMX] = {"amx", NULL},
#endif
};

#if defined(__x86_64__)

static bool has_avx2(void)
{
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) && c & bit_FMA &&
           c & bit_F16C;
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool machine_has(enum isa isa)
{
    switch (isa) {
    case ISA_REF: return true;
    case ISA_AVX2: return has_avx2();
    case ISA_AVX512: return has_avx512();
    case ISA_AVX512_BF16: /* every such machine but Cooper Lake has all of them */
        return has_avx512() && __builtin_cpu_supports("avx512bf16") &&
               __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
    case ISA_AMX: return machine_has(ISA_AVX512_BF16) && math_here(MATH_AMX_INT8);
    case ISA_COUNT: break;
    }
    return false;
}

#else

static bool machine_has(enum isa isa) { return isa == ISA_REF; }

#endif

bool isa_here(enum isa isa) { return machine_has(isa); }

const char *isa_name(enum isa isa)
{
    must(isa >= 0 && isa < ISA_COUNT);
    return table[isa].name;
}

enum isa isa_best(void)
{
    const char *name = getenv("TANDEM_ISA");
    enum isa best = ISA_REF;
    for (int i = 0; i < ISA_COUNT; i++)
        if (isa_here((enum isa)i))
            best = (enum isa)i;
    for (int i = 0; i < (int)best; i++)
        if (name && !strcmp(name, table[i].name))
            return (enum isa)i;
    return best;
}

/* Are products with such weights sums of pairs of bf16, where there is an instruction for them? */
static bool by_pairs(enum num weight) { return weight == NUM_BF16 || weight == NUM_FP8; }

const char *isa_numerics(enum isa isa, enum num weight)
{
    return isa >= ISA_AVX512_BF16 && by_pairs(weight) ? "bf16-dot" : "f32-fma";
}

enum math isa_math(enum isa isa, enum num weight)
{
    if (isa >= ISA_AVX512_BF16 && num_is_whole(weight))
        return isa == ISA_AMX ? MATH_AMX_INT8 : MATH_AVX512_VNNI;
    switch (isa) {
    case ISA_AVX2: return MATH_AVX2;
    case ISA_AVX512: return MATH_AVX512;
    case ISA_AMX:
    case ISA_AVX512_BF16: return by_pairs(weight) ? MATH_AVX512_BF16 : MATH_AVX512;
    case ISA_REF:
    case ISA_COUNT: break;
    }
    return MATH_NONE;
}

/* Fewer rows would leave most of a tile empty, while memory is what they wait for. */
static int tiles_from(enum isa isa) { return isa == ISA_AMX ? 16 : INT_MAX; }

/* x holds CPU_TOK rows, each share padded to eight columns. */
static size_t x_floats(int max_tok, int max_dim)
{
    return (size_t)min_int(max_tok, CPU_TOK) * round_up((size_t)max_dim + 8 * SHARES_MAX, 16);
}

void dev_cpu_init(struct dev *d, enum isa isa, int max_tok, int max_dim, int threads,
                  struct arena *a)
{
    struct cpu *c = arena_get(a, sizeof(*c));
    struct cpu made = {.max_dim = max_dim,
                       .threads = threads,
                       .tiles_from = tiles_from(isa),
                       .x_floats = x_floats(max_tok, max_dim)};

    must(isa_here(isa) && max_tok > 0 && max_dim > 0 && threads > 0 && threads <= CREW_MAX);
    made.x = arena_get(a, made.x_floats * sizeof(float));
    for (int t = 0; t < threads; t++) {
        size_t rows = 3 * CPU_TILE * round_up((size_t)max_dim, 16);
        float *sum = arena_get(a, CPU_LEVELS * CPU_SUM * sizeof(float));
        for (int i = 0; i < CPU_LEVELS && sum; i++)
            made.lane[t].sum[i] = sum + (size_t)i * CPU_SUM;
        made.lane[t].rows = arena_get(a, rows * sizeof(float));
    }
    if (c)
        *c = made;
    *d = (struct dev){.ops = table[isa].ops, .ctx = c};
}

void dev_cpu_start(struct dev *d, const int *core)
{
    struct cpu *c = cpu_of(d);
    c->crew = crew_start(c->threads, core);
}

void dev_cpu_stop(struct dev *d)
{
    struct cpu *c = cpu_of(d);
    crew_stop(c->crew);
    c->crew = NULL;
}

void cpu_together(struct dev *d, dev_together_fn *fn, void *arg)
{
    crew_run(cpu_of(d)->crew, fn, arg);
}

uint64_t cpu_waited_ns(struct dev *d) { return crew_waited_ns(cpu_of(d)->crew); }
