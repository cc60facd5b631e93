/* rope.c - see rope.h. Computed in double precision, rounded once. */
#include "model/rope.h"

#include <math.h>

static double plain(const struct rope *r, int dim, int i)
{
    return pow((double)r->theta, -2.0 * i / dim);
}

/* Wavelengths longer than original_ctx / low_freq are stretched by factor, those shorter than
 * original_ctx / high_freq stay, those between pass smoothly. */
static double llama3(const struct rope *r, double freq)
{
    double wave = 2 * M_PI / freq, ctx = r->original_ctx;
    if (wave > ctx / (double)r->low_freq)
        return freq / (double)r->factor;
    if (wave < ctx / (double)r->high_freq)
        return freq;
    double smooth =
        (ctx / wave - (double)r->low_freq) / ((double)r->high_freq - (double)r->low_freq);
    return (1 - smooth) * freq / (double)r->factor + smooth * freq;
}

/* The dimension whose wave turns `turns` times within original_ctx. */
static double yarn_dim(const struct rope *r, int dim, double turns)
{
    return dim * log(r->original_ctx / (turns * 2 * M_PI)) / (2 * log((double)r->theta));
}

static double yarn(const struct rope *r, int dim, int i, double freq)
{
    double lo = yarn_dim(r, dim, (double)r->beta_fast), hi = yarn_dim(r, dim, (double)r->beta_slow);
    if (r->truncate)
        lo = floor(lo), hi = ceil(hi);
    lo = fmax(lo, 0), hi = fmin(hi, dim - 1);
    if (lo == hi)
        hi += 0.001;
    double ramp = fmin(fmax((i - lo) / (hi - lo), 0), 1);
    return freq / (double)r->factor * ramp + freq * (1 - ramp);
}

/* NTK-aware base for a sequence that ends at pos. */
static double dynamic(const struct rope *r, int dim, int i, int pos)
{
    double f = (double)r->factor, length = fmax(pos + 1, r->original_ctx);
    double base =
        (double)r->theta * pow(f * length / r->original_ctx - (f - 1), dim / (double)(dim - 2));
    return pow(base, -2.0 * i / dim);
}

static double frequency(const struct rope *r, int dim, int i, int pos)
{
    switch (r->scaling) {
    case ROPE_PLAIN: return plain(r, dim, i);
    case ROPE_LINEAR: return plain(r, dim, i) / (double)r->factor;
    case ROPE_LLAMA3: return llama3(r, plain(r, dim, i));
    case ROPE_YARN: return yarn(r, dim, i, plain(r, dim, i));
    case ROPE_DYNAMIC: return dynamic(r, dim, i, pos);
    }
    must(!"unknown scaling");
    return 0;
}

void rope_angles(struct mat *angle, const struct rope *r, const int *pos)
{
    int dim = angle->dim, half = dim / 2;
    double gain = r->scaling == ROPE_YARN ? (double)r->attention : 1;
    if (!angle->at)
        return;
    for (int i = 0; i < half; i++) {
        double freq = frequency(r, dim, i, 0);
        for (int t = 0; t < angle->n; t++) {
            bool beyond = r->scaling == ROPE_DYNAMIC && pos[t] >= r->original_ctx;
            double turn = pos[t] * (beyond ? frequency(r, dim, i, pos[t]) : freq);
            mat_row(angle, t)[i] = (float)(gain * cos(turn));
            mat_row(angle, t)[half + i] = (float)(gain * sin(turn));
        }
    }
}
