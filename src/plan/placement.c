/* placement.c - placements of experts, and the turns of a step. See placement.h. */
#include "plan/placement.h"

#include <math.h>

/* ------------------------------------------------------------------------------- who holds what */

struct placement placement_all(int n_expert, int n_run)
{
    struct placement p = {.n_expert = n_expert, .n_run = n_run};
    must(0 < n_expert && n_expert <= MODEL_EXPERTS && 0 < n_run && n_run <= PLACEMENT_RUNS);
    for (int i = 0; i < n_expert; i++)
        p.holders[i] = ~(uint64_t)0 >> (PLACEMENT_RUNS - n_run);
    return p;
}

int placement_even_run(int n_expert, int n_run, int expert)
{
    return (int)(((long long)(expert + 1) * n_run - 1) / n_expert);
}

struct span placement_even_span(int n_expert, int n_run, int run)
{
    return (struct span){(int)((long long)n_expert * run / n_run),
                         (int)((long long)n_expert * (run + 1) / n_run)};
}

struct placement placement_even(int n_expert, int n_run)
{
    struct placement p = {.n_expert = n_expert, .n_run = n_run};
    must(0 < n_expert && n_expert <= MODEL_EXPERTS && 0 < n_run && n_run <= PLACEMENT_RUNS);
    for (int i = 0; i < n_expert; i++)
        p.holders[i] = (uint64_t)1 << placement_even_run(n_expert, n_run, i);
    return p;
}

int placement_slots(const struct placement *p, int run)
{
    int n = 0;
    for (int i = 0; i < p->n_expert; i++)
        n += placement_holds(p, run, i);
    return n;
}

int placement_most(const struct placement *p)
{
    int most = 0;
    for (int r = 0; r < p->n_run; r++)
        most = max_int(most, placement_slots(p, r));
    return most;
}

int placement_home(const struct placement *p, int expert)
{
    uint64_t holders = p->holders[expert];
    int even = placement_even_run(p->n_expert, p->n_run, expert);
    if (placement_holds(p, even, expert))
        return even;
    for (int skip = expert % __builtin_popcountll(holders); skip; skip--)
        holders &= holders - 1;
    return __builtin_ctzll(holders);
}

int placement_check(const struct placement *p, struct err *e)
{
    if (p->n_expert < 1 || p->n_expert > MODEL_EXPERTS)
        return err_set(e, -EINVAL, "a placement is of 1 to %d experts, not of %d", MODEL_EXPERTS,
                       p->n_expert);
    if (p->n_run < 1 || p->n_run > PLACEMENT_RUNS)
        return err_set(e, -EINVAL, "experts are placed on 1 to %d runs of ranks, not on %d",
                       PLACEMENT_RUNS, p->n_run);
    for (int i = 0; i < p->n_expert; i++) {
        if (!p->holders[i])
            return err_set(e, -EINVAL, "expert %d is held by none of the %d runs: name it in one",
                           i, p->n_run);
        if (p->n_run < PLACEMENT_RUNS && p->holders[i] >> p->n_run)
            return err_set(e, -EINVAL, "expert %d is held by a run beyond the %d there are", i,
                           p->n_run);
    }
    return 0;
}

/* ------------------------------------------------------------------------------- of a step */

/* A step as it is shared out; loads are counted as struct turn_cost does. */
struct sharing {
    struct turns *to;
    const struct placement *p;
    const int *rows;
    struct turn_cost cost;
    int n, order[MODEL_EXPERTS]; /* experts that have rows */
    int *load;                   /* [n_run] of the turns so far */
    int target;                  /* what every run may have to do */
};

static int copies(const struct sharing *s, int expert)
{
    return __builtin_popcountll(s->p->holders[expert]);
}

/* Whoever has the fewest to choose from comes first, then the largest. */
static bool before(const struct sharing *s, int a, int b)
{
    if (copies(s, a) != copies(s, b))
        return copies(s, a) < copies(s, b);
    return s->rows[a] != s->rows[b] ? s->rows[a] > s->rows[b] : a < b;
}

static void put_in_order(struct sharing *s)
{
    for (int e = 0; e < s->p->n_expert; e++) {
        int i = s->n;
        if (!s->rows[e])
            continue;
        for (; i > 0 && before(s, e, s->order[i - 1]); i--)
            s->order[i] = s->order[i - 1];
        s->order[i] = e;
        s->n++;
    }
}

/* How high the loads of these runs stand after `more` was poured onto them. */
static int level(const int *load, uint64_t runs, int more)
{
    for (;;) {
        long long sum = more;
        int n = __builtin_popcountll(runs);
        for (uint64_t r = runs; r; r &= r - 1)
            sum += load[__builtin_ctzll(r)];
        int high = (int)((sum + n - 1) / n);
        uint64_t below = 0;
        for (uint64_t r = runs; r; r &= r - 1)
            if (load[__builtin_ctzll(r)] < high)
                below |= r & -r;
        if (below == runs || !below)
            return high;
        runs = below;
    }
}

/* The load that no run needs to exceed if experts could be split at will; worked out in fine units,
 * since levels are rounded up once per expert. */
static int target(const struct sharing *s)
{
    enum { FINE = 6 };
    int load[PLACEMENT_RUNS] = {0}, most = 0;
    for (int i = 0; i < s->n; i++) {
        int e = s->order[i];
        uint64_t holders = s->p->holders[e];
        int high = level(load, holders, (s->rows[e] + s->cost.weights) << FINE);
        for (uint64_t r = holders; r; r &= r - 1)
            load[__builtin_ctzll(r)] = max_int(load[__builtin_ctzll(r)], high);
        most = max_int(most, high);
    }
    return (most + (1 << FINE) - 1) >> FINE;
}

/* Of these runs, the first of those with the least to do. */
static int idlest(const struct sharing *s, uint64_t runs)
{
    int best = __builtin_ctzll(runs);
    for (uint64_t r = runs; r; r &= r - 1)
        if (s->load[__builtin_ctzll(r)] < s->load[best])
            best = __builtin_ctzll(r);
    return best;
}

static void give(struct sharing *s, int expert, int run, int lo, int hi)
{
    struct turns *to = s->to;
    if (to->first[expert] < 0)
        to->first[expert] = to->n;
    to->turn[to->n++] = (struct turn){expert, run, lo, hi};
    to->rows[run] += hi - lo;
    s->load[run] += hi - lo + s->cost.weights;
}

/* How many of the rest go to the idlest of some holders: whole tiles below the limit, and none left
 * over that would be less than a tile. */
static int piece(const struct sharing *s, int run, int rest, int limit, bool may_split)
{
    const int tile = s->cost.tile;
    int fit = (limit - s->load[run] - s->cost.weights) / tile * tile;
    return !may_split || fit < tile || rest - fit < tile ? rest : fit;
}

static void split(struct sharing *s, int expert, int others)
{
    uint64_t holders = s->p->holders[expert];
    int limit = level(s->load, holders, s->rows[expert] + s->cost.weights);
    limit = max_int(limit, s->target);
    for (int lo = 0, hi; lo < s->rows[expert]; lo = hi) {
        int run = idlest(s, holders);
        holders &= ~((uint64_t)1 << run);
        bool may = holders && s->to->n + 1 + others < TURNS;
        hi = lo + piece(s, run, s->rows[expert] - lo, limit, may);
        give(s, expert, run, lo, hi);
    }
}

static void share_out(struct sharing *s, int i)
{
    int expert = s->order[i], home = placement_home(s->p, expert);
    if (s->load[home] + s->rows[expert] + s->cost.weights <= s->target)
        give(s, expert, home, 0, s->rows[expert]);
    else
        split(s, expert, s->n - i);
}

void placement_assign(struct turns *to, const struct placement *p, const int *rows,
                      const struct turn_cost *cost)
{
    struct sharing s = {.to = to, .p = p, .rows = rows, .cost = *cost, .load = to->load};
    to->n = 0;
    to->n_run = p->n_run;
    memset(to->first, -1, sizeof(to->first));
    memset(to->rows, 0, sizeof(to->rows));
    memset(to->load, 0, sizeof(to->load));
    put_in_order(&s);
    s.target = target(&s);
    for (int i = 0; i < s.n; i++)
        share_out(&s, i);
}

int turns_run(const struct turns *t, int expert, int i)
{
    int k = t->first[expert];
    must(k >= 0);
    while (i >= t->turn[k].hi)
        k++;
    must(t->turn[k].expert == expert);
    return t->turn[k].run;
}

/* Pour the load of one expert onto its holders: the lower ones rise until all that are touched are
 * level. */
static void pour(uint64_t holders, double load, double *to)
{
    double high = 0;
    for (uint64_t runs = holders, below;; runs = below) {
        double sum = load;
        below = 0;
        for (uint64_t r = runs; r; r &= r - 1)
            sum += to[__builtin_ctzll(r)];
        high = sum / __builtin_popcountll(runs);
        for (uint64_t r = runs; r; r &= r - 1)
            if (to[__builtin_ctzll(r)] < high)
                below |= r & -r;
        if (below == runs || !below)
            break;
    }
    for (uint64_t r = holders; r; r &= r - 1)
        to[__builtin_ctzll(r)] = fmax(to[__builtin_ctzll(r)], high);
}

void placement_loads(const struct placement *p, const double *load, double *to)
{
    for (int r = 0; r < p->n_run; r++)
        to[r] = 0;
    for (int copies = 1; copies <= p->n_run; copies++) /* who has no choice comes first */
        for (int e = 0; e < p->n_expert; e++)
            if (__builtin_popcountll(p->holders[e]) == copies && load[e] > 0)
                pour(p->holders[e], load[e], to);
}

double loads_lambda(const double *load, int n)
{
    double most = 0, sum = 0;
    for (int i = 0; i < n; i++) {
        most = load[i] > most ? load[i] : most;
        sum += load[i];
    }
    return sum > 0 ? n * most / sum : 1;
}

double turns_lambda(const struct turns *t)
{
    double load[PLACEMENT_RUNS];
    for (int r = 0; r < t->n_run; r++)
        load[r] = t->load[r];
    return loads_lambda(load, t->n_run);
}
