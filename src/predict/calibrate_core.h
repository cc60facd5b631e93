/* calibrate_core.h - what one member of a calibration works with: the device of a core, memory
 * larger than its share of the last cache, activations. Shapes are those of a model of one billion
 * parameters. For calibrate_rates.c and its parts. */
#ifndef TANDEM_CALIBRATE_CORE_H
#define TANDEM_CALIBRATE_CORE_H

#include "base/arena.h"
#include "predict/calibrate_ranks.h"

enum {
    HIDDEN = 2048,
    FF = 8192,
    HEADS_KV = 8,
    DIM = 64, /* of a head */
    SHARES = 8,
    ROWS_MOST = 256,
    REGION = 256 << 20 /* a layer's weights in f32; several of them in smaller formats */
};

struct core_bench {
    struct member *m;
    struct dev dev;
    char *region;                                    /* weights or keys */
    struct mat x, h, k, v, angle, q, o, gate, up, y; /* of ROWS_MOST rows */
    struct mat norm;
    double op_s; /* what every operation takes, when that is known */
    struct pool pool;
};

/* The device with its threads, on cores (NULL: not pinned), and all of the above. */
int core_open(struct core_bench *b, enum isa isa, int threads, const int *core, struct err *e);

/* The first n rows of m. */
struct mat core_rows(const struct mat *m, int n);

/* Medians over turns of n <= 16 cases; each turn takes all cases, so that a machine that slows down
 * slows all of them. A case is timed for some milliseconds. On a machine that is busy with other
 * things there are fewer turns: all members know the same times, so they agree on it. */
void core_time(struct core_bench *b, member_call *call, void *const *arg, int n, struct figure *to);

/* Seconds per weight of a layer's products; `from` has numbers to make weights of, 64 rows of FF.
 */
void core_products(struct core_bench *b, enum num type, const struct mat *from, struct curve *to);

/* Attention over a cache of this format: struct rates in topo/hardware.h says what each means. */
void core_attention(struct core_bench *b, enum num type, struct figure *byte_s,
                    struct curve *madd_s, double *row_s);

#endif
