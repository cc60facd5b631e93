/* gpu.c - what kernels of a GPU take, beside what it can do at most.
 *
 *     tandem-bench-gpu [--tiny]
 *
 * Prints lines of JSON, each as soon as it is known: {"gpu": ..., "sm": ..., "arch": ...,
 * "warpgroups": what came of trying them} and then
 * {"name": ..., "seconds": ..., "bytes": ..., "flops": ...} of every kernel: seconds of one call on
 * the GPU's own clock, the shortest of five turns of many calls that were recorded and are
 * replayed; bytes that must be read or written at least, and floating-point operations, 0 where
 * they say nothing. Of memory that is taken, bytes alone. Shapes are those of llama-3-8b; --tiny:
 * small ones, to see that the program works (on the model of a GPU its times mean nothing).
 *
 * It starts itself again for what takes several processes (bench/gpu_pair.c).
 */
#include "dev/cuda/kernels.h"
#include "dev/kv.h"
#include "dev/weight.h"
#include "gpu_blas.h"
#include "gpu_pair.h"
#include "gpu_time.h"
#include "gpu_tried.h"

#include <unistd.h>

enum { CALLS = 20, COPIES = 16, SHARES = 8, BLAS_BYTES = 32 << 20 };

struct bench {
    void *stream, *x, *y, *planes;
    struct gpu_room room;
    struct gpu_about gpu;
    bool tiny;
};

/* Memory of the GPU full of numbers that are ordinary ones in f32, bf16 and f16 alike. */
static void *filled(struct bench *b, size_t bytes)
{
    enum { PIECE = 1 << 20 };
    static uint16_t some[PIECE / 2];
    uint32_t draw = 1;
    void *at;
    for (size_t i = 0; i < COUNT(some); i++) {
        draw = draw * 1664525u + 1013904223u;
        some[i] = (uint16_t)(0x3c00u | (draw >> 16 & 0x81ffu));
    }
    ok(gpu_alloc(&at, bytes), "memory");
    for (size_t done = 0; done < bytes; done += PIECE)
        ok(gpu_copy_in((char *)at + done, some, min_size(PIECE, bytes - done), b->stream), "fill");
    ok(gpu_wait(b->stream), "fill");
    return at;
}

/* ------------------------------------------------------------------------------- measuring */

typedef int call_fn(struct bench *b, void *arg, int i); /* enqueues call number i */

static double seconds_of(struct bench *b, call_fn *call, void *arg)
{
    const int n = b->tiny ? 2 : CALLS;
    struct timing t = timing_new(b->stream);
    void *recorded;
    ok(call(b, arg, 0), "a first call");
    ok(gpu_wait(b->stream), "a first call");
    ok(gpu_record_begin(b->stream), "record");
    for (int i = 0; i < n; i++)
        ok(call(b, arg, i), "record");
    ok(gpu_record_end(b->stream, &recorded), "record");
    timing_turn(&t, recorded);
    t.least_s = 1e9; /* the first warmed up */
    for (int i = 0; i < (b->tiny ? 1 : TURNS); i++)
        timing_turn(&t, recorded);
    gpu_record_free(recorded);
    return t.least_s / n;
}

static void tell(struct bench *b, const char *name, double seconds, double bytes, double flops)
{
    (void)b;
    printf("{\"name\": \"%s\", \"seconds\": %.9g, \"bytes\": %.0f, \"flops\": %.0f}\n", name,
           seconds, bytes, flops);
    fflush(stdout);
    if (seconds > 0)
        fprintf(stderr, "%-40s %9.2f us %8.1f GB/s %8.1f TFLOP/s\n", name, 1e6 * seconds,
                1e-9 * bytes / seconds, 1e-12 * flops / seconds);
    else
        fprintf(stderr, "%-40s %9.1f MiB\n", name, bytes * 0x1p-20);
}

/* ------------------------------------------------------------------------------- limits */

struct copy {
    char *to, *from;
    size_t bytes;
};

static int call_copy(struct bench *b, void *arg, int i)
{
    const struct copy *c = arg;
    (void)i;
    return gpu_copy(c->to, c->from, c->bytes, b->stream);
}

static int call_copy_in(struct bench *b, void *arg, int i)
{
    const struct copy *c = arg;
    (void)i;
    return gpu_copy_in(c->to, c->from, c->bytes, b->stream);
}

static void measure_copy(struct bench *b)
{
    struct copy c = {.bytes = b->tiny ? 1 << 16 : 1 << 30};
    c.from = filled(b, c.bytes), c.to = filled(b, c.bytes);
    double s = seconds_of(b, call_copy, &c);
    tell(b, "copy", s, 2 * (double)c.bytes, 0);
    ok(gpu_free(c.from), "free");
    ok(gpu_free(c.to), "free");
}

struct yardstick {
    struct gpu_blas *blas;
    void *x, *w, *y;
};

static int call_yardstick(struct bench *b, void *arg, int i)
{
    const struct yardstick *k = arg;
    (void)i;
    return gpu_blas_run(k->blas, b->stream, k->y, k->x, k->w);
}

static void measure_yardstick(struct bench *b, int n, int m, int k)
{
    const char *why;
    char name[64];
    struct yardstick y = {.blas = gpu_blas_open(n, m, k, b->room.at, BLAS_BYTES, &why)};
    if (!y.blas) {
        fprintf(stderr, "no yardstick for products: %s\n", why);
        return;
    }
    y.x = filled(b, 2 * (size_t)n * (size_t)k), y.w = filled(b, 2 * (size_t)m * (size_t)k);
    y.y = filled(b, 2 * (size_t)n * (size_t)m);
    snprintf(name, sizeof(name), "cublaslt bf16 %dx%dx%d", n, m, k);
    tell(b, name, seconds_of(b, call_yardstick, &y), 0, 2.0 * n * m * k);
    ok(gpu_free(y.x), "free");
    ok(gpu_free(y.w), "free");
    ok(gpu_free(y.y), "free");
}

/* ------------------------------------------------------------------------------- products */

/* Weights of several layers in turns, so that none is in a cache when its turn comes. */
struct product {
    struct gpu_weight w[2][COPIES];
    int n_weight, n_copy, rows;
    bool partial;
};

static struct gpu_weight weight(struct bench *b, enum num type, int rows, int cols, int parts)
{
    struct gpu_weight w = {.type = type, .rows = rows, .cols = cols, .n_part = parts};
    const size_t each = part_bytes(type, rows, cols / parts);
    char *at = filled(b, each * (size_t)parts);
    for (int i = 0; i < parts; i++)
        w.part[i] = (struct gpu_part){at + each * (size_t)i, rows, cols / parts};
    return w;
}

static int call_product(struct bench *b, void *arg, int i)
{
    const struct product *p = arg;
    const struct gpu_weight *w = &p->w[0][i % p->n_copy];
    float *plane[GPU_PLANES] = {b->y};
    if (p->partial)
        return gpu_partial(b->stream, plane, 1, b->x, p->rows, w, &b->room);
    struct gpu_term term[2] = {{b->y, *w, NULL}, {b->planes, p->w[1][i % p->n_copy], NULL}};
    return gpu_products(b->stream, b->x, p->rows, w->cols, term, p->n_weight, &b->room);
}

static void measure_product(struct bench *b, const char *what, enum num type, int outputs,
                            int inputs, int n_weight)
{
    const int all_rows[] = {1, 8, 16, 32, 64, 512, 2048}, tiny_rows[] = {1, 3, 20};
    const int tried = type == NUM_BF16 ? b->room.warpgroups & WARPGROUP_PRODUCTS : 0;
    const size_t bytes = part_bytes(type, outputs, inputs) * (size_t)n_weight;
    struct product p = {.n_weight = n_weight, .partial = n_weight == 1};
    p.n_copy = b->tiny ? 2 : (int)min_size(COPIES, (512u << 20) / bytes + 1);
    for (int w = 0; w < n_weight; w++)
        for (int c = 0; c < p.n_copy; c++)
            p.w[w][c] = weight(b, type, outputs, inputs, p.partial ? SHARES : 1);
    for (size_t i = 0; i < (b->tiny ? COUNT(tiny_rows) : COUNT(all_rows)); i++) {
        char name[64];
        p.rows = b->tiny ? tiny_rows[i] : all_rows[i];
        snprintf(name, sizeof(name), "%s %s rows %d", what, num_name(type), p.rows);
        const double flops = 2.0 * p.rows * outputs * inputs * n_weight;
        tell(b, name, seconds_of(b, call_product, &p), (double)bytes, flops);
        if (!tried || p.rows <= 16)
            continue;
        b->room.warpgroups &= ~tried;
        snprintf(name, sizeof(name), "without warpgroups: %s rows %d", what, p.rows);
        tell(b, name, seconds_of(b, call_product, &p), (double)bytes, flops);
        b->room.warpgroups |= tried;
    }
    for (int w = 0; w < n_weight; w++)
        for (int c = 0; c < p.n_copy; c++)
            ok(gpu_free((void *)(uintptr_t)p.w[w][c].part[0].at), "free");
}

/* ------------------------------------------------------------------------------- attention */

struct attention {
    struct gpu_kv kv;
    struct gpu_heads heads;
    struct gpu_batch batch;
    int dim;
};

static int call_attend(struct bench *b, void *arg, int i)
{
    const struct attention *a = arg;
    (void)i;
    return gpu_attend(b->stream, b->y, b->x, a->dim, &a->kv, &a->heads, &a->batch, &b->room);
}

static int *put_ints(struct bench *b, const int *from, int n)
{
    void *at;
    ok(gpu_alloc(&at, (size_t)n * sizeof(int)), "memory");
    ok(gpu_copy_in(at, from, (size_t)n * sizeof(int), b->stream), "batch");
    ok(gpu_wait(b->stream), "batch");
    return at;
}

/* n_seq sequences of `keys` keys each, of which the last `rows` are queries. */
static void measure_attend(struct bench *b, enum num type, int n_seq, int rows, int keys)
{
    enum { HEAD = 128, KV_HEADS = 8, GROUP = 4 };
    const int stride = (keys + KV_PAGE - 1) / KV_PAGE, n = n_seq * rows;
    struct attention a = {.kv = {type, KV_HEADS, HEAD, 0, kv_head_bytes(type, HEAD), NULL},
                          .heads = {HEAD, GROUP, 0, 0, 0, 0.088f},
                          .dim = KV_HEADS * GROUP * HEAD};
    struct pool pool = {0};
    int *pos = pool_get(&pool, (size_t)n * sizeof(int)),
        *seq = pool_get(&pool, (size_t)n * sizeof(int));
    int *page = pool_get(&pool, (size_t)(n_seq * stride) * sizeof(int));
    for (int i = 0; i < n; i++)
        pos[i] = keys - rows + i % rows, seq[i] = i / rows;
    for (int i = 0; i < n_seq * stride; i++)
        page[i] = i;
    a.kv.page_bytes = KV_HEADS * a.kv.head_bytes;
    a.kv.at = filled(b, (size_t)(n_seq * stride) * a.kv.page_bytes);
    int *there[] = {put_ints(b, pos, n), put_ints(b, seq, n), put_ints(b, page, n_seq * stride)};
    a.batch = (struct gpu_batch){n, n_seq, stride, keys, there[0], NULL, there[1], there[2]};
    char name[80];
    double seen = 0; /* pairs of a query and a key */
    for (int i = 0; i < n; i++)
        seen += pos[i] + 1;
    snprintf(name, sizeof(name), "attend %s sequences %d rows %d keys %d", num_name(type), n_seq,
             rows, keys);
    tell(b, name, seconds_of(b, call_attend, &a),
         (double)n_seq * keys * KV_HEADS * (double)kv_row_bytes(type, HEAD),
         4.0 * HEAD * KV_HEADS * GROUP * seen);
    const int tried = rows > 1 ? b->room.warpgroups & WARPGROUP_ATTENTION : 0;
    if (tried) {
        b->room.warpgroups &= ~tried;
        snprintf(name, sizeof(name), "without warpgroups: attend rows %d keys %d", rows, keys);
        tell(b, name, seconds_of(b, call_attend, &a),
             (double)n_seq * keys * KV_HEADS * (double)kv_row_bytes(type, HEAD),
             4.0 * HEAD * KV_HEADS * GROUP * seen);
        b->room.warpgroups |= tried;
    }
    for (size_t i = 0; i < COUNT(there); i++)
        ok(gpu_free(there[i]), "free");
    ok(gpu_free(a.kv.at), "free");
    pool_free(&pool);
}

/* ------------------------------------------------------------------------------- small ones */

static int call_add(struct bench *b, void *arg, int i)
{
    (void)arg;
    (void)i;
    return gpu_add(b->stream, b->y, b->x, NULL, 1, 64);
}

/* Two ranks on one GPU: threads with streams of their own stand in for processes, of which a GPU
 * runs one at a time. */
static void measure_allreduce(struct bench *b)
{
    double s = pair_threads(b->tiny);
    tell(b, "all-reduce 16 KiB, 2 streams", s, 0, 0);
    s = pair_processes(b->tiny);
    if (s > 0)
        tell(b, "all-reduce 16 KiB, 2 processes", s, 0, 0);
}

/* Memory that is kept, as weights and caches are: 0, or the error's number. */
static int map_kept(struct bench *b, void **at, size_t bytes)
{
    int fd, code = gpu_keep(0, bytes, &fd);
    if (code)
        return code;
    code = gpu_kept_map(at, fd, bytes);
    close(fd);
    return code ? code : gpu_clear(*at, bytes, b->stream);
}

/* The copy in such memory; 0 where there is none, and why not on standard error. */
static void measure_kept(struct bench *b)
{
    struct copy c = {.bytes = b->tiny ? 1 << 16 : 1 << 30};
    void *at[2] = {NULL};
    size_t unit;
    int code = gpu_keep_unit(0, &unit);
    for (int i = 0; unit && !code && i < 2; i++)
        code = map_kept(b, &at[i], c.bytes);
    if (code)
        fprintf(stderr, "tandem-bench-gpu: memory that is kept: %s\n", gpu_error(code));
    c.to = at[0], c.from = at[1];
    tell(b, "copy in kept memory", unit && !code ? seconds_of(b, call_copy, &c) : 0,
         2 * (double)c.bytes, 0);
    for (int i = 0; i < 2; i++)
        if (at[i])
            ok(gpu_kept_unmap(at[i], c.bytes), "memory that is kept");
}

static void measure_load(struct bench *b)
{
    struct copy c = {.bytes = b->tiny ? 1 << 16 : 64 << 20};
    void *pinned;
    c.to = filled(b, c.bytes);
    ok(gpu_pinned(&pinned, c.bytes), "pinned memory");
    c.from = memset(pinned, 1, c.bytes);
    tell(b, "copy from the host", seconds_of(b, call_copy_in, &c), (double)c.bytes, 0);
    ok(gpu_pinned_free(pinned), "free");
    ok(gpu_free(c.to), "free");
}

/* ------------------------------------------------------------------------------- all */

static void measure_all(struct bench *b)
{
    static const enum num formats[] = {NUM_BF16, NUM_FP8, NUM_INT8, NUM_INT4};
    const int hidden = b->tiny ? 256 : 4096, ff = b->tiny ? 512 : 14336;
    measure_copy(b);
    measure_load(b);
    tell(b, "kernel that does nearly nothing", seconds_of(b, call_add, NULL), 0, 0);
    if (!b->tiny) {
        measure_yardstick(b, 8192, 8192, 8192);
        measure_yardstick(b, 2048, 2 * ff, hidden);
    }
    for (size_t i = 0; i < COUNT(formats); i++) {
        measure_product(b, "gate+up", formats[i], ff, hidden, 2);
        measure_product(b, "down", formats[i], hidden, ff, 1);
    }
    for (int n_seq = 1; n_seq <= (b->tiny ? 1 : 64); n_seq *= 8)
        measure_attend(b, NUM_BF16, n_seq, 1, b->tiny ? 40 : 2048);
    measure_attend(b, NUM_INT8, b->tiny ? 1 : 64, 1, b->tiny ? 40 : 2048);
    measure_attend(b, NUM_BF16, 1, b->tiny ? 20 : 2048, b->tiny ? 40 : 2048);
    measure_kept(b);
    tell(b, "memory of a process", 0, idle_bytes(), 0);
    tell(b, "memory of a gpu-keeper", 0, keeper_bytes(), 0);
    measure_allreduce(b);
}

static void open_bench(struct bench *b, int warpgroups)
{
    ok(gpu_use(0), "GPU 0");
    ok(gpu_about(0, &b->gpu), "GPU 0");
    ok(gpu_stream(&b->stream), "stream");
    const int most_rows = b->tiny ? 32 : 2048, most_dim = b->tiny ? 4096 : 14336;
    const struct gpu_sizes sizes = {.max_tok = most_rows,
                                    .max_dim = most_dim,
                                    .heads = 32,
                                    .head_dim = 128,
                                    .ctx = 2048,
                                    .sm = b->gpu.sm};
    b->room = (struct gpu_room){
        .bytes = gpu_room_bytes(&sizes) + BLAS_BYTES, .sm = b->gpu.sm, .warpgroups = warpgroups};
    b->room.at = filled(b, b->room.bytes);
    const size_t rows_bytes = (size_t)most_rows * (size_t)most_dim * sizeof(float);
    b->x = filled(b, rows_bytes), b->y = filled(b, rows_bytes), b->planes = filled(b, rows_bytes);
}

int main(int argc, char **argv)
{
    const char *part = argc > 1 ? argv[1] : "";
    struct bench b = {.tiny = !strcmp(part, "--tiny")};
    const bool all = !*part || b.tiny;
    const char *products = all ? warpgroups_tried(false) : "";
    const char *attention = all ? warpgroups_tried(true) : "";
    const int warpgroups = (strcmp(products, "the same bits") ? 0 : WARPGROUP_PRODUCTS) |
                           (strcmp(attention, "the same bits") ? 0 : WARPGROUP_ATTENTION);
    int n = 0;
    setenv("CUDA_MODULE_LOADING", "EAGER", 0); /* no kernel is loaded while others wait for it */
    int code = gpu_count(&n);
    if (code || !n) {
        printf("skipped: no GPU (%s)\n", code ? gpu_error(code) : "the driver shows none");
        return 77;
    }
    if (!strcmp(part, "--idle"))
        return idle_main();
    if (!strcmp(part, "--keep"))
        return keeper_main();
    if (!strcmp(part, "--pair") && argc == 5)
        return pair_main(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
    open_bench(&b, warpgroups);
    printf("{\"gpu\": \"%s\", \"sm\": %d, \"arch\": %d, \"warpgroups\": "
           "\"products: %s, attention: %s\"}\n",
           b.gpu.name, b.gpu.sm, b.gpu.arch, products, attention);
    fflush(stdout);
    measure_all(&b);
    return 0;
}
