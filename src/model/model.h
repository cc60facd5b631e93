/* model.h - a decoder as numbers: what config.json says, in one block parametrised by data.
 *
 * Plain data without pointers, so that it is copied, hashed and written with the plan. A new
 * family is new values here and new rows in weights.def, never a copy of the forward pass.
 */
#ifndef TANDEM_MODEL_H
#define TANDEM_MODEL_H

#include "base/base.h"

enum { MODEL_LAYERS = 256, MODEL_KINDS = 4, MODEL_EXPERTS = 512, MODEL_TOP = 64 };

enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_LLAMA3, ROPE_YARN };

/* Rotary position embedding; the fields that a scaling does not use are 0. */
struct rope {
    enum rope_scaling scaling;
    float theta;
    float factor;               /* all but plain */
    float low_freq, high_freq;  /* llama3 */
    float beta_fast, beta_slow; /* yarn */
    float attention;            /* yarn: factor on cos and sin */
    int original_ctx;           /* dynamic, llama3, yarn: positions trained on */
    bool truncate;              /* yarn: round the correction range to whole dimensions */
};

/* Layers differ by kind only: full attention, or the last `window` positions; and in a model with
 * experts, some may be without. */
struct layer_kind {
    int window; /* 0: all positions; w: position p sees p-w+1 .. p */
    bool dense; /* no experts here */
    struct rope rope;
};

/* A feed-forward block of experts, of which a router picks `top` for every token. The weight of a
 * chosen one is its softmax over all experts; `renorm` divides the chosen by their sum, which is
 * the softmax over the chosen alone. The shared expert, if any, sees every token, with weight 1 or
 * the sigmoid of a gate of its own; it counts as expert number n. */
struct experts {
    int n;                  /* 0: no layer has experts */
    int top, ff, shared_ff; /* shared_ff 0: no shared expert */
    bool renorm, shared_gate;
    bool numbered; /* tensors are called w1, w2, w3 in block_sparse_moe, as Mixtral has it */
};

struct model {
    char arch[48];
    int n_layer, n_embd, n_head, n_kv, head_dim, n_ff, n_vocab, n_ctx;
    bool qkv_bias, o_bias, mlp_bias;
    bool qk_norm; /* RMS norm over each head of q and k, before rope */
    bool qk_row;  /* then over all heads of a row at once */
    bool tied;    /* the head is the embedding */
    float eps;
    float clip; /* q, k and v (after the norm) lie within -clip .. clip; 0: anywhere */
    struct layer_kind kind[MODEL_KINDS];
    uint8_t kind_of[MODEL_LAYERS]; /* [n_layer] index into kind */
    struct experts experts;
};

static inline bool model_sparse(const struct model *m, int layer)
{
    return m->experts.n && !m->kind[m->kind_of[layer]].dense;
}

/* Experts with weights in a layer that has some: the shared one too. */
static inline int model_experts(const struct model *m)
{
    return m->experts.n + (m->experts.shared_ff > 0);
}

/* Are all layers of one size? */
static inline bool model_alike(const struct model *m)
{
    for (int l = 1; l < m->n_layer; l++)
        if (model_sparse(m, l) != model_sparse(m, 0))
            return false;
    return true;
}

#endif
