/* rank.h - one rank: its view of the weights, its KV cache, its scratch, its two groups. */
#ifndef TANDEM_RANK_H
#define TANDEM_RANK_H

#include "comm/comm.h"
#include "dev/dev.h"
#include "run/turns.h"
#include "run/weights.h"

/* Activations. n rows are the tokens of the step; mine_* are this rank's rows of the
 * mat without mine_ (all of them unless the plan says sp). */
struct act {
    struct mat all_x, x;            /* [n][hidden] residual stream; x: my rows of it */
    struct mat h, mine_h;           /* [n][hidden] normed input of a block */
    struct planes attn, ffn;        /* [n][hidden] partial sums, by subtree of the rank's shares */
    struct mat sum, mine_sum;       /* [n][hidden] their sum over the ranks */
    struct mat words;               /* [n][hidden] embedding rows this rank knows */
    struct mat q, k, v, o;          /* [n][heads * head_dim] of this rank */
    struct planes squares;          /* [n][2] of the rows of q and of k, by subtree */
    struct mat square_sum;          /* [n][2] their sum over the ranks */
    struct mat gate, up;            /* [n][columns] of this rank */
    struct mat router, shared_gate; /* [n][experts], [n][1] logits */
    struct mat mine_router, mine_shared_gate;
    struct routed routed;
    struct planes moe;            /* [n][hidden] in fixed point: one plane, of the experts */
    struct mat whole, mine_whole; /* [n][hidden] their sum over the ranks */
    struct expert_room room;
    struct mat angle[MODEL_KINDS]; /* [n][head_dim] cos and sin of each position */
    struct mat last;               /* [n_out][hidden] */
    struct mat slice, logits;      /* [n_out][words] of this rank; of all, at slice 0 */
    struct mat token, drawn; /* [n_out][1] tokens, on a device that draws them: on all slices; at
                                slice 0, and nothing at the others */
};

/* Rows of a step that go through the layers together, as views of all of them. A large step goes in
 * two waves, so that a rank computes one while others still owe it their part of the other's sum;
 * below that many rows the kernels lose more than waiting costs. */
enum { WAVES = 2, WAVES_FROM = 512 };
struct wave {
    struct batch batch;
    struct act act;
    const struct planes
        *await;             /* what is to be summed over the ranks and added to x; NULL: nothing */
    const struct mat *bias; /* added with it */
};

struct gpu_slots; /* run/gpu_slots.h */

struct rank {
    const struct plan *plan;
    int id;
    struct span layers;
    struct dev *dev;
    struct comm *tp, *pp;
    struct weights weights;
    struct kv *kv;           /* [n_layer], only the stage's are filled */
    struct act act, room;    /* room: as allocated, for the largest step */
    struct wave wave[WAVES]; /* of the step */
    int n_wave;
    struct rank_turns turns;          /* at the experts of the layer at hand */
    struct gpu_slots *slots;          /* experts that move to its GPU; NULL: all stay */
    struct mat rotation[MODEL_KINDS]; /* [ctx][head_dim] angles of all positions, on a device that
                                     has no host's memory; otherwise no rows */
    struct dev *host;                 /* whose threads draw tokens */
    bool draws_slices;                /* the device does, with the other slices' */
    int *tok;                   /* [max_tok] of the step, when some were drawn in the step before */
    int words[SHARES_MAX + 1];  /* first word of every slice, for the join */
    struct runs q_runs, k_runs; /* the shares of q and k, which norms over rows add up */
    _Atomic uint64_t *pulse;    /* how far it has come; NULL: nobody looks */
};

/* Lay out everything a rank owns for itself: tables in `host`, numbers in `dev`, and what the
 * other ranks read in `peer`, whose layout is the same on every rank. Over measuring arenas this
 * is the sizing code. */
void rank_lay_out(struct rank *r, const struct plan *p, int id, struct arena *host,
                  struct arena *dev, struct arena *peer);

/* Where the weights (a whole copy) and the KV pool of the host are. */
void rank_bind(struct rank *r, const struct weights *whole, char *kv_pool, struct arena *host);

/* Of a rank whose device's memory is its own, behind rank_lay_out(): tables of angles, to be filled
 * by the caller, and tokens; and where its own cache is, of plan_kv_bytes(). */
void rank_lay_out_apart(struct rank *r, struct arena *dev, struct arena *peer);
void rank_own_cache(struct rank *r, char *pool);

/* Whether tokens are drawn at this rank: slice 0 of the last stage has the logits. */
static inline bool rank_draws(const struct plan *p, int id)
{
    return plan_stage(p, id) == p->pp - 1 && plan_slice(p, id) == 0;
}

/* The rank that does. */
static inline int rank_drawer(const struct plan *p)
{
    int id = 0;
    while (!rank_draws(p, id))
        id++;
    return id;
}

/* The largest row a matmul of the plan reads, for the device's scratch. */
int rank_max_dim(const struct plan *p);

/* Bytes of one page of the host's KV pool: all layers, all key-value heads. */
size_t rank_page_bytes(const struct plan *p);

/* How many waves a step of so many rows goes in. A norm over the rows of q and k is a sum between
 * the two of a layer, and sums end in their order (comm.h): no waves then. */
int rank_waves(const struct plan *p, int n_tok);

/* Shrink the scratch to the step at hand and find its rotary angles. */
void rank_begin(struct rank *r, const struct batch *b);

/* heads.c: where the rank's shares begin in its heads; and the norms of q and k and the limits of
 * q, k and v, as the model has them. A norm over whole rows is a sum over the ranks; one over each
 * head is left to dev_rope_store(), where it may be. */
void heads_begin(struct rank *r);
struct qkv heads_norm(struct rank *r, struct act *a, const struct layer *w,
                      const struct mat *angle);

/* One step. Logits of the wanted tokens end up in r->act.logits on slice 0 of the last stage.
 * Errors are in dev->err and comm->err. */
void forward(struct rank *r, const struct batch *b);

#endif
