/* base.c - see base.h. */
#include "base/base.h"

void must_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "tandem: internal error at %s:%d: must(%s)\n", file, line, cond);
    abort();
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    return code;
}

int err_add(struct err *e, int code, const char *fmt, ...)
{
    struct err old = *e;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    const char *rest[] = {": ", old.text};
    for (size_t i = 0; i < COUNT(rest); i++)
        strncat(e->text, rest[i], sizeof(e->text) - strlen(e->text) - 1);
    return code;
}
