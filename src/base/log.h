/* log.h - one line per event on standard error, for operators; results never go here.
 *
 *     2026-11-20T20:59:01.123Z warn team: rank 3 lost after 1.2 s
 *
 * The lowest level shown is in the environment: TANDEM_LOG=debug, info, warn (the default), error.
 */
#ifndef TANDEM_LOG_H
#define TANDEM_LOG_H

#include "base/base.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_COUNT };

/* Whether events of this level are shown. */
bool log_shown(enum log_level level);

/* Write the event with one write(2), so that lines of several processes do not mix. Line breaks
 * and control characters in it become blanks; what exceeds 1 KiB is cut. */
PRINTF(3, 4) void log_event(enum log_level level, const char *part, const char *fmt, ...);

/* The line without its time, into to[n], ended by a line feed; returns its length. For tests. */
PRINTF(5, 0)
size_t log_line(char *to, size_t n, enum log_level level, const char *part, const char *fmt,
                va_list ap);

#endif
