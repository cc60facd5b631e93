/* test_gpu_device.c - the host side of a GPU's device, on the model of one: memory, batches, and
 * steps that are recorded and replayed. */
#include "dev/cuda/cuda.h"
#include "dev/cuda/runtime.h"
#include "dev/plugin.h"
#include "dev/profile.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

extern const struct plugin tandem_plugin;
__attribute__((weak)) const char *model_spans(void); /* cuda_model/runtime.cc; no GPU has it */

static void spans_are(const char *begin)
{
    if (model_spans)
        assert_memory_equal(model_spans(), begin, strlen(begin));
}

enum { ROWS = 40, DIM = 24, SEQS = 3 };

static void open_device(struct dev *d, bool records)
{
    const struct gpu_ask ask = {.max_tok = ROWS,
                                .max_seq = SEQS,
                                .max_out = ROWS,
                                .ctx = 2048,
                                .max_dim = DIM,
                                .words = 128,
                                .draws = true,
                                .heads = 1,
                                .head_dim = 16,
                                .profile = !records,
                                .records = records};
    struct err e;
    if (tandem_plugin.open(d, &ask, &e))
        fail_msg("%s", e.text);
}

/* Rows of numbers in the device's memory. */
static struct mat rows_on(struct dev *d, int n, int dim, const float *from)
{
    struct mat m = {n, dim, NUM_F32, NULL};
    struct err e;
    char *at;
    if (tandem_plugin.memory(d, mat_bytes(&m), &at, &e) ||
        (from && tandem_plugin.load(d, 0, at, from, mat_bytes(&m), &e)))
        fail_msg("%s", e.text);
    m.at = at;
    return m;
}

static void memory_is_zero_and_loads_of_any_size_arrive(void **state)
{
    enum { N = (20 << 20) / 4 + 7, LOOK = 100 };
    static struct dev d; /* lasts as long as the process */
    float *here = test_malloc(N * sizeof(*here));
    const int look[] = {0, N / LOOK - 1};
    (void)state;
    open_device(&d, false);
    for (int i = 0; i < N; i++)
        here[i] = (float)i;
    struct mat to = rows_on(&d, 2, LOOK, NULL), all = rows_on(&d, N / LOOK, LOOK, here);
    struct mat got = dev_fetch(&d, &to);
    for (int i = 0; i < 2 * LOOK; i++)
        assert_true(((float *)got.at)[i] == 0);
    struct batch b = {.n_tok = 2,
                      .n_seq = 1,
                      .n_out = 0,
                      .tok = look,
                      .pos = look,
                      .slot = look,
                      .seq = (const int[]){0, 0},
                      .page = (const int[]){0},
                      .stride = 1};
    b.pos = (const int[]){0, 1};
    dev_begin(&d, &b);
    dev_pick(&d, &to, &all, b.tok);
    got = dev_fetch(&d, &to);
    assert_int_equal(d.err, 0);
    for (int i = 0; i < LOOK; i++) {
        assert_true(mat_row(&got, 0)[i] == here[i]);
        assert_true(mat_row(&got, 1)[i] == here[(N / LOOK - 1) * LOOK + i]);
    }
    test_free(here);
}

enum { LANES = 4, KEPT_ROWS = 1200, KEPT_DIM = 100 };

struct filling {
    struct dev *d;
    char *to;
    const char *from;
    size_t bytes;
    int lane, rc;
};

static void *fill(void *arg)
{
    struct filling *f = arg;
    struct err e;
    f->rc = tandem_plugin.load(f->d, f->lane, f->to, f->from, f->bytes, &e);
    return NULL;
}

static void kept_memory_is_one_however_often_it_is_mapped_and_threads_fill_it(void **state)
{
    static struct dev d;
    const size_t bytes = (size_t)KEPT_ROWS * KEPT_DIM * sizeof(float), part = bytes / LANES;
    float *here = test_malloc(bytes);
    char *one = NULL, *two = NULL;
    struct filling f[LANES];
    pthread_t thread[LANES];
    struct err e;
    size_t unit;
    int fd;
    (void)state;
    open_device(&d, false);
    assert_int_equal(gpu_keep_unit(0, &unit), 0);
    if (!unit) {
        print_message("skipped: this GPU shares no memory by descriptors\n");
        skip();
    }
    for (int i = 0; i < KEPT_ROWS * KEPT_DIM; i++)
        here[i] = (float)i;
    assert_int_equal(gpu_keep(0, bytes, &fd), 0);
    if (tandem_plugin.kept(&d, fd, bytes, true, &one, &e) ||
        tandem_plugin.kept(&d, fd, bytes, false, &two, &e))
        fail_msg("%s", e.text);
    close(fd);
    assert_ptr_not_equal(one, two);
    struct mat first = {2, KEPT_DIM, NUM_F32, two}, got = dev_fetch(&d, &first);
    for (int i = 0; i < 2 * KEPT_DIM; i++)
        assert_true(((float *)got.at)[i] == 0);
    for (int i = 0; i < LANES; i++) {
        const size_t at = (size_t)i * part;
        f[i] = (struct filling){&d, one + at, (char *)here + at, part, i, -1};
        assert_int_equal(pthread_create(&thread[i], NULL, fill, &f[i]), 0);
    }
    for (int i = 0; i < LANES; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(f[i].rc, 0);
    }
    tandem_plugin.load_end(&d);
    for (int row = 0; row < KEPT_ROWS; row += ROWS) {
        const size_t at = (size_t)row * KEPT_DIM;
        struct mat some = {ROWS, KEPT_DIM, NUM_F32, (float *)(void *)two + at};
        got = dev_fetch(&d, &some);
        assert_memory_equal(got.at, here + at, mat_bytes(&got));
    }
    assert_int_equal(gpu_kept_unmap(one, bytes), 0);
    assert_int_equal(gpu_kept_unmap(two, bytes), 0);
    test_free(here);
}

/* A step that picks the rows b.out of x: they depend on the batch alone. */
static void pick_and_check(struct dev *d, const struct mat *x, const float *here, int n, int turn)
{
    int zero[ROWS] = {0}, out[ROWS], page[1] = {turn};
    struct mat y = mat_rows(x, (struct span){ROWS, ROWS + n});
    for (int i = 0; i < n; i++)
        out[i] = (i * 7 + turn) % ROWS;
    struct batch b = {.n_tok = n,
                      .n_seq = 1,
                      .n_out = n,
                      .tok = zero,
                      .pos = zero,
                      .slot = zero,
                      .seq = zero,
                      .page = page,
                      .stride = 1,
                      .out = out};
    dev_begin(d, &b);
    dev_pick(d, &y, x, b.out);
    struct mat got = dev_fetch(d, &y);
    assert_int_equal(d->err, 0);
    for (int i = 0; i < n; i++)
        assert_memory_equal(mat_row(&got, i), here + (size_t)out[i] * DIM, DIM * sizeof(float));
}

static void a_replayed_step_reads_its_own_batch(void **state)
{
    float here[2 * ROWS * DIM] = {0};
    static struct dev d, plain;
    (void)state;
    for (int i = 0; i < ROWS * DIM; i++)
        here[i] = (float)(i + 1);
    open_device(&d, true);
    open_device(&plain, false);
    struct mat x = rows_on(&d, 2 * ROWS, DIM, here), z = rows_on(&plain, 2 * ROWS, DIM, here);
    for (int turn = 0; turn < 6; turn++) /* met, recorded, replayed */
        for (int n = 1; n <= ROWS; n += 13) {
            pick_and_check(&d, &x, here, n, turn);
            pick_and_check(&plain, &z, here, n, turn);
        }
}

static void without_memory_to_spare_steps_are_not_recorded(void **state)
{
    float here[2 * ROWS * DIM] = {0};
    static struct dev d;
    (void)state;
    if (!model_spans)
        skip(); /* a GPU has what it has */
    open_device(&d, true);
    struct mat x = rows_on(&d, 2 * ROWS, DIM, here);
    const struct record *first = &cuda_of(&d)->records.at[0];
    setenv("TANDEM_MODEL_GPU", "free=64", 1);
    for (int turn = 0; turn < 4; turn++)
        pick_and_check(&d, &x, here, 5, turn);
    assert_true(first->met && !first->recorded);
    unsetenv("TANDEM_MODEL_GPU");
    pick_and_check(&d, &x, here, 5, 4);
    assert_non_null(first->recorded);
}

/* Begin a step of three tokens and end it: tokens are drawn from logits, or, if there are none, the
 * three are what the host wants. */
static void begin_fed(struct dev *d, const int tok[3], struct mat *token, const struct mat *logits,
                      const struct draw_rows *rows)
{
    const int zero[3] = {0};
    struct batch b = {.n_tok = 3,
                      .n_seq = 1,
                      .n_out = rows ? rows->n : 0,
                      .tok = tok,
                      .pos = zero,
                      .slot = zero,
                      .seq = zero,
                      .page = zero,
                      .stride = 1,
                      .out = zero,
                      .draws = rows,
                      .drawn = token->at};
    dev_begin(d, &b);
    const struct mat told = {1, 3, NUM_F32, (void *)(uintptr_t)b.tok};
    if (rows)
        assert_true(dev_draw(d, token, logits, rows));
    dev_end(d, rows ? logits : &told);
}

static void a_step_behind_another_gets_the_tokens_that_this_one_draws(void **state)
{
    enum { WORDS = 128 };
    static struct dev d; /* lasts as long as the process */
    float here[2 * WORDS];
    const struct draw_row greedy = {
        .sampling = {.top_p = 1, .repetition = 1}, .given = -1, .n_top = -1};
    const struct draw_row row[2] = {greedy, greedy};
    (void)state;
    struct err e;
    open_device(&d, true);
    assert_true(d.leads);
    struct mat logits = rows_on(&d, 2, WORDS, NULL), none = {1, 3, NUM_F32, NULL};
    struct mat drawn = rows_on(&d, 2, 1, NULL);
    for (int turn = 0; turn < 5; turn++) { /* met, recorded, replayed */
        const int most[2] = {turn * 17 + 3, 100 - turn}, known[3] = {1, 2, 3},
                  fed[3] = {~1, 55, ~0};
        int token[2] = {-1, -1};
        const struct draw_rows rows = {.n = 2, .row = row, .token = token};
        memset(here, 0, sizeof(here));
        for (int i = 0; i < 2; i++)
            here[i * WORDS + most[i]] = 1;
        assert_int_equal(tandem_plugin.load(&d, 0, logits.at, here, sizeof(here), &e), 0);
        begin_fed(&d, known, &drawn, &logits, &rows);
        begin_fed(&d, fed, &drawn, NULL, NULL);
        dev_fetch(&d, &logits);
        assert_memory_equal(token, most, sizeof(most));
        const struct mat got = dev_fetch(&d, &none);
        assert_int_equal(d.err, 0);
        const int want[3] = {most[1], 55, most[0]};
        assert_memory_equal(got.at, want, sizeof(want));
    }
}

static void pages_of_sequences_are_as_long_as_the_step_needs(void **state)
{
    const int stride = record_keys(600) / KV_PAGE, zero[SEQS] = {0}, pos[SEQS] = {599, 3, 20};
    const int seq[SEQS] = {0, 1, 2};
    int page[SEQS * 40];
    static struct dev d; /* lasts as long as the process */
    (void)state;
    for (int i = 0; i < SEQS * 40; i++)
        page[i] = i + 1;
    open_device(&d, false);
    struct batch b = {.n_tok = SEQS,
                      .n_seq = SEQS,
                      .tok = zero,
                      .pos = pos,
                      .slot = zero,
                      .seq = seq,
                      .page = page,
                      .stride = 40};
    dev_begin(&d, &b);
    assert_int_equal(b.stride, stride);
    struct mat there = {SEQS, stride, NUM_F32, (void *)(uintptr_t)b.page};
    struct mat got = dev_fetch(&d, &there);
    const int *at = got.at;
    for (int s = 0; s < SEQS; s++)
        for (int i = 0; i < stride; i++)
            assert_int_equal(at[s * stride + i], i < 40 ? s * 40 + i + 1 : 0);
}

/* More operations than there are marks, and in two steps. */
static void operations_are_timed_and_named_in_their_order(void **state)
{
    enum { MANY = 3000 };
    static struct dev d, timed;
    static struct op_time op[OP_COUNT];
    struct profile profile = {.inner = &d, .op = op};
    const int zero[1] = {0};
    static const struct mat none;
    const struct batch b = {.n_tok = 1,
                            .n_seq = 1,
                            .tok = zero,
                            .pos = zero,
                            .slot = zero,
                            .seq = zero,
                            .page = zero,
                            .stride = 1};
    (void)state;
    open_device(&d, false);
    dev_profile_init(&timed, &profile);
    struct mat x = rows_on(&d, 1, DIM, NULL), y = rows_on(&d, 1, DIM, NULL);
    spans_are("");
    for (int step = 1; step <= 2; step++) {
        struct batch there = b;
        dev_begin(&timed, &there);
        dev_swiglu(&timed, &x, &y);
        for (int i = 0; step == 2 && i < MANY; i++)
            dev_add(&timed, &x, &y, &none);
        dev_fetch(&timed, &none);
        assert_int_equal(timed.err, 0);
        if (step == 1)
            spans_are("swiglu");
        assert_int_equal(op[OP_SWIGLU].calls, step);
        assert_true(op[OP_SWIGLU].ns > 0 && op[OP_FETCH].ns > 0);
    }
    assert_int_equal(op[OP_ADD].calls, MANY);
    assert_true(op[OP_ADD].ns > 0);
    spans_are("swiglu, add, add, ");
}

static void shapes_are_recorded_when_met_again_and_the_oldest_gives_way(void **state)
{
    struct records r = {.now = 0};
    bool again;
    void *old;
    (void)state;
    for (int i = 0; i < RECORDS; i++) {
        struct record *at = records_meet(&r, (struct step_key){i, 1, 1, 512, 0}, &again, &old);
        assert_false(again);
        assert_null(old);
        at->recorded = at;
    }
    struct record *first = records_meet(&r, (struct step_key){0, 1, 1, 512, 0}, &again, &old);
    assert_true(again);
    struct record *next = records_meet(&r, (struct step_key){0, 1, 1, 1024, 0}, &again, &old);
    assert_false(again);
    assert_ptr_equal(old, next); /* that of shape 1, not met since */
    assert_null(next->recorded);
    assert_ptr_equal(records_meet(&r, (struct step_key){0, 1, 1, 512, 0}, &again, &old), first);
    assert_true(again);
    records_meet(&r, (struct step_key){1, 1, 1, 512, 0}, &again, &old);
    assert_false(again);
    assert_int_equal(record_keys(1), RECORD_KEYS);
    assert_int_equal(record_keys(RECORD_KEYS + 1), 2 * RECORD_KEYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zero_and_loads_of_any_size_arrive),
        cmocka_unit_test(kept_memory_is_one_however_often_it_is_mapped_and_threads_fill_it),
        cmocka_unit_test(a_replayed_step_reads_its_own_batch),
        cmocka_unit_test(without_memory_to_spare_steps_are_not_recorded),
        cmocka_unit_test(a_step_behind_another_gets_the_tokens_that_this_one_draws),
        cmocka_unit_test(pages_of_sequences_are_as_long_as_the_step_needs),
        cmocka_unit_test(operations_are_timed_and_named_in_their_order),
        cmocka_unit_test(shapes_are_recorded_when_met_again_and_the_oldest_gives_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
