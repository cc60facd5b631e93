/* kv.h - how the KV cache lies in memory, and how rows of it become whole numbers.
 *
 * Nothing about who owns which page: that is sched/blocks.h.
 */
#ifndef TANDEM_KV_H
#define TANDEM_KV_H

#include "base/mat.h"
#include "dev/kv_page.h"

/* The KV cache of one layer as one rank sees it: n_head heads, in pages. Page p of head j begins at
 * at + p * page_bytes + j * head_bytes. "Wide" is head_dim rounded up to 16.
 *   f32, bf16: keys [head_dim][KV_PAGE], lanes are positions; values [KV_PAGE][wide].
 *   int8: a scale per key [KV_PAGE] and per value [KV_PAGE], bf16; then numbers, 128 more than they
 *   mean, in words of four: keys [head_dim / 4, up][KV_PAGE], values [KV_PAGE / 4][wide]. A word
 *   holds four dimensions of a key, or a dimension of four successive values, in the order 0 2 1 3:
 *   its even bytes are one pair, its odd bytes the next. */
struct kv {
    enum num type; /* f32, bf16, int8 */
    int n_head, head_dim;
    size_t page_bytes, head_bytes;
    char *at;
};

static inline bool kv_can_be(enum num type)
{
    return type == NUM_F32 || type == NUM_BF16 || type == NUM_INT8;
}

static inline size_t kv_scale_bytes(enum num type) { return type == NUM_INT8 ? KV_SCALES : 0; }

static inline size_t kv_number_bytes(enum num type)
{
    return type == NUM_INT8 ? 1 : num_bytes(type);
}

/* Keys of one head in one page, without their scales. */
static inline size_t kv_key_bytes(enum num type, int head_dim)
{
    return round_up((size_t)head_dim, type == NUM_INT8 ? 4 : 1) * KV_PAGE * kv_number_bytes(type);
}

/* Keys and values of one head in one page; a multiple of 64. */
static inline size_t kv_head_bytes(enum num type, int head_dim)
{
    return kv_scale_bytes(type) + kv_key_bytes(type, head_dim) +
           round_up((size_t)head_dim, 16) * KV_PAGE * kv_number_bytes(type);
}

/* What is read of one key and its value. */
static inline size_t kv_row_bytes(enum num type, int head_dim)
{
    return 2 * (size_t)head_dim * kv_number_bytes(type) + kv_scale_bytes(type) / KV_PAGE;
}

/* Which byte of its word the k-th of four numbers is. */
static inline int kv_byte(int k) { return (k & 1) << 1 | k >> 1; }

/* A key or a value, n numbers, as bytes 128 + q, q from -127 to 127:
 *     top = the largest magnitude; below 1e-30 all is 0
 *     scale = top / 127, rounded up to bf16;  q = x * (1 / scale), to the nearest, ties to even
 * With an infinite number or none among them scale is a NaN and q is 0: whoever attends to it gets
 * NaN. */
void kv_round(const float *x, int n, uint8_t *to, uint16_t *scale);

/* What is multiplied with such rows, a query or the weights of a block of values, n numbers:
 *     q = x * (32767 / top), to the nearest, ties to even;  scale = top / 32767
 * otherwise as kv_round(). */
void kv_round_factor(const float *x, int n, int16_t *to, float *scale);

#endif
