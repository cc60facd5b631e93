/* opt.c - the command line, parsed by the table. See opt.h. */
#include "base/opt.h"

/* The verbs column of options.def. */
enum {
#define VERB(ID, id, ...) ID = 1 << VERB_##ID,
#include "base/options.def"
};

const struct opt_row opt_rows[] = {
#define OPTION(id, name, letter, kind, lo, hi, fallback, value, verbs, help)                       \
    {name,                                                                                         \
     letter,                                                                                       \
     OPT_##kind,                                                                                   \
     lo,                                                                                           \
     hi,                                                                                           \
     fallback,                                                                                     \
     value,                                                                                        \
     verbs,                                                                                        \
     help,                                                                                         \
     offsetof(struct options, id),                                                                 \
     offsetof(struct options, given.id)},
#include "base/options.def"
};
const int opt_row_count = COUNT(opt_rows);

const struct verb_row verb_rows[VERB_COUNT] = {
#define VERB(ID, id, name, words, least, most, summary, about, example)                            \
    {name, words, least, most, summary, about, example},
#include "base/options.def"
};

static bool is_choice(const char *choices, const char *text)
{
    size_t n = strlen(text);
    for (const char *at = choices;; at++) {
        size_t here = strcspn(at, "|");
        if (here == n && !strncmp(at, text, n))
            return true;
        at += here;
        if (!*at)
            return false;
    }
}

/* ------------------------------------------------------------------------------- values */

static bool read_int(const char *s, double lo, double hi, int *to)
{
    char *end;
    if (!strchr("+-0123456789", *s))
        return false;
    errno = 0;
    long long n = strtoll(s, &end, 10);
    if (errno || end == s || *end || (double)n < lo || (double)n > hi)
        return false;
    *to = (int)n;
    return true;
}

static bool read_seed(const char *s, uint64_t *to)
{
    char *end;
    if (*s < '0' || *s > '9')
        return false;
    errno = 0;
    *to = strtoull(s, &end, 10);
    return !errno && !*end;
}

static bool read_real(const char *s, double lo, double hi, double *to)
{
    char *end;
    if (s[strspn(s, "+-.0123456789eE")]) /* strtod would also take inf, nan and 0x1p3 */
        return false;
    *to = strtod(s, &end);
    return end != s && !*end && *to >= lo && *to <= hi;
}

static bool read_size(const char *s, double lo, double hi, size_t *to)
{
    char *end;
    uint64_t n, scale = 1;
    if (*s < '0' || *s > '9')
        return false;
    errno = 0;
    n = strtoull(s, &end, 10);
    for (const char *unit = "KMG"; *end && *unit; unit++) {
        scale *= 1024;
        if (*end == *unit) {
            end++;
            break;
        }
    }
    if (errno || *end || (double)n * (double)scale < lo || (double)n * (double)scale > hi)
        return false;
    *to = (size_t)(n * scale);
    return true;
}

static bool read_list(const char *s, struct opt_list *to)
{
    if (to->n == OPT_LIST_MAX)
        return false;
    to->at[to->n++] = s;
    return true;
}

static bool read_value(struct options *o, const struct opt_row *row, const char *s)
{
    void *to = (char *)o + row->at;
    switch (row->kind) {
    case OPT_FLAG: return *(bool *)to = true;
    case OPT_INT: return read_int(s, row->lo, row->hi, to);
    case OPT_SEED: return read_seed(s, to);
    case OPT_REAL: return read_real(s, row->lo, row->hi, to);
    case OPT_SIZE: return read_size(s, row->lo, row->hi, to);
    case OPT_CHOICE: *(const char **)to = s; return is_choice(row->value, s);
    case OPT_TEXT: *(const char **)to = s; return true;
    case OPT_LIST: return read_list(s, to);
    }
    return false;
}

/* What the value should have been. */
static void want(const struct opt_row *row, char *to, size_t n)
{
    switch (row->kind) {
    case OPT_INT: snprintf(to, n, "a whole number from %.0f to %.0f", row->lo, row->hi); break;
    case OPT_SEED: snprintf(to, n, "a whole number from 0 to 2^64-1"); break;
    case OPT_REAL: snprintf(to, n, "a number from %g to %g", row->lo, row->hi); break;
    case OPT_SIZE:
        snprintf(to, n, "a size from %.0f to %.0f bytes, such as 64K or 2M", row->lo, row->hi);
        break;
    case OPT_CHOICE: snprintf(to, n, "one of %s", row->value); break;
    default: snprintf(to, n, "at most %d texts", OPT_LIST_MAX); break;
    }
}

/* ------------------------------------------------------------------------------- names */

static bool takes(enum verb v, const struct opt_row *row) { return row->verbs >> v & 1; }

/* Edit distance of two short words: how many letters to add, drop or change, or neighbours to
 * swap (optimal string alignment). */
static int distance(const char *a, const char *b)
{
    enum { LONGEST = 24 };
    int d[LONGEST + 1][LONGEST + 1];
    int n = (int)strlen(a), m = (int)strlen(b);
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    for (int i = 0; i <= n; i++)
        for (int j = 0; j <= m; j++) {
            if (!i || !j) {
                d[i][j] = i + j;
                continue;
            }
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = min_int(best, 1 + min_int(d[i - 1][j], d[i][j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = min_int(best, d[i - 2][j - 2] + 1);
            d[i][j] = best;
        }
    return d[n][m];
}

/* Keep the nearer of two names; far ones are no suggestion at all. */
static void nearer(const char *typed, const char *name, const char **best, int *how_far)
{
    int d = distance(typed, name);
    if (d < *how_far && d <= (int)strlen(name) / 2)
        *how_far = d, *best = name;
}

const struct opt_elsewhere opt_elsewhere[] = {
#define ELSEWHERE(name, say) {name, say},
#include "base/elsewhere.def"
};
const int opt_elsewhere_count = (int)COUNT(opt_elsewhere);

static int no_such_option(enum verb v, const char *typed, struct err *e)
{
    const char *name = verb_rows[v].name, *best = NULL;
    int how_far = 3;
    for (int i = 0; i < opt_elsewhere_count; i++)
        if (!strcmp(opt_elsewhere[i].name, typed))
            return err_set(e, -EINVAL, "%s: no option --%s: %s (tandem %s --help)", name, typed,
                           opt_elsewhere[i].say, name);
    for (int i = 0; i < opt_row_count; i++)
        if (takes(v, &opt_rows[i]))
            nearer(typed, opt_rows[i].name, &best, &how_far);
    if (best)
        return err_set(e, -EINVAL, "%s: no option --%.40s; did you mean --%s? (tandem %s --help)",
                       name, typed, best, name);
    for (int i = 0; i < opt_row_count; i++)
        for (int other = 0; other < VERB_COUNT; other++)
            if (!strcmp(opt_rows[i].name, typed) && takes((enum verb)other, &opt_rows[i]))
                return err_set(e, -EINVAL, "%s: --%s is an option of tandem %s (tandem %s --help)",
                               name, typed, verb_rows[other].name, name);
    return err_set(e, -EINVAL, "%s: no option --%.40s (tandem %s --help)", name, typed, name);
}

static int no_such_verb(const char *typed, const char *next, struct err *e)
{
    const char *best = NULL;
    int how_far = 3;
    for (int v = 0; v < VERB_COUNT; v++) {
        const char *name = verb_rows[v].name;
        size_t n = strcspn(name, " ");
        if (name[n] && strlen(typed) == n && !strncmp(name, typed, n))
            return err_set(e, -EINVAL, "%s: %s%.40s%s there is tandem %s (tandem help)", typed,
                           next ? "no \"" : "of what?", next ? next : "", next ? "\";" : "", name);
        nearer(typed, name, &best, &how_far);
    }
    if (best)
        return err_set(e, -EINVAL, "no verb \"%.40s\"; did you mean tandem %s? (tandem help)",
                       typed, best);
    return err_set(e, -EINVAL, "no verb \"%.40s\" (tandem help lists them)", typed);
}

int opt_verb(int n, const char *const *word, int *used)
{
    for (int v = 0; v < VERB_COUNT; v++) {
        const char *name = verb_rows[v].name, *gap = strchr(name, ' ');
        size_t first = gap ? (size_t)(gap - name) : strlen(name);
        if (n < 1 + !!gap || strlen(word[0]) != first || strncmp(word[0], name, first) != 0)
            continue;
        if (gap && strcmp(word[1], gap + 1) != 0)
            continue;
        *used = 1 + !!gap;
        return v;
    }
    return -1;
}

/* ------------------------------------------------------------------------------- parsing */

/* What is left of the command line. */
struct args {
    int n;
    char **at;
};

static int set_value(struct options *o, const struct opt_row *row, const char *s, struct err *e)
{
    if (read_value(o, row, s)) {
        *(bool *)((char *)o + row->given) = true;
        return 0;
    }
    char wanted[128];
    want(row, wanted, sizeof(wanted));
    const char *verb = verb_rows[o->verb].name;
    return err_set(e, -EINVAL, "%s: --%s takes %s, not \"%.60s\" (tandem %s --help)", verb,
                   row->name, wanted, s, verb);
}

/* The value is behind '=', or the next word whatever it looks like. */
static int take_value(struct options *o, const struct opt_row *row, const char *inside,
                      struct args *rest, struct err *e)
{
    const char *verb = verb_rows[o->verb].name;
    if (row->kind == OPT_FLAG && inside)
        return err_set(e, -EINVAL, "%s: --%s takes no value (tandem %s --help)", verb, row->name,
                       verb);
    if (row->kind == OPT_FLAG || inside)
        return set_value(o, row, inside ? inside : "", e);
    if (!rest->n)
        return err_set(e, -EINVAL, "%s: --%s needs %s behind it (tandem %s --help)", verb,
                       row->name, row->value, verb);
    rest->n--;
    return set_value(o, row, *rest->at++, e);
}

static int take_long(struct options *o, const char *arg, struct args *rest, struct err *e)
{
    size_t n = strcspn(arg, "=");
    const char *inside = arg[n] ? arg + n + 1 : NULL;
    char name[64];
    snprintf(name, sizeof(name), "%.*s", (int)n, arg);
    if (!strcmp(name, "help")) {
        o->help = true;
        return 0;
    }
    for (int i = 0; i < opt_row_count; i++)
        if (takes(o->verb, &opt_rows[i]) && !strcmp(opt_rows[i].name, name))
            return take_value(o, &opt_rows[i], inside, rest, e);
    return no_such_option(o->verb, name, e);
}

/* -n 5 or -n5; several flags are given one by one. */
static int take_short(struct options *o, const char *arg, struct args *rest, struct err *e)
{
    const char *verb = verb_rows[o->verb].name;
    if (!strcmp(arg, "h")) {
        o->help = true;
        return 0;
    }
    for (int i = 0; i < opt_row_count; i++)
        if (takes(o->verb, &opt_rows[i]) && opt_rows[i].letter == *arg)
            return take_value(o, &opt_rows[i], arg[1] ? arg + 1 : NULL, rest, e);
    return err_set(e, -EINVAL, "%s: no option -%.40s (tandem %s --help)", verb, arg, verb);
}

static int take_word(struct options *o, const char *arg, struct err *e)
{
    const struct verb_row *v = &verb_rows[o->verb];
    if (o->n_word == v->max_words)
        return err_set(e, -EINVAL, "%s: \"%.60s\" is one argument too many%s (tandem %s --help)",
                       v->name, arg, o->verb == VERB_RUN ? "; put the prompt into quotes" : "",
                       v->name);
    o->word[o->n_word++] = arg;
    return 0;
}

static int take_all(struct options *o, struct args rest, struct err *e)
{
    const struct verb_row *v = &verb_rows[o->verb];
    bool only_words = false;
    while (rest.n) {
        const char *arg = *rest.at++;
        int rc = 0;
        rest.n--;
        if (only_words || arg[0] != '-' || !arg[1])
            rc = take_word(o, arg, e);
        else if (arg[1] != '-')
            rc = take_short(o, arg + 1, &rest, e);
        else if (arg[2])
            rc = take_long(o, arg + 2, &rest, e);
        else
            only_words = true;
        if (rc || o->help)
            return rc;
    }
    if (o->n_word < v->min_words)
        return err_set(e, -EINVAL, "%s: %s needed (tandem %s --help)", v->name, v->words, v->name);
    return 0;
}

static void set_defaults(struct options *o)
{
    memset(o, 0, sizeof(*o));
    for (int i = 0; i < opt_row_count; i++)
        if (*opt_rows[i].fallback)
            must(read_value(o, &opt_rows[i], opt_rows[i].fallback));
}

int opt_parse(struct options *o, int argc, char **argv, struct err *e)
{
    const char *first = argc > 1 ? argv[1] : "help";
    int used = 0;
    set_defaults(o);
    o->argv = argv;
    if (!strcmp(first, "--help") || !strcmp(first, "-h"))
        first = "help";
    if (!strcmp(first, "--version") || !strcmp(first, "-V"))
        first = "version";
    const char *word[] = {first, argc > 2 ? argv[2] : NULL};
    int verb = opt_verb(argc > 2 ? 2 : 1, word, &used);
    if (verb < 0)
        return no_such_verb(first, word[1], e);
    o->verb = (enum verb)verb;
    used = min_int(used + 1, argc);
    return take_all(o, (struct args){argc - used, argv + used}, e);
}
