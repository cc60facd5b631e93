/* api_read.c - readers of the plain kinds of fields. See api_read.h. */
#include "serve/api_read.h"

#include <limits.h>
#include <math.h>

void *read_member(const struct reading *g) { return (char *)g->r + g->field->member; }

int api_refuse_kind(const struct reading *g, const json_t *v, const char *needed)
{
    static const char *const names[] = {"an object", "a list", "a text", "a whole number",
                                        "a number",  "true",   "false",  "null"};
    const char *name = g->field->name;
    return api_refuse(g->e, name, "%s must be %s, not %s.", name, needed, names[json_typeof(v)]);
}

/* A whole number may be written as 3.0, as some clients do. */
static int whole(const struct reading *g, const json_t *v, double lo, double hi, int *to)
{
    double x = json_number_value(v);
    if (!json_is_number(v) || floor(x) != x)
        return api_refuse_kind(g, v, "a whole number");
    if (!(x >= lo && x <= hi))
        return api_refuse(g->e, g->field->name, "%s: %.0f is outside %.0f to %.0f.", g->field->name,
                          x, lo, hi);
    *to = (int)x;
    return 0;
}

int read_flag(const struct reading *g, const json_t *v)
{
    if (!json_is_boolean(v))
        return api_refuse_kind(g, v, "true or false");
    *(bool *)read_member(g) = json_is_true(v);
    return 0;
}

int read_flag3(const struct reading *g, const json_t *v)
{
    if (!json_is_boolean(v))
        return api_refuse_kind(g, v, "true or false");
    *(int *)read_member(g) = json_is_true(v);
    return 0;
}

int read_whole(const struct reading *g, const json_t *v)
{
    return whole(g, v, g->field->lo, g->field->hi, read_member(g));
}

int read_real(const struct reading *g, const json_t *v)
{
    double x = json_number_value(v);
    if (!json_is_number(v))
        return api_refuse_kind(g, v, "a number");
    if (!(x >= g->field->lo && x <= g->field->hi))
        return api_refuse(g->e, g->field->name, "%s: %g is outside %g to %g.", g->field->name, x,
                          g->field->lo, g->field->hi);
    *(float *)read_member(g) = (float)x;
    return 0;
}

int read_top_k(const struct reading *g, const json_t *v)
{
    int *k = read_member(g), rc = read_whole(g, v);
    *k = max_int(*k, 0);
    return rc;
}

int read_truncate(const struct reading *g, const json_t *v)
{
    int rc = read_whole(g, v);
    if (!rc && *(int *)read_member(g) == 0)
        rc = api_refuse(g->e, g->field->name, "%s: 0 would leave nothing of the prompt.",
                        g->field->name);
    return rc;
}

int read_seed(const struct reading *g, const json_t *v)
{
    if (!json_is_integer(v))
        return api_refuse_kind(g, v, "a whole number");
    *(uint64_t *)read_member(g) = (uint64_t)json_integer_value(v);
    g->r->seeded = true;
    return 0;
}

int read_text(const struct reading *g, const json_t *v)
{
    size_t n = json_string_length(v);
    if (!json_is_string(v))
        return api_refuse_kind(g, v, "a text");
    if ((double)n < g->field->lo || (double)n > g->field->hi)
        return api_refuse(g->e, g->field->name, "%s has %zu bytes; %.0f to %.0f are read.",
                          g->field->name, n, g->field->lo, g->field->hi);
    *(const char **)read_member(g) = json_string_value(v);
    return 0;
}

int read_object(const struct reading *g, const json_t *v)
{
    if (!json_is_object(v))
        return api_refuse_kind(g, v, "an object");
    *(const json_t **)read_member(g) = v;
    return 0;
}

int read_refused(const struct reading *g, const json_t *v)
{
    if (json_is_string(v) && !json_string_length(v))
        return 0;
    return api_refuse(g->e, g->field->name, "%s is not supported: %s", g->field->name,
                      g->field->help);
}

int read_model(const struct reading *g, const json_t *v)
{
    int rc = read_text(g, v);
    for (int i = 0; !rc && i < g->m->n_names; i++)
        if (!strcmp(g->m->name[i], g->r->model))
            return 0;
    if (rc || !g->m->n_names)
        return rc;
    api_refuse(g->e, "model", "The model \"%.200s\" is not served here; \"%.200s\" is.",
               g->r->model, g->m->name[0]);
    g->e->status = 404;
    snprintf(g->e->code, sizeof(g->e->code), "model_not_found");
    return -EINVAL;
}

int read_stream_options(const struct reading *g, const json_t *v)
{
    const json_t *usage = json_object_get(v, "include_usage");
    if (!json_is_object(v))
        return api_refuse_kind(g, v, "an object");
    if (usage && !json_is_null(usage) && !json_is_boolean(usage))
        return api_refuse(g->e, "stream_options.include_usage",
                          "stream_options.include_usage must be true or false.");
    g->r->include_usage = json_is_true(usage);
    return 0;
}

/* ------------------------------------------------------------------------------- lists */

static int refuse_count(const struct reading *g, size_t n)
{
    return api_refuse(g->e, g->field->name, "%s has %zu entries; %.0f to %.0f are read.",
                      g->field->name, n, g->field->lo, g->field->hi);
}

static bool count_is_wrong(const struct reading *g, size_t n)
{
    return (double)n < g->field->lo || (double)n > g->field->hi;
}

int api_texts(const struct reading *g, const json_t *v, struct api_texts *to)
{
    bool one = json_is_string(v);
    size_t n = one ? 1 : json_array_size(v);
    if (!one && !json_is_array(v))
        return api_refuse_kind(g, v, "a text or a list of texts");
    if (count_is_wrong(g, n))
        return refuse_count(g, n);
    to->at = pool_get(&g->r->pool, (n + 1) * sizeof(*to->at));
    to->n = (int)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *s = one ? v : json_array_get(v, i);
        if (!json_is_string(s) || !json_string_length(s))
            return api_refuse(g->e, g->field->name, "%s[%zu] must be a text that is not empty.",
                              g->field->name, i);
        to->at[i] = json_string_value(s);
    }
    return 0;
}

int read_texts(const struct reading *g, const json_t *v) { return api_texts(g, v, read_member(g)); }

static int token(const struct reading *g, const json_t *v, size_t i, int *to)
{
    long long id = json_is_integer(v) ? json_integer_value(v) : -1;
    if (id < 0 || id >= g->m->n_vocab)
        return api_refuse(g->e, g->field->name, "%s[%zu] must be a token id from 0 to %d.",
                          g->field->name, i, g->m->n_vocab - 1);
    *to = (int)id;
    return 0;
}

int read_ids(const struct reading *g, const json_t *v)
{
    struct api_ids *to = read_member(g);
    size_t n = json_array_size(v);
    int rc = 0;
    if (!json_is_array(v))
        return api_refuse_kind(g, v, "a list of token ids");
    if (count_is_wrong(g, n))
        return refuse_count(g, n);
    to->at = pool_get(&g->r->pool, (n + 1) * sizeof(*to->at));
    to->n = (int)n;
    for (size_t i = 0; !rc && i < n; i++)
        rc = token(g, json_array_get(v, i), i, &to->at[i]);
    return rc;
}

int read_bias(const struct reading *g, const json_t *v)
{
    struct token_bias *to;
    const char *key;
    json_t *x;
    size_t n = json_object_size(v);
    if (!json_is_object(v))
        return api_refuse_kind(g, v, "an object");
    if (count_is_wrong(g, n))
        return refuse_count(g, n);
    g->r->bias = to = pool_get(&g->r->pool, (n + 1) * sizeof(*to));
    json_object_foreach((json_t *)v, key, x)
    {
        char *end;
        errno = 0;
        long id = strtol(key, &end, 10);
        if (*key < '0' || *key > '9' || *end || errno || id >= g->m->n_vocab)
            return api_refuse(g->e, "logit_bias",
                              "logit_bias: \"%.40s\" is no token id from 0 to %d.", key,
                              g->m->n_vocab - 1);
        if (!json_is_number(x) || !(fabs(json_number_value(x)) <= 100))
            return api_refuse(g->e, "logit_bias",
                              "logit_bias of token %ld must be a number from -100 to 100.", id);
        to[g->r->n_bias++] = (struct token_bias){(int)id, (float)json_number_value(x)};
    }
    return 0;
}

/* ------------------------------------------------------------------------------- prompts */

static int prompt_ids(const struct reading *g, const json_t *v, struct api_prompt *to)
{
    size_t n = json_array_size(v);
    int rc = n > INT_MAX / sizeof(int) ? refuse_count(g, n) : 0;
    to->tok = malloc((n + 1) * sizeof(*to->tok));
    must(to->tok);
    for (size_t i = 0; !rc && i < n; i++)
        rc = token(g, json_array_get(v, i), i, &to->tok[i]);
    to->n = (int)n;
    return rc;
}

static int one_prompt(const struct reading *g, const json_t *v, struct api_prompt *to)
{
    if (json_is_string(v)) {
        to->text = json_string_value(v);
        return 0;
    }
    if (!json_is_array(v))
        return api_refuse(g->e, "prompt",
                          "prompt must be a text, a list of texts, a list of "
                          "token ids, or a list of such lists.");
    return prompt_ids(g, v, to);
}

int read_prompts(const struct reading *g, const json_t *v)
{
    bool many = json_is_array(v) && !json_is_integer(json_array_get(v, 0));
    size_t n = many ? json_array_size(v) : 1;
    int rc = 0;
    if (count_is_wrong(g, n))
        return refuse_count(g, n);
    if (n > 1 && g->r->kind == API_TOKENIZE)
        return api_refuse(g->e, "prompt", "prompt must be one text.");
    g->r->prompt = pool_get(&g->r->pool, n * sizeof(*g->r->prompt));
    for (size_t i = 0; !rc && i < n; i++) {
        g->r->n_prompts = (int)i + 1;
        rc = one_prompt(g, many ? json_array_get(v, i) : v, &g->r->prompt[i]);
    }
    return rc;
}

int read_tokens(const struct reading *g, const json_t *v)
{
    if (!json_is_array(v))
        return api_refuse_kind(g, v, "a list of token ids");
    g->r->prompt = pool_get(&g->r->pool, sizeof(*g->r->prompt));
    g->r->n_prompts = 1;
    return prompt_ids(g, v, g->r->prompt);
}
