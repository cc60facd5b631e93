/* gpu.h - ranks whose devices are GPUs: what they take of a GPU's memory, whether it is there, and
 * how one is set up. What the device does is behind dev.h; how it is loaded, dev/plugin.h says. */
#ifndef TANDEM_RUN_GPU_H
#define TANDEM_RUN_GPU_H

#include "dev/plugin.h"
#include "run/rank.h"

/* What CUDA takes of a GPU's memory for each process: a context, the kernels' code. Not measured
 * here: an allowance. */
enum { GPU_RESERVE = 640 << 20 };

/* Bytes of a rank on its GPU, beside that. */
struct gpu_need {
    size_t weights, kv, scratch;
};
struct gpu_need gpu_need(const struct plan *p, int rank, const struct gpus *g);

/* The most pages of cache that leave room for the rest on every GPU; 0: not even the rest fits. */
int gpu_pages(const struct plan *p, const struct gpus *g);

/* Refuse, in one sentence with the numbers and what would do, what GPUs cannot run: plans with
 * groups, GPUs of several kinds, too little memory (-ENOMEM). */
int gpu_check(const struct plan *p, const struct gpus *g, struct err *e);

/* In the process of the rank: make d its device, lay the rank out in the GPU's memory, and copy its
 * part of the host's weights there. *peer is where its peer arena lies. Tables are from `host`, of
 * gpu_tables() bytes. All of it lasts until the process ends. */
size_t gpu_tables(const struct plan *p, int rank);
int gpu_rank_open(struct rank *r, struct dev *d, const struct plan *p, int id, const struct gpus *g,
                  bool profile, const struct weights *whole, struct arena *host, struct arena *peer,
                  struct err *e);

#endif
