/* packed.c - see packed.h. */
#include "run/packed.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { BLOCK = 16 << 20, ALIGN = 2 << 20, HEADER_MAX = 64 << 20, THREADS = 64 };

static const char magic[8] = "TANDEMW2";

struct header {
    char magic[8];
    uint64_t bytes, layout, begin, data_bytes;
    uint64_t shares;
    char weight[16];
};

static size_t blocks(size_t bytes) { return (bytes + BLOCK - 1) / BLOCK; }

static uint64_t block_sum(const char *data, size_t bytes, size_t i)
{
    size_t at = i * BLOCK;
    return XXH3_64bits(data + at, bytes - at < BLOCK ? bytes - at : BLOCK);
}

/* ------------------------------------------------------------------------------- reading */

int packed_parse(const void *bytes, size_t n, size_t file_bytes, struct packed *to, struct err *e)
{
    struct header h;
    *to = (struct packed){.fd = -1};
    if (n < sizeof(h) || memcmp(bytes, magic, sizeof(magic)))
        return err_set(e, -EINVAL, "not packed weights of this version: run tandem pack again");
    memcpy(&h, bytes, sizeof(h));
    size_t sums = blocks(h.data_bytes) * sizeof(uint64_t);
    bool sane = h.data_bytes > 0 && h.data_bytes <= file_bytes && h.begin % ALIGN == 0 &&
                h.begin <= file_bytes - h.data_bytes && !h.weight[sizeof(h.weight) - 1] &&
                h.bytes == sizeof(h) + sums + sizeof(uint64_t) && h.bytes <= h.begin;
    if (!sane || h.bytes > n)
        return err_set(e, -EINVAL, "%s: copy it again or run tandem pack again",
                       file_bytes < h.begin + h.data_bytes ? "cut short"
                                                           : "its header makes no sense");
    uint64_t sum;
    memcpy(&sum, (const char *)bytes + h.bytes - sizeof(sum), sizeof(sum));
    if (sum != XXH3_64bits(bytes, h.bytes - sizeof(sum)))
        return err_set(e, -EINVAL, "its header is damaged: copy it again or run tandem pack again");
    to->weight = num_named(h.weight);
    if (to->weight == NUM_COUNT || !num_can_weigh(to->weight) || h.shares > SHARES_MAX)
        return err_set(e, -EINVAL,
                       "packed as \"%s\" for sums of %" PRIu64
                       " shares, which this version does not know: run tandem pack again",
                       h.weight, h.shares);
    to->begin = h.begin, to->bytes = h.data_bytes;
    to->shares = (int)h.shares, to->layout = h.layout;
    to->sum = malloc(sums);
    must(to->sum);
    memcpy(to->sum, (const char *)bytes + sizeof(h), sums);
    return 0;
}

/* The header's own length is its second number. */
static int read_header(int fd, struct packed *to, struct err *e)
{
    struct header h;
    struct stat st;
    if (fstat(fd, &st) || pread(fd, &h, sizeof(h), 0) != sizeof(h))
        return err_set(e, -EINVAL, "too short for packed weights");
    size_t n = h.bytes < sizeof(h) ? sizeof(h) : h.bytes > HEADER_MAX ? HEADER_MAX : h.bytes;
    char *bytes = malloc(n);
    must(bytes);
    ssize_t got = pread(fd, bytes, n, 0);
    int rc = packed_parse(bytes, got < 0 ? 0 : (size_t)got, (size_t)st.st_size, to, e);
    free(bytes);
    return rc;
}

int packed_open(const char *folder, struct packed **out, struct err *e)
{
    char path[PATH_MAX];
    *out = NULL;
    snprintf(path, sizeof(path), "%s/" PACKED_FILE, folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    struct packed *f = calloc(1, sizeof(*f));
    must(f);
    int rc = read_header(fd, f, e);
    f->fd = fd;
    if (rc) {
        packed_close(f);
        return err_add(e, rc, "%s", path);
    }
    *out = f;
    return 0;
}

void packed_close(struct packed *f)
{
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    free(f->sum);
    free(f);
}

int packed_check(const struct packed *f, const struct plan *p, struct err *e)
{
    if (p->weight != f->weight)
        return err_set(e, -EINVAL,
                       "the weights are packed as %s, not %s: leave out --dtype, or run "
                       "tandem pack again",
                       num_name(f->weight), num_name(p->weight));
    if (p->shares != f->shares)
        return err_set(e, -EINVAL,
                       "the weights are packed for sums of %d shares, not %d: run tandem "
                       "pack --shares %d again",
                       f->shares, p->shares, p->shares);
    if (plan_weights_hash(p) != f->layout)
        return err_set(e, -EINVAL,
                       "the weights were packed from another config.json or by another "
                       "version: run tandem pack again");
    return 0;
}

struct checking {
    const struct packed *f;
    const char *data;
    _Atomic size_t next, bad;
    _Atomic uint64_t *done;
};

static void *check_blocks(void *arg)
{
    struct checking *c = arg;
    for (;;) {
        size_t i = atomic_fetch_add(&c->next, 1);
        if (i >= blocks(c->f->bytes))
            return NULL;
        if (block_sum(c->data, c->f->bytes, i) != c->f->sum[i])
            atomic_store(&c->bad, i + 1);
        atomic_fetch_add(c->done, BLOCK);
    }
}

int packed_map(const struct packed *f, int n_thread, _Atomic uint64_t *done, char **to,
               struct err *e)
{
    pthread_t thread[THREADS];
    int started = 0;
    *to = mmap(NULL, f->bytes, PROT_READ, MAP_SHARED, f->fd, (off_t)f->begin);
    if (*to == MAP_FAILED)
        return err_set(e, -errno, "cannot map %zu bytes of packed weights: %s", f->bytes,
                       strerror(errno));
    madvise(*to, f->bytes, MADV_HUGEPAGE); /* a wish: few file systems grant it */
    struct checking c = {.f = f, .data = *to, .done = done};
    while (started < min_int(n_thread - 1, THREADS) &&
           !pthread_create(&thread[started], NULL, check_blocks, &c))
        started++;
    check_blocks(&c);
    while (started)
        pthread_join(thread[--started], NULL);
    if (!c.bad)
        return 0;
    munmap(*to, f->bytes);
    *to = NULL;
    return err_set(e, -EINVAL,
                   PACKED_FILE " is damaged %zu MiB after its beginning: copy it again or run "
                               "tandem pack again",
                   (f->begin + (c.bad - 1) * BLOCK) >> 20);
}

/* ------------------------------------------------------------------------------- writing */

static bool write_at(int fd, const char *from, size_t n, size_t at)
{
    while (n) {
        ssize_t k = pwrite(fd, from, n < BLOCK ? n : BLOCK, (off_t)at);
        if (k <= 0 && errno != EINTR)
            return false;
        if (k > 0)
            from += k, at += (size_t)k, n -= (size_t)k;
    }
    return true;
}

static char *make_header(const struct plan *p, const char *data, size_t bytes, struct header *h)
{
    size_t n = blocks(bytes);
    *h = (struct header){.bytes = sizeof(*h) + (n + 1) * sizeof(uint64_t),
                         .layout = plan_weights_hash(p),
                         .data_bytes = bytes,
                         .shares = (uint64_t)p->shares};
    snprintf(h->weight, sizeof(h->weight), "%s", num_name(p->weight));
    memcpy(h->magic, magic, sizeof(magic));
    h->begin = round_up(h->bytes, ALIGN);
    char *text = malloc(h->bytes);
    must(text);
    memcpy(text, h, sizeof(*h));
    uint64_t *sum = (uint64_t *)(void *)(text + sizeof(*h));
    for (size_t i = 0; i < n; i++)
        sum[i] = block_sum(data, bytes, i);
    sum[n] = XXH3_64bits(text, h->bytes - sizeof(uint64_t));
    return text;
}

int packed_write(const char *folder, const struct plan *p, const char *data, size_t bytes,
                 struct err *e)
{
    char path[PATH_MAX], part[PATH_MAX + 8];
    struct header h;
    snprintf(path, sizeof(path), "%s/" PACKED_FILE, folder);
    snprintf(part, sizeof(part), "%s.part", path);
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return err_set(e, -errno, "%s: %s", part, strerror(errno));
    char *header = make_header(p, data, bytes, &h);
    bool good = write_at(fd, header, h.bytes, 0) && write_at(fd, data, bytes, h.begin);
    free(header);
    good = !close(fd) && good && !rename(part, path);
    if (good)
        return 0;
    int rc = err_set(e, -errno, "%s: %s", path, strerror(errno));
    unlink(part);
    return rc;
}
