/* limits.h - what a set of cores can do at most, measured on the spot: reading memory, and
 * multiply-adds in registers. The yardstick of benchmarks; nothing here knows a model.
 *
 * Neighbours of a shared machine change both from one minute to the next, so a benchmark measures
 * them in turns with what it times.
 */
#ifndef TANDEM_TOPO_LIMITS_H
#define TANDEM_TOPO_LIMITS_H

#include "base/base.h"

/* Multiply-adds of pairs in one instruction; each with the widest vectors of its set. */
enum math {
    MATH_NONE,
    MATH_AVX2,
    MATH_AVX512,
    MATH_AVX512_BF16,
    MATH_AVX512_VNNI,
    MATH_AMX_INT8,
    MATH_COUNT
};

const char *math_name(enum math m);

/* Can this machine do it? Tiles must also be granted by Linux, which is asked for them here: then
 * this process, its threads and its later children may use them. */
bool math_here(enum math m);

struct limits;

/* Threads on these cores (-1: not pinned), each with bytes_per_core of memory of its own that is
 * larger than its share of the last cache. NULL with e when memory or threads lack. */
struct limits *limits_open(const int *core, int n_core, size_t bytes_per_core, struct err *e);
void limits_close(struct limits *l);

/* Bytes a second that all cores together read, once through their memory. */
double limits_read(struct limits *l);

/* Operations (two per multiply-add) a second of all cores together in some milliseconds; 0 for
 * MATH_NONE. */
double limits_math(struct limits *l, enum math m);

#endif
