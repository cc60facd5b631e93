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

/* Where a container has the rest of the driver without NVML, the kernel's part says that there may
 * be GPUs. */
static bool kernel_has_driver(void) { return !access("/dev/nvidiactl", F_OK); }

static int find(struct gpus *to, struct err *e)
{
    const struct plugin *plugin;
    int rc = plugin_open(&plugin, e);
    return rc ? rc : plugin_gpus(plugin, to, e);
}

/* The driver's own library is asked only now: it may take seconds to begin. CUDA may see no GPU
 * where it knows some. */
static int explain(struct gpus *to, const struct options *o, struct notes *notes, int rc,
                   struct err *e)
{
    struct nvml nvml;
    struct err none, why = *e;
    const bool some = nvml_read(&nvml, NULL, &none) ? kernel_has_driver() : nvml.n > 0;
    if (is(o, "auto") && !some)
        return 0; /* a machine without GPUs is nothing to talk about */
    if (rc == -ENODEV && nvml.n)
        err_set(e, rc,
                "%.300s; the driver %s knows %d: is CUDA_VISIBLE_DEVICES set, or is MIG mode on "
                "without an instance (nvidia-smi -L)?",
                why.text, nvml.driver, nvml.n);
    return device_fall_back(to, o, notes, rc, e);
}

/* What was tried on the GPU and is not used. */
static void note_tried(struct notes *notes, const struct gpu *g)
{
    static const char *const what[] = {"products and attention", "attention", "products"};
    if (g->arch == 90 && g->warpgroups < (int)COUNT(what) && notes->n < (int)COUNT(notes->text))
        snprintf(notes->text[notes->n++], sizeof(notes->text[0]),
                 "%.60s: %s without warpgroup instructions, which failed when tried or gave other "
                 "bits; prompts take longer",
                 g->name, what[g->warpgroups]);
}

int device_choose(struct gpus *to, const struct options *o, struct notes *notes, struct err *e)
{
    memset(to, 0, sizeof(*to));
    if (is(o, "cpu") || (is(o, "auto") && o->given.isa))
        return 0;
    if (is(o, "auto") && !nvml_there(NULL) && !kernel_has_driver())
        return 0;
    int rc = find(to, e);
    if (rc)
        return explain(to, o, notes, rc, e);
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
