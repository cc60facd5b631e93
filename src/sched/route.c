/* route.c - see route.h. */
#include "sched/route.h"

#include "dev/dev.h"

static size_t place(uint64_t name) { return (size_t)(name >> 8) % ROUTE_TABLE; }

/* Tokens of the beginning that each replica has been sent before. */
static void count_known(const struct route *r, const int *tok, int n, uint64_t salt, int *known)
{
    struct page_name name = {salt, 0};
    bool all[ROUTE_REPLICAS];
    for (int i = 0; i < r->n; i++)
        known[i] = 0, all[i] = true;
    for (int at = 0; at + KV_PAGE < n; at += KV_PAGE) {
        name = page_name(name, tok + at, KV_PAGE);
        int owner = r->at[place(name.lo)].name == name.lo ? r->at[place(name.lo)].replica : -1;
        if (owner < 0)
            return;
        for (int i = 0; i < r->n; i++) {
            all[i] &= owner == i;
            known[i] += all[i] ? KV_PAGE : 0;
        }
    }
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

int route_choose(struct route *r, const int *tok, int n, uint64_t salt, const double *load)
{
    int known[ROUTE_REPLICAS], best = 0;
    must(r->n > 0 && r->n <= ROUTE_REPLICAS);
    count_known(r, tok, n, salt, known);
    for (int i = 1; i < r->n; i++)
        if (load[i] - known[i] < load[best] - known[best])
            best = i;
    remember(r, tok, n, salt, best);
    return best;
}
