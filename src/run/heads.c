/* heads.c - what is done to the heads of q, k and v before they take their place in the sequence:
 * norms, over each head or over whole rows, and limits. See rank.h. */
#include "run/rank.h"

/* Share by share, the rank's query heads, and key-value heads whose first query head is in the
 * share: of a head that several ranks hold, one counts the squares. */
void heads_begin(struct rank *r)
{
    const struct plan *p = r->plan;
    const struct model *m = &p->model;
    const int slice = plan_slice(p, r->id), first = p->cut[slice], n = p->cut[slice + 1] - first;
    const int group = m->n_head / m->n_kv, q = plan_share(p, r->id, HEADS).lo;
    const int k = plan_share(p, r->id, KVHEADS).lo;
    r->q_runs.first = r->k_runs.first = first;
    r->q_runs.n = r->k_runs.n = n;
    for (int i = 0; i <= n; i++) {
        int head = plan_share_begins(p, HEADS, first + i);
        r->q_runs.begin[i] = (head - q) * m->head_dim;
        r->k_runs.begin[i] = ((head + group - 1) / group - k) * m->head_dim;
    }
}

/* Each rank has its heads of the rows: their squares are summed over the ranks. */
static void norm_rows(struct rank *r, struct act *a, const struct layer *w)
{
    const struct model *m = &r->plan->model;
    struct dev *d = r->dev;

    dev_squares(d, &a->squares, 0, &a->q, &r->q_runs);
    dev_squares(d, &a->squares, 1, &a->k, &r->k_runs);
    comm_sum(r->tp, &a->square_sum, &a->squares);
    dev_norm_by(d, &a->q, &a->square_sum, 0, &w->q_norm, m->n_head * m->head_dim, m->eps);
    dev_norm_by(d, &a->k, &a->square_sum, 1, &w->k_norm, m->n_kv * m->head_dim, m->eps);
}

struct qkv heads_norm(struct rank *r, struct act *a, const struct layer *w, const struct mat *angle)
{
    static const struct mat none;
    const struct model *m = &r->plan->model;
    const bool each = m->qk_norm && !m->qk_row, now = each && m->clip > 0, later = each && !now;
    struct mat *qkv[] = {&a->q, &a->k, &a->v};

    if (m->qk_row)
        norm_rows(r, a, w);
    if (now) {
        dev_norm(r->dev, &a->q, &a->q, &w->q_norm, m->eps);
        dev_norm(r->dev, &a->k, &a->k, &w->k_norm, m->eps);
    }
    for (size_t i = 0; m->clip > 0 && i < COUNT(qkv); i++)
        dev_clip(r->dev, qkv[i], m->clip);
    return (struct qkv){.q = &a->q,
                        .k = &a->k,
                        .v = &a->v,
                        .q_norm = later ? &w->q_norm : &none,
                        .k_norm = later ? &w->k_norm : &none,
                        .angle = angle,
                        .eps = m->eps};
}
