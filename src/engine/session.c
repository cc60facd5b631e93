/* session.c - see session.h. There is no prefill and no decode, only tokens whose keys and values
 * are not stored yet: a new prompt has many, a running answer one. */
#include "engine/session.h"

#include <time.h>

struct session {
    struct team *team;
    const struct plan *plan;
    struct pool pool;
    int *tok, n_tok; /* the sequence so far */
    int n_done;      /* tokens whose keys and values are stored */
    int deaths;      /* of ranks, with no step between them */
    int *pos, *slot, *seq, *page, *out;
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct session *session_new(struct team *t, const struct plan *p)
{
    struct session *s = calloc(1, sizeof(*s));
    must(s);
    int pages = (p->ctx + KV_PAGE - 1) / KV_PAGE;
    size_t ints = (size_t)p->max_tok * sizeof(int);
    s->team = t, s->plan = p;
    s->tok = pool_get(&s->pool, ((size_t)p->ctx + 1) * sizeof(int));
    s->pos = pool_get(&s->pool, ints);
    s->slot = pool_get(&s->pool, ints);
    s->seq = pool_get(&s->pool, ints); /* all zero: one sequence */
    s->out = pool_get(&s->pool, ints);
    s->page = pool_get(&s->pool, (size_t)pages * sizeof(int));
    for (int i = 0; i < pages; i++)
        s->page[i] = i;
    return s;
}

void session_free(struct session *s)
{
    if (!s)
        return;
    pool_free(&s->pool);
    free(s);
}

/* After the team has failed, and said why: new ranks on the same memory, which run again what was
 * on its way. Once between two steps, but where ranks only seemed to hang; there the team knows
 * when to give up. */
static int recover(struct session *s, int why, struct err *e)
{
    if (why != -ETIMEDOUT && s->deaths++)
        return -EIO;
    fprintf(stderr, "tandem: %s; starting the ranks again\n", e->text);
    return team_again(s->team, e) ? -EIO : 0;
}

static int64_t submit_batch(struct session *s, const struct batch *b, const struct draw *draw,
                            struct err *e)
{
    int64_t step;
    int rc = 0;
    while (!rc && (step = team_submit(s->team, b, draw, e)) < 0)
        rc = recover(s, (int)step, e);
    return rc ? rc : step;
}

static int wait_step(struct session *s, int64_t step, struct team_result *to, struct err *e)
{
    int rc, again = 0;
    while (!again && (rc = team_wait(s->team, step, to, e)))
        again = recover(s, rc, e);
    s->deaths = again ? s->deaths : 0;
    return again;
}

/* Submit the next n tokens; out rows are wanted from the last n_out of them. */
static int64_t submit(struct session *s, int n, int n_out, const struct draw *draw, struct err *e)
{
    for (int i = 0; i < n; i++) {
        int p = s->n_done + i;
        s->pos[i] = p;
        s->slot[i] = s->page[p / KV_PAGE] * KV_PAGE + p % KV_PAGE;
    }
    for (int i = 0; i < n_out; i++)
        s->out[i] = n - n_out + i;
    struct batch b = {.n_tok = n,
                      .n_seq = 1,
                      .n_out = n_out,
                      .tok = s->tok + s->n_done,
                      .pos = s->pos,
                      .slot = s->slot,
                      .seq = s->seq,
                      .page = s->page,
                      .stride = (s->plan->ctx + KV_PAGE - 1) / KV_PAGE,
                      .out = s->out};
    int64_t step = submit_batch(s, &b, draw, e);
    if (step > 0)
        s->n_done += n;
    return step;
}

/* Store all tokens and draw the next one. Chunks follow each other without waiting, so that every
 * stage of a pipeline has work. */
static int advance(struct session *s, const struct draw *draw, int *token, struct err *e)
{
    int64_t step = 0;
    while (s->n_done < s->n_tok) {
        int n = min_int(s->n_tok - s->n_done, s->plan->max_tok);
        step = submit(s, n, s->n_done + n == s->n_tok, draw, e);
        if (step < 0)
            return (int)step;
    }
    struct team_result result;
    int rc = wait_step(s, step, &result, e);
    if (rc)
        return rc;
    *token = result.token[0];
    if (*token < 0)
        return err_set(e, -EIO,
                       "the model gave no finite logits: its weights or the chosen --dtype do not "
                       "fit it");
    return 0;
}

/* Keep what is stored of a common prefix; at least the last token is computed again, for its
 * logits. */
static int set_prompt(struct session *s, const int *ids, int n, struct err *e)
{
    int same = 0;
    if (n < 1)
        return err_set(e, -EINVAL, "the prompt is empty");
    if (n >= s->plan->ctx)
        return err_set(e, -E2BIG,
                       "the prompt has %d tokens, but the context holds %d and needs room for the "
                       "answer: shorten it or choose a larger --ctx (the model allows %d)",
                       n, s->plan->ctx, s->plan->model.n_ctx);
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->plan->model.n_vocab)
            return err_set(e, -EINVAL, "token id %d is outside the model's vocabulary of %d",
                           ids[i], s->plan->model.n_vocab);
    while (same < n - 1 && same < s->n_done && s->tok[same] == ids[same])
        same++;
    memcpy(s->tok, ids, (size_t)n * sizeof(int));
    s->n_tok = n;
    s->n_done = same;
    return 0;
}

static bool needs_history(const struct sampling *s)
{
    return s->repetition != 1 || s->presence != 0 || s->frequency != 0;
}

int session_run(struct session *s, const int *ids, int n, int max_new,
                const struct sampling *sampling, session_token_fn *fn, void *arg,
                struct session_stats *stats, struct err *e)
{
    int rc = set_prompt(s, ids, n, e);
    *stats = (struct session_stats){.prompt_tok = n, .cached_tok = s->n_done};
    if (rc)
        return rc;
    double begin = seconds();
    while (stats->new_tok < max_new && s->n_tok < s->plan->ctx) {
        struct draw draw = {.sampling = *sampling, .rules.n_prompt = n};
        int token = -1;
        if (needs_history(sampling))
            draw.rules.seen = s->tok, draw.rules.n_seen = s->n_tok;
        rc = advance(s, &draw, &token, e);
        if (rc)
            return rc;
        s->tok[s->n_tok++] = token;
        if (!stats->new_tok++)
            stats->prefill_s = seconds() - begin;
        stats->decode_s = seconds() - begin - stats->prefill_s;
        if (!fn(arg, token))
            break;
    }
    return 0;
}

int session_logits(struct session *s, const int *ids, int n, float *to, struct err *e)
{
    size_t row = (size_t)s->plan->model.n_vocab;
    int chunk = min_int(s->plan->max_tok, s->plan->max_out), rc = set_prompt(s, ids, n, e);
    struct draw *draw = pool_get(&s->pool, (size_t)chunk * sizeof(*draw));
    for (int i = 0; i < chunk; i++)
        draw[i] = (struct draw){.sampling = sampling_greedy};
    s->n_done = 0;
    while (!rc && s->n_done < n) {
        struct team_result result;
        int at = s->n_done, now = min_int(chunk, n - at);
        int64_t step = submit(s, now, now, draw, e);
        rc = step < 0 ? (int)step : wait_step(s, step, &result, e);
        if (!rc)
            memcpy(to + (size_t)at * row, result.logits, (size_t)now * row * sizeof(float));
    }
    return rc;
}
