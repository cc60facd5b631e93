/* api.c - a request's fields by the table of api.def, and what they must be together. See api.h. */
#include "serve/api_read.h"

#include <float.h>

static const struct api_field fields[] = {
#define FIELD(paths, name, reader, member, lo, hi, usual, help)                                    \
    {paths, name, read_##reader, offsetof(struct request, member), lo, hi, usual, help, #reader},
#include "serve/api.def"
};

int api_refuse(struct api_error *e, const char *param, const char *fmt, ...)
{
    va_list ap;
    *e = (struct api_error){.status = 400};
    snprintf(e->param, sizeof(e->param), "%s", param ? param : "");
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof(e->message), fmt, ap);
    va_end(ap);
    return -EINVAL;
}

struct sampling api_sampling(const struct generation *g, bool openai)
{
    struct sampling s = sampling_greedy;
    s.temperature = 1;
    if (!g || openai)
        return s;
    if (g->sample) {
        s.temperature = g->temperature;
        s.top_p = g->top_p;
        s.min_p = g->min_p;
        s.top_k = g->top_k;
    }
    s.repetition = g->repetition_penalty;
    return s;
}

/* ------------------------------------------------------------------------------- parsing */

size_t api_depth(const char *text, size_t n)
{
    size_t depth = 0, most = 0;
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (quoted) {
            i += c == '\\';
            quoted = c != '"';
            continue;
        }
        quoted = c == '"';
        depth += c == '{' || c == '[';
        depth -= depth && (c == '}' || c == ']');
        most = depth > most ? depth : most;
    }
    return most;
}

static int parse_body(struct request *r, const char *text, size_t n, struct api_error *e)
{
    json_error_t at;
    size_t depth = api_depth(text, n);
    if (depth > API_DEPTH)
        return api_refuse(e, NULL, "The body nests %zu brackets deep; at most %d are read.", depth,
                          API_DEPTH);
    r->body = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &at);
    if (!r->body)
        return api_refuse(e, NULL, "The body is not valid JSON: line %d, column %d: %.200s.",
                          at.line, at.column, at.text);
    if (!json_is_object(r->body))
        return api_refuse(e, NULL, "The body must be a JSON object.");
    return 0;
}

static void begin(enum api_kind kind, const struct api_model *m, struct request *r)
{
    *r = (struct request){.kind = kind,
                          .parallel_tool_calls = true,
                          .add_generation_prompt = -1,
                          .add_special_tokens = -1,
                          .n = 1,
                          .sampling = m->sampling,
                          .max_tokens = -1,
                          .max_completion_tokens = -1,
                          .skip_special = true,
                          .n_top = -1,
                          .n_prompt_top = -1};
}

static int check_answers(struct request *r, const struct api_model *m, struct api_error *e)
{
    int most = m->max_choices ? m->max_choices : 128;
    if (r->best_of && r->best_of < r->n)
        return api_refuse(e, "best_of", "best_of (%d) must be at least n (%d).", r->best_of, r->n);
    if (r->best_of > r->n && r->stream)
        return api_refuse(e, "best_of", "best_of (%d) above n (%d) cannot be streamed.", r->best_of,
                          r->n);
    r->best_of = r->best_of ? r->best_of : r->n;
    if (r->sampling.top_p <= 0)
        r->sampling.top_p = FLT_MIN; /* 0: the likeliest token alone */
    if ((long long)r->best_of * max_int(r->n_prompts, 1) > most)
        return api_refuse(e, r->best_of > 1 ? "n" : "prompt",
                          "%d prompts with %d answers each are more than the %d answers that one "
                          "request may ask for.",
                          max_int(r->n_prompts, 1), r->best_of, most);
    int max = r->max_completion_tokens >= 0 ? r->max_completion_tokens : r->max_tokens;
    if (max >= 0 && r->min_tokens > max)
        return api_refuse(e, "min_tokens", "min_tokens (%d) is above max_tokens (%d).",
                          r->min_tokens, max);
    return 0;
}

static int check_told(struct request *r, struct api_error *e)
{
    const json_t *options = json_object_get(r->body, "stream_options");
    if (options && !json_is_null(options) && !r->stream)
        return api_refuse(e, "stream_options", "stream_options needs stream: true.");
    if (r->kind == API_CHAT && r->n_top >= 0 && !r->logprobs)
        return api_refuse(e, "top_logprobs", "top_logprobs needs logprobs: true.");
    if (r->kind == API_CHAT && r->logprobs)
        r->n_top = max_int(r->n_top, 0);
    r->logprobs = r->n_top >= 0;
    if (r->n_prompt_top >= 0 && r->stream)
        return api_refuse(e, "prompt_logprobs", "prompt_logprobs cannot be streamed.");
    return 0;
}

static int check_asked(struct request *r, struct api_error *e)
{
    bool chat = r->kind == API_CHAT || (r->kind == API_TOKENIZE && r->messages);
    if (r->kind == API_TOKENIZE && !r->messages == !r->prompt)
        return api_refuse(e, "prompt", "One of prompt and messages is needed.");
    if (r->kind == API_CHAT && !r->messages)
        return api_refuse(e, "messages", "messages is missing.");
    if (r->kind == API_COMPLETIONS && !r->prompt)
        return api_refuse(e, "prompt", "prompt is missing.");
    if (r->kind == API_DETOKENIZE && !r->prompt)
        return api_refuse(e, "tokens", "tokens is missing.");
    if (r->continue_final_message && r->add_generation_prompt == 1)
        return api_refuse(e, "continue_final_message",
                          "continue_final_message and add_generation_prompt exclude each other.");
    if (chat && !r->prompt) {
        r->prompt = pool_get(&r->pool, sizeof(*r->prompt));
        r->n_prompts = 1;
    }
    return 0;
}

int request_parse(enum api_kind kind, const char *text, size_t n, const struct api_model *m,
                  struct request *r, struct api_error *e)
{
    begin(kind, m, r);
    int rc = parse_body(r, text, n, e);
    for (size_t i = 0; !rc && i < COUNT(fields); i++) {
        const json_t *v = json_object_get(r->body, fields[i].name);
        if ((fields[i].paths & (int)kind) && v && !json_is_null(v))
            rc = fields[i].read(&(struct reading){r, m, e, &fields[i]}, v);
    }
    rc = rc ? rc : check_asked(r, e);
    rc = rc ? rc : check_answers(r, m, e);
    return rc ? rc : check_told(r, e);
}

void request_free(struct request *r)
{
    for (int i = 0; i < r->n_prompts; i++)
        free(r->prompt[i].tok);
    for (int i = 0; i < r->n_bad; i++)
        free((void *)r->bad[i].tok);
    json_decref(r->body);
    pool_free(&r->pool);
    *r = (struct request){0};
}

/* ------------------------------------------------------------------------------- the page */

/* What a person calls the values a reader takes. */
static const char *kind_of(const struct api_field *f)
{
    static const char *const names[][2] = {
        {"flag", "true, false"},
        {"flag3", "true, false"},
        {"whole", "whole number"},
        {"real", "number"},
        {"top_k", "whole number"},
        {"truncate", "whole number"},
        {"seed", "whole number"},
        {"text", "text"},
        {"model", "text"},
        {"effort", "text"},
        {"texts", "text or texts"},
        {"ids", "token ids"},
        {"tokens", "token ids"},
        {"prompts", "text, texts or ids"},
        {"messages", "list"},
        {"tools", "list"},
        {"tool_choice", "text or object"},
        {"guided_json", "object or text"},
        {"guided_regex", "text"},
        {"guided_choice", "text or texts"},
        {"guided_grammar", "text"},
    };
    for (size_t i = 0; i < COUNT(names); i++)
        if (!strcmp(names[i][0], f->kind))
            return names[i][1];
    return strcmp(f->kind, "refused") ? "object" : "none";
}

void api_fields_markdown(FILE *to)
{
    fputs("| field | where | value | default | meaning |\n|---|---|---|---|---|\n", to);
    for (size_t i = 0; i < COUNT(fields); i++) {
        const struct api_field *f = &fields[i];
        bool number = strstr(kind_of(f), "number") && f->lo < f->hi;
        fprintf(to, "| `%s` | %s%s%s%s | %s", f->name, f->paths & API_CHAT ? "c" : "",
                f->paths & API_COMPLETIONS ? "p" : "", f->paths & API_TOKENIZE ? "t" : "",
                f->paths & API_DETOKENIZE ? "d" : "", kind_of(f));
        if (number && f->hi < 2147483647)
            fprintf(to, ", %g to %g", f->lo, f->hi);
        else if (number && f->lo > -2147483647)
            fprintf(to, " from %g", f->lo);
        fprintf(to, " | %s | %s |\n", f->usual, f->help);
    }
}
