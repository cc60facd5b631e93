/* plugin.h - GPUs. What drives them is a library of its own, libtandem-cuda.so, so that the program
 * starts with and without it, and with and without a driver; this is what the two agree on.
 *
 * CUDA does not survive fork(): whoever will fork a rank must never have called it. So GPUs are
 * listed by a process of its own, and ranks open theirs after they were forked. Loading the plugin
 * calls nothing.
 */
#ifndef TANDEM_DEV_PLUGIN_H
#define TANDEM_DEV_PLUGIN_H

#include "base/wait.h"
#include "dev/dev.h"

enum { GPUS = 32, GPU_TRIALS = 2, LOAD_LANES = 8, PLUGIN_ABI = 4 << 16 | sizeof(struct dev_ops) };

struct gpu {
    char name[96], bus[24]; /* bus: as NVML says it */
    int arch, sm;           /* 10 * major + minor of its compute capability; multiprocessors */
    size_t memory, memory_free;
    int warpgroups; /* trials of its faster matrices (9.0) that gave other kernels' bits: 1 << trial
                     */
    size_t unit; /* memory that outlives a process is of multiples of this; 0: there can be none */
    uint32_t reaches; /* bit i: its kernels can read the memory of GPU i */
};

/* What a device is for: the largest step, and the rank's part of the model. */
struct gpu_ask {
    int gpu;
    int max_tok, max_seq, max_out, ctx;
    int max_dim;         /* numbers of the widest row that is multiplied */
    int words;           /* of the vocabulary */
    bool draws;          /* the rank has the logits, and tokens are drawn from them */
    bool slices;         /* its group draws tokens: each rank has logits of a slice of the words */
    int heads, head_dim; /* query heads of the rank */
    int experts, top, expert_columns; /* 0: none */
    bool profile;                     /* operations are timed, by dev_ops.lap */
    bool fast;                        /* products of many rows by cuBLASLt */
    bool records;                     /* steps may be recorded: no host has a part in them */
    int warpgroups;                   /* as struct gpu has it */
};

/* How ranks of a group reach each other: each reads the others' memory (comm/peer), or NCCL brings
 * numbers (comm/nccl). */
enum group_kind { GROUP_PEER, GROUP_NCCL };

/* A rank's end of a group of ranks on GPUs. cards: in memory that all ranks of the host share,
 * zeroed, GROUP_CARD bytes for each. */
enum { GROUP_CARD = 128, GROUP_DRAW_WORDS = 1 << 20 /* no group draws from more */ };
struct comm;
struct group_ask {
    enum group_kind kind;
    bool fast; /* sums may be in any order (GROUP_NCCL) */
    int rank, size;
    int rows, dim, joined; /* rows that are summed at most, numbers of one; of a row that is joined
                            */
    const int *cut;        /* [size + 1], as comm/sum.h has it; NULL: a group that does not sum */
    void *cards;
    char *memory; /* the device's: group_bytes(), and then the rank's peer arena */
    size_t peer_bytes, outbox_bytes;
    int draw_rows; /* of logits whose slices lie in peer arenas, at the most: the group draws from
                      them (GROUP_PEER); 0: it does not. Where slices of the words begin: */
    int first_word[SHARES_MAX + 1];
    const int *kept; /* [size] descriptors of all ranks' memory, when it is kept (plugin.keep) and
                        was made with these bytes; NULL: the rank's own */
    struct wait wait;
};

/* NVIDIA's, which are opened at run time where they are wanted. */
enum { LIBRARY_NCCL = 1, LIBRARY_BLAS = 2 };

struct plugin {
    unsigned abi; /* PLUGIN_ABI; the only field that may be read when it differs */
    const char *built;
    /* All GPUs of this host, at most GPUS. -ENODEV with one sentence when there is none that can be
     * used. */
    int (*list)(struct gpu *to, int *n, struct err *e);
    /* Trial 0, then the others, of what is used only where it was tried: products by warpgroups,
     * and attention. Noted in gpu[0 .. n - 1]; may crash. */
    void (*check)(struct gpu *gpu, int n, int trial);
    /* Device memory that a device takes for itself, but for what CUDA does. Calls no CUDA. */
    size_t (*scratch_bytes)(const struct gpu_ask *, const struct gpu *);
    /* Make d a device on one GPU, until this process ends. */
    int (*open)(struct dev *d, const struct gpu_ask *, struct err *e);
    /* Zeroed memory of the device, aligned to 256 bytes, until this process ends. */
    int (*memory)(struct dev *d, size_t bytes, char **to, struct err *e);
    /* Memory that outlives processes: n runs of a GPU's, fd[i] for bytes[i] (-1 for none). It is
     * there as long as this process lives, or anybody has its descriptor or maps it. Needs no
     * device, and leaves none behind. -ENOMEM says how much is missing; other errors: there can be
     * none after all. */
    int (*keep)(int gpu, const size_t *bytes, int n, int *fd, struct err *e);
    /* Such memory as memory of the device, as it is; zeroed, when asked for. */
    int (*kept)(struct dev *d, int fd, size_t bytes, bool zero, char **to, struct err *e);
    /* Fill memory of the device from the host's at the speed of reading that, and wait. Threads may
     * do so at once, each in a lane of its own, below LOAD_LANES. Then load_end() frees what that
     * took. */
    int (*load)(struct dev *d, int lane, void *to, const void *from, size_t bytes, struct err *e);
    void (*load_end)(struct dev *d);
    /* Fill `to`, memory of the device of a multiple of 16 bytes, with w as w->plain has it;
     * columns: w is cut by them. Waits. */
    int (*plain)(struct dev *d, const struct weight *w, bool columns, void *to, struct err *e);
    /* The experts of a layer, as dev_experts() gets them, lie elsewhere now; no step is on its way,
     * and recorded ones find them there. Of each the parts are as long as before. */
    int (*moved)(struct dev *d, const struct expert *expert, int n, struct err *e);
    /* Whether these of NVIDIA's libraries are here; -ENOENT, -ENOTSUP with one sentence. Calls no
     * CUDA. */
    int (*libraries)(unsigned which, struct err *e);
    /* From now on, what lies at `from` in the device's memory is copied at the end of every step to
     * *to in the host's, where it is when dev_fetch() has returned. Once for a device. */
    int (*watch)(struct dev *d, const void *from, size_t bytes, const void **to, struct err *e);
    /* Make c the rank's end of a group, once all ranks have come; it works in the stream of d and
     * lasts as long. -EOPNOTSUPP when one GPU cannot reach another's memory. group_bytes: of what
     * it is for (memory, rank, cards and wait are not looked at). */
    size_t (*group_bytes)(const struct group_ask *);
    int (*group)(struct dev *d, struct comm *c, const struct group_ask *, struct err *e);
};

#define PLUGIN_SYMBOL "tandem_plugin"
#define PLUGIN_FILE "libtandem-cuda.so"

/* Load the plugin for good: TANDEM_PLUGIN_PATH (a file or a folder), alone when it is set; the
 * program's folder; tandem/ in the library folder beside it, as installed. -ENOENT when there is
 * none, -EPROTO when it was built from other sources; one sentence. */
int plugin_open(const struct plugin **to, struct err *e);

/* The GPUs of this host, asked by a process of its own, which may take a second per GPU; -ETIMEDOUT
 * when the driver does not answer for long. n > 0 on success. The same process then tries them; if
 * it fails at that, what it had to try is not used. */
struct gpus {
    const struct plugin *plugin;
    int n;
    int first; /* rank r of a team has number first + r, and then again from 0 */
    struct gpu gpu[GPUS];
};
static inline int gpus_index(const struct gpus *g, int rank) { return (g->first + rank) % g->n; }
bool gpus_reach(const struct gpus *g, int ranks); /* can GPUs of ranks 0 .. all read each other? */
int plugin_gpus(const struct plugin *plugin, struct gpus *to, struct err *e);

/* plugin->libraries() in a process of its own. */
int plugin_libraries(const struct plugin *plugin, unsigned which, struct err *e);

/* Which bits to expect: those of the CPU, "f32-fma", where tensor cores do nothing, otherwise those
 * of this kind of GPU, "cuda-sm90"; fast: of NVIDIA's libraries there, "cuda-sm90-fast". */
void gpu_numerics(char to[16], int arch, enum num weight, enum num kv, bool fast);

#endif
