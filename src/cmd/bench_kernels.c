/* bench_kernels.c - `tandem bench kernels`: single operations of the CPU device beside what the
 * same cores can do at most. In every turn the two limits are measured first, reading memory and
 * the instruction that the operation's arithmetic stands on, then the operation; a share of the
 * limit is that of one turn. Knows no model: shapes are the user's. */
#include "cmd/cmd.h"
#include "cmd/measure.h"
#include "cmd/open.h"
#include "run/room.h"

#include <sched.h>
#include <sys/mman.h>

enum { COPIES_BYTES = 256 << 20, SHARES = 8 };
enum { HEADS_ALL = 32, GROUP = 4, HEAD_DIM = 64 }; /* of attend, as in models of 1 to 8 billion */

struct bench {
    const struct options *o;
    struct dev dev;
    enum isa isa;
    struct limits *limits;
    char *memory; /* COPIES_BYTES, larger than the last cache */
    int rows[LIST_MAX], n_rows, context[LIST_MAX], n_context, out, in;
    struct pool pool; /* of one line */
    json_t *lines;    /* NULL: a table is printed */
};

/* One operation. What it reads from memory is another copy in every call. */
struct line {
    const char *name;
    char shape[32];
    enum num type, computes_in; /* the format in memory; that of the arithmetic */
    int rows;
    double flops, bytes; /* of one call */
    bool cold;           /* the bytes come from memory: they count for the limit */
    void (*call)(struct bench *b, void *arg, int run);
    void *arg;
};

/* ------------------------------------------------------------------------------- one line */

struct result {
    struct rounds us, read, math, share;
};

/* Several calls, so that a quick operation can be timed. */
static double time_calls(struct bench *b, const struct line *l, int n)
{
    double begin = seconds();
    for (int i = 0; i < n; i++)
        l->call(b, l->arg, i);
    return (seconds() - begin) / n;
}

static struct result measure(struct bench *b, const struct line *l)
{
    const double least = 0.01;
    double us[ROUNDS_MAX], read[ROUNDS_MAX], math[ROUNDS_MAX], share[ROUNDS_MAX];
    double first = time_calls(b, l, 2);
    int n = first * 1000 > least ? (int)(least / first) + 1 : 1000;
    for (int r = 0; r < b->o->rounds; r++) {
        read[r] = limits_read(b->limits);
        math[r] = limits_math(b->limits, isa_math(b->isa, l->computes_in));
        double took = time_calls(b, l, n);
        double reading = l->bytes / read[r], computing = math[r] > 0 ? l->flops / math[r] : 0;
        us[r] = 1e6 * took;
        share[r] = (reading > computing ? reading : computing) / took;
    }
    n = b->o->rounds;
    return (struct result){rounds_of(us, n), rounds_of(read, n), rounds_of(math, n),
                           rounds_of(share, n)};
}

static void print_line(const struct line *l, const struct result *r)
{
    char rate[32] = "", share[48] = "";
    const char *unit = num_is_whole(l->computes_in) ? "GOP/s" : "GFLOP/s";
    if (r->math.median > 0)
        snprintf(rate, sizeof(rate), " of %4.0f", 1e-9 * r->math.median);
    if (l->cold)
        snprintf(share, sizeof(share), "%4.0f %% (%.0f to %.0f)", 100 * r->share.median,
                 100 * r->share.least, 100 * r->share.most);
    printf("%-8s %-10s %-13s %4d %10.1f %9.1f to %8.1f %6.1f of %5.1f %8.1f%s %-7s %s\n", l->name,
           num_name(l->type), l->shape, l->rows, r->us.median, r->us.least, r->us.most,
           1e-3 * l->bytes / r->us.median, 1e-9 * r->read.median, 1e-3 * l->flops / r->us.median,
           rate, unit, share);
    fflush(stdout);
}

static json_t *line_json(const struct line *l, const struct result *r)
{
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "kernel", l->name,
                  "dtype", num_name(l->type), "shape", l->shape, "rows", l->rows, "us",
                  r->us.median, "least_us", r->us.least, "most_us", r->us.most, "gb_s",
                  1e-3 * l->bytes / r->us.median, "read_gb_s", 1e-9 * r->read.median, "gop_s",
                  1e-3 * l->flops / r->us.median, "math_gop_s", 1e-9 * r->math.median);
    if (l->cold)
        json_object_update_new(o, json_pack("{s:f, s:f, s:f}", "of_limit", r->share.median,
                                            "of_limit_least", r->share.least, "of_limit_most",
                                            r->share.most));
    return o;
}

static void bench_line(struct bench *b, const struct line *l)
{
    struct result r = measure(b, l);
    if (b->lines)
        json_array_append_new(b->lines, line_json(l, &r));
    else
        print_line(l, &r);
    pool_free(&b->pool);
}

static bool wanted(const struct bench *b, const char *name, enum num type)
{
    const struct options *o = b->o;
    bool named = !o->n_word;
    for (int i = 0; i < o->n_word; i++)
        named |= !strcmp(o->word[i], name);
    bool typed = !strcmp(o->kernel_dtype, "all") || !strcmp(o->kernel_dtype, num_name(type));
    return named && typed && num_can_weigh(type);
}

/* Repeat what its first `bytes` are through all memory. */
static int repeat_memory(struct bench *b, size_t bytes)
{
    int copies = (int)(COPIES_BYTES / bytes);
    for (int i = 1; i < copies; i++)
        memcpy(b->memory + (size_t)i * bytes, b->memory, bytes);
    return copies;
}

/* ------------------------------------------------------------------------------- products */

struct product {
    struct mat x, y;
    struct planes planes;
    struct weight w;
    struct part part[SHARES];
    bool cut;
    size_t bytes;
    int copies;
};

static void place_weight(struct product *p, char *at)
{
    for (int i = 0; i < p->w.n_part; i++) {
        p->part[i].at = at;
        at += part_bytes(p->w.type, p->part[i].rows, p->part[i].cols);
    }
}

static void call_product(struct bench *b, void *arg, int run)
{
    static const struct mat none;
    struct product *p = arg;
    place_weight(p, b->memory + (size_t)(run % p->copies) * p->bytes);
    if (p->cut)
        dev_partial(&b->dev, &p->planes, &p->x, &p->w);
    else
        dev_matmul(&b->dev, &p->y, &p->x, &p->w, &none);
}

/* The weight in its first copy, then in all. */
static void make_weight(struct bench *b, struct product *p)
{
    struct mat from = mat_sample(&b->pool, b->out, b->in);
    int col = 0;
    place_weight(p, b->memory);
    for (int i = 0; i < p->w.n_part; col += p->part[i++].cols) {
        struct stored s = {.at = from.at, .type = NUM_F32, .stride = (size_t)b->in, .col = col};
        must(!part_pack(&p->part[i], p->w.type, &s));
        p->bytes += part_bytes(p->w.type, p->part[i].rows, p->part[i].cols);
    }
    p->copies = repeat_memory(b, p->bytes);
}

static void bench_product(struct bench *b, enum num type, int n, bool cut)
{
    struct product p = {
        .x = mat_sample(&b->pool, n, b->in), .y = mat_sample(&b->pool, n, b->out), .cut = cut};
    p.planes = (struct planes){.n = 1, .at[0] = p.y};
    p.w = (struct weight){type, b->out, b->in, 0, cut ? SHARES : 1, p.part, NULL};
    for (int i = 0; i < p.w.n_part; i++)
        p.part[i] = (struct part){b->out, len(share(b->in, p.w.n_part, i)), NULL};
    make_weight(b, &p);
    struct line l = {.name = cut ? "partial" : "matmul",
                     .type = type,
                     .computes_in = type,
                     .rows = n,
                     .flops = 2.0 * n * b->out * b->in,
                     .bytes = (double)p.bytes,
                     .cold = true,
                     .call = call_product,
                     .arg = &p};
    snprintf(l.shape, sizeof(l.shape), "%dx%d", b->out, b->in);
    bench_line(b, &l);
}

/* ------------------------------------------------------------------------------- attention */

struct attention {
    struct mat q, y;
    struct kv cache;
    struct heads heads;
    struct batch batch;
    int copies;
    size_t bytes;
};

static void call_attention(struct bench *b, void *arg, int run)
{
    struct attention *a = arg;
    a->cache.at = b->memory + (size_t)(run % a->copies) * a->bytes;
    dev_attend(&b->dev, &a->y, &a->q, &a->cache, &a->heads, &a->batch);
}

/* Keys and values of `pages` pages: small numbers in all of memory. */
static void make_cache(struct bench *b, struct attention *a, enum num type, int pages)
{
    struct mat row = mat_sample(&b->pool, 1, HEADS_ALL / GROUP * HEAD_DIM);
    a->cache = (struct kv){type, HEADS_ALL / GROUP, HEAD_DIM, 0, kv_head_bytes(type, HEAD_DIM), 0};
    a->cache.page_bytes = a->cache.head_bytes * HEADS_ALL / GROUP;
    a->bytes = a->cache.page_bytes * (size_t)pages;
    a->cache.at = b->memory;
    for (int slot = 0; slot < pages * KV_PAGE; slot++) {
        for (int i = 0; i < row.dim; i++)
            mat_row(&row, 0)[i] = (float)((slot * 37 + i) % 509 - 254) * 1e-3f;
        dev_store(&b->dev, &a->cache, &row, &row, &slot);
    }
    a->copies = repeat_memory(b, a->bytes);
}

/* The last n tokens of a sequence, their pages in no order. */
static void bench_attention(struct bench *b, enum num type, int n, int context)
{
    int pages = (context + KV_PAGE - 1) / KV_PAGE, dim = HEADS_ALL * HEAD_DIM;
    int *pos = pool_get(&b->pool, (size_t)n * sizeof(int));
    int *seq = pool_get(&b->pool, (size_t)n * sizeof(int));
    int *page = pool_get(&b->pool, (size_t)pages * sizeof(int));
    struct attention a = {.q = mat_sample(&b->pool, n, dim),
                          .y = mat_sample(&b->pool, n, dim),
                          .heads = {.head_dim = HEAD_DIM, .group = GROUP, .scale = 0.125f}};
    double pairs = 0;
    for (int i = 0; i < pages; i++)
        page[i] = pages - 1 - i;
    for (int i = 0; i < n; i++) {
        pos[i] = context - n + i, seq[i] = 0;
        pairs += pos[i] + 1;
    }
    a.batch = (struct batch){
        .n_tok = n, .n_seq = 1, .pos = pos, .seq = seq, .page = page, .stride = pages};
    make_cache(b, &a, type, pages);
    struct line l = {.name = "attend",
                     .type = type,
                     .computes_in = num_quant(type).bits ? type : NUM_F32,
                     .rows = n,
                     .flops = 4 * pairs * dim,
                     .bytes = (double)a.bytes,
                     .cold = true,
                     .call = call_attention,
                     .arg = &a};
    snprintf(l.shape, sizeof(l.shape), "%dx%d at %d", HEADS_ALL, HEAD_DIM, context);
    bench_line(b, &l);
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
    struct mat angle = {e->x.n, HEAD_DIM, NUM_F32, e->x.at};
    (void)run;
    dev_rope(&b->dev, &e->y, HEAD_DIM, &angle);
}

static void call_swiglu(struct bench *b, void *arg, int run)
{
    struct elements *e = arg;
    (void)run;
    dev_swiglu(&b->dev, &e->y, &e->x);
}

/* Operations by name: floating-point operations and bytes for each number of a row. */
static const struct element {
    const char *name;
    double flops, bytes;
    void (*call)(struct bench *b, void *arg, int run);
} element[] = {
    {"norm", 4, 8, call_norm},
    {"add", 1, 12, call_add},
    {"rope", 3, 8, call_rope},
    {"swiglu", 20, 12, call_swiglu}, /* exp is a polynomial */
};

static void bench_element(struct bench *b, const struct element *k, int n)
{
    int dim = (b->in + HEAD_DIM - 1) / HEAD_DIM * HEAD_DIM; /* whole heads, for rope */
    struct elements e = {.x = mat_sample(&b->pool, n, dim),
                         .y = mat_sample(&b->pool, n, dim),
                         .w = mat_sample(&b->pool, 1, dim)};
    struct line l = {.name = k->name,
                     .type = NUM_F32,
                     .rows = n,
                     .flops = k->flops * n * dim,
                     .bytes = k->bytes * n * dim,
                     .call = k->call,
                     .arg = &e};
    snprintf(l.shape, sizeof(l.shape), "%d", dim);
    bench_line(b, &l);
}

/* ------------------------------------------------------------------------------- together */

static void bench_all(struct bench *b)
{
    for (int t = NUM_F32; t < NUM_COUNT; t++)
        for (int cut = 0; cut < 2; cut++)
            for (int i = 0; i < b->n_rows; i++)
                if (wanted(b, cut ? "partial" : "matmul", (enum num)t))
                    bench_product(b, (enum num)t, b->rows[i], cut);
    static const enum num kv[] = {NUM_F32, NUM_BF16, NUM_INT8};
    for (size_t t = 0; t < COUNT(kv); t++)
        for (int c = 0; c < b->n_context; c++)
            for (int i = 0; i < b->n_rows; i++)
                if (wanted(b, "attend", kv[t]) && b->rows[i] <= b->context[c])
                    bench_attention(b, kv[t], b->rows[i], b->context[c]);
    for (size_t k = 0; k < COUNT(element); k++)
        for (int i = 0; i < b->n_rows; i++)
            if (wanted(b, element[k].name, NUM_F32))
                bench_element(b, &element[k], b->rows[i]);
}

static int read_words(const struct options *o, struct err *e)
{
    for (int i = 0; i < o->n_word; i++) {
        bool known = !strcmp(o->word[i], "matmul") || !strcmp(o->word[i], "partial") ||
                     !strcmp(o->word[i], "attend");
        for (size_t k = 0; k < COUNT(element); k++)
            known |= !strcmp(o->word[i], element[k].name);
        if (!known)
            return err_set(e, CMD_USAGE,
                           "bench kernels: no kernel is called \"%.40s\"; there are matmul, "
                           "partial, attend, norm, add, rope and swiglu",
                           o->word[i]);
    }
    return 0;
}

static int read_options(struct bench *b, struct err *e)
{
    const struct options *o = b->o;
    char rest;
    int rc = read_words(o, e);
    if (!rc)
        rc = read_numbers("rows", o->rows, b->rows, &b->n_rows, e);
    if (!rc)
        rc = read_numbers("context", o->kernel_context, b->context, &b->n_context, e);
    if (!rc && (sscanf(o->shape, "%dx%d%c", &b->out, &b->in, &rest) != 2 || b->out < 16 ||
                b->in < 16 || (int64_t)b->out * b->in > COPIES_BYTES / 16))
        rc = err_set(e, CMD_USAGE,
                     "--shape %s: OUTxIN is needed, such as 8192x2048, each at least 16 and "
                     "together at most %d numbers",
                     o->shape, COPIES_BYTES / 16);
    for (int i = 0; !rc && i < b->n_rows; i++)
        if (b->rows[i] > 4096)
            rc = err_set(e, CMD_USAGE, "--rows %d: at most 4096 are timed at once", b->rows[i]);
    for (int i = 0; !rc && i < b->n_context; i++)
        if (b->context[i] > 32768)
            rc = err_set(e, CMD_USAGE, "--context %d: at most 32768 are timed", b->context[i]);
    return rc ? rc : open_isa(o->isa, &b->isa, e);
}

/* One rank's device and threads. */
static int start(struct bench *b, char **scratch, struct err *e)
{
    int core[PLAN_THREADS], rows = 1, dim = max_int(b->out, b->in) + HEAD_DIM;
    struct host host;
    host_read(&host, NULL);
    const int most = min_int(host.n_core, host_quota());
    int threads = b->o->given.threads ? b->o->threads : min_int(most, PLAN_THREADS);
    bool pinned = threads <= host.n_core;
    for (int i = 0; i < b->n_rows; i++)
        rows = max_int(rows, b->rows[i]);
    host_run(&host, pinned ? host.core[0].cpu : -1, threads, core);
    int rc = map_memory(COPIES_BYTES, false, &b->memory, e);
    b->limits = rc ? NULL : limits_open(core, threads, COPIES_BYTES / 2, e);
    if (!b->limits)
        return -ENOMEM;
    struct arena a = {0};
    dev_cpu_init(&b->dev, b->isa, rows, max_int(dim, HEADS_ALL * HEAD_DIM), threads, &a);
    *scratch = aligned_alloc(64, round_up(a.used, 64));
    must(*scratch);
    a = (struct arena){.base = *scratch, .size = a.used};
    dev_cpu_init(&b->dev, b->isa, rows, max_int(dim, HEADS_ALL * HEAD_DIM), threads, &a);
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET((size_t)host.core[0].cpu, &first);
    if (pinned)
        sched_setaffinity(0, sizeof(first), &first);
    dev_cpu_start(&b->dev, core);
    if (!b->o->json)
        printf("kernels %s, %d thread%s; medians of %d turns, beside the limits of the same turns\n"
               "%-8s %-10s %-13s %4s %10s %21s %15s %24s  %s\n",
               isa_name(b->isa), threads, threads > 1 ? "s" : "", b->o->rounds, "kernel", "format",
               "shape", "rows", "median us", "least to most", "GB/s", "operations", "of limit");
    return 0;
}

int cmd_bench_kernels(const struct options *o, struct err *e)
{
    struct bench b = {.o = o, .lines = o->json ? json_array() : NULL};
    char *scratch = NULL;
    int rc = read_options(&b, e);
    if (!rc)
        rc = start(&b, &scratch, e);
    if (!rc) {
        bench_all(&b);
        dev_cpu_stop(&b.dev);
    }
    if (!rc && b.lines) {
        json_t *all = json_pack("{s:s, s:i, s:O}", "isa", isa_name(b.isa), "rounds", o->rounds,
                                "lines", b.lines);
        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(all);
    }
    json_decref(b.lines);
    limits_close(b.limits);
    if (b.memory)
        munmap(b.memory, COPIES_BYTES);
    free(scratch);
    return rc;
}
