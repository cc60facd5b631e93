/* drift.c - see drift.h. */
#include "serve/drift.h"

int drift_class(int rows)
{
    int c = 0;
    while (rows > 1 && c < DRIFT_CLASSES - 1)
        rows /= 2, c++;
    return c;
}

void drift_add(struct drift *d, int rows, double measured_s, double predicted_s)
{
    struct drift_class *c = &d->of[drift_class(rows)];
    must(measured_s > 0 && predicted_s > 0);
    c->steps++;
    c->measured_s += measured_s;
    c->predicted_s += predicted_s;
    d->ratio[d->n++ % DRIFT_WINDOW] = (float)(measured_s / predicted_s);
}

static int by_ratio(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

double drift_median(const struct drift *d)
{
    float sorted[DRIFT_WINDOW];
    size_t n = d->n < DRIFT_WINDOW ? d->n : DRIFT_WINDOW;
    if (n < DRIFT_LEAST)
        return 0;
    memcpy(sorted, d->ratio, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), by_ratio);
    return (double)sorted[n / 2];
}

bool drift_alarm(struct drift *d, double now_s)
{
    if (d->alarm_s > 0 && now_s - d->alarm_s < DRIFT_QUIET)
        return false;
    if (d->n % DRIFT_LEAST) /* sorting at every step would be waste */
        return false;
    double median = drift_median(d);
    if (median <= 0 || (median < DRIFT_FAR && median > 1 / DRIFT_FAR))
        return false;
    d->alarm_s = now_s;
    return true;
}
