/* demand.c - see demand.h. */
#include "predict/demand.h"

#include <math.h>

double normal_share(double x) { return erfc(-x / sqrt(2)) / 2; }

/* By bisection: not for hot paths. */
double normal_quantile(double p)
{
    double lo = -8, hi = 8;
    must(p > 0 && p < 1);
    for (int i = 0; i < 60; i++) {
        double mid = (lo + hi) / 2;
        if (normal_share(mid) < p)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* The longest of a lognormal spread: 1 in 1000 is longer, and is cut there by --ctx. */
struct lengths lengths_of_spread(const struct spread *s)
{
    if (s->kind == SPREAD_LOGNORMAL) {
        double mu = log(s->a) - s->b * s->b / 2;
        return (struct lengths){s->a, sqrt(exp(s->b * s->b) - 1), exp(mu + 2.326 * s->b),
                                exp(mu + 3.09 * s->b)};
    }
    double mean = (s->a + s->b) / 2, sd = (s->b - s->a) / sqrt(12);
    return (struct lengths){mean, sd / mean, s->a + 0.99 * (s->b - s->a), s->b};
}

static int ascending(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

/* Of n > 0 lengths, which are sorted. */
static struct lengths lengths_of(int *x, size_t n)
{
    double sum = 0, squares = 0;
    qsort(x, n, sizeof(*x), ascending);
    for (size_t i = 0; i < n; i++)
        sum += x[i], squares += (double)x[i] * x[i];
    double mean = sum / (double)n, variance = squares / (double)n - mean * mean;
    return (struct lengths){mean, sqrt(variance > 0 ? variance : 0) / mean, x[n * 99 / 100],
                            x[n - 1]};
}

/* Squared coefficient of variation of the gaps; 1 when there are none. */
static double gaps_cv2(const struct trace *t)
{
    double n = (double)t->n - 1, mean = n > 0 ? t->row[t->n - 1].at / n : 0, sum = 0;
    if (mean <= 0)
        return 1;
    for (size_t i = 1; i < t->n; i++) {
        double gap = t->row[i].at - t->row[i - 1].at - mean;
        sum += gap * gap;
    }
    return sum / n / (mean * mean);
}

int demand_of_trace(const struct trace *t, double rate, struct demand *to, struct err *e)
{
    double seconds = t->n ? t->row[t->n - 1].at : 0;
    if (!t->n)
        return err_set(e, -EINVAL, "the trace has no requests");
    if (!rate && (!t->timed || seconds <= 0))
        return err_set(e, -EINVAL, "the trace tells no times: say how many a second by --rate");
    struct pool pool = {0};
    int *prompt = pool_get(&pool, t->n * sizeof(int)),
        *output = pool_get(&pool, t->n * sizeof(int));
    for (size_t i = 0; i < t->n; i++)
        prompt[i] = t->row[i].prompt_tok, output[i] = t->row[i].output_tok;
    to->prompt = lengths_of(prompt, t->n);
    to->output = lengths_of(output, t->n);
    pool_free(&pool);
    to->rate = rate ? rate : (double)t->n / seconds;
    to->cv2 = t->timed ? gaps_cv2(t) : 1;
    return 0;
}

int demand_ctx(const struct demand *d) { return (int)ceil(d->prompt.most + d->output.most); }
