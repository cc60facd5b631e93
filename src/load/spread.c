/* spread.c - see spread.h. */
#include "load/spread.h"

#include <math.h>

/* A number in [lo, hi] up to the character `end`; where it ends, or NULL. */
static const char *number(const char *s, char end, double lo, double hi, double *to)
{
    size_t n = strspn(s, "0123456789.");
    char *stop;
    *to = strtod(s, &stop);
    return n && stop == s + n && *stop == end && *to >= lo && *to <= hi ? stop : NULL;
}

static bool whole(double x) { return x == floor(x); }

static bool read_uniform(const char *text, struct spread *to)
{
    const char *dash = number(text, '-', 1, SPREAD_MOST, &to->a);
    if (!dash) {
        bool one = number(text, 0, 1, SPREAD_MOST, &to->a) != NULL;
        to->b = to->a;
        return one && whole(to->a);
    }
    return number(dash + 1, 0, to->a, SPREAD_MOST, &to->b) && whole(to->a) && whole(to->b);
}

static bool read_lognormal(const char *text, struct spread *to)
{
    const char *colon = number(text, ':', 1, SPREAD_MOST, &to->a);
    return colon && number(colon + 1, 0, 0, 5, &to->b);
}

int spread_parse(const char *text, const char *what, struct spread *to, struct err *e)
{
    static const char name[] = "lognormal:";
    bool lognormal = !strncmp(text, name, strlen(name));
    to->kind = lognormal ? SPREAD_LOGNORMAL : SPREAD_UNIFORM;
    if (lognormal ? read_lognormal(text + strlen(name), to) : read_uniform(text, to))
        return 0;
    return err_set(e, -EINVAL,
                   "%s takes tokens as N, LEAST-MOST or lognormal:MEAN:SIGMA (sigma 0 to 5), not "
                   "\"%.60s\"",
                   what, text);
}

int spread_draw(const struct spread *s, struct draws *d)
{
    if (s->kind == SPREAD_UNIFORM)
        return (int)(s->a + floor(draw_unit(d) * (s->b - s->a + 1)));
    double mu = log(s->a) - s->b * s->b / 2; /* so that the mean of the lengths is a */
    double x = round(exp(mu + s->b * draw_normal(d)));
    return (int)fmin(fmax(x, 1), SPREAD_MOST);
}
