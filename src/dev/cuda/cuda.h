/* cuda.h - what a device on a GPU keeps: inside the plugin only. */
#ifndef TANDEM_CUDA_H
#define TANDEM_CUDA_H

#include "dev/cuda/draws.h"
#include "dev/cuda/kernels.h"
#include "dev/cuda/record.h"
#include "dev/plugin.h"

enum { CUDA_GROUPS = 2 };

/* A group that wants to look in every turn of a wait for the stream; the first begins it. */
struct cuda_watch {
    void (*look)(void *group, bool begins);
    void *group;
};

enum { CUDA_ALIGN = 256 }; /* of memory */

/* While one piece of weights is on its way, the next is read. */
enum { CUDA_PIECES = 2 };
struct cuda_lane {
    void *stream[CUDA_PIECES], *pinned[CUDA_PIECES];
};

/* What of a step is the host's, while another one begins or runs. */
struct cuda_step {
    const struct draw_rows *drawn; /* its tokens are drawn on the GPU; NULL: none is */
    char *batch_pinned;            /* its batch on the way there */
    int *token_pinned;             /* [max_out] its tokens on the way back */
    void *mark;                    /* where it ends in the stream; NULL: no step was here yet */
};

struct cuda {
    struct gpu_ask ask;
    void *stream;
    struct gpu_room room;
    uint64_t waited_ns;

    char *batch; /* a step's batch here */
    size_t batch_bytes;
    int keys;                   /* of the step: no row sees more */
    float *pinned;              /* [max_out][words] on its way to the host */
    struct gpu_draw_rows draws; /* of the step */
    const int *token;           /* [max_out] drawn last, the device's */
    struct cuda_step step[2];   /* taken in turns */
    uint64_t ended, fetched;    /* steps */
    uint64_t looked;            /* steps that groups have begun to look at */
    struct gpu_vocab vocab;     /* whose words its logits are */
    char *draw_room;

    const void *watched; /* copied to the host at the end of every step */
    void *watched_pinned;
    size_t watched_bytes;

    struct records records;
    struct record *record; /* of the step; NULL: it is computed, and that is all */
    bool replays; /* the step was recorded before: calls are what is in it, so do nothing */

    struct laps *laps; /* NULL: nobody asks what operations take */
    bool grouped;      /* a group enqueues on the stream, too */
    struct cuda_watch watch[CUDA_GROUPS];
    int n_watch;

    struct blas *blas;            /* NULL: all products are our own */
    struct cuda_experts *experts; /* tables of the device, one per layer with experts */
    struct cuda_lane lane[LOAD_LANES];
    struct pool pool;
};

static inline struct cuda *cuda_of(struct dev *d) { return d->ctx; }

/* That begins, or has begun last and did not end yet. */
static inline struct cuda_step *cuda_step(struct cuda *c) { return &c->step[c->ended % 2]; }

/* Remember a failure of CUDA's, if it is one, in d->err and d->why. */
void cuda_note(struct dev *d, int code);

extern const struct dev_ops cuda_ops;

/* The experts of a layer, made at the first call, in the first step, which is never recorded.
 * table: the device's, gate, up and down of each; NULL: no memory, which was noted. Of those that
 * are here: their type, the most columns, and the most parts of a gate or up. */
struct cuda_experts {
    const struct expert *of;
    enum num type;
    int columns, parts;
    void *table;
    struct cuda_experts *next;
};
const struct cuda_experts *cuda_experts(struct dev *d, const struct expert *expert, int n);

/* What the table says is not so any more (plugin.h). */
int cuda_moved(struct dev *d, const struct expert *expert, int n, struct err *e);

/* As kernels want a weight. */
struct gpu_weight cuda_weight(const struct weight *w);

/* What operations take, by marks between them (cuda_ops.lap); around the step. */
void cuda_laps_open(struct cuda *c);
void cuda_laps_begin(struct dev *d);
void cuda_laps_end(struct dev *d);
void cuda_lap(struct dev *d, struct op_time *of);

/* Memory, as plugin.h has it. */
int cuda_memory(struct dev *d, size_t bytes, char **to, struct err *e);
int cuda_keep(int gpu, const size_t *bytes, int n, int *fd, struct err *e);
int cuda_kept(struct dev *d, int fd, size_t bytes, bool zero, char **to, struct err *e);
int cuda_load(struct dev *d, int lane, void *to, const void *from, size_t bytes, struct err *e);
void cuda_load_end(struct dev *d);

/* cuBLASLt (fast.c, blas.h): true when it takes the call. */
bool cuda_fast_matmul(struct dev *d, const struct mat *x, const struct term *term, int n);
bool cuda_fast_partial(struct dev *d, struct planes *y, const struct mat *x,
                       const struct weight *w);
int cuda_plain(struct dev *d, const struct weight *w, bool columns, void *to, struct err *e);

/* Groups: comm/peer/group.c, comm/nccl/group.c. */
int nccl_group_check(struct err *e); /* is NCCL here? */
size_t cuda_group_bytes(const struct group_ask *);
int cuda_group(struct dev *d, struct comm *c, const struct group_ask *ask, struct err *e);

/* The batch on the device: bytes of the largest step; and taking one there (cuda_ops.begin). */
size_t cuda_batch_bytes(const struct gpu_ask *);
void cuda_begin(struct dev *d, struct batch *b);
void cuda_end(struct dev *d, const struct mat *m);
bool cuda_passed(struct dev *d);
struct mat cuda_fetch(struct dev *d, const struct mat *m);
size_t cuda_draw_bytes(const struct gpu_ask *); /* draw_room */

#endif
