/* gpu_time.h - how kernels are timed, and what ends a benchmark. For bench/gpu*.c. */
#ifndef TANDEM_BENCH_GPU_TIME_H
#define TANDEM_BENCH_GPU_TIME_H

#include "dev/cuda/runtime.h"

#include <stdio.h>
#include <stdlib.h>

enum { TURNS = 5 };

/* Every failure ends the program: there is nothing to go on with. */
static inline void ok(int error, const char *what)
{
    if (!error)
        return;
    fprintf(stderr, "tandem-bench-gpu: %s: %s\n", what, gpu_error(error));
    exit(1);
}

struct timing {
    void *stream, *from, *to;
    double least_s; /* of a turn so far */
};

static inline struct timing timing_new(void *stream)
{
    struct timing t = {.stream = stream, .least_s = 1e9};
    ok(gpu_mark_new(&t.from), "mark");
    ok(gpu_mark_new(&t.to), "mark");
    return t;
}

/* What was recorded, once more. The GPU is kept busy by the same before, so that the time between
 * the marks is not that of a launch. */
static inline void timing_turn(struct timing *t, void *recorded)
{
    double s;
    ok(gpu_replay(recorded, t->stream), "replay");
    ok(gpu_mark(t->from, t->stream), "mark");
    ok(gpu_replay(recorded, t->stream), "replay");
    ok(gpu_mark(t->to, t->stream), "mark");
    ok(gpu_wait(t->stream), "replay");
    ok(gpu_mark_seconds(&s, t->from, t->to), "mark");
    t->least_s = s < t->least_s ? s : t->least_s;
}

#endif
