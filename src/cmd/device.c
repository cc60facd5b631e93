/* device.c - see device.h. */
#include "cmd/device.h"
#include "topo/nvml.h"

#include <unistd.h>

static bool is_word(const char *device)
{
    return !strcmp(device, "auto") || !strcmp(device, "cpu") || !strcmp(device, "cuda");
}

bool device_numbers(const struct options *o) { return o->given.device && !is_word(o->device); }

/* What the verb's option says; verbs without one compute nothing, or here. */
static const char *wanted(const struct options *o)
{
    switch (o->verb) {
    case VERB_RUN:
    case VERB_SERVE:
    case VERB_BENCH_LATENCY:
    case VERB_BENCH_THROUGHPUT:
    case VERB_TOPO: return o->compute;
    case VERB_PLAN:
        return o->given.plan_hardware || device_numbers(o) ? "cpu"
               : o->given.device                           ? o->device
                                                           : "auto";
    default: return "cpu";
    }
}

static bool is(const struct options *o, const char *name) { return !strcmp(wanted(o), name); }

static void note(struct notes *notes, const struct err *e)
{
    if (notes->n < (int)COUNT(notes->text))
        snprintf(notes->text[notes->n++], sizeof(notes->text[0]), "no GPU is used: %s", e->text);
}

/* NVML counts GPUs; where a container has the rest of the driver without it, the kernel's part says
 * that there may be some. */
static bool has_driver(struct nvml *nvml)
{
    struct err none;
    return nvml_read(nvml, NULL, &none) ? !access("/dev/nvidiactl", F_OK) : nvml->n > 0;
}

/* CUDA sees none, but the driver's own library does. */
static int hidden(const struct nvml *nvml, int rc, struct err *e)
{
    struct err why = *e;
    if (rc != -ENODEV || !nvml->n)
        return rc;
    return err_set(e, rc,
                   "%.300s; the driver %s knows %d: is CUDA_VISIBLE_DEVICES set, or is MIG mode on "
                   "without an instance (nvidia-smi -L)?",
                   why.text, nvml->driver, nvml->n);
}

static int find(struct gpus *to, const struct nvml *nvml, struct err *e)
{
    const struct plugin *plugin;
    int rc = plugin_open(&plugin, e);
    if (!rc)
        rc = hidden(nvml, plugin_gpus(plugin, to, e), e);
    return rc;
}

/* What was tried on the GPU and is not used. */
static void note_tried(struct notes *notes, const struct gpu *g)
{
    if (g->arch == 90 && !g->warpgroups && notes->n < (int)COUNT(notes->text))
        snprintf(notes->text[notes->n++], sizeof(notes->text[0]),
                 "%.60s: products without warpgroup instructions, which failed when tried or gave "
                 "other bits; prompts take longer",
                 g->name);
}

int device_choose(struct gpus *to, const struct options *o, struct notes *notes, struct err *e)
{
    struct nvml nvml;
    memset(to, 0, sizeof(*to));
    if (is(o, "cpu") || (is(o, "auto") && o->given.isa))
        return 0;
    bool driver = has_driver(&nvml);
    if (is(o, "auto") && !driver)
        return 0; /* a machine without GPUs is nothing to talk about */
    int rc = find(to, &nvml, e);
    if (rc)
        return device_fall_back(to, o, notes, rc, e);
    note_tried(notes, &to->gpu[0]);
    return 0;
}

int device_fall_back(struct gpus *g, const struct options *o, struct notes *notes, int rc,
                     struct err *e)
{
    g->n = 0;
    if (is(o, "cuda"))
        return err_add(e, rc, "--device cuda");
    note(notes, e);
    return 0;
}
