/* nvml_live.c - see nvml_live.h. */
#include "topo/nvml_live.h"
#include "topo/nvml_call.h"

enum {
    TEMPERATURE_CHIP = 0,
    CLOCK_SM = 1,
    ECC_CORRECTED = 0,
    ECC_UNCORRECTED = 1,
    ECC_VOLATILE = 0,
    LINK_COUNTERS = 4,
    EVENT_XID = 8
};

struct utilization {
    unsigned gpu, memory; /* percent */
};

static const struct nvml_now untold = {.busy = -1,
                                       .memory_busy = -1,
                                       .memory_used = -1,
                                       .memory_free = -1,
                                       .power_w = -1,
                                       .energy_j = -1,
                                       .power_limit_w = -1,
                                       .celsius = -1,
                                       .sm_hz = -1,
                                       .ecc_corrected = -1,
                                       .ecc_uncorrected = -1,
                                       .nvlinks = -1,
                                       .nvlink_errors = -1,
                                       .pcie_generation = -1,
                                       .pcie_width = -1,
                                       .pcie_replays = -1,
                                       .slowed = -1};

struct event {
    void *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

/* ------------------------------------------------------------------------------- one figure */

static double whole(void *library, const char *name, void *device)
{
    unsigned value = 0;
    return NVML_CALL(library, name, (void *, unsigned *), device, &value) ? -1 : (double)value;
}

static double chosen(void *library, const char *name, void *device, int which)
{
    unsigned value = 0;
    return NVML_CALL(library, name, (void *, int, unsigned *), device, which, &value)
               ? -1
               : (double)value;
}

static double times(double value, double unit) { return value < 0 ? -1 : value * unit; }

static double ecc(void *library, void *device, int kind)
{
    unsigned long long errors = 0;
    return NVML_CALL(library, "nvmlDeviceGetTotalEccErrors",
                     (void *, int, int, unsigned long long *), device, kind, ECC_VOLATILE, &errors)
               ? -1
               : (double)errors;
}

/* The newer name first. */
static double slowed(void *library, void *device)
{
    unsigned long long why = 0;
    if (!NVML_CALL(library, "nvmlDeviceGetCurrentClocksEventReasons",
                   (void *, unsigned long long *), device, &why) ||
        !NVML_CALL(library, "nvmlDeviceGetCurrentClocksThrottleReasons",
                   (void *, unsigned long long *), device, &why))
        return (double)(why & 0xffffff);
    return -1;
}

/* As nvmlFieldValue_t. */
struct field {
    unsigned id, scope;
    long long stamp_us, took_us;
    int type, rc;
    union {
        double real;
        unsigned whole;
        unsigned long long large;
    } value;
};

/* Errors of all links, of GPUs that do not count them by link: Hopper and later. -1: not told. */
static double link_errors(void *library, void *device)
{
    enum { FLIT_CRC = 38, DATA_CRC = 45, REPLAY = 52, RECOVERY = 59, REAL = 0, WHOLE = 1 };
    struct field f[LINK_COUNTERS] = {
        {.id = FLIT_CRC}, {.id = DATA_CRC}, {.id = REPLAY}, {.id = RECOVERY}};
    double all = -1;
    if (NVML_CALL(library, "nvmlDeviceGetFieldValues", (void *, int, struct field *), device,
                  LINK_COUNTERS, f))
        return -1;
    for (int i = 0; i < LINK_COUNTERS; i++)
        if (!f[i].rc)
            all = (all < 0 ? 0 : all) + (f[i].type == REAL    ? f[i].value.real
                                         : f[i].type == WHOLE ? f[i].value.whole
                                                              : (double)f[i].value.large);
    return all;
}

static double energy(void *library, void *device)
{
    unsigned long long millijoules = 0;
    return NVML_CALL(library, "nvmlDeviceGetTotalEnergyConsumption", (void *, unsigned long long *),
                     device, &millijoules)
               ? -1
               : 1e-3 * (double)millijoules;
}

static void read_links(void *library, void *device, struct nvml_now *to)
{
    for (unsigned link = 0; link < NVML_LINKS; link++) {
        unsigned active = 0;
        if (NVML_CALL(library, "nvmlDeviceGetNvLinkState", (void *, unsigned, unsigned *), device,
                      link, &active))
            continue;
        to->nvlinks = (to->nvlinks < 0 ? 0 : to->nvlinks) + (active != 0);
        for (int i = 0; active && i < LINK_COUNTERS; i++) {
            unsigned long long errors = 0;
            if (!NVML_CALL(library, "nvmlDeviceGetNvLinkErrorCounter",
                           (void *, unsigned, int, unsigned long long *), device, link, i, &errors))
                to->nvlink_errors =
                    (to->nvlink_errors < 0 ? 0 : to->nvlink_errors) + (double)errors;
        }
    }
    if (to->nvlinks > 0 && to->nvlink_errors < 0)
        to->nvlink_errors = link_errors(library, device);
}

/* ------------------------------------------------------------------------------- one GPU */

static void read_now(void *library, void *device, struct nvml_now *to)
{
    struct utilization use;
    struct nvml_memory memory;
    *to = untold;
    int rc = NVML_CALL(library, "nvmlDeviceGetMemoryInfo", (void *, struct nvml_memory *), device,
                       &memory);
    to->lost = rc == NVML_LOST;
    if (to->lost)
        return; /* nothing else would be answered */
    if (!rc)
        to->memory_used = (double)memory.used, to->memory_free = (double)memory.free;
    if (!NVML_CALL(library, "nvmlDeviceGetUtilizationRates", (void *, struct utilization *), device,
                   &use))
        to->busy = 0.01 * use.gpu, to->memory_busy = 0.01 * use.memory;
    to->power_w = times(whole(library, "nvmlDeviceGetPowerUsage", device), 1e-3);
    to->power_limit_w = times(whole(library, "nvmlDeviceGetEnforcedPowerLimit", device), 1e-3);
    to->energy_j = energy(library, device);
    to->celsius = chosen(library, "nvmlDeviceGetTemperature", device, TEMPERATURE_CHIP);
    to->sm_hz = times(chosen(library, "nvmlDeviceGetClockInfo", device, CLOCK_SM), 1e6);
    to->ecc_corrected = ecc(library, device, ECC_CORRECTED);
    to->ecc_uncorrected = ecc(library, device, ECC_UNCORRECTED);
    to->pcie_generation = whole(library, "nvmlDeviceGetCurrPcieLinkGeneration", device);
    to->pcie_width = whole(library, "nvmlDeviceGetCurrPcieLinkWidth", device);
    to->pcie_replays = whole(library, "nvmlDeviceGetPcieReplayCounter", device);
    to->slowed = slowed(library, device);
    read_links(library, device, to);
}

/* Reports of errors that have come since. */
static void read_xids(struct nvml_live *x)
{
    struct event ev;
    while (x->events && !NVML_CALL(x->library, "nvmlEventSetWait_v2",
                                   (void *, struct event *, unsigned), x->events, &ev, 0))
        for (int i = 0; i < x->n; i++)
            if (x->device[i] == ev.device && ev.type == EVENT_XID)
                x->xid[i] = (double)ev.data, x->n_xid[i]++;
}

/* ------------------------------------------------------------------------------- all */

int nvml_live_open(struct nvml_live *x, const char *library, struct err *e)
{
    memset(x, 0, sizeof(*x));
    int rc = nvml_begin(&x->library, library, e);
    if (rc)
        return rc;
    nvml_tell(&x->about, x->library);
    x->n = nvml_devices(x->library, x->device);
    if (NVML_CALL(x->library, "nvmlEventSetCreate", (void **), &x->events))
        x->events = NULL;
    for (int i = 0; x->events && i < x->n; i++)
        NVML_CALL(x->library, "nvmlDeviceRegisterEvents", (void *, unsigned long long, void *),
                  x->device[i], EVENT_XID, x->events);
    return 0;
}

void nvml_live_read(struct nvml_live *x, struct nvml_now now[NVML_GPUS])
{
    for (int i = 0; i < x->n; i++) {
        if (x->device[i])
            read_now(x->library, x->device[i], &now[i]);
        else
            now[i] = untold, now[i].lost = true;
    }
    read_xids(x);
}

void nvml_live_close(struct nvml_live *x)
{
    if (x->events)
        NVML_CALL(x->library, "nvmlEventSetFree", (void *), x->events);
    if (x->library)
        nvml_end(x->library);
    memset(x, 0, sizeof(*x));
}
