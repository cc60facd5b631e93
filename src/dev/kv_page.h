/* kv_page.h - how many of what the KV cache and attention work on, for C and CUDA alike: dev/kv.h.
 */
#ifndef TANDEM_KV_PAGE_H
#define TANDEM_KV_PAGE_H

enum {
    KV_PAGE = 16,      /* tokens per page */
    KV_BLOCK = 128,    /* keys per step of the online softmax */
    KV_SEGMENT = 2048, /* keys after which (max, sum, o) starts afresh; segments merge ascending */
    KV_SCALES = 64,    /* bytes of scales before the numbers of an int8 page */
    KV_INT8_DIM = 512  /* the largest head whose int8 products fit 32 bits */
};

#endif
