/* job.c - see job.h. */
#include "engine/job.h"
#include "run/mailbox.h"
#include "sched/guess.h"

#include <math.h>

/* ------------------------------------------------------------------------------- checking, copying
 */

static int check_tokens(const int *tok, int n, int n_vocab, const char *what, struct err *e)
{
    for (int i = 0; i < n; i++)
        if (tok[i] < 0 || tok[i] >= n_vocab)
            return err_set(e, -EINVAL, "%s: token id %d is outside the model's vocabulary of %d",
                           what, tok[i], n_vocab);
    return 0;
}

/* Bad words of one token are banned always; so many may be banned at once. */
static int most_bias(const struct engine_request *a)
{
    return a->n_bias + a->n_bad + a->n_eos + a->n_stop;
}

static int check(const struct engine_request *a, const struct plan *p, struct err *e)
{
    int rc, n_vocab = p->model.n_vocab;
    if (a->n_prompt < 1)
        return err_set(e, -EINVAL, "the prompt is empty");
    if (a->n_prompt >= p->ctx)
        return err_set(e, -EINVAL,
                       "the prompt has %d tokens, but the context holds %d and needs room for the "
                       "answer: shorten it or serve with a larger --ctx",
                       a->n_prompt, p->ctx);
    if (most_bias(a) > SAMPLE_BIAS)
        return err_set(e, -EINVAL,
                       "logit_bias, bad_words and stop tokens name %d tokens together, more than "
                       "%d",
                       most_bias(a), SAMPLE_BIAS);
    if (a->client < 0 || a->client >= SCHED_CLIENTS || a->n_top > SAMPLE_TOP ||
        a->n_prompt_top > SAMPLE_TOP)
        return err_set(e, -EINVAL, "at most %d clients and %d logprobs", SCHED_CLIENTS, SAMPLE_TOP);
    if ((rc = sampling_check(&a->sampling, e)) ||
        (rc = check_tokens(a->prompt, a->n_prompt, n_vocab, "prompt", e)) ||
        (rc = check_tokens(a->only, a->n_only, n_vocab, "allowed_token_ids", e)))
        return rc;
    for (int i = 0; i < a->n_bias; i++)
        if ((rc = check_tokens(&a->bias[i].token, 1, n_vocab, "logit_bias", e)))
            return rc;
    return 0;
}

static void *copy(struct pool *pool, const void *from, int n, size_t size)
{
    return n > 0 ? memcpy(pool_get(pool, (size_t)n * size), from, (size_t)n * size) : NULL;
}

static void copy_arrays(struct job *r, const struct plan *p)
{
    struct engine_request *a = &r->ask;
    struct pool *pool = &r->pool;
    struct token_run *bad = copy(pool, a->bad, a->n_bad, sizeof(*a->bad));
    r->bias = pool_get(pool, (size_t)max_int(most_bias(a), 1) * sizeof(*r->bias));
    if (a->n_bias)
        memcpy(r->bias, a->bias, (size_t)a->n_bias * sizeof(*r->bias));
    a->bias = r->bias;
    a->eos = copy(pool, a->eos, a->n_eos, sizeof(int));
    a->stop = copy(pool, a->stop, a->n_stop, sizeof(int));
    for (int i = 0; i < a->n_bad; i++)
        bad[i].tok = copy(pool, bad[i].tok, bad[i].n, sizeof(int));
    a->bad = bad;
    if (a->n_only)
        r->only = pool_get(pool, allow_words(p) * sizeof(*r->only));
    for (int i = 0; i < a->n_only; i++)
        r->only[a->only[i] / 64] |= UINT64_C(1) << a->only[i] % 64;
    a->only = NULL;
}

struct job *job_new(const struct engine_request *ask, const struct plan *p, struct err *e)
{
    if (check(ask, p, e))
        return NULL;
    int n_new = min_int(max_int(ask->max_new, 0), p->ctx - ask->n_prompt);
    struct job *r = calloc(1, sizeof(*r));
    struct seq *q = seq_new(ask->n_prompt + n_new);
    if (!r || !q) {
        free(r);
        seq_free(q);
        err_set(e, -ENOMEM, "out of memory");
        return NULL;
    }
    r->ask = *ask;
    r->ask.max_new = n_new;
    r->seq = q;
    copy_arrays(r, p);
    r->ask.prompt = q->tok;
    memcpy(q->tok, ask->prompt, (size_t)ask->n_prompt * sizeof(int));
    q->owner = r;
    q->n_prompt = q->n_tok = ask->n_prompt;
    q->want = ask->n_prompt_top >= 0 ? 0 : ask->n_prompt - (n_new > 0);
    q->priority = ask->priority, q->client = ask->client, q->salt = ask->salt;
    return r;
}

void job_free(struct job *r)
{
    if (!r)
        return;
    if (r->ask.guide.ctx && r->ask.guide.free)
        r->ask.guide.free(r->ask.guide.ctx);
    seq_free(r->seq);
    pool_free(&r->pool);
    free(r);
}

/* ------------------------------------------------------------------------------- drawing */

static void ban(struct job *r, int *n, int token)
{
    r->bias[(*n)++] = (struct token_bias){token, -INFINITY};
}

/* The last token of every bad run whose beginning has just been written, and the ends while the
 * answer is too short. Returns the entries of r->bias that count now. */
static int ban_now(struct job *r)
{
    const struct engine_request *a = &r->ask;
    const struct seq *q = r->seq;
    int n = a->n_bias;
    for (int i = 0; i < a->n_bad; i++) {
        int head = a->bad[i].n - 1;
        if (head >= 0 && head <= r->n_new &&
            !memcmp(q->tok + q->n_tok - head, a->bad[i].tok, (size_t)head * sizeof(int)))
            ban(r, &n, a->bad[i].tok[head]);
    }
    if (r->n_new < a->min_new) {
        for (int i = 0; i < a->n_eos; i++)
            ban(r, &n, a->eos[i]);
        for (int i = 0; i < a->n_stop; i++)
            ban(r, &n, a->stop[i]);
    }
    return n;
}

/* What the guide and the list of allowed tokens leave; NULL: everything. */
static const uint64_t *allowed_now(struct job *r, const struct plan *p, uint64_t *allow)
{
    const struct engine_guide *g = &r->ask.guide;
    if (!g->ctx)
        return r->only;
    memset(allow, 0, allow_words(p) * sizeof(*allow));
    if (!g->allow(g->ctx, allow))
        return r->only;
    for (size_t i = 0; r->only && i < allow_words(p); i++)
        allow[i] &= r->only[i];
    return allow;
}

static bool needs_past(const struct sampling *s)
{
    return s->repetition != 1 || s->presence != 0 || s->frequency != 0;
}

struct draw job_draw(struct job *r, const struct plan *p, int pos, uint64_t *allow)
{
    const struct engine_request *a = &r->ask;
    struct seq *q = r->seq;
    struct draw d = {.sampling = a->sampling, .rules.n_prompt = q->n_prompt};
    if (pos + 1 < q->n_prompt) {
        d.is_given = d.logprobs = true;
        d.given = q->tok[pos + 1];
        d.n_top = a->n_prompt_top;
        return d;
    }
    if (needs_past(&a->sampling))
        d.rules.seen = q->tok, d.rules.n_seen = pos + 1;
    d.rules.bias = r->bias;
    d.rules.n_bias = ban_now(r);
    d.rules.allow = allowed_now(r, p, allow);
    d.logprobs = a->n_top >= 0;
    d.n_top = a->n_top;
    return d;
}

bool job_follows(const struct job *r, int draft)
{
    const struct engine_request *a = &r->ask;
    return !draft && !a->guide.ctx && !needs_past(&a->sampling) && !a->n_bad &&
           r->n_new >= a->min_new;
}

static bool is_among(int token, const int *list, int n)
{
    for (int i = 0; i < n; i++)
        if (list[i] == token)
            return true;
    return false;
}

enum finish job_take(struct job *r, int token, bool *is_end)
{
    const struct engine_request *a = &r->ask;
    r->n_new++;
    bool complete = a->guide.ctx && !a->guide.take(a->guide.ctx, token);
    *is_end = is_among(token, a->stop, a->n_stop) ||
              (!a->ignore_eos && is_among(token, a->eos, a->n_eos));
    if (*is_end || complete)
        return FINISH_STOP;
    return r->n_new >= a->max_new ? FINISH_LENGTH : RUNNING;
}

int job_guesses(const struct job *r, int most)
{
    const struct engine_request *a = &r->ask;
    const struct seq *q = r->seq;
    if (a->guide.ctx || a->n_bad || r->n_new < a->min_new ||
        (r->n_drafted > 64 && r->n_accepted * 8 < r->n_drafted))
        return 0;
    return max_int(min_int(most, q->n_max - 1 - q->n_tok), 0);
}

void job_guess(struct job *r, int most)
{
    struct seq *q = r->seq;
    most = job_guesses(r, most);
    q->n_guess = most ? guess_from_past(q->tok, q->n_tok, q->tok + q->n_tok, most) : 0;
}
