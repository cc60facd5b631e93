/* group.h - the group of nccl.h in the stream of a device, which looks at it while it waits. */
#ifndef TANDEM_NCCL_GROUP_H
#define TANDEM_NCCL_GROUP_H

#include "dev/cuda/cuda.h"

size_t nccl_group_bytes(const struct group_ask *);
int nccl_group(struct dev *d, struct comm *c, const struct group_ask *, struct err *e);

#endif
