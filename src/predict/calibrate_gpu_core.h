/* calibrate_gpu_core.h - what a process that measures a GPU works with: the device, memory larger
 * than its caches, and how an operation is timed. For calibrate_gpu.c and its parts. */
#ifndef TANDEM_CALIBRATE_GPU_CORE_H
#define TANDEM_CALIBRATE_GPU_CORE_H

#include "base/arena.h"
#include "dev/plugin.h"
#include "predict/calibrate_gpu.h"
#include "predict/calibrate_ranks.h"

/* A layer: of a model of eight billion parameters where the GPU is fast enough for it. */
struct gpu_shape {
    int hidden, ff, heads_kv, group, dim; /* group: query heads for each of the cache's */
    int rows_most;
    int near, far; /* contexts */
    int experts, expert_ff, words;
    size_t region; /* bytes of weights or keys */
};

enum {
    GPU_CASES = 256, /* kinds of recorded steps; each case of n rows needs a number of its own */
    GPU_SHARES = 8,
    GPU_TOP = 2,    /* experts that a row chooses */
    GPU_SAMPLE = 64 /* rows of a matrix that are packed here, and repeated there */
};

/* Ids of gpu_core_time(). */
enum {
    CASE_PRODUCTS,
    CASE_ATTENTION = CASE_PRODUCTS + NUM_COUNT,
    CASE_EXPERTS = CASE_ATTENTION + 2 * NUM_COUNT,
    CASE_OTHERS = CASE_EXPERTS + NUM_COUNT,
    CASE_TINY,
    CASE_DRAW,
    CASE_RANK,
    CASE_EMPTY
};

struct gpu_core {
    struct member *m;
    const struct plugin *plugin;
    struct dev dev;
    struct gpu_shape shape;
    char *region;
    struct mat x, h, q, k, v, o, gate, up, y, norm, angle; /* of rows_most rows */
    struct mat fetched; /* what a step brings back; with rows, it calls what is timed once */
    double empty_s;     /* a step without operations */
    double op_s;        /* what every operation takes, when that is known */
    struct pool pool;
    struct err *e;
};

/* Open the first GPU for shapes of this size. */
int gpu_core_open(struct gpu_core *c, const struct gpus *g, const struct gpu_shape *shape,
                  struct err *e);
int gpu_core_rc(const struct gpu_core *c); /* what has failed since, and says so in c->e */

/* Memory on the device, and rows of numbers there; after a failure nothing. */
char *gpu_core_memory(struct gpu_core *c, size_t bytes);
struct mat gpu_core_rows(struct gpu_core *c, int n, int dim);
void gpu_core_load(struct gpu_core *c, void *to, const void *from, size_t bytes);
/* A part of a matrix, of GPU_SAMPLE rows of numbers repeated. */
void gpu_core_part(struct gpu_core *c, const struct part *p, enum num type, const struct mat *from);

/* Seconds of one call of case number `id` in a step of this batch: the median of several steps of
 * many calls, less what the step takes without. Ids are 0 to GPU_CASES / 2 - 1, one for all that
 * have one number of rows. */
typedef void gpu_call(void *arg, const struct batch *b, int i);
struct figure gpu_core_time(struct gpu_core *c, const struct batch *b, int id, gpu_call *call,
                            void *arg);

/* A step of n rows that are their own sequence at position 0. */
struct batch gpu_core_batch(struct gpu_core *c, int n);

/* calibrate_gpu_products.c, calibrate_gpu_attention.c; as their twins. *best: bytes or operations a
 * second that were reached at most. Products are measured on both sides of every number of rows
 * from which on other kernels do them. */
void gpu_core_products(struct gpu_core *c, enum num type, struct curve *to, double *bytes_s,
                       double *flops_s);
void gpu_core_attention(struct gpu_core *c, enum num type, struct figure *byte_s,
                        struct curve *madd_s, double *row_s);

/* calibrate_gpu_experts.c: as struct rates has it, beyond what the price of other operations is. */
void gpu_core_experts(struct gpu_core *c, enum num type, const struct rates *known,
                      struct curve *to);

/* calibrate_gpu_draw.c: with the tokens' way to the host. */
void gpu_core_draw(struct gpu_core *c, struct rates *to);

/* calibrate_gpu_groups.c: sums, scattered sums, gathers, all-to-alls and sends among g->n GPUs, and
 * every pair's sends. */
int calibrate_gpu_groups(struct members *g, const struct gpus *gpus, struct level *to,
                         struct gpu_links *links, struct err *e);

#endif
