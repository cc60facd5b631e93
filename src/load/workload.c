/* workload.c - see workload.h. */
#include "load/workload.h"

static const struct trace_row *row_of(const struct workload *w, uint64_t i)
{
    return w->trace.n ? &w->trace.row[i % w->trace.n] : NULL;
}

struct request_shape workload_shape(const struct workload *w, uint64_t i)
{
    struct draws prompt = draw_of(w->seed, DRAW_PROMPT_LENGTH, i);
    struct draws output = draw_of(w->seed, DRAW_OUTPUT_LENGTH, i);
    const struct trace_row *row = row_of(w, i);
    if (row)
        return (struct request_shape){row->prompt_tok, row->output_tok};
    return (struct request_shape){w->prompts.n ? 0 : spread_draw(&w->prompt, &prompt),
                                  spread_draw(&w->output, &output)};
}

/* Words of a recorded prompt: equal blocks get equal words. Returns the end; *left words are not
 * yet written. */
static char *put_blocks(const struct workload *w, const struct trace_row *row, char *begin,
                        char *to, int *left)
{
    int each = words_for(&w->rate, TRACE_BLOCK, false);
    for (int b = 0; b < row->n_block && *left; b++) {
        int n = min_int(each, *left);
        to = words_draw(
            begin, to, n,
            draw_of(w->seed, DRAW_PREFIX, 1 + w->trace.block[row->first_block + (size_t)b]));
        *left -= n;
    }
    return to;
}

char *workload_prompt(const struct workload *w, uint64_t i)
{
    const struct trace_row *row = row_of(w, i);
    const char *own = w->prompts.n ? w->prompts.at[i % w->prompts.n] : "";
    int prefix = w->shared_prefix_tok ? words_for(&w->rate, w->shared_prefix_tok, false) : 0;
    int words = w->prompts.n ? 0 : words_for(&w->rate, workload_shape(w, i).prompt_tok, true);
    size_t room = ((size_t)prefix + (size_t)words) * (WORDS_LONGEST + 1) + strlen(own) + 2;
    char *text = malloc(room), *to = text;
    must(text);
    *to = 0;
    to = words_draw(text, to, prefix, draw_of(w->seed, DRAW_PREFIX, 0));
    if (row)
        to = put_blocks(w, row, text, to, &words);
    to = words_draw(text, to, words, draw_of(w->seed, DRAW_WORDS, i));
    if (*own)
        sprintf(to, "%s%s", to > text ? " " : "", own);
    return text;
}

static json_t *body_of(const struct workload *w, const char *prompt, int output_tok)
{
    json_t *o = json_pack("{s:s, s:i}", "model", w->model, "max_tokens", output_tok);
    json_t *text = json_string(prompt);
    must(o && text);
    if (w->chat)
        json_object_set_new(o, "messages",
                            json_pack("[{s:s, s:o}]", "role", "user", "content", text));
    else
        json_object_set_new(o, "prompt", text);
    if (w->temperature >= 0)
        json_object_set_new(o, "temperature", json_real(w->temperature));
    if (w->ignore_eos)
        json_object_set_new(o, "ignore_eos", json_true());
    return o;
}

static char *dump(const struct workload *w, json_t *o)
{
    if (w->extra)
        json_object_update(o, w->extra);
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    must(text);
    return text;
}

char *workload_body(const struct workload *w, uint64_t i)
{
    char *prompt = workload_prompt(w, i);
    json_t *o = body_of(w, prompt, workload_shape(w, i).output_tok);
    free(prompt);
    json_object_set_new(o, "stream", json_true());
    json_object_set_new(o, "stream_options", json_pack("{s:b}", "include_usage", 1));
    return dump(w, o);
}

char *workload_probe(const struct workload *w, const char *prompt)
{
    return dump(w, body_of(w, prompt, 1));
}
