/* explain_changes.c - sections of an answer: what would change it, how sure it is, what a lost
 * device costs, separate pools, the pipeline as a drawing. See explain.h. */
#include "predict/explain.h"

#include <math.h>

static void flips(FILE *to, const struct answer *a)
{
    const struct facts *f = a->facts;
    if (f->by_batch.found)
        fprintf(to,
                "- on the same devices, decode is fastest with %s up to %.0f sequences at once, "
                "with %s above\n",
                f->by_batch.from, f->by_batch.at, f->by_batch.to);
    if (f->by_link.found)
        fprintf(to,
                "- decode at this load: %s up to here; with links %.3g times as slow (sums at %.3g "
                "GB/s and not %.3g), %s\n",
                f->by_link.from, f->by_link.at, f->link_rate / f->by_link.at / 1e9,
                f->link_rate / 1e9, f->by_link.to);
    else if (f->link_rate > 0)
        fprintf(to, "- no rate of links makes another cut of these devices faster at this load\n");
}

static void whatifs(FILE *to, const struct answer *a, bool markdown)
{
    const struct facts *f = a->facts;
    struct table t = table_begin(3);
    table_put(&t, "if it were");
    table_put(&t, "devices");
    table_put(&t, "layout");
    for (int i = 0; i < f->n_whatif; i++) {
        const struct whatif *w = &f->whatif[i];
        table_put(&t, "%s", w->what);
        if (w->devices)
            table_put(&t, "%d", w->devices);
        else
            table_put(&t, "none");
        table_put(&t, "%s", w->devices ? w->name : "cannot be met");
    }
    putc('\n', to);
    table_end(&t, to, markdown);
}

static void sums(FILE *to, const struct answer *a, bool markdown)
{
    const struct facts *f = a->facts;
    struct table t = table_begin(4);
    if (f->n_sums < 2)
        return;
    explain_heading(to, "Slices and their sums", markdown);
    table_put(&t, "slices");
    table_put(&t, "step ms");
    table_put(&t, "sums ms");
    table_put(&t, "P99 later by ms");
    for (int i = 0; i < f->n_sums; i++) {
        table_put(&t, "tp %d", f->sums[i].tp);
        table_put(&t, "%.2f", f->sums[i].step_s * 1e3);
        table_put(&t, "%.2f", f->sums[i].comm_s * 1e3);
        table_put(&t, "%.2f", f->sums[i].late_s * 1e3);
    }
    table_end(&t, to, markdown);
    fprintf(to,
            "A decode step of one replica. Later: if all sums of a step are slow together, by the "
            "error of the profile's figures.\n");
}

static void confidence(FILE *to, const struct answer *a, bool markdown)
{
    const struct facts *f = a->facts;
    char name[96];
    explain_heading(to, "How sure", markdown);
    fprintf(
        to,
        "By the errors of the profile's figures (one standard deviation): first token +-%.0f %%, "
        "time per token +-%.0f %%, capacity +-%.0f %%. The bounds are kept with probability "
        "%.2f.\n",
        100 * f->ttft_error, 100 * f->tpot_error, 100 * f->capacity_error, f->p_good);
    if (f->runner_up)
        fprintf(to, "It carries more per device than %s with probability %.2f.\n",
                choice_name(name, a->question, f->runner_up), f->p_best);
}

static void loss(FILE *to, const struct answer *a, bool markdown)
{
    const struct facts *f = a->facts;
    const struct choice *c = &a->search->best[0];
    double rate = a->question->demand.rate;
    if (c->capacity <= 0 || rate <= 0 || a->question->hardware->kind == DEVICE_CPU)
        return;
    explain_heading(to, "With one device lost", markdown);
    fprintf(to, "%.3g requests a second while its replica is down", f->lost_replica);
    if (f->lost_again > 0)
        fprintf(to, "; %.3g when what is left of the host is cut anew (%s)", f->lost_again,
                f->lost_name);
    fprintf(to, ". Asked are %.4g: %s.\n", rate,
            fmax(f->lost_replica, f->lost_again) >= rate ? "enough"
                                                         : "too few, take one host more");
}

static void pools(FILE *to, const struct answer *a, bool markdown)
{
    const struct pools *p = &a->facts->pools;
    const struct choice *c = &a->search->best[0];
    char prompt[96], draw[96];
    if (!p->devices)
        return;
    explain_heading(to, "Separate pools", markdown);
    choice_name(prompt, a->question, &p->prompt);
    choice_name(draw, a->question, &p->draw);
    fprintf(to,
            "%dP%dD: %d x (%s) for prompts, %d x (%s) for answers would take %d devices, %s the %d "
            "above; handing over a prompt's keys and values takes %.1f ms. An analysis only: "
            "Tandem's server has one pool.\n",
            p->n_prompt, p->n_draw, p->n_prompt, prompt, p->n_draw, draw, p->devices,
            p->devices < c->paid ? "fewer than" : "no fewer than", c->paid, p->send_s * 1e3);
}

void explain_changes(FILE *to, const struct answer *a, bool markdown)
{
    explain_heading(to, "What would change it", markdown);
    flips(to, a);
    whatifs(to, a, markdown);
    sums(to, a, markdown);
    if (choice_good(&a->search->best[0]))
        confidence(to, a, markdown);
    loss(to, a, markdown);
    pools(to, a, markdown);
}

/* ------------------------------------------------------------------------------- the pipeline */

/* Row: a stage; column: a beat; letters: groups of sequences; '.': the stage has nothing to do. */
static void draw(FILE *to, int stages, int groups, int beats)
{
    for (int s = 0; s < stages; s++) {
        fprintf(to, "    stage %-2d ", s);
        for (int b = 0; b < beats; b++) {
            int turn = b - s, round = max_int(stages, groups);
            putc(turn >= 0 && turn % round < groups ? 'A' + turn % round : '.', to);
        }
        putc('\n', to);
    }
}

void explain_timeline(FILE *to, const struct answer *a, bool markdown)
{
    const struct plan *p = &a->facts->plan;
    int many = min_int(p->pp, 26);
    double bubble = 100 * (1 - 1.0 / p->pp),
           prompts = ceil(a->question->demand.prompt.mean / fmax(a->search->best[0].at.rows, 1));
    explain_heading(to, "The pipeline", markdown);
    if (p->pp == 1) {
        fprintf(to, "One stage: no bubble.\n");
        return;
    }
    fprintf(to, "One sequence alone (each stage works 1 beat in %d, %.0f %% bubble):\n\n", p->pp,
            bubble);
    draw(to, p->pp, 1, min_int(4 * p->pp, 64));
    fprintf(to,
            "\n%d groups of sequences under way, as the engine keeps them (no bubble but at the "
            "start):\n\n",
            many);
    draw(to, p->pp, many, min_int(4 * p->pp, 64));
    fprintf(to,
            "\nA beat is %.2f ms. A prompt of %.0f tokens in %.0f part%s takes %.0f beats: bubble "
            "%.0f %% when alone.\n",
            a->search->best[0].at.step_s / p->pp * 1e3, a->question->demand.prompt.mean, prompts,
            prompts > 1 ? "s" : "", prompts + p->pp - 1, 100 * (p->pp - 1) / (prompts + p->pp - 1));
}
