/* gpu_slots.h - where the experts of a rank lie on its GPU, and how they move there between two
 * steps, when the plan has slots for them.
 *
 * A rank has so many slots in each layer. What lies in them is told in memory that all processes of
 * the host share, and which outlives a rank as its weights do: a slot that is about to be written
 * is told to hold nothing before, and to hold the expert when all of it has come. So the next rank
 * knows what is there, whenever this one dies, and brings what is missing. Weights come from the
 * host's copy, which the keeper then keeps: no rank waits for another one, and no order of moving
 * can be wrong.
 */
#ifndef TANDEM_RUN_GPU_SLOTS_H
#define TANDEM_RUN_GPU_SLOTS_H

#include "dev/plugin.h"
#include "run/rank.h"

/* Of a slot: an expert's number and one; 0: nothing that could be used. */
typedef _Atomic uint16_t slot_word;

struct gpu_slots {
    const struct plugin *plugin;
    struct dev *dev, *host;      /* on the GPU; whose threads read */
    const struct weights *whole; /* the host's copy */
    struct rank *rank;
    slot_word *lies;          /* [n_layer][slots] shared */
    _Atomic uint64_t *copied; /* grows by the bytes that moved */
    bool follows;             /* a placement is in force: */
    uint64_t placed;          /* which one of control's; 0: even shares */
    struct err why;           /* when following failed */
};

/* All weights of the rank were copied as they are laid out: even shares. */
void gpu_slots_filled(struct gpu_slots *s);

/* Whether something has to move, or to be told, before a step by that placement. */
static inline bool gpu_slots_move(const struct gpu_slots *s, uint64_t placed)
{
    return !s->follows || s->placed != placed;
}

/* No step is on its way: from now on experts are held as holders[n_layer][experts] says (NULL: in
 * even shares), number `placed` of control's. What is not here yet is copied. -errno, with s->why.
 */
int gpu_slots_follow(struct gpu_slots *s, const uint64_t *holders, uint64_t placed);

#endif
