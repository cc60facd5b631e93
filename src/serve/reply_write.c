/* reply_write.c - the JSON of replies: chunks of a stream and whole bodies. */
#include "serve/reply_choice.h"

static bool is_chat(const struct reply *p) { return p->r->kind == API_CHAT; }

static void member(struct out *o, const char *key, const char *s)
{
    out_key(o, key);
    out_string(o, s);
}

static void number(struct out *o, const char *key, long long v)
{
    out_key(o, key);
    out_int(o, v);
}

static void real(struct out *o, const char *key, double v)
{
    out_key(o, key);
    out_real(o, v);
}

static void ids(struct out *o, const char *key, const int *id, int n)
{
    out_key(o, key);
    out_str(o, "[");
    for (int i = 0; i < n; i++) {
        out_item(o);
        out_int(o, id[i]);
    }
    out_str(o, "]");
}

/* What every body and chunk begins with; the object stays open. */
static void head(const struct reply *p, bool chunk, struct out *o)
{
    out_str(o, "{");
    member(o, "id", p->id);
    member(o, "object",
           !is_chat(p) ? "text_completion"
           : chunk     ? "chat.completion.chunk"
                       : "chat.completion");
    number(o, "created", p->head.created);
    member(o, "model", p->m->n_names ? p->m->name[0] : "");
    member(o, "system_fingerprint", p->head.fingerprint);
}

/* ------------------------------------------------------------------------------- counts */

static void usage(const struct reply *p, struct out *o)
{
    struct reply_usage u = reply_usage(p);
    out_str(o, "{");
    number(o, "prompt_tokens", u.prompt_tok);
    number(o, "completion_tokens", u.new_tok);
    number(o, "total_tokens", u.prompt_tok + u.new_tok);
    out_fmt(o, ",\"prompt_tokens_details\":{\"cached_tokens\":%d}", u.cached_tok);
    out_fmt(o, ",\"completion_tokens_details\":{\"reasoning_tokens\":%d}}", u.reasoning_tok);
}

static void rate(struct out *o, const char *key, double n, double seconds)
{
    out_key(o, key);
    if (seconds > 0 && n > 0)
        out_real(o, n / seconds);
    else
        out_str(o, "null");
}

/* Milliseconds of the slowest choice; names as llama-server's, and the queue. */
static void timings(const struct reply *p, struct out *o)
{
    struct reply_usage u = reply_usage(p);
    double queued = 0, prefill = 0, decode = 0;
    int drafted = 0, accepted = 0, begun = 0;
    for (int i = 0; i < p->n_choices; i++) {
        const struct reply_choice *c = &p->choice[i];
        queued = c->queued_s > queued ? c->queued_s : queued;
        prefill = c->prefill_s > prefill ? c->prefill_s : prefill;
        decode = c->decode_s > decode ? c->decode_s : decode;
        drafted += c->n_drafted;
        accepted += c->n_accepted;
        begun += c->n_new > 0;
    }
    out_str(o, "{");
    real(o, "queue_ms", 1e3 * queued);
    number(o, "cache_n", u.cached_tok);
    number(o, "prompt_n", u.prompt_tok - u.cached_tok);
    real(o, "prompt_ms", 1e3 * prefill);
    rate(o, "prompt_per_second", u.prompt_tok - u.cached_tok, prefill);
    number(o, "predicted_n", u.new_tok);
    real(o, "predicted_ms", 1e3 * decode);
    rate(o, "predicted_per_second", u.new_tok - begun, decode); /* first tokens are prefill's */
    if (drafted) {
        number(o, "draft_n", drafted);
        number(o, "draft_n_accepted", accepted);
    }
    out_str(o, "}");
}

void write_counts(const struct reply *p, struct out *o)
{
    out_key(o, "usage");
    usage(p, o);
    out_key(o, "timings");
    timings(p, o);
}

/* ------------------------------------------------------------------------------- chunks */

/* "data: {head,"choices":[{"index":n," and, after the delta, the rest. */
static struct out *chunk_begin(struct reply_choice *c)
{
    struct out *o = c->reply->to;
    out_str(o, "data: ");
    head(c->reply, true, o);
    out_key(o, "choices");
    out_str(o, "[{");
    number(o, "index", c->number);
    return o;
}

/* Logprobs and ids of the tokens whose text is certain by now, or of all at the end. */
static void chunk_end(struct reply_choice *c, const char *reason)
{
    struct reply *p = c->reply;
    struct out *o = p->to;
    int n = reason ? c->n_tokens : 0;
    while (n < c->n_tokens && c->token[n].at < c->text.gone)
        n++;
    out_key(o, "logprobs");
    if (p->r->logprobs && (n || (p->r->echo && c->prompt)))
        write_logprobs(c, (struct span){0, n}, o);
    else
        out_str(o, "null");
    member(o, "finish_reason", reason);
    if (p->r->return_ids)
        ids(o, "token_ids", c->id, c->n_ids);
    out_str(o, "}]");
    if (p->r->include_usage)
        out_str(o, ",\"usage\":null");
    out_str(o, "}\n\n");
    if (n)
        memmove(c->token, c->token + n, (size_t)(c->n_tokens - n) * sizeof(*c->token));
    c->n_tokens -= n;
    c->n_ids = 0;
}

static void delta_call(const struct reply_choice *c, enum reply_part part, const char *s, size_t n,
                       struct out *o)
{
    const struct reply_call *call = &c->call[c->n_calls - 1];
    out_key(o, "tool_calls");
    out_str(o, "[{");
    number(o, "index", c->n_calls - 1);
    if (part == PART_CALL) {
        member(o, "id", call->id);
        member(o, "type", "function");
    }
    out_key(o, "function");
    out_str(o, "{");
    if (part == PART_CALL) {
        out_key(o, "name");
        out_text(o, s, n);
    }
    out_key(o, "arguments");
    out_text(o, s, part == PART_CALL ? 0 : n);
    out_str(o, "}}]");
}

void write_part(struct reply_choice *c, enum reply_part part, const char *s, size_t n)
{
    struct out *o = chunk_begin(c);
    if (!is_chat(c->reply)) {
        out_key(o, "text");
        out_text(o, s, n);
    } else {
        out_key(o, "delta");
        out_str(o, "{");
        if (part == PART_CONTENT || part == PART_REASONING) {
            out_key(o, part == PART_CONTENT ? "content" : "reasoning_content");
            out_text(o, s, n);
        } else {
            delta_call(c, part, s, n, o);
        }
        out_str(o, "}");
    }
    chunk_end(c, NULL);
}

void write_first(struct reply_choice *c)
{
    const struct api_prompt *p = prompt_of(c);
    const struct request *r = c->reply->r;
    c->begun = true;
    if (!is_chat(c->reply) && !r->echo && !r->return_ids)
        return;
    struct out *o = chunk_begin(c);
    if (r->return_ids)
        ids(o, "prompt_token_ids", p->tok, p->n);
    if (is_chat(c->reply)) {
        out_str(o, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"}");
    } else {
        size_t n = 0;
        char *text = r->echo ? prompt_text(c, &n) : NULL;
        out_key(o, "text");
        out_text(o, text, n);
        c->chars = characters(text, n);
        free(text);
    }
    chunk_end(c, NULL);
    free(c->prompt);
    c->prompt = NULL;
}

void write_finish(struct reply_choice *c)
{
    if (!c->begun)
        write_first(c);
    struct out *o = chunk_begin(c);
    out_str(o, is_chat(c->reply) ? ",\"delta\":{}" : ",\"text\":\"\"");
    chunk_end(c, finish_reason(c));
}

void write_usage(const struct reply *p, struct out *o)
{
    out_str(o, "data: ");
    head(p, true, o);
    out_str(o, ",\"choices\":[]");
    write_counts(p, o);
    out_str(o, "}\n\n");
}

/* ------------------------------------------------------------------------------- bodies */

static void calls(const struct reply_choice *c, struct out *o)
{
    out_key(o, "tool_calls");
    out_str(o, "[");
    for (int i = 0; i < c->n_calls; i++) {
        const struct reply_call *call = &c->call[i];
        out_item(o);
        out_str(o, "{");
        member(o, "id", call->id);
        member(o, "type", "function");
        out_str(o, ",\"function\":{");
        out_key(o, "name");
        out_text(o, call->name.at, call->name.n);
        out_key(o, "arguments");
        out_text(o, call->arguments.at, call->arguments.n);
        out_str(o, "}}");
    }
    out_str(o, "]");
}

static void message(const struct reply_choice *c, struct out *o)
{
    out_str(o, ",\"message\":{\"role\":\"assistant\"");
    out_key(o, "content");
    if (c->n_calls && !c->content.n)
        out_str(o, "null");
    else
        out_text(o, c->content.at, c->content.n);
    if (c->reasoning.n) {
        out_key(o, "reasoning_content");
        out_text(o, c->reasoning.at, c->reasoning.n);
    }
    if (c->n_calls)
        calls(c, o);
    out_str(o, ",\"refusal\":null}");
}

static void completion(const struct reply_choice *c, struct out *o)
{
    struct out all = {0};
    size_t n = 0;
    if (c->reply->r->echo) {
        char *prompt = prompt_text(c, &n);
        out_bytes(&all, prompt, n);
        free(prompt);
    }
    out_bytes(&all, c->content.at, c->content.n);
    out_key(o, "text");
    out_text(o, all.at, all.n);
    out_free(&all);
}

static void choice(const struct reply_choice *c, int index, struct out *o)
{
    const struct request *r = c->reply->r;
    out_item(o);
    out_str(o, "{");
    number(o, "index", index);
    if (is_chat(c->reply))
        message(c, o);
    else
        completion(c, o);
    out_key(o, "logprobs");
    if (r->logprobs)
        write_logprobs(c, (struct span){0, c->n_tokens}, o);
    else
        out_str(o, "null");
    member(o, "finish_reason", finish_reason(c));
    if (r->return_ids)
        ids(o, "token_ids", c->id, c->n_ids);
    if (!is_chat(c->reply) && r->return_ids)
        ids(o, "prompt_token_ids", prompt_of(c)->tok, prompt_of(c)->n);
    if (!is_chat(c->reply) && r->n_prompt_top >= 0) {
        out_key(o, "prompt_logprobs");
        write_prompt_logprobs(c, o);
    }
    out_str(o, "}");
}

static double likelihood(const struct reply_choice *c)
{
    return c->logprob_sum / max_int(c->text.n_tok, 1);
}

/* The rank of choice i among the best_of of its prompt; equals keep their order. */
static int rank_of(const struct reply *p, int i)
{
    int from = i - i % p->r->best_of, rank = 0;
    for (int k = from; k < from + p->r->best_of; k++) {
        double mine = likelihood(&p->choice[i]), other = likelihood(&p->choice[k]);
        rank += other > mine || (other == mine && k < i);
    }
    return rank;
}

static void choices(const struct reply *p, struct out *o)
{
    bool all = p->r->best_of == p->r->n;
    int index = 0;
    out_key(o, "choices");
    out_str(o, "[");
    for (int i = 0; i < p->n_choices; i++)
        if (all || rank_of(p, i) < p->r->n)
            choice(&p->choice[i], index++, o);
    out_str(o, "]");
}

void write_body(const struct reply *p, struct out *o)
{
    head(p, false, o);
    choices(p, o);
    write_counts(p, o);
    if (is_chat(p) && p->r->return_ids)
        ids(o, "prompt_token_ids", p->r->prompt->tok, p->r->prompt->n);
    if (is_chat(p) && p->r->n_prompt_top >= 0) {
        out_key(o, "prompt_logprobs");
        write_prompt_logprobs(p->choice, o);
    }
    out_str(o, "}");
}
