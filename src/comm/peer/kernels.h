/* kernels.h - what ranks on GPUs do together, as C calls it: one function enqueues one operation of
 * comm.h on a stream, as dev/cuda/kernels.h has it for operations of one rank.
 *
 * Every block of a kernel meets the block of the same number on the other ranks' GPUs: it writes
 * its turn into their memory and waits for theirs in its own. Who has met knows that all that stood
 * before the kernel in the others' streams is done, and all that their block of that number had
 * done in this kernel. So blocks share out the work alike on all ranks, none waits for another of
 * its own GPU, and a kernel that has ended had every block of the others' in it, who thus are done
 * with what they read in the kernel before.
 *
 * Turns stand in the GPU's memory and only grow: nothing is reset, and a kernel may be recorded
 * once and replayed. All ranks enqueue the same kernels in the same order.
 */
#ifndef TANDEM_PEER_KERNELS_H
#define TANDEM_PEER_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PEER_RANKS = 32, PEER_PLANES = 32, PEER_BLOCKS = 32, PEER_SLOTS = 2 };

/* The head of each rank's memory, zeroed at the start. Words are written by their owner's kernels,
 * but for those that say who writes them; last index: by that block. */
struct peer_state {
    uint32_t turn[PEER_BLOCKS];                /* meetings it has come to */
    uint32_t arrived[PEER_RANKS][PEER_BLOCKS]; /* meetings that rank has come to, which writes it */
    uint32_t n_sent[PEER_BLOCKS];              /* messages to anyone, numbered from 1 */
    uint32_t n_to[PEER_RANKS][PEER_BLOCKS], n_from[PEER_RANKS][PEER_BLOCKS]; /* messages */
    /* The number of message k from that rank, at k % 2, which writes it; and what was seen there.
     */
    uint32_t inbox[PEER_RANKS][PEER_SLOTS][PEER_BLOCKS], seen[PEER_RANKS][PEER_SLOTS][PEER_BLOCKS];
    uint32_t taken[PEER_SLOTS][PEER_BLOCKS]; /* the last message taken there, by who took it */
};

/* The group as one rank sees it. state: each rank's, mapped here. stop: the host's; not zero: give
 * up waiting, and say so in `failed`, the host's too. */
struct peer_view {
    int rank, size;
    struct peer_state *state[PEER_RANKS];
    const uint32_t *stop;
    uint32_t *failed;
};

/* Of mats of one shape, f32 or (whole) 64-bit fixed point: add the planes of all ranks in numbers
 * lo .. hi into this rank's mat, when `add`; then copy the parts bound[r] .. bound[r + 1] of the
 * other ranks' mats, when `copy`. After plane i so many additions of the two topmost terms follow
 * (comm/sum.h). n: numbers of a mat, which says how many blocks work. */
struct peer_job {
    bool add, copy, whole;
    uint8_t n_plane, adds[PEER_PLANES];
    size_t n, lo, hi, bound[PEER_RANKS + 1];
    const void *plane[PEER_PLANES];
    void *mat[PEER_RANKS];
};
int peer_exchange(void *stream, const struct peer_view *, const struct peer_job *);

/* Rows of row_bytes in mats alike on all ranks; rank r owns rows first[r] .. first[r + 1] - 1. Bit
 * r of need[row], in the GPU's memory: rank r computes something of the row. dispatch copies the
 * rows of others that this rank needs into its mat; combine makes its own rows of `to` the sums of
 * mat over the ranks that need them, in 64-bit fixed point. */
struct peer_rows {
    size_t row_bytes;
    int first[PEER_RANKS + 1];
    const uint32_t *need;
    void *mat[PEER_RANKS];
};
int peer_dispatch(void *stream, const struct peer_view *, const struct peer_rows *);
int peer_combine(void *stream, const struct peer_view *, const struct peer_rows *, void *to);

/* to[n] = the bits of all ranks' from[n], joined by or. */
int peer_merge(void *stream, const struct peer_view *, uint32_t *to,
               const uint32_t *const from[PEER_RANKS], size_t n);

/* Columns lo .. lo + dim of root[n][root_dim] = from[n][dim]; done on all ranks when it ends. */
int peer_join(void *stream, const struct peer_view *, float *root, int root_dim, int lo,
              const float *from, int n, int dim);

/* Nothing but a meeting. */
int peer_meet(void *stream, const struct peer_view *);

/* Messages of so many bytes, a multiple of 4: into this rank's outbox, of PEER_SLOTS slots of
 * slot_bytes, when there is room; out of the sender's. */
int peer_send(void *stream, const struct peer_view *, int to, char *outbox, size_t slot_bytes,
              const void *from, size_t bytes);
int peer_recv(void *stream, const struct peer_view *, int from, const char *outbox,
              size_t slot_bytes, void *to, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
