/* device.h - what --device means on this machine: the CPU, or GPUs and why not. */
#ifndef TANDEM_CMD_DEVICE_H
#define TANDEM_CMD_DEVICE_H

#include "base/opt.h"
#include "dev/plugin.h"
#include "model/folder.h"

/* Whether `plan --device` tells the numbers of some other machine's devices. */
bool device_numbers(const struct options *o);

/* The GPUs to use; n == 0: none, so the CPU. cuda: as many as there are, or an error. auto: those
 * there are, if the plugin can use them, and otherwise a note says why not; none with --isa, which
 * is the CPU's. */
int device_choose(struct gpus *to, const struct options *o, struct notes *notes, struct err *e);

/* GPUs were found, but cannot do what is asked (e): with auto the CPU does it, and a note says why;
 * otherwise that is the error. */
int device_fall_back(struct gpus *g, const struct options *o, struct notes *notes, int rc,
                     struct err *e);

#endif
