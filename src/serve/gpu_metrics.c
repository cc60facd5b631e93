/* gpu_metrics.c - see gpu_metrics.h. */
#include "serve/gpu_metrics.h"
#include "base/metric.h"
#include "topo/nvml_live.h"

#include <pthread.h>
#include <stddef.h>
#include <time.h>

enum { EVERY_S = 1, LAST_WORDS_S = 2 };

struct gpu_metrics {
    pthread_t thread;
    pthread_mutex_t lock; /* of all below but live, which is the thread's */
    pthread_cond_t wake;
    bool stop;
    int n; /* 0: none, or the driver has not told yet */
    const char *library;
    struct nvml about;
    struct nvml_now now[NVML_GPUS];
    double xid[NVML_GPUS], n_xid[NVML_GPUS], taken_s;
    struct nvml_live live;
};

/* ------------------------------------------------------------------------------- asking */

static struct timespec after(clockid_t clock, int seconds)
{
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_sec += seconds;
    return t;
}

static double seconds_now(void)
{
    struct timespec t = after(CLOCK_MONOTONIC, 0);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Errors that the driver reports are told at once, once. */
static void tell(const struct gpu_metrics *g)
{
    const struct nvml_live *x = &g->live;
    for (int i = 0; i < g->n; i++)
        if (x->n_xid[i] > g->n_xid[i])
            fprintf(stderr,
                    "tandem: GPU %d (%s at %s): the driver reports Xid %.0f; see its table of Xid "
                    "errors\n",
                    i, g->about.gpu[i].name, g->about.gpu[i].bus, x->xid[i]);
}

/* Called and left with the lock held, but without it while the driver is asked. */
static void ask(struct gpu_metrics *g)
{
    struct nvml_now now[NVML_GPUS];
    pthread_mutex_unlock(&g->lock);
    nvml_live_read(&g->live, now);
    pthread_mutex_lock(&g->lock);
    tell(g);
    memcpy(g->now, now, sizeof(now));
    memcpy(g->xid, g->live.xid, sizeof(g->xid));
    memcpy(g->n_xid, g->live.n_xid, sizeof(g->n_xid));
    g->taken_s = seconds_now();
}

/* The driver may take seconds to begin, so it is this thread that waits for it. */
static bool begin(struct gpu_metrics *g)
{
    struct err ignored;
    if (nvml_live_open(&g->live, g->library, &ignored))
        return false;
    pthread_mutex_lock(&g->lock);
    g->n = g->live.n;
    g->about = g->live.about;
    pthread_mutex_unlock(&g->lock);
    return g->live.n > 0;
}

static void *watch(void *arg)
{
    struct gpu_metrics *g = arg;
    if (!begin(g))
        return NULL;
    pthread_mutex_lock(&g->lock);
    while (!g->stop) {
        ask(g);
        struct timespec until = after(CLOCK_REALTIME, EVERY_S);
        if (!g->stop)
            pthread_cond_timedwait(&g->wake, &g->lock, &until);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

struct gpu_metrics *gpu_metrics_start(const char *library)
{
    if (!nvml_there(library))
        return NULL;
    struct gpu_metrics *g = calloc(1, sizeof(*g));
    must(g);
    g->library = library;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->wake, NULL);
    must(!pthread_create(&g->thread, NULL, watch, g));
    return g;
}

void gpu_metrics_stop(struct gpu_metrics *g)
{
    if (!g)
        return;
    pthread_mutex_lock(&g->lock);
    g->stop = true;
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
    struct timespec until = after(CLOCK_REALTIME, LAST_WORDS_S);
    if (pthread_timedjoin_np(g->thread, NULL, &until)) {
        pthread_detach(g->thread); /* it waits for the driver, with this memory */
        return;
    }
    nvml_live_close(&g->live);
    pthread_cond_destroy(&g->wake);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

/* ------------------------------------------------------------------------------- writing */

static const struct {
    const char *name, *type, *help;
    size_t at; /* of a double in struct nvml_now */
} figures[] = {
    {"tandem:gpu_utilization", "gauge", "Share of the last second with a kernel running.",
     offsetof(struct nvml_now, busy)},
    {"tandem:gpu_memory_utilization", "gauge", "Share of it with memory being read or written.",
     offsetof(struct nvml_now, memory_busy)},
    {"tandem:gpu_memory_used_bytes", "gauge", "Memory in use, by all processes.",
     offsetof(struct nvml_now, memory_used)},
    {"tandem:gpu_memory_free_bytes", "gauge", "Memory that is free.",
     offsetof(struct nvml_now, memory_free)},
    {"tandem:gpu_power_watts", "gauge", "Power drawn.", offsetof(struct nvml_now, power_w)},
    {"tandem:gpu_power_limit_watts", "gauge", "Power it may draw.",
     offsetof(struct nvml_now, power_limit_w)},
    {"tandem:gpu_energy_joules_total", "counter", "Energy drawn since the driver was loaded.",
     offsetof(struct nvml_now, energy_j)},
    {"tandem:gpu_temperature_celsius", "gauge", "Temperature of the chip.",
     offsetof(struct nvml_now, celsius)},
    {"tandem:gpu_sm_clock_hertz", "gauge", "Clock of the multiprocessors.",
     offsetof(struct nvml_now, sm_hz)},
    {"tandem:gpu_ecc_corrected_errors_total", "counter",
     "Memory errors that were corrected, since the driver was loaded.",
     offsetof(struct nvml_now, ecc_corrected)},
    {"tandem:gpu_ecc_uncorrected_errors_total", "counter",
     "Memory errors that were not, since the driver was loaded.",
     offsetof(struct nvml_now, ecc_uncorrected)},
    {"tandem:gpu_nvlinks_up", "gauge", "NVLinks that are up.", offsetof(struct nvml_now, nvlinks)},
    {"tandem:gpu_nvlink_errors_total", "counter", "CRC errors, replays and recoveries on them.",
     offsetof(struct nvml_now, nvlink_errors)},
    {"tandem:gpu_pcie_generation", "gauge", "Of PCI Express, as it is now.",
     offsetof(struct nvml_now, pcie_generation)},
    {"tandem:gpu_pcie_lanes", "gauge", "Of PCI Express, as they are now.",
     offsetof(struct nvml_now, pcie_width)},
    {"tandem:gpu_pcie_replays_total", "counter", "Transfers on PCI Express that were repeated.",
     offsetof(struct nvml_now, pcie_replays)},
};

static const struct {
    const char *name;
    unsigned bit;
} slowed_by[] = {{"power_cap", GPU_SLOWED_POWER_CAP},
                 {"hardware", GPU_SLOWED_HARDWARE},
                 {"software_thermal", GPU_SLOWED_SOFTWARE_THERMAL},
                 {"hardware_thermal", GPU_SLOWED_HARDWARE_THERMAL},
                 {"power_brake", GPU_SLOWED_POWER_BRAKE}};

/* labels,gpu="0",more */
static void put(FILE *to, const char *name, const char *labels, int gpu, const char *more,
                double value)
{
    char all[640];
    snprintf(all, sizeof(all), "%s%sgpu=\"%d\"%s", labels, *labels ? "," : "", gpu, more);
    metric_value(to, name, all, value);
}

static void put_all(FILE *to, const struct gpu_metrics *g, const char *labels, const char *name,
                    const char *type, const char *help, const double *value)
{
    metric_family(to, name, type, help);
    for (int i = 0; i < g->n; i++)
        put(to, name, labels, i, "", value[i]);
}

static void put_figures(FILE *to, const struct gpu_metrics *g, const char *labels)
{
    for (size_t k = 0; k < COUNT(figures); k++) {
        bool begun = false;
        for (int i = 0; i < g->n; i++) {
            double value;
            memcpy(&value, (const char *)&g->now[i] + figures[k].at, sizeof(value));
            if (value < 0)
                continue;
            if (!begun)
                metric_family(to, figures[k].name, figures[k].type, figures[k].help);
            begun = true;
            put(to, figures[k].name, labels, i, "", value);
        }
    }
}

static void put_slowed(FILE *to, const struct gpu_metrics *g, const char *labels)
{
    static const char name[] = "tandem:gpu_slowed";
    metric_family(to, name, "gauge", "Whether clocks are lowered now, by why.");
    for (int i = 0; i < g->n; i++)
        for (size_t k = 0; g->now[i].slowed >= 0 && k < COUNT(slowed_by); k++) {
            char more[64];
            snprintf(more, sizeof(more), ",why=\"%s\"", slowed_by[k].name);
            put(to, name, labels, i, more, ((unsigned)g->now[i].slowed & slowed_by[k].bit) != 0);
        }
}

static void put_about(FILE *to, const struct gpu_metrics *g, const char *labels)
{
    static const char name[] = "tandem:gpu_info";
    metric_family(to, name, "gauge", "The GPUs of this host.");
    for (int i = 0; i < g->n; i++) {
        const struct nvml_gpu *gpu = &g->about.gpu[i];
        char more[320], what[96], driver[96];
        metric_escape(what, sizeof(what), gpu->name);
        metric_escape(driver, sizeof(driver), g->about.driver);
        snprintf(more, sizeof(more), ",name=\"%s\",bus=\"%s\",driver=\"%s\",mig=\"%s\"", what,
                 gpu->bus, driver, gpu->mig ? "on" : "off");
        put(to, name, labels, i, more, 1);
    }
}

void gpu_metrics_write(FILE *to, struct gpu_metrics *g, const char *labels)
{
    double lost[NVML_GPUS];
    if (!g)
        return;
    pthread_mutex_lock(&g->lock);
    if (g->n)
        put_about(to, g, labels);
    if (g->taken_s > 0) {
        for (int i = 0; i < g->n; i++)
            lost[i] = g->now[i].lost;
        put_figures(to, g, labels);
        put_slowed(to, g, labels);
        put_all(to, g, labels, "tandem:gpu_lost", "gauge", "Fallen off the bus.", lost);
        put_all(to, g, labels, "tandem:gpu_xid_errors_total", "counter",
                "Errors that the driver reported since the server began.", g->n_xid);
        put_all(to, g, labels, "tandem:gpu_last_xid", "gauge", "The number of the last; 0: none.",
                g->xid);
        metric_family(to, "tandem:gpu_sample_age_seconds", "gauge",
                      "Since the driver last answered; grows when it hangs.");
        metric_value(to, "tandem:gpu_sample_age_seconds", labels, seconds_now() - g->taken_s);
    }
    pthread_mutex_unlock(&g->lock);
}
