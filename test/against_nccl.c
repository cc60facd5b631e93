/* against_nccl.c - compiled where NCCL's header is, and never run: our prototypes are its own. */
#include "comm/nccl/library.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stddef.h>

#undef NCCL_RESULT
#undef NCCL_TYPE
#undef NCCL_OP
#undef NCCL_ID
#undef NCCL_CONFIG
#undef NCCL_COMM
#undef NCCL_STREAM
#define NCCL_RESULT ncclResult_t
#define NCCL_TYPE ncclDataType_t
#define NCCL_OP ncclRedOp_t
#define NCCL_ID ncclUniqueId
#define NCCL_CONFIG ncclConfig_t
#define NCCL_COMM ncclComm_t
#define NCCL_STREAM cudaStream_t

#define NCCL_CALL(name, arguments)                                                                 \
    _Static_assert(__builtin_types_compatible_p(__typeof__(nccl##name), ncclResult_t arguments),   \
                   #name);
#include "comm/nccl/calls.def"
#undef NCCL_CALL

#define SAME_PLACE(ours, theirs)                                                                   \
    _Static_assert(offsetof(struct nccl_config, ours) == offsetof(ncclConfig_t, theirs), #ours)
SAME_PLACE(size, size);
SAME_PLACE(magic, magic);
SAME_PLACE(version, version);
SAME_PLACE(blocking, blocking);
SAME_PLACE(cluster, cgaClusterSize);
SAME_PLACE(least_blocks, minCTAs);
SAME_PLACE(most_blocks, maxCTAs);
SAME_PLACE(net, netName);
SAME_PLACE(split_share, splitShare);

_Static_assert(sizeof(struct nccl_id) == sizeof(ncclUniqueId), "an id");
_Static_assert(sizeof(ncclResult_t) == sizeof(unsigned) &&
                   sizeof(ncclRedOp_t) == sizeof(unsigned) &&
                   sizeof(ncclDataType_t) == sizeof(unsigned),
               "what we call unsigned");
_Static_assert((int)NCCL_SUCCESS == ncclSuccess && (int)NCCL_IN_PROGRESS == ncclInProgress,
               "results");
_Static_assert((int)NCCL_UINT32 == ncclUint32 && (int)NCCL_FLOAT32 == ncclFloat32, "types");
_Static_assert((int)NCCL_SUM == ncclSum && NCCL_UNDEFINED == NCCL_CONFIG_UNDEF_INT, "constants");
