/* reply.c - events into choices; when a reply is done. See reply.h; the JSON is reply_write.c's. */
#include "base/buffer.h"
#include "serve/reply_choice.h"

/* A number to letters that nobody can mistake for counting (splitmix64, Steele et al. 2014). */
static uint64_t mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* Mistral's templates insist on nine letters and digits. */
static void name_call(const struct reply_choice *c, struct reply_call *call)
{
    const struct reply *p = c->reply;
    uint64_t x = mix(p->head.number ^ mix((uint64_t)c->number << 32 | (uint64_t)c->n_calls));
    bool mistral = p->r->style == TOOLS_MISTRAL || p->r->style == TOOLS_ARGS;
    if (mistral)
        snprintf(call->id, sizeof(call->id), "%09llx", (unsigned long long)(x & 0xFFFFFFFFFull));
    else
        snprintf(call->id, sizeof(call->id), "call_%016llx", (unsigned long long)x);
}

static void begin_call(struct reply_choice *c, const char *name, size_t n)
{
    c->call = realloc(c->call, (size_t)(c->n_calls + 1) * sizeof(*c->call));
    must(c->call);
    struct reply_call *call = &c->call[c->n_calls];
    *call = (struct reply_call){0};
    name_call(c, call);
    out_bytes(&call->name, name, n);
    c->n_calls++;
}

static void take_part(void *arg, enum reply_part part, const char *s, size_t n)
{
    struct reply_choice *c = arg;
    bool stream = c->reply->r->stream;
    if (part == PART_CALL)
        begin_call(c, s, n);
    if (stream)
        write_part(c, part, s, n);
    else if (part == PART_CONTENT)
        out_bytes(&c->content, s, n);
    else if (part == PART_REASONING)
        out_bytes(&c->reasoning, s, n);
    else if (part == PART_ARGUMENTS)
        out_bytes(&c->call[c->n_calls - 1].arguments, s, n);
}

/* ------------------------------------------------------------------------------- lifetime */

struct reply *reply_new(const struct request *r, const struct api_model *m,
                        const struct reply_head *head)
{
    struct reply *p = calloc(1, sizeof(*p));
    must(p);
    p->r = r;
    p->m = m;
    p->head = *head;
    p->n_choices = request_choices(r);
    p->choice = calloc((size_t)p->n_choices, sizeof(*p->choice));
    must(p->choice);
    const char *prefix = r->kind == API_CHAT ? "chatcmpl-" : "cmpl-";
    if (head->id && *head->id)
        snprintf(p->id, sizeof(p->id), "%s", head->id);
    else if (r->request_id)
        snprintf(p->id, sizeof(p->id), "%s%s", prefix, r->request_id);
    else
        snprintf(p->id, sizeof(p->id), "%s%016llx", prefix, (unsigned long long)mix(head->number));
    for (int i = 0; i < p->n_choices; i++) {
        struct reply_choice *c = &p->choice[i];
        c->reply = p;
        c->number = i;
        answer_text_begin(&c->text, r, m->tok, (struct part_sink){c, take_part});
    }
    return p;
}

static void free_choice(struct reply_choice *c)
{
    for (int i = 0; i < c->n_calls; i++) {
        out_free(&c->call[i].name);
        out_free(&c->call[i].arguments);
    }
    answer_text_free(&c->text);
    out_free(&c->content);
    out_free(&c->reasoning);
    free(c->call);
    free(c->token);
    free(c->prompt);
    free(c->id);
}

void reply_free(struct reply *p)
{
    for (int i = 0; p && i < p->n_choices; i++)
        free_choice(&p->choice[i]);
    if (p)
        free(p->choice);
    free(p);
}

/* ------------------------------------------------------------------------------- tokens */

const struct api_prompt *prompt_of(const struct reply_choice *c)
{
    return &c->reply->r->prompt[c->number / c->reply->r->best_of];
}

static void keep_prompt(struct reply_choice *c, const struct engine_event *ev)
{
    int n = prompt_of(c)->n;
    if (ev->prompt >= n)
        return;
    if (!c->prompt) {
        c->prompt = calloc((size_t)n, sizeof(*c->prompt));
        must(c->prompt);
        for (int i = 0; i < n; i++)
            c->prompt[i].n_top = -1;
    }
    c->prompt[ev->prompt] = ev->logprobs;
}

static void keep_logprobs(struct reply_choice *c, const struct logprobs *lp)
{
    c->logprob_sum += (double)lp->chosen.logprob;
    if (!c->reply->r->logprobs)
        return;
    c->token = grow(c->token, &c->token_room, (size_t)c->n_tokens + 1, sizeof(*c->token));
    c->token[c->n_tokens++] = (struct reply_token){answer_text_at(&c->text), c->chars, *lp};
}

static void keep_id(struct reply_choice *c, int token)
{
    if (!c->reply->r->return_ids)
        return;
    c->id = grow(c->id, &c->id_room, (size_t)c->n_ids + 1, sizeof(*c->id));
    c->id[c->n_ids++] = token;
}

size_t characters(const char *s, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        k += (s[i] & 0xC0) != 0x80;
    return k;
}

size_t token_chars(const struct reply_choice *c, int token)
{
    size_t n = 0;
    const char *s = tok_bytes(c->reply->m->tok, token, &n);
    return s ? characters(s, n) : 0;
}

static void take_token(struct reply_choice *c, const struct engine_event *ev)
{
    c->n_new++;
    keep_id(c, ev->token);
    if (ev->is_end)
        return;
    if (ev->logprobs.n_top >= 0)
        keep_logprobs(c, &ev->logprobs);
    answer_text_take(&c->text, ev->token);
    if (c->reply->r->logprobs)
        c->chars += token_chars(c, ev->token);
}

/* ------------------------------------------------------------------------------- the end */

const char *finish_reason(const struct reply_choice *c)
{
    bool cut = !c->text.stopped && (c->finish == FINISH_LENGTH || c->finish == FINISH_DEADLINE);
    return cut ? "length" : c->n_calls ? "tool_calls" : "stop";
}

/* Nothing more will be said: what was held back is settled, and a stream says why. */
static void close_choice(struct reply_choice *c)
{
    if (c->closed)
        return;
    c->closed = true;
    if (c->finish != FINISH_FAILED)
        answer_text_end(&c->text);
    while (c->text.stopped && c->n_tokens && c->token[c->n_tokens - 1].at >= c->text.stop_at)
        c->n_tokens--;
    if (c->reply->r->stream && c->finish != FINISH_FAILED)
        write_finish(c);
}

static const struct api_error failure = {
    .status = 500,
    .message = "The model could not finish this answer: it gave no finite numbers, or its ranks "
               "cannot be started again. See the server's log.",
    .code = "engine_failed"};

static void end_choice(struct reply_choice *c, const struct engine_event *ev, struct out *out)
{
    c->ended = true;
    if (!c->closed)
        c->finish = ev->finish;
    c->decode_s = ev->decode_s;
    if (c->finish == FINISH_FAILED && !c->reply->failed) {
        c->reply->failed = true;
        if (c->reply->r->stream)
            reply_error_frame(out, &failure);
    }
    close_choice(c);
}

static void take_times(struct reply_choice *c, const struct engine_event *ev)
{
    c->n_cached = ev->n_cached;
    c->n_drafted = ev->n_drafted;
    c->n_accepted = ev->n_accepted;
    c->queued_s = ev->queued_s;
    c->prefill_s = ev->prefill_s;
}

bool reply_event(struct reply *p, int number, const struct engine_event *ev, struct out *out)
{
    must(number >= 0 && number < p->n_choices);
    struct reply_choice *c = &p->choice[number];
    bool first = !c->n_new && ev->token >= 0 && ev->prompt < 0;
    p->to = out;
    if (c->ended)
        return false;
    if (ev->prompt >= 0)
        keep_prompt(c, ev);
    if (first || ev->finish != RUNNING)
        take_times(c, ev);
    if (ev->prompt < 0 && ev->token >= 0 && !c->closed) {
        if (p->r->stream && !c->begun)
            write_first(c);
        take_token(c, ev);
    }
    if (c->text.stopped)
        close_choice(c);
    if (ev->finish != RUNNING)
        end_choice(c, ev, out);
    return !c->text.stopped;
}

bool reply_done(const struct reply *p)
{
    for (int i = 0; i < p->n_choices; i++)
        if (!p->choice[i].ended)
            return false;
    return true;
}

struct reply_usage reply_usage(const struct reply *p)
{
    struct reply_usage u = {0};
    for (int i = 0; i < p->r->n_prompts; i++) {
        u.prompt_tok += p->r->prompt[i].n;
        u.cached_tok += p->choice[i * p->r->best_of].n_cached;
    }
    for (int i = 0; i < p->n_choices; i++) {
        u.new_tok += p->choice[i].n_new;
        u.reasoning_tok += p->choice[i].text.n_reasoning;
    }
    return u;
}

int reply_end(struct reply *p, struct out *out)
{
    must(reply_done(p));
    if (p->r->stream) {
        if (p->r->include_usage && !p->failed)
            write_usage(p, out);
        out_str(out, "data: [DONE]\n\n");
        return 200;
    }
    if (p->failed)
        reply_error(out, &failure);
    else
        write_body(p, out);
    return p->failed ? failure.status : 200;
}

char *prompt_text(const struct reply_choice *c, size_t *n)
{
    const struct api_prompt *p = prompt_of(c);
    char *s = p->text
                  ? strdup(p->text)
                  : tok_decode(c->reply->m->tok, p->tok, (size_t)p->n, c->reply->r->skip_special);
    must(s);
    *n = strlen(s);
    return s;
}
