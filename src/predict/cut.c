/* cut.c - see cut.h. */
#include "predict/cut.h"
#include "model/model.h"
#include "plan/plan.h"

#include <math.h>

/* best[l]: the least possible largest cost of layers 0 .. l in so many stages; from[][l]: where the
 * last of these begins. */
struct table {
    double best[2][MODEL_LAYERS + 1];
    int16_t from[PLAN_STAGES + 1][MODEL_LAYERS + 1];
};

bool cut_layers(const double *cost, const double *room, int n, int p, double most,
                struct span *stage)
{
    struct table t;
    must(0 < p && p <= n && n <= MODEL_LAYERS && p <= PLAN_STAGES);
    for (int l = 0; l <= n; l++)
        t.best[0][l] = l ? INFINITY : 0;
    for (int j = 1; j <= p; j++) {
        const double *before = t.best[(j - 1) % 2];
        double *now = t.best[j % 2];
        for (int l = 0; l <= n; l++) {
            double c = 0, r = 0;
            now[l] = INFINITY;
            t.from[j][l] = 0;
            for (int k = l - 1; k >= j - 1; k--) { /* the last stage holds k .. l */
                c += cost[k], r += room[k];
                if (r > most || c >= now[l])
                    break;
                double worse = fmax(c, before[k]);
                if (worse < now[l])
                    now[l] = worse, t.from[j][l] = (int16_t)k;
            }
        }
    }
    if (isinf(t.best[p % 2][n]))
        return false;
    for (int j = p, l = n; j > 0; l = t.from[j--][l])
        stage[j - 1] = (struct span){t.from[j][l], l};
    return true;
}
