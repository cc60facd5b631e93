/* explain.c - the sections of an answer. See explain.h. */
#include "predict/explain.h"

#include <math.h>

void assume(struct assumed *a, const char *fmt, ...)
{
    va_list args;
    must(a->n < ASSUMED_MOST);
    va_start(args, fmt);
    vsnprintf(a->text[a->n++], sizeof(a->text[0]), fmt, args);
    va_end(args);
}

void explain_heading(FILE *to, const char *title, bool markdown)
{
    fprintf(to, markdown ? "\n## %s\n\n" : "\n%s\n", title);
}

static const struct choice *chosen(const struct answer *a) { return &a->search->best[0]; }

/* ------------------------------------------------------------------------------- the answer */

/* The least that any layout has when idle. */
static double least(const struct answer *a, enum limit of, const struct choice **by)
{
    double best = INFINITY;
    const struct demand *d = &a->question->demand;
    for (int i = 0; i < a->search->n_best; i++) {
        const struct choice *c = &a->search->best[i];
        for (int tok = 128; tok <= SHAPE_TOK_MOST; tok *= 2) {
            struct choice x = *c;
            struct plan p;
            x.max_tok = tok, x.max_seq = SHAPE_SEQ;
            if (!shape_plan(a->question, x.shape, tok, x.max_seq, x.dp, &p))
                continue;
            struct replica r = choice_replica(a->question, &x);
            struct outlook o = screen(&r, d, 1e-4, 0);
            double v = of == LIMIT_TTFT ? o.ttft_tail_s : o.tpot_tail_s;
            if (v < best)
                best = v, *by = c;
        }
    }
    return best;
}

/* Why no layout will do, in a sentence or two. */
static void cannot(FILE *to, const struct answer *a)
{
    const struct demand *d = &a->question->demand;
    const struct choice *by = NULL, *c = chosen(a);
    char name[96];
    double spare = 1 - d->spare, ttft = least(a, LIMIT_TTFT, &by);
    if (d->ttft_s > 0 && ttft > d->ttft_s * spare)
        fprintf(
            to,
            "No layout keeps a first token within %.4g ms: the quickest, %s, needs %.0f ms even "
            "when idle.\n",
            d->ttft_s * 1e3, choice_name(name, a->question, by), ttft * 1e3);
    double tpot = least(a, LIMIT_TPOT, &by);
    if (d->tpot_s > 0 && tpot > d->tpot_s * spare)
        fprintf(to,
                "No layout keeps %.4g ms per token: the quickest, %s, needs %.1f ms even when "
                "idle.\n",
                d->tpot_s * 1e3, choice_name(name, a->question, by), tpot * 1e3);
    else if (ttft <= d->ttft_s * spare && c->capacity <= 0)
        fprintf(to, "Each bound can be kept alone, but no layout keeps both at once.\n");
    if (c->capacity > 0 && a->question->demand.rate > 0)
        fprintf(to,
                "No layout on %d host%s carries %.4g requests a second: this one carries %.3g, and "
                "%.0f "
                "such hosts would carry all.\n",
                c->hosts, c->hosts > 1 ? "s" : "", a->question->demand.rate, c->capacity,
                ceil(a->question->demand.rate / c->capacity * c->hosts));
    else
        fprintf(to, "Below is the nearest layout, idle, limited by: %s.\n",
                limit_words(c->at.limit));
}

static void stages(FILE *to, const struct plan *p)
{
    if (p->pp == 1)
        return;
    fprintf(to, "Stages hold layers");
    for (int i = 0; i < p->pp; i++)
        fprintf(to, "%s %d-%d", i ? "," : "", p->stage[i].lo, p->stage[i].hi - 1);
    fprintf(to, ": so cut, the slowest is fastest.\n");
}

static void answer(FILE *to, const struct answer *a, bool markdown)
{
    const struct choice *c = chosen(a);
    const struct hardware *h = a->question->hardware;
    const struct plan *p = &a->facts->plan;
    char name[96];
    choice_name(name, a->question, c);
    if (!choice_good(c))
        cannot(to, a);
    fprintf(to, "%s%s%s: %d of %d x %s", markdown ? "**" : "", name, markdown ? "**" : "",
            c->devices / c->hosts, a->question->devices, h->device);
    if (c->hosts > 1)
        fprintf(to, ", on each of %d hosts (%d devices in all), requests spread over them",
                c->hosts, c->paid);
    fprintf(to, ".\n");
    stages(to, p);
    fprintf(to,
            "Weights %s, cache %s; steps of up to %d tokens and %d sequences; sequences of up to "
            "%d tokens.\n",
            num_name(p->weight), num_name(p->kv), p->max_tok, p->max_seq, p->ctx);
    fprintf(to,
            "%standem plan ... -o plan.json && tandem serve MODEL --plan plan.json --tpot %.3g%s\n",
            markdown ? "\n    " : "  ", fmax(c->at.mixed_s, c->at.step_s), markdown ? "\n" : "");
    if (h->kind == DEVICE_GPU)
        fprintf(to,
                "What Tandem has for GPUs was never run on one: this is what such a machine would "
                "do by its profile.\n");
}

/* ------------------------------------------------------------------------------- what is seen */

static void bound(struct table *t, double seconds)
{
    if (seconds > 0)
        table_put(t, "%.4g ms", seconds * 1e3);
    else
        table_put(t, "-");
}

static const struct simulated *simulated_of(const struct answer *a, const struct choice *c)
{
    for (int i = 0; i < a->facts->n_simulated; i++)
        if (a->facts->simulated[i].choice == c)
            return &a->facts->simulated[i];
    return NULL;
}

static void latency(struct table *t, const char *what, double mean, double tail, double sim_mean,
                    double sim_tail, double most)
{
    table_put(t, "%s", what);
    table_put(t, "%.4g ms", mean * 1e3);
    table_put(t, "%.4g ms", tail * 1e3);
    bound(t, sim_mean);
    bound(t, sim_tail);
    bound(t, most);
}

static void clients(FILE *to, const struct answer *a, bool markdown)
{
    const struct choice *c = chosen(a);
    const struct outlook *o = &c->at;
    const struct demand *d = &a->question->demand;
    const struct simulated *s = simulated_of(a, c);
    struct table t = table_begin(6);
    explain_heading(to, "What clients see", markdown);
    table_put(&t, " ");
    table_put(&t, "mean");
    table_put(&t, "P%g", d->share * 100);
    table_put(&t, "simulated");
    table_put(&t, "P%g", d->share * 100);
    table_put(&t, "bound");
    latency(&t, "time to first token", o->ttft_s, o->ttft_tail_s, s ? s->ttft_s : 0,
            s ? s->ttft_tail_s : 0, d->ttft_s);
    latency(&t, "time per further token", o->tpot_s, o->tpot_tail_s, s ? s->tpot_s : 0,
            s ? s->tpot_tail_s : 0, d->tpot_s);
    table_end(&t, to, markdown);
    int n = c->dp * c->hosts;
    fprintf(to, "%s%.4g requests and %.0f tokens of answers a second", markdown ? "\n" : "",
            o->rate * n, o->output_tok_s * n);
    fprintf(to, "; %.0f sequences draw in each replica (P%g %.0f).\n", o->running, d->share * 100,
            o->running_tail);
    fprintf(
        to,
        "Time per token is (end - first token) / (tokens - 1); both as the server sees them.\n");
}

static void why(FILE *to, const struct answer *a, bool markdown)
{
    const struct choice *c = chosen(a);
    const struct step_price *s = &a->facts->step;
    double rate = a->question->demand.rate;
    explain_heading(to, "Why this one", markdown);
    if (choice_good(c))
        fprintf(to,
                "It keeps the bounds on the fewest devices; of the layouts on %d, it leaves most "
                "room, or nearly so with fewer ranks to a replica.\n",
                c->paid);
    if (c->capacity > 0 && rate > 0)
        fprintf(to,
                "It carries up to %.3g requests a second, %.2f times what is asked; then binds: "
                "%s.\n",
                c->capacity, c->capacity / rate, limit_words(c->wall));
    double all = s->all_s > 0 ? s->all_s : 1;
    fprintf(
        to,
        "A step without prompts takes %.1f ms: %.0f %% products (weights are read), %.0f %% "
        "attention, %.0f %% sums and hand-over, %.0f %% other, %.0f %% host; %.0f %% of the steps "
        "carry about %.0f rows of prompts and take %.1f ms.\n",
        s->all_s * 1e3, 100 * s->product_s / all, 100 * s->attend_s / all, 100 * s->comm_s / all,
        100 * s->other_s / all, 100 * s->host_s / all, 100 * c->at.mixed, c->at.rows,
        c->at.mixed_s * 1e3);
}

static void cost(FILE *to, const struct answer *a, bool markdown)
{
    const struct facts *f = a->facts;
    explain_heading(to, "Cost", markdown);
    if (f->dollars_hour > 0)
        fprintf(to, "%.2f $ an hour; %.2f $ per million tokens of answers at this load.\n",
                f->dollars_hour, f->dollars_million);
    else
        fprintf(to, "The price of a device is not known: give --price-hour for cost per million "
                    "tokens.\n");
    if (f->kwh_million > 0)
        fprintf(to, "%.2f kWh per million tokens of answers, devices under full load.\n",
                f->kwh_million);
}

static void sources(FILE *to, const struct answer *a, bool markdown)
{
    const struct hardware *h = a->question->hardware;
    enum num w = a->facts->plan.weight;
    explain_heading(to, "Assumed, and where numbers come from", markdown);
    for (int i = 0; i < a->assumed->n; i++)
        fprintf(to, "- %s\n", a->assumed->text[i]);
    fprintf(to, "- %s: %s%s%s\n", h->name, h->about, *h->date ? ", " : "", h->date);
    fprintf(to,
            "- memory %s; speed of products %s, +-%.0f %%; of memory %s; host work %s, +-%.0f %%; "
            "sizes and counts are exact\n",
            source_name(h->memory_bytes.source), source_name(h->rates[0].product[w].source),
            100 * h->rates[0].product[w].error, source_name(h->memory_rate.source),
            source_name(h->step_s.source), 100 * h->step_s.error);
    fprintf(to, "- queueing in closed form (Little, Kingman, exponential tails)%s\n",
            a->facts->n_simulated ? "; the best layouts were simulated with the real scheduler"
                                  : "");
}

void explain_write(FILE *to, const struct answer *a, bool markdown)
{
    if (markdown)
        fprintf(to, "# %s on %s\n\n", a->model, a->question->hardware->name);
    answer(to, a, markdown);
    clients(to, a, markdown);
    why(to, a, markdown);
    explain_memory(to, a, markdown);
    explain_layouts(to, a, markdown);
    explain_experts(to, a, markdown);
    explain_changes(to, a, markdown);
    if (chosen(a)->capacity > 0)
        cost(to, a, markdown);
    if (a->timeline)
        explain_timeline(to, a, markdown);
    sources(to, a, markdown);
}
