/* explain_picture.c - the front of throughput against speed as an SVG of its own. See explain.h. */
#include "predict/explain.h"

#include <math.h>

enum { WIDE = 860, HIGH = 480, LEFT = 70, RIGHT = 230, TOP = 50, FOOT = 70, TICKS = 6 };

/* One axis: numbers from 0 on, `step` apart, and where they stand. */
struct axis {
    double step, most;
    int from, to; /* pixels of 0 and of most */
};

/* Steps of 1, 2 or 5 times a power of ten. */
static struct axis axis_for(double most, int from, int to)
{
    double rough = most / TICKS, power = pow(10, floor(log10(rough)));
    double step = rough <= power       ? power
                  : rough <= 2 * power ? 2 * power
                  : rough <= 5 * power ? 5 * power
                                       : 10 * power;
    return (struct axis){step, step * ceil(most / step), from, to};
}

static double axis_at(const struct axis *a, double value)
{
    return a->from + (a->to - a->from) * value / a->most;
}

/* Text of others inside XML. */
static void escaped(FILE *to, const char *s)
{
    for (; *s; s++)
        switch (*s) {
        case '<': fputs("&lt;", to); break;
        case '>': fputs("&gt;", to); break;
        case '&': fputs("&amp;", to); break;
        case '"': fputs("&quot;", to); break;
        default: fputc((unsigned char)*s < ' ' ? '?' : *s, to);
        }
}

static void head(FILE *to, const struct answer *a)
{
    const struct question *q = a->question;
    fprintf(to,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
            "font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"%d\" height=\"%d\" "
            "fill=\"white\"/>\n<text x=\"%d\" y=\"22\" font-size=\"15\">",
            WIDE, HIGH, WIDE, HIGH, LEFT);
    escaped(to, a->model);
    fputs(" on ", to);
    escaped(to, q->hardware->name);
    fprintf(
        to,
        "</text>\n<text x=\"%d\" y=\"38\" fill=\"gray\">no layout is better in both; prompts of "
        "%.0f tokens, answers of %.0f on the mean; predicted, +-%.0f %%</text>\n",
        LEFT, q->demand.prompt.mean, q->demand.output.mean, 100 * a->facts->tpot_error);
}

static void axes(FILE *to, const struct axis *x, const struct axis *y)
{
    for (double v = 0; v <= y->most * 1.001; v += y->step)
        fprintf(to,
                "<path d=\"M%d %.1fH%d\" stroke=\"%s\"/><text x=\"%d\" y=\"%.1f\" "
                "text-anchor=\"end\">%g</text>\n",
                x->from, axis_at(y, v), x->to, v > 0 ? "#ddd" : "black", x->from - 6,
                axis_at(y, v) + 4, v);
    for (double v = 0; v <= x->most * 1.001; v += x->step)
        fprintf(to,
                "<path d=\"M%.1f %dV%d\" stroke=\"%s\"/><text x=\"%.1f\" y=\"%d\" "
                "text-anchor=\"middle\">%g</text>\n",
                axis_at(x, v), y->from, y->to, v > 0 ? "#ddd" : "black", axis_at(x, v),
                y->from + 16, v);
    fprintf(to,
            "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">tokens a second that one client "
            "gets</text>\n<text x=\"16\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 16 "
            "%d)\">tokens a second of a device</text>\n",
            (x->from + x->to) / 2, y->from + 36, (y->from + y->to) / 2, (y->from + y->to) / 2);
}

/* A point, its words in a tip, and beside it unless those of the last stand in the way. */
static void draw_point(FILE *to, const struct answer *a, const struct point *p, double x, double y,
                       double *last_y)
{
    bool chosen = p->choice->shape == a->search->best->shape;
    char name[96], words[160];
    choice_name(name, a->question,
                &(struct choice){
                    .shape = p->choice->shape, .dp = max_int(1, p->choice->shape->dp), .hosts = 1});
    int n = snprintf(words, sizeof(words), "%s%s, %d at once", name, chosen ? " (chosen)" : "",
                     p->batch);
    if (p->dollars > 0)
        snprintf(words + n, sizeof(words) - (size_t)n, ", $%.2f a million", p->dollars);
    fprintf(to,
            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" fill=\"%s\"><title>%s: %.1f and "
            "%.1f</title></circle>\n",
            x, y, chosen ? 6 : 4, chosen ? "crimson" : "steelblue", words, 1 / p->tpot_s, p->tok_s);
    if (*last_y - y < 12 && !chosen)
        return;
    *last_y = y;
    fprintf(to, "<text x=\"%.1f\" y=\"%.1f\"%s>%s</text>\n", x + 9, y + 4,
            chosen ? " font-weight=\"bold\"" : "", words);
}

void explain_svg(FILE *to, const struct answer *a)
{
    const struct facts *f = a->facts;
    double x_most = 0, y_most = 0, last_y = 2 * HIGH;
    for (int i = 0; i < f->n_front; i++) {
        x_most = fmax(x_most, 1 / f->front[i].tpot_s);
        y_most = fmax(y_most, f->front[i].tok_s);
    }
    const struct axis x = axis_for(x_most, LEFT, WIDE - RIGHT),
                      y = axis_for(y_most, HIGH - FOOT, TOP);
    head(to, a);
    axes(to, &x, &y);
    fprintf(to, "<polyline fill=\"none\" stroke=\"steelblue\" points=\"");
    for (int i = 0; i < f->n_front; i++)
        fprintf(to, "%.1f,%.1f ", axis_at(&x, 1 / f->front[i].tpot_s),
                axis_at(&y, f->front[i].tok_s));
    fprintf(to, "\"/>\n");
    for (int i = 0; i < f->n_front; i++)
        draw_point(to, a, &f->front[i], axis_at(&x, 1 / f->front[i].tpot_s),
                   axis_at(&y, f->front[i].tok_s), &last_y);
    fprintf(to, "</svg>\n");
}
