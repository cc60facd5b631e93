/* shots.h - from which size of a mat on groups of GPUs sum it in two shots, each rank a part and
 * then all parts to all. For the groups (comm/peer, comm/nccl) and for who measures them. Two shots
 * read less and meet once more, which takes 2 to 3 us; the bounds are those that others' kernels of
 * this kind take between GPUs with NVLink, guesses here: nothing has measured them.
 */
#ifndef TANDEM_COMM_SHOTS_H
#define TANDEM_COMM_SHOTS_H

#include "base/base.h"

enum { NCCL_ONE_SHOT = 256 << 10 };

/* Two ranks read the same number of bytes either way. */
static inline bool comm_peer_two_shot(int size, size_t bytes)
{
    return size > 2 && bytes >= (size_t)(size <= 4 ? 512 : 256) << 10;
}

static inline bool comm_nccl_two_shot(size_t bytes) { return bytes > NCCL_ONE_SHOT; }

#endif
