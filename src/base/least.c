/* least.c - see least.h. */
#include "base/least.h"

static int lesser(const struct least *l, int a, int b)
{
    if (b < 0)
        return a;
    return l->value[b] < l->value[a] ? b : a;
}

static void compare(struct least *l, int node)
{
    l->first[node] = lesser(l, l->first[2 * node], l->first[2 * node + 1]);
}

void least_open(struct least *l, int n, double value, struct pool *pool)
{
    must(n > 0);
    for (l->leaves = 2; l->leaves < n; l->leaves *= 2)
        ;
    l->value = pool_get(pool, (size_t)n * sizeof(*l->value));
    l->first = pool_get(pool, 2 * (size_t)l->leaves * sizeof(*l->first));
    for (int i = 0; i < n; i++)
        l->value[i] = value;
    for (int i = 0; i < l->leaves; i++)
        l->first[l->leaves + i] = i < n ? i : -1;
    for (int k = l->leaves - 1; k > 0; k--)
        compare(l, k);
}

void least_set(struct least *l, int i, double value)
{
    if (l->value[i] == value)
        return;
    l->value[i] = value;
    for (int k = (l->leaves + i) / 2; k > 0; k /= 2)
        compare(l, k);
}
