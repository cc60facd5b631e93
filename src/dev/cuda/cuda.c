/* cuda.c - the plugin: what dev/plugin.h promises, over runtime.h. */
#include "dev/cuda/cuda.h"
#include "dev/cuda/runtime.h"

enum { PIECE = 8 << 20, ALIGN = 256 };

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
        return err_set(e, -ENODEV,
                       "the NVIDIA driver is too old: it is for CUDA %d.%d, the GPU plugin needs "
                       "%d.0 or later",
                       have / 1000, have % 1000 / 10, need / 1000);
    return err_set(e, -ENODEV, "the NVIDIA driver shows no GPU (%s)", gpu_error(code));
}

static int list_gpus(struct gpu *to, int *n, struct err *e)
{
    int found = 0, rc = gpu_count(&found);
    *n = 0;
    if (rc || !found)
        return no_driver(rc, e);
    for (int i = 0; i < min_int(found, GPUS); i++) {
        struct gpu_about a;
        rc = gpu_use(i);
        if (!rc)
            rc = gpu_about(i, &a);
        if (rc)
            return err_set(e, -ENODEV, "GPU %d cannot be used: %s", i, gpu_error(rc));
        to[i] = (struct gpu){
            .arch = a.arch, .sm = a.sm, .memory = a.memory, .memory_free = a.memory_free};
        memcpy(to[i].name, a.name, sizeof(a.name));
        memcpy(to[i].bus, a.bus, sizeof(a.bus));
    }
    *n = min_int(found, GPUS);
    return 0;
}

static void check_gpus(struct gpu *gpu, int n)
{
    for (int i = 0; i < n; i++) {
        bool same = false;
        gpu[i].warpgroups =
            gpu[i].arch == 90 && !gpu_use(i) && !gpu_check_warpgroups(&same) && same;
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
                    ALIGN);
}

static size_t scratch_bytes(const struct gpu_ask *a, const struct gpu *g)
{
    return room_bytes(a, g->sm) + cuda_batch_bytes(a);
}

static int out_of_memory(const struct cuda *c, size_t bytes, int code, struct err *e)
{
    return err_set(e, -ENOMEM, "GPU %d: cannot get %.1f MiB of its memory: %s", c->ask.gpu,
                   (double)bytes / (1 << 20), gpu_error(code));
}

static int get_memory(struct dev *d, size_t bytes, char **to, struct err *e)
{
    struct cuda *c = cuda_of(d);
    void *at = NULL;
    bytes = round_up(bytes ? bytes : 1, ALIGN);
    int rc = gpu_alloc(&at, bytes);
    if (!rc)
        rc = gpu_clear(at, bytes, c->stream);
    if (!rc)
        rc = gpu_wait(c->stream);
    *to = at;
    return rc ? out_of_memory(c, bytes, rc, e) : 0;
}

/* While one piece is on its way the next is read. */
static int load_pieces(char *to, const char *from, size_t bytes, void *const *stream,
                       void *const *pinned)
{
    int rc = 0;
    for (size_t at = 0; !rc && at < bytes; at += PIECE) {
        size_t i = at / PIECE % CUDA_PIECES, n = min_size(PIECE, bytes - at);
        rc = gpu_wait(stream[i]);
        if (rc)
            break;
        memcpy(pinned[i], from + at, n);
        rc = gpu_copy_in(to + at, pinned[i], n, stream[i]);
    }
    for (int i = 0; i < CUDA_PIECES; i++)
        rc = rc ? rc : gpu_wait(stream[i]);
    return rc;
}

static int load(struct dev *d, void *to, const void *from, size_t bytes, struct err *e)
{
    struct cuda *c = cuda_of(d);
    int rc = 0;
    for (int i = 0; !rc && i < CUDA_PIECES && !c->load_stream[CUDA_PIECES - 1]; i++) {
        rc = gpu_pinned(&c->load_pinned[i], PIECE);
        if (!rc)
            rc = gpu_stream(&c->load_stream[i]);
    }
    if (!rc)
        rc = load_pieces(to, from, bytes, c->load_stream, c->load_pinned);
    return rc ? err_set(e, -EIO, "GPU %d: copying weights to it failed: %s", c->ask.gpu,
                        gpu_error(rc))
              : 0;
}

/* ------------------------------------------------------------------------------- the device */

static int get_host(const struct cuda *c, size_t bytes, void **to, struct err *e)
{
    int rc = gpu_pinned(to, bytes);
    return rc ? err_set(e, -ENOMEM, "GPU %d: cannot pin %.1f MiB of the host's memory: %s",
                        c->ask.gpu, (double)bytes / (1 << 20), gpu_error(rc))
              : 0;
}

static int get_all(struct dev *d, int sm, struct err *e)
{
    struct cuda *c = cuda_of(d);
    void *batch = NULL, *logits = NULL;
    char *room = NULL;
    c->batch_bytes = cuda_batch_bytes(&c->ask);
    c->room = (struct gpu_room){
        .bytes = room_bytes(&c->ask, sm), .sm = sm, .warpgroups = c->ask.warpgroups};
    int rc = get_memory(d, c->batch_bytes, &c->batch, e);
    if (!rc)
        rc = get_memory(d, c->room.bytes, &room, e);
    if (!rc)
        rc = get_host(c, c->batch_bytes, &batch, e);
    if (!rc)
        rc = get_host(c, (size_t)c->ask.max_out * (size_t)c->ask.words * sizeof(float), &logits, e);
    c->room.at = room, c->batch_pinned = batch, c->pinned = logits;
    return rc;
}

/* Nothing is given back here: the process that opened the device ends with it. */
static int open_gpu(struct dev *d, const struct gpu_ask *ask, struct err *e)
{
    struct gpu_about about;
    struct pool pool = {0};
    struct cuda *c = pool_get(&pool, sizeof(*c));
    c->pool = pool;
    c->ask = *ask;
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
    return get_all(d, about.sm, e);
}

extern const struct plugin tandem_plugin;
__attribute__((visibility("default"))) const struct plugin tandem_plugin = {
    .abi = PLUGIN_ABI,
    .list = list_gpus,
    .check = check_gpus,
    .scratch_bytes = scratch_bytes,
    .open = open_gpu,
    .memory = get_memory,
    .load = load,
    .group_bytes = cuda_group_bytes,
    .group = cuda_group,
};
