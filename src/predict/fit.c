/* fit.c - see fit.h. Least squares, reweighted until they are the least sum of relative errors. */
#include "predict/fit.h"

#include <float.h>
#include <math.h>

enum { UNKNOWNS = 3, TURNS = 40 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct figure fit_median(double *x, int n)
{
    must(0 < n && n <= FIT_REPEATS);
    qsort(x, (size_t)n, sizeof(*x), by_value);
    double median = n & 1 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
    double lo = x[(n - 1) * 5 / 100], hi = x[(n - 1) - (n - 1) * 5 / 100];
    double error = median > 0 ? 0.5 * (hi - lo) / median : 0;
    return (struct figure){median, fmin(error, FIT_ERROR_MOST), SOURCE_MEASURED};
}

/* Gauss with pivots: m[k][k + 1] for k unknowns. False when it is singular. */
static bool solve(double m[UNKNOWNS][UNKNOWNS + 1], int k, double *x)
{
    for (int i = 0; i < k; i++) {
        int p = i;
        for (int r = i + 1; r < k; r++)
            if (fabs(m[r][i]) > fabs(m[p][i]))
                p = r;
        if (fabs(m[p][i]) < 1e-300)
            return false;
        for (int c = 0; c <= k; c++) {
            double t = m[i][c];
            m[i][c] = m[p][c], m[p][c] = t;
        }
        for (int r = 0; r < k; r++) {
            double f = r == i ? 0 : m[r][i] / m[i][i];
            for (int c = 0; c <= k; c++)
                m[r][c] -= f * m[i][c];
        }
    }
    for (int i = 0; i < k; i++)
        x[i] = m[i][k] / m[i][i];
    return true;
}

/* The unknowns' factors in a point, over y: their sum should be 1. */
struct row {
    double factor[UNKNOWNS];
};

static double miss(const struct row *r, int k, const double *x)
{
    double sum = -1;
    for (int i = 0; i < k; i++)
        sum += r->factor[i] * x[i];
    return fabs(sum);
}

/* One turn: the x of the least weighted squares. */
static bool turn(const struct row *row, int n, int k, const double *weight, double *x)
{
    double m[UNKNOWNS][UNKNOWNS + 1] = {0};
    for (int p = 0; p < n; p++)
        for (int i = 0; i < k; i++) {
            for (int j = 0; j < k; j++)
                m[i][j] += weight[p] * row[p].factor[i] * row[p].factor[j];
            m[i][k] += weight[p] * row[p].factor[i];
        }
    return solve(m, k, x);
}

/* The best x, none below 0; its mean error, DBL_MAX when there is none. */
static double best_of(const struct row *row, int n, int k, double *best)
{
    double weight[FIT_POINTS] = {0}, x[UNKNOWNS], least = DBL_MAX;
    for (int p = 0; p < n; p++)
        weight[p] = 1;
    for (int t = 0; t < TURNS && turn(row, n, k, weight, x); t++) {
        double mean = 0;
        bool below = false;
        for (int i = 0; i < k; i++)
            below |= x[i] < 0;
        for (int p = 0; p < n; p++) {
            double off = miss(&row[p], k, x);
            mean += off / n;
            weight[p] = 1 / fmax(off, 1e-4);
        }
        if (below || mean >= least)
            continue;
        least = mean;
        memcpy(best, x, (size_t)k * sizeof(*x));
    }
    return least;
}

static double error90(const struct row *row, int n, int k, const double *x)
{
    double off[FIT_POINTS] = {0};
    for (int p = 0; p < n; p++)
        off[p] = miss(&row[p], k, x);
    qsort(off, (size_t)n, sizeof(*off), by_value);
    return off[(int)ceil(0.9 * n) - 1];
}

bool fit_line(const struct fit_point *p, int n, double *a, double *b, double *error)
{
    struct row row[FIT_POINTS] = {0};
    double x[UNKNOWNS];
    must(0 < n && n <= FIT_POINTS);
    for (int i = 0; i < n; i++)
        row[i] = (struct row){{1e-6 / p[i].y, 1e-11 * p[i].w / p[i].y}};
    if (best_of(row, n, 2, x) == DBL_MAX)
        return false;
    *a = 1e-6 * x[0], *b = 1e-11 * x[1];
    *error = error90(row, n, 2, x);
    return true;
}

static void make_rows(const struct fit_point *p, int n, double knee, struct row *row)
{
    for (int i = 0; i < n; i++)
        row[i] = (struct row){{1e-6 / p[i].y, 1e-11 * fmin(p[i].w, knee) / p[i].y,
                               1e-11 * fmax(0, p[i].w - knee) / p[i].y}};
}

static void set(struct collective *c, const double *x, double knee, double error)
{
    error = fmin(error, FIT_ERROR_MOST);
    c->latency_s = (struct figure){1e-6 * x[0], error, SOURCE_MEASURED};
    c->byte_s = (struct figure){1e-11 * x[1], error, SOURCE_MEASURED};
    c->far_byte_s = (struct figure){1e-11 * x[2], error, SOURCE_MEASURED};
    c->knee_bytes = knee;
}

/* Without a knee, or with few points: one line, or the first point's latency alone. */
static void fit_straight(const struct fit_point *p, int n, double spread, struct collective *c)
{
    double a = p[0].y, b = 0, error = spread;
    if (!fit_line(p, n, &a, &b, &error) && n > 1 && p[n - 1].w > p[0].w)
        b = fmax(0, (p[n - 1].y - p[0].y) / (p[n - 1].w - p[0].w));
    set(c, (double[]){1e6 * a, 1e11 * b, 1e11 * b}, 0, fmax(error, spread));
}

void fit_collective(const struct fit_point *p, int n, double spread, struct collective *c)
{
    struct row row[FIT_POINTS] = {0};
    double x[UNKNOWNS], least = DBL_MAX;
    must(1 < n && n <= FIT_POINTS);
    fit_straight(p, n, spread, c);
    for (int i = 1; i < 2 * n - 4; i++) { /* at a point or in the middle of two, by logarithms */
        double knee = i & 1 ? sqrt(p[i / 2 + 1].w * p[i / 2 + 2].w) : p[i / 2 + 1].w;
        make_rows(p, n, knee, row);
        double mean = best_of(row, n, UNKNOWNS, x);
        if (mean >= least || knee <= 0)
            continue;
        least = mean;
        set(c, x, knee, fmax(spread, error90(row, n, UNKNOWNS, x)));
    }
}
