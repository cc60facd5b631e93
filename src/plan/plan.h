/* plan.h - who holds what, and who talks to whom.
 *
 * One plan is the whole truth about a deployment: the loader cuts tensors by it, the ranks obey
 * it, sizing and pricing read it. Plain data without pointers or state: it is copied, hashed,
 * compared, written as JSON, edited by hand and loaded back.
 *
 * Every cut is a run of shares (see base/tree.h). Share s of what has n units holds the units
 * s*n/S .. (s+1)*n/S, rounded down; a unit is a head, ff_unit feed-forward columns or WORD_UNIT
 * words. A rank's key-value heads are those its query heads read, so with more ranks than
 * key-value heads several ranks hold the same one.
 *
 * With ep > 1 the tp slices of a stage form ep runs of tp / ep neighbours. A run holds whole
 * experts (placement.h says which), cut inside the run by columns: its slice j holds the shares
 * that slices j * ep .. (j + 1) * ep - 1 hold of everything else.
 */
#ifndef TANDEM_PLAN_H
#define TANDEM_PLAN_H

#include "base/tree.h"
#include "dev/weight.h"
#include "model/model.h"
#include "topo/host.h"

#include <jansson.h>

enum { PLAN_STAGES = 64, PLAN_RANKS = 256, WORD_UNIT = 64, PLAN_THREADS = 64, PLAN_REPLICAS = 64 };

struct plan {
    struct model model;
    int shares;  /* S: 8, 16 or 32; part of the numerics */
    int ff_unit; /* feed-forward columns are shared out in runs of this */
    int pp, tp;  /* stages, slices of a layer; rank = stage * tp + slice */
    int ep;    /* the slices of a stage are so many runs of neighbours; each holds whole experts */
    int slots; /* experts of a layer that a rank has room for in memory of its own, as on GPUs, so
                  that they may move; 0: its even share, for good */
    int dp;    /* replicas of all that, each with its own cache; everything here is of one */
    bool sp;   /* between matmuls, the ranks of a stage hold rows, not copies */
    struct span stage[PLAN_STAGES]; /* the layers of each stage */
    int cut[SHARES_MAX + 1];        /* slice i of a stage holds shares cut[i] .. cut[i+1] */
    int threads;                    /* of each rank, 1 to 64; they share its work, not the bits */
    int core[PLAN_RANKS];           /* of all replicas: a rank's first core; -1: not pinned */
    enum num weight, kv;            /* number formats; kv: f32, bf16, int8 */
    char numerics[16];              /* which bits: see isa_numerics() in dev/dev.h */
    int max_tok, max_seq, max_out;  /* of one step: tokens, sequences, rows of logits */
    int ctx;                        /* longest sequence, in tokens */
    int pages;                      /* KV capacity in pages of 16 tokens */
};

/* What the user may ask for; 0 means: choose. */
struct plan_ask {
    int tp, pp, ep, slots, dp, shares, ctx, max_tok, max_seq;
    int max_out;     /* rows of logits of one step; 0: max_seq */
    size_t kv_bytes; /* of the KV pools of all replicas; 0: max_seq sequences of ctx tokens */
    bool sp;
    enum num weight, kv;
    const char *numerics;
    int threads;
    const struct host *host; /* NULL: one thread, pinned nowhere */
    int quota;               /* cores whose time may be used; 0: all of the host's */
};

/* A plan for the model: shares even, stages equal by bytes, ranks and threads by the host's nodes
 * and cores (place.h). Errors as plan_check. */
int plan_make(struct plan *p, const struct model *m, const struct plan_ask *ask, struct err *e);

/* What would be asked for another layout of the same model, formats, limits of a step and sums: tp,
 * pp and the rest are left to choose. */
struct plan_ask plan_like(const struct plan *p);

/* Refuse a plan that cannot run, in one sentence that says what to change. Every other function
 * here takes a checked plan. */
int plan_check(const struct plan *p, struct err *e);

/* The plan of one replica: dp 1, its ranks on cores of their own. */
struct plan plan_replica(const struct plan *p, int replica);

int plan_ranks(const struct plan *p);           /* of one replica */
int plan_stage(const struct plan *p, int rank); /* pipeline coordinate */
int plan_slice(const struct plan *p, int rank); /* tensor coordinate */
int plan_run(const struct plan *p, int rank);   /* of its stage, the run of slices with experts */

/* Do NVIDIA's libraries multiply and add, in an order that depends on the layout (--fast)? */
bool plan_fast(const struct plan *p);

/* Do rows that go to experts leave their rank for only those that need them? (ep with sp.) If not,
 * every rank of a stage has all rows. */
static inline bool plan_dispatches(const struct plan *p) { return p->ep > 1 && p->sp; }

enum what { HEADS, KVHEADS, COLUMNS, EXPERT_COLUMNS, SHARED_COLUMNS, WORDS };

/* What a rank holds of it, counted in heads, feed-forward columns (of the dense block, of every
 * expert, of the shared expert) or words. The shared expert sees all rows: where these stay with
 * their rank (plan_dispatches()), every rank holds all of it. */
struct span plan_share(const struct plan *p, int rank, enum what what);

/* Where share s begins, counted as plan_share() does; s = shares: where the last ends. Shares do
 * not cut KVHEADS. */
int plan_share_begins(const struct plan *p, enum what what, int s);

/* One tensor as one rank holds it: n_part parts of a matrix, or a run of a vector. Part i is
 * plan_part(): for a matrix cut by columns, share first + i. */
struct piece {
    char name[96];
    int layer;    /* -1: of the model as a whole */
    int expert;   /* -1: of no expert */
    size_t field; /* offset of its struct weight or mat in struct shared, layer or expert */
    bool matrix;
    enum num type; /* as it is held; a vector is f32 */
    enum cut cut;
    enum what of;
    int rows, cols;       /* of the whole tensor; a vector is 1 x n */
    struct span row, col; /* what this rank holds */
    int first, n_part;
};

/* The rows (cut by rows or not cut) or columns (cut by columns) of part i of a piece, counted in
 * the whole tensor. */
struct span plan_part(const struct plan *p, const struct piece *pc, int i);

/* Call fn for every piece of the rank, in file order. rank == PLAN_WHOLE: of the whole model, as
 * a host holds it once for all its ranks: the same parts. With ep > 1 a rank holds the experts of
 * placement_even(); where it sees those of the other runs too, as on one host, plan_seen() calls fn
 * for these as well. */
enum { PLAN_WHOLE = -1 };
typedef void plan_piece_fn(void *arg, const struct piece *pc);
void plan_pieces(const struct plan *p, int rank, plan_piece_fn *fn, void *arg);
void plan_seen(const struct plan *p, int rank, plan_piece_fn *fn, void *arg);

/* Experts of a layer that the rank has room for in memory of its own. */
int plan_slots(const struct plan *p, int rank);

/* Bytes of weights a rank reads (PLAN_WHOLE: of the host's one copy), padding and slots that wait
 * for experts included. */
size_t plan_weight_bytes(const struct plan *p, int rank);
size_t plan_expert_bytes(const struct plan *p, int rank); /* of these, what a router picks from */
/* Bytes of KV cache that belong to the rank's layers and heads (PLAN_WHOLE: the host's pool). */
size_t plan_kv_bytes(const struct plan *p, int rank);
uint64_t plan_parameters(const struct plan *p); /* numbers in the file, tied ones once */
uint64_t plan_active(const struct plan *p);     /* of these, those that one token meets */

/* JSON form (docs/PLAN.md), schema number inside. plan_from_json refuses unknown and mistyped
 * fields, names the field, and ends with plan_check. */
json_t *plan_to_json(const struct plan *p);
int plan_from_json(const json_t *o, struct plan *p, struct err *e);
int plan_load(const char *path, struct plan *p, struct err *e);
/* XXH3-64 of the compact JSON: ranks and journal compare it. */
uint64_t plan_hash(const struct plan *p);
/* The same of what the packing of weights depends on: shape, shares, format. */
uint64_t plan_weights_hash(const struct plan *p);

#endif
