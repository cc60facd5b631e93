/* bench_throughput.c - `tandem bench throughput`: what the engine gives to so many requests at
 * once, each with a prompt of so many tokens. A turn of one line of the table is
 *
 *   1. prompts that were never seen, one token drawn after each: their tokens, by the time until
 * the last request has its first token;
 *   2. the same requests again, their prompts in the cache, so that all run nearly from the first
 * to the last token: what each gets after its first token, summed.
 *
 * Steps alone, beside what the cores allow, are the business of bench_latency.c. */
#include "cmd/cmd.h"
#include "cmd/measure.h"
#include "cmd/open.h"
#include "engine/engine.h"

#include <pthread.h>

enum { POINTS_MAX = LIST_MAX * LIST_MAX, BATCH_MAX = 1024 };

struct point {
    int batch, context;
    double prompt[ROUNDS_MAX], decode[ROUNDS_MAX]; /* tokens/s */
};

struct bench {
    const struct options *o;
    struct opened at;
    struct engine *engine;
    int n_point;
    struct point *point;
    int *tok; /* one prompt */
    uint64_t drawn;

    pthread_mutex_t lock;
    pthread_cond_t bell;
    bool rung; /* events wait */
};

/* Requests that were submitted together, each for max_new tokens. */
struct wave {
    int n, n_ended, n_failed, max_new;
    double first_s; /* until the last of them had its first token */
    double rate;    /* tokens/s after the first tokens, of all together */
};

/* ------------------------------------------------------------------------------- requests */

static void wake(void *arg)
{
    struct bench *b = arg;
    pthread_mutex_lock(&b->lock);
    b->rung = true;
    pthread_cond_signal(&b->bell);
    pthread_mutex_unlock(&b->lock);
}

static void wait_for_events(struct bench *b)
{
    pthread_mutex_lock(&b->lock);
    while (!b->rung)
        pthread_cond_wait(&b->bell, &b->lock);
    b->rung = false;
    pthread_mutex_unlock(&b->lock);
}

static void take_event(void *arg, const struct engine_event *ev)
{
    struct wave *w = arg;
    double first_s = ev->queued_s + ev->prefill_s;
    if (ev->finish == RUNNING)
        return;
    w->n_ended++;
    w->n_failed += ev->finish != FINISH_LENGTH;
    w->first_s = first_s > w->first_s ? first_s : w->first_s;
    w->rate += ev->decode_s > 0 ? (w->max_new - 1) / ev->decode_s : 0;
}

/* Prompt number i of a turn: random words (an LCG of Knuth's), so that nobody begins alike. */
static void make_prompt(const struct bench *b, uint64_t turn, int i, int n)
{
    uint64_t x = turn * BATCH_MAX + (uint64_t)i + 1;
    for (int k = 0; k < n; k++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        b->tok[k] = (int)((x >> 33) % (uint64_t)b->at.plan.model.n_vocab);
    }
}

static int submit(struct bench *b, const struct point *p, uint64_t turn, struct wave *w,
                  struct err *e)
{
    int rc = 0;
    uint64_t id;
    for (int i = 0; !rc && i < p->batch; i++) {
        struct engine_request r = {.prompt = b->tok,
                                   .n_prompt = p->context,
                                   .max_new = w->max_new,
                                   .sampling = sampling_greedy,
                                   .ignore_eos = true,
                                   .n_top = -1,
                                   .n_prompt_top = -1};
        make_prompt(b, turn, i, p->context);
        rc = engine_submit(b->engine, &r, &id, e);
        w->n += !rc;
    }
    return rc;
}

static int run_wave(struct bench *b, const struct point *p, uint64_t turn, struct wave *w,
                    struct err *e)
{
    int rc = submit(b, p, turn, w, e);
    while (!rc && w->n_ended < w->n) {
        wait_for_events(b);
        engine_events(b->engine, take_event, w);
        if (w->n_failed)
            rc = err_set(e, -EIO, "bench throughput: %d of %d requests failed", w->n_failed, w->n);
    }
    return rc;
}

static int turn(struct bench *b, struct point *p, int round, struct err *e)
{
    struct wave first = {.max_new = 1}, again = {.max_new = b->o->new_tokens};
    uint64_t number = b->drawn++;
    int rc = run_wave(b, p, number, &first, e);
    if (!rc)
        rc = run_wave(b, p, number, &again, e);
    if (rc)
        return rc;
    p->prompt[round] = (double)p->batch * p->context / first.first_s;
    p->decode[round] = again.rate;
    return 0;
}

/* ------------------------------------------------------------------------------- all */

static int choose_points(struct bench *b, struct pool *pool, struct err *e)
{
    int batch[LIST_MAX], context[LIST_MAX], nb, nc;
    int rc = read_numbers("batch", b->o->batch, batch, &nb, e);
    if (!rc)
        rc = read_numbers("context", b->o->context, context, &nc, e);
    if (rc)
        return rc;
    b->point = pool_get(pool, POINTS_MAX * sizeof(*b->point));
    for (int c = 0; c < nc; c++)
        for (int i = 0; i < nb; i++)
            if (batch[i] <= BATCH_MAX)
                b->point[b->n_point++] = (struct point){.batch = batch[i], .context = context[c]};
            else
                rc = err_set(e, CMD_USAGE, "--batch %d: at most %d requests run at once", batch[i],
                             BATCH_MAX);
    if (!rc && !b->n_point)
        rc = err_set(e, CMD_USAGE, "nothing to measure: a list is empty");
    return rc;
}

static int start(struct bench *b, struct pool *pool, struct err *e)
{
    struct plan *p = &b->at.plan;
    const double no_limit_s = 3600; /* prompts hold up nobody's reading here */
    int longest = 0;
    for (int i = 0; i < b->n_point; i++) {
        plan_widen(p, b->point[i].batch, b->point[i].context + b->o->new_tokens);
        longest = max_int(longest, b->point[i].context);
    }
    b->tok = pool_get(pool, (size_t)longest * sizeof(*b->tok));
    struct engine_opts opts = {.team = {.isa = b->at.isa,
                                        .packed = b->at.packed,
                                        .gpus = open_gpus(&b->at),
                                        .host = &b->at.host},
                               .tpot_s = no_limit_s,
                               .wake = wake,
                               .arg = b};
    int rc = plan_check(p, e);
    return rc ? rc : engine_start(&b->engine, p, b->at.store, &opts, e);
}

/* The first round warms up and does not count. */
static int measure(struct bench *b, struct err *e)
{
    int rc = 0;
    for (int r = -1; r < b->o->few_rounds; r++)
        for (int i = 0; !rc && i < b->n_point; i++)
            if (r >= 0 || i == 0)
                rc = turn(b, &b->point[i], max_int(r, 0), e);
    return rc;
}

static void print_text(const struct bench *b)
{
    const struct plan *p = &b->at.plan;
    char size[80];
    printf("%s, %s in %s: pp %d, tp %d%s, %d threads a rank, kernels %s; "
           "medians of %d turns\n\n",
           p->model.arch, open_parameters(size, p), num_name(p->weight), p->pp, p->tp,
           p->sp ? ", sp" : "", p->threads, open_kernels(&b->at), b->o->few_rounds);
    printf("%6s %8s %15s %19s %15s %19s\n", "batch", "context", "prompt tokens/s", "least to most",
           "answer tokens/s", "least to most");
    for (int i = 0; i < b->n_point; i++) {
        const struct point *pt = &b->point[i];
        struct rounds prompt = rounds_of(pt->prompt, b->o->few_rounds);
        struct rounds decode = rounds_of(pt->decode, b->o->few_rounds);
        printf("%6d %8d %15.1f %8.1f to %7.1f %15.1f %8.1f to %7.1f\n", pt->batch, pt->context,
               prompt.median, prompt.least, prompt.most, decode.median, decode.least, decode.most);
    }
}

static json_t *rounds_json(struct rounds f)
{
    return json_pack("{s:f, s:f, s:f}", "median", f.median, "least", f.least, "most", f.most);
}

static void print_json(const struct bench *b)
{
    json_t *points = json_array();
    for (int i = 0; i < b->n_point; i++) {
        const struct point *pt = &b->point[i];
        json_array_append_new(
            points,
            json_pack("{s:i, s:i, s:o, s:o}", "batch", pt->batch, "context", pt->context,
                      "prompt_tokens_per_s", rounds_json(rounds_of(pt->prompt, b->o->few_rounds)),
                      "answer_tokens_per_s", rounds_json(rounds_of(pt->decode, b->o->few_rounds))));
    }
    json_t *all = json_pack("{s:o, s:i, s:i, s:o}", "plan", plan_to_json(&b->at.plan), "rounds",
                            b->o->few_rounds, "max_tokens", b->o->new_tokens, "points", points);
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
}

int cmd_bench_throughput(const struct options *o, struct err *e)
{
    struct bench b = {.o = o, .lock = PTHREAD_MUTEX_INITIALIZER, .bell = PTHREAD_COND_INITIALIZER};
    struct pool pool = {0};
    int rc = choose_points(&b, &pool, e);
    if (!rc)
        rc = open_model(&b.at, o, o->n_word ? o->word[0] : NULL, e);
    if (!rc)
        rc = start(&b, &pool, e);
    if (!rc)
        rc = measure(&b, e);
    if (!rc && o->json)
        print_json(&b);
    else if (!rc)
        print_text(&b);
    if (b.engine)
        engine_stop(b.engine);
    open_close(&b.at);
    pool_free(&pool);
    return rc;
}
