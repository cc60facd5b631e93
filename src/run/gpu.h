/* gpu.h - ranks whose devices are GPUs: what they take of a GPU's memory, whether it is there, and
 * how one is set up. What the device does is behind dev.h; how it is loaded, dev/plugin.h says. */
#ifndef TANDEM_RUN_GPU_H
#define TANDEM_RUN_GPU_H

#include "dev/plugin.h"
#include "run/gpu_slots.h"
#include "run/rank.h"

/* What CUDA takes of a GPU's memory for each process: a context, the kernels' code. Not measured
 * here: an allowance. */
enum { GPU_RESERVE = 640 << 20 };

/* What of a rank's memory can outlive its process (plugin.h): descriptors that all processes of the
 * host have by the same numbers; -1: nothing of that kind. */
enum gpu_kept_part { KEPT_WEIGHTS, KEPT_CACHE, KEPT_SLICES, KEPT_STAGES, KEPT_PARTS };
struct gpu_kept {
    int fd[KEPT_PARTS];
};
void gpu_kept_bytes(const struct plan *p, int rank, const struct gpus *g, size_t to[KEPT_PARTS]);

/* Bytes of a rank on its GPU, beside GPU_RESERVE. scratch: all else, also what kept memory takes
 * more by being of whole units. */
struct gpu_need {
    size_t weights, kv, scratch;
};
struct gpu_need gpu_need(const struct plan *p, int rank, const struct gpus *g);

/* The most pages of cache that leave room for the rest on every GPU; 0: not even the rest fits. */
int gpu_pages(const struct plan *p, const struct gpus *g);

/* How the slices of a stage add, and how stages send: through each other's memory where all GPUs
 * can; otherwise, and for sums in any order when every slice has a GPU of its own, by NCCL. */
enum group_kind gpu_adds_by(const struct plan *p, const struct gpus *g);
enum group_kind gpu_sends_by(const struct plan *p, const struct gpus *g);

/* Which of NVIDIA's libraries ranks of the plan open (dev/plugin.h). */
unsigned gpu_libraries(const struct plan *p, const struct gpus *g);

/* Refuse, in one sentence with the numbers and what would do, what GPUs cannot run: plans with
 * groups, GPUs of several kinds, too little memory (-ENOMEM). */
int gpu_check(const struct plan *p, const struct gpus *g, struct err *e);

/* Bytes of tables in the host's memory for gpu_rank_open(). */
size_t gpu_tables(const struct plan *p, int rank);

/* A rank's device and memory on its GPU, until the process ends. */
struct gpu_rank {
    const struct gpus *gpus;
    const struct gpu_kept *kept;
    struct dev dev;
    size_t peer_bytes;
    char *tp, *pp; /* memory of its groups, the peer arena at the end of tp's; NULL: it is alone */
    struct gpu_slots slots; /* of experts that move */
};

/* What a rank starts on. */
struct gpu_start {
    const struct gpus *gpus;
    bool profile;
    const struct weights *whole;   /* the host's; not looked at when the GPU has the rank's and no
                                      expert moves */
    struct dev *host;              /* whose threads read them */
    const struct gpu_kept *kept;   /* [ranks] NULL: the rank's memory is its own and ends with it */
    _Atomic uint32_t *complete;    /* kept weights are all there; raised when they are */
    _Atomic uint64_t *copied;      /* grows by the bytes of weights that are copied to the GPU */
    slot_word *lies;               /* where the rank's experts lie, when the plan has slots */
    const struct layer_load *load; /* what ranks before it have counted; NULL: nothing */
};

/* In the process of the rank: open its device, lay the rank out in the GPU's memory with tables
 * from `host`, and copy its part of the host's weights there, unless it is there. */
int gpu_rank_open(struct gpu_rank *to, struct rank *r, const struct plan *p, int id,
                  const struct gpu_start *start, struct arena *host, struct err *e);

/* Then join its groups, once the others have come; cards as in struct group_ask. A rank alone gets
 * groups of one. */
int gpu_rank_join(struct gpu_rank *g, const struct rank *r, void *tp_cards, void *pp_cards,
                  struct wait wait, struct comm *tp, struct comm *pp, struct err *e);

#endif
