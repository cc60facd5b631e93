/* cpu.h - what the files of the CPU device share: scratch, constants of exp, the tables of ops.
 *
 * Not for anybody else: the device's face is dev/dev.h.
 */
#ifndef TANDEM_CPU_H
#define TANDEM_CPU_H

#include "dev/cpu/crew.h"
#include "dev/dev.h"
#include "dev/exp.h"

enum {
    CPU_TOK = 256,  /* rows of a matmul at once: the usual most of a step */
    CPU_BLOCKS = 8, /* row blocks of 16 outputs that CPU_TOK rows are multiplied with at once */
    CPU_TILE = 12,  /* the widest tile, in rows of x */
    CPU_LEVELS = 6, /* pending sums of a tree of SHARES_MAX leaves */
    CPU_SUM = CPU_TOK * CPU_BLOCKS * PACK_ROWS /* floats of one pending sum */
};

/* What a thread has for itself. */
struct lane {
    float *sum[CPU_LEVELS]; /* one after the other in memory: experts.inc divides them otherwise */
    float *rows;            /* attention: queries and two outputs of a tile */
};

/* Scratch, in the arena that dev_cpu_init() was given. */
struct cpu {
    int max_dim, threads;
    int tiles_from; /* so many rows are multiplied with whole numbers by tiles (amx.inc) */
    size_t x_floats;
    float *x;          /* rows of x, repacked, for all threads */
    struct crew *crew; /* NULL: one thread */
    struct lane lane[CREW_MAX];
};

static inline struct cpu *cpu_of(struct dev *d) { return d->ctx; }

/* The cache of head j in the page of a sequence that holds position pos. */
static inline char *kv_page(const struct kv *c, const struct batch *b, int seq, int pos, int j)
{
    size_t page = (size_t)b->page[(size_t)seq * (size_t)b->stride + (size_t)(pos / KV_PAGE)];
    return c->at + page * c->page_bytes + (size_t)j * c->head_bytes;
}

/* First position that a token at position pos sees. */
static inline int window_begin(const struct heads *h, int pos)
{
    return h->window && pos >= h->window ? pos - h->window + 1 : 0;
}

/* ref.c, ref_kv.c and experts.c; those of them that only copy serve all. */
extern const struct dev_ops cpu_ref;
void cpu_embed(struct dev *d, struct mat *y, const struct weight *w, int first, const int *tok);
void cpu_store(struct dev *d, const struct kv *c, const struct mat *k, const struct mat *v,
               const int *slot);
void cpu_pick(struct dev *d, struct mat *y, const struct mat *x, const int *row);
void cpu_attend(struct dev *d, struct mat *y, const struct mat *q, const struct kv *c,
                const struct heads *h, const struct batch *b);
void cpu_route(struct dev *d, struct routed *to, const struct mat *logits, const struct mat *gate,
               bool renorm);
void cpu_experts(struct dev *d, struct mat *y, const struct mat *x, const struct expert *expert,
                 int n_expert, const struct routed *routed, const struct expert_room *room);
void cpu_settle(struct dev *d, struct mat *x, const struct mat *y);
float cpu_exp(float x);
float cpu_join(float s[16]); /* 16 partial sums into one: 8 + 8, 4 + 4, 2 + 2, 1 + 1 */
float cpu_tree_sum(const float *leaf, int lo, int hi); /* of leaves [lo, hi), a whole subtree */

/* cpu.c */
void cpu_together(struct dev *d, dev_together_fn *fn, void *arg);
uint64_t cpu_waited_ns(struct dev *d);

/* kern_*.c; x86-64 only. */
extern const struct dev_ops cpu_avx2, cpu_avx512, cpu_avx512bf16;

#endif
