/* work.h - the life of a rank: wait for a step, run it, say so. */
#ifndef TANDEM_WORK_H
#define TANDEM_WORK_H

#include "run/mailbox.h"
#include "run/rank.h"

/* Run steps until the mailbox's stop word is raised. spins: how long to wait hot (see wait.h)
 * before sleeping. scratch: draw_scratch(n_vocab) bytes for each of the rank's threads. */
void rank_work(struct rank *r, struct mailbox *m, int spins, void *scratch);

size_t draw_scratch(int n_vocab);

#endif
