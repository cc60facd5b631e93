/* fake_plugin.c - a GPU plugin for tests: TANDEM_FAKE_PLUGIN says how it behaves. */
#include "dev/plugin.h"

static int list(struct gpu *to, int *n, struct err *e)
{
    const char *how = getenv("TANDEM_FAKE_PLUGIN");
    if (how && !strcmp(how, "crash"))
        abort();
    if (how && !strcmp(how, "none"))
        return err_set(e, -ENODEV, "no NVIDIA driver here");
    to[0] = (struct gpu){.name = "Fake 1", .arch = 90, .memory = 80e9, .memory_free = 79e9};
    to[1] = (struct gpu){.name = "Fake 2", .arch = 89, .memory = 24e9, .memory_free = 20e9};
    *n = 2;
    return 0;
}

static void check(struct gpu *gpu, int n, int trial)
{
    const char *how = getenv("TANDEM_FAKE_PLUGIN");
    for (int i = 0; i < n; i++)
        gpu[i].warpgroups |= (gpu[i].arch == 90) << trial;
    if (how && trial && !strcmp(how, "check crashes"))
        abort();
}

extern struct plugin tandem_plugin;
struct plugin tandem_plugin = {.abi = PLUGIN_ABI, .list = list, .check = check};

__attribute__((constructor)) static void begin(void)
{
    const char *how = getenv("TANDEM_FAKE_PLUGIN");
    if (how && !strcmp(how, "old"))
        tandem_plugin.abi--;
}
