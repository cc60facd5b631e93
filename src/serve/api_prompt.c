/* api_prompt.c - from a checked request to tokens, and to what the engine takes. See api.h. */
#include "serve/api_read.h"

static int failed(struct api_error *e, const char *param, const struct err *why)
{
    return api_refuse(e, param, "%s", why->text);
}

/* ------------------------------------------------------------------------------- chat */

/* The template's variables: the request's own win over chat_template_kwargs. */
static json_t *variables(const struct request *r)
{
    bool tools = r->tools && r->tool_choice != TOOLS_OFF;
    json_t *v = r->template_vars ? json_copy((json_t *)r->template_vars) : json_object();
    json_object_set(v, "messages", (json_t *)r->messages);
    if (tools)
        json_object_set(v, "tools", (json_t *)r->tools);
    else
        json_object_del(v, "tools");
    json_object_set_new(v, "add_generation_prompt",
                        json_boolean(r->add_generation_prompt != 0 && !r->continue_final_message));
    if (r->reasoning_effort)
        json_object_set_new(v, "reasoning_effort", json_string(r->reasoning_effort));
    if (r->reasoning_effort && !strcmp(r->reasoning_effort, "none") &&
        !json_object_get(v, "enable_thinking"))
        json_object_set_new(v, "enable_thinking", json_false());
    return v;
}

/* Cut what the template wrote after the last message, whose text is the last of its kind; blanks
 * at the text's ends may be the template's to strip. */
static int cut_after_message(const struct request *r, char *text, struct api_error *e)
{
    const json_t *last = json_array_get(r->messages, json_array_size(r->messages) - 1);
    const char *content = json_string_value(json_object_get(last, "content"));
    size_t n = strlen(content), from = strspn(content, " \t\r\n");
    while (n > from && strchr(" \t\r\n", content[n - 1]))
        n--;
    char *found = NULL, *at = text;
    while (n > from && (at = memmem(at, strlen(at), content + from, n - from)))
        found = at++;
    if (!found)
        return api_refuse(e, "continue_final_message",
                          "continue_final_message: the last message is empty, or the chat template "
                          "changes its text.");
    size_t end = n - from, whole = strlen(content) - from;
    found[strncmp(found, content + from, whole) ? end : whole] = 0;
    return 0;
}

static int render(struct request *r, const struct api_model *m, struct api_error *e)
{
    struct err why;
    char *text;
    if (!m->chat)
        return api_refuse(e, "messages", "The model has no chat template: use /v1/completions.");
    json_t *v = variables(r);
    char *asked = json_dumps(v, 0);
    json_decref(v);
    must(asked);
    int rc = chat_render(m->chat, asked, &text, &why);
    free(asked);
    if (rc)
        return failed(e, "messages", &why);
    rc = r->continue_final_message ? cut_after_message(r, text, e) : 0;
    if (!rc)
        r->prompt->text = pool_text(&r->pool, text, strlen(text));
    free(text);
    return rc;
}

/* How the model will write calls and reasoning follows from the template. A call that must come
 * can be had of any model: bare JSON, as Llama writes it. */
static void settle_style(struct request *r, const struct api_model *m)
{
    bool tools = r->tools && r->tool_choice != TOOLS_OFF;
    const char *words = chat_template(m->chat, tools);
    r->think = think_words(words);
    r->opened = think_opened(r->think, r->prompt->text);
    if (tools)
        r->style = tools_style(words);
    if (tools && r->style == TOOLS_NONE && r->tool_choice == TOOLS_REQUIRED)
        r->style = TOOLS_LLAMA;
    request_settle(r, r->think.open && !think_closed(r->think, r->prompt->text));
}

/* ------------------------------------------------------------------------------- tokens */

static int encode(struct request *r, const struct api_model *m, struct api_prompt *p,
                  struct api_error *e)
{
    bool usual = !r->messages;
    bool special = r->add_special_tokens < 0 ? usual : r->add_special_tokens;
    struct err why;
    size_t n;
    if (!p->text)
        return 0;
    if (tok_encode(m->tok, p->text, strlen(p->text), TOK_PARSE | (special ? TOK_SPECIAL : 0),
                   &p->tok, &n, &why))
        return failed(e, r->messages ? "messages" : "prompt", &why);
    p->n = (int)n;
    return 0;
}

static void truncate(const struct request *r, const struct api_model *m, struct api_prompt *p)
{
    int answer = r->max_completion_tokens >= 0 ? r->max_completion_tokens : r->max_tokens;
    int fits = m->ctx - min_int(max_int(answer, 1), m->ctx / 2);
    int keep = r->truncate < 0 ? fits : r->truncate;
    if (!r->truncate || p->n <= keep)
        return;
    memmove(p->tok, p->tok + p->n - keep, (size_t)keep * sizeof(*p->tok));
    p->n = keep;
}

static int check_length(const struct request *r, const struct api_model *m,
                        const struct api_prompt *p, struct api_error *e)
{
    const char *param = r->messages ? "messages" : "prompt";
    if (p->n < 1)
        return api_refuse(e, param, "The prompt is empty.");
    if (p->n < m->ctx)
        return 0;
    api_refuse(e, param,
               "The prompt has %d tokens, but the context holds %d tokens with the answer. Shorten "
               "it, or set truncate_prompt_tokens.",
               p->n, m->ctx);
    snprintf(e->code, sizeof(e->code), "context_length_exceeded");
    return -EINVAL;
}

/* A word is banned as it begins a text and as it follows a blank. */
static int ban_words(struct request *r, const struct api_model *m, struct api_error *e)
{
    struct err why;
    r->bad = pool_get(&r->pool, 2 * (size_t)r->bad_words.n * sizeof(*r->bad));
    for (int i = 0; i < 2 * r->bad_words.n; i++) {
        const char *blank = i % 2 ? " " : "";
        const char *word = api_join(r, (const char *[]){blank, r->bad_words.at[i / 2], NULL});
        int *tok;
        size_t n;
        if (tok_encode(m->tok, word, strlen(word), 0, &tok, &n, &why))
            return failed(e, "bad_words", &why);
        r->bad[r->n_bad++] = (struct token_run){tok, (int)n};
    }
    return 0;
}

int request_prompts(struct request *r, const struct api_model *m, struct api_error *e)
{
    bool generates = r->kind == API_CHAT || r->kind == API_COMPLETIONS;
    int rc = r->messages ? render(r, m, e) : 0;
    if (!rc && r->kind == API_CHAT)
        settle_style(r, m);
    for (int i = 0; !rc && r->kind != API_DETOKENIZE && i < r->n_prompts; i++) {
        rc = encode(r, m, &r->prompt[i], e);
        if (rc || !generates)
            break;
        truncate(r, m, &r->prompt[i]);
        rc = check_length(r, m, &r->prompt[i], e);
    }
    return !rc && r->bad_words.n ? ban_words(r, m, e) : rc;
}

/* ------------------------------------------------------------------------------- the engine */

int request_choices(const struct request *r) { return r->n_prompts * r->best_of; }

const char *request_path(const struct request *r)
{
    return r->kind == API_CHAT ? "/v1/chat/completions" : "/v1/completions";
}

void request_seed(struct request *r, uint64_t seed)
{
    if (!r->seeded)
        r->sampling.seed = seed;
}

static int longest(const struct request *r, int room)
{
    enum { COMPLETION = 16 }; /* as OpenAI's older path has it */
    int want = r->kind == API_COMPLETIONS ? COMPLETION : room;
    if (r->max_completion_tokens >= 0)
        want = r->max_completion_tokens;
    else if (r->max_tokens >= 0)
        want = r->max_tokens;
    return min_int(want, room);
}

void request_engine(const struct request *r, const struct api_model *m, int choice,
                    struct engine_request *to)
{
    must(choice >= 0 && choice < request_choices(r));
    const struct api_prompt *p = &r->prompt[choice / r->best_of];
    *to = (struct engine_request){.prompt = p->tok,
                                  .n_prompt = p->n,
                                  .max_new = longest(r, m->ctx - p->n),
                                  .min_new = r->min_tokens,
                                  .sampling = r->sampling,
                                  .ignore_eos = r->ignore_eos,
                                  .eos = m->eos,
                                  .n_eos = m->n_eos,
                                  .stop = r->stop_ids.at,
                                  .n_stop = r->stop_ids.n,
                                  .bias = r->bias,
                                  .n_bias = r->n_bias,
                                  .bad = r->bad,
                                  .n_bad = r->n_bad,
                                  .only = r->allowed.at,
                                  .n_only = r->allowed.n,
                                  .n_top = r->best_of > r->n ? max_int(r->n_top, 0) : r->n_top,
                                  .n_prompt_top = r->n_prompt_top,
                                  .priority = r->priority,
                                  .deadline_s = r->timeout};
    to->sampling.seed += (uint64_t)(choice % r->best_of);
    if (r->echo && r->n_top > to->n_prompt_top)
        to->n_prompt_top = r->n_top;
}
