/* test_gpu_nccl.c - groups of ranks that NCCL connects: on the model of a GPU by a library of the
 * tests (cuda_model/fake_nccl.c). NCCL refuses several ranks on one GPU, so on a real one a group
 * of one is tried, and those of more are skipped. */
#include "comm/nccl/nccl.h"
#include "comm/shots.h"

struct group {
    struct comm_nccl ctx;
};
struct cards {
    struct nccl_card card;
};

#include "gpu_groups.h"

static const struct nccl *library(void)
{
    static struct nccl nccl;
    struct err e;
    if (!nccl.version && nccl_open(&nccl, &e))
        fail_msg("%s", e.text);
    return &nccl;
}

static bool fast;       /* of the groups that tests open now */
static int patience_ms; /* likewise */
static int late_ms;     /* by which the last rank comes later than the others */

/* Room for little, so that columns are joined a few rows at a time. */
static int open_group(struct desk *d)
{
    const struct task *t = d->task;
    void *at = NULL;
    struct err e;
    struct comm_nccl_opts o = {.rank = d->rank,
                               .use = {.size = t->size,
                                       .cut = t->cut[t->size] ? t->cut : NULL,
                                       .rows = 1,
                                       .dim = 140016,
                                       .joined = 140},
                               .fast = fast,
                               .library = library(),
                               .card = &d->cards->card,
                               .wait = {d->stop, SPINS},
                               .patience_ms = patience_ms,
                               .stream = d->stream,
                               .replays = &d->replays};
    const size_t head = comm_nccl_bytes(&o.use);
    if (gpu_alloc(&at, head + t->peer_bytes + 1))
        return 1;
    d->memory = o.memory = at;
    d->peer = (struct arena){.base = d->memory + head, .size = t->peer_bytes};
    if (d->rank == t->size - 1)
        usleep((unsigned)late_ms * 1000);
    const int rc = comm_nccl_open(&d->c, &d->group.ctx, &o, &e);
    if (rc && rc != -ECANCELED)
        print_message("%s\n", e.text);
    return rc != 0;
}

static void close_group(struct desk *d) { comm_nccl_close(&d->group.ctx); }

static int wait_group(struct desk *d)
{
    bool done = false;
    int rc = 0;
    for (bool begins = true; !rc && !done; begins = false) {
        rc = gpu_done(d->stream, &done);
        if (!done)
            comm_nccl_look(&d->c, begins);
    }
    return rc;
}

static bool two_shots(int size, size_t bytes)
{
    (void)size;
    return comm_nccl_two_shot(bytes);
}

static bool brings_all(void) { return true; }

/* ------------------------------------------------------------------------------- fast sums */

/* Within what f32 loses over so few terms, and the same on all ranks. */
static int near_sums(struct desk *d)
{
    static const int shape[][2] = {{1, 1000}, {6, 50}, {7, 9001}};
    const struct span all = {0, d->task->cut[d->task->size]};
    int wrong = 0;
    for (size_t k = 0; k < COUNT(shape); k++) {
        struct mat to = get(d, NUM_F32, shape[k][0], shape[k][1]);
        struct planes from = get_planes(d, to.n, to.dim);
        struct span mine = share(to.n, d->c.size, d->rank);
        wrong += put_planes(d, &from, (int)k);
        comm_scatter_sum(&d->c, &to, &from);
        comm_gather(&d->c, &to);
        const float *gathered = fetch(d, &to);
        wrong += put_planes(d, &from, (int)k);
        comm_sum(&d->c, &to, &from);
        const float *got = fetch(d, &to);
        wrong += done(d) + (len(mine) < 0);
        for (size_t i = 0; i < numbers(&to); i++) {
            float want = tree_sum((int)k, all, i), most = 0;
            for (int s = 0; s < all.hi; s++)
                most += __builtin_fabsf(tree_sum((int)k, (struct span){s, s + 1}, i));
            wrong += !(__builtin_fabsf(got[i] - want) <= most * 0x1p-20f);
            wrong += !(__builtin_fabsf(gathered[i] - want) <= most * 0x1p-20f);
        }
    }
    return wrong;
}

static void fast_sums_are_near(void **state)
{
    (void)state;
    fast = true;
    for (int size = 2; size <= 4; size++)
        for (int way = 0; way < 3; way++) {
            struct task t = {.run = near_sums, .size = size, .peer_bytes = 4 << 20};
            cut_task(&t, 8, way);
            run_task(&t, "fast sum");
        }
    fast = false;
}

/* ------------------------------------------------------------------------------- one rank */

/* What the true library does with prototypes of ours, on any GPU. */
static int alone(struct desk *d)
{
    const struct comm_nccl *p = &d->group.ctx;
    const struct nccl *nccl = p->opts.library;
    struct CUstream_st *stream = d->stream;
    struct mat to = get(d, NUM_F32, 1, 1000), from = get(d, NUM_F32, 1, 1000);
    void *recorded = NULL;
    int wrong = 0;
    float *mine = host(d, &from);
    for (int i = 0; i < from.dim; i++)
        mine[i] = cell(1, 1, i);
    wrong += put(d, &from, mine) + done(d);
    for (int call = 0; call < 2; call++) { /* the second is recorded, when all is loaded */
        if (call)
            wrong += gpu_record_begin(d->stream) != 0;
        wrong += nccl->AllReduce(from.at, to.at, 1000, NCCL_FLOAT32, NCCL_SUM, p->comm, stream) !=
                 NCCL_IN_PROGRESS;
        unsigned state = NCCL_IN_PROGRESS;
        while (state == NCCL_IN_PROGRESS && !nccl->CommGetAsyncError(p->comm, &state))
            ;
        wrong += state != NCCL_SUCCESS;
    }
    wrong += gpu_record_end(d->stream, &recorded) != 0;
    wrong += gpu_clear(to.at, mat_bytes(&to), d->stream) != 0;
    wrong += gpu_replay(recorded, d->stream) != 0;
    const float *got = fetch(d, &to);
    wrong += done(d);
    gpu_record_free(recorded);
    return wrong + memcmp(got, mine, mat_bytes(&to)) != 0;
}

static void a_group_of_one_is_made_recorded_and_aborted(void **state)
{
    struct task t = {.run = alone, .size = 1, .peer_bytes = 1 << 16};
    (void)state;
    run_task(&t, "alone");
}

/* ------------------------------------------------------------------------------- failures */

/* Nobody raises a stop word: NCCL says that something failed, or nothing at all. */
static int fails(struct desk *d)
{
    struct mat sum = get(d, NUM_F32, 1, 64);
    struct planes y = get_planes(d, 1, 64);
    int wrong = put_planes(d, &y, 0);
    comm_sum(&d->c, &sum, &y);
    wrong += done(d);
    if (d->task->arg == -ETIMEDOUT && d->rank == 1)
        return wrong;
    comm_sum(&d->c, &sum, &y);
    wrong += wait_group(d) != 0;
    return wrong + (d->c.err != d->task->arg) + !d->c.why;
}

static void what_nccl_says_of_a_failure_ends_the_wait(void **state)
{
    struct task t = {.run = fails, .size = 2, .peer_bytes = 1 << 16, .arg = -EIO};
    (void)state;
    cut_task(&t, 8, 0);
    setenv("FAKE_NCCL_FAILS", "2", 1);
    run_task(&t, "failure");
    unsetenv("FAKE_NCCL_FAILS");
}

static void who_never_comes_is_not_waited_for(void **state)
{
    struct task t = {.run = fails, .size = 3, .peer_bytes = 1 << 16, .arg = -ETIMEDOUT};
    (void)state;
    cut_task(&t, 8, 0);
    patience_ms = 300;
    run_task(&t, "patience");
    patience_ms = 0;
}

static int is_there(struct desk *d) { return d->c.err; }

/* Patience is with NCCL: weights may take a rank any time. */
static void who_comes_late_to_the_start_is_waited_for(void **state)
{
    struct task t = {.run = is_there, .size = 3, .peer_bytes = 1 << 16};
    (void)state;
    cut_task(&t, 8, 0);
    patience_ms = 200, late_ms = 600;
    run_task(&t, "late");
    patience_ms = late_ms = 0;
}

static void a_raised_stop_word_ends_the_start(void **state)
{
    static struct cards cards;
    _Atomic uint32_t stop = 1;
    struct task t = {.size = 2, .peer_bytes = 4096};
    struct desk d = {.task = &t, .cards = &cards, .stop = &stop};
    (void)state;
    cut_task(&t, 8, 0);
    assert_int_equal(open_desk(&d), 1); /* and does not wait for rank 1 */
    assert_int_equal(d.c.err, -ECANCELED);
    close_desk(&d);
}

/* ------------------------------------------------------------------------------- the library */

static void refused(const char *library, const char *version, const char *word)
{
    struct nccl nccl;
    struct err e = {{0}};
    const char *before = getenv("TANDEM_NCCL");
    char kept[512];
    snprintf(kept, sizeof(kept), "%s", before ? before : "");
    if (library)
        setenv("TANDEM_NCCL", library, 1);
    if (version)
        setenv("FAKE_NCCL_VERSION", version, 1);
    assert_int_not_equal(nccl_open(&nccl, &e), 0);
    if (!strstr(e.text, word) || !strstr(e.text, "install") || strchr(e.text, '\n'))
        fail_msg("%s", e.text);
    unsetenv("FAKE_NCCL_VERSION");
    setenv("TANDEM_NCCL", kept, 1);
}

static void a_library_that_does_not_serve_is_refused_in_a_line(void **state)
{
    (void)state;
    refused("/nowhere/libnccl.so.2", NULL, "/nowhere/libnccl.so.2");
    refused("libm.so.6", NULL, "ncclGetErrorString");
    refused(NULL, "21706", "2.17.6");
    refused(NULL, "2708", "2.7.8");
}

static bool on_the_model(void)
{
    struct gpu_about about;
    return !gpu_about(0, &about) && !strcmp(about.name, "model of a GPU");
}

int main(void)
{
    const struct CMUnitTest alone_only[] = {
        cmocka_unit_test(a_group_of_one_is_made_recorded_and_aborted)};
    const struct CMUnitTest tests[] = {
        GPU_GROUP_TESTS cmocka_unit_test(a_group_of_one_is_made_recorded_and_aborted),
        cmocka_unit_test(fast_sums_are_near),
        cmocka_unit_test(what_nccl_says_of_a_failure_ends_the_wait),
        cmocka_unit_test(who_never_comes_is_not_waited_for),
        cmocka_unit_test(who_comes_late_to_the_start_is_waited_for),
        cmocka_unit_test(a_raised_stop_word_ends_the_start),
        cmocka_unit_test(a_library_that_does_not_serve_is_refused_in_a_line),
    };
    if (!on_the_model()) {
        print_message("skipped: NCCL refuses several ranks on one GPU; a group of one is tried\n");
        return cmocka_run_group_tests(alone_only, NULL, NULL);
    }
    setenv("TANDEM_NCCL", BUILD_DIR "/model/fake/libnccl.so.2", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
