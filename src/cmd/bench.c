/* bench.c - `tandem bench ...`: from options to the benchmarks, which are files of their own. */
#include "cmd/bench_allreduce.h"
#include "cmd/cmd.h"

int cmd_bench_allreduce(const struct options *o, struct err *e)
{
    if (o->min > o->max)
        return err_set(e, CMD_USAGE, "bench allreduce: --min %zu is more than --max %zu", o->min,
                       o->max);
    struct bench_allreduce bench = {
        .ranks = o->ranks,
        .min_bytes = o->min,
        .max_bytes = o->max,
        .iters = o->iters,
        .json = o->json,
        .mpi = !o->no_mpi,
    };
    return bench_allreduce(&bench, e);
}
