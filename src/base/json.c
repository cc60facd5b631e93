/* json.c - see json.h. */
#include "base/json.h"

#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

json_t *json_parse(const char *text, size_t n, const char *what, struct err *e)
{
    json_error_t at;
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &at);
    if (!o)
        err_set(e, -EINVAL, "%s: line %d, column %d: %s", what, at.line, at.column, at.text);
    return o;
}

int file_read(const char *path, size_t limit, char **text, size_t *n, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, -EINVAL, "%s: not a regular file", path);
    }
    if ((size_t)st.st_size > limit) {
        close(fd);
        return err_set(e, -EFBIG, "%s: %lld bytes, more than the %zu allowed for such a file", path,
                       (long long)st.st_size, limit);
    }
    *text = malloc((size_t)st.st_size + 1);
    *n = 0;
    while (*text && *n < (size_t)st.st_size) {
        ssize_t got = read(fd, *text + *n, (size_t)st.st_size - *n);
        if (got <= 0)
            break;
        *n += (size_t)got;
    }
    close(fd);
    if (!*text || *n < (size_t)st.st_size) {
        free(*text);
        *text = NULL;
        return err_set(e, -EIO, "%s: could not read all %lld bytes", path, (long long)st.st_size);
    }
    (*text)[*n] = 0;
    return 0;
}

json_t *json_file(const char *path, size_t limit, int *code, struct err *e)
{
    char *text;
    size_t n;
    int rc = file_read(path, limit, &text, &n, e);
    json_t *o = NULL;
    if (!rc) {
        o = json_parse(text, n, path, e);
        rc = o ? 0 : -EINVAL;
        free(text);
    }
    if (code)
        *code = rc;
    return o;
}

static const json_t *present(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_null(v) ? NULL : v;
}

int json_get_int(const json_t *o, const char *key, long long lo, long long hi, int *to,
                 struct err *e)
{
    const json_t *v = present(o, key);
    if (!v)
        return 0;
    if (!json_is_integer(v) &&
        !(json_is_real(v) && floor(json_real_value(v)) == json_real_value(v)))
        return err_set(e, -EINVAL, "%s: a whole number is needed", key);
    double n = json_number_value(v);
    if (n < (double)lo || n > (double)hi)
        return err_set(e, -EINVAL, "%s: %.0f is outside %lld to %lld", key, n, lo, hi);
    *to = (int)n;
    return 0;
}

int json_get_float(const json_t *o, const char *key, double lo, double hi, float *to, struct err *e)
{
    const json_t *v = present(o, key);
    if (!v)
        return 0;
    if (!json_is_number(v))
        return err_set(e, -EINVAL, "%s: a number is needed", key);
    double n = json_number_value(v);
    if (!(n >= lo && n <= hi))
        return err_set(e, -EINVAL, "%s: %g is outside %g to %g", key, n, lo, hi);
    *to = (float)n;
    return 0;
}

int json_get_bool(const json_t *o, const char *key, bool *to, struct err *e)
{
    const json_t *v = present(o, key);
    if (v && !json_is_boolean(v))
        return err_set(e, -EINVAL, "%s: true or false is needed", key);
    if (v)
        *to = json_is_true(v);
    return 0;
}

int json_get_text(const json_t *o, const char *key, const char **to, struct err *e)
{
    const json_t *v = present(o, key);
    if (v && !json_is_string(v))
        return err_set(e, -EINVAL, "%s: a string is needed", key);
    if (v)
        *to = json_string_value(v);
    return 0;
}
