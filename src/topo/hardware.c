/* hardware.c - what a profile's numbers say of a case at hand. See hardware.h. The formulas of
 * collectives are those of Thakur, Rabenseifner and Gropp 2005. */
#include "topo/hardware.h"

#include <float.h>
#include <math.h>

/* ------------------------------------------------------------------------------- curves */

double curve_at(const struct curve *c, double x)
{
    if (c->n == 0)
        return 0;
    int i = 0; /* between points i and i + 1 */
    while (i < c->n && c->x[i] <= x)
        i++;
    if (i > 0 && c->x[i - 1] == x)
        return c->y[i - 1];
    if (c->n == 1)
        return c->y[0];
    i = max_int(0, min_int(i - 1, c->n - 2));
    double slope = log(c->y[i + 1] / c->y[i]) / log(c->x[i + 1] / c->x[i]);
    if (x > c->x[i + 1])
        i++;
    if (x < c->x[0] || x > c->x[c->n - 1])
        slope = fmax(-1, fmin(1, slope));
    return c->y[i] * pow(x / c->x[i], slope);
}

/* ------------------------------------------------------------------------------- rates */

static double between(double a, double b, double t) { return a + t * (b - a); }

static struct figure figure_between(struct figure a, struct figure b, double t)
{
    if (a.source == SOURCE_NONE || b.source == SOURCE_NONE)
        return a.source == SOURCE_NONE ? b : a;
    a.value = between(a.value, b.value, t);
    a.error = a.error > b.error ? a.error : b.error;
    return a;
}

static void curve_between(struct curve *a, const struct curve *b, double t)
{
    if (!a->n)
        *a = *b;
    for (int i = 0; b->n && i < a->n; i++)
        a->y[i] = between(a->y[i], curve_at(b, a->x[i]), t);
    if (b->error > a->error)
        a->error = b->error;
}

void hardware_rates(const struct hardware *h, int active, struct rates *to)
{
    int i = 0;
    must(h->n_rates > 0);
    while (i < h->n_rates - 1 && h->rates[i + 1].active <= active)
        i++;
    *to = h->rates[i];
    if (i == h->n_rates - 1 || active <= to->active)
        return;
    const struct rates *b = &h->rates[i + 1];
    double t = (double)(active - to->active) / (b->active - to->active);
    to->active = active;
    for (int k = 0; k < NUM_COUNT; k++) {
        curve_between(&to->product[k], &b->product[k], t);
        curve_between(&to->experts[k], &b->experts[k], t);
        curve_between(&to->attend_madd_s[k], &b->attend_madd_s[k], t);
        to->attend_byte_s[k] = figure_between(to->attend_byte_s[k], b->attend_byte_s[k], t);
    }
    to->attend_row_s = figure_between(to->attend_row_s, b->attend_row_s, t);
    to->byte_s = figure_between(to->byte_s, b->byte_s, t);
    to->op_s = figure_between(to->op_s, b->op_s, t);
    to->draw_op_s = figure_between(to->draw_op_s, b->draw_op_s, t);
    to->draw_s = figure_between(to->draw_s, b->draw_s, t);
    to->rank_op_s = figure_between(to->rank_op_s, b->rank_op_s, t);
    to->rank_s = figure_between(to->rank_s, b->rank_s, t);
    to->split_s = figure_between(to->split_s, b->split_s, t);
}

/* ------------------------------------------------------------------------------- collectives */

int hardware_devices(const struct hardware *h)
{
    int n = 1;
    for (int i = 0; i < h->n_level; i++)
        n *= h->level[i].size;
    return n;
}

static int others(const struct gang *g) { return g->others ? g->others : g->ranks - 1; }

double collective_reads(enum collective_op op, enum collective_way way, const struct gang *g,
                        double bytes)
{
    double rest = (double)(g->ranks - 1) / g->ranks * bytes, part = bytes / g->ranks;
    switch (op) {
    case COLLECTIVE_SUM:
        return way == WAY_ONE_SHOT   ? others(g) * bytes
               : way == WAY_TWO_SHOT ? others(g) * part + rest
                                     : 2 * rest;
    case COLLECTIVE_SCATTER_SUM: return way == WAY_RING ? rest : others(g) * part;
    case COLLECTIVE_GATHER:
    case COLLECTIVE_ALL_TO_ALL: return rest;
    case COLLECTIVE_SEND: return bytes;
    case COLLECTIVE_COUNT: break;
    }
    must(!"unknown operation");
    return 0;
}

static double seconds_of(const struct collective *c, double latency_s, double reads)
{
    double far = c->knee_bytes > 0 && reads > c->knee_bytes ? reads - c->knee_bytes : 0;
    return latency_s + (reads - far) * c->byte_s.value + far * c->far_byte_s.value;
}

/* By one way, from what the level lists for the nearest numbers of ranks; DBL_MAX: lists none. */
static double by_way(const struct level *l, enum collective_op op, enum collective_way way,
                     const struct gang *g, double bytes)
{
    const struct collective *below = NULL, *above = NULL;
    for (const struct collective *c = l->collective; c < l->collective + l->n_collective; c++) {
        if (c->op != op || c->way != way)
            continue;
        if (c->ranks <= g->ranks && (!below || c->ranks > below->ranks))
            below = c;
        if (c->ranks >= g->ranks && (!above || c->ranks < above->ranks))
            above = c;
    }
    if (!below && !above)
        return DBL_MAX;
    const struct collective *nearest = below ? below : above;
    double latency = nearest->latency_s.value, at = log2(g->ranks);
    if (below && above && below != above) {
        double lo = log2(below->ranks), hi = log2(above->ranks);
        latency = between(below->latency_s.value, above->latency_s.value, (at - lo) / (hi - lo));
        nearest = at - lo < hi - at ? below : above;
    } else if (nearest->ranks != g->ranks) {
        latency *= at / log2(nearest->ranks);
    }
    return seconds_of(nearest, latency, collective_reads(op, way, g, bytes));
}

/* Steps of a ring, each with one rank's part of the mat. */
static double ring(const struct level *l, enum collective_op op, const struct gang *g, double bytes)
{
    int steps = op == COLLECTIVE_SUM ? 2 * (g->ranks - 1) : g->ranks - 1;
    double each = by_way(l, COLLECTIVE_SEND, WAY_ONE_SHOT, &(struct gang){.ranks = 2, .stride = 1},
                         bytes / g->ranks);
    return each == DBL_MAX ? DBL_MAX : steps * each;
}

static double on_level(const struct level *l, enum collective_op op, const struct gang *g,
                       double bytes)
{
    double best = DBL_MAX;
    for (int way = 0; way < WAY_COUNT; way++) {
        double s = by_way(l, op, (enum collective_way)way, g, bytes);
        if (s < best)
            best = s;
    }
    return best == DBL_MAX && op != COLLECTIVE_SEND ? ring(l, op, g, bytes) : best;
}

/* Devices that a group of level i holds. */
static int devices_below(const struct hardware *h, int i)
{
    int n = 1;
    for (int k = 0; k <= i; k++)
        n *= h->level[k].size;
    return n;
}

static int level_of(const struct hardware *h, const struct gang *g)
{
    int last = g->first + (g->ranks - 1) * g->stride, i = 0;
    while (i < h->n_level - 1 && g->first / devices_below(h, i) != last / devices_below(h, i))
        i++;
    return i;
}

/* A sum inside each group of the level below, each rank then its part between the groups, and all
 * parts back. DBL_MAX when the ranks do not fill such groups evenly. */
static double by_groups(const struct hardware *h, int i, const struct gang *g, double bytes)
{
    int inside = i ? devices_below(h, i - 1) / g->stride : 1;
    if (inside <= 1 || g->ranks % inside || g->ranks == inside)
        return DBL_MAX;
    const struct gang in = {.first = 0, .ranks = inside, .stride = g->stride};
    const struct gang out = {.ranks = g->ranks / inside, .stride = 1};
    double between_s = on_level(&h->level[i], COLLECTIVE_SUM, &out, bytes / inside);
    if (between_s == DBL_MAX)
        return DBL_MAX;
    return hardware_collective(h, COLLECTIVE_SCATTER_SUM, &in, bytes) + between_s +
           hardware_collective(h, COLLECTIVE_GATHER, &in, bytes);
}

double hardware_collective(const struct hardware *h, enum collective_op op, const struct gang *g,
                           double bytes)
{
    if (g->ranks < 2)
        return 0;
    must(h->n_level > 0 && g->stride > 0);
    int i = level_of(h, g);
    double best = on_level(&h->level[i], op, g, bytes);
    double grouped = op == COLLECTIVE_SUM ? by_groups(h, i, g, bytes) : DBL_MAX;
    if (grouped < best)
        best = grouped;
    must(best < DBL_MAX); /* hardware_check() wants sends on every level */
    return best;
}

bool hardware_all_rows(const struct hardware *h, const struct gang *g)
{
    return g->ranks > 1 && h->level[level_of(h, g)].all_rows;
}

void hardware_slower(struct hardware *h, struct link by)
{
    for (int i = 0; i < h->n_level; i++)
        for (int k = 0; k < h->level[i].n_collective; k++) {
            struct collective *c = &h->level[i].collective[k];
            c->latency_s.value += by.latency_s;
            c->byte_s.value += by.byte_s;
            c->far_byte_s.value += by.byte_s;
        }
}
