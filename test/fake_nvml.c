/* fake_nvml.c - a library with NVML's functions and four GPUs: 0 and 1 joined by four NVLinks, 2
 * and 3 by two links to a switch each. 1 is cut into instances, 2 is for one process, 3 tells
 * little, and the file that FAKE_NVML_FAULT names, once it is there, makes 0 report an error and 1
 * fall off the bus. For test_topo and test_metrics_gpu. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pci {
    char bus_legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
};

static int gpu[4] = {0, 1, 2, 3};
static int index_of(const void *device) { return *(const int *)device; }

static int at_fault(void)
{
    const char *file = getenv("FAKE_NVML_FAULT");
    return file && !access(file, F_OK);
}

static void bus(int i, char *to) { snprintf(to, 32, "00000000:%02X:00.0", 0x17 + 0x10 * i); }

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlSystemGetDriverVersion(char *to, unsigned n);
int nvmlDeviceGetCount_v2(unsigned *n);
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **to);
int nvmlDeviceGetName(void *device, char *to, unsigned n);
int nvmlDeviceGetPciInfo_v3(void *device, struct pci *to);
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *to);
int nvmlDeviceGetCurrPcieLinkGeneration(void *device, unsigned *to);
int nvmlDeviceGetCurrPcieLinkWidth(void *device, unsigned *to);
int nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *to);
int nvmlDeviceGetNvLinkRemoteDeviceType(void *device, unsigned link, int *to);
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *device, unsigned link, struct pci *to);

int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *later);
int nvmlDeviceGetPersistenceMode(void *device, unsigned *to);
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules);
int nvmlDeviceGetFieldValues(void *device, int n, void *fields);
int nvmlDeviceGetComputeMode(void *device, int *to);
int nvmlDeviceGetUtilizationRates(void *device, unsigned *to);
int nvmlDeviceGetPowerUsage(void *device, unsigned *to);
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *to);
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *to);
int nvmlDeviceGetClockInfo(void *device, int clock, unsigned *to);
int nvmlDeviceGetTotalEccErrors(void *device, int kind, int since, unsigned long long *to);
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *to);
int nvmlDeviceGetNvLinkErrorCounter(void *device, unsigned link, int kind, unsigned long long *to);
int nvmlDeviceGetPcieReplayCounter(void *device, unsigned *to);
int nvmlEventSetCreate(void **set);
int nvmlEventSetFree(void *set);
int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set);
int nvmlEventSetWait_v2(void *set, void *to, unsigned timeout_ms);

enum { NOT_SUPPORTED = 3, TIMEOUT = 10, LOST = 15 };

/* As slow as a driver that nobody used, when asked for. */
int nvmlInit_v2(void)
{
    const char *ms = getenv("FAKE_NVML_SLOW_MS");
    if (ms)
        usleep((useconds_t)(1000 * atoi(ms)));
    return 0;
}
int nvmlShutdown(void) { return 0; }

int nvmlSystemGetDriverVersion(char *to, unsigned n)
{
    snprintf(to, n, "999.1");
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *n)
{
    *n = 4;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **to)
{
    *to = &gpu[i];
    return 0;
}

int nvmlDeviceGetName(void *device, char *to, unsigned n)
{
    snprintf(to, n, "Test GPU %c", 'A' + index_of(device));
    return 0;
}

int nvmlDeviceGetPciInfo_v3(void *device, struct pci *to)
{
    memset(to, 0, sizeof(*to));
    bus(index_of(device), to->bus_id);
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *to)
{
    if (index_of(device) == 1 && at_fault())
        return LOST;
    to[0] = 80ull << 30, to[1] = 60ull << 30, to[2] = 20ull << 30;
    return 0;
}

int nvmlDeviceGetCurrPcieLinkGeneration(void *device, unsigned *to)
{
    *to = 5;
    return index_of(device) == 3; /* one does not tell */
}

int nvmlDeviceGetCurrPcieLinkWidth(void *device, unsigned *to)
{
    (void)device;
    *to = 16;
    return 0;
}

int nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *to)
{
    *to = link < (index_of(device) < 2 ? 4 : 2);
    return link < 12 ? 0 : 3;
}

int nvmlDeviceGetNvLinkRemoteDeviceType(void *device, unsigned link, int *to)
{
    (void)link;
    *to = index_of(device) < 2 ? 0 : 2;
    return 0;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *device, unsigned link, struct pci *to)
{
    (void)link;
    memset(to, 0, sizeof(*to));
    bus(1 - index_of(device), to->bus_id);
    return 0;
}

int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *later)
{
    *now = *later = index_of(device) == 1;
    return index_of(device) == 3 ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetComputeMode(void *device, int *to)
{
    *to = index_of(device) == 2 ? 3 : 0;
    return 0;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned *to)
{
    to[0] = 87, to[1] = 42;
    return index_of(device) == 3 ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *to)
{
    *to = 512500;
    return index_of(device) == 3 ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *to)
{
    *to = 700000;
    return index_of(device) == 3 ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *to)
{
    *to = 61;
    return index_of(device) == 3 || sensor ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetClockInfo(void *device, int clock, unsigned *to)
{
    *to = clock == 1 ? 1980 : 2619;
    return index_of(device) == 3 ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetTotalEccErrors(void *device, int kind, int since, unsigned long long *to)
{
    *to = kind ? 1 : 5;
    return index_of(device) == 3 || since ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *to)
{
    *to = 0x1 | 0x4 | 0x40;
    return index_of(device) == 3 ? NOT_SUPPORTED : 0;
}

/* 2 counts errors of all links alone, 3 none. */
int nvmlDeviceGetNvLinkErrorCounter(void *device, unsigned link, int kind, unsigned long long *to)
{
    *to = link == 0 ? (unsigned long long)kind : 0;
    return index_of(device) >= 2 ? NOT_SUPPORTED : 0;
}

struct field {
    unsigned id, scope;
    long long stamp, took;
    int type, rc;
    unsigned long long value;
};

int nvmlDeviceGetFieldValues(void *device, int n, void *fields)
{
    struct field *f = fields;
    for (int i = 0; i < n; i++)
        f[i].type = 3, f[i].rc = f[i].id == 38 ? NOT_SUPPORTED : 0, f[i].value = f[i].id;
    return index_of(device) == 3 ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetPersistenceMode(void *device, unsigned *to)
{
    *to = index_of(device) != 1;
    return index_of(device) == 3 ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules)
{
    *millijoules = 1234567;
    return index_of(device) == 3 ? NOT_SUPPORTED : 0;
}

int nvmlDeviceGetPcieReplayCounter(void *device, unsigned *to)
{
    *to = 9;
    return index_of(device) == 3 ? NOT_SUPPORTED : 0;
}

/* ------------------------------------------------------------------------------- events */

static struct {
    int registered, told;
} events;

int nvmlEventSetCreate(void **set)
{
    *set = &events;
    events.told = 0;
    return 0;
}

int nvmlEventSetFree(void *set) { return set != &events; }

int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set)
{
    events.registered += set == &events && types == 8;
    return index_of(device) == 3 ? NOT_SUPPORTED : 0;
}

/* One error of GPU 0: Xid 79. */
int nvmlEventSetWait_v2(void *set, void *to, unsigned timeout_ms)
{
    struct {
        void *device;
        unsigned long long type, data;
        unsigned instance[2];
    } event = {&gpu[0], 8, 79, {0, 0}};
    (void)timeout_ms;
    if (set != &events || !events.registered || events.told || !at_fault())
        return TIMEOUT;
    events.told = 1;
    memcpy(to, &event, sizeof(event));
    return 0;
}
