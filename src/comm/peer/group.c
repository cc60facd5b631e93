/* group.c - groups as the plugin offers them: in the stream of a device. */
#include "comm/nccl/group.h"
#include "comm/peer/peer.h"
#include "dev/cuda/cuda.h"

_Static_assert(sizeof(struct peer_card) <= GROUP_CARD, "the host's memory has room for a card");

size_t cuda_group_bytes(const struct group_ask *ask)
{
    return ask->kind == GROUP_NCCL ? nccl_group_bytes(ask) : comm_peer_bytes(ask->outbox_bytes);
}

static int open_peer(struct dev *d, struct comm *c, const struct group_ask *ask, struct err *e)
{
    struct cuda *cuda = cuda_of(d);
    struct comm_peer *p = pool_get(&cuda->pool, sizeof(*p));
    const struct comm_peer_opts opts = {.rank = ask->rank,
                                        .size = ask->size,
                                        .cut = ask->cut,
                                        .card = ask->cards,
                                        .memory = ask->memory,
                                        .peer_bytes = ask->peer_bytes,
                                        .outbox_bytes = ask->outbox_bytes,
                                        .kept = ask->kept,
                                        .wait = ask->wait,
                                        .stream = cuda->stream,
                                        .replays = &cuda->replays};
    cuda->grouped = true;
    return comm_peer_open(c, p, &opts, e);
}

int cuda_group(struct dev *d, struct comm *c, const struct group_ask *ask, struct err *e)
{
    return ask->kind == GROUP_NCCL ? nccl_group(d, c, ask, e) : open_peer(d, c, ask, e);
}
