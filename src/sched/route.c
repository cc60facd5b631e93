/* route.c - see route.h. */
#include "sched/route.h"

#include "dev/dev.h"

static size_t place(uint64_t name) { return (size_t)(name >> 8) % ROUTE_TABLE; }

/* Who was sent most of the prompt's beginning, and so many tokens of it. A page's name stands for
 * all before it too, so the last page that is known tells, though others may have been pushed out.
 */
struct known {
    int replica, tok; /* -1: nobody's */
};

static struct known find_known(const struct route *r, const int *tok, int n, uint64_t salt)
{
    struct page_name name = {salt, 0};
    struct known k = {-1, 0};
    for (int at = 0; at + KV_PAGE < n; at += KV_PAGE) {
        name = page_name(name, tok + at, KV_PAGE);
        size_t i = place(name.lo);
        if (r->at[i].name == name.lo)
            k = (struct known){r->at[i].replica, at + KV_PAGE};
    }
    return k;
}

static void remember(struct route *r, const int *tok, int n, uint64_t salt, int replica)
{
    struct page_name name = {salt, 0};
    for (int at = 0; at + KV_PAGE < n; at += KV_PAGE) {
        name = page_name(name, tok + at, KV_PAGE);
        r->at[place(name.lo)].name = name.lo;
        r->at[place(name.lo)].replica = replica;
    }
}

int route_idlest(const double *load, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (load[i] < load[best])
            best = i;
    return best;
}

int route_choose(struct route *r, const int *tok, int n, uint64_t salt, const double *load,
                 int idlest)
{
    struct known k = find_known(r, tok, n, salt);
    int best = idlest;
    if (k.replica >= 0) {
        double cost = load[k.replica] - k.tok;
        if (cost < load[best] || (cost == load[best] && k.replica < best))
            best = k.replica;
    }
    remember(r, tok, n, salt, best);
    return best;
}
