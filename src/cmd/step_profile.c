/* step_profile.c - see step_profile.h. */
#include "cmd/step_profile.h"
#include "cmd/cmd.h"

struct step_profile step_profile_begin(struct team *t, const struct plan *p)
{
    struct step_profile now = {0};
    struct rank_time rank[PLAN_RANKS];
    must(plan_ranks(p) <= PLAN_RANKS);
    team_times(t, rank, false);
    team_profile(t, 0, now.op);
    now.others = rank[0].wait + rank[0].move;
    return now;
}

void step_profile_add(struct step_profile *to, struct team *t, const struct plan *p,
                      const struct step_profile *begin, int n, double all)
{
    struct step_profile now = step_profile_begin(t, p);
    to->n += n;
    to->all += all;
    to->others += now.others - begin->others;
    for (int i = 0; i < OP_COUNT; i++) {
        to->op[i].all += now.op[i].all - begin->op[i].all;
        to->op[i].waiting += now.op[i].waiting - begin->op[i].waiting;
        to->op[i].calls += now.op[i].calls - begin->op[i].calls;
    }
}

/* One row of the table; calls, ms and so on are those of one step. */
struct row {
    const char *name;
    double calls, ms, share, waiting_ms;
};

static int by_time(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    return (x->ms < y->ms) - (x->ms > y->ms);
}

enum { ROWS = OP_COUNT + 2 };

/* Operations by time, then the other ranks, then what is left of the step. */
static int rows_of(const struct step_profile *s, struct row row[ROWS])
{
    double rest = s->all - s->others;
    int n = 0;
    for (int i = 0; i < OP_COUNT; i++) {
        const struct op_seconds *op = &s->op[i];
        rest -= op->all;
        if (op->calls)
            row[n++] =
                (struct row){op_name((enum op)i), (double)op->calls / s->n, 1e3 * op->all / s->n,
                             op->all / s->all, 1e3 * op->waiting / s->n};
    }
    qsort(row, (size_t)n, sizeof(*row), by_time);
    if (s->others > 0)
        row[n++] = (struct row){"other ranks", 0, 1e3 * s->others / s->n, s->others / s->all, 0};
    row[n++] = (struct row){"rest", 0, 1e3 * rest / s->n, rest / s->all, 0};
    return n;
}

void step_profile_print(const struct step_profile *s, const char *name)
{
    struct row row[ROWS];
    int n = rows_of(s, row);
    printf("\n%s: %.2f ms, measured on rank 0, mean of %d\n%-12s %7s %10s %8s %21s\n", name,
           1e3 * s->all / s->n, s->n, "operation", "calls", "ms", "share", "waiting for threads");
    for (int i = 0; i < n; i++) {
        const struct row *r = &row[i];
        printf("%-12s ", r->name);
        r->calls > 0 ? printf("%7.0f", r->calls) : printf("%7s", "");
        printf(" %10.3f %6.1f %%", r->ms, 100 * r->share);
        r->calls > 0 ? printf(" %18.3f ms\n", r->waiting_ms) : putchar('\n');
    }
}

json_t *step_profile_json(const struct step_profile *s)
{
    struct row row[ROWS];
    int n = rows_of(s, row);
    json_t *all = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(all, json_pack("{s:s, s:f, s:f, s:f, s:f}", "operation", row[i].name,
                                             "calls", row[i].calls, "ms", row[i].ms, "share",
                                             row[i].share, "waiting_ms", row[i].waiting_ms));
    return all;
}
