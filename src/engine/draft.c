/* draft.c - see draft.h. */
#include "engine/draft.h"
#include "sched/blocks.h"

struct drafted {
    int n_done; /* tokens whose keys and values are stored, of the sequence or of the guesses */
    int n_tok;  /* tokens of the sequence when it was last asked about */
    int guess[SCHED_GUESSES];
    int n_page, page[];
};

struct drafter {
    struct plan plan;
    struct team *team; /* NULL: it has died */
    struct blocks blocks;
    struct pool pool;
    int stride, *tok, *pos, *slot, *seq, *page, *out;
    struct draw *draw;
    struct draft_ask **row; /* whose row of logits it is */
};

int drafter_start(struct drafter **out, const struct draft_model *m, int n_vocab, struct err *e)
{
    const struct plan *p = m->plan;
    *out = NULL;
    if (p->model.n_vocab != n_vocab)
        return err_set(e, -EINVAL,
                       "the draft model has %d words, the model %d: they must share a tokenizer",
                       p->model.n_vocab, n_vocab);
    struct drafter *d = calloc(1, sizeof(*d));
    must(d);
    struct arena a = {0};
    size_t rows = (size_t)p->max_tok * sizeof(int);
    d->plan = *p;
    d->stride = (p->ctx + KV_PAGE - 1) / KV_PAGE;
    blocks_init(&d->blocks, p->pages, &a);
    a = (struct arena){.base = pool_get(&d->pool, a.used), .size = a.used};
    blocks_init(&d->blocks, p->pages, &a);
    d->tok = pool_get(&d->pool, rows);
    d->pos = pool_get(&d->pool, rows);
    d->slot = pool_get(&d->pool, rows);
    d->seq = pool_get(&d->pool, rows);
    d->out = pool_get(&d->pool, rows);
    d->page = pool_get(&d->pool, (size_t)p->max_seq * (size_t)d->stride * sizeof(int));
    d->draw = pool_get(&d->pool, (size_t)p->max_seq * sizeof(*d->draw));
    d->row = pool_get(&d->pool, (size_t)p->max_seq * sizeof(struct draft_ask *));
    int rc = team_start(&d->team, &d->plan, m->store, &m->team, e);
    if (rc) {
        drafter_stop(d);
        return err_add(e, rc, "draft model");
    }
    *out = d;
    return 0;
}

void drafter_stop(struct drafter *d)
{
    if (!d)
        return;
    team_stop(d->team);
    pool_free(&d->pool);
    free(d);
}

void drafter_forget(struct drafter *d, struct drafted **remember)
{
    struct drafted *m = *remember;
    if (!m)
        return;
    while (m->n_page > 0)
        blocks_drop(&d->blocks, m->page[--m->n_page]);
    free(m);
    *remember = NULL;
}

/* ------------------------------------------------------------------------------- what is stored */

/* What was stored for guesses counts as far as they turned out right. */
static void keep_right(struct drafted *m, const struct seq *q)
{
    int right = m->n_tok;
    while (right < m->n_done && right < q->n_tok && q->tok[right] == m->guess[right - m->n_tok])
        right++;
    m->n_done = min_int(m->n_done, min_int(right, q->n_tok - 1));
    m->n_tok = q->n_tok;
}

/* Room for what is asked; false: this sequence gets no guesses now. */
static bool prepare(struct drafter *d, struct draft_ask *a)
{
    struct seq *q = a->seq;
    int need = (q->n_tok + a->most + KV_PAGE - 1) / KV_PAGE;
    q->n_guess = 0;
    if (a->most < 1 || need > d->stride)
        return false;
    if (!*a->remember) {
        *a->remember = calloc(1, sizeof(**a->remember) + (size_t)d->stride * sizeof(int));
        must(*a->remember);
    }
    struct drafted *m = *a->remember;
    while (m->n_page < need) {
        int page = blocks_take(&d->blocks);
        if (page < 0)
            return false;
        m->page[m->n_page++] = page;
    }
    keep_right(m, q);
    return true;
}

/* ------------------------------------------------------------------------------- steps */

/* Put rows of `a` from what is stored up to `end` into the batch. */
static void put(struct drafter *d, struct batch *b, const struct draft_ask *a, int end)
{
    struct drafted *m = *a->remember;
    memcpy(d->page + (size_t)b->n_seq * (size_t)d->stride, m->page,
           (size_t)m->n_page * sizeof(int));
    for (; m->n_done < end; m->n_done++, b->n_tok++) {
        int i = b->n_tok, p = m->n_done;
        d->tok[i] = a->seq->tok[p];
        d->pos[i] = p;
        d->slot[i] = m->page[p / KV_PAGE] * KV_PAGE + p % KV_PAGE;
        d->seq[i] = b->n_seq;
    }
    b->n_seq++;
}

/* After the last of its tokens, a guess is drawn. */
static void want(struct drafter *d, struct batch *b, struct draft_ask *a)
{
    d->out[b->n_out] = b->n_tok - 1;
    d->row[b->n_out] = a;
    d->draw[b->n_out++] = (struct draw){.sampling = a->sampling};
}

static bool step(struct drafter *d, struct batch *b)
{
    struct err e;
    struct team_result res;
    int64_t number = team_submit(d->team, b, d->draw, &e);
    int rc = number < 0 ? (int)number : -EINTR;
    while (rc == -EINTR)
        rc = team_wait(d->team, number, &res, &e);
    if (rc) {
        fprintf(stderr, "tandem: the draft model: %s; serving goes on without it\n", e.text);
        team_stop(d->team);
        d->team = NULL;
        return false;
    }
    for (int i = 0; i < b->n_out; i++) {
        struct draft_ask *a = d->row[i];
        struct seq *q = a->seq;
        if (res.token[i] < 0) {
            a->most = 0;
            continue;
        }
        (*a->remember)->guess[q->n_guess] = res.token[i];
        q->tok[q->n_tok + q->n_guess++] = res.token[i];
    }
    return true;
}

/* One more step of those that have not as many guesses as they want. False: there are none, or it
 * failed. */
static bool advance(struct drafter *d, struct draft_ask *ask, int n)
{
    struct batch b = {.tok = d->tok,
                      .pos = d->pos,
                      .slot = d->slot,
                      .seq = d->seq,
                      .page = d->page,
                      .stride = d->stride,
                      .out = d->out};
    for (int i = 0; i < n; i++) {
        struct draft_ask *a = &ask[i];
        int known = a->seq->n_tok + a->seq->n_guess, room = d->plan.max_tok - b.n_tok;
        if (a->seq->n_guess >= a->most || room < 1 || b.n_seq == d->plan.max_seq)
            continue;
        put(d, &b, a, min_int(known, (*a->remember)->n_done + room));
        if ((*a->remember)->n_done == known)
            want(d, &b, a);
    }
    return b.n_tok > 0 && step(d, &b);
}

void drafter_guess(struct drafter *d, struct draft_ask *ask, int n)
{
    for (int i = 0; i < n; i++)
        if (!d->team || !prepare(d, &ask[i]))
            ask[i].most = ask[i].seq->n_guess = 0;
    while (d->team && advance(d, ask, n))
        ;
    if (!d->team)
        for (int i = 0; i < n; i++)
            ask[i].seq->n_guess = 0;
}
