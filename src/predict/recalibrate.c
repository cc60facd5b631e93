/* recalibrate.c - see recalibrate.h. */
#include "predict/recalibrate.h"

#include <math.h>
#include <time.h>

/* ------------------------------------------------------------------------------- reading */

static const char MEASURED[] = "tandem:step_seconds_by_rows_total",
                  PREDICTED[] = "tandem:step_predicted_seconds_by_rows_total",
                  STEPS[] = "tandem:step_seconds_count";

/* The value of label `key` of a line, into to; false: it has none that fits. */
static bool label(const char *line, const char *key, char *to, size_t room)
{
    char mark[16];
    snprintf(mark, sizeof(mark), "%s=\"", key);
    const char *at = strstr(line, mark), *end = at ? strchr(at + strlen(mark), '"') : NULL;
    if (!end || (size_t)(end - at) - strlen(mark) >= room)
        return false;
    at += strlen(mark);
    memcpy(to, at, (size_t)(end - at));
    to[end - at] = 0;
    return true;
}

/* The number at the end of a line; false: there is none, or it cannot be a sum. */
static bool value(const char *line, double *to)
{
    const char *at = strrchr(line, ' ');
    char *end;
    *to = at ? strtod(at + 1, &end) : 0;
    return at && end != at + 1 && !*end && isfinite(*to) && *to >= 0;
}

static bool is_family(const char *line, const char *name)
{
    size_t n = strlen(name);
    return !strncmp(line, name, n) && (line[n] == '{' || line[n] == ' ');
}

/* The class of so many rows, made when it is new; NULL: there are too many. */
static struct seen_class *class_of(struct seen_steps *s, double rows)
{
    int i = 0;
    while (i < s->n && s->of[i].rows < rows)
        i++;
    if (i < s->n && s->of[i].rows == rows)
        return &s->of[i];
    if (s->n == SEEN_CLASSES)
        return NULL;
    memmove(&s->of[i + 1], &s->of[i], (size_t)(s->n - i) * sizeof(*s->of));
    s->n++;
    s->of[i] = (struct seen_class){.rows = rows};
    return &s->of[i];
}

/* A line of one of the two sums by rows. */
static int take_class(struct seen_steps *s, const char *line, bool measured, const char *what,
                      struct err *e)
{
    char rows[16], dtype[16];
    double sum;
    if (!label(line, "rows", rows, sizeof(rows)) || !label(line, "dtype", dtype, sizeof(dtype)) ||
        !value(line, &sum) || !(strtod(rows, NULL) >= 1 && strtod(rows, NULL) <= 1 << 24))
        return err_set(e, -EINVAL, "%s: cannot read \"%.120s\"", what, line);
    const enum num format = num_named(dtype);
    if (format == NUM_COUNT || (s->n && format != s->weight))
        return err_set(e, -EINVAL, "%s: weights are %.15s: give the figures of one server", what,
                       dtype);
    s->weight = format;
    struct seen_class *c = class_of(s, strtod(rows, NULL));
    if (!c)
        return err_set(e, -EINVAL, "%s: more than %d classes of rows", what, SEEN_CLASSES);
    *(measured ? &c->measured_s : &c->predicted_s) += sum;
    return 0;
}

static int take_line(struct seen_steps *s, const char *line, const char *what, struct err *e)
{
    double steps;
    if (is_family(line, MEASURED))
        return take_class(s, line, true, what, e);
    if (is_family(line, PREDICTED))
        return take_class(s, line, false, what, e);
    if (is_family(line, STEPS) && value(line, &steps))
        s->steps += steps;
    return 0;
}

/* Both sums of every class, and enough steps. */
static int check(const struct seen_steps *s, const char *what, struct err *e)
{
    if (!s->n)
        return err_set(e, -EINVAL,
                       "%s has no %s: start the server with --hardware, and give it work", what,
                       MEASURED);
    for (int i = 0; i < s->n; i++)
        if (s->of[i].measured_s <= 0 || s->of[i].predicted_s <= 0)
            return err_set(e, -EINVAL,
                           "%s: steps of %.0f rows were not both measured and predicted", what,
                           s->of[i].rows);
    if (s->steps < SEEN_LEAST)
        return err_set(e, -EINVAL, "%s: only %.0f steps were measured, %d are needed", what,
                       s->steps, SEEN_LEAST);
    return 0;
}

int seen_read(struct seen_steps *s, const char *text, size_t n, const char *what, struct err *e)
{
    *s = (struct seen_steps){0};
    for (const char *end, *stop = text + n; text < stop; text = end + 1) {
        char line[512];
        end = memchr(text, '\n', (size_t)(stop - text));
        end = end ? end : stop;
        size_t k = (size_t)(end - text);
        if (k >= sizeof(line) || memchr(text, 0, k))
            continue; /* none of ours */
        memcpy(line, text, k);
        line[k] = 0;
        int rc = take_line(s, line, what, e);
        if (rc)
            return rc;
    }
    return check(s, what, e);
}

/* ------------------------------------------------------------------------------- correcting */

static double ratio_of(const struct seen_class *c) { return c->measured_s / c->predicted_s; }

/* Of steps of so many rows: between two classes by straight lines over the logarithm. */
static double ratio_at(const struct seen_steps *s, double rows)
{
    int i = 0;
    while (i < s->n && s->of[i].rows <= rows)
        i++;
    if (i == 0 || i == s->n)
        return ratio_of(&s->of[i ? s->n - 1 : 0]);
    const struct seen_class *a = &s->of[i - 1], *b = &s->of[i];
    double t = log(rows / a->rows) / log(b->rows / a->rows);
    return ratio_of(a) + t * (ratio_of(b) - ratio_of(a));
}

static void scale(struct figure *f, double by)
{
    f->value *= by;
    f->source = f->source == SOURCE_NONE ? SOURCE_NONE : SOURCE_MEASURED;
}

static void correct(struct rates *r, const struct seen_steps *s, double all)
{
    struct curve *c = &r->product[s->weight], *experts = &r->experts[s->weight];
    for (int i = 0; i < c->n; i++)
        c->y[i] *= ratio_at(s, c->x[i]);
    c->source = SOURCE_MEASURED;
    for (int i = 0; i < experts->n; i++) /* rows of a step are not those of an expert */
        experts->y[i] *= all;
    for (int kv = 0; kv < NUM_COUNT; kv++) {
        scale(&r->attend_byte_s[kv], all);
        for (int i = 0; i < r->attend_madd_s[kv].n; i++)
            r->attend_madd_s[kv].y[i] *= all;
    }
    struct figure *other[] = {&r->attend_row_s, &r->byte_s,    &r->op_s,   &r->draw_op_s,
                              &r->draw_s,       &r->rank_op_s, &r->rank_s, &r->split_s};
    for (size_t i = 0; i < COUNT(other); i++)
        scale(other[i], all);
}

int recalibrate(struct hardware *h, const struct seen_steps *s, double *ratio, struct err *e)
{
    double measured = 0, predicted = 0;
    for (int i = 0; i < h->n_rates; i++)
        if (!h->rates[i].product[s->weight].n)
            return err_set(e, -EINVAL, "%s has no figures for %s weights", h->name,
                           num_name(s->weight));
    for (int i = 0; i < s->n; i++) {
        measured += s->of[i].measured_s;
        predicted += s->of[i].predicted_s;
    }
    *ratio = measured / predicted;
    for (int i = 0; i < h->n_rates; i++)
        correct(&h->rates[i], s, *ratio);
    scale(&h->step_s, *ratio);
    scale(&h->seq_s, *ratio);
    time_t now = time(NULL);
    struct tm utc;
    strftime(h->date, sizeof(h->date), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    size_t told = strlen(h->about);
    snprintf(h->about + told, sizeof(h->about) - told, "%scorrected by %.0f steps of a server",
             told ? "; " : "", s->steps);
    return hardware_check(h, e);
}
