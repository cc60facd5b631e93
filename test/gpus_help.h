/* gpus_help.h - for tests of whole ranks on GPUs: those of the model (cuda_model.h), or of the
 * plugin that TANDEM_PLUGIN_PATH names. */
#ifndef TANDEM_TEST_GPUS_HELP_H
#define TANDEM_TEST_GPUS_HELP_H

#include "dev/plugin.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static inline void list_gpus(struct gpus *to)
{
    const struct plugin *plugin;
    struct err e;
    setenv("TANDEM_PLUGIN_PATH", BUILD_DIR "/model", 0);
    if (plugin_open(&plugin, &e) || plugin_gpus(plugin, to, &e))
        fail_msg("%s", e.text);
}

static inline const struct gpus *the_gpus(void)
{
    static struct gpus gpus;
    if (!gpus.n)
        list_gpus(&gpus);
    return &gpus;
}

/* What the model of a GPU can be told to be: TANDEM_MODEL_GPU and the like. */
static inline void needs_model(void)
{
    if (strcmp(the_gpus()->gpu[0].name, "model of a GPU")) {
        print_message("skipped: only on the model of a GPU\n");
        skip();
    }
}

/* GPUs of the model that cannot read each other's memory, and a library in place of NCCL; ranks
 * that start later find them so, too. */
static inline void list_apart(struct gpus *to, const char *model)
{
    setenv("TANDEM_NCCL", BUILD_DIR "/model/fake/libnccl.so.2", 1);
    setenv("TANDEM_MODEL_GPU", model, 1);
    list_gpus(to);
}

#endif
