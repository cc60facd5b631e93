/* replica.c - see replica.h. */
#include "predict/replica.h"
#include "predict/price.h"
#include "predict/timeline.h"
#include "sched/route.h"

#include <math.h>

void replica_open(struct replica *r, int number, const struct replicas *all, struct arena *a)
{
    const struct plan *p = all->plan;
    struct sched_limits l =
        drive_limits(p, &(struct sched_limits){
                            .no_batch = true, .none_alike = all->none_alike, .ahead = all->ahead});
    struct drive d;
    drive_open(&d, p, &l, all->ask->tpot_s, a);
    if (!a->base)
        return;
    d.watch = all->ask->watch;
    *r = (struct replica){.number = number,
                          .drive = d,
                          .next = INFINITY,
                          .jitter =
                              draw_of(all->ask->load->work.seed, DRAW_JITTER, (uint64_t)number)};
    r->inbox_end = &r->inbox;
    r->given_up_end = &r->given_up;
}

void sim_request_free(struct sim_request *q)
{
    if (q)
        seq_free(q->seq);
    free(q);
}

/* ------------------------------------------------------------------------------- figures */

struct queue_state replica_queue(const struct replica *r)
{
    struct sched_figures f;
    double step_s = pace_step(&r->drive.pace, 0);
    sched_figures(r->drive.sched, &f);
    return (struct queue_state){.waiting = f.waiting + r->n_inbox,
                                .waiting_tok = f.waiting_tok + r->inbox_tok,
                                .step_s = step_s,
                                .token_s = pace_step(&r->drive.pace, 1) - step_s,
                                .max_tok = r->drive.max_tok};
}

double replica_load(const struct replica *r)
{
    struct sched_figures f;
    sched_figures(r->drive.sched, &f);
    return route_load(f.waiting_tok + r->inbox_tok, f.running, f.waiting + r->n_inbox,
                      r->drive.max_tok);
}

/* ------------------------------------------------------------------------------- requests */

void replica_submit(struct replica *r, struct sim_request *q, double now)
{
    q->next = NULL;
    *r->inbox_end = q;
    r->inbox_end = &q->next;
    r->n_inbox++;
    r->inbox_tok += (size_t)q->seq->n_prompt;
    if (isinf(r->next))
        r->next = now;
}

void replica_give_up(struct replica *r, struct sim_request *q)
{
    q->ended = q->given_up = true;
    q->next_given_up = NULL;
    *r->given_up_end = q;
    r->given_up_end = &q->next_given_up;
}

/* It gets no more rows, and is freed when none is on the way and nobody names it any more. */
static void leave(struct replica *r, struct sim_request *q)
{
    if (!drive_remove(&r->drive, q->seq)) {
        q->next = r->leaving;
        r->leaving = q;
        return;
    }
    seq_free(q->seq);
    q->seq = NULL;
    if (!q->given_up)
        free(q);
}

static void take_inbox(struct replica *r)
{
    for (struct sim_request *q = r->inbox, *next; q; q = next) {
        next = q->next;
        drive_add(&r->drive, q->seq);
    }
    r->inbox = NULL, r->inbox_end = &r->inbox;
    r->n_inbox = 0, r->inbox_tok = 0;
    for (struct sim_request *q = r->given_up, *next; q; q = next) {
        next = q->next_given_up;
        q->given_up = false;
        if (!q->seq)
            free(q);
        else if (!q->seq->leaving)
            leave(r, q);
    }
    r->given_up = NULL, r->given_up_end = &r->given_up;
}

/* ------------------------------------------------------------------------------- a step */

static double jitter(struct replica *r, double deviation)
{
    if (deviation <= 0)
        return 1;
    return exp(deviation * draw_normal(&r->jitter) - deviation * deviation / 2);
}

static struct work work_of_step(const struct model *m, const struct sched_step *step, int flight)
{
    struct work w = {.flight = flight};
    for (int i = 0; i < step->n_seq; i++)
        work_add(&w, m, step->part[i].pos, step->part[i].n, step->part[i].n_out);
    return w;
}

/* The step goes through control and the stages, each of which does one thing at a time. Returns
 * when it comes out. */
static double pass(struct replica *r, const struct replicas *all, const struct sched_step *step,
                   double now)
{
    const struct plan *p = all->plan;
    struct work w = work_of_step(&p->model, step, r->drive.n_flying);
    struct step_price price;
    pricer_step(all->pricer, &w, &price);
    double factor = jitter(r, all->ask->jitter);
    double at = fmax(now, r->control_free) + factor * price.host_s;
    r->control_free = at;
    for (int i = 0; i < p->pp; i++) {
        double begun = fmax(at, r->stage_free[i]), took = factor * price.stage_s[i];
        at = r->stage_free[i] = begun + took;
        r->busy[i] += took;
        timeline_step(all->timeline, r->number, i, begun, at, step);
        at += i + 1 < p->pp ? factor * price.hop_s : 0;
    }
    return at;
}

static void send(struct replica *r, const struct replicas *all, const struct sched_step *step,
                 double now)
{
    const int before = r->drive.n_flying - 2;
    const double begun = r->drive.ahead && before >= 0 ? fmax(now, r->flying[before].ends) : now;
    struct sim_flying f;
    if (all->ask->step_s) {
        f.seconds = all->ask->step_s(all->ask->arg, r->number, step);
        f.ends = begun + f.seconds;
    } else {
        f.ends = pass(r, all, step, now);
        f.seconds = f.ends - begun;
    }
    must(f.ends > begun);
    r->flying[before + 1] = f;
    r->steps++;
    r->rows += (uint64_t)step->batch.n_tok;
}

static void restart(struct replica *r, const struct replicas *all, double now)
{
    drive_restart(&r->drive);
    for (struct sim_request *q = r->leaving, *next; q; q = next) {
        next = q->next;
        r->leaving = next;
        leave(r, q);
    }
    r->dead = false;
    r->restarting = true;
    r->deaths++;
    r->next = now + all->ask->restart_s;
    timeline_death(all->timeline, r->number, now, r->next);
}

static void send_steps(struct replica *r, const struct replicas *all, double now)
{
    const struct sched_step *step;
    while ((step = drive_next(&r->drive))) {
        if (r->dead) { /* only now it is noticed */
            restart(r, all, now);
            return;
        }
        send(r, all, step, now);
    }
    r->next = r->drive.n_flying ? r->flying[0].ends : INFINITY;
}

/* ------------------------------------------------------------------------------- it comes back */

static void forget_leaving(struct replica *r, struct sim_request *q)
{
    struct sim_request **at = &r->leaving;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
}

static void take_part(struct replica *r, const struct replicas *all, const struct sched_part *part,
                      double now)
{
    struct seq *seq = part->seq;
    struct sim_request *q = seq->owner;
    if (seq->leaving) {
        forget_leaving(r, q);
        leave(r, q);
        return;
    }
    if (!part->draws)
        return;
    if (q->first > 0)
        tally_add(all->gaps, now - q->last);
    else
        q->first = now;
    q->last = now;
    drive_append(&r->drive, seq, seq->tok ? seq->tok[seq->n_tok] : 0);
    if (seq->n_tok < seq->n_max)
        return;
    if (!q->ended)
        all->finished(all->arg, q, now);
    q->ended = true;
    leave(r, q);
}

static void take_step(struct replica *r, const struct replicas *all, double now)
{
    struct sim_flying f = r->flying[0];
    const struct sched_step *step = r->drive.flying[0];
    for (int i = 0; i < step->n_seq; i++) {
        all->keep[i] = step->part[i].n;
        __builtin_prefetch(step->part[i].seq->owner); /* for take_part(); all come at once */
    }
    drive_commit(&r->drive, all->keep, f.seconds);
    memmove(r->flying, r->flying + 1, (size_t)r->drive.n_flying * sizeof(*r->flying));
    for (int i = 0; i < step->n_seq; i++)
        take_part(r, all, &step->part[i], now);
}

/* ------------------------------------------------------------------------------- turns */

void replica_kill(struct replica *r, const struct replicas *all, double now)
{
    if (r->restarting || r->dead)
        return;
    if (r->drive.n_flying)
        restart(r, all, now);
    else
        r->dead = true;
}

void replica_turn(struct replica *r, const struct replicas *all)
{
    double now = r->next;
    struct sched_figures f;
    if (r->drive.n_flying && !r->restarting)
        take_step(r, all, now);
    if (r->restarting) {
        r->control_free = now;
        for (int i = 0; i < all->plan->pp; i++)
            r->stage_free[i] = now;
    }
    r->restarting = false;
    take_inbox(r);
    send_steps(r, all, now);
    sched_figures(r->drive.sched, &f);
    r->pages_most = max_int(r->pages_most, f.pages_used);
    timeline_queue(all->timeline, r->number, now, &f);
}

void replica_close(struct replica *r)
{
    for (struct sim_request *q = r->given_up, *next; q; q = next) {
        next = q->next_given_up;
        if (!q->seq || !q->seq->leaving)
            sim_request_free(q);
    }
    for (struct sim_request *q = r->leaving, *next; q; q = next) {
        next = q->next;
        sim_request_free(q);
    }
}
