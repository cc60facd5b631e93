/* test_gpu_hang.c - GPUs that never end a kernel, never begin, or fall off the bus: a recovery that
 * only the clock notices, or one clear line. On the model of a GPU (cuda_model.h). */
#include "engine_help.h"
#include "gpus_help.h"

enum { ASKED = 4, NEW = 40 };

static struct plan make_plan(const struct model *m, int tp)
{
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = tp,
                           .ctx = 64,
                           .max_tok = 16,
                           .max_seq = ASKED,
                           .weight = NUM_F32,
                           .kv = NUM_F32,
                           .numerics = "f32-fma"};
    if (plan_make(&p, m, &ask, &e))
        fail_msg("%s", e.text);
    p.pages *= ASKED;
    return p;
}

/* All requests, on GPUs or (NULL) on the host; machine: for the model of a GPU, NULL: as usual. */
static void answer(struct client *c, const struct plan *p, const struct tiny *t,
                   const struct gpus *gpus, const char *machine, struct engine_stats *s)
{
    static const int prompt[] = {5, 17, 101, 33, 2, 64, 8};
    if (machine)
        setenv("TANDEM_MODEL_GPU", machine, 1);
    open_client(c, p, t, (struct engine_opts){.team = {.gpus = gpus, .patience_s = 0.1}});
    for (int i = 0; i < ASKED; i++) {
        struct engine_request r = {.prompt = prompt,
                                   .n_prompt = (int)COUNT(prompt) - i,
                                   .max_new = NEW,
                                   .sampling = sampling_greedy,
                                   .n_top = -1,
                                   .n_prompt_top = -1};
        ask(c, &r);
    }
    wait_all(c);
    do /* the last step's figures come after its tokens */
        engine_stats(c->engine, s);
    while (!s->idle);
    close_client(c);
    unsetenv("TANDEM_MODEL_GPU");
}

/* Every so-manieth kernel of all ranks never ends. */
static void an_endless_kernel_is_left_behind_and_changes_no_token(void **state)
{
    const struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    (void)state;
    needs_model();
    for (int tp = 1; tp <= 2; tp++) {
        struct plan p = make_plan(&m, tp);
        struct client want, got;
        struct engine_stats s;
        answer(&want, &p, &t, NULL, NULL, &s);
        answer(&got, &p, &t, the_gpus(), tp == 1 ? "hang=1200" : "hang=2400", &s);
        assert_true(s.hung > 0);
        assert_int_equal(s.replaced, s.restarts);
        for (int i = 0; i < ASKED; i++) {
            assert_int_equal(got.answer[i].n_tok, NEW);
            assert_memory_equal(got.answer[i].tok, want.answer[i].tok, NEW * sizeof(int));
        }
    }
    tiny_free(&t);
}

static void a_gpu_off_the_bus_ends_every_request(void **state)
{
    const struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = make_plan(&m, 1);
    struct client c;
    struct engine_stats s;
    (void)state;
    needs_model();
    answer(&c, &p, &t, the_gpus(), "lost=125", &s); /* after the weights are there */
    assert_int_equal(c.ended, ASKED);
    assert_true(s.finished[FINISH_FAILED] > 0);
    assert_true(s.failed);
    tiny_free(&t);
}

static void a_gpu_that_does_not_begin_is_one_clear_error(void **state)
{
    const struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = make_plan(&m, 1);
    struct team_opts opts = {.isa = ISA_REF, .gpus = the_gpus(), .start_patience_s = 0.5};
    struct team *team;
    struct err e;
    (void)state;
    needs_model();
    setenv("TANDEM_MODEL_GPU", "mute=1", 1);
    assert_int_equal(team_start(&team, &p, t.store, &opts, &e), -ETIMEDOUT);
    unsetenv("TANDEM_MODEL_GPU");
    assert_null(team);
    assert_non_null(strstr(e.text, "on GPU 0, model of a GPU at 0000:17:00.0) does not start"));
    tiny_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_endless_kernel_is_left_behind_and_changes_no_token),
        cmocka_unit_test(a_gpu_off_the_bus_ends_every_request),
        cmocka_unit_test(a_gpu_that_does_not_begin_is_one_clear_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
