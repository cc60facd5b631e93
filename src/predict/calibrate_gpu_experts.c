/* calibrate_gpu_experts.c - a layer's experts on a GPU: their grouped products with few and many
 * rows of each. */
#include "dev/cuda/kernels.h"
#include "predict/calibrate_gpu_core.h"
#include "predict/fit.h"

#include <math.h>

enum { EXPERTS_MOST = 8, EXPERT_OPS = 3 /* as dev/count.c counts them */ };
enum { GATE, UP, DOWN, MATRICES };

/* Copies of the experts, one after the other in the region; of each, its matrices' parts. */
struct layer {
    struct gpu_core *c;
    int n, copies;
    struct expert (*expert)[EXPERTS_MOST]; /* [copies] */
    size_t bytes;                          /* of a copy */
    double numbers;
    struct routed routed;
    struct expert_room room; /* of the device nothing but its sizes is wanted */
};

static struct weight matrix(struct layer *l, enum num type, int rows, int cols, int n, char **at,
                            const struct mat *from)
{
    struct gpu_core *c = l->c;
    struct part *part = pool_get(&c->pool, (size_t)n * sizeof(*part));
    for (int i = 0; i < n; i++) {
        part[i] = (struct part){rows, cols / n, *at};
        if (from)
            gpu_core_part(c, &part[i], type, from);
        *at += part_bytes(type, rows, cols / n);
    }
    return (struct weight){type, rows, cols, 0, n, part, NULL};
}

/* From `at` on; the value is how many bytes that takes. from NULL: nothing is loaded. */
static size_t make_copy(struct layer *l, enum num type, struct expert *to, char *at,
                        const struct mat *from)
{
    const struct gpu_shape *s = &l->c->shape;
    const char *const begin = at;
    for (int e = 0; e < s->experts; e++)
        to[e] = (struct expert){
            .gate = matrix(l, type, s->expert_ff, s->hidden, 1, &at, from),
            .up = matrix(l, type, s->expert_ff, s->hidden, 1, &at, from),
            .down = matrix(l, type, s->hidden, s->expert_ff, GPU_SHARES, &at, from)};
    return (size_t)(at - begin);
}

/* Every expert gets equally many rows: row t goes to t * GPU_TOP and those behind it. */
static void choose(struct layer *l)
{
    struct gpu_core *c = l->c;
    const int rows = c->shape.rows_most, n = rows * GPU_TOP;
    int *expert = pool_get(&c->pool, (size_t)n * sizeof(*expert));
    float *weight = pool_get(&c->pool, (size_t)n * sizeof(*weight));
    for (int i = 0; i < n; i++)
        expert[i] = i % c->shape.experts, weight[i] = 0.5f;
    l->routed = (struct routed){.top = GPU_TOP};
    l->routed.expert = (int *)(void *)gpu_core_memory(c, (size_t)n * sizeof(*expert));
    l->routed.weight = (float *)(void *)gpu_core_memory(c, (size_t)n * sizeof(*weight));
    gpu_core_load(c, l->routed.expert, expert, (size_t)n * sizeof(*expert));
    gpu_core_load(c, l->routed.weight, weight, (size_t)n * sizeof(*weight));
    l->room = (struct expert_room){.x.n = rows, .hidden.n = n + 1};
}

static void make_layer(struct layer *l, struct gpu_core *c, enum num type)
{
    const struct gpu_shape *s = &c->shape;
    const struct mat from = mat_sample(&c->pool, GPU_SAMPLE, max_int(s->hidden, s->expert_ff));
    struct expert measured[EXPERTS_MOST];
    *l = (struct layer){.c = c};
    must(s->experts <= EXPERTS_MOST && 2 * s->hidden <= s->ff); /* see call_experts() */
    l->bytes = make_copy(l, type, measured, NULL, NULL);
    l->numbers = (double)MATRICES * s->experts * s->hidden * s->expert_ff;
    must(l->bytes <= s->region);
    l->copies = (int)(s->region / l->bytes);
    l->expert = pool_get(&c->pool, (size_t)l->copies * sizeof(*l->expert));
    for (int i = 0; i < l->copies; i++)
        make_copy(l, type, l->expert[i], c->region + (size_t)i * l->bytes, &from);
    choose(l);
}

static void call_experts(void *arg, const struct batch *b, int i)
{
    struct layer *l = arg;
    struct gpu_core *c = l->c;
    const struct mat x = mat_rows(&c->h, (struct span){0, b->n_tok});
    struct mat y = {x.n, x.dim, NUM_I64, c->gate.at}; /* the widest rows there are */
    l->routed.n = x.n;
    dev_experts(&c->dev, &y, &x, l->expert[i % l->copies], c->shape.experts, &l->routed, &l->room);
}

void gpu_core_experts(struct gpu_core *c, enum num type, const struct rates *known,
                      struct curve *to)
{
    enum { WHOLE = GPU_STREAMED_WHOLE, ALL = GPU_STREAMED, SMALL = 40 /* rows of small tiles */ };
    static const int each[] = {1,     2,         4,  WHOLE, WHOLE + 1, ALL, ALL + 1,
                               SMALL, SMALL + 1, 64, 128,   256,       512};
    struct layer *l = pool_get(&c->pool, sizeof(*l));
    const struct gpu_shape *s = &c->shape;
    *to = (struct curve){.source = SOURCE_MEASURED};
    make_layer(l, c, type);
    for (size_t i = 0; i < COUNT(each) && !gpu_core_rc(c); i++) {
        const int rows = each[i] * s->experts / GPU_TOP;
        if (rows > s->rows_most)
            break;
        const struct batch b = gpu_core_batch(c, rows);
        const double moved = (8.0 + 2 * GPU_TOP * sizeof(float)) * rows * s->hidden;
        struct figure took = gpu_core_time(c, &b, CASE_EXPERTS + (int)type, call_experts, l);
        double others = EXPERT_OPS * c->op_s + moved * known->byte_s.value;
        to->x[to->n] = each[i];
        to->y[to->n++] = (took.value - fmin(others, 0.5 * took.value)) / l->numbers;
        to->error = fmax(to->error, fmin(FIT_ERROR_MOST, took.error));
    }
}
