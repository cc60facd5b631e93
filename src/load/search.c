/* search.c - see search.h. */
#include "load/search.h"

#include <math.h>

struct search search_begin(double first, double least, double precision)
{
    return (struct search){.next = first, .least = least, .precision = precision};
}

void search_tell(struct search *s, bool held)
{
    *(held ? &s->holds : &s->fails) = s->next;
    s->steps++;
    if (!s->fails)
        s->next = s->holds * 2;
    else if (!s->holds)
        s->next = s->fails / 2;
    else
        s->next = sqrt(s->holds * s->fails);
}

bool search_done(const struct search *s)
{
    bool near = s->holds && s->fails && s->fails <= s->holds * (1 + s->precision);
    bool hopeless = s->steps && !s->holds && s->next < s->least;
    return near || hopeless || s->steps >= SEARCH_STEPS_MOST;
}
