/* experts.c - see experts.h. */
#include "serve/experts.h"
#include "base/metric.h"
#include "sched/balance.h"

struct counts {
    struct expert_figures of; /* malloc'd arrays */
    uint64_t row[MODEL_EXPERTS], all;
};

static struct counts counts_open(struct fleet *f, const struct plan *p)
{
    struct counts c = {.all = 0};
    const size_t layers = (size_t)p->model.n_layer, n = (size_t)p->model.experts.n;
    c.of.rows = calloc(layers * n, sizeof(*c.of.rows));
    c.of.turns = calloc(layers, sizeof(*c.of.turns));
    must(c.of.rows && c.of.turns);
    fleet_experts(f, &c.of);
    for (size_t i = 0; i < layers * n; i++) {
        c.row[i % n] += c.of.rows[i];
        c.all += c.of.rows[i];
    }
    return c;
}

static void counts_close(struct counts *c)
{
    free(c->of.rows);
    free(c->of.turns);
}

/* What follows from the rows of a layer. */
struct layer_figures {
    double busiest; /* the busiest expert's rows beside the mean expert's */
    double even;    /* lambda if every run of ranks did its even share of experts */
    double turns;   /* lambda as rows were assigned */
    double uneven;
};

static struct layer_figures figures(const struct plan *p, const struct counts *c, int layer)
{
    const int n = p->model.experts.n;
    const struct placement even = placement_even(n, p->ep);
    const struct turn_load *turns = &c->of.turns[layer];
    double rows[MODEL_EXPERTS], run[PLACEMENT_RUNS];
    for (int e = 0; e < n; e++)
        rows[e] = (double)c->of.rows[(size_t)layer * (size_t)n + (size_t)e];
    placement_loads(&even, rows, run);
    return (struct layer_figures){
        .busiest = loads_lambda(rows, n),
        .even = loads_lambda(run, p->ep),
        .turns = turns->all ? (double)p->ep * (double)turns->most / (double)turns->all : 1,
        .uneven = balance_uneven(rows, n)};
}

/* ------------------------------------------------------------------------------- metrics */

static const struct {
    const char *name, *help;
    size_t at;
} by_layer[] = {
    {"tandem:expert_busiest_ratio", "Rows of a layer's busiest expert beside the mean expert's.",
     offsetof(struct layer_figures, busiest)},
    {"tandem:expert_even_lambda",
     "The busiest run of ranks beside the mean, if each did its even share of experts.",
     offsetof(struct layer_figures, even)},
    {"tandem:expert_lambda", "The same of what was really assigned.",
     offsetof(struct layer_figures, turns)},
    {"tandem:expert_auxiliary_loss_load_balance",
     "Sum of squared distances of the experts' shares from even ones; not a loss: nothing learns.",
     offsetof(struct layer_figures, uneven)},
};

static void put_by_layer(FILE *to, const struct plan *p, const struct counts *c, const char *labels)
{
    for (size_t i = 0; i < COUNT(by_layer); i++) {
        metric_family(to, by_layer[i].name, "gauge", by_layer[i].help);
        for (int l = 0; l < p->model.n_layer; l++) {
            char with[256];
            double value;
            if (!model_sparse(&p->model, l))
                continue;
            struct layer_figures f = figures(p, c, l);
            memcpy(&value, (const char *)&f + by_layer[i].at, sizeof(value));
            snprintf(with, sizeof(with), "%s,layer=\"%d\"", labels, l);
            metric_value(to, by_layer[i].name, with, value);
        }
    }
}

static void put_cache(FILE *to, const struct cache_use *use, const char *labels)
{
    const struct {
        const char *name, *help;
        uint64_t value;
    } figure[] = {
        {"tandem:expert_cache_hits_total", "Experts needed in a layer of a step that were kept.",
         use->hits},
        {"tandem:expert_cache_misses_total", "Experts needed that were not.", use->misses},
        {"tandem:expert_cache_read_bytes_total", "Read from the file for these.", use->bytes},
    };
    for (size_t i = 0; i < COUNT(figure) && use->hits + use->misses; i++) {
        metric_family(to, figure[i].name, "counter", figure[i].help);
        metric_value(to, figure[i].name, labels, (double)figure[i].value);
    }
}

void experts_metrics(FILE *to, struct fleet *f, const struct plan *p, const char *labels)
{
    if (!p->model.experts.n)
        return;
    struct counts c = counts_open(f, p);
    metric_family(to, "tandem:expert_rows_total", "counter",
                  "Rows that chose an expert, over all layers.");
    for (int e = 0; e < p->model.experts.n; e++) {
        char with[256];
        snprintf(with, sizeof(with), "%s,expert=\"%d\"", labels, e);
        metric_value(to, "tandem:expert_rows_total", with, (double)c.row[e]);
    }
    put_by_layer(to, p, &c, labels);
    metric_family(to, "tandem:expert_placements_total", "counter",
                  "Times the experts were placed anew.");
    metric_value(to, "tandem:expert_placements_total", labels, (double)c.of.placements);
    put_cache(to, &c.of.cache, labels);
    counts_close(&c);
}

/* ------------------------------------------------------------------------------- JSON */

static json_t *layer_report(const struct plan *p, const struct counts *c, int layer)
{
    const int n = p->model.experts.n;
    struct layer_figures f = figures(p, c, layer);
    json_t *rows = json_array();
    for (int e = 0; e < n; e++)
        json_array_append_new(
            rows, json_integer((json_int_t)c->of.rows[(size_t)layer * (size_t)n + (size_t)e]));
    return json_pack("{sisosfsfsfsf}", "layer", layer, "rows", rows, "busiest", f.busiest,
                     "lambda_even", f.even, "lambda", f.turns, "auxiliary_loss_load_balance",
                     f.uneven);
}

json_t *experts_report(struct fleet *f, const struct plan *p)
{
    json_t *layers = json_array();
    if (p->model.experts.n) {
        struct counts c = counts_open(f, p);
        for (int l = 0; l < p->model.n_layer; l++)
            if (model_sparse(&p->model, l))
                json_array_append_new(layers, layer_report(p, &c, l));
        counts_close(&c);
    }
    return json_pack("{sisisisiso}", "schema", 1, "experts", p->model.experts.n, "chosen",
                     p->model.experts.top, "runs", p->ep, "layers", layers);
}
