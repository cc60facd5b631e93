/* config_inside.h - what the files that read config.json share. Not for anybody else: folder.h is
 * the face. */
#ifndef TANDEM_CONFIG_INSIDE_H
#define TANDEM_CONFIG_INSIDE_H

#include "base/json.h"
#include "model/folder.h"

/* What config.json of an architecture means without saying. */
struct family {
    const char *arch;
    bool qkv_bias;   /* always, whatever attention_bias says */
    bool bias_field; /* attention_bias is read: q, k, v and o */
    bool qk_norm;
    bool qk_row;  /* of all heads at once */
    int head_dim; /* when the field is absent; 0: hidden_size / heads */
    enum { WINDOW_NONE, WINDOW_ALL, WINDOW_FLAG, WINDOW_FLAG_EVEN, WINDOW_FLAG_ALL } window;
    enum { EXPERTS_NONE, EXPERTS_MIXTRAL, EXPERTS_OLMOE, EXPERTS_QWEN } experts;
    bool shared_expert; /* one, behind a gate */
};

/* json_get_int() of a field that must be there and is at least 1. */
int config_need_int(const json_t *o, const char *key, int hi, int *to, struct err *e);

/* config_rope.c: rope_theta, and rope_scaling or rope_parameters. */
int config_rope(const json_t *o, int n_ctx, struct rope *r, struct err *e);

/* config_quant.c: quantization_config: e4m3 in the ways that are read, or refused. What is done
 * otherwise than it says is noted. */
int config_quantised(const json_t *q, struct notes *notes, struct err *e);

/* config_layers.c: how layers differ (windows, experts or none; kind and kind_of), and the experts.
 * config_experts() comes after config_windows(). */
int config_windows(const json_t *o, const struct family *f, struct model *m, struct err *e);
int config_experts(const json_t *o, const struct family *f, struct model *m, struct err *e);
int config_check_experts(const struct model *m, struct err *e);

#endif
