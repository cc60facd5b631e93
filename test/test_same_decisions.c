/* test_same_decisions.c - the simulator decides as the engine does. Real ranks compute a tiny model
 * while a watch writes down all that the engine's drive does; the simulator gets the same requests
 * at the same turns, and steps that take as long, and must do the same: every step with its
 * sequences, rows, pages and allowance of prompt rows, every arrival and every end. */
#include "engine_help.h"
#include "predict/simulate.h"
#include "process.h"

#include <signal.h>

enum { REQUESTS = 48, PROMPT = 90, LENGTH = 128, ALL_EVENTS = 1 << 14, ALL_NUMBERS = 1 << 22 };

/* ------------------------------------------------------------------------------- what is done */

struct written {
    enum drive_deed deed;
    uint64_t id;    /* of ADD and REMOVE */
    double seconds; /* of COMMIT */
    int lo, hi;     /* of STEP: its numbers */
};

struct log {
    struct written at[ALL_EVENTS];
    int n, n_number;
    int number[ALL_NUMBERS];
};

static void put(struct log *l, int number)
{
    must(l->n_number < ALL_NUMBERS);
    l->number[l->n_number++] = number;
}

static void put_step(struct log *l, const struct sched_step *step, int prompt_rows)
{
    put(l, prompt_rows);
    put(l, step->batch.n_tok);
    put(l, step->batch.n_out);
    put(l, step->decode_rows);
    for (int i = 0; i < step->n_seq; i++) {
        const struct sched_part *part = &step->part[i];
        const int field[] = {(int)part->seq->id, part->first,         part->n,
                             part->pos,          part->out,           part->n_out,
                             part->draws,        part->seq->n_cached, part->seq->n_tok,
                             part->n_guess,      part->seq->n_page};
        for (size_t k = 0; k < COUNT(field); k++)
            put(l, field[k]);
        for (int k = 0; k < part->seq->n_page; k++)
            put(l, part->seq->page[k]);
    }
}

static void write_down(void *arg, const struct drive_event *ev)
{
    struct log *l = arg;
    must(l->n < ALL_EVENTS);
    struct written *w = &l->at[l->n++];
    *w = (struct written){.deed = ev->deed, .lo = l->n_number};
    if (ev->seq)
        w->id = ev->seq->id;
    if (ev->deed == DRIVE_STEP)
        put_step(l, ev->step, ev->prompt_rows);
    w->seconds = ev->seconds;
    w->hi = l->n_number;
}

static const char *const deed_name[] = {"add", "step", "commit", "remove", "restart"};

static void expect_same(const struct log *engine, const struct log *sim)
{
    for (int i = 0; i < engine->n && i < sim->n; i++) {
        const struct written *a = &engine->at[i], *b = &sim->at[i];
        if (a->deed != b->deed || a->id != b->id)
            fail_msg("event %d of %d: the engine did %s %d, the simulator %s %d", i, engine->n,
                     deed_name[a->deed], (int)a->id, deed_name[b->deed], (int)b->id);
        if (a->hi - a->lo != b->hi - b->lo || memcmp(engine->number + a->lo, sim->number + b->lo,
                                                     (size_t)(a->hi - a->lo) * sizeof(int)))
            fail_msg("event %d: another step: the engine's has %d rows of %d allowed, the "
                     "simulator's %d of %d",
                     i, engine->number[a->lo + 1], engine->number[a->lo], sim->number[b->lo + 1],
                     sim->number[b->lo]);
    }
    assert_int_equal(engine->n, sim->n);
}

/* ------------------------------------------------------------------------------- the engine */

struct requests {
    struct client client;
    struct engine_request ask[REQUESTS];
    int prompt[REQUESTS][PROMPT];
};

/* Their numbers are 1, 2, ... */
static const struct answer *answer_to(const struct requests *r, uint64_t id)
{
    return &r->client.answer[id - 1];
}

/* Every third begins as others do, for 40 or 64 tokens; three priorities, five clients, two salts.
 */
static const struct engine_request *make_request(struct requests *c, int i)
{
    int n = 3 + i * 37 % (PROMPT - 3);
    for (int k = 0; k < n; k++)
        c->prompt[i][k] = (k * 31 + (k >= (i % 2 ? 40 : 64) || i % 3 ? i * 7 : 1) + 5) % 203;
    c->ask[i] = (struct engine_request){.prompt = c->prompt[i],
                                        .n_prompt = n,
                                        .max_new = 1 + i * 11 % 38,
                                        .sampling = sampling_greedy,
                                        .ignore_eos = true,
                                        .priority = i % 7 == 3 ? -1 : i % 5 == 1,
                                        .client = i % 5,
                                        .salt = i % 12 == 9,
                                        .n_top = -1,
                                        .n_prompt_top = -1};
    return &c->ask[i];
}

/* Of a killed rank alone the scheduler hears nothing; with their keeper all ranks end, and weights
 * and cache with them. */
static void kill_the_keeper(struct client *c)
{
    struct team_memory host;
    struct rank_memory rank[PLAN_RANKS] = {0};
    engine_memory(c->engine, &host, rank);
    const pid_t keeper = parent_of(rank[0].pid);
    if (keeper)
        kill(keeper, SIGKILL);
}

/* Requests come while others run, in groups, and once when all is idle; some are given up. */
static const double tpot_s =
    0.001; /* so short that it decides how many rows of prompts a step has */

static void run_engine(struct requests *r, const struct plan *p, const struct tiny *t,
                       struct log *l, bool ahead, bool kills)
{
    struct engine_stats stats;
    struct client *c = &r->client;
    open_client(
        c, p, t,
        (struct engine_opts){.tpot_s = tpot_s, .sched.ahead = ahead, .watch = {write_down, l}});
    while (c->n < REQUESTS) {
        for (int group = 1 + c->n % 4; group > 0 && c->n < REQUESTS; group--) {
            ask(c, make_request(r, c->n));
            assert_int_equal(c->id[c->n - 1], c->n);
        }
        wait_bell(c);
        if (c->n % 5 == 0)
            engine_cancel(c->engine, c->id[c->n - 1 - c->n % 3]);
        if (c->n % 11 == 0)
            wait_bell(c);
        while (c->n / 24 == 1 && c->ended < c->n && c->n < 28)
            wait_bell(c); /* idle */
        if (kills && c->n % 8 == 0)
            kill_the_keeper(c);
    }
    wait_all(c);
    do { /* rows of those that were given up last may be on their way */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        engine_stats(c->engine, &stats);
    } while (!stats.idle);
    close_client(c);
}

/* ------------------------------------------------------------------------------- the simulator */

/* What the simulator is told so that its turns are the engine's. */
struct script {
    const struct requests *requests;
    struct trace_row row[REQUESTS];
    struct sim_cancel cancel[REQUESTS];
    struct sim_death death[REQUESTS];
    int n_cancel, n_death, n_step, told;
    double takes[ALL_EVENTS]; /* of each step, until its commit */
};

static const double restart_s = 0.25;

/* Walk through the engine's log with a clock of our own. Whatever comes during a step comes in the
 * middle between two turns; what comes to an idle engine comes half a second later. */
static void make_script(struct script *to, const struct log *l, int pp)
{
    double clock = 0, last = 0, sent[ALL_EVENTS], came = -1;
    int flying = 0, live = 0, first = 0;
    for (int i = 0; i < l->n; i++) {
        const struct written *w = &l->at[i];
        bool cancels =
            w->deed == DRIVE_REMOVE && answer_to(to->requests, w->id)->finish == FINISH_CANCELLED;
        if ((w->deed == DRIVE_ADD || cancels) && came < 0) {
            if (!flying && !live)
                last = clock += 0.5;
            came = (last + clock) / 2;
        }
        switch (w->deed) {
        case DRIVE_ADD:
            to->row[w->id - 1].at = came;
            live++;
            break;
        case DRIVE_REMOVE:
            if (cancels)
                to->cancel[to->n_cancel++] = (struct sim_cancel){w->id - 1, came};
            live--;
            break;
        case DRIVE_STEP:
            sent[to->n_step] = clock;
            to->takes[to->n_step++] = 1e9; /* until it is committed: its team dies first */
            flying++;
            came = -1;
            break;
        case DRIVE_COMMIT:
            last = clock;
            first = to->n_step - flying--;
            if (pp > 1)
                to->takes[first] = (clock > sent[first] ? clock : sent[first]) + 1 - sent[first];
            else
                to->takes[first] = w->seconds;
            clock = (pp > 1 ? sent[first] : clock) + to->takes[first];
            came = -1;
            break;
        case DRIVE_RESTART:
            to->death[to->n_death++] = (struct sim_death){0, last = clock + 0.125};
            clock = last + restart_s;
            flying = 0;
            came = -1;
            break;
        }
    }
}

static double step_takes(void *arg, int replica, const struct sched_step *step)
{
    struct script *s = arg;
    (void)replica, (void)step;
    if (s->told == s->n_step)
        fail_msg("the simulator makes more steps than the engine's %d", s->n_step);
    return s->takes[s->told++];
}

static void as_asked(void *arg, uint64_t number, struct seq *q)
{
    const struct script *s = arg;
    const struct engine_request *ask = &s->requests->ask[number];
    const struct answer *a = answer_to(s->requests, number + 1);
    memcpy(q->tok, ask->prompt, (size_t)ask->n_prompt * sizeof(int));
    memcpy(q->tok + ask->n_prompt, a->tok, (size_t)a->n_tok * sizeof(int));
    q->priority = ask->priority, q->client = ask->client, q->salt = ask->salt;
}

static void run_simulator(const struct requests *c, const struct plan *p, struct script *s,
                          bool ahead, struct log *l, struct sim_result *result)
{
    struct err e;
    for (int i = 0; i < REQUESTS; i++) {
        s->row[i].prompt_tok = c->ask[i].n_prompt;
        s->row[i].output_tok = c->ask[i].max_new;
    }
    struct load load = {.work.trace = {.row = s->row, .n = REQUESTS, .timed = true},
                        .timing = LOAD_TRACE,
                        .trace_speed = 1,
                        .requests = REQUESTS,
                        .most_bad = UINT64_MAX};
    struct simulation ask = {.plan = p,
                             .load = &load,
                             .tpot_s = tpot_s,
                             .ahead = ahead,
                             .death = s->death,
                             .n_death = s->n_death,
                             .restart_s = restart_s,
                             .step_s = step_takes,
                             .request = as_asked,
                             .arg = s,
                             .watch = {write_down, l},
                             .cancel = s->cancel,
                             .n_cancel = s->n_cancel};
    if (simulate(&ask, result, &e))
        fail_msg("%s", e.text);
}

/* ------------------------------------------------------------------------------- claims */

struct kind {
    int tp, pp, pages;
    bool kills, ahead;
};

/* Steps that were chosen while another one was on its way. */
static int led(const struct log *l)
{
    int n = 0, flying = 0;
    for (int i = 0; i < l->n; i++) {
        const enum drive_deed deed = l->at[i].deed;
        n += deed == DRIVE_STEP && flying;
        flying = deed == DRIVE_RESTART ? 0 : flying + (deed == DRIVE_STEP) - (deed == DRIVE_COMMIT);
    }
    return n;
}

static void expect_same_decisions(struct kind kind)
{
    struct model m = tiny_llama(4);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = kind.tp,
                           .pp = kind.pp,
                           .ctx = LENGTH,
                           .max_tok = 48,
                           .max_seq = 12,
                           .weight = NUM_F32,
                           .kv = NUM_F32,
                           .numerics = "f32-fma"};
    if (plan_make(&p, &m, &ask, &e))
        fail_msg("%s", e.text);
    p.pages = kind.pages;
    struct requests *c = calloc(1, sizeof(*c));
    struct log *engine = calloc(1, sizeof(*engine)), *sim = calloc(1, sizeof(*sim));
    struct script *s = calloc(1, sizeof(*s));
    struct sim_result result;
    assert_true((int)REQUESTS <= (int)WANTED);
    assert_true(c && engine && sim && s);
    run_engine(c, &p, &t, engine, kind.ahead, kind.kills);
    s->requests = c;
    make_script(s, engine, kind.pp);
    run_simulator(c, &p, s, kind.ahead, sim, &result);
    expect_same(engine, sim);
    assert_int_equal(led(sim) > 20, kind.ahead || kind.pp > 1);
    uint64_t cached = 0;
    for (size_t i = 0; i < result.results.n; i++)
        cached += (uint64_t)result.results.at[i].cached_tok;
    assert_int_equal(result.results.n, REQUESTS);
    assert_int_equal(result.steps, s->n_step);
    assert_true(cached > 0);
    assert_true(result.summary.fate[FATE_CANCELLED] > 0);
    if (kind.pages < 30)
        assert_true(result.preempted > 0);
    if (kind.kills)
        assert_true(result.deaths > 0);
    sim_result_free(&result);
    free(c), free(engine), free(sim), free(s);
    tiny_free(&t);
}

static void with_pages_enough(void **state)
{
    (void)state;
    expect_same_decisions((struct kind){.tp = 1, .pp = 1, .pages = 200});
}

static void when_pages_run_out_and_sequences_are_preempted(void **state)
{
    (void)state;
    expect_same_decisions((struct kind){.tp = 2, .pp = 1, .pages = 11});
}

static void with_two_stages_and_two_steps_on_their_way(void **state)
{
    (void)state;
    expect_same_decisions((struct kind){.tp = 1, .pp = 2, .pages = 200});
}

static void with_stages_and_too_few_pages(void **state)
{
    (void)state;
    expect_same_decisions((struct kind){.tp = 1, .pp = 2, .pages = 11});
}

static void with_steps_chosen_ahead(void **state)
{
    (void)state;
    expect_same_decisions((struct kind){.tp = 1, .pp = 1, .pages = 200, .ahead = true});
    expect_same_decisions((struct kind){.tp = 2, .pp = 1, .pages = 11, .ahead = true});
}

static void when_a_team_dies(void **state)
{
    (void)state;
    expect_same_decisions((struct kind){1, 1, 20, true, false});
    expect_same_decisions((struct kind){1, 2, 20, true, false});
    expect_same_decisions((struct kind){1, 1, 20, true, true});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_pages_enough),
        cmocka_unit_test(when_pages_run_out_and_sequences_are_preempted),
        cmocka_unit_test(with_two_stages_and_two_steps_on_their_way),
        cmocka_unit_test(with_stages_and_too_few_pages),
        cmocka_unit_test(with_steps_chosen_ahead),
        cmocka_unit_test(when_a_team_dies),
    };
    return cmocka_run_group_tests_name("the simulator decides as the engine does", tests, NULL,
                                       NULL);
}
