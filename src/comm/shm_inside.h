/* shm_inside.h - what the files of comm/shm share: meetings, and where the mats of others are. */
#ifndef TANDEM_COMM_SHM_INSIDE_H
#define TANDEM_COMM_SHM_INSIDE_H

#include "comm/shm.h"

/* Come to the next meeting and wait for the others; false when the group is to stop. */
bool shm_meet(struct comm *c);

/* What lies where m lies here in the arena of another rank; at least `bytes` of it. */
void *shm_of_peer(const struct comm *c, int rank, const struct mat *m, size_t bytes);

/* A call that read so many bytes of others. */
void shm_count(struct comm *c, size_t read_bytes);

uint64_t shm_now_ns(void);

/* shm_exchange.c */
void shm_dispatch(struct comm *c, struct mat *m, const uint32_t *need);
void shm_combine(struct comm *c, struct mat *to, const struct mat *from, const uint32_t *need);

#endif
