/* keeper.h - the process that holds the weights and forks the ranks.
 *
 * It loads and packs the weights once into its own memory, makes them read-only, forks one process
 * per rank (which see them at once), and then only watches: a rank that dies is reported to
 * control, which may ask for ranks anew; a closed socket means that control is gone or done. It
 * never touches requests.
 */
#ifndef TANDEM_KEEPER_H
#define TANDEM_KEEPER_H

#include "engine/team.h"
#include "run/room.h"

/* What the keeper tells control, one datagram each. */
struct keeper_word {
    enum { KEEPER_RANK, KEEPER_READY, KEEPER_FAILED, KEEPER_DIED, KEEPER_AGAIN } kind;
    int rank, pid, status; /* RANK: a rank and its pid; DIED: a rank and its wait status; FAILED:
                              the error's code, -EBUSY when a process cannot be ended */
    size_t weight_bytes;   /* READY: of the host's copy, as laid out */
    size_t rank_weights[PLAN_RANKS];            /* READY: of each rank's view */
    char text[sizeof(((struct err *)0)->text)]; /* FAILED: why */
};

/* What control may tell the keeper, any datagram: end the ranks that are left and fork all of them
 * anew, on the same weights and the same cache; they run again what not all had done. The keeper
 * answers AGAIN when the old ones are gone (words before it are about those) and says RANK of the
 * new ones; FAILED when weights or cache are no longer there. */

/* Run the keeper in this (forked) process; does not return. The weights are packed from the store,
 * or only mapped. fd: its end of the socket to control. n_thread: for packing or checking. */
_Noreturn void keeper_run(const struct plan *p, const struct store *s, const struct team_opts *opts,
                          struct room *room, int fd, int n_thread);

#endif
