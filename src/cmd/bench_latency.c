/* bench_latency.c - `tandem bench latency`: how long steps take, and which share of the machine's
 * limit that is. The limits are measured in turns with the steps, on the same cores; a share is
 * that of one turn, and the median of the turns is shown. */
#include "cmd/cmd.h"
#include "cmd/measure.h"
#include "cmd/open.h"
#include "cmd/step_profile.h"
#include "engine/team.h"
#include "predict/count.h"
#include "predict/price.h"

#include <time.h>

enum { POINTS_MAX = LIST_MAX + LIST_MAX * LIST_MAX };

/* As asked; one rank with one thread; as asked, with sums cut as little as the layout allows. */
enum { ASKED, ONE, UNCUT, LAYOUTS };

/* One line of the table: a prompt of `last + 1` tokens in chunks, or one decode step. */
struct point {
    bool prompt;
    struct step_shape shape;
    struct batch *step; /* [n_step] */
    int n_step;
    int repeat; /* how often in one turn */
};

struct layout {
    struct plan plan;
    struct team *team;
    struct limits *limits;
    double flops[POINTS_MAX], bytes[POINTS_MAX];
    double (*seconds)[ROUNDS_MAX]; /* [point] */
    double (*limit)[ROUNDS_MAX];   /* [point] the least it could take, by this turn's limits */
    double read[ROUNDS_MAX], math[ROUNDS_MAX];
    double start_s; /* weights read, packed and with the ranks */
};

struct bench {
    const struct options *o;
    struct link link; /* with --link */
    struct opened at;
    struct pool pool;
    int n_point;
    struct point point[POINTS_MAX];
    struct layout *layout[LAYOUTS];          /* NULL: not wanted */
    struct step_profile profile[POINTS_MAX]; /* of the layout as asked, with --profile */
    double predicted[POINTS_MAX];            /* seconds; with --predict */
};

/* ------------------------------------------------------------------------------- what to time */

static void add_point(struct bench *b, bool prompt, int n_seq, int last)
{
    must(b->n_point < POINTS_MAX);
    b->point[b->n_point++] =
        (struct point){.prompt = prompt, .shape = {n_seq, prompt ? last + 1 : 1, last}};
}

static int choose_points(struct bench *b, struct err *e)
{
    int prompt[LIST_MAX], batch[LIST_MAX], context[LIST_MAX], np, nb, nc;
    int rc = read_numbers("prompt", b->o->prompt, prompt, &np, e);
    if (!rc)
        rc = read_numbers("batch", b->o->batch, batch, &nb, e);
    if (!rc)
        rc = read_numbers("context", b->o->context, context, &nc, e);
    if (rc)
        return rc;
    for (int i = 0; i < np; i++)
        add_point(b, true, 1, prompt[i] - 1);
    for (int c = 0; c < nc; c++)
        for (int i = 0; i < nb; i++)
            add_point(b, false, batch[i], context[c]);
    return b->n_point ? 0 : err_set(e, CMD_USAGE, "nothing to measure: all lists are empty");
}

/* The chunks of a prompt, or one decode step. */
static void make_steps(struct bench *b, struct point *pt, int chunk)
{
    struct step_shape s = pt->shape;
    pt->n_step = pt->prompt ? (s.n_new + chunk - 1) / chunk : 1;
    pt->step = pool_get(&b->pool, (size_t)pt->n_step * sizeof(*pt->step));
    for (int i = 0, done = 0; i < pt->n_step; i++) {
        int n = pt->prompt ? min_int(chunk, s.n_new - done) : 1;
        int last = pt->prompt ? done + n - 1 : s.last;
        pt->step[i] = step_batch((struct step_shape){s.n_seq, n, last}, &b->pool);
        done += n;
    }
}

/* ------------------------------------------------------------------------------- layouts */

/* The same step limits and number formats on one rank. */
static int make_one(struct bench *b, struct plan *one, struct err *e)
{
    const struct plan *p = &b->at.plan;
    struct plan_ask ask = plan_like(p);
    ask.tp = ask.pp = 1, ask.max_seq = 0;
    int rc = plan_make(one, &p->model, &ask, e);
    one->core[0] = p->core[0];
    return rc;
}

/* What a program that promises nothing computes: a slice adds up its columns in one go. Not a plan
 * for use, so plan_check() would refuse it. */
static int make_uncut(struct bench *b, struct plan *p, struct err *e)
{
    if (b->at.packed)
        return err_set(
            e, CMD_USAGE,
            "--beside-uncut: %.200s is packed for sums of %d terms; name the folder that "
            "it was packed from, and --dtype",
            b->at.folder, p->shares);
    if (p->tp & (p->tp - 1))
        return err_set(e, CMD_USAGE, "--beside-uncut: --tp %d is not a power of two", p->tp);
    p->shares = p->tp;
    for (int i = 0; i <= p->tp; i++)
        p->cut[i] = i;
    return 0;
}

static void count_points(const struct bench *b, struct layout *l)
{
    for (int i = 0; i < b->n_point; i++) {
        const struct point *pt = &b->point[i];
        for (int s = 0; s < pt->n_step; s++) {
            const struct batch *step = &pt->step[s];
            struct step_shape shape = {step->n_seq, step->n_tok / step->n_seq,
                                       step->pos[step->n_tok - 1]};
            for (int r = 0; r < plan_ranks(&l->plan); r++) {
                struct step_cost cost;
                count_step(&l->plan, r, shape, &cost);
                l->flops[i] += (double)cost.flops, l->bytes[i] += (double)cost.bytes;
            }
        }
    }
}

/* What the layout as asked should take, by a hardware profile. */
static int predict(struct bench *b, const struct plan *p, struct err *e)
{
    struct hardware *h = pool_get(&b->pool, sizeof(*h));
    int rc = hardware_load(b->o->predict, h, e);
    if (rc)
        return rc;
    hardware_slower(h, b->link);
    struct pricer *pricer = pricer_new(p, h, e);
    if (!pricer)
        return -EINVAL;
    for (int i = 0; i < b->n_point; i++) {
        const struct point *pt = &b->point[i];
        struct work *w = pool_get(&b->pool, (size_t)pt->n_step * sizeof(*w));
        for (int k = 0; k < pt->n_step; k++) {
            const struct batch *s = &pt->step[k];
            w[k] = work_of(&p->model, s->n_seq, s->n_tok / s->n_seq, s->pos[s->n_tok - 1]);
        }
        b->predicted[i] = pricer_chain(pricer, w, pt->n_step);
    }
    pricer_free(pricer);
    return 0;
}

static int start_layout(struct bench *b, int which, struct err *e)
{
    struct team_opts opts = {.isa = b->at.isa,
                             .packed = b->at.packed,
                             .gpus = open_gpus(&b->at),
                             .host = &b->at.host,
                             .link = b->o->link ? &b->link : NULL,
                             .profile = b->o->profile && which == ASKED};
    struct layout *l = b->layout[which] = pool_get(&b->pool, sizeof(*l));
    size_t rounds = (size_t)b->n_point * sizeof(l->seconds[0]);
    l->plan = b->at.plan;
    int rc = which == ONE ? make_one(b, &l->plan, e) : 0;
    for (int i = 0; i < b->n_point; i++)
        plan_widen(&l->plan, b->point[i].shape.n_seq, b->point[i].shape.last + 1);
    if (!rc)
        rc = plan_check(&l->plan, e);
    if (!rc && which == UNCUT)
        rc = make_uncut(b, &l->plan, e);
    if (rc)
        return rc;
    l->seconds = pool_get(&b->pool, rounds);
    l->limit = pool_get(&b->pool, rounds);
    count_points(b, l);
    if (which == ASKED && b->o->predict)
        rc = predict(b, &l->plan, e);
    if (rc)
        return rc;
    l->limits = b->at.gpus.n ? NULL : plan_limits(&l->plan, &b->at.host, e); /* of cores only */
    if (!l->limits && !b->at.gpus.n)
        return -ENOMEM;
    const double begin = seconds();
    rc = team_start(&l->team, &l->plan, b->at.store, &opts, e);
    l->start_s = seconds() - begin;
    return rc;
}

static int start(struct bench *b, struct err *e)
{
    const bool wanted[LAYOUTS] = {true, b->o->beside_one, b->o->beside_uncut};
    int rc = 0;
    for (int i = 0; i < b->n_point; i++)
        make_steps(b, &b->point[i], max_int(b->at.plan.max_tok, b->point[i].shape.n_seq));
    for (int i = 0; !rc && i < LAYOUTS; i++)
        if (wanted[i])
            rc = start_layout(b, i, e);
    return rc;
}

/* ------------------------------------------------------------------------------- timing */

static int run_point(struct layout *l, const struct point *pt, struct draw *draw, double *took,
                     struct err *e)
{
    double begin = seconds();
    int64_t step = 0;
    for (int k = 0; k < pt->repeat; k++) {
        for (int i = 0; i < pt->n_step; i++) {
            step = team_submit(l->team, &pt->step[i], draw, e);
            if (step < 0)
                return (int)step;
        }
        struct team_result result;
        int rc = team_wait(l->team, step, &result, e);
        if (rc)
            return rc;
    }
    *took = (seconds() - begin) / pt->repeat;
    return 0;
}

/* One turn: the limits of a layout's cores, then the step. */
static int turn(struct bench *b, struct layout *l, int i, int round, struct draw *draw,
                struct err *e)
{
    const long until_idle_ranks_sleep_ns = 20000000;
    nanosleep(&(struct timespec){.tv_nsec = until_idle_ranks_sleep_ns}, NULL);
    double read = l->limits ? limits_read(l->limits) : 0;
    double math = l->limits ? limits_math(l->limits, isa_math(b->at.isa, l->plan.weight)) : 0;
    double least = read > 0 ? l->bytes[i] / read : 0, compute = math > 0 ? l->flops[i] / math : 0;
    l->limit[i][round] = least > compute ? least : compute;
    l->read[round] += read / b->n_point;
    l->math[round] += math / b->n_point;
    struct step_profile before = step_profile_begin(l->team, &l->plan);
    int rc = run_point(l, &b->point[i], draw, &l->seconds[i][round], e);
    int n = b->point[i].repeat;
    if (l == b->layout[ASKED])
        step_profile_add(&b->profile[i], l->team, &l->plan, &before, n, n * l->seconds[i][round]);
    return rc;
}

/* Every step on every layout, one right after the other, and not always in the same order. */
static int one_round(struct bench *b, int round, struct draw *draw, struct err *e)
{
    int rc = 0;
    for (int k = 0; k < LAYOUTS; k++)
        if (b->layout[k])
            b->layout[k]->read[round] = b->layout[k]->math[round] = 0;
    for (int i = 0; i < b->n_point; i++)
        for (int k = 0; !rc && k < LAYOUTS; k++) {
            struct layout *l = b->layout[(k + round) % LAYOUTS];
            rc = l ? turn(b, l, i, round, draw, e) : 0;
        }
    return rc;
}

/* Two first rounds warm up and say how often a quick step must run to be timed. */
static int measure(struct bench *b, struct err *e)
{
    const double least = 0.2;
    struct draw *draw = pool_get(&b->pool, (size_t)b->layout[ASKED]->plan.max_seq * sizeof(*draw));
    int rc = 0;
    for (int i = 0; i < b->layout[ASKED]->plan.max_seq; i++)
        draw[i].sampling = sampling_greedy;
    for (int i = 0; i < b->n_point; i++)
        b->point[i].repeat = 1;
    for (int warm = 0; !rc && warm < 2; warm++)
        rc = one_round(b, 0, draw, e);
    for (int i = 0; !rc && i < b->n_point; i++) {
        double n = least / b->layout[ASKED]->seconds[i][0];
        b->point[i].repeat = n > 1000 ? 1000 : n < 1 ? 1 : (int)n;
    }
    memset(b->profile, 0, sizeof(b->profile));
    for (int r = 0; !rc && r < b->o->rounds; r++)
        rc = one_round(b, r, draw, e);
    return rc;
}

/* ------------------------------------------------------------------------------- the table */

struct line {
    char name[40];
    struct rounds ms, share;     /* time; limit over time */
    double predicted_ms, off;    /* predicted over measured, less 1; ms 0: not asked for */
    double tok_s, gb_s, gflop_s; /* by the median */
    double one_ms, faster, allowed, reached; /* beside one rank; 0: not measured */
    struct rounds uncut, cost; /* ms with uncut sums, time over that; 0: not measured */
};

static struct line line_of(const struct bench *b, int i)
{
    const struct layout *l = b->layout[ASKED], *one = b->layout[ONE], *uncut = b->layout[UNCUT];
    const struct point *pt = &b->point[i];
    int n = b->o->rounds;
    struct rounds s = rounds_of(l->seconds[i], n);
    struct line to = {.ms = {1e3 * s.median, 1e3 * s.least, 1e3 * s.most},
                      .share = rounds_quotient(l->limit[i], l->seconds[i], n),
                      .tok_s = pt->shape.n_seq * pt->shape.n_new / s.median,
                      .gb_s = 1e-9 * l->bytes[i] / s.median,
                      .gflop_s = 1e-9 * l->flops[i] / s.median};
    if (pt->prompt)
        snprintf(to.name, sizeof(to.name), "prompt of %d", pt->shape.n_new);
    else
        snprintf(to.name, sizeof(to.name), "decode %d at %d", pt->shape.n_seq, pt->shape.last);
    if (one) {
        to.one_ms = 1e3 * rounds_of(one->seconds[i], n).median;
        to.faster = rounds_quotient(one->seconds[i], l->seconds[i], n).median;
        to.allowed = rounds_quotient(one->limit[i], l->limit[i], n).median;
        to.reached = rounds_quotient(l->limit[i], l->seconds[i], n).median /
                     rounds_quotient(one->limit[i], one->seconds[i], n).median;
    }
    if (b->o->predict)
        to.predicted_ms = 1e3 * b->predicted[i], to.off = to.predicted_ms / to.ms.median - 1;
    if (uncut)
        to.uncut = rounds_of(uncut->seconds[i], n),
        to.cost = rounds_quotient(l->seconds[i], uncut->seconds[i], n);
    return to;
}

static void print_head(const struct bench *b)
{
    const struct plan *p = &b->layout[ASKED]->plan;
    enum math math = isa_math(b->at.isa, p->weight);
    char size[80];
    printf("%s, %s in %s: pp %d, tp %d%s, %d threads a rank, kernels %s\n", p->model.arch,
           open_parameters(size, p), num_name(p->weight), p->pp, p->tp, p->sp ? ", sp" : "",
           p->threads, open_kernels(&b->at));
    for (int i = 0; i <= ONE; i++) {
        struct layout *l = b->layout[i];
        if (!l || !l->limits)
            continue;
        struct rounds read = rounds_of(l->read, b->o->rounds);
        int cores = plan_cores(&l->plan);
        printf("%d core%s at most: reading %.1f GB/s (%.1f to %.1f), %s %.0f GFLOP/s\n", cores,
               cores == 1 ? "" : "s", 1e-9 * read.median, 1e-9 * read.least, 1e-9 * read.most,
               math_name(math), 1e-9 * rounds_of(l->math, b->o->rounds).median);
    }
    printf("\n%-20s %9s %19s %9s %7s %8s %9s%s%s%s\n", "step", "median ms", "least to most",
           "tokens/s", "GB/s", "GFLOP/s", "of limit",
           b->o->predict ? "  predicted ms   off by" : "",
           b->layout[ONE] ? "   one core ms  faster  cores allow  reached" : "",
           b->layout[UNCUT] ? "  uncut sums ms  same bits cost    least to most  by the best" : "");
}

static void print_text(const struct bench *b)
{
    print_head(b);
    for (int i = 0; i < b->n_point; i++) {
        struct line l = line_of(b, i);
        printf("%-20s %9.2f %8.2f to %7.2f %9.1f %7.1f %8.1f", l.name, l.ms.median, l.ms.least,
               l.ms.most, l.tok_s, l.gb_s, l.gflop_s);
        if (l.share.median > 0)
            printf(" %7.0f %%", 100 * l.share.median);
        else /* nobody measured it */
            printf(" %9s", "-");
        if (b->o->predict)
            printf(" %13.2f %+6.1f %%", l.predicted_ms, 100 * l.off);
        if (b->layout[ONE])
            printf(" %13.2f %7.2f %12.2f %6.0f %%", l.one_ms, l.faster, l.allowed, 100 * l.reached);
        if (b->layout[UNCUT])
            printf(" %13.2f %+12.1f %% %+6.1f to %+6.1f %+9.1f %%", 1e3 * l.uncut.median,
                   100 * l.cost.median - 100, 100 * l.cost.least - 100, 100 * l.cost.most - 100,
                   0.1 * l.ms.least / l.uncut.least - 100);
        putchar('\n');
    }
    for (int i = 0; b->o->profile && i < b->n_point; i++)
        step_profile_print(&b->profile[i], line_of(b, i).name);
}

static json_t *line_json(const struct line *l)
{
    json_t *o =
        json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "step", l->name, "ms", l->ms.median,
                  "least_ms", l->ms.least, "most_ms", l->ms.most, "tokens_per_s", l->tok_s, "gb_s",
                  l->gb_s, "gflop_s", l->gflop_s, "of_limit", l->share.median);
    if (l->predicted_ms > 0)
        json_object_update_new(
            o, json_pack("{s:f, s:f}", "predicted_ms", l->predicted_ms, "off_by", l->off));
    if (l->one_ms > 0)
        json_object_update_new(o, json_pack("{s:f, s:f, s:f, s:f}", "one_rank_ms", l->one_ms,
                                            "faster", l->faster, "cores_allow", l->allowed,
                                            "reached", l->reached));
    if (l->cost.median > 0)
        json_object_update_new(o, json_pack("{s:f, s:f, s:f, s:f, s:f}", "uncut_ms",
                                            1e3 * l->uncut.median, "uncut_least_ms",
                                            1e3 * l->uncut.least, "same_bits_cost",
                                            l->cost.median - 1, "same_bits_least",
                                            l->cost.least - 1, "same_bits_most", l->cost.most - 1));
    return o;
}

static void print_json(const struct bench *b)
{
    json_t *steps = json_array(), *limits = json_array();
    for (int i = 0; i < b->n_point; i++) {
        struct line l = line_of(b, i);
        json_t *step = line_json(&l);
        if (b->o->profile)
            json_object_set_new(step, "profile", step_profile_json(&b->profile[i]));
        json_array_append_new(steps, step);
    }
    for (int i = 0; i <= ONE; i++) {
        const struct layout *l = b->layout[i];
        if (l && l->limits)
            json_array_append_new(
                limits, json_pack("{s:i, s:f, s:f}", "cores", plan_cores(&l->plan), "read_gb_s",
                                  1e-9 * rounds_of(l->read, b->o->rounds).median, "math_gflop_s",
                                  1e-9 * rounds_of(l->math, b->o->rounds).median));
    }
    const struct layout *asked = b->layout[ASKED];
    json_t *all = json_pack("{s:o, s:f, s:f, s:i, s:o, s:o}", "plan", plan_to_json(&asked->plan),
                            "start_s", asked->start_s, "weight_bytes",
                            (double)plan_weight_bytes(&asked->plan, PLAN_WHOLE), "rounds",
                            b->o->rounds, "limits", limits, "steps", steps);
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
}

int cmd_bench_latency(const struct options *o, struct err *e)
{
    struct bench b = {.o = o};
    int rc = choose_points(&b, e);
    if (!rc && o->link)
        rc = read_link(o->link, &b.link, e);
    if (rc)
        return rc;
    rc = open_model(&b.at, o, o->n_word ? o->word[0] : NULL, e);
    if (rc)
        return rc;
    rc = start(&b, e);
    if (!rc)
        rc = measure(&b, e);
    if (!rc && o->json)
        print_json(&b);
    else if (!rc)
        print_text(&b);
    for (int i = 0; i < LAYOUTS; i++)
        if (b.layout[i]) {
            team_stop(b.layout[i]->team);
            limits_close(b.layout[i]->limits);
        }
    pool_free(&b.pool);
    open_close(&b.at);
    return rc;
}
