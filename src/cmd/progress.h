/* progress.h - a line on the terminal for what takes longer than a second. */
#ifndef TANDEM_PROGRESS_H
#define TANDEM_PROGRESS_H

#include "base/base.h"

struct progress {
    bool wanted;
    double begun, shown; /* seconds; shown: last, 0: never */
};

/* quiet, or no terminal: nothing is ever shown. */
struct progress progress_begin(bool quiet);
/* For team_opts.progress; arg is the struct progress. */
void progress_show(void *arg, size_t done, size_t all);
/* The same of anything that is counted, such as "measuring". */
void progress_percent(struct progress *p, const char *what, size_t done, size_t all);
/* Wipe the line. Seconds since it began. */
double progress_end(struct progress *p);

#endif
