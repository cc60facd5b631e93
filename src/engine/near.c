/* near.c - see near.h. */
#include "engine/near.h"
#include "run/room.h"
#include "topo/bind.h"

#include <sys/mman.h>

static bool matters(const struct host *h, const struct plan *p)
{
    return h && h->n_node > 1 && p->core[0] >= 0;
}

static struct node_set nodes_of(const struct host *h, const struct plan *p, int rank)
{
    struct node_set s = {.n = 0};
    nodes_add(&s, h, p->core[rank], p->threads);
    return s;
}

void near_begin(const struct host *h, const struct plan *p)
{
    struct node_set all = {.n = 0};
    if (!matters(h, p))
        return;
    for (int r = 0; r < plan_ranks(p); r++)
        nodes_add(&all, h, p->core[r], p->threads);
    bind_thread(&all);
}

void near_end(const struct host *h, const struct plan *p)
{
    if (matters(h, p))
        bind_thread(NULL);
}

static void bind_run(void *arg, const char *at, size_t bytes) { bind_memory(at, bytes, arg); }

void near_weights(const struct host *h, const struct plan *p, int rank, const struct weights *view)
{
    if (!matters(h, p))
        return;
    struct node_set own = nodes_of(h, p, rank);
    weights_runs(view, p, rank, bind_run, &own);
}

/* ------------------------------------------------------------------------------- the cache */

/* Of a layer in a page of the pool. */
static size_t run_bytes(const struct plan *p, int rank)
{
    return (size_t)len(plan_share(p, rank, KVHEADS)) * kv_head_bytes(p->kv, p->model.head_dim);
}

static bool runs_fill_pages(const struct plan *p)
{
    for (int r = 0; r < plan_ranks(p); r++)
        if (run_bytes(p, r) < BIND_PAGE)
            return false;
    return true;
}

void near_cache_open(const struct host *h, const struct plan *p, char *kv)
{
    if (!matters(h, p) || !runs_fill_pages(p))
        return;
    size_t skip = (uintptr_t)kv % BIND_PAGE;
    madvise(kv - skip, skip + plan_kv_bytes(p, PLAN_WHOLE), MADV_NOHUGEPAGE); /* a wish */
}

static int touch_heads(const struct plan *p, int rank, char *page, struct err *e)
{
    struct span layers = p->stage[plan_stage(p, rank)];
    size_t head = kv_head_bytes(p->kv, p->model.head_dim);
    size_t first = (size_t)plan_share(p, rank, KVHEADS).lo * head;
    int rc = 0;
    for (int l = layers.lo; !rc && l < layers.hi; l++)
        rc = touch_memory(page + (size_t)l * (size_t)p->model.n_kv * head + first,
                          run_bytes(p, rank), e);
    return rc;
}

int near_cache(const struct host *h, const struct plan *p, char *kv, int first, int n,
               struct err *e)
{
    const size_t page = rank_page_bytes(p);
    char *begin = kv + (size_t)first * page;
    int rc = 0;
    if (matters(h, p) && runs_fill_pages(p)) {
        for (int r = 0; r < plan_ranks(p); r++) {
            struct node_set own = nodes_of(h, p, r);
            bind_thread(&own);
            for (int i = 0; !rc && i < n; i++)
                rc = touch_heads(p, r, begin + (size_t)i * page, e);
        }
    } else {
        near_begin(h, p);
        rc = touch_memory(begin, (size_t)n * page, e);
    }
    near_end(h, p);
    return rc;
}
