/* group.c - groups as the plugin offers them: in the stream of a device. */
#include "comm/nccl/group.h"
#include "comm/peer/peer.h"
#include "dev/cuda/cuda.h"

_Static_assert(sizeof(struct peer_card) <= GROUP_CARD, "the host's memory has room for a card");

/* What drawing takes of memory that others read. */
static size_t room_bytes(const struct group_ask *ask)
{
    int most = 0;
    for (int i = 0; i < ask->size; i++)
        most = max_int(most, ask->first_word[i + 1] - ask->first_word[i]);
    return ask->draw_rows ? round_up(gpu_draw_bytes(ask->draw_rows, most), CUDA_ALIGN) : 0;
}

size_t cuda_group_bytes(const struct group_ask *ask)
{
    return ask->kind == GROUP_NCCL ? nccl_group_bytes(ask)
                                   : comm_peer_bytes(ask->outbox_bytes) + room_bytes(ask);
}

static int meet(void *group) { return comm_peer_meet(group); }

/* From now on the device draws from slices. */
static void share_words(struct cuda *c, struct comm_peer *p, const struct group_ask *ask)
{
    struct gpu_vocab *to = &c->vocab;
    *to = (struct gpu_vocab){.n = ask->size, .own = ask->rank, .meet = meet, .arg = p};
    for (int i = 0; i < ask->size; i++) {
        to->first[i + 1] = ask->first_word[i + 1];
        to->away[i] = (ptrdiff_t)((uintptr_t)p->memory[i] - (uintptr_t)p->memory[ask->rank]);
    }
    c->draw_room = ask->memory + comm_peer_bytes(ask->outbox_bytes);
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
                                        .room_bytes = room_bytes(ask),
                                        .kept = ask->kept,
                                        .wait = ask->wait,
                                        .stream = cuda->stream,
                                        .replays = &cuda->replays};
    cuda->grouped = true;
    int rc = comm_peer_open(c, p, &opts, e);
    if (!rc && ask->draw_rows)
        share_words(cuda, p, ask);
    return rc;
}

int cuda_group(struct dev *d, struct comm *c, const struct group_ask *ask, struct err *e)
{
    return ask->kind == GROUP_NCCL ? nccl_group(d, c, ask, e) : open_peer(d, c, ask, e);
}
