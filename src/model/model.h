/* model.h - a decoder as numbers: what config.json says, in one block parametrised by data.
 *
 * Plain data without pointers, so that it is copied, hashed and written with the plan. A new
 * family is new values here and new rows in weights.def, never a copy of the forward pass.
 */
#ifndef TANDEM_MODEL_H
#define TANDEM_MODEL_H

#include "base/base.h"

enum { MODEL_LAYERS = 256, MODEL_KINDS = 2 };

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

/* Layers differ by kind only: full attention, or the last `window` positions. */
struct layer_kind {
    int window; /* 0: all positions; w: position p sees p-w+1 .. p */
    struct rope rope;
};

struct model {
    char arch[48];
    int n_layer, n_embd, n_head, n_kv, head_dim, n_ff, n_vocab, n_ctx;
    bool qkv_bias, o_bias, mlp_bias;
    bool qk_norm; /* RMS norm over each head of q and k, before rope */
    bool tied;    /* the head is the embedding */
    float eps;
    struct layer_kind kind[MODEL_KINDS];
    uint8_t kind_of[MODEL_LAYERS]; /* [n_layer] index into kind */
};

#endif
