/* room.h - the shared memory of one host: laid out, reserved, and whether there is enough. */
#ifndef TANDEM_ROOM_H
#define TANDEM_ROOM_H

#include "dev/dev.h"
#include "run/mailbox.h"
#include "run/rank.h"

/* Where everything is. All of it is one anonymous shared mapping that control makes before it
 * forks the keeper, so every process sees the same addresses, and the kernel frees it with the
 * last process. (The weights are the keeper's; see keeper.h.) */
struct room {
    char *base;
    size_t bytes;
    struct mailbox *mailbox;
    char *kv;
    bool gpus;
    void *tp_state[PLAN_STAGES], *pp_state[SHARES_MAX];
    size_t outbox_bytes;
    struct {
        struct arena dev, peer; /* this rank's own; still to be laid out */
        void *scratch;          /* of the sampler */
    } rank[PLAN_RANKS];
    size_t mailbox_bytes, kv_bytes, rank_bytes[PLAN_RANKS];
};

/* Compute the layout without memory: sizes only. gpus: ranks and their caches are in the memory of
 * GPUs (run/gpu.h), and only what they share with the host is here. */
void room_measure(struct room *room, const struct plan *p, enum isa isa, bool gpus,
                  bool keep_logits);

/* Check that weights and room fit into what the machine and the cgroup have free, reserve the
 * mapping and lay it out. Free with room_close(). */
int room_open(struct room *room, const struct plan *p, enum isa isa, bool gpus, bool keep_logits,
              size_t expert_cache, struct err *e);
void room_close(struct room *room);

/* When all ranks have died: their groups are as at the start, and the mailbox waits for new ones
 * (mailbox_again()). The cache keeps what it holds; what ranks had for themselves is left as it is,
 * for a step reads nothing there that it has not written. */
void room_again(struct room *room, const struct plan *p);

/* Bytes this process and its children may still use: the smaller of the machine's available
 * memory and what the cgroup leaves. */
size_t memory_available(void);

/* Anonymous memory, huge pages asked for; MAP_FAILED becomes -ENOMEM with the size in e. */
int map_memory(size_t bytes, bool shared, char **to, struct err *e);

/* Make the pages real now, so that running out of memory is an error of starting up. */
int touch_memory(char *at, size_t bytes, struct err *e);

#endif
