/* nvml.c - see nvml.h. Declares what it uses of NVML's stable interface itself, so that no header
 * of NVIDIA's is needed to build. */
#include "topo/nvml.h"

#include <dlfcn.h>

enum { OK = 0, LINKS_MAX = 18, REMOTE_SWITCH = 2 };

struct pci {
    char bus_legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
};

struct memory {
    unsigned long long total, free, used;
};

/* A function of the library by name; -1 where a driver lacks it. */
#define CALL(library, name, types, ...)                                                            \
    (dlsym(library, name) ? ((union {                                                              \
                                void *at;                                                          \
                                int(*call) types;                                                  \
                            }){.at = dlsym(library, name)})                                        \
                                .call(__VA_ARGS__)                                                 \
                          : -1)

bool nvml_same_bus(const char *a, const char *b)
{
    unsigned x[4], y[4];
    return sscanf(a, "%x:%x:%x.%x", &x[0], &x[1], &x[2], &x[3]) == 4 &&
           sscanf(b, "%x:%x:%x.%x", &y[0], &y[1], &y[2], &y[3]) == 4 && !memcmp(x, y, sizeof(x));
}

static void read_gpu(void *library, void *device, struct nvml_gpu *g)
{
    struct pci pci = {.bus_id = ""};
    struct memory memory = {0};
    unsigned generation = 0, width = 0;
    if (CALL(library, "nvmlDeviceGetName", (void *, char *, unsigned), device, g->name,
             (unsigned)sizeof(g->name)) != OK)
        snprintf(g->name, sizeof(g->name), "NVIDIA GPU");
    if (CALL(library, "nvmlDeviceGetPciInfo_v3", (void *, struct pci *), device, &pci) == OK)
        snprintf(g->bus, sizeof(g->bus), "%.31s", pci.bus_id);
    if (CALL(library, "nvmlDeviceGetMemoryInfo", (void *, struct memory *), device, &memory) == OK)
        g->memory_bytes = (double)memory.total;
    if (CALL(library, "nvmlDeviceGetCurrPcieLinkGeneration", (void *, unsigned *), device,
             &generation) == OK)
        g->pcie_generation = (int)generation;
    if (CALL(library, "nvmlDeviceGetCurrPcieLinkWidth", (void *, unsigned *), device, &width) == OK)
        g->pcie_width = (int)width;
}

/* Where each active NVLink of GPU i ends. */
static void read_links(void *library, void *device, struct nvml *to, int i)
{
    for (unsigned link = 0; link < LINKS_MAX; link++) {
        struct pci far = {.bus_id = ""};
        unsigned active = 0;
        int kind = 0;
        if (CALL(library, "nvmlDeviceGetNvLinkState", (void *, unsigned, unsigned *), device, link,
                 &active) != OK ||
            !active)
            continue;
        if (CALL(library, "nvmlDeviceGetNvLinkRemoteDeviceType", (void *, unsigned, int *), device,
                 link, &kind) == OK &&
            kind == REMOTE_SWITCH) {
            to->gpu[i].switch_links++;
            continue;
        }
        if (CALL(library, "nvmlDeviceGetNvLinkRemotePciInfo_v2", (void *, unsigned, struct pci *),
                 device, link, &far) != OK)
            continue;
        for (int k = 0; k < to->n; k++)
            to->gpu[i].links[k] += k != i && nvml_same_bus(far.bus_id, to->gpu[k].bus);
    }
}

static void read_all(void *library, struct nvml *to)
{
    void *device[NVML_GPUS] = {NULL};
    unsigned n = 0;
    CALL(library, "nvmlSystemGetDriverVersion", (char *, unsigned), to->driver,
         (unsigned)sizeof(to->driver));
    if (CALL(library, "nvmlDeviceGetCount_v2", (unsigned *), &n) != OK)
        n = 0;
    to->n = min_int((int)n, NVML_GPUS);
    for (int i = 0; i < to->n; i++)
        if (CALL(library, "nvmlDeviceGetHandleByIndex_v2", (unsigned, void **), (unsigned)i,
                 &device[i]) == OK)
            read_gpu(library, device[i], &to->gpu[i]);
    for (int i = 0; i < to->n; i++)
        if (device[i])
            read_links(library, device[i], to, i);
}

int nvml_read(struct nvml *to, const char *name, struct err *e)
{
    memset(to, 0, sizeof(*to));
    void *library = dlopen(name ? name : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return err_set(e, -ENOENT, "no NVIDIA driver here (libnvidia-ml.so.1 is not found)");
    int rc = CALL(library, "nvmlInit_v2", (void));
    if (rc == OK) {
        read_all(library, to);
        CALL(library, "nvmlShutdown", (void));
    }
    dlclose(library);
    return rc == OK ? 0
                    : err_set(e, -ENOENT, "the NVIDIA driver does not answer (NVML says %d)", rc);
}
