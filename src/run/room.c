/* room.c - see room.h. */
#include "run/room.h"
#include "comm/shm.h"
#include "dev/plugin.h"
#include "run/work.h"

#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* Measure what a rank needs for itself; beside a GPU, for the threads that draw. */
static void measure_rank(const struct plan *p, int id, enum isa isa, bool gpus, struct arena *dev,
                         struct arena *peer)
{
    struct rank r;
    struct dev d = {0};
    struct arena host = {0};
    *dev = *peer = (struct arena){0};
    if (gpus) {
        dev_cpu_init(&d, isa, 1, 1, p->threads, dev);
        return;
    }
    rank_lay_out(&r, p, id, &host, dev, peer);
    dev_cpu_init(&d, isa, p->max_tok, rank_max_dim(p), p->threads, dev);
}

static struct arena part_of(struct arena *a, size_t bytes)
{
    return (struct arena){.base = arena_get(a, bytes), .size = bytes};
}

/* What the ranks of a group share in the host's memory. */
static size_t group_bytes(const struct room *room, int size, size_t outbox_bytes)
{
    return room->gpus ? (size_t)size * GROUP_CARD : comm_shm_bytes(size, outbox_bytes);
}

static void lay_out(struct room *room, const struct plan *p, enum isa isa, bool keep_logits,
                    struct arena *a)
{
    room->mailbox = mailbox_lay_out(p, keep_logits, a);
    room->outbox_bytes =
        p->pp > 1 ? (size_t)p->max_tok * (size_t)p->model.n_embd * sizeof(float) : 0;
    for (int s = 0; s < p->pp; s++)
        room->tp_state[s] = arena_get(a, group_bytes(room, p->tp, 0));
    for (int s = 0; s < p->tp; s++)
        room->pp_state[s] = arena_get(a, group_bytes(room, p->pp, room->outbox_bytes));
    room->mailbox_bytes = a->used;

    for (int r = 0; r < plan_ranks(p); r++) {
        struct arena dev, peer;
        size_t before = a->used;
        measure_rank(p, r, isa, room->gpus, &dev, &peer);
        room->rank[r].peer = part_of(a, peer.used);
        room->rank[r].dev = part_of(a, dev.used);
        room->rank[r].scratch = arena_get(a, (size_t)p->threads * draw_scratch(p->model.n_vocab));
        room->rank_bytes[r] = a->used - before;
    }
    a->used = round_up(a->used, 4096); /* so that heads of ranks may lie in pages of their own */
    room->kv_bytes = room->gpus ? 0 : (size_t)p->pages * rank_page_bytes(p);
    must(room->gpus || room->kv_bytes == plan_kv_bytes(p, PLAN_WHOLE));
    room->kv = arena_get(a, room->kv_bytes);
    room->bytes = a->used;
}

void room_measure(struct room *room, const struct plan *p, enum isa isa, bool gpus,
                  bool keep_logits)
{
    struct arena a = {0};
    memset(room, 0, sizeof(*room));
    room->gpus = gpus;
    lay_out(room, p, isa, keep_logits, &a);
}

int map_memory(size_t bytes, bool shared, char **to, struct err *e)
{
    int flags = MAP_ANONYMOUS | MAP_NORESERVE | (shared ? MAP_SHARED : MAP_PRIVATE);
    *to = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (*to == MAP_FAILED) {
        *to = NULL;
        return err_set(e, -ENOMEM, "cannot reserve %.1f MiB of memory: %s",
                       (double)bytes / (1 << 20), strerror(errno));
    }
    madvise(*to, bytes, MADV_HUGEPAGE); /* a wish: refusal changes speed only */
    return 0;
}

int touch_memory(char *at, size_t bytes, struct err *e)
{
    enum { PAGE = 4096 };
    char *from = (char *)((uintptr_t)at & ~(uintptr_t)(PAGE - 1));
    size_t n = round_up(bytes + (size_t)(at - from), PAGE);
    if (!madvise(from, n, MADV_POPULATE_WRITE))
        return 0;
    if (errno != EINVAL)
        return err_set(e, -ENOMEM, "cannot get %.1f MiB of memory: %s", (double)n / (1 << 20),
                       strerror(errno));
    for (size_t i = 0; i < bytes; i += PAGE) /* an older kernel */
        ((volatile char *)at)[i] = 0;
    return 0;
}

/* The number behind `key` in a small file, times unit; SIZE_MAX when absent or "max". */
static size_t number_in(const char *path, const char *key, size_t unit)
{
    char line[256];
    unsigned long long n;
    size_t found = SIZE_MAX;
    FILE *f = fopen(path, "re");
    while (f && found == SIZE_MAX && fgets(line, sizeof(line), f))
        if (!strncmp(line, key, strlen(key)) && sscanf(line + strlen(key), " %llu", &n) == 1)
            found = (size_t)n * unit;
    if (f)
        fclose(f);
    return found;
}

/* What this process's cgroup (version 2) and those above it leave, page cache not counted. */
static size_t cgroup_available(void)
{
    char line[512] = "", path[1024], *at;
    size_t room = SIZE_MAX;
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof(line), f) && strncmp(line, "0::", 3))
        line[0] = 0;
    if (f)
        fclose(f);
    line[strcspn(line, "\n")] = 0;
    for (at = line[0] ? line + 3 : NULL; at && *at; *strrchr(at, '/') = 0) {
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", at);
        size_t most = number_in(path, "", 1);
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.stat", at);
        size_t anon = number_in(path, "anon ", 1), shmem = number_in(path, "shmem ", 1);
        if (most == SIZE_MAX || anon == SIZE_MAX || shmem == SIZE_MAX)
            continue;
        size_t left = most > anon + shmem ? most - anon - shmem : 0;
        room = left < room ? left : room;
    }
    return room;
}

size_t memory_available(void)
{
    size_t machine = number_in("/proc/meminfo", "MemAvailable:", 1024), group = cgroup_available();
    return machine < group ? machine : group;
}

static int check_memory(const struct room *room, const struct plan *p, size_t expert_cache,
                        struct err *e)
{
    size_t weights = plan_weight_bytes(p, PLAN_WHOLE), have = memory_available();
    size_t experts = plan_expert_bytes(p, PLAN_WHOLE);
    if (expert_cache && expert_cache < experts)
        weights -= experts - expert_cache;
    size_t want = weights + room->bytes;
    if (want <= have)
        return 0;
    const double mib = 1 << 20;
    return err_set(e, -ENOMEM,
                   "%.0f MiB of memory needed (weights %.0f, KV cache %.0f, ranks %.0f), but %.0f "
                   "are free: choose a smaller --ctx, --dtype bf16 or a smaller model",
                   (double)want / mib, (double)weights / mib, (double)room->kv_bytes / mib,
                   (double)(room->bytes - room->kv_bytes) / mib, (double)have / mib);
}

int room_open(struct room *room, const struct plan *p, enum isa isa, bool gpus, bool keep_logits,
              size_t expert_cache, struct err *e)
{
    room_measure(room, p, isa, gpus, keep_logits);
    int rc = check_memory(room, p, expert_cache, e);
    if (rc)
        return rc;
    struct arena a = {.size = room->bytes};
    rc = map_memory(room->bytes, true, &a.base, e);
    if (rc)
        return rc;
    room->base = a.base;
    lay_out(room, p, isa, keep_logits, &a);
    return 0;
}

void room_again(struct room *room, const struct plan *p)
{
    for (int s = 0; s < p->pp; s++)
        memset(room->tp_state[s], 0, group_bytes(room, p->tp, 0));
    for (int s = 0; s < p->tp; s++)
        memset(room->pp_state[s], 0, group_bytes(room, p->pp, room->outbox_bytes));
    mailbox_again(room->mailbox, plan_ranks(p));
}

void room_close(struct room *room)
{
    if (room->base)
        munmap(room->base, room->bytes);
    room->base = NULL;
}
