/* trace_read.h - inside trace: the two readers of lines, and what they share. */
#ifndef TANDEM_LOAD_TRACE_READ_H
#define TANDEM_LOAD_TRACE_READ_H

#include "load/trace.h"

/* Part of the file's bytes; not 0-terminated. */
struct slice {
    const char *at;
    size_t n;
};

/* The part before the first `end`, which is taken away from rest together with it. */
static inline struct slice slice_until(struct slice *rest, char end)
{
    const char *stop = rest->n ? memchr(rest->at, end, rest->n) : NULL;
    struct slice part = {rest->at, stop ? (size_t)(stop - rest->at) : rest->n};
    size_t gone = part.n + (stop != NULL);
    rest->at += gone;
    rest->n -= gone;
    return part;
}

/* Where errors are. */
struct trace_place {
    const char *what;
    size_t line;
};

/* Columns of a table; -1: it has none such. */
struct trace_columns {
    int time, prompt, output;
};

/* The names of a table's first line. No lengths among them is -EINVAL. */
int trace_csv_names(struct slice line, struct trace_place p, struct trace_columns *to,
                    struct err *e);

/* One line of it. Times are seconds since some day long ago. */
int trace_csv_row(struct slice line, struct trace_place p, const struct trace_columns *c,
                  struct trace_row *to, struct err *e);

/* Seconds of a number or of a date ("2023-11-16 18:15:46.68", perhaps with T, and Z or +02:00);
 * false when it is neither. */
bool trace_time(struct slice s, double *to);

#endif
