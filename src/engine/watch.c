/* watch.c - see watch.h. */
#include "engine/watch.h"

enum {
    FLOOR_S = 2,    /* a process that is ready to run gets a core before, on most hosts */
    TIMES = 6,      /* what is usual */
    UNKNOWN = 15,   /* floors for a shape that was not met: weights may still be on a disk */
    CALM = 256,     /* steps until half the patience will do */
    IN_VAIN = 3,    /* suspicions with no step between them, ... */
    IN_VAIN_S = 14, /* ... and what they waited in all, at least */
    MOST_PATIENCE = 1 << 30
};

void still_begin(struct stillness *s, uint64_t moves, double now_s)
{
    *s = (struct stillness){.moves = moves, .looked_s = now_s};
}

double still_look(struct stillness *s, uint64_t moves, double now_s)
{
    const double most_s = 2e-6 * LOOK_US, gap_s = now_s - s->looked_s;
    const double still_s = s->still_s + (gap_s < most_s ? gap_s : most_s);
    s->longest_s = still_s > s->longest_s ? still_s : s->longest_s;
    s->still_s = moves == s->moves ? still_s : 0;
    s->looked_s = now_s;
    s->moves = moves;
    return s->still_s;
}

void watch_open(struct watch *w, double floor_s)
{
    *w = (struct watch){.floor_s = floor_s > 0 ? floor_s : FLOOR_S, .patience = 1};
}

static int power_of_two(int n, int below)
{
    int log = n > 0 ? 31 - __builtin_clz((unsigned)n) : 0;
    return log < below ? log : below - 1;
}

void watch_begin(struct watch *w, int n_tok, int last_pos, uint64_t moves, double now_s)
{
    w->shape =
        &w->usual_s[power_of_two(n_tok, WATCH_TOKENS)][power_of_two(last_pos, WATCH_CONTEXTS)];
    still_begin(&w->still, moves, now_s);
}

double watch_first(const struct watch *w) { return UNKNOWN * w->floor_s; }

double watch_allowed(const struct watch *w)
{
    const double usual_s = TIMES * (double)*w->shape;
    const double allowed_s = *w->shape <= 0         ? watch_first(w)
                             : usual_s > w->floor_s ? usual_s
                                                    : w->floor_s;
    return w->patience * allowed_s;
}

uint64_t watch_sleep_us(const struct watch *w)
{
    const double us = watch_allowed(w) * 1e6 / 4;
    return us > LOOK_US ? LOOK_US : us < 100 ? 100 : (uint64_t)us;
}

bool watch_look(struct watch *w, uint64_t moves, double now_s)
{
    return still_look(&w->still, moves, now_s) > watch_allowed(w);
}

void watch_suspect(struct watch *w, bool certain)
{
    if (!certain && w->patience < MOST_PATIENCE)
        w->patience *= 2;
    w->calm = 0;
    w->in_vain_s += w->still.still_s;
    w->suspicions++;
}

void watch_end(struct watch *w, uint64_t moves, double now_s)
{
    const float least_s = 1e-6f; /* 0 is a shape that was not met */
    still_look(&w->still, moves, now_s);
    const float longest_s = (float)w->still.longest_s;
    *w->shape += *w->shape > 0 ? (longest_s - *w->shape) / 8 : longest_s;
    if (*w->shape < least_s)
        *w->shape = least_s;
    w->suspicions = 0;
    w->in_vain_s = 0;
    if (w->patience > 1 && ++w->calm >= CALM)
        w->patience /= 2, w->calm = 0;
}

bool watch_in_vain(const struct watch *w)
{
    return w->suspicions >= IN_VAIN && w->in_vain_s >= IN_VAIN_S;
}
