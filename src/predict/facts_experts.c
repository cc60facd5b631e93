/* facts_experts.c - of a mixture: steps with experts cut into the slices, and with whole experts on
 * runs of them, on the same devices. See facts.h. */
#include "predict/facts.h"

/* The slices to compare on: those of the layout chosen, or when that has one the most that fit. */
static int slices(const struct search *s)
{
    const struct plan *best = &s->best[0].shape->plan;
    int most = best->tp;
    for (int i = 0; i < s->shapes.n && best->tp == 1; i++) {
        const struct shape *x = &s->shapes.at[i];
        if (x->state == SHAPE_FINE && x->plan.pp == best->pp)
            most = max_int(most, x->plan.tp);
    }
    return most;
}

static bool comparable(const struct shape *x, const struct plan *best, int tp)
{
    const struct plan *p = &x->plan;
    return x->state == SHAPE_FINE && p->tp == tp && p->pp == best->pp &&
           p->weight == best->weight && p->kv == best->kv && x->dp <= 1;
}

static void price(struct pricer *x, struct work w, double *all_s, double *comm_s)
{
    struct step_price s;
    pricer_step(x, &w, &s);
    *all_s = s.all_s;
    *comm_s = s.comm_s;
}

void facts_experts(const struct question *q, const struct search *s, struct facts *to)
{
    const struct plan *best = &s->best[0].shape->plan;
    const int tp = slices(s), pos = (int)q->demand.prompt.mean;
    to->experts_batch = max_int(2, (int)s->best[0].at.running);
    if (!q->model.experts.n || tp == 1)
        return;
    for (int i = 0; i < s->shapes.n && to->n_experts < FACT_EXPERTS; i++) {
        const struct shape *x = &s->shapes.at[i];
        struct experts_cut *c = &to->experts[to->n_experts];
        if (!comparable(x, best, tp))
            continue;
        to->n_experts++;
        c->shape = x;
        for (int r = 0; r < x->plan.tp; r++)
            c->weights = x->weighed.weights[r] > c->weights ? x->weighed.weights[r] : c->weights;
        price(x->pricer, work_of(&q->model, 1, 1, pos), &c->one_s, &c->one_comm_s);
        price(x->pricer, work_of(&q->model, to->experts_batch, 1, pos), &c->many_s,
              &c->many_comm_s);
        price(x->pricer, work_of(&q->model, 1, FACT_PROMPT, FACT_PROMPT - 1), &c->prompt_s,
              &c->prompt_comm_s);
    }
}
