/* make_weights.c - see make_weights.h. Every number depends on the seed and its place alone: not on
 * how many threads write, nor on how many files. */
#include "model/make_weights.h"

#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { BLOCK = 1 << 18, THREADS_MAX = 64 };

void tensor_add(struct tensor_list *l, struct pool *pool, const char *name, int rows, int cols,
                size_t size, size_t shard_bytes)
{
    if (l->n == l->room) {
        struct tensor_entry *old = l->at;
        l->room = l->room ? 2 * l->room : 256;
        l->at = pool_get(pool, (size_t)l->room * sizeof(*l->at));
        if (old)
            memcpy(l->at, old, (size_t)l->n * sizeof(*old));
    }
    size_t numbers = (size_t)rows * (size_t)cols, bytes = numbers * size, used = 0;
    if (l->n) {
        const struct tensor_entry *last = &l->at[l->n - 1];
        used = last->at + (size_t)last->rows * (size_t)last->cols * size;
    }
    if (!l->n || used + bytes > shard_bytes)
        l->n_shard++, used = 0;
    struct tensor_entry *t = &l->at[l->n++];
    *t = (struct tensor_entry){
        .rows = rows, .cols = cols, .first = l->numbers, .shard = l->n_shard - 1, .at = used};
    snprintf(t->name, sizeof(t->name), "%s", name);
    l->numbers += numbers;
    l->bytes += bytes;
}

void shard_name(char to[64], const struct tensor_list *l, int i)
{
    if (l->n_shard == 1)
        snprintf(to, 64, "model.safetensors");
    else
        snprintf(to, 64, "model-%05d-of-%05d.safetensors", i + 1, l->n_shard);
}

/* ------------------------------------------------------------------------------- numbers */

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return x ^ x >> 31;
}

/* Number `place`: the sum of two uniform ones, half a 64-bit draw each. Its deviation is 1.2 by the
 * root of the inputs, so that activations neither vanish nor explode from layer to layer. */
static float number(uint64_t seed, uint64_t place, float gain)
{
    uint64_t r = mix((seed + 1) * 0x9E3779B97F4A7C15 + place / 2) >> (place % 2 * 32);
    return gain * ((float)(int32_t)(r & 0xFFFF) + (float)(int32_t)(r >> 16 & 0xFFFF) - 65535);
}

static void fill(const struct make *m, const struct tensor_entry *t, uint64_t from, size_t n,
                 void *to)
{
    bool vector = t->cols == 1, norm = strstr(t->name, "norm") != NULL;
    /* a uniform 16-bit number has deviation 2^16 / sqrt(12); two of them sqrt(2) times that */
    float gain = vector ? 0 : 1.2f * sqrtf(6) / 65536 / sqrtf((float)t->cols);
    float *wide = to;
    uint16_t *half = to;
    for (size_t i = 0; i < n; i++) {
        float f = norm ? 1 : number(m->seed, from + i, gain);
        if (m->type == NUM_F32)
            wide[i] = f;
        else
            half[i] = m->type == NUM_F16 ? f32_to_f16(f) : f32_to_bf16(f);
    }
}

/* ------------------------------------------------------------------------------- files */

struct shard {
    int fd;
    size_t data; /* where the data begins */
};

struct writing {
    const struct make *make;
    const struct tensor_list *list;
    struct shard *shard;
    _Atomic uint64_t next; /* block */
    _Atomic size_t done;   /* bytes */
    _Atomic int err;
};

static bool write_at(int fd, const void *from, size_t n, size_t at)
{
    for (const char *p = from; n;) {
        ssize_t k = pwrite(fd, p, n, (off_t)at);
        if (k <= 0 && errno != EINTR)
            return false;
        if (k > 0)
            p += k, at += (size_t)k, n -= (size_t)k;
    }
    return true;
}

static int first_of(const struct tensor_list *l, uint64_t place)
{
    int lo = 0, hi = l->n;
    while (hi - lo > 1) {
        int mid = (lo + hi) / 2;
        if (l->at[mid].first <= place)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* Write the numbers lo to hi, which may be of several tensors. */
static bool write_block(struct writing *w, uint64_t lo, uint64_t hi, void *block)
{
    size_t size = num_bytes(w->make->type);
    for (int i = first_of(w->list, lo); lo < hi; i++) {
        const struct tensor_entry *t = &w->list->at[i];
        uint64_t end = t->first + (uint64_t)t->rows * (uint64_t)t->cols;
        size_t n = (size_t)((end < hi ? end : hi) - lo);
        const struct shard *s = &w->shard[t->shard];
        fill(w->make, t, lo, n, block);
        if (!write_at(s->fd, block, n * size, s->data + t->at + (size_t)(lo - t->first) * size))
            return false;
        lo += n;
    }
    return true;
}

static void *work(void *arg)
{
    struct writing *w = arg;
    void *block = malloc(BLOCK * sizeof(float));
    must(block);
    for (;;) {
        uint64_t lo = atomic_fetch_add(&w->next, 1) * BLOCK, all = w->list->numbers;
        if (lo >= all || atomic_load(&w->err))
            break;
        uint64_t hi = all - lo > BLOCK ? lo + BLOCK : all;
        if (!write_block(w, lo, hi, block))
            atomic_store(&w->err, errno ? errno : EIO);
        atomic_fetch_add(&w->done, (size_t)(hi - lo) * num_bytes(w->make->type));
    }
    free(block);
    return NULL;
}

/* One thread per core; this one waits and tells how far they are. */
static int write_numbers(struct writing *w)
{
    pthread_t thread[THREADS_MAX];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int want = w->make->threads ? w->make->threads : cores > 1 ? (int)cores : 1, n = 0;
    while (n < want && n < THREADS_MAX && !pthread_create(&thread[n], NULL, work, w))
        n++;
    if (!n)
        work(w);
    while (n && w->make->progress && !atomic_load(&w->err) &&
           atomic_load(&w->done) < w->list->bytes) {
        w->make->progress(w->make->arg, atomic_load(&w->done), w->list->bytes);
        usleep(50000);
    }
    while (n)
        pthread_join(thread[--n], NULL);
    if (w->make->progress)
        w->make->progress(w->make->arg, w->list->bytes, w->list->bytes);
    return -atomic_load(&w->err);
}

static char *header_of(const struct make *m, const struct tensor_list *l, int shard, size_t *n)
{
    char *text;
    const char *type = m->type == NUM_F32 ? "F32" : m->type == NUM_F16 ? "F16" : "BF16";
    FILE *h = open_memstream(&text, n);
    must(h);
    fputs("{\"__metadata__\":{\"format\":\"pt\"}", h);
    for (int i = 0; i < l->n; i++) {
        const struct tensor_entry *t = &l->at[i];
        size_t bytes = (size_t)t->rows * (size_t)t->cols * num_bytes(m->type);
        char shape[32];
        snprintf(shape, sizeof(shape), t->cols == 1 ? "%d" : "%d,%d", t->rows, t->cols);
        if (t->shard == shard)
            fprintf(h, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                    t->name, type, shape, t->at, t->at + bytes);
    }
    fputc('}', h);
    while (ftell(h) % 8)
        fputc(' ', h);
    fclose(h);
    return text;
}

static int open_shard(const struct make *m, const struct tensor_list *l, int i, struct shard *s,
                      struct err *e)
{
    char path[PATH_MAX], name[64];
    size_t n;
    shard_name(name, l, i);
    snprintf(path, sizeof(path), "%s/%s.part", m->folder, name);
    s->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (s->fd < 0)
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    char *text = header_of(m, l, i, &n);
    uint64_t size = n;
    bool good = write_at(s->fd, &size, sizeof(size), 0) && write_at(s->fd, text, n, sizeof(size));
    s->data = sizeof(size) + n;
    free(text);
    return good ? 0 : err_set(e, -errno, "%s: %s", path, strerror(errno));
}

/* Give the shards their names, or remove them. */
static int end_shards(const struct make *m, const struct tensor_list *l, struct shard *s, int rc,
                      struct err *e)
{
    for (int i = 0; i < l->n_shard; i++) {
        char part[PATH_MAX], whole[PATH_MAX], name[64];
        shard_name(name, l, i);
        snprintf(whole, sizeof(whole), "%s/%s", m->folder, name);
        snprintf(part, sizeof(part), "%s/%s.part", m->folder, name);
        if (s[i].fd >= 0 && close(s[i].fd) && !rc)
            rc = err_set(e, -errno, "%s: %s", part, strerror(errno));
        if (!rc && rename(part, whole))
            rc = err_set(e, -errno, "%s: %s", whole, strerror(errno));
        if (rc)
            unlink(part);
    }
    return rc;
}

static int write_index(const struct make *m, const struct tensor_list *l, struct err *e)
{
    char path[PATH_MAX], name[64];
    json_t *map = json_object();
    for (int i = 0; i < l->n; i++) {
        shard_name(name, l, l->at[i].shard);
        json_object_set_new(map, l->at[i].name, json_string(name));
    }
    json_t *o = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)l->bytes,
                          "weight_map", map);
    snprintf(path, sizeof(path), "%s/model.safetensors.index.json", m->folder);
    int rc = json_dump_file(o, path, JSON_INDENT(1));
    json_decref(o);
    return rc ? err_set(e, -EIO, "%s: %s", path, strerror(errno)) : 0;
}

int weights_write(const struct make *m, const struct tensor_list *l, struct err *e)
{
    struct pool pool = {0};
    struct shard *s = pool_get(&pool, (size_t)l->n_shard * sizeof(*s));
    struct writing w = {.make = m, .list = l, .shard = s};
    int rc = 0;
    for (int i = 0; i < l->n_shard; i++)
        s[i].fd = -1;
    for (int i = 0; !rc && i < l->n_shard; i++)
        rc = open_shard(m, l, i, &s[i], e);
    if (!rc) {
        rc = write_numbers(&w);
        if (rc)
            err_set(e, rc, "%s: %s", m->folder, strerror(-rc));
    }
    rc = end_shards(m, l, s, rc, e);
    if (!rc && l->n_shard > 1)
        rc = write_index(m, l, e);
    pool_free(&pool);
    return rc;
}
