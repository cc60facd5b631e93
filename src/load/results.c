/* results.c - see results.h. */
#include "load/results.h"

void results_add(struct results *r, const struct outcome *o, const struct series *gaps,
                 const char *why)
{
    if (r->n == r->room) {
        r->room = r->room ? r->room * 2 : 256;
        r->at = realloc(r->at, r->room * sizeof(*r->at));
        must(r->at);
    }
    r->at[r->n++] = *o;
    r->seconds = o->end > r->seconds ? o->end : r->seconds;
    if (o->fate == FATE_FINISHED)
        series_append(&r->gaps, gaps);
    else if (!r->why[o->fate][0])
        snprintf(r->why[o->fate], sizeof(r->why[o->fate]), "%s", why);
}

void results_free(struct results *r)
{
    free(r->at);
    series_free(&r->gaps);
    *r = (struct results){0};
}
