/* pace.c - see pace.h. */
#include "sched/pace.h"

#include "base/base.h"

#include <math.h>

static const double FADE = 0.98;

void pace_learn(struct pace *p, int rows, double seconds)
{
    p->w = FADE * p->w + 1;
    p->x = FADE * p->x + rows;
    p->y = FADE * p->y + seconds;
    p->xx = FADE * p->xx + (double)rows * rows;
    p->xy = FADE * p->xy + rows * seconds;
}

/* Steps of one size tell no slope: then half of the time is taken for fixed, which errs on the side
 * of small steps. Neither part is negative. */
static void line(const struct pace *p, double *fixed, double *per_row)
{
    double spread = p->w * p->xx - p->x * p->x;
    *fixed = *per_row = 0;
    if (p->w <= 0)
        return;
    *per_row =
        spread > 0.01 * p->x * p->x ? (p->w * p->xy - p->x * p->y) / spread : p->y / p->x / 2;
    if (*per_row < 0)
        *per_row = 0;
    *fixed = (p->y - *per_row * p->x) / p->w;
    if (*fixed < 0) {
        *fixed = 0;
        *per_row = p->xy / p->xx;
    }
}

double pace_step(const struct pace *p, int rows)
{
    double fixed, per_row;
    line(p, &fixed, &per_row);
    return fixed + per_row * rows;
}

int pace_prompt_rows(const struct pace *p, int decode_rows, int waiting, double target_s, int most)
{
    double fixed, per_row;
    line(p, &fixed, &per_row);
    double plain = fixed + per_row * decode_rows;
    double crowd = waiting > decode_rows ? 1 - (double)decode_rows / waiting : 0;
    double longest = fmax(PACE_LONGER * plain, PACE_FLUENT_S) + crowd * plain;
    if (target_s > 0)
        longest = target_s;
    double room = longest - plain;
    double rows = per_row > 0 ? room / per_row : most / 4.0;
    return rows < 16 ? min_int(16, most) : rows < most ? (int)rows : most;
}
