/* fake_nccl.c - a libnccl.so.2 for tests: ranks are threads or processes that share memory, and
 * their calls are tasks in streams of the model of a GPU.
 *
 * As strict as the true one: a communicator must not block, what was called reaches the stream only
 * once the communicator's state was asked for often enough, and sums are in an order of their own.
 * FAKE_NCCL_VERSION says another version. FAKE_NCCL_FAILS=N: the Nth operation of each communicator
 * never ends, and the communicator says that the system failed.
 */
#include "stream.h"

#include "comm/nccl/library.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { RANKS = 32, RING = 1 << 16, OPS = 256, POLLS = 3 };
enum { SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4 };

/* From one rank to another: bytes that were written and read. */
struct ring {
    _Atomic uint64_t written, read;
    char at[RING];
};

struct shared {
    _Atomic uint32_t here;
    struct ring ring[RANKS][RANKS];
};

/* A message, on its way; of a sum, what comes is a term of it. */
struct message {
    bool sends;
    int peer;
    char *at;
    size_t bytes, done;
};

/* What a group of calls became. */
struct operation {
    struct ncclComm *comm;
    struct CUstream_st *stream;
    struct message message[OPS];
    int n;
    bool never; /* it fails */
    /* Then the terms of all ranks, one after the other in `terms`, are added to `to`. */
    unsigned type;
    size_t numbers;
    char *terms;
    const void *own;
    void *to;
};

struct ncclComm {
    struct shared *shared;
    int size, rank, polls, n_operation;
    bool aborted, failed;
    struct operation *next; /* not in the stream yet */
    struct ncclComm *before;
};

/* Communicators stay, for recordings that hold them. */
static _Atomic(struct ncclComm *) all;
static _Thread_local struct operation *group;
static _Thread_local int depth;

/* ------------------------------------------------------------------------------- running */

static bool go_on(const struct operation *o, struct message *m)
{
    struct ncclComm *c = o->comm;
    struct ring *r =
        m->sends ? &c->shared->ring[c->rank][m->peer] : &c->shared->ring[m->peer][c->rank];
    const uint64_t written = atomic_load(&r->written), read = atomic_load(&r->read);
    const uint64_t room = m->sends ? RING - (written - read) : written - read;
    uint64_t n = m->bytes - m->done < room ? m->bytes - m->done : room;
    for (uint64_t i = 0; i < n; i++)
        if (m->sends)
            r->at[(written + i) % RING] = m->at[m->done + i];
        else
            m->at[m->done + i] = r->at[(read + i) % RING];
    atomic_fetch_add(m->sends ? &r->written : &r->read, n);
    m->done += n;
    return m->done == m->bytes;
}

/* Messages between the same two ranks in one direction come in their order. */
static bool is_first(const struct operation *o, int i)
{
    for (int j = 0; j < i; j++)
        if (o->message[j].sends == o->message[i].sends &&
            o->message[j].peer == o->message[i].peer && o->message[j].done < o->message[j].bytes)
            return false;
    return true;
}

/* From the last rank's on, which is no order of the tree's. */
static void add_terms(struct operation *o)
{
    for (size_t i = 0; i < o->numbers; i++) {
        float sum = 0;
        uint32_t bits = 0;
        for (int r = o->comm->size - 1; r >= 0; r--) {
            const char *terms = r == o->comm->rank ? o->own : o->terms + (size_t)r * o->numbers * 4;
            float f;
            uint32_t u;
            memcpy(&f, terms + 4 * i, 4);
            memcpy(&u, terms + 4 * i, 4);
            sum += f, bits += u;
        }
        memcpy((char *)o->to + 4 * i, o->type == NCCL_FLOAT32 ? (void *)&sum : (void *)&bits, 4);
    }
}

static int run(void *arg)
{
    struct operation *o = arg;
    bool done = !o->never;
    if (o->comm->aborted)
        return 0;
    for (int i = 0; i < o->n; i++)
        done &= is_first(o, i) && go_on(o, &o->message[i]);
    if (!done)
        return MODEL_AGAIN;
    for (int i = 0; i < o->n; i++)
        o->message[i].done = 0; /* it may be recorded, and run again */
    if (o->terms)
        add_terms(o);
    return 0;
}

static void release(void *arg)
{
    struct operation *o = arg;
    free(o->terms);
    free(o);
}

/* ------------------------------------------------------------------------------- groups of calls
 */

static struct operation *operation_of(struct ncclComm *c, struct CUstream_st *stream)
{
    if (!group)
        group = calloc(1, sizeof(*group));
    if (group->comm && group->comm != c)
        abort(); /* not a thing that we do */
    group->comm = c, group->stream = stream;
    return group;
}

static unsigned end(void)
{
    struct operation *o = group;
    const char *fails = getenv("FAKE_NCCL_FAILS");
    if (depth || !o)
        return NCCL_SUCCESS;
    group = NULL;
    struct ncclComm *c = o->comm;
    o->never = ++c->n_operation == (fails ? atoi(fails) : 0);
    c->next = o;
    c->polls = POLLS;
    return NCCL_IN_PROGRESS;
}

static void add(struct operation *o, bool sends, int peer, const void *at, size_t bytes)
{
    if (o->n == OPS)
        abort();
    o->message[o->n++] = (struct message){sends, peer, (char *)(uintptr_t)at, bytes, 0};
}

static unsigned sum(const void *from, void *to, size_t n, size_t step, unsigned type,
                    struct ncclComm *c, struct CUstream_st *stream)
{
    struct operation *o = operation_of(c, stream);
    const char *at = from;
    if (c->next || (type != NCCL_FLOAT32 && type != NCCL_UINT32) || o->n)
        return INVALID_ARGUMENT;
    o->terms = calloc((size_t)c->size * n + 1, 4);
    o->numbers = n, o->type = type, o->to = to;
    o->own = at + (size_t)c->rank * step * 4;
    for (int r = 0; r < c->size; r++)
        if (r != c->rank) {
            add(o, true, r, at + (size_t)r * step * 4, n * 4);
            add(o, false, r, o->terms + (size_t)r * n * 4, n * 4);
        }
    return end();
}

/* ------------------------------------------------------------------------------- NCCL's */

EXPORT const char *ncclGetErrorString(unsigned result);
EXPORT const char *ncclGetErrorString(unsigned result)
{
    return result == SYSTEM_ERROR ? "unhandled system error" : "invalid argument";
}

#define NCCL_CALL(name, arguments) EXPORT NCCL_RESULT nccl##name arguments;
#include "comm/nccl/calls.def"
#undef NCCL_CALL

unsigned ncclGetVersion(int *version)
{
    const char *other = getenv("FAKE_NCCL_VERSION");
    *version = other ? atoi(other) : 22809;
    return NCCL_SUCCESS;
}

unsigned ncclGetUniqueId(struct nccl_id *id)
{
    int file = memfd_create("fake NCCL", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, sizeof(struct shared)))
        return SYSTEM_ERROR;
    snprintf(id->bytes, sizeof(id->bytes), "/proc/%d/fd/%d", (int)getpid(), file);
    return NCCL_SUCCESS;
}

unsigned ncclCommInitRankConfig(struct ncclComm **to, int n_rank, struct nccl_id id, int rank,
                                struct nccl_config *config)
{
    int file = open(id.bytes, O_RDWR | O_CLOEXEC);
    if (file < 0 || n_rank > RANKS || config->magic != (unsigned)NCCL_MAGIC || config->blocking ||
        config->size != sizeof(*config))
        return INVALID_ARGUMENT;
    struct ncclComm *c = calloc(1, sizeof(*c));
    c->shared = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    c->size = n_rank, c->rank = rank;
    c->before = atomic_exchange(&all, c);
    atomic_fetch_add(&c->shared->here, 1);
    *to = c;
    return NCCL_IN_PROGRESS;
}

unsigned ncclCommGetAsyncError(struct ncclComm *c, unsigned *now)
{
    *now = NCCL_IN_PROGRESS;
    if (atomic_load(&c->shared->here) < (uint32_t)c->size || (c->polls && --c->polls))
        return NCCL_SUCCESS;
    if (c->next) {
        struct operation *o = c->next;
        struct model_stream *stream = (struct model_stream *)(void *)o->stream;
        c->failed |= o->never;
        c->next = NULL;
        stream->enqueue(stream, run, o, release);
        *now = NCCL_SUCCESS;
        return NCCL_SUCCESS;
    }
    *now = c->failed ? SYSTEM_ERROR : NCCL_SUCCESS;
    return NCCL_SUCCESS;
}

unsigned ncclCommAbort(struct ncclComm *c)
{
    c->aborted = true;
    if (c->next)
        release(c->next);
    c->next = NULL;
    return NCCL_SUCCESS;
}

unsigned ncclGroupStart(void) { return depth++, NCCL_SUCCESS; }
unsigned ncclGroupEnd(void) { return depth--, end(); }

unsigned ncclSend(const void *from, size_t n, unsigned type, int peer, struct ncclComm *c,
                  struct CUstream_st *stream)
{
    if (c->next || type != NCCL_UINT32 || peer == c->rank)
        return INVALID_ARGUMENT;
    add(operation_of(c, stream), true, peer, from, n * 4);
    return end();
}

unsigned ncclRecv(void *to, size_t n, unsigned type, int peer, struct ncclComm *c,
                  struct CUstream_st *stream)
{
    if (c->next || type != NCCL_UINT32 || peer == c->rank)
        return INVALID_ARGUMENT;
    add(operation_of(c, stream), false, peer, to, n * 4);
    return end();
}

unsigned ncclAllGather(const void *from, void *to, size_t each, unsigned type, struct ncclComm *c,
                       struct CUstream_st *stream)
{
    char *at = to, *own = at + (size_t)c->rank * each * 4;
    if (c->next || type != NCCL_UINT32)
        return INVALID_ARGUMENT;
    for (int r = 0; r < c->size; r++)
        if (r != c->rank) {
            add(operation_of(c, stream), true, r, from, each * 4);
            add(operation_of(c, stream), false, r, at + (size_t)r * each * 4, each * 4);
        }
    if (own != from) { /* to itself, too */
        add(operation_of(c, stream), true, c->rank, from, each * 4);
        add(operation_of(c, stream), false, c->rank, own, each * 4);
    }
    return end();
}

unsigned ncclAllReduce(const void *from, void *to, size_t n, unsigned type, unsigned op,
                       struct ncclComm *c, struct CUstream_st *stream)
{
    return op == NCCL_SUM ? sum(from, to, n, 0, type, c, stream) : INVALID_ARGUMENT;
}

unsigned ncclReduceScatter(const void *from, void *to, size_t each, unsigned type, unsigned op,
                           struct ncclComm *c, struct CUstream_st *stream)
{
    return op == NCCL_SUM ? sum(from, to, each, each, type, c, stream) : INVALID_ARGUMENT;
}
