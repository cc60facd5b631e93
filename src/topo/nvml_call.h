/* nvml_call.h - calls into the driver's library by name, for nvml.c and nvml_live.c. What is used
 * of NVML's stable interface is declared here and there, so that no header of NVIDIA's is needed.
 */
#ifndef TANDEM_TOPO_NVML_CALL_H
#define TANDEM_TOPO_NVML_CALL_H

#include "topo/nvml.h"

#include <dlfcn.h>

enum { NVML_OK = 0, NVML_LOST = 15, NVML_LINKS = 18 };

struct nvml_memory {
    unsigned long long total, free, used;
};

/* A function of the library by name; -1 where a driver lacks it. */
#define NVML_CALL(library, name, types, ...)                                                       \
    (dlsym(library, name) ? ((union {                                                              \
                                void *at;                                                          \
                                int(*call) types;                                                  \
                            }){.at = dlsym(library, name)})                                        \
                                .call(__VA_ARGS__)                                                 \
                          : -1)

/* Open `name` (NULL: libnvidia-ml.so.1) and begin; as nvml_read(). */
int nvml_begin(void **library, const char *name, struct err *e);
void nvml_end(void *library);

/* What they are, by a library that has begun. */
void nvml_tell(struct nvml *to, void *library);

/* GPUs that the driver shows, at most NVML_GPUS; device[i]: NULL where it gives no handle. */
int nvml_devices(void *library, void *device[NVML_GPUS]);

#endif
