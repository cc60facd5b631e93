/* gpu_inside.h - what the files behind gpu.h share. */
#ifndef TANDEM_RUN_GPU_INSIDE_H
#define TANDEM_RUN_GPU_INSIDE_H

#include "run/gpu.h"

static inline const struct gpu *gpu_of(const struct gpus *g, int rank)
{
    return &g->gpu[gpus_index(g, rank)];
}

/* What the rank's device is asked for. */
struct gpu_ask gpu_ask_for(const struct plan *p, int rank, const struct gpus *g);

/* Whether products of many rows are cuBLASLt's; the weights that it reads, beside the packed ones.
 */
bool gpu_fast_products(const struct plan *p);
size_t gpu_plain_bytes(const struct plan *p, int rank);

/* Runs of bytes for a GPU's memory. add: a weights_copy_fn of them. do: copy all that were added,
 * by the threads of `host` at once, and forget them; *copied grows by what is there. */
struct gpu_copy {
    char *to;
    const char *from;
    size_t bytes;
};
struct gpu_copies {
    struct pool pool;
    struct gpu_copy *copy;
    size_t n, room;
};
void gpu_copies_add(void *copies, void *to, const void *from, size_t bytes);
int gpu_copies_do(struct gpu_copies *c, const struct plugin *plugin, struct dev *to,
                  struct dev *host, _Atomic uint64_t *copied, struct err *e);

/* The rank's arenas, to be laid out in the same order each time. */
void gpu_lay_out(struct rank *r, const struct plan *p, int id, struct arena *host,
                 struct arena *dev, struct arena *peer);

/* Has every rank a GPU of its own? */
bool gpu_one_each(const struct plan *p, const struct gpus *g);

/* Whether the rank draws tokens with the other slices of the last stage, each from its own words.
 */
bool gpu_draws_slices(const struct plan *p, int rank, const struct gpus *g);

/* What a rank's groups are for; where their memory is and who the rank is comes later. */
struct group_ask gpu_slices(const struct plan *p, int rank, const struct gpus *g);
struct group_ask gpu_stages(const struct plan *p, const struct gpus *g);

/* What a rank's groups take before its peer arena, and for messages between stages. */
size_t gpu_slices_bytes(const struct plan *p, int rank, const struct gpus *g);
size_t gpu_stages_bytes(const struct plan *p, const struct gpus *g);

/* Bytes that memory takes when it is not kept: what other ranks map are whole blocks. */
size_t gpu_apart(enum gpu_kept_part part, size_t bytes);

/* What all ranks on a GPU need of it, reserves included. */
struct gpu_need gpu_need_of(const struct plan *p, const struct gpus *g, int gpu);

#endif
