/* trace.c - traces as lines of JSON, and what is common to all shapes. See trace.h. */
#include "base/json.h"
#include "load/trace_read.h"

#include <math.h>

/* ------------------------------------------------------------------------------- lines of JSON */

static int take_blocks(struct trace *t, const json_t *ids, size_t *used, struct trace_place p,
                       struct trace_row *to, struct err *e)
{
    const json_t *id;
    size_t i;
    if (ids && !json_is_array(ids))
        return err_set(e, -EINVAL, "%.200s line %zu: hash_ids is no list", p.what, p.line);
    to->first_block = *used;
    json_array_foreach(ids, i, id)
    {
        if (!json_is_integer(id))
            return err_set(e, -EINVAL, "%.200s line %zu: hash_ids[%zu] is no whole number", p.what,
                           p.line, i);
        t->block[(*used)++] = (uint64_t)json_integer_value(id);
        to->n_block++;
    }
    return 0;
}

static int take_object(struct trace *t, const json_t *o, size_t *used, struct trace_place p,
                       struct trace_row *to, struct err *e)
{
    const json_t *time = json_object_get(o, "timestamp");
    struct err why;
    *to = (struct trace_row){.prompt_tok = -1, .output_tok = -1};
    if (time && !json_is_number(time))
        return err_set(e, -EINVAL, "%.200s line %zu: timestamp is no number of milliseconds",
                       p.what, p.line);
    if (!time != !t->timed && t->n)
        return err_set(e, -EINVAL, "%.200s line %zu: some lines have a timestamp, others none",
                       p.what, p.line);
    t->timed = time != NULL;
    to->at = json_number_value(time) * 1e-3;
    if (json_get_int(o, "input_length", 0, TRACE_TOKENS_MOST, &to->prompt_tok, &why) ||
        json_get_int(o, "output_length", 0, TRACE_TOKENS_MOST, &to->output_tok, &why))
        return err_set(e, -EINVAL, "%.200s line %zu: %s", p.what, p.line, why.text);
    if (to->prompt_tok < 0 || to->output_tok < 0)
        return err_set(e, -EINVAL, "%.200s line %zu: no input_length or no output_length", p.what,
                       p.line);
    return take_blocks(t, json_object_get(o, "hash_ids"), used, p, to, e);
}

static int take_json(struct trace *t, struct slice line, size_t *used, struct trace_place p,
                     struct trace_row *to, struct err *e)
{
    json_error_t at;
    json_t *o = json_loadb(line.at, line.n, 0, &at);
    int rc = o && json_is_object(o) ? take_object(t, o, used, p, to, e)
                                    : err_set(e, -EINVAL, "%.200s line %zu: %s", p.what, p.line,
                                              o ? "no JSON object" : at.text);
    json_decref(o);
    return rc;
}

/* ------------------------------------------------------------------------------- all lines */

static bool blank(struct slice s)
{
    while (s.n && strchr(" \t\r", *s.at) && *s.at)
        s.at++, s.n--;
    return !s.n;
}

/* Room for every line and every number of a list. */
static void make_room(struct trace *t, struct slice all)
{
    size_t lines = 1, commas = 1;
    for (size_t i = 0; i < all.n; i++) {
        lines += all.at[i] == '\n';
        commas += all.at[i] == ',';
    }
    t->row = pool_get(&t->pool, lines * sizeof(*t->row));
    t->block = pool_get(&t->pool, (lines + commas) * sizeof(*t->block));
}

static int read_lines(struct trace *t, struct slice all, const char *what, struct err *e)
{
    struct trace_place p = {.what = what};
    struct trace_columns columns = {-1, -1, -1};
    bool json = false, begun = false;
    size_t used = 0;
    int rc = 0;
    while (all.n && !rc) {
        struct slice line = slice_until(&all, '\n');
        struct trace_row *row = &t->row[t->n];
        p.line++;
        if (blank(line))
            continue;
        if (!begun) {
            begun = true;
            json = *line.at == '{';
            rc = json ? 0 : trace_csv_names(line, p, &columns, e);
            t->timed = columns.time >= 0;
            if (!json)
                continue;
        }
        rc = json ? take_json(t, line, &used, p, row, e) : trace_csv_row(line, p, &columns, row, e);
        row->order = p.line;
        bool empty = !row->prompt_tok || !row->output_tok;
        t->left_out += empty;
        t->n += !empty;
    }
    return rc;
}

/* Rows of one time stay in the order of the file. */
static int by_time(const void *a, const void *b)
{
    const struct trace_row *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static void sort(struct trace *t)
{
    qsort(t->row, t->n, sizeof(*t->row), by_time);
    for (size_t i = t->n; i-- > 0;)
        t->row[i].at -= t->row[0].at;
}

int trace_parse(struct trace *t, const char *text, size_t n, const char *what, struct err *e)
{
    struct slice all = {text, n};
    *t = (struct trace){0};
    make_room(t, all);
    int rc = read_lines(t, all, what, e);
    if (!rc && !t->n)
        return err_set(e, -EINVAL, "%.200s has no requests", what);
    if (!rc)
        sort(t);
    return rc;
}

int trace_read(struct trace *t, const char *file, struct err *e)
{
    char *text;
    size_t n;
    *t = (struct trace){0};
    int rc = file_read(file, (size_t)1 << 30, &text, &n, e);
    if (rc)
        return rc;
    rc = trace_parse(t, text, n, file, e);
    free(text);
    return rc;
}

void trace_cut(struct trace *t, double seconds)
{
    while (t->n && t->row[t->n - 1].at >= seconds)
        t->n--;
}

void trace_free(struct trace *t) { pool_free(&t->pool); }
