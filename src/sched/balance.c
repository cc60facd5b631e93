/* balance.c - a placement of experts from measured loads. See balance.h. */
#include "sched/balance.h"

#include <math.h>

int balance_check(const struct balance *b, struct err *e)
{
    if (b->n_expert < b->n_run)
        return err_set(e, -EINVAL,
                       "%d experts cannot be dealt to %d runs of ranks: ask for a smaller --ep",
                       b->n_expert, b->n_run);
    if (b->redundant < 0 || len(share(b->n_expert, b->n_run, 0)) + b->redundant > b->n_expert)
        return err_set(e, -EINVAL,
                       "%d redundant experts beside %d of %d are more than there are: at most %d",
                       b->redundant, len(share(b->n_expert, b->n_run, 0)), b->n_expert,
                       b->n_expert - len(share(b->n_expert, b->n_run, 0)));
    return 0;
}

/* ------------------------------------------------------------------------------- packing */

/* Some experts, and the runs that hold them and no others. */
struct pack {
    const double *load;
    int n, expert[MODEL_EXPERTS], copies[MODEL_EXPERTS]; /* copies: by number of expert */
    struct span runs;
    int slots[PLACEMENT_RUNS];
    double sum[PLACEMENT_RUNS]; /* what a run has got so far */
    struct placement *to;
};

static double per_copy(const struct pack *k, int e) { return k->load[e] / k->copies[e]; }

/* Take all slots: one copy each, and one more to whichever expert has the most load per copy. */
static void replicate(struct pack *k)
{
    int slots = -k->n;
    for (int r = k->runs.lo; r < k->runs.hi; r++)
        slots += k->slots[r];
    for (int i = 0; i < k->n; i++)
        k->copies[k->expert[i]] = 1;
    for (; slots > 0; slots--) {
        int best = -1;
        for (int i = 0; i < k->n; i++) {
            int e = k->expert[i];
            if (k->copies[e] < len(k->runs) && (best < 0 || per_copy(k, e) > per_copy(k, best)))
                best = e;
        }
        if (best < 0)
            return;
        k->copies[best]++;
    }
}

/* The heaviest copies first; of equals the lower number. */
static void heaviest_first(struct pack *k)
{
    for (int i = 1; i < k->n; i++) {
        int e = k->expert[i], j = i;
        for (; j > 0 && per_copy(k, e) > per_copy(k, k->expert[j - 1]); j--)
            k->expert[j] = k->expert[j - 1];
        k->expert[j] = e;
    }
}

/* The run with the least load of those that have a slot and not yet this expert; -1: none. */
static int idlest(const struct pack *k, int e)
{
    int best = -1;
    for (int r = k->runs.lo; r < k->runs.hi; r++)
        if (k->slots[r] && !placement_holds(k->to, r, e) && (best < 0 || k->sum[r] < k->sum[best]))
            best = r;
    return best;
}

static bool hold(struct pack *k, int e)
{
    int r = idlest(k, e);
    if (r < 0)
        return false;
    k->to->holders[e] |= (uint64_t)1 << r;
    k->sum[r] += per_copy(k, e);
    k->slots[r]--;
    return true;
}

/* Copies for all slots but `spare` of each run. First copies always find a slot: there are as many
 * slots as copies. A further copy may find free slots only beside another of its own; these, and
 * the spare ones, then go to whoever is busiest. */
static void pack(struct pack *k, int spare)
{
    for (int r = k->runs.lo; r < k->runs.hi; r++)
        k->slots[r] -= spare;
    replicate(k);
    heaviest_first(k);
    for (int i = 0; i < k->n; i++)
        for (int c = 0; c < k->copies[k->expert[i]]; c++)
            hold(k, k->expert[i]);
    for (int r = k->runs.lo; r < k->runs.hi; r++)
        k->slots[r] += spare;
    for (int i = 0; i < k->n;)
        if (!hold(k, k->expert[i]))
            i++;
}

/* ------------------------------------------------------------------------------- hosts */

/* Groups to hosts, as many to each: the heaviest to the host with the least load. */
static void groups_to_hosts(const struct balance *b, const double *load, int *host)
{
    double group[MODEL_EXPERTS] = {0}, sum[PLACEMENT_RUNS] = {0};
    int room[PLACEMENT_RUNS];
    for (int e = 0; e < b->n_expert; e++)
        group[e * b->n_group / b->n_expert] += load[e];
    for (int h = 0; h < b->n_host; h++)
        room[h] = b->n_group / b->n_host;
    for (int i = 0; i < b->n_group; i++) {
        int heaviest = 0, to = -1;
        for (int g = 1; g < b->n_group; g++)
            if (group[g] > group[heaviest])
                heaviest = g;
        for (int h = 0; h < b->n_host; h++)
            if (room[h] && (to < 0 || sum[h] < sum[to]))
                to = h;
        host[heaviest] = to;
        sum[to] += group[heaviest];
        room[to]--;
        group[heaviest] = -1; /* done */
    }
}

static bool by_host(const struct balance *b)
{
    return b->n_host > 1 && b->n_group > 1 && b->n_group % b->n_host == 0 &&
           b->n_run % b->n_host == 0 && b->n_expert % b->n_group == 0;
}

static struct placement place(const struct balance *b, const double *load, const int *host,
                              int hosts, int spare)
{
    struct placement p = {.n_expert = b->n_expert, .n_run = b->n_run};
    for (int h = 0; h < hosts; h++) {
        struct pack k = {.load = load, .runs = share(b->n_run, hosts, h), .to = &p};
        for (int e = 0; e < b->n_expert; e++)
            if (hosts == 1 || host[e * b->n_group / b->n_expert] == h)
                k.expert[k.n++] = e;
        for (int r = k.runs.lo; r < k.runs.hi; r++)
            k.slots[r] = len(share(k.n, len(k.runs), r - k.runs.lo)) + b->redundant;
        pack(&k, spare);
    }
    return p;
}

static double lambda(const struct placement *p, const double *load)
{
    double run[PLACEMENT_RUNS];
    placement_loads(p, load, run);
    return loads_lambda(run, p->n_run);
}

/* More copies make smaller pieces, but also more that must not meet: the best of all numbers. */
struct placement balance_place(const struct balance *b, const double *load)
{
    const int hosts = by_host(b) ? b->n_host : 1;
    int host[MODEL_EXPERTS] = {0};
    must(b->n_run <= PLACEMENT_RUNS && b->n_expert <= MODEL_EXPERTS);
    if (hosts > 1)
        groups_to_hosts(b, load, host);
    struct placement best = place(b, load, host, hosts, 0);
    for (int spare = 1; spare <= min_int(b->redundant, 8); spare++) {
        struct placement p = place(b, load, host, hosts, spare);
        if (lambda(&p, load) < lambda(&best, load))
            best = p;
    }
    return best;
}

/* ------------------------------------------------------------------------------- names */

/* Experts that run r of one placement and run s of the other hold both. */
struct shared_by {
    int n[PLACEMENT_RUNS][PLACEMENT_RUNS];
};

static void count_shared(struct shared_by *to, const struct placement *a, const struct placement *b)
{
    memset(to, 0, sizeof(*to));
    for (int e = 0; e < a->n_expert; e++)
        for (uint64_t r = a->holders[e]; r; r &= r - 1)
            for (uint64_t s = b->holders[e]; s; s &= s - 1)
                to->n[__builtin_ctzll(r)][__builtin_ctzll(s)]++;
}

/* Of runs and names that are left, the pair that shares most; the first of equals. */
static void best_pair(const struct shared_by *shared, uint64_t runs, uint64_t names, int *run,
                      int *name)
{
    int most = -1;
    for (uint64_t r = runs; r; r &= r - 1)
        for (uint64_t s = names; s; s &= s - 1)
            if (shared->n[__builtin_ctzll(r)][__builtin_ctzll(s)] > most) {
                *run = __builtin_ctzll(r), *name = __builtin_ctzll(s);
                most = shared->n[*run][*name];
            }
}

struct placement balance_near(const struct placement *next, const struct placement *now)
{
    struct placement to = {.n_expert = next->n_expert, .n_run = next->n_run};
    struct shared_by shared;
    uint64_t runs = ~(uint64_t)0 >> (PLACEMENT_RUNS - next->n_run), names = runs;
    must(next->n_expert == now->n_expert && next->n_run == now->n_run);
    count_shared(&shared, next, now);
    while (runs) {
        int run = 0, name = 0;
        best_pair(&shared, runs, names, &run, &name);
        for (int e = 0; e < to.n_expert; e++)
            to.holders[e] |= (uint64_t)placement_holds(next, run, e) << name;
        runs &= ~((uint64_t)1 << run), names &= ~((uint64_t)1 << name);
    }
    return to;
}

/* ------------------------------------------------------------------------------- figures */

double balance_uneven(const double *load, int n)
{
    double sum = 0, far = 0;
    for (int i = 0; i < n; i++)
        sum += load[i];
    if (!(sum > 0))
        return 0;
    for (int i = 0; i < n; i++)
        far += pow(load[i] / sum - 1.0 / n, 2);
    return far;
}

void balance_zipf(double *load, int n, double alpha, struct draws d)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += pow(i + 1, -alpha);
    for (int i = 0; i < n; i++)
        load[i] = pow(i + 1, -alpha) / sum;
    for (int i = n - 1; i > 0; i--) { /* Fisher and Yates */
        int j = (int)(draw_bits(&d) % (uint64_t)(i + 1));
        double last = load[i];
        load[i] = load[j];
        load[j] = last;
    }
}
