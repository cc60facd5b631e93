/* nvml.c - see nvml.h and nvml_call.h. */
#include "topo/nvml_call.h"

enum { REMOTE_SWITCH = 2 };

struct pci {
    char bus_legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
};

bool nvml_same_bus(const char *a, const char *b)
{
    unsigned x[4], y[4];
    return sscanf(a, "%x:%x:%x.%x", &x[0], &x[1], &x[2], &x[3]) == 4 &&
           sscanf(b, "%x:%x:%x.%x", &y[0], &y[1], &y[2], &y[3]) == 4 && !memcmp(x, y, sizeof(x));
}

static void read_gpu(void *library, void *device, struct nvml_gpu *g)
{
    struct pci pci = {.bus_id = ""};
    struct nvml_memory memory = {0};
    unsigned generation = 0, width = 0, mig = 0, mig_later, persists = 1;
    int mode = GPU_SHARED;
    if (NVML_CALL(library, "nvmlDeviceGetName", (void *, char *, unsigned), device, g->name,
                  (unsigned)sizeof(g->name)) != NVML_OK)
        snprintf(g->name, sizeof(g->name), "NVIDIA GPU");
    if (NVML_CALL(library, "nvmlDeviceGetPciInfo_v3", (void *, struct pci *), device, &pci) ==
        NVML_OK)
        snprintf(g->bus, sizeof(g->bus), "%.31s", pci.bus_id);
    if (NVML_CALL(library, "nvmlDeviceGetMemoryInfo", (void *, struct nvml_memory *), device,
                  &memory) == NVML_OK)
        g->memory_bytes = (double)memory.total;
    if (NVML_CALL(library, "nvmlDeviceGetCurrPcieLinkGeneration", (void *, unsigned *), device,
                  &generation) == NVML_OK)
        g->pcie_generation = (int)generation;
    if (NVML_CALL(library, "nvmlDeviceGetCurrPcieLinkWidth", (void *, unsigned *), device,
                  &width) == NVML_OK)
        g->pcie_width = (int)width;
    if (NVML_CALL(library, "nvmlDeviceGetMigMode", (void *, unsigned *, unsigned *), device, &mig,
                  &mig_later) == NVML_OK)
        g->mig = mig == 1;
    if (NVML_CALL(library, "nvmlDeviceGetPersistenceMode", (void *, unsigned *), device,
                  &persists) == NVML_OK)
        g->sleeps = !persists;
    if (NVML_CALL(library, "nvmlDeviceGetComputeMode", (void *, int *), device, &mode) == NVML_OK &&
        0 <= mode && mode < GPU_MODES)
        g->mode = (enum gpu_mode)mode;
}

/* Where each active NVLink of GPU i ends. */
static void read_links(void *library, void *device, struct nvml *to, int i)
{
    for (unsigned link = 0; link < NVML_LINKS; link++) {
        struct pci far = {.bus_id = ""};
        unsigned active = 0;
        int kind = 0;
        if (NVML_CALL(library, "nvmlDeviceGetNvLinkState", (void *, unsigned, unsigned *), device,
                      link, &active) != NVML_OK ||
            !active)
            continue;
        if (NVML_CALL(library, "nvmlDeviceGetNvLinkRemoteDeviceType", (void *, unsigned, int *),
                      device, link, &kind) == NVML_OK &&
            kind == REMOTE_SWITCH) {
            to->gpu[i].switch_links++;
            continue;
        }
        if (NVML_CALL(library, "nvmlDeviceGetNvLinkRemotePciInfo_v2",
                      (void *, unsigned, struct pci *), device, link, &far) != NVML_OK)
            continue;
        for (int k = 0; k < to->n; k++)
            to->gpu[i].links[k] += k != i && nvml_same_bus(far.bus_id, to->gpu[k].bus);
    }
}

static void *open_library(const char *name)
{
    return dlopen(name ? name : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
}

bool nvml_there(const char *library)
{
    void *at = open_library(library);
    if (at)
        dlclose(at);
    return at;
}

int nvml_begin(void **library, const char *name, struct err *e)
{
    *library = open_library(name);
    if (!*library)
        return err_set(e, -ENOENT, "no NVIDIA driver here (libnvidia-ml.so.1 is not found)");
    int rc = NVML_CALL(*library, "nvmlInit_v2", (void));
    if (rc == NVML_OK)
        return 0;
    dlclose(*library);
    *library = NULL;
    return err_set(e, -ENOENT, "the NVIDIA driver does not answer (NVML says %d)", rc);
}

void nvml_end(void *library)
{
    NVML_CALL(library, "nvmlShutdown", (void));
    dlclose(library);
}

int nvml_devices(void *library, void *device[NVML_GPUS])
{
    unsigned n = 0;
    if (NVML_CALL(library, "nvmlDeviceGetCount_v2", (unsigned *), &n) != NVML_OK)
        return 0;
    n = n < NVML_GPUS ? n : NVML_GPUS;
    for (unsigned i = 0; i < n; i++)
        if (NVML_CALL(library, "nvmlDeviceGetHandleByIndex_v2", (unsigned, void **), i,
                      &device[i]) != NVML_OK)
            device[i] = NULL;
    return (int)n;
}

void nvml_tell(struct nvml *to, void *library)
{
    void *device[NVML_GPUS] = {NULL};
    memset(to, 0, sizeof(*to));
    NVML_CALL(library, "nvmlSystemGetDriverVersion", (char *, unsigned), to->driver,
              (unsigned)sizeof(to->driver));
    to->n = nvml_devices(library, device);
    for (int i = 0; i < to->n; i++)
        if (device[i])
            read_gpu(library, device[i], &to->gpu[i]);
    for (int i = 0; i < to->n; i++)
        if (device[i])
            read_links(library, device[i], to, i);
}

int nvml_read(struct nvml *to, const char *name, struct err *e)
{
    void *library;
    memset(to, 0, sizeof(*to));
    int rc = nvml_begin(&library, name, e);
    if (rc)
        return rc;
    nvml_tell(to, library);
    nvml_end(library);
    return 0;
}
