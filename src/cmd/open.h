/* open.h - what `run` and `plan` have in common: find the model, read it, make the plan.
 *
 * The team is not started here.
 */
#ifndef TANDEM_CMD_OPEN_H
#define TANDEM_CMD_OPEN_H

#include "base/opt.h"
#include "dev/plugin.h"
#include "model/folder.h"
#include "model/gguf.h"
#include "model/store.h"
#include "plan/plan.h"
#include "run/packed.h"

#include <limits.h>

struct opened {
    char folder[PATH_MAX]; /* of the model, or its GGUF file; "" for a known shape without files */
    bool demo;
    struct generation generation;
    struct notes notes;    /* for the user's eyes */
    struct store *store;   /* NULL unless asked for, or when the weights are packed */
    struct packed *packed; /* NULL: they are not */
    struct plan plan;      /* plan.model is the model */
    enum isa isa;
    struct host host;
    struct gpus gpus; /* n == 0: the CPU computes */
};

/* As teams want them. */
static inline const struct gpus *open_gpus(const struct opened *o)
{
    return o->gpus.n ? &o->gpus : NULL;
}

/* The folder of the demo model: $TANDEM_DEMO, beside the program, where it was installed, in the
 * source tree. -ENOENT with the places in e. */
int open_demo(char folder[PATH_MAX], struct err *e);

/* Read the model (NULL: the demo model), open its weights and make or load the plan from --tp,
 * --pp, --sp, --shares, --plan, --ctx, --dtype, --kv, --chunk, --isa and --device. Errors are for
 * the user: one sentence with what to change; CMD_USAGE when options contradict each other. On
 * success the caller ends with open_close(). */
int open_model(struct opened *to, const struct options *o, const char *model, struct err *e);

/* The same without weights, for planning: model may also be the name of a known shape. */
int open_shape(struct opened *to, const struct options *o, const char *model, struct err *e);

void open_close(struct opened *o);

/* Where a rank computes, for tables: "gpu 0", or its core's number, behind it that of its node on a
 * host with several ("64/1"), or "-". */
const char *open_place(char to[24], const struct opened *at, int rank);

/* "6.919 billion parameters (1.282 active)". */
const char *open_parameters(char to[80], const struct plan *p);

/* What computes: "avx512", "NVIDIA H200". */
const char *open_kernels(const struct opened *at);

/* What --isa NAME means here; -ENOTSUP with a sentence when this machine lacks it. */
int open_isa(const char *name, enum isa *isa, struct err *e);

#endif
