/* gpu_copy.c - runs of bytes on their way from the host's memory to a GPU: noted first, then copied
 * by several threads. See gpu_inside.h. */
#include "run/gpu_inside.h"

/* In pieces, so that threads end at about the same time. */
void gpu_copies_add(void *arg, void *to, const void *from, size_t bytes)
{
    enum { MOST = 32 << 20 };
    struct gpu_copies *c = arg;
    for (size_t at = 0; at < bytes; at += MOST) {
        if (c->n == c->room) {
            struct gpu_copy *old = c->copy;
            c->room = c->room ? 2 * c->room : 1024;
            c->copy = pool_get(&c->pool, c->room * sizeof(*c->copy));
            if (old)
                memcpy(c->copy, old, c->n * sizeof(*old));
        }
        c->copy[c->n++] =
            (struct gpu_copy){(char *)to + at, (const char *)from + at, min_size(MOST, bytes - at)};
    }
}

struct copying {
    const struct gpu_copies *of;
    const struct plugin *plugin;
    struct dev *to;
    _Atomic uint64_t *copied;
    struct err *e;
    int rc;
    _Atomic size_t next;
    _Atomic int failed;
};

/* One thread reads memory slower than a GPU takes it. */
static void copy_some(void *arg, int thread, int n)
{
    struct copying *x = arg;
    (void)n;
    if (thread >= LOAD_LANES)
        return;
    for (size_t i; !atomic_load(&x->failed) && (i = atomic_fetch_add(&x->next, 1)) < x->of->n;) {
        const struct gpu_copy *c = &x->of->copy[i];
        struct err e;
        int rc = x->plugin->load(x->to, thread, c->to, c->from, c->bytes, &e);
        if (rc && !atomic_exchange(&x->failed, 1))
            x->rc = rc, *x->e = e;
        atomic_fetch_add(x->copied, rc ? 0 : c->bytes);
    }
}

int gpu_copies_do(struct gpu_copies *c, const struct plugin *plugin, struct dev *to,
                  struct dev *host, _Atomic uint64_t *copied, struct err *e)
{
    struct copying x = {.of = c, .plugin = plugin, .to = to, .copied = copied, .e = e};
    dev_together(host, copy_some, &x);
    pool_free(&c->pool);
    return x.rc;
}
