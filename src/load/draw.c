/* draw.c - see draw.h. */
#include "load/draw.h"

#include <math.h>

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t draw_bits(struct draws *d) { return mix(d->state += 0x9e3779b97f4a7c15u); }

struct draws draw_of(uint64_t seed, enum draw_use use, uint64_t i)
{
    struct draws d = {seed};
    d.state = draw_bits(&d) + (uint64_t)use;
    d.state = draw_bits(&d) + i;
    d.state = draw_bits(&d);
    return d;
}

double draw_unit(struct draws *d) { return ((double)(draw_bits(d) >> 12) + 0.5) * 0x1p-52; }

double draw_exponential(struct draws *d) { return -log(draw_unit(d)); }

double draw_normal(struct draws *d)
{
    double radius = sqrt(2 * draw_exponential(d));
    return radius * cos(2 * M_PI * draw_unit(d));
}

double draw_gamma(struct draws *d, double shape)
{
    if (shape < 1) {
        double larger = draw_gamma(d, shape + 1);
        return larger * pow(draw_unit(d), 1 / shape);
    }
    double a = shape - 1.0 / 3, c = 1 / sqrt(9 * a);
    for (;;) {
        double x = draw_normal(d), v = 1 + c * x;
        if (v <= 0)
            continue;
        v = v * v * v;
        if (log(draw_unit(d)) < 0.5 * x * x + a - a * v + a * log(v))
            return a * v;
    }
}
