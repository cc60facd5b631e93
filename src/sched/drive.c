/* drive.c - see drive.h. */
#include "sched/drive.h"

static int least(int bound, int wish) { return wish ? min_int(bound, wish) : bound; }

struct sched_limits drive_limits(const struct plan *p, const struct sched_limits *wish)
{
    struct sched_limits l = *wish;
    l.max_tok = least(p->max_tok, wish->max_tok);
    l.max_run = least(p->max_seq, wish->max_run);
    l.max_out = least(p->max_out, wish->max_out);
    l.flight = p->pp;
    l.ahead = wish->ahead && p->pp == 1;
    return l;
}

void drive_open(struct drive *d, const struct plan *p, const struct sched_limits *l, double tpot_s,
                struct arena *a)
{
    *d = (struct drive){.tpot_s = tpot_s, .max_tok = p->max_tok, .pp = p->pp, .ahead = l->ahead};
    d->sched = sched_new(p, l, a);
}

static void tell(const struct drive *d, struct drive_event ev)
{
    if (d->watch.fn)
        d->watch.fn(d->watch.arg, &ev);
}

void drive_add(struct drive *d, struct seq *q)
{
    d->live++;
    sched_add(d->sched, q);
    tell(d, (struct drive_event){.deed = DRIVE_ADD, .seq = q});
}

struct sched_step *drive_next(struct drive *d)
{
    if (d->n_flying >= d->pp && !(d->ahead && d->n_flying == d->pp && sched_may_lead(d->sched)))
        return NULL;
    int rows =
        pace_prompt_rows(&d->pace, d->answering, d->live - d->answering, d->tpot_s, d->max_tok);
    struct sched_step *step = sched_next(d->sched, rows);
    if (!step)
        return NULL;
    d->flying[d->n_flying++] = step;
    tell(d, (struct drive_event){.deed = DRIVE_STEP, .step = step, .prompt_rows = rows});
    return step;
}

/* With stages, steps overlap: their own times say little. */
struct sched_step *drive_commit(struct drive *d, const int *keep, double seconds)
{
    must(d->n_flying > 0);
    struct sched_step *step = d->flying[0];
    if (d->pp == 1)
        pace_learn(&d->pace, step->batch.n_tok, seconds);
    sched_commit(d->sched, step, keep);
    d->n_flying--;
    memmove(d->flying, d->flying + 1, (size_t)d->n_flying * sizeof(struct sched_step *));
    tell(d, (struct drive_event){.deed = DRIVE_COMMIT, .step = step, .seconds = seconds});
    return step;
}

static bool answers(const struct seq *q) { return q->n_tok > q->n_prompt; }

void drive_append(struct drive *d, struct seq *q, int token)
{
    d->answering += !answers(q);
    if (q->tok)
        q->tok[q->n_tok] = token;
    q->n_tok++;
    q->want = q->n_tok - 1;
}

bool drive_remove(struct drive *d, struct seq *q)
{
    if (!q->leaving)
        tell(d, (struct drive_event){.deed = DRIVE_REMOVE, .seq = q});
    if (!sched_remove(d->sched, q))
        return false;
    d->live--;
    d->answering -= answers(q);
    return true;
}

void drive_restart(struct drive *d)
{
    d->n_flying = 0;
    sched_restart(d->sched);
    tell(d, (struct drive_event){.deed = DRIVE_RESTART});
}

/* ------------------------------------------------------------------------------- who is refused */

double queue_ttft(const struct queue_state *s, double tok)
{
    return s->step_s * (1 + tok / s->max_tok) + s->token_s * tok;
}

enum queue_answer queue_asked(const struct queue_state *s, const struct queue_limits *l,
                              int n_prompt)
{
    size_t tok = s->waiting_tok + (size_t)n_prompt;
    if (l->waiting && s->waiting >= l->waiting)
        return QUEUE_TOO_MANY;
    if (!s->waiting)
        return QUEUE_TAKES;
    if (l->waiting_tok && tok > l->waiting_tok)
        return QUEUE_TOO_MANY_TOK;
    if (l->ttft_s > 0 && queue_ttft(s, (double)tok) > l->ttft_s)
        return QUEUE_TOO_LATE;
    return QUEUE_TAKES;
}
