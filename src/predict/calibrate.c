/* calibrate.c - what is measured with how many cores at work, put together. See calibrate.h. */
#include "predict/calibrate.h"
#include "predict/calibrate_inside.h"
#include "predict/fit.h"
#include "run/room.h"
#include "topo/limits.h"

#include <math.h>
#include <sys/sysinfo.h>

enum { REPEATS = 9, LIMIT_BYTES = 128 << 20, CORE_BYTES = 400 << 20, SPLIT_MOST = 8 };

/* Numbers of busy cores to measure: one, all, and with many a quarter of them, where memory may be
 * at its limit already. */
static int busy(int cores, int list[3])
{
    int n = 0;
    list[n++] = 1;
    if (cores >= 4)
        list[n++] = max_int(2, cores / 4);
    if (cores > 1)
        list[n++] = cores;
    return n;
}

/* Numbers of ranks of a group within so many cores: 2, 4, 8, 32, and all. */
static int groups(int cores, int list[8])
{
    int n = 0;
    for (int ranks = 2; ranks <= cores && ranks <= SHARES_MAX; ranks *= ranks == 8 ? 4 : 2)
        list[n++] = ranks;
    if (!n)
        list[n++] = 2;
    if (cores > list[n - 1] && cores < SHARES_MAX)
        list[n++] = cores;
    return n;
}

/* Cores of each node where all have as many; otherwise all cores count as one node's. */
static int node_cores(const struct host *host)
{
    int of[HOST_NODES] = {0};
    for (int i = 0; i < host->n_core; i++)
        of[host->core[i].at]++;
    for (int i = 0; i < host->n_node; i++)
        if (of[i] != of[0])
            return host->n_core;
    return of[0];
}

/* ------------------------------------------------------------------------------- limits */

static int measure_limits(struct hardware *h, const struct host *host, enum isa isa, struct err *e)
{
    int core[HOST_CORES];
    double read[REPEATS], math[REPEATS];
    for (int i = 0; i < host->n_core; i++)
        core[i] = host->core[i].cpu;
    struct limits *l = limits_open(core, host->n_core, LIMIT_BYTES, e);
    if (!l)
        return -ENOMEM;
    for (int i = 0; i < REPEATS; i++)
        read[i] = limits_read(l);
    h->memory_rate = fit_median(read, REPEATS);
    for (int t = 0; t < NUM_COUNT; t++) {
        enum math m = num_can_weigh((enum num)t) ? isa_math(isa, (enum num)t) : MATH_NONE;
        for (int i = 0; m != MATH_NONE && i < REPEATS; i++)
            math[i] = limits_math(l, m) / host->n_core;
        if (m != MATH_NONE)
            h->math_rate[t] = fit_median(math, REPEATS);
    }
    limits_close(l);
    return 0;
}

static int read_memory(struct hardware *h, struct err *e)
{
    struct sysinfo s;
    if (sysinfo(&s))
        return err_set(e, -errno, "cannot ask for the memory's size: %s", strerror(errno));
    double all = (double)s.totalram * s.mem_unit, free = fmin(all, (double)memory_available());
    h->memory_bytes = (struct figure){all, 0, SOURCE_MEASURED};
    h->reserve_bytes = (struct figure){all - free, 0, SOURCE_MEASURED};
    return 0;
}

/* ------------------------------------------------------------------------------- together */

static int measure_rates(struct hardware *h, struct members *g, struct err *e)
{
    int list[3], n = busy(g->host->n_core, list), rc = 0;
    const int threads = min_int(g->host->n_core, SPLIT_MOST);
    for (int i = 0; i < n && !rc; i++) {
        g->n = list[i];
        rc = calibrate_rates(g, &h->rates[h->n_rates++], e);
    }
    struct figure split = {0};
    g->n = 1;
    if (!rc && threads > 1)
        rc = calibrate_split(g, threads, &split, e);
    for (int i = 0; i < n; i++)
        h->rates[i].split_s = split;
    return rc;
}

static int measure_level(struct level *l, struct members *g, int size, int stride, struct err *e)
{
    int list[8], n = groups(size, list), rc = 0;
    l->size = size, l->same_host = true;
    g->stride = stride;
    for (int i = 0; i < n && !rc; i++) {
        g->n = list[i];
        rc = calibrate_sums(g, l, e);
    }
    g->stride = 1;
    return rc;
}

static size_t steps(int cores, int inside, int nodes)
{
    int list[8], n = busy(cores, list) * RATES_STEPS + (cores > 1);
    n += groups(inside, list) * SUMS_STEPS;
    return (size_t)(n + (nodes > 1 ? groups(nodes, list) * SUMS_STEPS : 0));
}

int calibrate(struct hardware *h, const struct host *host, const struct calibrate_opts *o,
              struct err *e)
{
    const int inside = node_cores(host), nodes = host->n_core / inside;
    struct members g = {
        .host = host, .stride = 1, .opts = o, .all = steps(host->n_core, inside, nodes)};
    size_t need = (size_t)host->n_core * CORE_BYTES, have = memory_available();
    if (need > have)
        return err_set(e, -ENOMEM,
                       "measuring %d cores takes %.1f GiB of memory, but %.1f are free: give fewer "
                       "cores, as by taskset",
                       host->n_core, (double)need * 0x1p-30, (double)have * 0x1p-30);
    h->kind = DEVICE_CPU;
    int rc = read_memory(h, e);
    if (!rc)
        rc = measure_limits(h, host, o->isa, e);
    if (!rc)
        rc = measure_rates(h, &g, e);
    snprintf(h->level[0].name, sizeof(h->level[0].name), "shared memory");
    if (!rc)
        rc = measure_level(&h->level[h->n_level++], &g, inside, 1, e);
    snprintf(h->level[1].name, sizeof(h->level[1].name), nodes > 1 ? "between NUMA nodes" : "");
    if (!rc && nodes > 1)
        rc = measure_level(&h->level[h->n_level++], &g, nodes, inside, e);
    return rc;
}
