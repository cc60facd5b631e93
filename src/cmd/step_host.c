/* step_host.c - see step_host.h. */
#include "cmd/step_host.h"
#include "cmd/measure.h"
#include "cmd/open.h"
#include "engine/team.h"
#include "predict/count.h"
#include "predict/fit.h"

#include <math.h>

enum { FEW = 1, MANY = 32, POSITION = 15, STEPS = 40, REPEATS = 25 };

/* Seconds of a step that its rank did not work. */
static int measure(struct team *t, const struct batch *b, double *s, struct err *e)
{
    struct draw draw[MANY];
    struct rank_time rank[PLAN_RANKS];
    for (int i = 0; i < b->n_out; i++)
        draw[i] = (struct draw){.sampling = sampling_greedy};
    team_times(t, rank, true);
    double begin = seconds();
    for (int i = 0; i < STEPS; i++) {
        struct team_result result;
        int64_t step = team_submit(t, b, draw, e);
        int rc = step < 0 ? (int)step : team_wait(t, step, &result, e);
        if (rc)
            return rc;
    }
    double all = seconds() - begin;
    team_times(t, rank, true);
    *s = fmax(1e-9, (all - rank[0].compute - rank[0].wait - rank[0].move) / STEPS);
    return 0;
}

static int measure_both(struct team *t, struct hardware *h, struct err *e)
{
    struct pool pool = {0};
    struct batch few = step_batch((struct step_shape){FEW, 1, POSITION}, &pool);
    struct batch many = step_batch((struct step_shape){MANY, 1, POSITION}, &pool);
    double a[REPEATS], z[REPEATS], ignored;
    int rc = measure(t, &few, &ignored, e);
    for (int i = 0; i < REPEATS && !rc; i++) {
        rc = measure(t, &few, &a[i], e);
        if (!rc)
            rc = measure(t, &many, &z[i], e);
    }
    pool_free(&pool);
    if (rc)
        return rc;
    struct figure one = fit_median(a, REPEATS), all = fit_median(z, REPEATS);
    double each = fmax(0, (all.value - one.value) / (MANY - FEW));
    h->seq_s = (struct figure){each, all.error, SOURCE_MEASURED};
    h->step_s = (struct figure){fmax(0, one.value - FEW * each), one.error, SOURCE_MEASURED};
    return 0;
}

int step_host_measure(struct hardware *h, struct err *e)
{
    char *argv[] = {"tandem", "run",      "--tp", "1", "--threads-per-rank",
                    "1",      "--device", "cpu",  NULL};
    struct options o;
    struct opened at;
    struct team *t = NULL;
    must(!opt_parse(&o, (int)COUNT(argv) - 1, argv, e));
    int rc = open_model(&at, &o, NULL, e);
    if (rc)
        return rc;
    plan_widen(&at.plan, MANY, POSITION + 1);
    struct team_opts opts = {.isa = at.isa, .packed = at.packed, .host = &at.host};
    rc = team_start(&t, &at.plan, at.store, &opts, e);
    if (!rc) {
        rc = measure_both(t, h, e);
        team_stop(t);
    }
    open_close(&at);
    return rc;
}
