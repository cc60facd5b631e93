/* reply_logprobs.c - how likely tokens were, in OpenAI's two shapes and vLLM's for prompts. */
#include "serve/reply_choice.h"

struct bytes {
    const char *at;
    size_t n;
};

static struct bytes piece_of(const struct reply_choice *c, int token)
{
    struct bytes p = {0};
    p.at = tok_bytes(c->reply->m->tok, token, &p.n);
    return p.at ? p : (struct bytes){"", 0};
}

/* ------------------------------------------------------------------------------- chat */

/* "token", "logprob", "bytes" as members; bytes that are no text are U+FFFD in the token. */
static void chat_token(const struct reply_choice *c, const struct token_logprob *t, struct out *o)
{
    struct bytes piece = piece_of(c, t->token);
    out_key(o, "token");
    out_text(o, piece.at, piece.n);
    out_key(o, "logprob");
    out_real(o, (double)t->logprob);
    out_key(o, "bytes");
    out_str(o, "[");
    for (size_t i = 0; i < piece.n; i++) {
        out_item(o);
        out_int(o, (unsigned char)piece.at[i]);
    }
    out_str(o, "]");
}

static void chat_entry(const struct reply_choice *c, const struct logprobs *lp, struct out *o)
{
    out_item(o);
    out_str(o, "{");
    chat_token(c, &lp->chosen, o);
    out_key(o, "top_logprobs");
    out_str(o, "[");
    for (int i = 0; i < lp->n_top; i++) {
        out_item(o);
        out_str(o, "{");
        chat_token(c, &lp->top[i], o);
        out_str(o, "}");
    }
    out_str(o, "]}");
}

static void chat_shape(const struct reply_choice *c, struct span tokens, struct out *o)
{
    out_str(o, "{\"content\":[");
    for (int i = tokens.lo; i < tokens.hi; i++)
        chat_entry(c, &c->token[i].lp, o);
    out_str(o, "],\"refusal\":null}");
}

/* ------------------------------------------------------------------------------- completions */

/* A token as the older shape names it; bytes that are no text as "bytes:\xe2\x80". */
static void name_token(const struct reply_choice *c, int token, struct out *to)
{
    struct bytes piece = piece_of(c, token);
    bool text = out_is_text(piece.at, piece.n);
    if (text)
        out_bytes(to, piece.at, piece.n);
    else
        out_str(to, "bytes:");
    for (size_t i = 0; !text && i < piece.n; i++)
        out_fmt(to, "\\x%02x", (unsigned char)piece.at[i]);
}

static void put_name(const struct reply_choice *c, int token, struct out *o)
{
    struct out name = {0};
    name_token(c, token, &name);
    out_text(o, name.at, name.n);
    out_free(&name);
}

/* Two tokens may have one text, but an object has each key once: the likelier one stays. */
static bool is_named(const struct reply_choice *c, const struct token_logprob *t, int n, int token)
{
    bool found = false;
    struct out mine = {0}, other = {0};
    name_token(c, token, &mine);
    for (int i = 0; i < n && !found; i++) {
        other.n = 0;
        name_token(c, t[i].token, &other);
        found = mine.n == other.n && (!mine.n || !memcmp(mine.at, other.at, mine.n));
    }
    out_free(&mine);
    out_free(&other);
    return found;
}

static void put_top(const struct reply_choice *c, const struct logprobs *lp, struct out *o)
{
    out_str(o, "{");
    for (int i = 0; i <= lp->n_top; i++) {
        const struct token_logprob *t = i < lp->n_top ? &lp->top[i] : &lp->chosen;
        if (is_named(c, lp->top, i, t->token))
            continue;
        out_item(o);
        put_name(c, t->token, o);
        out_str(o, ":");
        out_real(o, (double)t->logprob);
    }
    out_str(o, "}");
}

/* One row of the parallel lists: of the echoed prompt (lp n_top -1: unknown), or of the answer. */
struct row {
    int token;
    size_t chars;
    const struct logprobs *lp;
};

static struct row row(const struct reply_choice *c, int i, int n_prompt, size_t prompt_chars)
{
    if (i < n_prompt)
        return (struct row){prompt_of(c)->tok[i], 0, &c->prompt[i]};
    const struct reply_token *t = &c->token[i - n_prompt];
    return (struct row){t->lp.chosen.token, prompt_chars + t->chars, &t->lp};
}

static void put_column(const struct reply_choice *c, int column, const struct row *at, int n,
                       struct out *o)
{
    static const char *const names[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    out_key(o, names[column]);
    out_str(o, "[");
    for (int i = 0; i < n; i++) {
        const struct logprobs *lp = at[i].lp;
        out_item(o);
        if (column == 0)
            put_name(c, at[i].token, o);
        else if (column == 3)
            out_int(o, (long long)at[i].chars);
        else if (lp->n_top < 0)
            out_str(o, "null");
        else if (column == 1)
            out_real(o, (double)lp->chosen.logprob);
        else
            put_top(c, lp, o);
    }
    out_str(o, "]");
}

static void completion_shape(const struct reply_choice *c, struct span tokens, struct out *o)
{
    int n_prompt = c->reply->r->echo && c->prompt ? prompt_of(c)->n : 0;
    int n = n_prompt + len(tokens);
    size_t chars = 0;
    struct row *at = calloc((size_t)n + 1, sizeof(*at));
    must(at);
    for (int i = 0; i < n; i++) {
        at[i] = row(c, i < n_prompt ? i : i + tokens.lo, n_prompt, chars);
        if (i < n_prompt) {
            at[i].chars = chars;
            chars += token_chars(c, at[i].token);
        }
    }
    out_str(o, "{");
    for (int column = 0; column < 4; column++)
        put_column(c, column, at, n, o);
    out_str(o, "}");
    free(at);
}

void write_logprobs(const struct reply_choice *c, struct span tokens, struct out *o)
{
    if (c->reply->r->kind == API_CHAT)
        chat_shape(c, tokens, o);
    else
        completion_shape(c, tokens, o);
}

/* ------------------------------------------------------------------------------- prompts */

static void prompt_token(const struct reply_choice *c, const struct token_logprob *t, struct out *o)
{
    struct bytes piece = piece_of(c, t->token);
    out_item(o);
    out_fmt(o, "\"%d\":{", t->token);
    out_key(o, "logprob");
    out_real(o, (double)t->logprob);
    out_key(o, "rank");
    out_int(o, t->rank);
    out_key(o, "decoded_token");
    out_text(o, piece.at, piece.n);
    out_str(o, "}");
}

/* The first token has none: nothing stands before it. */
void write_prompt_logprobs(const struct reply_choice *c, struct out *o)
{
    out_str(o, "[");
    for (int i = 0; i < prompt_of(c)->n; i++) {
        const struct logprobs *lp = c->prompt ? &c->prompt[i] : NULL;
        bool listed = false;
        out_item(o);
        if (!lp || lp->n_top < 0) {
            out_str(o, "null");
            continue;
        }
        out_str(o, "{");
        for (int k = 0; k < lp->n_top; k++) {
            prompt_token(c, &lp->top[k], o);
            listed = listed || lp->top[k].token == lp->chosen.token;
        }
        if (!listed)
            prompt_token(c, &lp->chosen, o);
        out_str(o, "}");
    }
    out_str(o, "]");
}
