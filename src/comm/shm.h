/* shm.h - a group of ranks on one host: processes (or threads) that share memory.
 *
 * No locks: every rank has cache lines with counters that only it writes. A sum is one-shot for
 * small payloads (every rank reads all planes and adds them by the tree) and two-shot for large
 * ones (each adds its part, then copies the others' parts): same tree, same bits.
 */
#ifndef TANDEM_COMM_SHM_H
#define TANDEM_COMM_SHM_H

#include "base/wait.h"
#include "comm/comm.h"
#include "comm/sum.h"

enum { SHM_RANKS_MAX = 64, SHM_SLOTS = 2 };

/* Shared state of one group; lives in memory that all ranks map, zeroed before use, aligned to a
 * cache line. Outbox bytes: the largest message for send (0 when the group never sends). */
size_t comm_shm_bytes(int size, size_t outbox_bytes);

/* Whether a group of this size sums a mat of so many bytes in two shots, and the bytes of it that
 * rank `rank` then adds. */
bool comm_shm_two_shot(int size, size_t bytes);
size_t comm_shm_part(int size, int rank, size_t bytes, size_t number);

/* What a rank of the group keeps to itself. */
struct comm_shm {
    void *state;
    char *peer[SHARES_MAX]; /* base of every rank's peer arena, as mapped here */
    size_t peer_bytes, outbox_bytes;
    struct wait wait;
    uint64_t turn;                               /* meetings this rank has come to */
    uint64_t begun[COMM_SUMS], n_begun, n_ended; /* sums: the meetings of those on their way */
    struct sum_program sum;                      /* n_plane == 0: a group that only sends */
    uint64_t n_sent;                             /* messages to any peer */
    struct {
        int to;
        uint64_t number; /* of the messages to that peer, from 1; 0: never used */
    } slot[SHM_SLOTS];   /* the message that was last put in each slot of the outbox */
};

/* Make c the rank's end of a group of 2 to SHM_RANKS_MAX (SHARES_MAX when cut or peer is given).
 * cut[size + 1]: see sum_compile(); NULL for a group that does not sum. peer[size]: NULL for a
 * group that only sends. ctx stays with the caller. The group must not outlive `state` and the
 * peer arenas. A raised stop word leaves c->err = -ECANCELED. */
void comm_shm_open(struct comm *c, struct comm_shm *ctx, void *state, int rank, int size,
                   const int *cut, char *const *peer, size_t peer_bytes, size_t outbox_bytes,
                   struct wait wait);

#endif
