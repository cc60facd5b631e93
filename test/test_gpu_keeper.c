/* test_gpu_keeper.c - what outlives a rank on a GPU: weights, cache, and so every answer. On the
 * model of a GPU (cuda_model.h), or with the plugin that TANDEM_PLUGIN_PATH names. */
#include "engine/engine.h"
#include "engine/gpu_keeper.h"
#include "gpus_help.h"
#include "process.h"
#include "run/load.h"
#include "run/room.h"
#include "tiny.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REQUESTS = 4, NEW = 40, PROMPT = 12, WAIT_MS = 60000 };

static struct plan plan_of(const struct model *m, int tp, int pp)
{
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = tp,
                           .pp = pp,
                           .ctx = 64,
                           .max_tok = 16,
                           .max_seq = REQUESTS,
                           .threads = 2,
                           .weight = NUM_F32,
                           .kv = NUM_F32,
                           .numerics = "f32-fma"};
    if (plan_make(&p, m, &ask, &e))
        fail_msg("%s", e.text);
    p.pages *= REQUESTS;
    p.max_out = 16;
    return p;
}

static void pause_ms(long ms) { nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL); }

/* ------------------------------------------------------------------------------- processes */

static void wait_gone(int pid)
{
    for (int ms = 0; lives(pid); ms++) {
        assert_true(ms < WAIT_MS);
        pause_ms(1);
    }
}

/* The child of this process that keeps a GPU's memory; 0: none. */
static int gpu_keeper_of(int keeper)
{
    char path[64], name[64];
    int pid = 0, found = 0, parent;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", keeper, keeper);
    FILE *f = fopen(path, "r");
    while (f && !found && fscanf(f, "%d", &pid) == 1)
        if (process_of(pid, name, &parent) && !strncmp(name, "gpu-keeper-", 11))
            found = pid;
    if (f)
        fclose(f);
    return found;
}

/* ------------------------------------------------------------------------------- an engine */

struct client {
    struct engine *engine;
    uint64_t id[REQUESTS];
    int tok[REQUESTS][NEW], n[REQUESTS], ended, heard;
    int restarts;       /* of the drive: what was stored was lost */
    uint64_t rows, led; /* led: steps that rank 0 was told while another one ran */
    struct engine_stats stats;
};

static void hear(void *arg, const struct engine_event *ev)
{
    struct client *c = arg;
    for (int i = 0; i < REQUESTS; i++)
        if (c->id[i] == ev->id && ev->token >= 0)
            c->tok[i][c->n[i]++] = ev->token;
    c->ended += ev->finish != RUNNING;
    c->heard++;
}

static void count(void *arg, const struct drive_event *ev)
{
    struct client *c = arg;
    c->restarts += ev->deed == DRIVE_RESTART;
    if (ev->deed == DRIVE_STEP)
        c->rows += (uint64_t)ev->step->batch.n_tok;
}

/* The likeliest; by chance, with penalties and logprobs, which the host draws; by chance. */
static struct sampling sampling_of(int i)
{
    struct sampling s = sampling_greedy;
    s.temperature = i ? 1.5f : 0;
    s.seed = (uint64_t)i;
    if (i == 1)
        s.top_p = 0.9f, s.repetition = 1.3f, s.frequency = 0.1f;
    return s;
}

/* No step is chosen ahead while the one with penalties is there. */
static int new_of(int i) { return i == 1 ? NEW / 2 : NEW; }

static void begin_within(struct client *c, const struct plan *p, const struct store *s,
                         const struct gpus *gpus, double patience_s)
{
    struct engine_opts opts = {.team = {.isa = ISA_REF, .gpus = gpus, .patience_s = patience_s},
                               .watch = {count, c}};
    struct err e;
    memset(c, 0, sizeof(*c));
    if (engine_start(&c->engine, p, s, &opts, &e))
        fail_msg("%s", e.text);
    for (int i = 0; i < REQUESTS; i++) {
        int prompt[PROMPT];
        for (int k = 0; k < PROMPT; k++)
            prompt[k] = (37 * k + 11 * i + 3) % p->model.n_vocab;
        struct engine_request r = {.prompt = prompt,
                                   .n_prompt = PROMPT,
                                   .max_new = new_of(i),
                                   .sampling = sampling_of(i),
                                   .n_top = i == 1 ? 2 : -1,
                                   .n_prompt_top = -1};
        if (engine_submit(c->engine, &r, &c->id[i], &e))
            fail_msg("%s", e.text);
    }
}

static void begin(struct client *c, const struct plan *p, const struct store *s,
                  const struct gpus *gpus)
{
    begin_within(c, p, s, gpus, 0);
}

/* Until so many more events have come, or all have ended. */
static void go_on(struct client *c, int events)
{
    const int until = c->heard + events;
    for (int ms = 0; c->heard < until && c->ended < REQUESTS; ms++) {
        assert_true(ms < WAIT_MS);
        if (!engine_events(c->engine, hear, c))
            pause_ms(1);
    }
}

static void end(struct client *c)
{
    go_on(c, REQUESTS * (NEW + 1));
    do /* the last step's figures come after its tokens */
        engine_stats(c->engine, &c->stats);
    while (!c->stats.idle);
    struct rank_time time[PLAN_RANKS];
    engine_times(c->engine, time, false);
    c->led = time[0].led;
    engine_stop(c->engine);
}

static int pid_of(struct client *c, int rank)
{
    struct team_memory host;
    struct rank_memory of[PLAN_RANKS] = {0};
    engine_memory(c->engine, &host, of);
    return of[rank].pid;
}

/* A rank gets a signal, and the engine has seen to it; what comes then is of the ranks after it. */
static void signal_rank(struct client *c, int rank, int with, uint64_t restarts)
{
    int pid = pid_of(c, rank);
    if (pid <= 0 || c->ended == REQUESTS)
        return;
    kill(pid, with);
    for (int ms = 0; c->ended < REQUESTS; ms++) {
        engine_stats(c->engine, &c->stats);
        engine_events(c->engine, hear, c);
        if (c->stats.restarts == restarts)
            return;
        assert_true(ms < WAIT_MS);
        pause_ms(1);
    }
}

static void answer_quietly(struct client *c, const struct plan *p, const struct store *s,
                           const struct gpus *gpus)
{
    begin(c, p, s, gpus);
    end(c);
}

static void same_answers(const struct client *a, const struct client *b)
{
    for (int i = 0; i < REQUESTS; i++) {
        assert_int_equal(a->n[i], new_of(i));
        assert_int_equal(b->n[i], new_of(i));
        assert_memory_equal(a->tok[i], b->tok[i], sizeof(a->tok[i]));
    }
}

/* ------------------------------------------------------------------------------- ranks die */

static void signal_ranks(const struct gpus *gpus, const int split[][2], size_t n, int with)
{
    const struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    unsigned seed = 1;
    for (size_t i = 0; i < n; i++) {
        struct plan p = plan_of(&m, split[i][0], split[i][1]);
        struct client want, quiet, got;
        answer_quietly(&want, &p, t.store, NULL);
        answer_quietly(&quiet, &p, t.store, gpus);
        same_answers(&quiet, &want);
        assert_int_equal(want.led, 0);
        assert_true(quiet.led > 0);
        begin_within(&got, &p, t.store, gpus, with == SIGSTOP ? 0.1 : 0);
        for (uint64_t kills = 1; kills <= 3; kills++) {
            go_on(&got, 1 + rand_r(&seed) % 12);
            signal_rank(&got, rand_r(&seed) % plan_ranks(&p), with, kills);
        }
        end(&got);
        same_answers(&got, &want);
        assert_true(got.stats.restarts > 0);
        assert_int_equal(got.stats.replaced, got.stats.restarts);
        assert_true(quiet.stats.copied > 0);
        assert_int_equal(got.stats.copied, quiet.stats.copied);
        assert_int_equal(got.restarts, 0);
        assert_int_equal(got.rows, quiet.rows);
    }
    tiny_free(&t);
}

static void a_killed_rank_costs_no_copy_no_row_and_no_token(void **state)
{
    const int split[][2] = {{1, 1}, {2, 1}, {1, 2}};
    (void)state;
    signal_ranks(the_gpus(), split, COUNT(split), SIGKILL);
}

/* The step behind the one in which it was cancelled has a row of it that nobody wants. */
static void a_cancelled_request_leaves_the_others_as_they_are(void **state)
{
    const struct model m = tiny_llama(2);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = plan_of(&m, 2, 1);
    struct client want, got;
    (void)state;
    answer_quietly(&want, &p, t.store, NULL);
    for (int most = 1; most < 60; most += 19) {
        begin(&got, &p, t.store, the_gpus());
        go_on(&got, most);
        engine_cancel(got.engine, got.id[2]);
        end(&got);
        assert_int_equal(got.ended, REQUESTS);
        assert_true(got.n[2] < want.n[2]);
        for (int i = 0; i < REQUESTS; i++) {
            assert_true(i == 2 || got.n[i] == want.n[i]);
            assert_memory_equal(got.tok[i], want.tok[i], (size_t)got.n[i] * sizeof(int));
        }
    }
    tiny_free(&t);
}

/* New ranks make communicators of their own; a library of the tests stands in place of NCCL. */
static void nor_where_nccl_connects_ranks(void **state)
{
    const int split[][2] = {{2, 1}, {1, 2}};
    struct gpus apart;
    (void)state;
    needs_model();
    list_apart(&apart, "gpus=2 peers=0");
    signal_ranks(&apart, split, COUNT(split), SIGKILL);
    unsetenv("TANDEM_MODEL_GPU");
}

static void nor_does_a_stopped_one(void **state)
{
    const int split[][2] = {{1, 1}, {2, 1}, {1, 2}};
    (void)state;
    signal_ranks(the_gpus(), split, COUNT(split), SIGSTOP);
}

/* A rank of tp 2 dies after the process that `which` finds from its keeper. */
static void dies_after(const struct gpus *gpus, int (*which)(int keeper))
{
    const struct model m = tiny_llama(2);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = plan_of(&m, 2, 1);
    struct client want, got;
    answer_quietly(&want, &p, t.store, NULL);
    begin(&got, &p, t.store, gpus);
    go_on(&got, 8);
    int rank = pid_of(&got, 1), first = which ? which(parent_of(rank)) : 0;
    if (which)
        assert_true(first > 0 && !kill(first, SIGKILL));
    if (first)
        wait_gone(first);
    kill(rank, SIGKILL);
    end(&got);
    same_answers(&got, &want);
    assert_int_equal(got.stats.replaced, 0);
    assert_int_equal(got.restarts, 1);
    tiny_free(&t);
}

static void when_the_gpu_keeper_died_all_is_loaded_again(void **state)
{
    (void)state;
    dies_after(the_gpus(), gpu_keeper_of);
}

static int itself(int pid) { return pid; }

static void when_the_keeper_died_all_is_loaded_again(void **state)
{
    (void)state;
    dies_after(the_gpus(), itself);
}

static void gpus_that_share_nothing_are_loaded_again(void **state)
{
    struct gpus gpus;
    (void)state;
    needs_model();
    setenv("TANDEM_MODEL_KEEPS", "0", 1);
    list_gpus(&gpus);
    unsetenv("TANDEM_MODEL_KEEPS");
    assert_int_equal(gpus.gpu[0].unit, 0);
    dies_after(&gpus, NULL);
}

/* ------------------------------------------------------------------------------- nothing is left
 */

static void a_stopped_engine_leaves_no_process(void **state)
{
    const struct model m = tiny_llama(2);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = plan_of(&m, 2, 1);
    struct client c;
    (void)state;
    begin(&c, &p, t.store, the_gpus());
    go_on(&c, 4);
    int rank = pid_of(&c, 0), keeper = parent_of(rank), gpu_keeper = gpu_keeper_of(keeper);
    assert_true(gpu_keeper > 0);
    end(&c);
    wait_gone(rank), wait_gone(keeper), wait_gone(gpu_keeper);
    tiny_free(&t);
}

static void a_killed_control_leaves_no_process(void **state)
{
    const struct model m = tiny_llama(2);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = plan_of(&m, 2, 1);
    int of[3], fd[2];
    (void)state;
    the_gpus();
    assert_int_equal(pipe(fd), 0);
    pid_t control = fork();
    if (!control) {
        static struct client c;
        begin(&c, &p, t.store, the_gpus());
        int rank = pid_of(&c, 1), keeper = parent_of(rank);
        const int found[3] = {rank, keeper, gpu_keeper_of(keeper)};
        _exit(write(fd[1], found, sizeof(found)) < 0 || pause());
    }
    close(fd[1]);
    assert_int_equal(read(fd[0], of, sizeof(of)), sizeof(of));
    close(fd[0]);
    kill(control, SIGKILL);
    waitpid(control, NULL, 0);
    for (size_t i = 0; i < COUNT(of); i++) {
        assert_true(of[i] > 0);
        wait_gone(of[i]);
    }
    tiny_free(&t);
}

/* ------------------------------------------------------------------------------- too little */

static void too_little_memory_says_how_much_is_missing(void **state)
{
    const struct model m = tiny_llama(2);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct plan p = plan_of(&m, 2, 1);
    struct team_opts opts = {.isa = ISA_REF, .gpus = the_gpus()};
    struct team *team;
    struct err e;
    (void)state;
    needs_model();
    p.pages *= 1024; /* beside which weights are nothing */
    const size_t want = plan_kv_bytes(&p, 0) + plan_kv_bytes(&p, 1), have = want - (5 << 20);
    char number[32], words[32];
    snprintf(number, sizeof(number), "%zu", have);
    setenv("TANDEM_MODEL_MEMORY", number, 1); /* it was more when GPUs were listed */
    assert_int_equal(team_start(&team, &p, t.store, &opts, &e), -EIO);
    unsetenv("TANDEM_MODEL_MEMORY");
    snprintf(words, sizeof(words), "has %.0f MiB free", (double)have / (1 << 20));
    assert_non_null(strstr(e.text, words));
    assert_true(strstr(e.text, " 5 more: ") || strstr(e.text, " 6 more: "));
    tiny_free(&t);
}

static void kept_memory_is_counted_in_the_gpus_units(void **state)
{
    const struct model m = tiny_llama(2);
    struct plan p = plan_of(&m, 2, 1);
    struct gpus g = *the_gpus();
    size_t part[KEPT_PARTS];
    (void)state;
    g.gpu[0].unit = 2 << 20;
    gpu_kept_bytes(&p, 0, &g, part);
    struct gpu_need need = gpu_need(&p, 0, &g);
    g.gpu[0].unit = 0;
    const struct gpu_need exact = gpu_need(&p, 0, &g);
    g.gpu[0].unit = 2 << 20;
    size_t more = 0;
    for (int i = KEPT_WEIGHTS; i <= KEPT_CACHE; i++) /* the others are whole blocks anyway */
        more += round_up(part[i], 2 << 20) - part[i];
    assert_true(more > 0);
    assert_int_equal(need.weights, exact.weights);
    assert_int_equal(need.kv, exact.kv);
    assert_int_equal(need.scratch, exact.scratch + more);
    const struct gpu_need other = gpu_need(&p, 1, &g); /* slice 0 draws, and needs more */
    g.gpu[0].memory_free = need.weights + need.kv + need.scratch + other.weights + other.kv +
                           other.scratch + 2 * (size_t)GPU_RESERVE;
    struct err e;
    assert_int_equal(gpu_check(&p, &g, &e), 0);
    g.gpu[0].memory_free--;
    assert_int_equal(gpu_check(&p, &g, &e), -ENOMEM);
    g.gpu[0].memory_free += 64 << 20;
    p.pages = gpu_pages(&p, &g);
    assert_int_equal(gpu_check(&p, &g, &e), 0);
}

/* ------------------------------------------------------------------------------- half an upload */

/* What a rank of its own starts on, in memory that its processes share. */
struct half {
    struct plan p;
    struct weights whole;
    char *base;
    size_t bytes;
    struct pool pool;
    struct gpu_keepers keepers;
    struct marks {
        _Atomic uint32_t complete;
        _Atomic uint64_t copied;
    } * marks;
};

static struct arena heap_arena(struct pool *pool, size_t bytes)
{
    char *at = pool_get(pool, bytes + ARENA_ALIGN);
    size_t skip = (size_t)(-(uintptr_t)at % ARENA_ALIGN);
    return (struct arena){.base = at + skip, .size = bytes};
}

static void half_open(struct half *h, const struct model *m, const struct store *s)
{
    struct arena tables = {0}, data = {0};
    struct load *list;
    _Atomic uint64_t done = 0;
    struct err e;
    memset(h, 0, sizeof(*h));
    h->p = plan_of(m, 1, 1);
    weights_lay_out(&h->whole, &h->p, PLAN_WHOLE, &tables, &data);
    h->bytes = data.used;
    tables = heap_arena(&h->pool, tables.used);
    if (map_memory(h->bytes, false, &h->base, &e))
        fail_msg("%s", e.text);
    data = (struct arena){.base = h->base, .size = h->bytes};
    weights_lay_out(&h->whole, &h->p, PLAN_WHOLE, &tables, &data);
    if (load_list(&list, &h->p, &h->whole, s, &h->pool, &e) || load_all(list, 1, &done, &e))
        fail_msg("%s", e.text);
    h->marks = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (gpu_keepers_start(&h->keepers, &h->p, the_gpus(), &e) || gpu_keepers_take(&h->keepers, &e))
        fail_msg("%s", e.text);
    assert_non_null(gpu_keepers_kept(&h->keepers));
}

static void half_close(struct half *h)
{
    gpu_keepers_kill(&h->keepers);
    for (int i = 0; i < h->keepers.n; i++)
        waitpid(h->keepers.of[i].pid, NULL, 0);
    munmap(h->base, h->bytes);
    munmap(h->marks, 4096);
    pool_free(&h->pool);
}

/* A rank starts in a process of its own, which may read the host's weights from the beginning up to
 * `readable`. Returns whether it lived, and had the last layer's norm right. */
static bool a_rank_starts(struct half *h, size_t readable)
{
    pid_t pid = fork();
    if (!pid) {
        const struct mat *norm = &h->whole.layer[h->p.model.n_layer - 1].ffn_norm;
        float *want = test_malloc(mat_bytes(norm));
        memcpy(want, norm->at, mat_bytes(norm));
        mprotect(h->base + readable / 4096 * 4096, h->bytes - readable / 4096 * 4096, PROT_NONE);
        struct rank r = {0};
        struct gpu_rank gpu;
        struct dev threads;
        struct arena measure = {0}, host, room;
        struct err e;
        dev_cpu_init(&threads, ISA_REF, 1, 1, 1, &measure);
        room = heap_arena(&h->pool, measure.used);
        dev_cpu_init(&threads, ISA_REF, 1, 1, 1, &room);
        host = heap_arena(&h->pool, gpu_tables(&h->p, 0));
        const struct gpu_start start = {.gpus = the_gpus(),
                                        .whole = &h->whole,
                                        .host = &threads,
                                        .kept = gpu_keepers_kept(&h->keepers),
                                        .complete = &h->marks->complete,
                                        .copied = &h->marks->copied};
        signal(SIGSEGV, SIG_DFL);
        if (gpu_rank_open(&gpu, &r, &h->p, 0, &start, &host, &e))
            _exit(1);
        struct mat got = dev_fetch(&gpu.dev, &r.weights.layer[h->p.model.n_layer - 1].ffn_norm);
        _exit(memcmp(got.at, want, mat_bytes(&got)) != 0);
    }
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && !WEXITSTATUS(status);
}

static void half_an_upload_is_done_again_and_a_whole_one_is_not(void **state)
{
    const struct model m = tiny_llama(3);
    struct tiny t = tiny_make(&m, NUM_F32, 11);
    struct half h;
    (void)state;
    half_open(&h, &m, t.store);
    assert_false(a_rank_starts(&h, h.bytes / 2));
    assert_int_equal(h.marks->complete, 0);
    const uint64_t half = h.marks->copied;
    assert_true(a_rank_starts(&h, h.bytes + 4096));
    assert_int_equal(h.marks->complete, 1);
    const uint64_t copied = h.marks->copied;
    assert_int_equal(copied - half, plan_weight_bytes(&h.p, 0));
    assert_true(a_rank_starts(&h, 0)); /* nothing of the host's is read */
    assert_int_equal(h.marks->copied, copied);
    half_close(&h);
    tiny_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_rank_costs_no_copy_no_row_and_no_token),
        cmocka_unit_test(a_cancelled_request_leaves_the_others_as_they_are),
        cmocka_unit_test(nor_where_nccl_connects_ranks),
        cmocka_unit_test(nor_does_a_stopped_one),
        cmocka_unit_test(when_the_gpu_keeper_died_all_is_loaded_again),
        cmocka_unit_test(when_the_keeper_died_all_is_loaded_again),
        cmocka_unit_test(gpus_that_share_nothing_are_loaded_again),
        cmocka_unit_test(a_stopped_engine_leaves_no_process),
        cmocka_unit_test(a_killed_control_leaves_no_process),
        cmocka_unit_test(too_little_memory_says_how_much_is_missing),
        cmocka_unit_test(kept_memory_is_counted_in_the_gpus_units),
        cmocka_unit_test(half_an_upload_is_done_again_and_a_whole_one_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
