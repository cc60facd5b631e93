/* trace_csv.c - traces as tables: names of columns, numbers, dates. See trace_read.h. */
#include "load/trace_read.h"

#include <math.h>
#include <strings.h>

static const char *const times[] = {"timestamp", "arrival_s", "arrival_time", "arrived_at", "time"};
static const char *const prompts[] = {"contexttokens", "request tokens", "input_tokens",
                                      "input_length",  "prompt_tokens",  "num_prefill_tokens"};
static const char *const outputs[] = {"generatedtokens", "response tokens",   "output_tokens",
                                      "output_length",   "completion_tokens", "num_decode_tokens"};

/* A field without blanks and quotes around it. */
static struct slice field(struct slice *line)
{
    struct slice f = slice_until(line, ',');
    while (f.n && strchr(" \t\r\"", *f.at))
        f.at++, f.n--;
    while (f.n && strchr(" \t\r\"", f.at[f.n - 1]))
        f.n--;
    return f;
}

static bool is_one_of(struct slice f, const char *const *name, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(name[i]) == f.n && !strncasecmp(name[i], f.at, f.n))
            return true;
    return false;
}

int trace_csv_names(struct slice line, struct trace_place p, struct trace_columns *to,
                    struct err *e)
{
    *to = (struct trace_columns){-1, -1, -1};
    for (int i = 0; line.n; i++) {
        struct slice f = field(&line);
        if (is_one_of(f, times, COUNT(times)))
            to->time = i;
        if (is_one_of(f, prompts, COUNT(prompts)))
            to->prompt = i;
        if (is_one_of(f, outputs, COUNT(outputs)))
            to->output = i;
    }
    if (to->prompt >= 0 && to->output >= 0)
        return 0;
    return err_set(e, -EINVAL,
                   "%.200s line %zu: no columns such as ContextTokens and GeneratedTokens, or "
                   "\"Request tokens\" and \"Response tokens\", are named",
                   p.what, p.line);
}

/* ------------------------------------------------------------------------------- values */

static bool number(struct slice s, double *to)
{
    char text[40], *end;
    if (!s.n || s.n >= sizeof(text))
        return false;
    memcpy(text, s.at, s.n);
    text[s.n] = 0;
    if (text[strspn(text, "+-.0123456789eE")])
        return false;
    *to = strtod(text, &end);
    return !*end && isfinite(*to) && fabs(*to) < 1e15;
}

/* Exactly n digits and then the character `after`, unless that is 0. */
static bool digits(struct slice *s, size_t n, char after, int *to)
{
    *to = 0;
    if (s->n < n + (after != 0))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (s->at[i] < '0' || s->at[i] > '9')
            return false;
        *to = *to * 10 + (s->at[i] - '0');
    }
    if (after && s->at[n] != after)
        return false;
    s->at += n + (after != 0);
    s->n -= n + (after != 0);
    return true;
}

/* Days since 1970-01-01 in the Gregorian calendar: years begin in March, so that leap days end
 * them. */
static double days(int year, int month, int day)
{
    int y = month <= 2 ? year - 1 : year, m = month <= 2 ? month + 9 : month - 3;
    int leap = y / 4 - y / 100 + y / 400;
    return 365.0 * y + leap + (153 * m + 2) / 5 + day - 1 - 719468;
}

/* What stands behind the seconds: a fraction, and how far the clock is ahead of UTC. */
static bool fraction_and_zone(struct slice s, double *to)
{
    int hour, minute;
    *to = 0;
    if (s.n && *s.at == '.') {
        struct slice f = s;
        for (s.at++, s.n--; s.n && *s.at >= '0' && *s.at <= '9'; s.at++)
            s.n--;
        f.n -= s.n;
        if (f.n < 2 || !number(f, to))
            return false;
    }
    if (!s.n || (s.n == 1 && *s.at == 'Z'))
        return true;
    int sign = *s.at == '+' ? 1 : *s.at == '-' ? -1 : 0;
    s.at++, s.n--;
    if (!sign || !digits(&s, 2, ':', &hour) || !digits(&s, 2, 0, &minute) || s.n)
        return false;
    *to -= sign * (hour * 3600.0 + minute * 60.0);
    return true;
}

static bool date(struct slice s, double *to)
{
    int year, month, day, hour, minute, second;
    double rest;
    if (!digits(&s, 4, '-', &year) || !digits(&s, 2, '-', &month) || !digits(&s, 2, 0, &day))
        return false;
    if (!s.n || (*s.at != ' ' && *s.at != 'T'))
        return false;
    s.at++, s.n--;
    if (!digits(&s, 2, ':', &hour) || !digits(&s, 2, ':', &minute) || !digits(&s, 2, 0, &second))
        return false;
    if (month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60)
        return false;
    if (!fraction_and_zone(s, &rest))
        return false;
    *to = days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second + rest;
    return true;
}

bool trace_time(struct slice s, double *to) { return number(s, to) || date(s, to); }

/* ------------------------------------------------------------------------------- a line */

static int bad_field(struct slice f, const char *wanted, struct trace_place p, struct err *e)
{
    char seen[41];
    size_t n = min_size(f.n, sizeof(seen) - 1);
    for (size_t i = 0; i < n; i++)
        seen[i] = f.at[i] < ' ' || f.at[i] > '~' ? '?' : f.at[i];
    seen[n] = 0;
    return err_set(e, -EINVAL, "%.200s line %zu: \"%s\" is no %s", p.what, p.line, seen, wanted);
}

static int tokens(struct slice f, struct trace_place p, int *to, struct err *e)
{
    double x;
    if (!number(f, &x) || x < 0 || x > TRACE_TOKENS_MOST || x != floor(x))
        return bad_field(f, "number of tokens", p, e);
    *to = (int)x;
    return 0;
}

int trace_csv_row(struct slice line, struct trace_place p, const struct trace_columns *c,
                  struct trace_row *to, struct err *e)
{
    int rc = 0, most = max_int(c->time, max_int(c->prompt, c->output)), i = 0;
    *to = (struct trace_row){0};
    for (; line.n && i <= most && !rc; i++) {
        struct slice f = field(&line);
        if (i == c->time && !trace_time(f, &to->at))
            rc = bad_field(f, "time: seconds or a date such as 2023-11-16 18:15:46.5", p, e);
        if (i == c->prompt && !rc)
            rc = tokens(f, p, &to->prompt_tok, e);
        if (i == c->output && !rc)
            rc = tokens(f, p, &to->output_tok, e);
    }
    if (!rc && i <= most)
        return err_set(e, -EINVAL, "%.200s line %zu: only %d fields, at least %d are needed",
                       p.what, p.line, i, most + 1);
    return rc;
}
