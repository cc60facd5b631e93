/* test_gpu_rows.c - the GPU's operations on rows give the bits of dev/cpu/ref.c, whatever they are
 * given: its kernels on the model of a GPU (cuda_model.h). */
#include "gpu_help.h"

#include <math.h>

#include "dev/cpu/cpu.h"

enum { MAX_TOK = 16, MAX_DIM = 12000 };

/* ------------------------------------------------------------------------------- norm */

static void check_norm(struct gpu *g, struct help *h, int n, int run, int runs)
{
    struct mat x = help_mat(h, n, run * runs), w = help_mat(h, 1, run), want = help_copy(h, &x);
    float *from = gpu_put_mat(g, &x), *to = gpu_put(g, NULL, mat_bytes(&x));
    dev_norm(&h->dev[ISA_REF], &want, &x, &w, 1e-5f);
    gpu_ok(gpu_norm(g->stream, to, from, n, x.dim, gpu_put_mat(g, &w), run, 1e-5f));
    gpu_same(g, h, to, &want);
    gpu_ok(gpu_norm(g->stream, from, from, n, x.dim, gpu_put_mat(g, &w), run, 1e-5f));
    gpu_same(g, h, from, &want); /* in place */
    gpu_drop(g);
}

static void norm_is_the_reference_bit_by_bit(void **state)
{
    (void)state;
    static const int shape[][3] = {{1, 4096, 1}, {3, 4097, 1}, {2, 9000, 1}, {5, 128, 7},
                                   {3, 1, 5},    {2, 512, 2},  {2, 513, 2},  {1, 40, 33}};
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct gpu g = gpu_help_begin();
    for (size_t i = 0; i < COUNT(shape); i++)
        check_norm(&g, &h, shape[i][0], shape[i][1], shape[i][2]);
    for (int i = 0; i < 20; i++)
        check_norm(&g, &h, 1 + help_draw(&h, 5), 1 + help_draw(&h, 700), 1 + help_draw(&h, 4));
    help_end(&h);
}

static void a_sum_and_the_norm_of_it_are_the_references(void **state)
{
    (void)state;
    static const int dims[] = {4096, 4097, 8200, 16, 1, 333};
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct gpu g = gpu_help_begin();
    struct mat none = {0};
    for (int i = 0; i < 3 * (int)COUNT(dims); i++) {
        const int kind = i % 3, dim = dims[i / 3], n = 1 + help_draw(&h, 3);
        struct mat x = help_mat(&h, n, dim), y = help_mat(&h, n, dim), bias = help_mat(&h, 1, dim);
        struct mat w = help_mat(&h, 1, dim), want = help_mat(&h, n, dim), whole = y;
        if (kind == 2) {
            whole.type = NUM_I64;
            whole.at = help_bytes(&h, mat_bytes(&whole));
            for (int j = 0; j < n * dim; j++)
                ((int64_t *)whole.at)[j] = ((int64_t)help_draw(&h, 1 << 30) - (1 << 29)) * 16;
        }
        float *to = gpu_put(&g, NULL, mat_bytes(&x)), *from = gpu_put_mat(&g, &x);
        const float *more = kind == 1 ? gpu_put_mat(&g, &bias) : NULL;
        gpu_ok(gpu_add_norm(g.stream, to, from, gpu_put_mat(&g, &whole), kind == 2, more, n, dim,
                            gpu_put_mat(&g, &w), 1e-5f));
        dev_add_norm(&h.dev[ISA_REF], &want, &x, &whole, kind == 1 ? &bias : &none, &w, 1e-5f);
        gpu_same(&g, &h, to, &want);
        gpu_same(&g, &h, from, &x);
        gpu_drop(&g);
    }
    help_end(&h);
}

/* ------------------------------------------------------------------------------- heads */

enum { PAGES = 4 };

/* In pages of which nothing else changes. */
static void check_heads(struct gpu *g, struct help *h, enum num type, int dim, int n_q, int n_kv,
                        bool norms)
{
    const int n = 1 + help_draw(h, 5);
    struct mat q = help_mat(h, n, n_q * dim), k = help_mat(h, n, n_kv * dim);
    struct mat v = help_mat(h, n, n_kv * dim), angle = help_mat(h, n, dim), none = {0};
    struct mat q_norm = help_mat(h, 1, dim), k_norm = help_mat(h, 1, dim);
    struct kv cache = {.type = type, .n_head = n_kv, .head_dim = dim};
    int slot[8];
    for (int i = 0; i < n; i++)
        slot[i] = i * 11 + help_draw(h, 11);
    cache.head_bytes = kv_head_bytes(type, dim);
    cache.page_bytes = cache.head_bytes * (size_t)n_kv;
    const size_t bytes = PAGES * cache.page_bytes;
    cache.at = help_bytes(h, bytes);
    memset(cache.at, 0x11, bytes);
    const struct gpu_kv there = {
        type, n_kv, dim, cache.page_bytes, cache.head_bytes, gpu_put(g, cache.at, bytes)};
    const struct gpu_qkv of = {.q = gpu_put_mat(g, &q),
                               .k = gpu_put_mat(g, &k),
                               .v = gpu_put_mat(g, &v),
                               .q_norm = norms ? gpu_put_mat(g, &q_norm) : NULL,
                               .k_norm = norms ? gpu_put_mat(g, &k_norm) : NULL,
                               .angle = gpu_put_mat(g, &angle),
                               .eps = 1e-6f};
    gpu_ok(gpu_rope_store(g->stream, &there, &of, n, q.dim, gpu_put(g, slot, sizeof(slot))));
    const struct qkv made = {&q,     &k,   &v, norms ? &q_norm : &none, norms ? &k_norm : &none,
                             &angle, 1e-6f};
    dev_rope_store(&h->dev[ISA_REF], &cache, &made, slot);
    gpu_same(g, h, of.q, &q);
    char *got = help_bytes(h, bytes);
    gpu_take(g, got, there.at, bytes);
    assert_memory_equal(got, cache.at, bytes);
    gpu_drop(g);
}

static void heads_are_normed_rotated_and_stored_as_by_the_reference(void **state)
{
    (void)state;
    static const enum num types[] = {NUM_F32, NUM_BF16, NUM_INT8};
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct gpu g = gpu_help_begin();
    for (size_t i = 0; i < COUNT(types); i++)
        for (int norms = 0; norms < 2; norms++) {
            check_heads(&g, &h, types[i], 128, 8, 2, norms);
            check_heads(&g, &h, types[i], 12, 3, 1, norms);
            check_heads(&g, &h, types[i], 256, 1, 1, norms);
            check_heads(&g, &h, types[i], 2 * (1 + help_draw(&h, 60)), 1 + help_draw(&h, 5),
                        1 + help_draw(&h, 3), norms);
        }
    help_end(&h);
}

/* ------------------------------------------------------------------------------- by number */

static void check_numbers(struct gpu *g, struct help *h, int n, int dim, int head)
{
    struct mat x = help_mat(h, n, dim), y = help_mat(h, n, dim), bias = help_mat(h, 1, dim);
    struct mat none = {0}, angle = help_mat(h, n, head), want = help_copy(h, &x);
    float *to = gpu_put_mat(g, &x), *from = gpu_put_mat(g, &y);
    struct dev *ref = &h->dev[ISA_REF];
    dev_add(ref, &want, &y, &none);
    gpu_ok(gpu_add(g->stream, to, from, NULL, n, dim));
    gpu_same(g, h, to, &want);
    dev_add(ref, &want, &y, &bias);
    gpu_ok(gpu_add(g->stream, to, from, gpu_put_mat(g, &bias), n, dim));
    gpu_same(g, h, to, &want);
    dev_rope(ref, &want, head, &angle);
    gpu_ok(gpu_rope(g->stream, to, n, dim, head, gpu_put_mat(g, &angle)));
    gpu_same(g, h, to, &want);
    dev_swiglu(ref, &want, &y);
    gpu_ok(gpu_swiglu(g->stream, to, from, n, dim));
    gpu_same(g, h, to, &want);
    gpu_drop(g);
}

static void work_by_number_is_the_reference_bit_by_bit(void **state)
{
    (void)state;
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct gpu g = gpu_help_begin();
    for (int i = 0; i < 30; i++) {
        int head = 2 * (1 + help_draw(&h, 40));
        check_numbers(&g, &h, 1 + help_draw(&h, 6), head * (1 + help_draw(&h, 9)), head);
    }
    help_end(&h);
}

/* All of the range in steps of its square root, both signs, and the odd ones. */
static void silu_is_the_reference_over_the_whole_range(void **state)
{
    (void)state;
    enum { N = 70000 };
    static const float odd[] = {0.0f,    -0.0f,  INFINITY, 1e-45f,   -1e-45f,  88.7f,
                                -88.7f,  89.0f,  -89.f,    103.9f,   -103.97f, -104.f,
                                -1e30f,  3e38f,  -3e38f,   0.34657f, 17.0f,    1e-38f,
                                -1e-38f, -100.f, -103.f,   -0.347f,  0.34658f, 5e-39f};
    struct help h = help_begin(1, N);
    struct gpu g = gpu_help_begin();
    struct mat x = help_mat(&h, 1, N), up = help_mat(&h, 1, N);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t u = i * 61300u;
        memcpy((float *)x.at + i, &u, sizeof(u));
        if (!(fabsf(((float *)x.at)[i]) < INFINITY))
            ((float *)x.at)[i] = (float)i * 0.003f - 100;
        ((float *)up.at)[i] = 1;
    }
    memcpy(x.at, odd, sizeof(odd));
    float *gate = gpu_put_mat(&g, &x);
    gpu_ok(gpu_swiglu(g.stream, gate, gpu_put_mat(&g, &up), 1, N));
    dev_swiglu(&h.dev[ISA_REF], &x, &up);
    gpu_same(&g, &h, gate, &x);
    gpu_drop(&g);
    help_end(&h);
}

static void sums_in_fixed_point_settle_as_the_reference_does(void **state)
{
    (void)state;
    enum { N = 5, DIM = 300 };
    struct help h = help_begin(N, DIM);
    struct gpu g = gpu_help_begin();
    struct mat x = help_mat(&h, N, DIM), y = {N, DIM, NUM_I64, NULL}, none = {0};
    int64_t *sum = y.at = help_bytes(&h, mat_bytes(&y));
    for (int i = 0; i < N * DIM; i++)
        sum[i] = (int64_t)((uint64_t)help_draw(&h, 1 << 30) << help_draw(&h, 33)) - (1 << 28);
    float *to = gpu_put_mat(&g, &x);
    gpu_ok(gpu_settle(g.stream, to, gpu_put_mat(&g, &y), N, DIM));
    dev_add(&h.dev[ISA_REF], &x, &y, &none);
    gpu_same(&g, &h, to, &x);

    sum[7] = INT64_MIN; /* base/whole.h: none */
    gpu_ok(gpu_settle(g.stream, to, gpu_put_mat(&g, &y), N, DIM));
    gpu_take(&g, x.at, to, mat_bytes(&x));
    for (int i = 0; i < N * DIM; i++)
        assert_int_equal(isnan(((float *)x.at)[i]), i == 7);
    gpu_drop(&g);
    help_end(&h);
}

/* ------------------------------------------------------------------------------- copies */

static void embed_copies_known_words_and_zeroes_the_others(void **state)
{
    (void)state;
    static const enum num types[] = {NUM_F32,       NUM_F16,      NUM_BF16,     NUM_INT8,
                                     NUM_INT4,      NUM_INT8_G32, NUM_INT4_G32, NUM_INT4_G32Z,
                                     NUM_INT4_G128, NUM_FP8};
    static const int tok[] = {100, 149, 99, 150, 117, 113, 0};
    for (size_t i = 0; i < COUNT(types); i++)
        for (int dim = 1; dim < 400; dim += 133) {
            struct help h = help_begin(MAX_TOK, MAX_DIM);
            struct gpu g = gpu_help_begin();
            struct weight w = help_weight(&h, types[i], CUT_ROWS, 50, dim, 0, 4);
            struct mat want = help_mat(&h, COUNT(tok), dim);
            struct gpu_weight there = gpu_put_weight(&g, &w);
            float *y = gpu_put(&g, NULL, mat_bytes(&want));
            dev_embed(&h.dev[ISA_REF], &want, &w, 100, tok);
            gpu_ok(gpu_embed(g.stream, y, COUNT(tok), &there, 100, gpu_put(&g, tok, sizeof(tok))));
            gpu_same(&g, &h, y, &want);
            gpu_drop(&g);
            help_end(&h);
        }
}

static void pick_takes_rows(void **state)
{
    (void)state;
    static const int row[] = {8, 0, 3};
    struct help h = help_begin(MAX_TOK, MAX_DIM);
    struct gpu g = gpu_help_begin();
    struct mat x = help_mat(&h, 9, 333), want = help_mat(&h, 3, 333);
    float *y = gpu_put(&g, NULL, mat_bytes(&want));
    dev_pick(&h.dev[ISA_REF], &want, &x, row);
    gpu_ok(gpu_pick(g.stream, y, gpu_put_mat(&g, &x), gpu_put(&g, row, sizeof(row)), 3, 333));
    gpu_same(&g, &h, y, &want);
    gpu_drop(&g);
    help_end(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_is_the_reference_bit_by_bit),
        cmocka_unit_test(a_sum_and_the_norm_of_it_are_the_references),
        cmocka_unit_test(heads_are_normed_rotated_and_stored_as_by_the_reference),
        cmocka_unit_test(work_by_number_is_the_reference_bit_by_bit),
        cmocka_unit_test(silu_is_the_reference_over_the_whole_range),
        cmocka_unit_test(sums_in_fixed_point_settle_as_the_reference_does),
        cmocka_unit_test(embed_copies_known_words_and_zeroes_the_others),
        cmocka_unit_test(pick_takes_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
