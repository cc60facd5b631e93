/* kernels.c - how near the kernels of the CPU device are to what one core can do.
 *
 * Prints every operation of every instruction set as a share of a limit that is measured in the
 * same run, in turns with it: the rate at which this core reads memory, or its peak of fused
 * multiply-adds. The best of a few runs counts on both sides. Usage: tandem-bench-kernels [ISA].
 * Not a test: the figures belong to one machine and moment.
 */
#include "dev/dev.h"
#include "topo/limits.h"

#include <time.h>

enum { ROWS = 8192, COLS = 2048, RUNS = 7, COPIES_BYTES = 192 << 20 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *get(size_t bytes)
{
    void *at = aligned_alloc(64, round_up(bytes, 64));
    must(at);
    memset(at, 0, bytes);
    return at;
}

static struct mat get_mat(int n, int dim)
{
    struct mat m = {n, dim, NUM_F32, NULL};
    m.at = get(mat_bytes(&m));
    for (int i = 0; i < n * dim; i++)
        ((float *)m.at)[i] = (float)(i % 2001 * 7919 % 2001 - 1000) * 1e-3f;
    return m;
}

/* ------------------------------------------------------------------------------- one line */

struct bench {
    struct dev dev;
    enum isa isa;
    struct limits *limits;
    char *memory; /* COPIES_BYTES, larger than the last cache */
};

struct line {
    const char *name;
    enum num type;
    double flops, bytes; /* of one call */
    void (*call)(struct bench *b, void *arg, int run);
    void *arg;
};

static double best(double a, double b) { return a > b ? a : b; }

static void print_line(struct bench *b, const struct line *l)
{
    double rate = 0, read = 0, fma = 0, t;
    for (int run = 0; run < RUNS; run++) {
        read = best(read, limits_read(b->limits));
        fma = best(fma, limits_math(b->limits, isa_math(b->isa, l->type)));
        t = now();
        l->call(b, l->arg, run);
        rate = best(rate, 1 / (now() - t));
    }
    printf("%-12s %-9s %-24s %7.1f GB/s %4.0f %%  %7.1f GFLOP/s", isa_name(b->isa),
           num_name(l->type), l->name, rate * l->bytes * 1e-9, 100 * rate * l->bytes / read,
           rate * l->flops * 1e-9);
    if (fma > 0)
        printf(" %4.0f %%", 100 * rate * l->flops / fma);
    printf("\n");
    fflush(stdout);
}

/* ------------------------------------------------------------------------------- products */

struct product {
    struct mat x, y, none;
    struct planes planes;
    struct weight w;
    struct part part[8];
    bool cut;
};

static size_t product_bytes(const struct weight *w)
{
    size_t bytes = 0;
    for (int i = 0; i < w->n_part; i++)
        bytes += part_bytes(w->type, w->part[i].rows, w->part[i].cols);
    return bytes;
}

/* Every run takes the next copy, so that the weights come from memory. */
static void call_product(struct bench *b, void *arg, int run)
{
    struct product *p = arg;
    size_t bytes = product_bytes(&p->w);
    char *at = b->memory + (size_t)run % (COPIES_BYTES / bytes) * bytes;
    for (int i = 0; i < p->w.n_part; i++) {
        p->part[i].at = at;
        at += part_bytes(p->w.type, p->part[i].rows, p->part[i].cols);
    }
    if (p->cut)
        dev_partial(&b->dev, &p->planes, &p->x, &p->w);
    else
        dev_matmul(&b->dev, &p->y, &p->x, &p->w, &p->none);
}

static void bench_product(struct bench *b, enum num type, int n, bool cut)
{
    char name[32];
    struct product p = {.x = get_mat(n, COLS), .y = get_mat(n, ROWS), .cut = cut};
    p.planes = (struct planes){.n = 1, .at[0] = p.y};
    p.w = (struct weight){type, ROWS, COLS, 0, cut ? 8 : 1, p.part};
    for (int i = 0; i < p.w.n_part; i++)
        p.part[i] = (struct part){ROWS, COLS / p.w.n_part, NULL};
    snprintf(name, sizeof(name), "%s, %d rows", cut ? "partial" : "matmul", n);
    print_line(b, &(struct line){name, type, 2.0 * n * ROWS * COLS, (double)product_bytes(&p.w),
                                 call_product, &p});
    free(p.x.at), free(p.y.at);
}

/* ------------------------------------------------------------------------------- attention */

enum { HEADS = 32, GROUP = 4, HEAD_DIM = 64, CONTEXT = 2048 };

struct attention {
    struct mat q, y;
    struct kv cache;
    struct heads heads;
    struct batch batch;
    int pos[512], seq[512], page[CONTEXT / KV_PAGE];
};

static void call_attention(struct bench *b, void *arg, int run)
{
    struct attention *a = arg;
    (void)run;
    dev_attend(&b->dev, &a->y, &a->q, &a->cache, &a->heads, &a->batch);
}

/* The last n tokens of a sequence of CONTEXT. */
static void bench_attention(struct bench *b, enum num type, int n)
{
    static struct attention a;
    char name[32];
    double pairs = 0;
    a.q = get_mat(n, HEADS * HEAD_DIM), a.y = get_mat(n, HEADS * HEAD_DIM);
    a.heads = (struct heads){.head_dim = HEAD_DIM, .group = GROUP, .scale = 0.125f};
    a.cache = (struct kv){type, HEADS / GROUP, HEAD_DIM, 0, kv_head_bytes(type, HEAD_DIM), NULL};
    a.cache.page_bytes = a.cache.head_bytes * HEADS / GROUP;
    a.cache.at = get(a.cache.page_bytes * CONTEXT / KV_PAGE);
    for (int i = 0; i < CONTEXT / KV_PAGE; i++)
        a.page[i] = i * 37 % (CONTEXT / KV_PAGE);
    for (int i = 0; i < n; i++) {
        a.pos[i] = CONTEXT - n + i;
        pairs += a.pos[i] + 1;
    }
    a.batch = (struct batch){.n_tok = n, .n_seq = 1, .pos = a.pos, .seq = a.seq, .page = a.page};
    snprintf(name, sizeof(name), "attend, %d of %d", n, CONTEXT);
    print_line(b,
               &(struct line){name, type, 4.0 * pairs * HEADS * HEAD_DIM,
                              (double)a.cache.page_bytes * CONTEXT / KV_PAGE, call_attention, &a});
    free(a.q.at), free(a.y.at), free(a.cache.at);
}

/* ------------------------------------------------------------------------------- the rest */

struct elements {
    struct mat x, y, w, none;
};

static void call_norm(struct bench *b, void *arg, int run)
{
    struct elements *e = arg;
    (void)run;
    dev_norm(&b->dev, &e->y, &e->x, &e->w, 1e-5f);
}

static void call_add(struct bench *b, void *arg, int run)
{
    struct elements *e = arg;
    (void)run;
    dev_add(&b->dev, &e->y, &e->x, &e->none);
}

static void call_rope(struct bench *b, void *arg, int run)
{
    struct elements *e = arg;
    struct mat angle = {e->x.n, HEAD_DIM, NUM_F32, e->w.at};
    (void)run;
    dev_rope(&b->dev, &e->y, HEAD_DIM, &angle);
}

static void call_swiglu(struct bench *b, void *arg, int run)
{
    struct elements *e = arg;
    (void)run;
    dev_swiglu(&b->dev, &e->y, &e->x);
}

static void bench_elements(struct bench *b)
{
    struct elements e = {.x = get_mat(64, COLS), .y = get_mat(64, COLS), .w = get_mat(64, COLS)};
    double bytes = (double)mat_bytes(&e.x), n = 64.0 * COLS;
    e.w.n = 1;
    print_line(b, &(struct line){"norm", NUM_F32, 4 * n, 2 * bytes, call_norm, &e});
    print_line(b, &(struct line){"add", NUM_F32, n, 3 * bytes, call_add, &e});
    print_line(b, &(struct line){"rope", NUM_F32, 3 * n, 2 * bytes, call_rope, &e});
    print_line(b, &(struct line){"swiglu", NUM_F32, 20 * n, 3 * bytes, call_swiglu, &e});
    free(e.x.at), free(e.y.at), free(e.w.at);
}

static void call_pack(struct bench *b, void *arg, int run)
{
    const enum num *type = arg;
    struct part p = {ROWS, COLS, b->memory + COPIES_BYTES / 2};
    (void)run;
    part_pack(&p, type[0], &(struct source){.at = b->memory, .type = type[1], .stride = COLS});
}

static void bench_pack(struct bench *b)
{
    for (int i = 0; i < 9; i++) {
        char name[32];
        enum num type[2] = {(enum num)(i / 3), (enum num)(i % 3)};
        snprintf(name, sizeof(name), "pack from %s (read)", num_name(type[1]));
        print_line(b, &(struct line){name, type[0], 0,
                                     (double)ROWS * COLS * (double)num_bytes(type[1]), call_pack,
                                     type});
    }
}

static void bench_isa(struct bench *b)
{
    static const int n[] = {1, 2, 4, 8, 16, 64, 512};
    struct arena a = {0};
    dev_cpu_init(&b->dev, b->isa, 512, ROWS, 1, &a);
    a = (struct arena){.base = get(a.used), .size = a.used};
    char *scratch = a.base;
    dev_cpu_init(&b->dev, b->isa, 512, ROWS, 1, &a);
    for (int type = NUM_F32; type < NUM_COUNT; type++)
        for (size_t i = 0; type != NUM_I32 && i < COUNT(n); i++)
            bench_product(b, (enum num)type, n[i], false);
    bench_product(b, NUM_BF16, 1, true);
    bench_product(b, NUM_BF16, 512, true);
    for (int type = NUM_F32; type <= NUM_BF16; type += NUM_BF16) {
        bench_attention(b, (enum num)type, 1);
        bench_attention(b, (enum num)type, 512);
    }
    bench_elements(b);
    free(scratch);
}

int main(int argc, char **argv)
{
    struct err e;
    struct bench b = {.memory = get(COPIES_BYTES),
                      .limits = limits_open(&(int){-1}, 1, COPIES_BYTES, &e)};
    must(b.limits);
    printf("isa          type      operation                       of reading    of fused "
           "multiply-add\n");
    for (int i = ISA_AVX2; i < ISA_COUNT; i++) {
        b.isa = (enum isa)i;
        if (isa_here(b.isa) && (argc < 2 || !strcmp(argv[1], isa_name(b.isa))))
            bench_isa(&b);
    }
    b.isa = isa_best();
    if (argc < 2)
        bench_pack(&b);
    limits_close(b.limits);
    free(b.memory);
    return 0;
}
