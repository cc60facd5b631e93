/* metric.c - see metric.h. */
#include "base/metric.h"

#include <math.h>

static const double seconds[] = {.001, .0025, .005, .01, .025, .05, .075, .1, .15, .25, .5,  .75,
                                 1,    1.5,   2.5,  5,   7.5,  10,  20,   40, 80,  160, 300, 600};
static const double tokens[] = {1,    2,    5,     10,    20,    50,  100, 200, 500, 1000,
                                2000, 5000, 10000, 20000, 50000, 1e5, 2e5, 5e5, 1e6};

struct histogram histogram_seconds(void)
{
    return (struct histogram){.bound = seconds, .n = (int)COUNT(seconds)};
}

struct histogram histogram_tokens(void)
{
    return (struct histogram){.bound = tokens, .n = (int)COUNT(tokens)};
}

void histogram_add(struct histogram *h, double value)
{
    int i = 0;
    while (i < h->n && value > h->bound[i])
        i++;
    h->count[i]++;
    h->total++;
    h->sum += value;
}

void metric_family(FILE *to, const char *name, const char *type, const char *help)
{
    fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_number(FILE *to, double value)
{
    if (isinf(value))
        fputs(value > 0 ? "+Inf" : "-Inf", to);
    else if (isnan(value))
        fputs("NaN", to);
    else
        fprintf(to, "%.15g", value);
}

static void put_labels(FILE *to, const char *labels, const char *more)
{
    if (*labels || *more)
        fprintf(to, "{%s%s%s}", labels, *labels && *more ? "," : "", more);
    putc(' ', to);
}

void metric_value(FILE *to, const char *name, const char *labels, double value)
{
    fputs(name, to);
    put_labels(to, labels, "");
    put_number(to, value);
    putc('\n', to);
}

void metric_histogram(FILE *to, const char *name, const char *labels, const struct histogram *h)
{
    uint64_t so_far = 0;
    for (int i = 0; i <= h->n; i++) {
        char bound[40] = "le=\"+Inf\"";
        if (i < h->n)
            snprintf(bound, sizeof(bound), "le=\"%.15g\"", h->bound[i]);
        so_far += h->count[i];
        fprintf(to, "%s_bucket", name);
        put_labels(to, labels, bound);
        fprintf(to, "%llu\n", (unsigned long long)so_far);
    }
    fprintf(to, "%s_sum", name);
    put_labels(to, labels, "");
    put_number(to, h->sum);
    fprintf(to, "\n%s_count", name);
    put_labels(to, labels, "");
    fprintf(to, "%llu\n", (unsigned long long)h->total);
}

void metric_escape(char *to, size_t n, const char *value)
{
    size_t at = 0;
    for (; *value && at + 3 < n; value++) {
        if (*value == '\\' || *value == '"' || *value == '\n')
            to[at++] = '\\';
        to[at++] = *value == '\n' ? 'n' : *value;
    }
    to[at] = 0;
}
