/* load.c - see load.h. */
#include "load/load.h"

double load_due(const struct load *l, struct arrivals *a, uint64_t i)
{
    switch (l->timing) {
    case LOAD_CLOSED: return 0;
    case LOAD_ARRIVALS: return arrivals_next(a);
    case LOAD_TRACE: return l->work.trace.row[i].at / l->trace_speed;
    }
    return 0;
}

uint64_t load_planned(const struct load *l)
{
    struct arrivals a = l->arrivals;
    uint64_t n = 0;
    if (!l->duration_s || l->timing == LOAD_CLOSED)
        return l->duration_s ? UINT64_MAX : l->requests;
    while (n < l->requests && load_due(l, &a, n) < l->duration_s)
        n++;
    return n;
}
