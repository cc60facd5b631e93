/* library.h - NVIDIA's NCCL as it is found at run time: nothing links against it, and it is opened
 * only when a group wants it. Its prototypes are our own (calls.def), and so is what of its types
 * they need.
 */
#ifndef TANDEM_NCCL_LIBRARY_H
#define TANDEM_NCCL_LIBRARY_H

#include "base/base.h"

#include <limits.h>

/* Version 2.18: 1e4 * major + 100 * minor + patch, as NCCL counts. Communicators that do not block
 * are 2.14's; recording with them was repaired until 2.18. */
enum { NCCL_LEAST = 21800 };

enum { NCCL_SUCCESS = 0, NCCL_IN_PROGRESS = 7 };
enum { NCCL_UINT32 = 3, NCCL_FLOAT32 = 7 };
enum { NCCL_SUM = 0 };

struct ncclComm;
struct CUstream_st;

struct nccl_id {
    char bytes[128];
};

/* As of version 2.18; later ones take it and choose what it lacks. */
enum { NCCL_MAGIC = (int)0xcafebeef, NCCL_UNDEFINED = INT_MIN };
struct nccl_config {
    size_t size;
    unsigned magic, version;
    int blocking, cluster, least_blocks, most_blocks;
    const char *net;
    int split_share;
};

#define NCCL_RESULT unsigned
#define NCCL_TYPE unsigned
#define NCCL_OP unsigned
#define NCCL_ID struct nccl_id
#define NCCL_CONFIG struct nccl_config
#define NCCL_COMM struct ncclComm *
#define NCCL_STREAM struct CUstream_st *

struct nccl {
    int version;
    const char *(*GetErrorString)(NCCL_RESULT);
#define NCCL_CALL(name, arguments) NCCL_RESULT(*name) arguments;
#include "comm/nccl/calls.def"
#undef NCCL_CALL
};

/* Open libnccl.so.2, or what TANDEM_NCCL names, for good. -ENOENT when there is none, -ENOTSUP when
 * it is too old, with one sentence that says what to install. Calls no CUDA. */
int nccl_open(struct nccl *to, struct err *e);

/* A communicator's that never blocks. */
struct nccl_config nccl_config(void);

#endif
