/* cache.c - see cache.h. */
#include "run/cache.h"

#include <sys/mman.h>

struct cached {
    struct {
        const char *at;
        size_t bytes;
    } run[3]; /* gate, up, down: the rank's parts of each are one run of bytes */
    size_t bytes;
    double worth;  /* all its uses */
    uint64_t call; /* the last that needed it */
    bool in;
};

enum { PAGE = 4096 };

static void find_runs(struct cached *x, const struct expert *e)
{
    const struct weight *w[] = {&e->gate, &e->up, &e->down};
    for (size_t i = 0; i < COUNT(w); i++) {
        if (!w[i]->n_part)
            continue;
        x->run[i].at = w[i]->part[0].at;
        for (int k = 0; k < w[i]->n_part; k++)
            x->run[i].bytes += part_bytes(w[i]->type, w[i]->part[k].rows, w[i]->part[k].cols);
        x->bytes += x->run[i].bytes;
    }
}

void cache_open(struct expert_cache *c, const struct plan *p, const struct weights *view,
                size_t budget, struct cache_figures *figures, struct pool *pool)
{
    const struct model *m = &p->model;
    const int n = m->experts.n;
    *c = (struct expert_cache){
        .n_layer = m->n_layer, .n_expert = n, .budget = budget, .worth = 1, .figures = figures};
    c->of = pool_get(pool, (size_t)m->n_layer * (size_t)n * sizeof(*c->of));
    for (int l = 0; l < m->n_layer; l++)
        for (int e = 0; view->layer[l].expert && e < n; e++)
            find_runs(&c->of[l * n + e], &view->layer[l].expert[e]);
}

/* Whole pages around a run (to read), or inside (to give back: its neighbours' stay). */
static void advise(const struct cached *x, int advice)
{
    const bool inside = advice == MADV_COLD;
    for (size_t i = 0; i < COUNT(x->run); i++) {
        uintptr_t at = (uintptr_t)x->run[i].at, end = at + x->run[i].bytes;
        at = inside ? round_up(at, PAGE) : at / PAGE * PAGE;
        end = inside ? end / PAGE * PAGE : round_up(end, PAGE);
        if (at < end)
            madvise((void *)at, end - at, advice);
    }
}

/* Bytes of it that must be read: no memory holds them. (Of a file that is neither ours nor to be
 * written, Linux says that it holds all.) */
static size_t absent(const struct cached *x)
{
    unsigned char page[512];
    size_t n = 0;
    for (size_t i = 0; i < COUNT(x->run); i++) {
        uintptr_t at = (uintptr_t)x->run[i].at / PAGE * PAGE;
        uintptr_t end = round_up((uintptr_t)x->run[i].at + x->run[i].bytes, PAGE);
        for (; at < end; at += COUNT(page) * PAGE) {
            size_t pages = min_size((end - at) / PAGE, COUNT(page));
            if (mincore((void *)at, pages * PAGE, page))
                continue;
            for (size_t k = 0; k < pages; k++)
                n += page[k] & 1 ? 0 : PAGE;
        }
    }
    return n;
}

/* Of those that are in and not needed now, the one whose uses are worth least; NULL: none. */
static struct cached *victim(const struct expert_cache *c)
{
    struct cached *least = NULL;
    for (int i = 0; i < c->n_layer * c->n_expert; i++) {
        struct cached *x = &c->of[i];
        if (x->in && x->call != c->call && (!least || x->worth < least->worth))
            least = x;
    }
    return least;
}

static void make_room(struct expert_cache *c)
{
    while (c->used > c->budget) {
        struct cached *x = victim(c);
        if (!x)
            return;
        advise(x, MADV_COLD);
        x->in = false;
        c->used -= x->bytes;
    }
}

/* A use counts half as much after about 50 calls for every layer. The numbers stay in range. */
static void grow_older(struct expert_cache *c)
{
    c->worth *= 1 + 0.014 / c->n_layer;
    if (c->worth < 1e30)
        return;
    for (int i = 0; i < c->n_layer * c->n_expert; i++)
        c->of[i].worth /= c->worth;
    c->worth = 1;
}

static void add(_Atomic uint64_t *to, uint64_t n)
{
    atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

void cache_need(struct expert_cache *c, int layer, const int *rows, const struct span *mine)
{
    struct cached *of = &c->of[layer * c->n_expert], *missing[MODEL_EXPERTS];
    int n_missing = 0;
    c->call++;
    grow_older(c);
    for (int e = 0; e < c->n_expert; e++) {
        struct cached *x = &of[e];
        if (!rows[e] || (mine && !len(mine[e])))
            continue;
        x->call = c->call;
        x->worth += c->worth;
        add(x->in ? &c->figures->hits : &c->figures->misses, 1);
        if (x->in)
            continue;
        x->in = true;
        c->used += x->bytes;
        add(&c->figures->bytes, absent(x));
        missing[n_missing++] = x;
    }
    make_room(c);
    for (int i = 0; i < n_missing; i++)
        advise(missing[i], MADV_WILLNEED);
}

void cache_forget(const char *at, size_t n) { madvise((void *)(uintptr_t)at, n, MADV_DONTNEED); }
