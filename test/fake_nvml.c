/* fake_nvml.c - a library with NVML's functions and four GPUs: 0 and 1 joined by four NVLinks, 2
 * and 3 by two links to a switch each. For test_topo. */
#include <stdio.h>
#include <string.h>

struct pci {
    char bus_legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
};

static int gpu[4] = {0, 1, 2, 3};
static int index_of(const void *device) { return *(const int *)device; }

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

int nvmlInit_v2(void) { return 0; }
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
    (void)device;
    to[0] = 80ull << 30, to[1] = to[2] = 0;
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
