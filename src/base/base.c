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
    size_t n = strlen(e->text), room = sizeof(e->text) - 1;
    for (const char *s = ": "; *s && n < room; s++)
        e->text[n++] = *s;
    for (const char *s = old.text; *s && n < room; s++)
        e->text[n++] = *s;
    e->text[n] = 0;
    return code;
}
