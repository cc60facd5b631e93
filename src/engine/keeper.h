/* keeper.h - the process that holds the weights and forks the ranks.
 *
 * It loads and packs the weights once into its own memory, makes them read-only, forks one process
 * per rank (which see them at once), and then only watches: a rank that dies is reported to
 * control, a closed socket means that control is gone or done. It never touches requests.
 */
#ifndef TANDEM_KEEPER_H
#define TANDEM_KEEPER_H

#include "engine/team.h"
#include "run/room.h"

/* What the keeper tells control, one datagram each. */
struct keeper_word {
    enum { KEEPER_RANK, KEEPER_READY, KEEPER_FAILED, KEEPER_DIED } kind;
    int rank, pid, status; /* RANK: a rank and its pid; DIED: a rank and its wait status */
    size_t weight_bytes;   /* READY: of the host's copy, as laid out */
    size_t rank_weights[PLAN_RANKS];            /* READY: of each rank's view */
    char text[sizeof(((struct err *)0)->text)]; /* FAILED: why */
};

/* Run the keeper in this (forked) process; does not return. The weights are packed from the store,
 * or only mapped. fd: its end of the socket to control. n_thread: for packing or checking. */
_Noreturn void keeper_run(const struct plan *p, const struct store *s, const struct team_opts *opts,
                          struct room *room, int fd, int n_thread);

#endif
