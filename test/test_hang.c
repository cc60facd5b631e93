/* test_hang.c - ranks that hang or die: who is suspected of it, when, and that nobody but the clock
 * notices. */
#include "engine/session.h"
#include "engine/suspect.h"
#include "engine/watch.h"
#include "engine_help.h"
#include "process.h"
#include "run/room.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REQUESTS = 8, NEW = 60, PROMPT = 20, WAIT_MS = 120000 };

/* ------------------------------------------------------------------------------- when */

static void a_shape_has_six_times_what_was_usual_and_one_not_met_has_more(void **state)
{
    struct watch w;
    double now = 0;
    (void)state;
    watch_open(&w, 1);
    watch_begin(&w, 1, 100, 0, now);
    assert_float_equal(watch_allowed(&w), 15, 0);
    watch_end(&w, 1, now += 0.01);
    watch_begin(&w, 1, 101, 1, now); /* the same shape; less than the floor */
    assert_float_equal(watch_allowed(&w), 1, 0);
    watch_end(&w, 2, now += 0.01);
    watch_begin(&w, 500, 500, 2, now);
    for (int i = 0; i < 20; i++)
        assert_false(watch_look(&w, 2, now += 0.1));
    watch_end(&w, 3, now += 0.1);
    watch_begin(&w, 400, 300, 3, now);
    assert_float_equal(watch_allowed(&w), 6 * 2.1, 1e-5);
    watch_begin(&w, 400, 3000, 3, now);
    assert_float_equal(watch_allowed(&w), 15, 0);
}

static void what_moves_is_not_suspected_and_what_does_not_move_is(void **state)
{
    struct watch w;
    double now = 0;
    uint64_t moves = 0;
    (void)state;
    watch_open(&w, 1);
    watch_begin(&w, 1, 1, moves, now);
    watch_end(&w, moves, now);
    watch_begin(&w, 1, 1, moves, now);
    for (int i = 0; i < 1000; i++)
        assert_false(watch_look(&w, i % 9 ? moves : ++moves, now += 0.1));
    int looks = 0;
    while (!watch_look(&w, moves, now += 0.1))
        looks++;
    assert_in_range(looks, 5, 12);
}

static void time_in_which_nobody_looked_does_not_count(void **state)
{
    struct watch w;
    (void)state;
    watch_open(&w, 1);
    watch_begin(&w, 1, 1, 0, 0);
    watch_end(&w, 0, 0);
    watch_begin(&w, 1, 1, 0, 0);
    assert_false(watch_look(&w, 0, 3600));
    assert_false(watch_look(&w, 0, 7200));
}

static void suspicions_double_the_time_and_end(void **state)
{
    struct watch w;
    double now = 0;
    (void)state;
    watch_open(&w, 1e-6);
    for (int i = 0; i < 3; i++) {
        watch_begin(&w, 1, 1, 0, now);
        while (!watch_look(&w, 0, now += 1e-3))
            ;
        assert_float_equal(watch_allowed(&w), 15e-6 * (1 << i), 1e-9);
        watch_suspect(&w, false);
    }
    assert_false(watch_in_vain(&w)); /* so little time says nothing */
    watch_begin(&w, 1, 1, 0, now);
    watch_end(&w, 1, now);
    assert_false(watch_in_vain(&w));

    watch_open(&w, 2);
    for (int i = 0; i < 3; i++) {
        assert_false(watch_in_vain(&w));
        watch_begin(&w, 1, 1, 0, now);
        while (!watch_look(&w, 0, now += 0.1))
            ;
        watch_suspect(&w, false);
    }
    assert_true(watch_in_vain(&w));
    watch_begin(&w, 1, 1, 0, now);
    watch_end(&w, 1, now);
    assert_false(watch_in_vain(&w));
}

static void patience_comes_down_after_many_good_steps(void **state)
{
    struct watch w;
    (void)state;
    watch_open(&w, 1);
    watch_begin(&w, 1, 1, 0, 0);
    watch_suspect(&w, false);
    watch_suspect(&w, true);
    watch_suspect(&w, false);
    watch_end(&w, 0, 0);
    assert_float_equal(watch_allowed(&w), 4, 0);
    for (int i = 0; i < 2000; i++) {
        watch_begin(&w, 1, 1, 0, 0);
        watch_end(&w, 0, 0);
    }
    assert_float_equal(watch_allowed(&w), 1, 0);
}

/* ------------------------------------------------------------------------------- who */

static struct plan make_plan(const struct model *m, int tp, int pp)
{
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = tp,
                           .pp = pp,
                           .ctx = 128,
                           .max_tok = 32,
                           .max_seq = REQUESTS,
                           .weight = NUM_F32,
                           .kv = NUM_F32,
                           .numerics = "f32-fma"};
    if (plan_make(&p, m, &ask, &e))
        fail_msg("%s", e.text);
    p.pages *= REQUESTS;
    p.max_out = 32;
    return p;
}

static struct mailbox *make_mailbox(const struct plan *p, void **memory)
{
    struct arena a = {0};
    mailbox_lay_out(p, false, &a);
    *memory = calloc(1, a.used + ARENA_ALIGN);
    char *at = *memory;
    a = (struct arena){.base = at + (size_t)(-(uintptr_t)at % ARENA_ALIGN), .size = a.used};
    return mailbox_lay_out(p, false, &a);
}

/* What a rank has come to: done with the step before, in a layer, and so many words of calls. */
static void be_at(struct mailbox *m, int rank, int layer, int calls)
{
    pulse_step(&m->rank[rank].pulse, 7);
    if (layer >= 0)
        pulse_layer(&m->rank[rank].pulse, layer);
    for (int i = 0; i < calls; i++)
        pulse_call(&m->rank[rank].pulse);
    m->rank[rank].done = 6;
}

static void expect_suspect(const struct plan *p, const struct mailbox *m, const _Atomic int pid[],
                           int who)
{
    struct suspects s;
    suspects_find(&s, p, m, pid, 7);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.rank[0], who);
    assert_false(suspects_debugged(&s, p));
}

static void who_waits_for_others_is_not_suspected(void **state)
{
    struct model model = tiny_llama(3);
    struct plan p = make_plan(&model, 2, 2);
    void *memory;
    struct mailbox *m = make_mailbox(&p, &memory);
    _Atomic int pid[4] = {getpid(), getpid(), getpid(), getpid()};
    (void)state;
    be_at(m, 0, 1, 3); /* waits in layer 1, as the second stage does for its first rows */
    be_at(m, 1, 1, 2);
    be_at(m, 2, -1, 1);
    be_at(m, 3, -1, 1);
    expect_suspect(&p, m, pid, 1);
    pulse_call(&m->rank[1].pulse); /* now all wait */
    pulse_call(&m->rank[0].pulse);
    pulse_call(&m->rank[0].pulse);
    expect_suspect(&p, m, pid, 1);
    m->rank[0].done = m->rank[1].done = 7; /* the first stage has done its part */
    pulse_call(&m->rank[3].pulse);
    expect_suspect(&p, m, pid, 3);
    free(memory);
}

static void who_is_stopped_is_suspected_before_all_others(void **state)
{
    struct model model = tiny_llama(3);
    struct plan p = make_plan(&model, 3, 1);
    void *memory;
    struct mailbox *m = make_mailbox(&p, &memory);
    int status;
    (void)state;
    pid_t child = fork();
    if (child == 0)
        while (true)
            pause();
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    _Atomic int pid[3] = {getpid(), child, getpid()};
    be_at(m, 0, 1, 2);
    be_at(m, 1, 1, 3);
    be_at(m, 2, 1, 3);
    expect_suspect(&p, m, pid, 1);
    m->rank[1].done = 7;
    expect_suspect(&p, m, pid, 0);

    struct suspects s;
    struct err e;
    m->rank[1].done = 6;
    suspects_find(&s, &p, m, pid, 7);
    assert_int_equal(suspects_say(&s, m, pid, NULL, 7, 2.5, &e), -ETIMEDOUT);
    assert_non_null(strstr(e.text, "hangs in layer 1 of step 7: nothing has moved for 2.5 s "
                                   "(stopped by a signal)"));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    free(memory);
}

/* ------------------------------------------------------------------------------- an engine */

static int prompts[REQUESTS][PROMPT];

static struct engine_request request(int i)
{
    struct sampling s = sampling_greedy;
    for (int k = 0; k < PROMPT; k++)
        prompts[i][k] = (k * 31 + i * 7 + 5) % 203;
    if (i % 2)
        s.temperature = 0.8f, s.seed = (uint64_t)i;
    return (struct engine_request){.prompt = prompts[i],
                                   .n_prompt = PROMPT - i,
                                   .max_new = NEW - 3 * i,
                                   .sampling = s,
                                   .n_top = -1,
                                   .n_prompt_top = -1};
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void begin(struct client *c, const struct plan *p, const struct tiny *t, double patience_s)
{
    open_client(c, p, t, (struct engine_opts){.team.patience_s = patience_s});
    for (int i = 0; i < REQUESTS; i++) {
        struct engine_request r = request(i);
        ask(c, &r);
    }
}

static void end(struct client *c, struct engine_stats *s)
{
    wait_all(c);
    do /* the last step's figures come after its tokens */
        engine_stats(c->engine, s);
    while (!s->idle);
    close_client(c);
}

/* Of a run that nobody disturbs; and of one that was, the same. */
static void expect_same(const struct client *got, const struct client *want)
{
    for (int i = 0; i < REQUESTS; i++) {
        const struct answer *a = &got->answer[i], *b = &want->answer[i];
        assert_int_equal(a->finish, FINISH_LENGTH);
        assert_int_equal(a->n_tok, b->n_tok);
        assert_memory_equal(a->tok, b->tok, (size_t)a->n_tok * sizeof(int));
    }
}

static void signal_rank(struct client *c, int rank, int signal)
{
    struct team_memory host;
    struct rank_memory of[PLAN_RANKS] = {0};
    engine_memory(c->engine, &host, of);
    if (c->ended < c->n && parent_of(of[rank].pid) > 1)
        kill(of[rank].pid, signal);
}

/* Until ranks were started again so often, or nothing is left to do. */
static void wait_restarts(struct client *c, uint64_t n)
{
    struct engine_stats s = {0};
    for (int ms = 0; s.restarts < n && c->ended < c->n; ms++) {
        assert_true(ms < WAIT_MS);
        engine_events(c->engine, take, c);
        engine_stats(c->engine, &s);
        pause_ms(1);
    }
}

static const int split[][2] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}};

static void a_stopped_rank_is_replaced_and_changes_no_token(void **state)
{
    struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    unsigned seed = 5;
    (void)state;
    for (size_t i = 0; i < COUNT(split); i++) {
        struct plan p = make_plan(&m, split[i][0], split[i][1]);
        struct client want, got;
        struct engine_stats s;
        begin(&want, &p, &t, 0);
        end(&want, &s);
        begin(&got, &p, &t, 0.05);
        for (uint64_t n = 1; n <= 3; n++) {
            wait_bell(&got);
            pause_ms(rand_r(&seed) % 4);
            signal_rank(&got, rand_r(&seed) % plan_ranks(&p), SIGSTOP);
            wait_restarts(&got, n);
        }
        end(&got, &s);
        expect_same(&got, &want);
        assert_true(s.hung > 0);
        assert_int_equal(s.replaced, s.restarts);
    }
    tiny_free(&t);
}

static void false_suspicions_change_no_token_and_end(void **state)
{
    struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    (void)state;
    for (size_t i = 0; i < COUNT(split); i++) {
        struct plan p = make_plan(&m, split[i][0], split[i][1]);
        struct client want, got;
        struct engine_stats s;
        begin(&want, &p, &t, 0);
        end(&want, &s);
        begin(&got, &p, &t, 1e-9);
        end(&got, &s);
        expect_same(&got, &want);
        assert_true(s.hung > 0);
        assert_int_equal(s.replaced, s.restarts);
    }
    tiny_free(&t);
}

/* Everything stands still for longer than a rank may, control too: as Ctrl-Z does. */
static void a_suspended_group_is_not_suspected(void **state)
{
    struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = make_plan(&m, 2, 1);
    const double patience_s = 2;
    int status;
    (void)state;
    pid_t control = fork();
    if (control == 0) {
        struct client c;
        struct engine_stats s;
        setpgid(0, 0);
        begin(&c, &p, &t, patience_s);
        for (int i = 0; i < 20; i++) {
            wait_all(&c);
            c.n = c.ended = 0;
            memset(c.answer, 0, sizeof(c.answer));
            for (int k = 0; k < REQUESTS; k++) {
                struct engine_request r = request(k);
                ask(&c, &r);
            }
        }
        end(&c, &s);
        _exit(s.hung ? 2 : 0);
    }
    pause_ms(100);
    for (int i = 0; i < 2; i++) {
        pause_ms(50);
        kill(-control, SIGSTOP);
        pause_ms((long)(1500 * patience_s));
        kill(-control, SIGCONT);
    }
    waitpid(control, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    tiny_free(&t);
}

/* ------------------------------------------------------------------------------- a session */

struct story {
    int tok[NEW], n;
    struct team *team;
    int signal; /* to a rank, after every tenth token; 0: none */
};

static bool hear(void *arg, int token)
{
    struct story *s = arg;
    s->tok[s->n++] = token;
    if (s->signal && s->n % 10 == 5) {
        struct team_memory host;
        struct rank_memory of[PLAN_RANKS] = {0};
        team_memory(s->team, &host, of);
        kill(of[s->n / 10 % 2].pid, s->signal);
    }
    return true;
}

static int tell(struct story *s, const struct plan *p, const struct tiny *t, int signal,
                struct err *e)
{
    struct team_opts opts = {.isa = isa_best(), .patience_s = signal == SIGSTOP ? 0.05 : 0};
    struct session_stats stats;
    struct engine_request r = request(1);
    *s = (struct story){.signal = signal};
    if (team_start(&s->team, p, t->store, &opts, e))
        fail_msg("%s", e->text);
    struct session *session = session_new(s->team, p);
    int rc = session_run(session, r.prompt, r.n_prompt, NEW, &r.sampling, hear, s, &stats, e);
    session_free(session);
    team_stop(s->team);
    return rc;
}

static void a_session_survives_killed_and_stopped_ranks(void **state)
{
    const int signals[] = {SIGKILL, SIGSTOP};
    struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    (void)state;
    for (int pp = 1; pp <= 2; pp++) {
        struct plan p = make_plan(&m, 3 - pp, pp);
        struct story want, got;
        struct err e;
        assert_int_equal(tell(&want, &p, &t, 0, &e), 0);
        assert_int_equal(want.n, NEW);
        for (size_t i = 0; i < COUNT(signals); i++) {
            if (tell(&got, &p, &t, signals[i], &e))
                fail_msg("%s", e.text);
            assert_int_equal(got.n, NEW);
            assert_memory_equal(got.tok, want.tok, sizeof(want.tok));
        }
    }
    tiny_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shape_has_six_times_what_was_usual_and_one_not_met_has_more),
        cmocka_unit_test(what_moves_is_not_suspected_and_what_does_not_move_is),
        cmocka_unit_test(time_in_which_nobody_looked_does_not_count),
        cmocka_unit_test(suspicions_double_the_time_and_end),
        cmocka_unit_test(patience_comes_down_after_many_good_steps),
        cmocka_unit_test(who_waits_for_others_is_not_suspected),
        cmocka_unit_test(who_is_stopped_is_suspected_before_all_others),
        cmocka_unit_test(a_stopped_rank_is_replaced_and_changes_no_token),
        cmocka_unit_test(false_suspicions_change_no_token_and_end),
        cmocka_unit_test(a_suspended_group_is_not_suspected),
        cmocka_unit_test(a_session_survives_killed_and_stopped_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
