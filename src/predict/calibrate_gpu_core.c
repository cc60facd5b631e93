/* calibrate_gpu_core.c - see calibrate_gpu_core.h. */
#include "predict/calibrate_gpu_core.h"
#include "predict/fit.h"

enum { ROUNDS = 5, WARM = 3, CALLS_MOST = 8, RECORDED_ROWS = 64, SEQS_MOST = 64 };
_Static_assert(2 * CASE_EMPTY + 1 < GPU_CASES, "every case has two numbers");

int gpu_core_rc(const struct gpu_core *c)
{
    if (c->dev.err && !*c->e->text)
        err_set(c->e, c->dev.err, "%s", c->dev.why ? c->dev.why : strerror(-c->dev.err));
    return *c->e->text ? -EIO : 0;
}

char *gpu_core_memory(struct gpu_core *c, size_t bytes)
{
    char *at = NULL;
    if (!gpu_core_rc(c))
        c->plugin->memory(&c->dev, bytes, &at, c->e);
    return at;
}

void gpu_core_load(struct gpu_core *c, void *to, const void *from, size_t bytes)
{
    if (!gpu_core_rc(c))
        c->plugin->load(&c->dev, 0, to, from, bytes, c->e);
}

struct mat gpu_core_rows(struct gpu_core *c, int n, int dim)
{
    struct mat m = {n, dim, NUM_F32, NULL}, few = mat_sample(&c->pool, 16, dim);
    m.at = gpu_core_memory(c, mat_bytes(&m));
    for (int i = 0; m.at && i < n; i += few.n)
        gpu_core_load(c, (char *)m.at + (size_t)i * (size_t)dim * sizeof(float), few.at,
                      (size_t)min_int(few.n, n - i) * (size_t)dim * sizeof(float));
    return m;
}

/* Every block of rows is as long as any other. */
void gpu_core_part(struct gpu_core *c, const struct part *p, enum num type, const struct mat *from)
{
    struct stored s = {.at = from->at, .type = NUM_F32, .stride = (size_t)from->dim};
    struct part few = {min_int(GPU_SAMPLE, p->rows), p->cols, NULL};
    size_t step = pack_block_bytes(type, p->cols) * (size_t)(few.rows / PACK_ROWS);
    size_t all = part_bytes(type, p->rows, p->cols);
    few.at = pool_get(&c->pool, part_bytes(type, few.rows, few.cols));
    must(!part_pack(&few, type, &s));
    for (size_t at = 0; at < all; at += step)
        gpu_core_load(c, (char *)p->at + at, few.at, min_size(step, all - at));
}

/* ------------------------------------------------------------------------------- timing */

struct batch gpu_core_batch(struct gpu_core *c, int n)
{
    int *zero = pool_get(&c->pool, (size_t)n * sizeof(int)); /* is all zero */
    return (struct batch){.n_tok = n,
                          .n_seq = 1,
                          .tok = zero,
                          .pos = zero,
                          .slot = zero,
                          .seq = zero,
                          .page = zero,
                          .stride = 1};
}

/* A step of so many calls. Its number of wanted rows tells it from other steps of as many rows, so
 * that it is recorded for itself; no row is wanted. */
static double step_s(struct gpu_core *c, const struct batch *b, int number, gpu_call *call,
                     void *arg, int calls)
{
    static const int zero[GPU_CASES];
    struct batch there = *b;
    must(number < GPU_CASES);
    there.n_out = b->n_tok <= RECORDED_ROWS ? number : 0;
    there.out = zero;
    double begin = member_seconds();
    dev_begin(&c->dev, &there);
    for (int i = 0; i < calls; i++)
        call(arg, &there, i);
    dev_fetch(&c->dev, &c->fetched);
    return member_seconds() - begin;
}

struct figure gpu_core_time(struct gpu_core *c, const struct batch *b, int id, gpu_call *call,
                            void *arg)
{
    const double quick = 2e-3, slow = 5e-2; /* no GPU is that */
    double s[ROUNDS];
    double first = step_s(c, b, 2 * id, call, arg, 1);
    const int calls = first < quick && !c->fetched.n ? CALLS_MOST : 1;
    const int rounds = first < slow ? ROUNDS : 2;
    for (int i = 0; i < WARM; i++) /* met, recorded, replayed */
        step_s(c, b, 2 * id + 1, call, arg, calls);
    for (int i = 0; i < rounds; i++) {
        double took = step_s(c, b, 2 * id + 1, call, arg, calls) - c->empty_s;
        s[i] = (took > 1e-9 ? took : 1e-9) / calls;
    }
    return fit_median(s, rounds);
}

/* ------------------------------------------------------------------------------- opening */

static void call_nothing(void *arg, const struct batch *b, int i) { (void)arg, (void)b, (void)i; }

static void get_rows(struct gpu_core *c)
{
    const struct gpu_shape *s = &c->shape;
    const int n = s->rows_most, kv = s->heads_kv * s->dim, q = kv * s->group;
    c->x = gpu_core_rows(c, n, s->hidden), c->h = gpu_core_rows(c, n, s->hidden);
    c->y = gpu_core_rows(c, n, s->hidden);
    c->q = gpu_core_rows(c, n, q), c->o = gpu_core_rows(c, n, q);
    c->k = gpu_core_rows(c, n, kv), c->v = gpu_core_rows(c, n, kv);
    c->gate = gpu_core_rows(c, n, s->ff), c->up = gpu_core_rows(c, n, s->ff);
    c->norm = gpu_core_rows(c, 1, s->hidden);
    c->angle = gpu_core_rows(c, n, s->dim);
}

int gpu_core_open(struct gpu_core *c, const struct gpus *g, const struct gpu_shape *shape,
                  struct err *e)
{
    const struct gpu_ask ask = {.gpu = 0,
                                .warpgroups = g->gpu[0].warpgroups,
                                .max_tok = shape->rows_most,
                                .max_seq = SEQS_MOST,
                                .max_out = GPU_CASES,
                                .ctx = 2 * max_int(2048, shape->rows_most),
                                .max_dim = shape->ff,
                                .words = shape->words,
                                .draws = true,
                                .heads = shape->heads_kv * shape->group,
                                .head_dim = shape->dim,
                                .experts = shape->experts,
                                .top = GPU_TOP,
                                .expert_columns = shape->expert_ff,
                                .records = true};
    c->plugin = g->plugin;
    c->shape = *shape;
    c->e = e;
    *e->text = 0;
    int rc = c->plugin->open(&c->dev, &ask, e);
    if (rc)
        return rc;
    c->region = gpu_core_memory(c, shape->region);
    get_rows(c);
    if (gpu_core_rc(c))
        return -EIO;
    struct batch one = gpu_core_batch(c, 1);
    c->empty_s = gpu_core_time(c, &one, CASE_EMPTY, call_nothing, NULL).value;
    return gpu_core_rc(c);
}
