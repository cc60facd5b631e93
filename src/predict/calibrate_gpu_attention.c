/* calibrate_gpu_attention.c - attention on a GPU over short and long contexts, few and many rows.
 * The twin of calibrate_attention.c. */
#include "predict/attend_case.h"
#include "predict/calibrate_gpu_core.h"
#include "predict/fit.h"

#include <math.h>

enum { MANY = 32, PIECE = 4 << 20 };

struct gpu_case {
    struct gpu_core *c;
    struct attend_case of;
};

static void call_attend(void *arg, const struct batch *b, int i)
{
    struct gpu_case *g = arg;
    struct attend_case *a = &g->of;
    attend_case_turn(a, g->c->region, i);
    dev_attend(&g->c->dev, &a->y, &a->q, &a->cache, &a->heads, b);
}

/* As many sequences as there are rows for. */
static struct gpu_case gpu_case(struct gpu_core *c, enum num type, int group, int n_seq, int rows,
                                int context)
{
    const struct gpu_shape *s = &c->shape;
    const struct attend_shape shape = {
        s->heads_kv, group, s->dim, min_int(n_seq, s->rows_most / rows), rows, context};
    struct gpu_case g = {c, attend_case(&c->pool, type, shape, s->region)};
    g.of.q.at = c->q.at, g.of.y.at = c->o.at;
    return g;
}

/* Small numbers in all of the region: a page as the host stores it, repeated. */
static void fill_keys(struct gpu_core *c, enum num type)
{
    const int dim = c->shape.heads_kv * c->shape.dim;
    const size_t head = kv_head_bytes(type, c->shape.dim);
    const size_t page = head * (size_t)c->shape.heads_kv;
    char *here = pool_get(&c->pool, page);
    struct kv cache = {type, c->shape.heads_kv, c->shape.dim, page, head, here};
    struct mat row = mat_sample(&c->pool, 1, dim);
    struct arena a = {0};
    struct dev host;
    dev_cpu_init(&host, ISA_REF, 1, dim, 1, &a);
    a = (struct arena){.base = pool_get(&c->pool, a.used + ARENA_ALIGN), .size = a.used};
    a.base += (size_t)(-(uintptr_t)a.base % ARENA_ALIGN);
    dev_cpu_init(&host, ISA_REF, 1, dim, 1, &a);
    for (int slot = 0; slot < KV_PAGE; slot++)
        dev_store(&host, &cache, &row, &row, &slot);
    const size_t piece = page * (1 + PIECE / page), all = c->shape.region / page * page;
    char *pages = pool_get(&c->pool, piece);
    for (size_t at = 0; at < piece; at += page)
        memcpy(pages + at, here, page);
    for (size_t at = 0; at < all; at += piece)
        gpu_core_load(c, c->region + at, pages, min_size(piece, all - at));
}

static struct figure time_case(struct gpu_case *g)
{
    const struct attend_case *a = &g->of;
    const int id = CASE_ATTENTION + 2 * (int)a->cache.type + (a->heads.group == 1);
    return gpu_core_time(g->c, &a->batch, id, call_attend, g);
}

static double beyond(const struct gpu_core *c, double seconds, const struct attend_case *a,
                     double row_s)
{
    const double fixed = c->op_s + row_s * a->q.n * a->q.dim / c->shape.dim;
    return fmax(0.05 * seconds, seconds - fixed); /* repeats differ: never nothing */
}

/* The costs of `rows` rows of each sequence: short and long contexts count alike. */
static void add_rows(struct gpu_core *c, enum num type, int rows, struct curve *to, double *row_s)
{
    const int n_seq = max_int(1, min_int(MANY, MANY / rows)), group = c->shape.group;
    struct gpu_case short_one = gpu_case(c, type, group, n_seq, rows, max_int(c->shape.near, rows));
    struct gpu_case long_one =
        gpu_case(c, type, group, n_seq, rows, max_int(c->shape.far, 2 * rows));
    const struct attend_case *near = &short_one.of, *far = &long_one.of;
    struct figure a = time_case(&short_one), b = time_case(&long_one);
    if (!to->n) { /* what each row of each head costs however short it is */
        double slope = fmax(0, (b.value - a.value) / (far->madds - near->madds));
        *row_s = fmax(0, a.value - c->op_s - slope * near->madds) /
                 ((double)near->q.n * near->q.dim / c->shape.dim);
    }
    double x = beyond(c, a.value, near, *row_s) / near->madds,
           y = beyond(c, b.value, far, *row_s) / far->madds;
    to->x[to->n] = rows;
    to->y[to->n++] = fmax(1e-18, sqrt(x * y));
    to->error = fmax(to->error, fmin(FIT_ERROR_MOST, fabs(x - y) / (x + y) + a.error));
}

void gpu_core_attention(struct gpu_core *c, enum num type, struct figure *byte_s,
                        struct curve *madd_s, double *row_s)
{
    static const int rows[] = {1, 16, 64, 256, 1024, 2048};
    fill_keys(c, type);
    *madd_s = (struct curve){.source = SOURCE_MEASURED};
    for (size_t i = 0; i < COUNT(rows) && rows[i] <= c->shape.rows_most && !gpu_core_rc(c); i++)
        add_rows(c, type, rows[i], madd_s, row_s);
    struct gpu_case one = gpu_case(c, type, 1, MANY, 1, c->shape.far);
    struct figure s = time_case(&one);
    *byte_s = (struct figure){beyond(c, s.value, &one.of, *row_s) / one.of.read, s.error,
                              SOURCE_MEASURED};
}
