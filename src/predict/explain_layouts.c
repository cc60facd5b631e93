/* explain_layouts.c - sections of an answer: memory, the best layouts and why others are out, the
 * front. See explain.h. */
#include "predict/explain.h"

void explain_memory(FILE *to, const struct answer *a, bool markdown)
{
    const struct choice *c = &a->search->best[0];
    const struct hardware *h = a->question->hardware;
    struct fit f = size_fit(&a->facts->plan, h);
    double gb = 1e9, page = (double)f.size.page / 16 / (f.rank == PLAN_WHOLE ? c->dp : 1);
    explain_heading(to, "Memory", markdown);
    if (f.rank == PLAN_WHOLE)
        fprintf(to, "The host");
    else
        fprintf(to, "The fullest device (rank %d)", f.rank);
    fprintf(to,
            " holds %.2f GB of weights, %.2f GB of cache, %.2f GB of scratch: %.2f of %.2f GB "
            "(%.1f GiB less %.2f GB of reserve). Exact.\n",
            (double)f.size.weights / gb, (double)f.size.kv / gb, (double)f.size.scratch / gb,
            (double)size_all(&f.size) / gb, f.have / gb, h->memory_bytes.value / 0x1p30,
            h->reserve_bytes.value / gb);
    fprintf(to,
            "The cache has room for %lld tokens a replica (%.0f bytes each there); at P%g %.0f %% "
            "of it is used.\n",
            (long long)a->facts->plan.pages * 16, page, 100 * a->question->demand.share,
            100 * c->at.kv_share);
}

/* ------------------------------------------------------------------------------- layouts */

/* In a word or two. */
static const char *verdict(const struct answer *a, const struct choice *c)
{
    const struct choice *best = a->search->best;
    if (!choice_good(c))
        return limit_words(c->at.limit);
    if (c == best)
        return "chosen";
    if (c->paid > best->paid)
        return "more devices";
    return c->at.worst < best->at.worst ? "more ranks to a replica" : "nearer to a bound";
}

static void layout_row(struct table *t, const struct answer *a, const struct choice *c)
{
    char name[96];
    table_put(t, "%s", choice_name(name, a->question, c));
    table_put(t, "%d", c->paid);
    table_put(t, "%d", c->max_tok);
    if (c->at.worst < 1e6) {
        table_put(t, "%.0f", c->at.ttft_tail_s * 1e3);
        table_put(t, "%.1f", c->at.tpot_tail_s * 1e3);
    } else {
        table_put(t, "-");
        table_put(t, "-");
    }
    table_put(t, "%.3g", c->capacity);
    table_put(t, "%s", verdict(a, c));
}

static void best_table(FILE *to, const struct answer *a, bool markdown)
{
    struct table t = table_begin(7);
    int share = (int)(100 * a->question->demand.share);
    static const char *const head[] = {"layout", "devices", "rows"};
    for (size_t i = 0; i < COUNT(head); i++)
        table_put(&t, "%s", head[i]);
    table_put(&t, "P%d first ms", share);
    table_put(&t, "P%d token ms", share);
    table_put(&t, "most req/s");
    table_put(&t, "verdict");
    for (int i = 0; i < min_int(a->search->n_best, 12); i++)
        layout_row(&t, a, &a->search->best[i]);
    table_end(&t, to, markdown);
}

/* Those that cannot be, a line for each kind of reason. */
static void out_table(FILE *to, const struct answer *a, bool markdown)
{
    struct table t = table_begin(2);
    int rows = 0, across = 0;
    table_put(&t, "out");
    table_put(&t, "why");
    for (int i = 0; i < a->search->shapes.n; i++) {
        const struct shape *s = &a->search->shapes.at[i];
        if (s->state == SHAPE_FINE || s->plan.sp || s->plan.ep > 1 ||
            (s->state == SHAPE_ACROSS && across++))
            continue;
        if (rows++ >= 10)
            continue;
        table_put(&t, "tp %d%s, pp %d%s", s->plan.tp, s->state == SHAPE_ACROSS ? " and more" : "",
                  s->plan.pp, s->state == SHAPE_ACROSS ? " and more" : "");
        table_put(&t, "%.95s", s->why);
    }
    putc('\n', to);
    table_end(&t, to, markdown);
    if (rows > 10)
        fprintf(to, "... and %d more.\n", rows - 10);
}

static bool any_out(const struct search *s)
{
    for (int i = 0; i < s->shapes.n; i++)
        if (s->shapes.at[i].state != SHAPE_FINE)
            return true;
    return false;
}

static void front_table(FILE *to, const struct answer *a, bool markdown)
{
    const struct facts *f = a->facts;
    struct table t = table_begin(5);
    char name[96];
    static const char *const head[] = {"layout", "at once", "tokens/s of a client",
                                       "tokens/s of a device", "$ per million"};
    explain_heading(to, "Speed for one client against throughput (no layout is better in both)",
                    markdown);
    for (size_t i = 0; i < COUNT(head); i++)
        table_put(&t, "%s", head[i]);
    for (int i = 0; i < f->n_front; i++) {
        const struct point *p = &f->front[i];
        table_put(&t, "%s",
                  choice_name(name, a->question,
                              &(struct choice){.shape = p->choice->shape,
                                               .dp = max_int(1, p->choice->shape->dp),
                                               .hosts = 1}));
        table_put(&t, "%d", p->batch);
        table_put(&t, "%.1f", 1 / p->tpot_s);
        table_put(&t, "%.1f", p->tok_s);
        if (p->dollars > 0)
            table_put(&t, "%.2f", p->dollars);
        else
            table_put(&t, "-");
    }
    table_end(&t, to, markdown);
}

void explain_layouts(FILE *to, const struct answer *a, bool markdown)
{
    const struct search *s = a->search;
    explain_heading(to, "Layouts", markdown);
    fprintf(to, "%ld layouts were tried, %ld fit. The best of each cut:%s\n", s->tried, s->fitted,
            markdown ? "\n" : "");
    best_table(to, a, markdown);
    if (any_out(s))
        out_table(to, a, markdown);
    front_table(to, a, markdown);
}
