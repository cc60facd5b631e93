/* test_gpu_draw.c - drawing tokens on a GPU: what sample() of run/sample.h draws, for rows of all
 * kinds beside each other. On the model of a GPU (cuda_model.h). */
#include "gpu_help.h"

#include <math.h>

#include "dev/cuda/draws.h"
#include "run/sample.h"

enum { ROWS = 70, SEEN = 40, BIAS = 6, WORDS = 40000 };

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

/* Twice, one after the other in the same room. */
static void check_rows(struct gpu *g, struct help *h, const struct rows *r)
{
    const size_t logits = (size_t)r->n * (size_t)r->words * sizeof(float);
    const size_t most = draws_bytes(r->n, r->n, SEEN, r->words);
    const size_t room = gpu_draw_bytes(r->n, r->words);
    char *here = help_bytes(h, most), *there = gpu_put(g, NULL, most);
    void *scratch = gpu_put(g, NULL, room);
    int *token = gpu_put(g, NULL, (size_t)r->n * sizeof(int)), got[ROWS];
    struct gpu_draw_rows draws;
    const size_t used = draws_put(&draws, here, there, &r->draws, r->words);
    assert_true(used <= most);
    gpu_ok(gpu_copy_in(there, here, used, g->stream));
    for (int again = 0; again < 2; again++) {
        float *x = gpu_put(g, r->logits, logits);
        gpu_ok(gpu_draw(g->stream, token, x, r->n, r->words, &draws, scratch));
        gpu_take(g, got, token, (size_t)r->n * sizeof(int));
        for (int i = 0; i < r->n; i++) {
            const int want = draw_on_host(&r->draws, i) ? -1 : drawn_by_host(h, r, i);
            if (got[i] != want)
                fail_msg("row %d of %d, %d words: %d was drawn, not %d", i, r->n, r->words, got[i],
                         want);
        }
    }
    gpu_drop(g);
}

static void tokens_are_those_that_the_host_draws(void **state)
{
    static const int shape[][2] = {{1, 1},    {3, 2},    {5, 40},   {ROWS, 33}, {9, 300},
                                   {4, 2048}, {3, 2049}, {6, 5000}, {2, WORDS}};
    static struct rows r;
    struct gpu g = gpu_help_begin();
    (void)state;
    for (size_t i = 0; i < COUNT(shape); i++)
        for (int again = 0; again < (shape[i][1] <= 300 ? 40 : 8); again++) {
            struct help h = help_begin(1, 1);
            h.seed = 1000 * i + (uint64_t)again;
            some_rows(&h, &r, shape[i][0], shape[i][1]);
            check_rows(&g, &h, &r);
            help_end(&h);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tokens_are_those_that_the_host_draws)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
