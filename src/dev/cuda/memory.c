/* memory.c - the memory of a device: its own, kept memory that it maps, and both being filled. */
#include "dev/cuda/cuda.h"
#include "dev/cuda/runtime.h"

#include <unistd.h>

enum { PIECE = 4 << 20, OUT_OF_MEMORY = 2 /* cudaErrorMemoryAllocation */ };

static double mib(size_t bytes) { return (double)bytes / (1 << 20); }

static int clear(const struct cuda *c, void *at, size_t bytes)
{
    int rc = gpu_clear(at, bytes, c->stream);
    return rc ? rc : gpu_wait(c->stream);
}

int cuda_memory(struct dev *d, size_t bytes, char **to, struct err *e)
{
    const struct cuda *c = cuda_of(d);
    void *at = NULL;
    bytes = round_up(bytes ? bytes : 1, CUDA_ALIGN);
    int rc = gpu_alloc(&at, bytes);
    if (!rc)
        rc = clear(c, at, bytes);
    *to = at;
    return rc ? err_set(e, -ENOMEM, "GPU %d: cannot get %.1f MiB of its memory: %s", c->ask.gpu,
                        mib(bytes), gpu_error(rc))
              : 0;
}

/* ------------------------------------------------------------------------------- kept */

/* Why memory cannot be kept; so many of the bytes that are wanted were got. */
static int not_kept(int gpu, size_t wanted, size_t got, int code, struct err *e)
{
    struct gpu_about about;
    if (code != OUT_OF_MEMORY)
        return err_set(e, -ENOTSUP, "GPU %d cannot keep memory: %s", gpu, gpu_error(code));
    if (gpu_use(gpu) || gpu_about(gpu, &about) || wanted <= about.memory_free + got)
        return err_set(e, -ENOMEM, "GPU %d: cannot get %.0f MiB of its memory", gpu, mib(wanted));
    const size_t have = about.memory_free + got;
    return err_set(e, -ENOMEM,
                   "GPU %d (%s) has %.0f MiB free, but %.0f are needed, %.0f more: others took "
                   "memory of it since it was asked (nvidia-smi shows who), or choose a smaller "
                   "--ctx",
                   gpu, about.name, mib(have), mib(wanted), mib(wanted - have));
}

int cuda_keep(int gpu, const size_t *bytes, int n, int *fd, struct err *e)
{
    size_t wanted = 0, got = 0;
    int rc = 0;
    for (int i = 0; i < n; i++)
        wanted += bytes[i], fd[i] = -1;
    for (int i = 0; !rc && i < n; i++) {
        rc = bytes[i] ? gpu_keep(gpu, bytes[i], &fd[i]) : 0;
        got += rc ? 0 : bytes[i];
    }
    if (rc)
        rc = not_kept(gpu, wanted, got, rc, e);
    for (int i = 0; rc && i < n; i++)
        if (fd[i] >= 0)
            close(fd[i]);
    gpu_leave(gpu); /* a context would take some hundred MiB from the ranks */
    return rc;
}

int cuda_kept(struct dev *d, int fd, size_t bytes, bool zero, char **to, struct err *e)
{
    const struct cuda *c = cuda_of(d);
    void *at = NULL;
    int rc = gpu_kept_map(&at, fd, bytes);
    if (!rc && zero)
        rc = clear(c, at, bytes);
    *to = at;
    return rc ? err_set(e, -EIO, "GPU %d: cannot map %.1f MiB of memory that is kept: %s",
                        c->ask.gpu, mib(bytes), gpu_error(rc))
              : 0;
}

/* ------------------------------------------------------------------------------- loading */

static int open_lane(struct cuda_lane *l)
{
    int rc = 0;
    for (int i = 0; !rc && i < CUDA_PIECES && !l->pinned[CUDA_PIECES - 1]; i++) {
        if (!l->stream[i])
            rc = gpu_stream(&l->stream[i]);
        if (!rc)
            rc = gpu_pinned(&l->pinned[i], PIECE);
    }
    return rc;
}

static int load_pieces(const struct cuda_lane *l, char *to, const char *from, size_t bytes)
{
    int rc = 0;
    for (size_t at = 0; !rc && at < bytes; at += PIECE) {
        size_t i = at / PIECE % CUDA_PIECES, n = min_size(PIECE, bytes - at);
        rc = gpu_wait(l->stream[i]);
        if (rc)
            break;
        memcpy(l->pinned[i], from + at, n);
        rc = gpu_copy_in(to + at, l->pinned[i], n, l->stream[i]);
    }
    for (int i = 0; i < CUDA_PIECES; i++)
        rc = rc ? rc : gpu_wait(l->stream[i]);
    return rc;
}

int cuda_load(struct dev *d, int lane, void *to, const void *from, size_t bytes, struct err *e)
{
    struct cuda *c = cuda_of(d);
    must(0 <= lane && lane < LOAD_LANES);
    int rc = gpu_use(c->ask.gpu); /* of this thread */
    if (!rc)
        rc = open_lane(&c->lane[lane]);
    if (!rc)
        rc = load_pieces(&c->lane[lane], to, from, bytes);
    return rc ? err_set(e, -EIO, "GPU %d: copying weights to it failed: %s", c->ask.gpu,
                        gpu_error(rc))
              : 0;
}

void cuda_load_end(struct dev *d)
{
    struct cuda *c = cuda_of(d);
    for (int l = 0; l < LOAD_LANES; l++)
        for (int i = 0; i < CUDA_PIECES; i++) {
            if (c->lane[l].pinned[i])
                gpu_pinned_free(c->lane[l].pinned[i]);
            c->lane[l].pinned[i] = NULL;
        }
}
