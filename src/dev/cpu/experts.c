/* experts.c - routing, and the experts of a layer, for every instruction set alike: the products
 * are the device's own.
 *
 * Rows are gathered by expert, so that each expert's weights are read once for all its rows; no row
 * is dropped and none is padded.
 */
#include "base/whole.h"
#include "dev/cpu/cpu.h"

#include <limits.h>
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

/* Some rows that one expert has to do. */
struct job {
    struct dev *d;
    const struct expert *expert;
    struct mat *y;
    const struct mat *x;
    int n, row[EXPERT_ROWS];
    float weight[EXPERT_ROWS];
    struct mat in, gate, up, share, leaf; /* [n][...] */
};

static struct mat first_rows(const struct mat *m, int n, int dim)
{
    return (struct mat){n, dim, NUM_F32, m->at};
}

/* y += weight * leaf, number by number. */
static void add_leaf(const struct job *j)
{
    const int dim = j->y->dim;
    for (int i = 0; i < j->n; i++) {
        int64_t *to = (int64_t *)j->y->at + (size_t)j->row[i] * (size_t)dim;
        const float *leaf = mat_row(&j->leaf, i);
        for (int k = 0; k < dim; k++)
            to[k] = whole_add(to[k], whole_of(j->weight[i] * leaf[k]));
    }
}

/* Down, share by share: each is a sum of its own. */
static void add_shares(struct job *j)
{
    static const struct mat none;
    const struct weight *down = &j->expert->down;
    for (int s = 0, col = 0; s < down->n_part; col += down->part[s++].cols) {
        const struct part *p = &down->part[s];
        struct weight one = {down->type, p->rows, p->cols, down->first + s, 1, p};
        if (!p->cols)
            continue;
        j->share.dim = p->cols;
        for (int i = 0; i < j->n; i++)
            memcpy(mat_row(&j->share, i), mat_row(&j->gate, i) + col,
                   (size_t)p->cols * sizeof(float));
        j->d->ops->matmul(j->d, &j->share, &(struct term){&j->leaf, &one, &none}, 1);
        add_leaf(j);
    }
}

static void do_job(struct job *j, const struct expert_room *room)
{
    static const struct mat none;
    const struct expert *e = j->expert;
    const int columns = e->gate.rows;
    const struct term both[] = {{&j->gate, &e->gate, &none}, {&j->up, &e->up, &none}};
    if (!j->n || !columns)
        return;
    j->in = first_rows(&room->x, j->n, j->x->dim);
    j->gate = first_rows(&room->gate, j->n, columns);
    j->up = first_rows(&room->up, j->n, columns);
    j->share = first_rows(&room->up, j->n, 0); /* up has been used by then */
    j->leaf = first_rows(&room->leaf, j->n, j->x->dim);
    j->d->ops->pick(j->d, &j->in, j->x, j->row);
    j->d->ops->matmul(j->d, &j->in, both, COUNT(both));
    j->d->ops->swiglu(j->d, &j->gate, &j->up);
    add_shares(j);
}

void cpu_experts(struct dev *d, struct mat *y, const struct mat *x, const struct expert *expert,
                 int n_expert, const struct routed *routed, const struct expert_room *room)
{
    const int per_row = routed_row(routed);
    memset(y->at, 0, mat_bytes(y));
    for (int e = 0; e < n_expert; e++) {
        struct span turn = routed->turn ? routed->turn[e] : (struct span){0, INT_MAX};
        struct job j = {.d = d, .expert = &expert[e], .y = y, .x = x};
        for (int i = 0, row = 0; i < x->n * per_row && row < turn.hi; i++) {
            if (routed->expert[i] != e || row++ < turn.lo)
                continue;
            j.row[j.n] = i / per_row;
            j.weight[j.n++] = routed->weight[i];
            if (j.n == EXPERT_ROWS) {
                do_job(&j, room);
                j.n = 0;
            }
        }
        do_job(&j, room);
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
