/* profile.h - a device around another one that notes how long each operation takes.
 *
 * The times stand wherever the owner wants them, such as in shared memory, where another process
 * reads them while the device works. Only the device writes; the numbers only grow.
 */
#ifndef TANDEM_PROFILE_H
#define TANDEM_PROFILE_H

#include "dev/dev.h"

#include <stdatomic.h>

enum op {
    OP_BEGIN,
    OP_EMBED,
    OP_NORM,
    OP_SQUARES,
    OP_NORM_BY,
    OP_CLIP,
    OP_MATMUL,
    OP_PARTIAL,
    OP_ADD,
    OP_ROPE,
    OP_STORE,
    OP_ATTEND,
    OP_SWIGLU,
    OP_ROUTE,
    OP_DEAL,
    OP_EXPERTS,
    OP_SETTLE,
    OP_PICK,
    OP_ADD_NORM,
    OP_ROPE_STORE,
    OP_GLU,
    OP_FETCH,
    OP_TOGETHER,
    OP_COUNT
};

const char *op_name(enum op op); /* "embed", "norm" ...; "draw" for OP_TOGETHER */

/* Of one operation: nanoseconds on the thread that calls, and how many of these it waited for the
 * device's other threads. */
struct op_time {
    _Atomic uint64_t calls, ns, wait_ns;
};

struct profile {
    struct dev *inner;
    struct op_time *op; /* [OP_COUNT], not owned */
    struct dev_ops ops; /* made by dev_profile_init() */
};

/* Make d a device that does what p->inner does and adds to p->op. p must outlive it. */
void dev_profile_init(struct dev *d, struct profile *p);

#endif
