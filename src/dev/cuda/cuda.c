/* cuda.c - the plugin: what dev/plugin.h promises, over runtime.h. */
#include "dev/cuda/cuda.h"
#include "dev/cuda/blas.h"
#include "dev/cuda/runtime.h"

#include <unistd.h>

_Static_assert((int)GROUP_DRAW_WORDS == GPU_DRAW_WORDS, "a device draws as a group does");

/* ------------------------------------------------------------------------------- which GPUs */

/* Why the driver cannot be used, in the user's words. */
static int no_driver(int code, struct err *e)
{
    int have, need;
    gpu_driver(&have, &need);
    if (!have)
        return err_set(e, -ENODEV, "no NVIDIA driver here: install one for CUDA %d.%d or later",
                       need / 1000, need % 1000 / 10);
    if (have / 1000 < need / 1000)
        return err_set(e, -ENOTSUP,
                       "the NVIDIA driver is too old: it is for CUDA %d.%d, the GPU plugin needs "
                       "%d.0 or later",
                       have / 1000, have % 1000 / 10, need / 1000);
    return err_set(e, -ENODEV, "the NVIDIA driver shows no GPU (%s)", gpu_error(code));
}

/* Tried, not only asked: what a container or a driver forbids shows here, and not in a rank. */
static size_t kept_unit(int gpu)
{
    size_t unit = 0;
    void *at = NULL;
    int fd = -1, rc = gpu_keep_unit(gpu, &unit);
    if (rc || !unit)
        return 0;
    rc = gpu_keep(gpu, unit, &fd);
    if (!rc)
        rc = gpu_kept_map(&at, fd, unit);
    if (!rc)
        rc = gpu_clear(at, unit, NULL);
    if (!rc)
        rc = gpu_wait(NULL);
    if (at)
        gpu_kept_unmap(at, unit);
    if (fd >= 0)
        close(fd);
    return rc ? 0 : unit;
}

/* Of a GPU that others have filled, or have to themselves, no memory is free; the others can still
 * be used. */
static int look_at(int gpu, struct gpu_about *a)
{
    enum { OUT_OF_MEMORY = 2, DEVICES_UNAVAILABLE = 46 }; /* of cudaError_t */
    int rc = gpu_use(gpu);
    return rc && rc != OUT_OF_MEMORY && rc != DEVICES_UNAVAILABLE ? rc : gpu_about(gpu, a);
}

static int list_gpus(struct gpu *to, int *n, struct err *e)
{
    int found = 0, rc = gpu_count(&found);
    *n = 0;
    if (rc || !found)
        return no_driver(rc, e);
    for (int i = 0; i < min_int(found, GPUS); i++) {
        struct gpu_about a;
        uint32_t reaches = 0;
        rc = look_at(i, &a);
        for (int j = 0; !rc && j < min_int(found, GPUS); j++) {
            bool yes = false;
            rc = gpu_reaches(i, j, &yes);
            reaches |= (uint32_t)yes << j;
        }
        if (rc)
            return err_set(e, -ENODEV, "GPU %d cannot be used: %s", i, gpu_error(rc));
        to[i] = (struct gpu){.arch = a.arch,
                             .sm = a.sm,
                             .memory = a.memory,
                             .memory_free = a.memory_free,
                             .reaches = reaches,
                             .unit = kept_unit(i)};
        memcpy(to[i].name, a.name, sizeof(a.name));
        memcpy(to[i].bus, a.bus, sizeof(a.bus));
    }
    *n = min_int(found, GPUS);
    return 0;
}

static void check_gpus(struct gpu *gpu, int n, int trial)
{
    static int (*const check[GPU_TRIALS])(bool *) = {gpu_check_products, gpu_check_attention};
    for (int i = 0; i < n; i++) {
        bool same = false;
        if (gpu[i].arch == 90 && !gpu_use(i) && !check[trial](&same) && same)
            gpu[i].warpgroups |= 1 << trial;
    }
}

/* ------------------------------------------------------------------------------- memory */

static size_t room_bytes(const struct gpu_ask *a, int sm)
{
    return round_up(gpu_room_bytes(&(struct gpu_sizes){.max_tok = a->max_tok,
                                                       .max_dim = a->max_dim,
                                                       .heads = a->heads,
                                                       .head_dim = a->head_dim,
                                                       .ctx = record_keys(a->ctx),
                                                       .experts = a->experts,
                                                       .top = a->top,
                                                       .expert_columns = a->expert_columns,
                                                       .sm = sm}),
                    CUDA_ALIGN);
}

static size_t scratch_bytes(const struct gpu_ask *a, const struct gpu *g)
{
    return room_bytes(a, g->sm) + cuda_batch_bytes(a) + cuda_draw_bytes(a) +
           (a->fast ? BLAS_WORK : 0);
}

/* ------------------------------------------------------------------------------- the device */

static int get_host(const struct cuda *c, size_t bytes, void **to, struct err *e)
{
    int rc = gpu_pinned(to, bytes);
    return rc ? err_set(e, -ENOMEM, "GPU %d: cannot pin %.1f MiB of the host's memory: %s",
                        c->ask.gpu, (double)bytes / (1 << 20), gpu_error(rc))
              : 0;
}

static int get_drawing(struct dev *d, struct err *e)
{
    struct cuda *c = cuda_of(d);
    const size_t tokens = (size_t)c->ask.max_out * sizeof(int);
    void *logits = NULL, *token[2] = {NULL};
    if (!c->ask.draws)
        return 0;
    int rc = c->ask.slices ? 0 : cuda_memory(d, cuda_draw_bytes(&c->ask), &c->draw_room, e);
    for (int i = 0; !rc && i < 2; i++)
        rc = get_host(c, tokens, &token[i], e);
    if (!rc)
        rc = get_host(c, (size_t)c->ask.words * tokens, &logits, e);
    for (int i = 0; i < 2; i++)
        c->step[i].token_pinned = token[i];
    c->pinned = logits;
    return rc;
}

static int get_all(struct dev *d, int sm, struct err *e)
{
    struct cuda *c = cuda_of(d);
    void *batch[2] = {NULL};
    char *room = NULL;
    c->batch_bytes = cuda_batch_bytes(&c->ask);
    c->room = (struct gpu_room){
        .bytes = room_bytes(&c->ask, sm), .sm = sm, .warpgroups = c->ask.warpgroups};
    int rc = cuda_memory(d, c->batch_bytes, &c->batch, e);
    if (!rc)
        rc = cuda_memory(d, c->room.bytes, &room, e);
    for (int i = 0; !rc && i < 2; i++)
        rc = get_host(c, c->batch_bytes, &batch[i], e);
    for (int i = 0; i < 2; i++)
        c->step[i].batch_pinned = batch[i];
    if (!rc)
        rc = get_drawing(d, e);
    c->room.at = room;
    d->leads = !rc && !c->ask.profile && c->ask.words <= GPU_DRAW_WORDS;
    return rc;
}

static int find_libraries(unsigned which, struct err *e)
{
    struct blas_library blas;
    int rc = which & LIBRARY_NCCL ? nccl_group_check(e) : 0;
    return rc || !(which & LIBRARY_BLAS) ? rc : blas_library_open(&blas, e);
}

static int open_blas(struct dev *d, struct err *e)
{
    struct cuda *c = cuda_of(d);
    char *work;
    int rc = cuda_memory(d, BLAS_WORK, &work, e);
    c->blas = pool_get(&c->pool, sizeof(*c->blas));
    return rc ? rc : blas_open(c->blas, work, e);
}

static int watch(struct dev *d, const void *from, size_t bytes, const void **to, struct err *e)
{
    struct cuda *c = cuda_of(d);
    must(!c->watched);
    int rc = get_host(c, bytes, &c->watched_pinned, e);
    if (rc)
        return rc;
    memset(c->watched_pinned, 0, bytes);
    c->watched = from, c->watched_bytes = bytes;
    *to = c->watched_pinned;
    return 0;
}

/* Nothing is given back here: the process that opened the device ends with it. */
static int open_gpu(struct dev *d, const struct gpu_ask *ask, struct err *e)
{
    struct gpu_about about;
    struct pool pool = {0};
    struct cuda *c = pool_get(&pool, sizeof(*c));
    c->pool = pool;
    c->ask = *ask;
    c->vocab = (struct gpu_vocab){.n = 1, .first = {0, ask->words}};
    if (ask->profile)
        cuda_laps_open(c);
    *d = (struct dev){.ops = &cuda_ops, .ctx = c};
    int rc = gpu_use(ask->gpu);
    if (!rc)
        rc = gpu_about(ask->gpu, &about);
    if (!rc)
        rc = gpu_stream(&c->stream);
    if (rc)
        return err_set(e, -ENODEV, "GPU %d cannot be used: %s", ask->gpu, gpu_error(rc));
    rc = get_all(d, about.sm, e);
    return rc || !ask->fast ? rc : open_blas(d, e);
}

extern const struct plugin tandem_plugin;
__attribute__((visibility("default"))) const struct plugin tandem_plugin = {
    .abi = PLUGIN_ABI,
    .list = list_gpus,
    .check = check_gpus,
    .scratch_bytes = scratch_bytes,
    .open = open_gpu,
    .memory = cuda_memory,
    .keep = cuda_keep,
    .kept = cuda_kept,
    .load = cuda_load,
    .load_end = cuda_load_end,
    .plain = cuda_plain,
    .moved = cuda_moved,
    .libraries = find_libraries,
    .watch = watch,
    .group_bytes = cuda_group_bytes,
    .group = cuda_group,
};
