/* group.c - see group.h. */
#include "comm/nccl/group.h"
#include "comm/nccl/nccl.h"

_Static_assert(sizeof(struct nccl_card) <= 2 * GROUP_CARD, "the host's memory has room for a card");

int nccl_group_check(struct err *e)
{
    struct nccl library;
    return nccl_open(&library, e);
}

static struct nccl_use use_of(const struct group_ask *a)
{
    return (struct nccl_use){
        .size = a->size, .cut = a->cut, .rows = a->rows, .dim = a->dim, .joined = a->joined};
}

size_t nccl_group_bytes(const struct group_ask *ask)
{
    const struct nccl_use use = use_of(ask);
    return comm_nccl_bytes(&use);
}

static void look(void *group, bool begins) { comm_nccl_look(group, begins); }

int nccl_group(struct dev *d, struct comm *c, const struct group_ask *ask, struct err *e)
{
    struct cuda *cuda = cuda_of(d);
    struct comm_nccl *p = pool_get(&cuda->pool, sizeof(*p));
    struct nccl *library = pool_get(&cuda->pool, sizeof(*library));
    int rc = nccl_open(library, e);
    if (rc)
        return rc;
    const struct comm_nccl_opts opts = {.rank = ask->rank,
                                        .use = use_of(ask),
                                        .fast = ask->fast,
                                        .library = library,
                                        .card = ask->cards,
                                        .memory = ask->memory,
                                        .wait = ask->wait,
                                        .stream = cuda->stream,
                                        .replays = &cuda->replays};
    cuda->grouped = true;
    must(cuda->n_watch < CUDA_GROUPS);
    cuda->watch[cuda->n_watch++] = (struct cuda_watch){look, c};
    return comm_nccl_open(c, p, &opts, e);
}
