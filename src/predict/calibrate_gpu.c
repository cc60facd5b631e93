/* calibrate_gpu.c - what a GPU does, measured by a process of its own, and what several do
 * together, put together as a profile. See calibrate_gpu.h. */
#include "predict/calibrate_gpu.h"
#include "predict/calibrate_gpu_core.h"
#include "predict/fit.h"
#include "run/gpu.h"
#include "topo/nvml.h"

#include <math.h>

enum { LAYER_OTHERS = 4, GROUP_STEPS = 5 };

/* The second where a GPU is fast enough for it, as all real ones are. */
static const struct gpu_shape small = {.hidden = 128,
                                       .ff = 256,
                                       .heads_kv = 1,
                                       .group = 4,
                                       .dim = 64,
                                       .rows_most = 34,
                                       .near = 32,
                                       .far = 128,
                                       .experts = 4,
                                       .expert_ff = 256,
                                       .words = 2048,
                                       .region = 4 << 20},
                              large = {.hidden = 4096,
                                       .ff = 14336,
                                       .heads_kv = 8,
                                       .group = 4,
                                       .dim = 128,
                                       .rows_most = 2048,
                                       .near = 256,
                                       .far = 2048,
                                       .experts = 8,
                                       .expert_ff = 2048,
                                       .words = 128256,
                                       .region = 1 << 30};

/* In memory of the process that measures and of the one that asked. */
struct found {
    struct rates rates;
    struct figure empty_s;
    double bytes_s, flops_s[NUM_COUNT];
};

struct work {
    const struct gpus *gpus;
    const struct calibrate_opts *opts;
};

/* ------------------------------------------------------------------------------- the rest */

struct others {
    struct gpu_core *c;
    struct kv cache;
    int dim_x, dim_kv, dim_ff, n;
};

/* What a layer does beside products and attention, on so many numbers of each row. */
static void call_others(void *arg, const struct batch *b, int i)
{
    static const struct mat none;
    struct others *o = arg;
    struct gpu_core *c = o->c;
    struct mat x = {o->n, o->dim_x, NUM_F32, c->x.at}, h = {o->n, o->dim_x, NUM_F32, c->h.at};
    struct mat y = {o->n, o->dim_x, NUM_F32, c->y.at}, q = {o->n, o->dim_x, NUM_F32, c->q.at};
    struct mat k = {o->n, o->dim_kv, NUM_F32, c->k.at}, v = {o->n, o->dim_kv, NUM_F32, c->v.at};
    struct mat gate = {o->n, o->dim_ff, NUM_F32, c->gate.at};
    struct mat up = {o->n, o->dim_ff, NUM_F32, c->up.at};
    struct mat norm = {1, o->dim_x, NUM_F32, c->norm.at};
    struct mat angle = mat_rows(&c->angle, (struct span){0, o->n});
    const struct qkv made = {&q, &k, &v, &none, &none, &angle, 0};
    (void)i;
    dev_add_norm(&c->dev, &h, &x, &y, &none, &norm, 1e-5f);
    dev_rope_store(&c->dev, &o->cache, &made, b->slot);
    dev_add_norm(&c->dev, &h, &x, &y, &none, &norm, 1e-5f);
    dev_swiglu(&c->dev, &gate, &up);
}

/* As dev/count.c counts them: everything read or written once. */
static double other_bytes(const struct others *o)
{
    const double n = o->n, row = 4.0 * o->dim_x, keys = 4.0 * o->dim_kv,
                 angle = 4.0 * o->c->shape.dim;
    double add_norm = 4 * row * n + row;
    double store = (double)o->cache.n_head * (double)kv_row_bytes(NUM_BF16, o->c->shape.dim);
    return 2 * add_norm + (2 * row + angle + 2 * keys + store) * n + 3 * 4.0 * o->dim_ff * n;
}

static struct others others_of(struct gpu_core *c, int n, bool whole)
{
    const struct gpu_shape *s = &c->shape;
    const int heads = whole ? s->heads_kv : 1;
    struct others o = {
        .c = c,
        .cache = {.type = NUM_BF16, .n_head = heads, .head_dim = s->dim, .at = c->region},
        .dim_x = whole ? s->hidden : s->dim,
        .dim_kv = heads * s->dim,
        .dim_ff = whole ? s->ff : s->dim,
        .n = n};
    o.cache.head_bytes = kv_head_bytes(NUM_BF16, s->dim);
    o.cache.page_bytes = o.cache.head_bytes * (size_t)heads;
    return o;
}

static void measure_others(struct gpu_core *c, struct rates *to, double *bytes_s)
{
    static const int rows[] = {1, 16, 64, 256, 2048};
    double each[COUNT(rows)];
    int n = 0;
    const struct batch one = gpu_core_batch(c, 1);
    struct others tiny = others_of(c, 1, false);
    to->op_s = gpu_core_time(c, &one, CASE_TINY, call_others, &tiny);
    to->op_s.value /= LAYER_OTHERS;
    c->op_s = to->op_s.value;
    for (size_t i = 0; i < COUNT(rows) && rows[i] <= c->shape.rows_most; i++) {
        const struct batch b = gpu_core_batch(c, rows[i]);
        struct others o = others_of(c, rows[i], true);
        double s = gpu_core_time(c, &b, CASE_OTHERS, call_others, &o).value;
        *bytes_s = fmax(*bytes_s, other_bytes(&o) / s);
        each[n++] = fmax(0.05 * s, s - LAYER_OTHERS * c->op_s) / other_bytes(&o);
    }
    to->byte_s = fit_median(each, n);
    to->byte_s.error = fmin(to->byte_s.error, FIT_ERROR_MOST);
}

/* ------------------------------------------------------------------------------- one GPU */

static int measure_all(struct gpu_core *c, const struct calibrate_opts *o, struct found *to)
{
    static const enum num keys[] = {NUM_F32, NUM_BF16, NUM_INT8};
    double row_s[COUNT(keys)] = {0}, bytes_s = 0;
    to->empty_s = (struct figure){c->empty_s, 0, SOURCE_MEASURED};
    measure_others(c, &to->rates, &to->bytes_s);
    gpu_core_draw(c, &to->rates);
    member_done(c->m);
    for (int t = 0; t < NUM_COUNT && !gpu_core_rc(c); t++)
        if (num_can_weigh((enum num)t)) {
            if (!o->only_one || t == (int)o->only)
                gpu_core_products(c, (enum num)t, &to->rates.product[t], &bytes_s, &to->flops_s[t]);
            if (!o->only_one || t == (int)o->only)
                gpu_core_experts(c, (enum num)t, &to->rates, &to->rates.experts[t]);
            to->bytes_s = fmax(to->bytes_s, bytes_s);
            member_done(c->m);
        }
    for (size_t i = 0; i < COUNT(keys) && !gpu_core_rc(c); i++) {
        gpu_core_attention(c, keys[i], &to->rates.attend_byte_s[keys[i]],
                           &to->rates.attend_madd_s[keys[i]], &row_s[i]);
        to->bytes_s = fmax(to->bytes_s, 1 / to->rates.attend_byte_s[keys[i]].value);
        member_done(c->m);
    }
    to->rates.attend_row_s = fit_median(row_s, COUNT(keys));
    to->rates.attend_row_s.error = fmin(to->rates.attend_row_s.error, FIT_ERROR_MOST);
    to->rates.active = 1;
    return gpu_core_rc(c);
}

/* Does a row's products of the small shape take so little that the large one is as it should be? */
static bool is_fast(struct gpu_core *c)
{
    const double most_s = 2e-3;
    struct curve one;
    double bytes_s, flops_s;
    const struct gpu_shape *s = &c->shape;
    gpu_core_products(c, NUM_BF16, &one, &bytes_s, &flops_s);
    return !gpu_core_rc(c) && one.y[0] * s->hidden * (4.0 * s->hidden + 3.0 * s->ff) < most_s;
}

static int rates_member(struct member *m, void *arg, struct err *e)
{
    const struct work *w = arg;
    struct gpu_core *c = calloc(1, sizeof(*c));
    struct gpu_shape shape = small;
    must(c);
    *c = (struct gpu_core){.m = m};
    shape.rows_most = 1;
    int rc = gpu_core_open(c, w->gpus, &shape, e);
    const bool fast = !rc && is_fast(c) && w->gpus->gpu[0].memory_free > (size_t)4 << 30;
    *c = (struct gpu_core){.m = m};
    if (!rc)
        rc = gpu_core_open(c, w->gpus, fast ? &large : &small, e);
    return rc ? rc : measure_all(c, w->opts, (void *)m->shared);
}

static int measure_one(struct hardware *h, struct members *g, struct work *w, struct err *e)
{
    g->n = 1;
    int rc = members_share(sizeof(struct found), &g->shared, e);
    if (!rc)
        rc = members_run(g, rates_member, w, e);
    const struct found *f = (void *)g->shared;
    if (!rc) {
        h->n_rates = 1;
        h->rates[0] = f->rates;
        h->step_s = f->empty_s;
        h->memory_rate = (struct figure){f->bytes_s, 0.05, SOURCE_MEASURED};
        for (int t = 0; t < NUM_COUNT; t++)
            if (f->flops_s[t] > 0)
                h->math_rate[t] = (struct figure){f->flops_s[t], 0.05, SOURCE_MEASURED};
    }
    members_unshare(g->shared, sizeof(struct found));
    return rc;
}

/* ------------------------------------------------------------------------------- together */

static void name_level(struct level *l, int n)
{
    struct nvml nvml;
    struct err ignored;
    const char *name = "PCIe";
    if (!nvml_read(&nvml, NULL, &ignored) && nvml.n > 1)
        name = nvml.gpu[0].switch_links ? "NVSwitch" : nvml.gpu[0].links[1] ? "NVLink" : "PCIe";
    snprintf(l->name, sizeof(l->name), "%s", name);
    l->size = n, l->same_host = true;
}

/* 2, 4, 8, ... and all. When that fails, what one GPU does is still worth having. */
static void measure_groups(struct hardware *h, struct members *g, const struct gpus *gpus,
                           struct gpu_links *links, struct err *alone)
{
    struct level *l = &h->level[0];
    struct err why;
    int rc = 0;
    name_level(l, gpus->n);
    links->n = gpus->n;
    for (int n = 2; n <= gpus->n && !rc; n = n < gpus->n && 2 * n > gpus->n ? gpus->n : 2 * n) {
        g->n = n;
        rc = calibrate_gpu_groups(g, gpus, l, links, &why);
    }
    h->n_level = !rc;
    if (!rc)
        return;
    *alone = why;
    links->n = 0;
    *l = (struct level){.n_collective = 0};
}

int calibrate_gpus(struct hardware *h, const struct gpus *g, const struct host *host,
                   const struct calibrate_opts *o, struct gpu_links *links, struct err *alone,
                   struct err *e)
{
    const struct gpu *first = &g->gpu[0];
    const size_t taken = first->memory - first->memory_free;
    struct work w = {g, o};
    struct members m = {.host = host, .stride = 1, .opts = o};
    m.all = 4 + NUM_COUNT + (g->n > 1 ? 4 * GROUP_STEPS : 0);
    *alone->text = 0;
    memset(links, 0, sizeof(*links));
    for (int i = 1; i < g->n; i++)
        if (g->gpu[i].arch != first->arch)
            return err_set(
                e, -EINVAL,
                "the GPUs differ (%s, %s), and a profile is of one kind: choose like ones "
                "by CUDA_VISIBLE_DEVICES",
                first->name, g->gpu[i].name);
    h->kind = DEVICE_GPU;
    h->memory_bytes = (struct figure){(double)first->memory, 0, SOURCE_MEASURED};
    h->reserve_bytes = (struct figure){(double)(taken + GPU_RESERVE), 0.5, SOURCE_MEASURED};
    int rc = measure_one(h, &m, &w, e);
    if (!rc && g->n > 1)
        measure_groups(h, &m, g, links, alone);
    return rc;
}
