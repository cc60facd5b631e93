/* loads.c - see loads.h. */
#include "run/loads.h"

struct layer_load *loads_lay_out(const struct plan *p, struct arena *a)
{
    const struct model *m = &p->model;
    if (!m->experts.n)
        return NULL;
    struct layer_load *l = arena_get(a, (size_t)m->n_layer * sizeof(*l));
    for (int i = 0; i < m->n_layer; i++) {
        if (!model_sparse(m, i))
            continue;
        _Atomic uint64_t *rows = arena_get(a, (size_t)m->experts.n * sizeof(*rows));
        if (l)
            l[i].rows = rows;
    }
    return l;
}

/* With one writer no locked instruction is needed. */
static void add(_Atomic uint64_t *to, uint64_t n)
{
    atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

void loads_set(struct layer_load *l, const struct plan *p, struct span layers,
               const uint64_t *counted)
{
    const int n = p->model.experts.n;
    for (int i = layers.lo; i < layers.hi; i++, counted += n + 2) {
        for (int e = 0; l[i].rows && e < n; e++)
            atomic_store_explicit(&l[i].rows[e], counted[e], memory_order_relaxed);
        atomic_store_explicit(&l[i].most, counted[n], memory_order_relaxed);
        atomic_store_explicit(&l[i].all, counted[n + 1], memory_order_relaxed);
    }
}

void loads_get(const struct layer_load *l, const struct plan *p, struct span layers,
               uint64_t *counted)
{
    const int n = p->model.experts.n;
    for (int i = layers.lo; i < layers.hi; i++, counted += n + 2) {
        for (int e = 0; e < n; e++)
            counted[e] = l[i].rows ? atomic_load(&l[i].rows[e]) : 0;
        counted[n] = atomic_load(&l[i].most);
        counted[n + 1] = atomic_load(&l[i].all);
    }
}

void loads_add(struct layer_load *l, const int *rows, int n_expert, const struct turns *turns)
{
    int most = 0, all = 0;
    for (int e = 0; e < n_expert; e++)
        if (rows[e])
            add(&l->rows[e], (uint64_t)rows[e]);
    for (int r = 0; turns && r < turns->n_run; r++) {
        most = max_int(most, turns->load[r]);
        all += turns->load[r];
    }
    add(&l->most, (uint64_t)most);
    add(&l->all, (uint64_t)all);
}
