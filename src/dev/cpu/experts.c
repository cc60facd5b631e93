/* experts.c - routing, for every instruction set alike, and the definition of what the experts of a
 * layer do, a row at a time. experts.inc has the fast one. */
#include "base/whole.h"
#include "dev/cpu/cpu.h"

#include <math.h>

/* ------------------------------------------------------------------------------- routing */

/* The largest of those not yet taken; the first of equals. A NaN is larger than none. */
static int largest(const float *logit, int n, const bool *taken)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (!taken[i] && (best < 0 || logit[i] > logit[best]))
            best = i;
    return best;
}

/* exp(logit - largest) of all, and their sum in the order of cpu_join(). */
static float exponents(float *to, const float *logit, int n, float top)
{
    float s[16] = {0};
    for (int i = 0; i < n; i++) {
        to[i] = cpu_exp(logit[i] - top);
        s[i % 16] += to[i];
    }
    return cpu_join(s);
}

static void choose(const float *logit, int n, int top, bool renorm, int *expert, float *weight)
{
    bool taken[ROUTE_EXPERTS] = {false};
    float e[ROUTE_EXPERTS], chosen = 0;
    for (int c = 0; c < top; c++) {
        expert[c] = largest(logit, n, taken);
        taken[expert[c]] = true;
    }
    float sum = exponents(e, logit, n, logit[expert[0]]);
    for (int c = 0; c < top; c++)
        chosen += e[expert[c]];
    if (sum != sum) /* a NaN among those not chosen too */
        chosen = sum;
    for (int c = 0; c < top; c++)
        weight[c] = e[expert[c]] / (renorm ? chosen : sum);
}

void cpu_route(struct dev *d, struct routed *to, const struct mat *logits, const struct mat *gate,
               bool renorm)
{
    const int per_row = routed_row(to);
    (void)d;
    for (int t = 0; t < to->n; t++) {
        int *expert = to->expert + (size_t)t * (size_t)per_row;
        float *weight = to->weight + (size_t)t * (size_t)per_row;
        choose(mat_row(logits, t), logits->dim, to->top, renorm, expert, weight);
        if (!to->shared)
            continue;
        expert[to->top] = logits->dim;
        weight[to->top] = gate->n ? 1 / (1 + cpu_exp(-mat_row(gate, t)[0])) : 1;
    }
}

/* ------------------------------------------------------------------------------- experts */

/* y += weight * what expert e makes of a row of x, every share of down a term of its own. */
static void add_expert(struct dev *d, int64_t *y, const struct mat *x, const struct expert *e,
                       float weight, const struct expert_room *room)
{
    static const struct mat none;
    struct mat gate = {1, e->gate.rows, NUM_F32, room->hidden.at};
    struct mat up = {1, e->gate.rows, NUM_F32, mat_row(&room->hidden, 1)};
    struct mat share = gate, leaf = {1, x->dim, NUM_F32, room->x.at};
    const struct term both[] = {{&gate, &e->gate, &none}, {&up, &e->up, &none}};
    d->ops->matmul(d, x, both, COUNT(both));
    d->ops->swiglu(d, &gate, &up);
    for (const struct part *p = e->down.part; p < e->down.part + e->down.n_part; p++) {
        struct weight one = {e->down.type, p->rows, p->cols, e->down.first, 1, p, NULL};
        share.dim = p->cols;
        if (p->cols)
            d->ops->matmul(d, &share, &(struct term){&leaf, &one, &none}, 1);
        for (int k = 0; p->cols && k < x->dim; k++)
            y[k] = whole_add(y[k], whole_of(weight * mat_row(&leaf, 0)[k]));
        share.at = (float *)share.at + p->cols;
    }
}

void cpu_experts(struct dev *d, struct mat *y, const struct mat *x, const struct expert *expert,
                 int n_expert, const struct routed *routed, const struct expert_room *room)
{
    const int per_row = routed_row(routed);
    int seen[ROUTE_EXPERTS + 1] = {0}; /* rows that went to an expert so far */
    must(n_expert <= ROUTE_EXPERTS + 1 && room->x.dim >= x->dim);
    memset(y->at, 0, mat_bytes(y));
    for (int i = 0; i < x->n * per_row; i++) {
        int t = i / per_row, e = routed->expert[i], number = seen[e]++;
        struct span turn = routed->turn ? routed->turn[e] : (struct span){0, number + 1};
        struct mat row = mat_rows(x, (struct span){t, t + 1});
        if (expert[e].gate.rows && turn.lo <= number && number < turn.hi)
            add_expert(d, (int64_t *)y->at + (size_t)t * (size_t)y->dim, &row, &expert[e],
                       routed->weight[i], room);
    }
}

void cpu_settle(struct dev *d, struct mat *x, const struct mat *y)
{
    const int64_t *from = y->at;
    float *to = x->at;
    size_t n = (size_t)x->n * (size_t)x->dim;
    (void)d;
    for (size_t i = 0; i < n; i++)
        to[i] += whole_float(from[i]);
}
