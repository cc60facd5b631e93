/* test_gpu_draw.c - drawing tokens on a GPU: what sample() of run/sample.h draws, for rows of all
 * kinds beside each other, on one GPU and in slices on several. On the model of a GPU
 * (cuda_model.h). */
#include "gpu_help.h"

#include <math.h>
#include <pthread.h>

#include "dev/cuda/draws.h"
#include "run/sample.h"

enum { ROWS = 70, SEEN = 40, BIAS = 6, WORDS = 40000, SLICES = 5 };

/* Some rows, how they are to be drawn, and what all that points to. */
struct rows {
    int n, words;
    float *logits;
    struct draw_row row[ROWS];
    int seen[ROWS * SEEN], token[ROWS];
    struct token_bias bias[ROWS * BIAS];
    uint64_t *allow;
    struct draw_rows draws;
};

static bool chance(struct help *h, int percent) { return help_draw(h, 100) < percent; }

static float between(struct help *h, float lo, float hi)
{
    return lo + (hi - lo) * (float)help_draw(h, 1 << 20) / (1 << 20);
}

static int often(struct help *h, int words)
{
    return help_draw(h, chance(h, 50) ? min_int(words, 8) : words);
}

static struct sampling some_sampling(struct help *h)
{
    struct sampling s = sampling_greedy;
    s.seed = (uint64_t)help_draw(h, 1 << 30);
    if (chance(h, 80))
        s.temperature = between(h, 0.1f, 3);
    if (chance(h, 40))
        s.top_k = 1 + help_draw(h, chance(h, 50) ? 60 : 3000);
    if (chance(h, 40))
        s.top_p = between(h, 0.01f, 1);
    if (chance(h, 30))
        s.min_p = chance(h, 10) ? 1 : between(h, 0, 0.3f);
    if (chance(h, 30))
        s.repetition = between(h, 0.5f, 2);
    if (chance(h, 30))
        s.presence = between(h, -1, 1), s.frequency = between(h, -1, 1);
    return s;
}

/* Peaked, flat, with many equals, and now and then none at all. */
static void some_logits(struct help *h, float *to, int n)
{
    const int kind = help_draw(h, 8);
    const float wide = kind == 0 ? 0.001f : kind == 1 ? 30 : between(h, 0.5f, 6);
    for (int i = 0; i < n; i++) {
        to[i] = between(h, -wide, wide) + between(h, -wide, wide);
        if (kind == 2)
            to[i] = rintf(to[i]);
        if (kind == 3 && i % 3)
            to[i] = -INFINITY;
    }
    if (chance(h, 3))
        to[help_draw(h, n)] = chance(h, 50) ? NAN : INFINITY;
    if (chance(h, 2))
        for (int i = 0; i < n; i++)
            to[i] = -INFINITY;
}

static void some_row(struct help *h, struct rows *r, int i)
{
    const size_t bits = r->draws.allow_words;
    struct draw_row *row = &r->row[i];
    *row = (struct draw_row){.sampling = some_sampling(h),
                             .position = (uint64_t)help_draw(h, 5000),
                             .seen = i * SEEN,
                             .n_seen = chance(h, 70) ? help_draw(h, SEEN + 1) : 0,
                             .bias = i * BIAS,
                             .n_bias = chance(h, 30) ? help_draw(h, BIAS + 1) : 0,
                             .restricted = chance(h, 20),
                             .given = -1,
                             .n_top = chance(h, 5) ? 3 : -1};
    row->n_prompt = help_draw(h, row->n_seen + 1);
    for (int k = 0; k < SEEN; k++)
        r->seen[i * SEEN + k] = often(h, r->words);
    for (int k = 0; k < BIAS; k++)
        r->bias[i * BIAS + k] = (struct token_bias){
            often(h, r->words), chance(h, 30) ? -INFINITY : between(h, -10, 10)};
    for (size_t k = 0; k < bits; k++)
        r->allow[(size_t)i * bits + k] =
            chance(h, 30) ? UINT64_MAX : (uint64_t)help_draw(h, 1 << 30) << 20;
    some_logits(h, r->logits + (size_t)i * (size_t)r->words, r->words);
}

static void some_rows(struct help *h, struct rows *r, int n, int words)
{
    const size_t bits = ((size_t)words + 63) / 64;
    memset(r, 0, sizeof(*r));
    r->n = n, r->words = words;
    r->logits = help_bytes(h, (size_t)n * (size_t)words * sizeof(float));
    r->allow = help_bytes(h, (size_t)n * bits * sizeof(uint64_t));
    r->draws = (struct draw_rows){n, r->row, r->seen, r->bias, r->allow, bits, false, r->token};
    for (int i = 0; i < n; i++)
        some_row(h, r, i);
}

static int drawn_by_host(struct help *h, const struct rows *r, int i)
{
    const struct draw_row *row = &r->row[i];
    const struct sample_rules rules = {
        .seen = r->seen + row->seen,
        .n_seen = row->n_seen,
        .n_prompt = row->n_prompt,
        .bias = r->bias + row->bias,
        .n_bias = row->n_bias,
        .allow = row->restricted ? r->allow + (size_t)i * r->draws.allow_words : NULL};
    const size_t bytes = (size_t)r->words * sizeof(float);
    float *copy = help_bytes(h, bytes);
    memcpy(copy, r->logits + (size_t)i * (size_t)r->words, bytes);
    return sample(copy, r->words, &row->sampling, &rules, row->position,
                  help_bytes(h, sample_scratch(r->words)));
}

/* ------------------------------------------------------------------------------- slices */

/* A slice of the words on a GPU of its own, for all that the kernels know. */
struct slice {
    const struct rows *r;
    pthread_barrier_t *all;
    struct gpu_vocab vocab;
    struct gpu_draw_rows draws;
    struct gpu gpu;
    char *memory; /* the room, then the logits */
    size_t room;
    int width, *drawn, got[2][ROWS], error;
};

/* What was enqueued before on any of them is done now. */
static int meet(void *arg)
{
    struct slice *p = arg;
    int rc = gpu_wait(p->gpu.stream);
    pthread_barrier_wait(p->all);
    return rc;
}

static int put_logits(struct slice *p)
{
    const struct gpu_vocab *v = &p->vocab;
    const int lo = v->first[v->own], n = v->first[v->own + 1] - lo;
    int rc = 0;
    for (int i = 0; i < p->r->n; i++)
        rc |= gpu_copy_in(p->memory + p->room + (size_t)i * (size_t)n * sizeof(float),
                          p->r->logits + (size_t)i * (size_t)p->r->words + lo,
                          (size_t)n * sizeof(float), p->gpu.stream);
    return rc;
}

/* Twice, one after the other in the same room. */
static void *draw_slice(void *arg)
{
    struct slice *p = arg;
    const size_t tokens = (size_t)p->r->n * sizeof(int);
    for (int again = 0; again < 2; again++) {
        p->error |= put_logits(p);
        p->error |= meet(p);
        p->error |= gpu_draw(p->gpu.stream, p->drawn, (float *)(void *)(p->memory + p->room),
                             p->r->n, &p->draws, &p->vocab, p->memory);
        p->error |= gpu_copy_out(p->got[again], p->drawn, tokens, p->gpu.stream);
        p->error |= meet(p);
    }
    return NULL;
}

static void open_slice(struct slice *p, struct help *h)
{
    const struct rows *r = p->r;
    const size_t most = draws_bytes(r->n, r->n, SEEN, r->words);
    char *here = help_bytes(h, most), *there;
    p->gpu = gpu_help_begin();
    there = gpu_put(&p->gpu, NULL, most);
    p->drawn = gpu_put(&p->gpu, NULL, (size_t)r->n * sizeof(int));
    p->room = round_up(gpu_draw_bytes(r->n, p->width), 256);
    p->memory = gpu_put(&p->gpu, NULL, p->room + (size_t)r->n * (size_t)p->width * sizeof(float));
    const size_t used = draws_put(&p->draws, here, there, &r->draws, r->words);
    assert_true(used <= most);
    gpu_ok(gpu_clear(p->memory, p->room, p->gpu.stream));
    gpu_ok(gpu_copy_in(there, here, used, p->gpu.stream));
    gpu_ok(gpu_wait(p->gpu.stream));
}

/* In n slices: even, or with the more words the later, the first of which may have none. */
static int first_word(int words, int n, int i, bool even)
{
    return even ? words * i / n : (int)((int64_t)words * i * i * i / (n * n * n));
}

static void check_rows(struct help *h, const struct rows *r, int n, bool even)
{
    struct slice slice[SLICES];
    pthread_t thread[SLICES];
    pthread_barrier_t all;
    int width = 0;
    pthread_barrier_init(&all, NULL, (unsigned)n);
    for (int i = 0; i < n; i++)
        width =
            max_int(width, first_word(r->words, n, i + 1, even) - first_word(r->words, n, i, even));
    for (int i = 0; i < n; i++) {
        slice[i] = (struct slice){.r = r, .all = &all, .width = width};
        open_slice(&slice[i], h);
    }
    for (int i = 0; i < n; i++) {
        slice[i].vocab = (struct gpu_vocab){.n = n, .own = i, .meet = meet, .arg = &slice[i]};
        for (int k = 0; k < n; k++) {
            slice[i].vocab.first[k + 1] = first_word(r->words, n, k + 1, even);
            slice[i].vocab.away[k] =
                (ptrdiff_t)((uintptr_t)slice[k].memory - (uintptr_t)slice[i].memory);
        }
        assert_int_equal(pthread_create(&thread[i], NULL, draw_slice, &slice[i]), 0);
    }
    for (int i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < n; i++)
        gpu_ok(slice[i].error);
    for (int row = 0; row < r->n; row++) {
        const int want = draw_on_host(&r->draws, row) ? -1 : drawn_by_host(h, r, row);
        for (int i = 0; i < 2 * n; i++)
            if (slice[i / 2].got[i % 2][row] != want)
                fail_msg("row %d of %d, %d words, slice %d of %d: %d was drawn, not %d", row, r->n,
                         r->words, i / 2, n, slice[i / 2].got[i % 2][row], want);
    }
    for (int i = 0; i < n; i++)
        gpu_drop(&slice[i].gpu);
    pthread_barrier_destroy(&all);
}

static void check_shapes(const int (*shape)[2], size_t n, int times, int slices)
{
    static struct rows r;
    for (size_t i = 0; i < n; i++)
        for (int again = 0; again < (shape[i][1] <= 300 ? 5 * times : times); again++) {
            struct help h = help_begin(1, 1);
            h.seed = 1000 * i + (uint64_t)again;
            some_rows(&h, &r, shape[i][0], shape[i][1]);
            check_rows(&h, &r, slices, (again + slices) % 2);
            help_end(&h);
        }
}

static void tokens_are_those_that_the_host_draws(void **state)
{
    static const int shape[][2] = {{1, 1},    {3, 2},    {5, 40},   {ROWS, 33}, {9, 300},
                                   {4, 2048}, {3, 2049}, {6, 5000}, {2, WORDS}};
    (void)state;
    check_shapes(shape, COUNT(shape), 8, 1);
}

static void so_are_those_of_slices_on_every_one_of_them(void **state)
{
    static const int shape[][2] = {{3, 2}, {ROWS, 33}, {9, 300}, {5, 5000}, {1, WORDS}};
    (void)state;
    for (int slices = 2; slices <= SLICES; slices += slices - 1) /* 2, 3, 5 */
        check_shapes(shape, COUNT(shape), 1, slices);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_those_that_the_host_draws),
        cmocka_unit_test(so_are_those_of_slices_on_every_one_of_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
