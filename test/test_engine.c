/* test_engine.c - many requests at once give what each alone gives: in every layout, with and
 * without guesses, with too few pages, and when a rank is killed. */
#include "engine_help.h"
#include "process.h"

#include <signal.h>

enum { REQUESTS = 24, MAX_NEW = 40, PROMPT = 70 };

static struct plan make_plan(const struct model *m, int tp, int pp, int pages)
{
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = tp,
                           .pp = pp,
                           .ctx = 128,
                           .max_tok = 48,
                           .max_seq = 16,
                           .weight = NUM_F32,
                           .kv = NUM_F32,
                           .numerics = "f32-fma"};
    if (plan_make(&p, m, &ask, &e))
        fail_msg("%s", e.text);
    p.pages = pages;
    p.max_out = 32;
    return p;
}

/* ------------------------------------------------------------------------------- requests */

static int prompts[REQUESTS][PROMPT];

/* Prompts of many lengths, some of which begin alike; greedy and sampled, with penalties. */
static struct engine_request request(int i)
{
    int n = 3 + i * 13 % (PROMPT - 3);
    for (int k = 0; k < n; k++)
        prompts[i][k] = (k * 31 + (k > 40 ? i : i % 3) * 7 + 5) % 203;
    struct sampling s = sampling_greedy;
    if (i % 2)
        s.temperature = 0.8f, s.seed = (uint64_t)i;
    if (i % 4 == 1)
        s.presence = 0.5f, s.repetition = 1.1f;
    if (i % 5 == 3)
        s.top_p = 0.9f, s.top_k = 40;
    return (struct engine_request){.prompt = prompts[i],
                                   .n_prompt = n,
                                   .max_new = 5 + i * 7 % MAX_NEW,
                                   .sampling = s,
                                   .client = i % 3,
                                   .n_top = 0,
                                   .n_prompt_top = -1};
}

struct alone {
    int tok[REQUESTS][MAX_NEW + 8], n[REQUESTS];
};

struct collecting {
    int *tok, *n;
};

static bool collect(void *arg, int token)
{
    struct collecting *c = arg;
    c->tok[(*c->n)++] = token;
    return true;
}

/* Every request by itself through `tandem run`'s path. */
static void answer_alone(const struct tiny *t, const struct model *m, enum num kv, struct alone *to)
{
    struct plan p = make_plan(m, 1, 1, 8);
    p.kv = kv;
    struct team *team;
    struct team_opts opts = {.isa = isa_best()};
    struct session_stats stats;
    struct err e;
    memset(to, 0, sizeof(*to));
    if (team_start(&team, &p, t->store, &opts, &e))
        fail_msg("%s", e.text);
    struct session *s = session_new(team, &p);
    for (int i = 0; i < REQUESTS; i++) {
        struct engine_request r = request(i);
        struct collecting c = {to->tok[i], &to->n[i]};
        if (session_run(s, r.prompt, r.n_prompt, r.max_new, &r.sampling, collect, &c, &stats, &e))
            fail_msg("%s", e.text);
    }
    session_free(s);
    team_stop(team);
}

static void expect_same(const struct client *c, const struct alone *want)
{
    for (int i = 0; i < REQUESTS; i++) {
        const struct answer *a = &c->answer[i];
        if (a->n_tok != want->n[i] || memcmp(a->tok, want->tok[i], (size_t)a->n_tok * sizeof(int)))
            fail_msg("request %d: another answer than alone", i);
        assert_int_equal(a->finish, FINISH_LENGTH);
    }
}

/* What the drive of an engine did. */
struct deeds {
    int restarts;
    uint64_t rows, fed; /* fed: whose tokens were still being drawn */
};

static void count_deed(void *arg, const struct drive_event *ev)
{
    struct deeds *d = arg;
    d->restarts += ev->deed == DRIVE_RESTART;
    if (ev->deed != DRIVE_STEP)
        return;
    const struct batch *b = &ev->step->batch;
    for (int i = 0; i < b->n_tok; i++)
        d->rows++, d->fed += b->tok[i] < 0;
}

/* ------------------------------------------------------------------------------- claims */

static void expect_answers_as_alone(enum num kv)
{
    static const struct {
        int tp, pp, pages, draft;
        bool ahead;
    } kind[] = {{1, 1, 200, 0, false}, {2, 1, 200, 0, false}, {1, 1, 200, 6, false},
                {1, 2, 200, 3, false}, {1, 3, 10, 0, false},  {3, 1, 9, 4, false},
                {1, 1, 200, 0, true},  {3, 1, 9, 0, true}};
    struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct alone want;
    answer_alone(&t, &m, kv, &want);
    for (size_t k = 0; k < COUNT(kind); k++) {
        struct plan p = make_plan(&m, kind[k].tp, kind[k].pp, kind[k].pages);
        p.kv = kv;
        struct client c;
        struct engine_stats s;
        struct deeds d = {0};
        open_client(&c, &p, &t,
                    (struct engine_opts){.draft = kind[k].draft,
                                         .sched.ahead = kind[k].ahead,
                                         .watch = {count_deed, &d}});
        for (int i = 0; i < REQUESTS; i++) {
            struct engine_request r = request(i);
            ask(&c, &r);
        }
        wait_all(&c);
        expect_same(&c, &want);
        engine_stats(c.engine, &s);
        if (kind[k].pages < 30)
            assert_true(s.preempted > 0);
        assert_int_equal(d.fed > 0, kind[k].ahead);
        if (kind[k].draft)
            assert_true(s.drafted > 0 && s.accepted > 0);
        assert_int_equal(s.finished[FINISH_LENGTH], REQUESTS);
        close_client(&c);
    }
    tiny_free(&t);
}

static void neighbours_layouts_guesses_and_lack_of_pages_change_no_token(void **state)
{
    (void)state;
    expect_answers_as_alone(NUM_F32);
}

static void an_int8_cache_keeps_that_promise(void **state)
{
    (void)state;
    expect_answers_as_alone(NUM_INT8);
}

/* One layer of the same shape with other weights, and the model itself: guesses that are mostly
 * wrong, and always right. */
static void a_draft_model_changes_no_token(void **state)
{
    struct model m = tiny_llama(3), small = m;
    struct tiny t = tiny_make(&m, NUM_F32, 11), other;
    struct alone want;
    (void)state;
    small.n_layer = 1;
    other = tiny_make(&small, NUM_F32, 12);
    answer_alone(&t, &m, NUM_F32, &want);
    for (int same = 0; same < 2; same++) {
        struct plan p = make_plan(&m, 1, 1, 200), dp = make_plan(same ? &m : &small, 1, 1, 60);
        struct draft_model draft = {
            .plan = &dp, .store = same ? t.store : other.store, .team.isa = isa_best()};
        struct client c;
        struct engine_stats s;
        open_client(&c, &p, &t, (struct engine_opts){.draft = 4, .draft_model = &draft});
        for (int i = 0; i < REQUESTS; i++) {
            struct engine_request r = request(i);
            ask(&c, &r);
        }
        wait_all(&c);
        expect_same(&c, &want);
        engine_stats(c.engine, &s);
        assert_true(s.drafted > 100);
        if (same) /* but where penalties, which the draft does not know, decide otherwise */
            assert_true(s.accepted > s.drafted / 2);
        close_client(&c);
    }
    tiny_free(&other);
    tiny_free(&t);
}

/* Its keeper, when parent is asked for. */
static void kill_rank(struct client *c, int rank, bool parent)
{
    struct team_memory host;
    struct rank_memory of[PLAN_RANKS] = {0};
    engine_memory(c->engine, &host, of);
    const pid_t up = parent_of(of[rank].pid);
    if (up && c->ended < c->n)
        kill(parent ? up : of[rank].pid, SIGKILL);
}

/* All requests, while processes are killed; what it cost is in s and d. */
static void answer_under_fire(int tp, int pp, bool ahead, int kills, bool keeper,
                              struct engine_stats *s, struct deeds *d)
{
    struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct alone want;
    answer_alone(&t, &m, NUM_F32, &want);
    struct plan p = make_plan(&m, tp, pp, 200);
    struct client c;
    *d = (struct deeds){0};
    open_client(&c, &p, &t, (struct engine_opts){.sched.ahead = ahead, .watch = {count_deed, d}});
    for (int i = 0; i < REQUESTS; i++) {
        struct engine_request r = request(i);
        ask(&c, &r);
    }
    for (int i = 0; i < kills; i++) {
        for (int bells = 0; bells <= i % 3 && c.ended < c.n; bells++)
            wait_bell(&c);
        kill_rank(&c, i % plan_ranks(&p), keeper);
        for (uint64_t steps = 0; c.ended < c.n;) { /* until new ranks have done a step */
            engine_stats(c.engine, s);
            engine_events(c.engine, take, &c);
            if (steps && s->steps > steps)
                break;
            if (!steps && s->restarts > (uint64_t)i)
                steps = s->steps;
        }
    }
    wait_all(&c);
    expect_same(&c, &want);
    do /* the last step's figures come after its tokens */
        engine_stats(c.engine, s);
    while (!s->idle);
    close_client(&c);
    tiny_free(&t);
}

static void a_killed_rank_changes_no_token_and_nothing_is_computed_again(void **state)
{
    const int split[][3] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}, {1, 1, true}, {2, 1, true}};
    (void)state;
    for (size_t i = 0; i < COUNT(split); i++) {
        struct engine_stats s, quiet;
        struct deeds d, want;
        answer_under_fire(split[i][0], split[i][1], split[i][2], 0, false, &quiet, &want);
        answer_under_fire(split[i][0], split[i][1], split[i][2], 5, false, &s, &d);
        assert_true(s.restarts > 0);
        assert_int_equal(s.replaced, s.restarts);
        assert_int_equal(d.restarts, 0);
        assert_int_equal(s.prompt_tok, quiet.prompt_tok);
        assert_int_equal(s.new_tok, quiet.new_tok);
        assert_int_equal(d.rows + s.cached_tok, want.rows + quiet.cached_tok);
    }
}

static void a_killed_keeper_costs_no_request_and_changes_no_token(void **state)
{
    struct engine_stats s;
    struct deeds d;
    (void)state;
    answer_under_fire(2, 1, true, 2, true, &s, &d);
    assert_true(s.restarts > 0);
    assert_int_equal(s.replaced, 0);
    assert_int_equal(d.restarts, s.restarts);
}

static void logprobs_of_prompt_and_answer_are_the_models(void **state)
{
    struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = make_plan(&m, 2, 1, 200);
    struct client c;
    (void)state;
    open_client(&c, &p, &t, (struct engine_opts){0});
    struct engine_request r = request(4);
    r.n_top = 3, r.n_prompt_top = 2, r.max_new = 6;
    ask(&c, &r);
    wait_all(&c);
    const struct answer *a = &c.answer[0];
    assert_int_equal(a->n_prompt_logprobs, r.n_prompt - 1);

    int ids[128], n = r.n_prompt + a->n_tok;
    memcpy(ids, r.prompt, (size_t)r.n_prompt * sizeof(int));
    memcpy(ids + r.n_prompt, a->tok, (size_t)a->n_tok * sizeof(int));
    float *logits = tiny_logits(&p, t.store, isa_best(), ids, n);
    for (int i = 1; i < n; i++) {
        const float *row = logits + (size_t)(i - 1) * (size_t)m.n_vocab;
        double sum = 0;
        for (int w = 0; w < m.n_vocab; w++)
            sum += __builtin_exp((double)row[w]);
        double want = (double)row[ids[i]] - __builtin_log(sum);
        double got =
            (double)(i < r.n_prompt ? a->prompt[i].chosen.logprob : a->logprob[i - r.n_prompt]);
        assert_true(got > want - 1e-4 && got < want + 1e-4);
        if (i < r.n_prompt) {
            assert_int_equal(a->prompt[i].n_top, 2);
            assert_true(a->prompt[i].top[0].logprob >= a->prompt[i].top[1].logprob);
        }
    }
    free(logits);
    close_client(&c);
    tiny_free(&t);
}

/* A guide that wants 7, 8, 9 in turns, six times. */
static bool allow_turn(void *ctx, uint64_t *allow)
{
    allow[0] |= UINT64_C(1) << (7 + *(int *)ctx % 3);
    return true;
}

static bool take_turn(void *ctx, int token)
{
    int *n = ctx;
    assert_int_equal(token, 7 + *n % 3);
    return ++*n < 6;
}

static void expect_rules_kept(struct engine_opts opts)
{
    struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = make_plan(&m, 1, 1, 200);
    struct client c;
    int turn = 0;
    open_client(&c, &p, &t, opts);
    struct engine_request r = request(2);
    r.max_new = 12;
    ask(&c, &r); /* 0: free */
    r.guide = (struct engine_guide){.ctx = &turn, .allow = allow_turn, .take = take_turn};
    ask(&c, &r); /* 1: guided */
    r.guide.ctx = NULL;
    const int only[] = {3, 100, 200};
    r.only = only, r.n_only = 3;
    ask(&c, &r); /* 2: of three tokens */
    r.n_only = 0;
    const struct token_bias bias = {55, 100};
    r.bias = &bias, r.n_bias = 1;
    ask(&c, &r); /* 3: always 55 */
    r.n_bias = 0;
    wait_all(&c);
    const struct answer *a = c.answer;
    assert_int_equal(a[1].n_tok, 6);
    assert_int_equal(a[1].finish, FINISH_STOP);
    for (int i = 0; i < 12; i++) {
        assert_true(a[2].tok[i] == 3 || a[2].tok[i] == 100 || a[2].tok[i] == 200);
        assert_int_equal(a[3].tok[i], 55);
    }
    /* what the free one said: not these two in a row; an end that may not come before the fifth */
    const struct token_run bad = {a[0].tok + 2, 2};
    r.bad = &bad, r.n_bad = 1;
    ask(&c, &r); /* 4 */
    r.n_bad = 0;
    r.eos = a[0].tok, r.n_eos = 12, r.min_new = 5;
    ask(&c, &r); /* 5 */
    r.min_new = 0, r.ignore_eos = true;
    ask(&c, &r); /* 6 */
    r.ignore_eos = false;
    ask(&c, &r); /* 7 */
    wait_all(&c);
    assert_memory_equal(a[4].tok, a[0].tok, 3 * sizeof(int));
    for (int i = 1; i < a[4].n_tok; i++)
        assert_false(a[4].tok[i - 1] == bad.tok[0] && a[4].tok[i] == bad.tok[1]);
    assert_true(a[5].n_tok > 5);
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 12; k++)
            assert_int_not_equal(a[5].tok[i], a[0].tok[k]);
    assert_int_equal(a[6].n_tok, 12);
    assert_int_equal(a[7].n_tok, 1);
    assert_true(a[7].is_end && a[7].finish == FINISH_STOP);
    close_client(&c);
    tiny_free(&t);
}

static void guides_bans_biases_and_lists_are_kept(void **state)
{
    (void)state;
    expect_rules_kept((struct engine_opts){.draft = 4});
    expect_rules_kept((struct engine_opts){.sched.ahead = true});
}

static void cancelled_late_and_too_many_requests_end_as_told(void **state)
{
    struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = make_plan(&m, 1, 1, 200);
    struct client c;
    struct err e;
    uint64_t id;
    (void)state;
    p.max_seq = 1;
    open_client(&c, &p, &t, (struct engine_opts){.queue.waiting = 3, .sched.ahead = true});
    struct engine_request r = request(0);
    r.max_new = 120;
    ask(&c, &r);
    r.deadline_s = 1e-6;
    ask(&c, &r); /* waits behind the first, too long */
    wait_bell(&c);
    r.deadline_s = 0;
    int rc = 0, more = 0;
    while (!rc && more++ < 10)
        if (!(rc = engine_submit(c.engine, &r, &id, &e)))
            c.id[c.n++] = id;
    assert_int_equal(rc, -EAGAIN);
    for (int i = 0; i < c.n; i++)
        if (i != 1)
            engine_cancel(c.engine, c.id[i]);
    wait_all(&c);
    assert_int_equal(c.answer[0].finish, FINISH_CANCELLED);
    assert_int_equal(c.answer[1].finish, FINISH_DEADLINE);
    engine_drain(c.engine);
    assert_int_equal(engine_submit(c.engine, &r, &id, &e), -ESHUTDOWN);
    close_client(&c);
    tiny_free(&t);
}

static void bad_requests_are_one_sentence(void **state)
{
    struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = make_plan(&m, 1, 1, 200);
    struct client c;
    struct err e;
    uint64_t id;
    int long_prompt[200] = {0};
    (void)state;
    open_client(&c, &p, &t, (struct engine_opts){0});
    struct engine_request r = request(0);
    r.n_prompt = 0;
    assert_int_equal(engine_submit(c.engine, &r, &id, &e), -EINVAL);
    r = request(0), r.prompt = long_prompt, r.n_prompt = 128;
    assert_int_equal(engine_submit(c.engine, &r, &id, &e), -EINVAL);
    assert_non_null(strstr(e.text, "128 tokens"));
    r = request(0);
    prompts[0][1] = 203;
    assert_int_equal(engine_submit(c.engine, &r, &id, &e), -EINVAL);
    assert_non_null(strstr(e.text, "203"));
    r = request(0), r.sampling.top_p = 0;
    assert_int_equal(engine_submit(c.engine, &r, &id, &e), -EINVAL);
    close_client(&c);
    tiny_free(&t);
}

static void an_idle_engine_answers_a_probe_with_a_step(void **state)
{
    struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = make_plan(&m, 2, 1, 200);
    struct client c;
    struct engine_stats s;
    (void)state;
    open_client(&c, &p, &t, (struct engine_opts){0});
    engine_probe(c.engine);
    do {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        engine_stats(c.engine, &s);
    } while (!s.steps || !s.idle);
    assert_int_equal(s.steps, 1);
    assert_int_equal(s.submitted, 0);
    close_client(&c);
    tiny_free(&t);
}

/* test_engine [PATTERN]: only tests whose names match. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_layouts_guesses_and_lack_of_pages_change_no_token),
        cmocka_unit_test(an_int8_cache_keeps_that_promise),
        cmocka_unit_test(a_draft_model_changes_no_token),
        cmocka_unit_test(a_killed_rank_changes_no_token_and_nothing_is_computed_again),
        cmocka_unit_test(a_killed_keeper_costs_no_request_and_changes_no_token),
        cmocka_unit_test(logprobs_of_prompt_and_answer_are_the_models),
        cmocka_unit_test(guides_bans_biases_and_lists_are_kept),
        cmocka_unit_test(cancelled_late_and_too_many_requests_end_as_told),
        cmocka_unit_test(bad_requests_are_one_sentence),
        cmocka_unit_test(an_idle_engine_answers_a_probe_with_a_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
