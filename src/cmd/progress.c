/* progress.c - see progress.h. */
#include "cmd/progress.h"

#include <time.h>
#include <unistd.h>

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct progress progress_begin(bool quiet)
{
    return (struct progress){.wanted = isatty(STDERR_FILENO) && !quiet, .begun = seconds()};
}

/* Not at once, and not too often. */
static bool due(struct progress *p)
{
    double now = seconds();
    if (!p->wanted || now - p->begun < 1 || now - p->shown < 0.1)
        return false;
    p->shown = now;
    return true;
}

void progress_percent(struct progress *p, const char *what, size_t done, size_t all)
{
    if (due(p))
        fprintf(stderr, "\r%s %3.0f %% ", what, 100.0 * (double)done / (double)all);
}

void progress_show(void *arg, size_t done, size_t all)
{
    if (due(arg))
        fprintf(stderr, "\rloading %3.0f %% of %.1f MiB ", 100.0 * (double)done / (double)all,
                (double)all / (1 << 20));
}

double progress_end(struct progress *p)
{
    if (p->shown > 0)
        fprintf(stderr, "\r%40s\r", "");
    return seconds() - p->begun;
}
