/* serve_help.h - for tests of serve/: the demo model's words as a served model, requests, events.
 */
#ifndef TANDEM_TEST_SERVE_HELP_H
#define TANDEM_TEST_SERVE_HELP_H

#include "serve/api.h"
#include "serve/reply.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct served {
    struct api_model model;
    struct tok *tok;
    struct chat *chat;
    int eos[1];
};

static const char *const served_names[] = {"demo", "demo-again"};

static inline int serve_up(void **state)
{
    static struct served s;
    struct err e;
    assert_int_equal(tok_load(SOURCE_DIR "/models/demo", &s.tok, &e), 0);
    assert_int_equal(chat_load(SOURCE_DIR "/models/demo", &s.chat, &e), 0);
    s.eos[0] = tok_eos(s.tok);
    s.model = (struct api_model){.name = served_names,
                                 .n_names = COUNT(served_names),
                                 .tok = s.tok,
                                 .chat = s.chat,
                                 .ctx = 256,
                                 .n_vocab = tok_n_vocab(s.tok),
                                 .sampling = api_sampling(NULL, true),
                                 .eos = s.eos,
                                 .n_eos = 1};
    *state = &s;
    return 0;
}

static inline int serve_down(void **state)
{
    struct served *s = *state;
    tok_free(s->tok);
    chat_free(s->chat);
    return 0;
}

/* A request that must be good, its prompts made; the caller frees it. */
static inline struct request asked(const struct served *s, enum api_kind kind, const char *body)
{
    struct request r;
    struct api_error e = {0};
    int rc = request_parse(kind, body, strlen(body), &s->model, &r, &e);
    rc = rc ? rc : request_prompts(&r, &s->model, &e);
    if (rc)
        fail_msg("%s: %s", body, e.message);
    return r;
}

/* ------------------------------------------------------------------------------- replies */

enum { MOST = 600 };

struct tokens {
    int id[MOST], n;
};

/* Tokens that spell the text, the longest first, none of them across the byte `cut`; `most` is the
 * longest used, so that 1 gives one for each byte. */
static inline struct tokens spell(const struct served *s, const char *text, size_t cut, size_t most)
{
    struct tokens t = {.n = 0};
    size_t all = strlen(text);
    for (size_t at = 0, best; at < all; at += best) {
        int id = -1;
        best = 0;
        for (int i = 0; i < s->model.n_vocab; i++) {
            size_t n = 0;
            const char *b = tok_bytes(s->tok, i, &n);
            bool fits = b && n > best && n <= most && n <= all - at && !tok_is_special(s->tok, i);
            if (fits && (at >= cut || at + n <= cut) && !memcmp(b, text + at, n))
                id = i, best = n;
        }
        assert_true(id >= 0 && t.n < MOST);
        t.id[t.n++] = id;
    }
    return t;
}

/* A token's made-up likelihood: enough to see which goes where. */
static inline struct logprobs likely(int token, int n_top)
{
    struct logprobs lp = {.n_top = n_top, .chosen = {token, -0.25f, 2}};
    for (int i = 0; i < n_top; i++)
        lp.top[i] =
            (struct token_logprob){i == 1 ? token : 10 + i, -0.125f * (float)(i + 1), i + 1};
    return lp;
}

static inline struct engine_event drawn(const struct request *r, int token)
{
    return (struct engine_event){.token = token,
                                 .prompt = -1,
                                 .logprobs = likely(token, r->n_top),
                                 .queued_s = 0.5,
                                 .prefill_s = 0.25};
}

static inline struct engine_event ended(enum finish why)
{
    return (struct engine_event){.token = -1,
                                 .prompt = -1,
                                 .finish = why,
                                 .logprobs = {.n_top = -1},
                                 .n_cached = 1,
                                 .queued_s = 0.5,
                                 .prefill_s = 0.25,
                                 .decode_s = 2};
}

static const struct reply_head head = {.number = 7, .created = 1700000000, .fingerprint = "plan"};

/* Feed every choice the tokens; as the server, cancel when the reply wants no more. */
static inline void feed(struct reply *p, const struct request *r, const struct tokens *t,
                        enum finish why, struct out *out)
{
    for (int c = 0; c < request_choices(r); c++) {
        bool more = true;
        for (int i = 0; i < t->n && more; i++) {
            struct engine_event ev = drawn(r, t->id[i]);
            more = reply_event(p, c, &ev, out);
        }
        struct engine_event end = ended(more ? why : FINISH_CANCELLED);
        reply_event(p, c, &end, out);
    }
}

static inline json_t *parsed(const char *s, size_t n)
{
    json_error_t e;
    json_t *o = json_loadb(s, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    if (!o)
        fail_msg("%s at %d of %.*s", e.text, e.position, (int)n, s);
    return o;
}

#endif
