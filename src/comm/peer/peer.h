/* peer.h - a group of ranks on GPUs whose memory the others have mapped: on one host, several of
 * them on one GPU if need be. The twin of comm/shm.h: same tree, same bits.
 *
 * Calls enqueue kernels on the rank's stream and return; see comm/peer/kernels.h. Sums of small
 * payloads are one-shot, of large ones two-shot (comm/shots.h).
 */
#ifndef TANDEM_COMM_PEER_H
#define TANDEM_COMM_PEER_H

#include "base/wait.h"
#include "comm/comm.h"
#include "comm/peer/kernels.h"
#include "comm/sum.h"
#include "dev/cuda/runtime.h"

/* How the others find a rank's memory. The cards of a group lie in memory that its processes share,
 * zeroed before use. */
struct peer_card {
    _Atomic uint64_t told;
    int pid;
    void *at;
    size_t bytes;
    struct gpu_handle handle; /* of memory that is not kept */
};

/* Bytes of a rank's memory before its room; a multiple of 256. Outbox bytes: the largest message
 * for send (0 when the group never sends). */
size_t comm_peer_bytes(size_t outbox_bytes);

struct comm_peer_opts {
    int rank, size;         /* 2 to PEER_RANKS */
    const int *cut;         /* [size + 1], see sum_compile(); NULL: a group that does not sum */
    struct peer_card *card; /* [size] */
    char *memory; /* as gpu_alloc() gave it: comm_peer_bytes(), room_bytes of the caller's, which
                     are a multiple of 256, then this rank's peer arena */
    size_t peer_bytes, outbox_bytes, room_bytes;
    const int *kept;     /* [size] descriptors, when all ranks' memory is kept; else NULL */
    struct wait wait;    /* for the others, at the start; its stop word ends later waits, too */
    void *stream;        /* of all kernels, and of whatever writes what is sent and summed */
    const bool *replays; /* true: the calls stand in a recording already; NULL: never */
};

/* What a rank of the group keeps to itself. */
struct comm_peer {
    struct comm_peer_opts opts;
    struct peer_view view;
    char *memory[PEER_RANKS]; /* of every rank, as mapped here */
    bool kept;                /* by descriptors */
    size_t arena;             /* where peer arenas begin in it */
    struct sum_program sum;   /* n_plane == 0: a group that only sends */
    uint8_t adds[PEER_PLANES];
    int n_begun; /* sums on their way */
    int code;    /* of the GPU's error, for gpu_error(); 0: none */
    uint32_t *failed, *shown;
};

/* Make c a rank's end of a group; waits until all ranks have come. ctx stays with the caller, as do
 * cards and memory, until all have left. -ECANCELED when stopped, -EOPNOTSUPP when one GPU cannot
 * reach another's memory, -EIO. comm_end() tells when a wait was given up: c->err = -ECANCELED. */
int comm_peer_open(struct comm *c, struct comm_peer *ctx, const struct comm_peer_opts *,
                   struct err *e);

/* Enqueue a meeting: what stands before it in the streams of all ranks is done then, and what it
 * wrote may be read. Returns a cudaError_t. */
int comm_peer_meet(struct comm_peer *ctx);

/* The stream is done, and nobody's kernels read this rank's memory any more. */
void comm_peer_close(struct comm_peer *ctx);

#endif
