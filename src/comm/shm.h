/* shm.h - a group of ranks on one host: processes (or threads) that share memory.
 *
 * No locks: every rank has a cache line with counters that only it writes. A sum is one-shot for
 * small payloads (every rank reads all planes and adds them by the tree) and two-shot for large
 * ones (each adds its part, then copies the others' parts): same tree, same bits.
 */
#ifndef TANDEM_COMM_SHM_H
#define TANDEM_COMM_SHM_H

#include "base/wait.h"
#include "comm/comm.h"

/* Shared state of one group; lives in memory that all ranks map, zeroed before use. Outbox bytes:
 * the largest message for send (0 when the group never sends). */
size_t comm_shm_bytes(int size, size_t outbox_bytes);

/* What a rank of the group keeps to itself. */
struct comm_shm {
    void *state;
    char *peer[SHARES_MAX]; /* base of every rank's peer arena, as mapped here */
    size_t peer_bytes, outbox_bytes;
    struct wait wait;
    uint64_t turn;
    /* the rest of the tree, compiled: see shm.c */
    int n_step;
    int8_t program[4 * SHARES_MAX];
    int n_plane[SHARES_MAX];
};

/* Make c the rank's end of a group. cut[size + 1]: rank i holds the shares cut[i] .. cut[i+1] of
 * the tree (NULL for a group that only sends). ctx stays with the caller. The group must not
 * outlive `state` and the peer arenas. */
void comm_shm_open(struct comm *c, struct comm_shm *ctx, void *state, int rank, int size,
                   const int *cut, char *const *peer, size_t peer_bytes, size_t outbox_bytes,
                   struct wait wait);

#endif
