/* explain_experts.c - section of an answer about a mixture: experts cut against whole ones. See
 * explain.h. */
#include "predict/explain.h"

#include <math.h>

static void row(struct table *t, const struct answer *a, const struct experts_cut *c)
{
    char name[96];
    table_put(
        t, "%s",
        choice_name(name, a->question, &(struct choice){.shape = c->shape, .dp = 1, .hosts = 1}));
    table_put(t, "%.2f (%.2f)", c->one_s * 1e3, c->one_comm_s * 1e3);
    table_put(t, "%.2f (%.2f)", c->many_s * 1e3, c->many_comm_s * 1e3);
    table_put(t, "%.2f (%.2f)", c->prompt_s * 1e3, c->prompt_comm_s * 1e3);
    table_put(t, "%.2f", (double)c->weights / 1e9);
}

static const struct experts_cut *quickest(const struct facts *f,
                                          double (*of)(const struct experts_cut *))
{
    const struct experts_cut *best = &f->experts[0];
    for (int i = 1; i < f->n_experts; i++)
        if (of(&f->experts[i]) < of(best))
            best = &f->experts[i];
    return best;
}

static double of_one(const struct experts_cut *c) { return c->one_s; }
static double of_many(const struct experts_cut *c) { return c->many_s; }
static double of_prompt(const struct experts_cut *c) { return c->prompt_s; }

/* What decides between the two. */
static void reasons(FILE *to, const struct answer *a)
{
    const struct facts *f = a->facts;
    const struct experts *x = &a->question->model.experts;
    const int tp = f->experts[0].shape->plan.tp;
    double hit = 1 - pow(1 - 1.0 / tp, x->top);
    char name[3][96];
    const struct experts_cut *best[] = {quickest(f, of_one), quickest(f, of_many),
                                        quickest(f, of_prompt)};
    for (int i = 0; i < 3; i++)
        choice_name(name[i], a->question,
                    &(struct choice){.shape = best[i]->shape, .dp = 1, .hosts = 1});
    fprintf(to, "Quickest with one sequence: %s; with %d: %s; with a prompt: %s.\n", name[0],
            f->experts_batch, name[1], name[2]);
    fprintf(to,
            "%d of %d experts are chosen for a token. Cut by tp, all ranks hold a part of each and "
            "work is even. Whole (ep), a rank multiplies fewer, wider matrices; ",
            x->top, x->n);
    if (a->question->hardware->kind == DEVICE_CPU)
        fprintf(to, "on one host every rank reaches all of them, so work goes by load.\n");
    else
        fprintf(to, "the one whose experts are chosen most sets the pace, as if tokens chose "
                    "blindly.\n");
    fprintf(to,
            "With ep %d and sp a row goes to %.0f %% of the other ranks and its sum comes back "
            "(two all-to-all and a small gather for gather and reduce-scatter of all rows).\n",
            tp, 100 * hit);
}

void explain_experts(FILE *to, const struct answer *a, bool markdown)
{
    const struct facts *f = a->facts;
    if (f->n_experts < 2)
        return;
    struct table t = table_begin(5);
    explain_heading(to, "Experts: cut (tp) or whole on runs of ranks (ep)", markdown);
    table_put(&t, "ms (of it between ranks)");
    table_put(&t, "1 sequence");
    table_put(&t, "%d sequences", f->experts_batch);
    table_put(&t, "prompt of %d", FACT_PROMPT);
    table_put(&t, "GB of weights each");
    for (int i = 0; i < f->n_experts; i++)
        row(&t, a, &f->experts[i]);
    table_end(&t, to, markdown);
    if (markdown)
        putc('\n', to);
    reasons(to, a);
}

json_t *explain_experts_json(const struct facts *f)
{
    json_t *all = json_array();
    for (int i = 0; i < f->n_experts; i++) {
        const struct experts_cut *c = &f->experts[i];
        const struct plan *p = &c->shape->plan;
        json_array_append_new(all, json_pack("{s:i,s:i,s:b,s:f,s:f,s:i,s:f,s:f,s:f,s:f,s:I}", "tp",
                                             p->tp, "ep", p->ep, "sp", p->sp, "one_s", c->one_s,
                                             "one_comm_s", c->one_comm_s, "batch", f->experts_batch,
                                             "batch_s", c->many_s, "batch_comm_s", c->many_comm_s,
                                             "prompt_s", c->prompt_s, "prompt_comm_s",
                                             c->prompt_comm_s, "weights", (json_int_t)c->weights));
    }
    return all;
}
