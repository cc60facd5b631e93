/* log.c - see log.h. */
#include "base/log.h"

#include <time.h>
#include <unistd.h>

static const char *const level_name[LOG_COUNT] = {"debug", "info", "warn", "error"};

bool log_shown(enum log_level level)
{
    const char *lowest = getenv("TANDEM_LOG");
    for (int i = 0; lowest && i < LOG_COUNT; i++)
        if (!strcmp(lowest, level_name[i]))
            return level >= (enum log_level)i;
    return level >= LOG_WARN;
}

size_t log_line(char *to, size_t n, enum log_level level, const char *part, const char *fmt,
                va_list ap)
{
    must(n >= 64);
    int used = snprintf(to, n, "%s %.20s: ", level_name[level], part);
    int more = vsnprintf(to + used, n - (size_t)used, fmt, ap);
    size_t all = (size_t)used + (size_t)max_int(more, 0);
    if (all > n - 2)
        all = n - 2;
    for (size_t i = 0; i < all; i++)
        if ((unsigned char)to[i] < ' ' || to[i] == 127)
            to[i] = ' ';
    to[all] = '\n';
    to[all + 1] = 0;
    return all + 1;
}

void log_event(enum log_level level, const char *part, const char *fmt, ...)
{
    char line[1024];
    struct timespec now;
    struct tm utc;
    va_list ap;
    if (!log_shown(level))
        return;
    int saved = errno;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &utc);
    n += (size_t)snprintf(line + n, sizeof(line) - n, ".%03ldZ ", now.tv_nsec / 1000000);
    va_start(ap, fmt);
    n += log_line(line + n, sizeof(line) - n, level, part, fmt, ap);
    va_end(ap);
    if (write(STDERR_FILENO, line, n) < 0) {
        /* nobody is listening; there is nowhere to say so */
    }
    errno = saved;
}
