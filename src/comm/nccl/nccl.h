/* nccl.h - a group of ranks on GPUs that NCCL connects: where one GPU cannot map another's memory
 * (comm/peer/peer.h), or where sums may be in any order (`fast`).
 *
 * Sums keep to the tree: NCCL only brings planes, of large mats a part to each rank, and every rank
 * adds what it got (kernels.h), so the bits are those of every other group. `fast`: a rank adds its
 * own planes, NCCL the ranks' sums, in an order that depends on the number of ranks, on their links
 * and on NCCL's version. Sums in fixed point are exact, and are always brought. Rows that go to
 * experts (dispatch) go to all ranks.
 *
 * Calls enqueue on the rank's stream and return, so they can be recorded. Communicators do not
 * block: whoever waits for the stream looks at the group meanwhile (comm_nccl_look()), which asks
 * NCCL for errors and the host's stop word whether to go on. A group that fails is aborted, and
 * never used again; a new one is made by new processes.
 */
#ifndef TANDEM_COMM_NCCL_H
#define TANDEM_COMM_NCCL_H

#include "base/wait.h"
#include "comm/comm.h"
#include "comm/nccl/kernels.h"
#include "comm/nccl/library.h"
#include "comm/sum.h"

enum { NCCL_RANKS = 32, NCCL_PATIENCE_MS = 60000 };

/* How the others find rank 0's communicator, in memory that the ranks share, zeroed before use. */
struct nccl_card {
    _Atomic uint64_t come, told; /* others that are there; 1: the communicator has a name */
    struct nccl_id id;
};

/* What a group is for: ranks; how sums are cut, see sum_compile(), NULL when it does not sum; the
 * most rows of a mat that is summed, and numbers of such a row; and of a row that is joined. */
struct nccl_use {
    int size;
    const int *cut;
    int rows, dim, joined;
};

/* Bytes of the GPU's memory where what NCCL brings is put; a multiple of 256. */
size_t comm_nccl_bytes(const struct nccl_use *);

struct comm_nccl_opts {
    int rank;
    struct nccl_use use;
    bool fast;
    const struct nccl *library;
    struct nccl_card *card;
    char *memory;        /* comm_nccl_bytes() */
    struct wait wait;    /* for the others, at the start; its stop word ends later waits, too */
    int patience_ms;     /* for NCCL, once all have come, and for the others in a step; 0:
                            NCCL_PATIENCE_MS */
    void *stream;        /* of all calls, and of whatever writes what is sent and summed */
    const bool *replays; /* true: the calls stand in a recording already; NULL: never */
};

/* What a rank of the group keeps to itself. */
struct comm_nccl {
    struct comm_nccl_opts opts;
    struct ncclComm *comm; /* NULL: aborted */
    size_t memory_bytes;
    struct sum_program sum; /* n_plane == 0: a group that only sends */
    uint8_t adds[NCCL_PLANES];
    int n_begun; /* sums on their way */
    uint64_t since_ns;
};

/* Make c a rank's end of a group; waits until all ranks have come. ctx, card and memory stay with
 * the caller until comm_nccl_close(). -ECANCELED when stopped, -ETIMEDOUT, -EIO with NCCL's words.
 */
int comm_nccl_open(struct comm *c, struct comm_nccl *ctx, const struct comm_nccl_opts *,
                   struct err *e);

/* In every turn of a loop that waits for the stream; the first call of a wait says begins. What
 * goes wrong is in c->err, and then the stream comes to its end. */
void comm_nccl_look(struct comm *c, bool begins);

void comm_nccl_close(struct comm_nccl *ctx);

#endif
