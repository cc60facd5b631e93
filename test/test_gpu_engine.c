/* test_gpu_engine.c - an engine whose ranks are on GPUs, where steps are chosen ahead: what goes
 * wrong with one request, or one rank, is nobody else's. On the model of a GPU (cuda_model.h). */
#include "engine_help.h"
#include "gpus_help.h"

#include <math.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NEW = 24, LAYERS = 2, EXPERTS = 6, TOP = 2 };

static struct plan make_plan(const struct model *m, int tp, int ep)
{
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = tp,
                           .ep = ep,
                           .ctx = 64,
                           .max_tok = 16,
                           .max_seq = 4,
                           .weight = NUM_F32,
                           .kv = NUM_F32,
                           .numerics = "f32-fma"};
    if (plan_make(&p, m, &ask, &e))
        fail_msg("%s", e.text);
    p.pages *= 4;
    return p;
}

static struct engine_request request(void)
{
    static const int prompt[] = {5, 17, 101, 33, 2};
    return (struct engine_request){.prompt = prompt,
                                   .n_prompt = COUNT(prompt),
                                   .max_new = NEW,
                                   .sampling = sampling_greedy,
                                   .n_top = -1,
                                   .n_prompt_top = -1};
}

/* The row of the token that there is not is on its way to all slices before anyone knows. */
static void a_row_without_a_token_ends_its_request_and_no_rank(void **state)
{
    const struct model m = tiny_llama(LAYERS);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    (void)state;
    for (int tp = 1; tp <= 2; tp++) {
        const int only[] = {3};
        const struct token_bias ban = {3, -INFINITY};
        struct plan p = make_plan(&m, tp, 1);
        struct client alone, c;
        struct engine_stats s;
        struct engine_request r = request();
        open_client(&alone, &p, &t, (struct engine_opts){0});
        ask(&alone, &r);
        wait_all(&alone);
        close_client(&alone);
        open_client(&c, &p, &t, (struct engine_opts){.team.gpus = the_gpus()});
        ask(&c, &r);
        r.only = only, r.n_only = 1, r.bias = &ban, r.n_bias = 1;
        ask(&c, &r);
        wait_all(&c);
        engine_stats(c.engine, &s);
        assert_int_equal(c.answer[1].finish, FINISH_FAILED);
        assert_int_equal(c.answer[1].n_tok, 0);
        assert_int_equal(c.answer[0].finish, FINISH_LENGTH);
        assert_memory_equal(c.answer[0].tok, alone.answer[0].tok, NEW * sizeof(int));
        assert_int_equal(s.restarts, 0);
        close_client(&c);
    }
    tiny_free(&t);
}

/* ------------------------------------------------------------------------------- torn steps */

/* Slice 0 has begun step TORN + 1 and left its last marks when slice 1 dies, which had computed
 * step TORN but not said so: that one is run again. */
enum { TORN = 8 };
static struct torn {
    const struct dev_ops *ops; /* the device's own */
    struct dev_ops with;
    bool draws; /* slice 0 */
    int steps;
    struct scene { /* the processes' together */
        _Atomic int marked, over;
        _Atomic double again_s; /* when new ranks started */
    } * scene;
} torn;

static void begin_torn(struct dev *d, struct batch *b)
{
    if (!torn.scene->over && torn.draws && ++torn.steps == TORN + 1) {
        for (int i = 0; i < b->n_out; i++)
            b->draws->token[i] = 99;
        while (!torn.ops->passed(d)) /* the step before, which the others take part in */
            ;
        torn.scene->marked = 1;
        pause();
    }
    torn.ops->begin(d, b);
}

static struct mat fetch_torn(struct dev *d, const struct mat *m)
{
    struct mat to = torn.ops->fetch(d, m);
    if (!torn.scene->over && !torn.draws && ++torn.steps == TORN) {
        while (!torn.scene->marked)
            usleep(1000);
        torn.scene->over = 1;
        kill(getpid(), SIGKILL);
    }
    return to;
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int open_torn(struct dev *d, const struct gpu_ask *ask, struct err *e)
{
    int rc = the_gpus()->plugin->open(d, ask, e);
    torn.ops = d->ops, torn.with = *d->ops, torn.draws = ask->draws, torn.steps = 0;
    if (torn.scene->over)
        torn.scene->again_s = seconds_now();
    torn.with.begin = begin_torn, torn.with.fetch = fetch_torn;
    d->ops = &torn.with;
    return rc;
}

static void a_step_that_is_run_again_is_fed_as_it_was(void **state)
{
    const struct model m = tiny_llama(LAYERS);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = make_plan(&m, 2, 1);
    struct gpus gpus = *the_gpus();
    struct plugin plugin = *gpus.plugin;
    struct client alone, c;
    struct engine_stats s;
    struct engine_request r = request();
    (void)state;
    torn.scene = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    plugin.open = open_torn;
    gpus.plugin = &plugin;
    open_client(&alone, &p, &t, (struct engine_opts){0});
    ask(&alone, &r);
    wait_all(&alone);
    close_client(&alone);
    open_client(&c, &p, &t, (struct engine_opts){.team.gpus = &gpus});
    ask(&c, &r);
    wait_all(&c);
    engine_stats(c.engine, &s);
    assert_int_equal(s.replaced, 1);
    assert_memory_equal(c.answer[0].tok, alone.answer[0].tok, NEW * sizeof(int));
    struct engine_step step[64];
    const int n = engine_steps(c.engine, step, 64);
    assert_true(n >= NEW - 1 && torn.scene->again_s > 0);
    for (int i = 0; i < n; i++) /* what the next ones will take is learnt of steps alone */
        assert_true(step[i].start_s > torn.scene->again_s ||
                    step[i].start_s + step[i].seconds < torn.scene->again_s);
    close_client(&c);
    munmap(torn.scene, 4096);
    tiny_free(&t);
}

/* ------------------------------------------------------------------------------- counts */

/* Ranks on the host see whom they wait for. */
static void nobody_is_called_late_who_is_not_seen_to_be(void **state)
{
    const struct model m = tiny_llama(LAYERS);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = make_plan(&m, 2, 1);
    const struct gpus *gpus[] = {NULL, the_gpus()};
    (void)state;
    for (size_t i = 0; i < COUNT(gpus); i++) {
        struct client c;
        uint64_t late[PLAN_RANKS];
        struct engine_request r = request();
        open_client(&c, &p, &t, (struct engine_opts){.team.gpus = gpus[i]});
        ask(&c, &r);
        wait_all(&c);
        engine_late(c.engine, late);
        assert_int_equal(late[0] + late[1] > 0, !gpus[i]);
        close_client(&c);
    }
    tiny_free(&t);
}

struct killer {
    struct engine *_Atomic engine;
    int rank, commits;
    uint64_t rows;
};

/* When most of it is done. */
static void kill_a_rank(void *arg, const struct drive_event *ev)
{
    struct killer *k = arg;
    struct team_memory host;
    struct rank_memory of[PLAN_RANKS];
    if (ev->deed != DRIVE_COMMIT)
        return;
    k->rows += (uint64_t)ev->step->batch.n_tok;
    if (++k->commits != NEW - 4)
        return;
    engine_memory(k->engine, &host, of);
    kill(of[k->rank].pid, SIGKILL);
}

static void a_killed_rank_takes_no_counts_of_experts_with_it(void **state)
{
    struct model m = tiny_llama(LAYERS);
    m.experts = (struct experts){.n = EXPERTS, .top = TOP, .ff = 64, .renorm = true};
    struct tiny t = tiny_make(&m, NUM_F32, 7);
    (void)state;
    for (int tp = 1; tp <= 2; tp++) {
        struct plan p = make_plan(&m, tp, tp);
        struct killer k = {.rank = tp - 1};
        struct client c;
        struct engine_stats s;
        struct turn_load turns[LAYERS];
        uint64_t rows[LAYERS][EXPERTS];
        struct expert_figures figures = {.rows = rows[0], .turns = turns};
        open_client(&c, &p, &t,
                    (struct engine_opts){.team.gpus = the_gpus(), .watch = {kill_a_rank, &k}});
        k.engine = c.engine;
        struct engine_request r = request();
        ask(&c, &r);
        wait_all(&c);
        do /* the last step's figures come after its tokens */
            engine_stats(c.engine, &s);
        while (!s.idle);
        assert_int_equal(s.replaced, 1);
        engine_experts(c.engine, &figures);
        for (int l = 0; l < LAYERS; l++) {
            uint64_t n = 0;
            for (int x = 0; x < EXPERTS; x++)
                n += rows[l][x];
            assert_true(n >= TOP * k.rows && n <= TOP * (k.rows + 2)); /* two steps ran again */
            assert_true(tp == 1 ? !turns[l].all : turns[l].all >= n);
        }
        close_client(&c);
    }
    tiny_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_without_a_token_ends_its_request_and_no_rank),
        cmocka_unit_test(a_step_that_is_run_again_is_fed_as_it_was),
        cmocka_unit_test(nobody_is_called_late_who_is_not_seen_to_be),
        cmocka_unit_test(a_killed_rank_takes_no_counts_of_experts_with_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
