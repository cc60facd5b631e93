/* cuda.c - the plugin: what src/dev/plugin.h promises, over runtime.h. */
#include "dev/cuda/runtime.h"
#include "dev/plugin.h"

/* ------------------------------------------------------------------------------- which GPUs */

/* Why the driver cannot be used, in the user's words. */
static int no_driver(int code, struct err *e)
{
    int have, need;
    gpu_driver(&have, &need);
    if (!have)
        return err_set(e, -ENODEV, "no NVIDIA driver here: install one for CUDA %d.%d or later",
                       need / 1000, need % 1000 / 10);
    if (have / 1000 < need / 1000)
        return err_set(e, -ENODEV,
                       "the NVIDIA driver is too old: it is for CUDA %d.%d, the GPU plugin needs "
                       "%d.0 or later",
                       have / 1000, have % 1000 / 10, need / 1000);
    return err_set(e, -ENODEV, "the NVIDIA driver shows no GPU (%s)", gpu_error(code));
}

static int list_gpus(struct gpu *to, int *n, struct err *e)
{
    int found = 0, rc = gpu_count(&found);
    *n = 0;
    if (rc || !found)
        return no_driver(rc, e);
    for (int i = 0; i < min_int(found, GPUS); i++) {
        struct gpu_about a;
        rc = gpu_use(i);
        if (!rc)
            rc = gpu_about(i, &a);
        if (rc)
            return err_set(e, -ENODEV, "GPU %d cannot be used: %s", i, gpu_error(rc));
        to[i] = (struct gpu){
            .arch = a.arch, .sm = a.sm, .memory = a.memory, .memory_free = a.memory_free};
        memcpy(to[i].name, a.name, sizeof(a.name));
        memcpy(to[i].bus, a.bus, sizeof(a.bus));
    }
    *n = min_int(found, GPUS);
    return 0;
}

extern const struct plugin tandem_plugin;
__attribute__((visibility("default"))) const struct plugin tandem_plugin = {
    .abi = PLUGIN_ABI,
    .list = list_gpus,
};
