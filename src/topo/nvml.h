/* nvml.h - the NVIDIA GPUs of this host and the NVLinks between them, asked of the driver's own
 * library when that is there. Nothing else knows NVML; it is neither linked nor needed. */
#ifndef TANDEM_TOPO_NVML_H
#define TANDEM_TOPO_NVML_H

#include "base/base.h"

enum { NVML_GPUS = 32 };

/* Who may compute on a GPU, by NVML's numbers (1 is no longer in use). */
enum gpu_mode { GPU_SHARED, GPU_ONE_THREAD, GPU_PROHIBITED, GPU_ONE_PROCESS, GPU_MODES };

struct nvml {
    char driver[64]; /* its version; "" when there is none */
    int n;
    struct nvml_gpu {
        char name[64], bus[32]; /* bus: "00000000:17:00.0", domain, bus, device, function */
        double memory_bytes;
        int pcie_generation, pcie_width; /* as they are now; 0: not told */
        bool mig;    /* cut into instances (MIG), which alone can be computed on */
        bool sleeps; /* persistence mode is off: the driver forgets it when nobody uses it */
        enum gpu_mode mode;
        int switch_links;     /* NVLinks to switches, which join all that have some */
        int links[NVML_GPUS]; /* NVLinks to the other GPU itself */
    } gpu[NVML_GPUS];
};

/* Whether two names of buses are one: "0000:17:00.0" and "00000000:17:00.0" are. */
bool nvml_same_bus(const char *a, const char *b);

/* Whether there is such a library; as quick as opening it is, for it is not begun. */
bool nvml_there(const char *library);

/* Ask `library` (NULL: libnvidia-ml.so.1), which may take the driver a second or two. Without it or
 * its driver: -ENOENT with one sentence, and no GPUs. */
int nvml_read(struct nvml *to, const char *library, struct err *e);

#endif
