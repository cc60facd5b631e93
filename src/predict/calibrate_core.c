/* calibrate_core.c - see calibrate_core.h. */
#include "predict/calibrate_core.h"
#include "predict/fit.h"
#include "run/room.h"

enum { ROUNDS = 5, ROUNDS_LEAST = 3 };

struct mat core_rows(const struct mat *m, int n) { return mat_rows(m, (struct span){0, n}); }

void core_time(struct core_bench *b, member_call *call, void *const *arg, int n, struct figure *to)
{
    const double least_s = 0.004, most_s = 3;
    double s[16][ROUNDS], spent = 0;
    int calls[16], rounds = 0;
    must(n <= 16);
    for (int i = 0; i < n; i++) {
        double first = member_time(b->m, call, arg[i], 1);
        double warm = first < least_s ? member_time(b->m, call, arg[i], 3) : first;
        calls[i] = warm * 1000 > least_s ? (int)(least_s / warm) + 1 : 1000;
    }
    for (; rounds < ROUNDS && (rounds < ROUNDS_LEAST || spent < most_s); rounds++)
        for (int i = 0; i < n; i++) {
            s[i][rounds] = member_time(b->m, call, arg[i], calls[i]);
            spent += calls[i] * s[i][rounds];
        }
    for (int i = 0; i < n; i++)
        to[i] = fit_median(s[i], rounds);
}

int core_open(struct core_bench *b, enum isa isa, int threads, const int *core, struct err *e)
{
    struct arena a = {0};
    int rc = map_memory(REGION, false, &b->region, e);
    if (!rc)
        rc = touch_memory(b->region, REGION, e);
    if (rc)
        return rc;
    dev_cpu_init(&b->dev, isa, ROWS_MOST, FF, threads, &a);
    char *scratch = aligned_alloc(ARENA_ALIGN, round_up(a.used, ARENA_ALIGN));
    must(scratch);
    a = (struct arena){.base = scratch, .size = a.used};
    dev_cpu_init(&b->dev, isa, ROWS_MOST, FF, threads, &a);
    dev_cpu_start(&b->dev, core);
    b->x = mat_sample(&b->pool, ROWS_MOST, HIDDEN), b->h = mat_sample(&b->pool, ROWS_MOST, HIDDEN);
    b->q = mat_sample(&b->pool, ROWS_MOST, HIDDEN), b->o = mat_sample(&b->pool, ROWS_MOST, HIDDEN);
    b->k = mat_sample(&b->pool, ROWS_MOST, HEADS_KV * DIM),
    b->v = mat_sample(&b->pool, ROWS_MOST, HEADS_KV * DIM);
    b->gate = mat_sample(&b->pool, ROWS_MOST, FF), b->up = mat_sample(&b->pool, ROWS_MOST, FF);
    b->y = mat_sample(&b->pool, ROWS_MOST, HIDDEN);
    b->norm = mat_sample(&b->pool, 1, HIDDEN);
    b->angle = mat_sample(&b->pool, ROWS_MOST, DIM);
    for (int i = 0; i < b->angle.n * b->angle.dim; i++) /* cosines 1, sines 0 */
        ((float *)b->angle.at)[i] = i % DIM < DIM / 2;
    return 0;
}
