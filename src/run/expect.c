/* expect.c - see expect.h. */
#include "run/expect.h"

#include <math.h>

/* ------------------------------------------------------------------------------- blindly */

/* The most that one of e parts of m things gets when each falls into one at random, about: the
 * mean, and sqrt(2 ln e) times the spread. */
static double most_of(double m, int e, double spread)
{
    return m / e + spread * sqrt(2 * (1 - 1.0 / e) * log(e) * m / e);
}

static int most_slots(const struct placement *p)
{
    int most = 0;
    for (int r = 0; r < p->n_run; r++)
        most = max_int(most, placement_slots(p, r));
    return most;
}

/* n rows meet E (1 - (1 - top / E)^n) of E experts. */
struct expected expect_blindly(const struct placement *held, int top, int n)
{
    const int E = held->n_expert, e = held->n_run, slots = most_slots(held);
    double part = 1 - pow(1 - (double)top / E, n), met = E * part, rows = (double)n * top;
    if (placement_slots(held, 0) == E)
        return (struct expected){fmin(ceil(round(met) / e), (E + e - 1) / e), rows / e};
    return (struct expected){fmin(most_of(met, e, sqrt(1 - part)), slots), most_of(rows, e, 1)};
}

/* ------------------------------------------------------------------------------- as is known */

/* In proportion to the shares, but at most 1: what the busiest cannot have goes to the others. */
void expect_chosen(const double *share, int E, int top, double *to)
{
    double sum = 0, left = top;
    for (int i = 0; i < E; i++) {
        to[i] = 0;
        sum += share[i];
    }
    for (bool more = true; more && sum > 0;) {
        double by = left / sum;
        more = false;
        for (int i = 0; i < E; i++)
            if (to[i] < 1 && share[i] * by >= 1) {
                to[i] = 1;
                left -= 1, sum -= share[i];
                more = true;
            }
        for (int i = 0; i < E && !more; i++)
            if (to[i] < 1)
                to[i] = share[i] * by;
    }
}

/* Of one layer. Copies of an expert have a part of its rows each. Chance makes one run busier than
 * the others even where shares are level. */
static struct expected busiest(const struct placement *p, const double *chosen, int n)
{
    const int E = p->n_expert, e = p->n_run;
    double rows[MODEL_EXPERTS], load[PLACEMENT_RUNS], met[PLACEMENT_RUNS] = {0};
    double all = 0, all_met = 0;
    int most = 0;
    for (int i = 0; i < E; i++) {
        int copies = __builtin_popcountll(p->holders[i]);
        double each = 1 - pow(1 - chosen[i] / copies, n);
        rows[i] = n * chosen[i];
        all += rows[i];
        all_met += fmin(each * copies, 1);
        for (uint64_t r = p->holders[i]; r; r &= r - 1)
            met[__builtin_ctzll(r)] += each;
    }
    placement_loads(p, rows, load);
    for (int r = 1; r < e; r++)
        if (load[r] + turn_cost_cpu.weights * met[r] >
            load[most] + turn_cost_cpu.weights * met[most])
            most = r;
    double chance = most_of(all_met, e, sqrt(fmax(0, 1 - all_met / E)));
    return (struct expected){fmax(met[most], fmin(chance, placement_slots(p, most))),
                             fmax(load[most], most_of(all, e, 1))};
}

static struct expected dealt(const struct placement *p, const double *chosen, int n)
{
    struct expected to = {0};
    for (int i = 0; i < p->n_expert; i++) {
        to.experts += (1 - pow(1 - chosen[i], n)) / p->n_run;
        to.rows += n * chosen[i] / p->n_run;
    }
    return to;
}

struct expected expect_by(const struct routing *r, const struct placement *held, int top, int n)
{
    struct expected mean = {0};
    double chosen[MODEL_EXPERTS];
    for (int l = 0; l < r->n_layer; l++) {
        const struct placement *p = r->placement ? &r->placement[l] : held;
        expect_chosen(r->share + (size_t)l * (size_t)p->n_expert, p->n_expert, top, chosen);
        bool all = placement_slots(p, 0) == p->n_expert;
        struct expected one = all ? dealt(p, chosen, n) : busiest(p, chosen, n);
        mean.experts += one.experts / r->n_layer;
        mean.rows += one.rows / r->n_layer;
    }
    return mean;
}

double expect_lambda(const struct routing *r, const struct placement *held, int top)
{
    double chosen[MODEL_EXPERTS], load[PLACEMENT_RUNS], mean = 0;
    for (int l = 0; l < r->n_layer; l++) {
        const struct placement *p = r->placement ? &r->placement[l] : held;
        expect_chosen(r->share + (size_t)l * (size_t)p->n_expert, p->n_expert, top, chosen);
        placement_loads(p, chosen, load);
        mean += loads_lambda(load, p->n_run) / r->n_layer;
    }
    return mean;
}
