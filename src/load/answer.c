/* answer.c - see answer.h. */
#include "load/answer.h"

#include <jansson.h>

static bool has_text(const json_t *o, const char *key)
{
    return json_string_length(json_object_get(o, key)) > 0;
}

/* Of one choice: chat has a delta, completions a text. */
static bool brings_text(const json_t *choice)
{
    const json_t *delta = json_object_get(choice, "delta");
    return has_text(choice, "text") || has_text(delta, "content") ||
           has_text(delta, "reasoning_content") || has_text(delta, "reasoning") ||
           json_array_size(json_object_get(delta, "tool_calls")) > 0;
}

static int count(const json_t *usage, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(usage, key));
    return n < 0 || n > INT32_MAX ? 0 : (int)n;
}

static void take_usage(struct answer *a, const json_t *usage)
{
    if (!json_is_object(usage))
        return;
    a->usage = true;
    a->prompt_tok = count(usage, "prompt_tokens");
    a->output_tok = count(usage, "completion_tokens");
    a->cached_tok = count(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
}

static void take_error(struct answer *a, const json_t *error)
{
    const char *text = json_string_value(json_object_get(error, "message"));
    a->failed = true;
    snprintf(a->why, sizeof(a->why), "error in the stream: %s", text ? text : "without a message");
}

static bool take_chunk(struct answer *a, const json_t *chunk)
{
    const json_t *choices = json_object_get(chunk, "choices"), *choice;
    size_t i;
    bool text = false;
    take_usage(a, json_object_get(chunk, "usage"));
    json_array_foreach(choices, i, choice)
    {
        text |= brings_text(choice);
        a->finished |= json_is_string(json_object_get(choice, "finish_reason"));
    }
    return text;
}

bool answer_take(struct answer *a, const char *data, size_t n)
{
    if (n == 6 && !memcmp(data, "[DONE]", 6)) {
        a->finished = true;
        return false;
    }
    json_t *chunk = json_loadb(data, n, JSON_ALLOW_NUL, NULL);
    const json_t *error = json_object_get(chunk, "error");
    bool text = false;
    if (json_is_object(error)) {
        take_error(a, error);
    } else if (json_is_object(chunk)) {
        text = take_chunk(a, chunk);
    } else if (!a->bad) {
        a->bad = true;
        snprintf(a->why, sizeof(a->why), "an event is no JSON object: %.*s", (int)min_size(n, 100),
                 data);
    }
    json_decref(chunk);
    return text;
}
