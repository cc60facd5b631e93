/* test_gpu_attend.c - storing and attention on the model of a GPU (cuda_model.h): the reference's
 * bits where they are promised; over a bf16 cache, by tensor cores, close to the truth, and the
 * same bits for a row whatever stands beside it and however the work is cut.
 */
#include "gpu_scene.h"

/* All at once; each row alone; in chunks; without room; and when more keys are announced. */
static void check_ways(struct gpu *g, struct scene *s, struct there *at, const struct mat *want)
{
    const int n = s->q.n;
    for (int way = 0; way < 5; way++) {
        struct there other = *at;
        const int step = way == 1 ? 1 : way == 2 ? 1 + help_draw(&s->h, n) : n;
        other.room.bytes = way == 3 ? 0 : other.room.bytes;
        other.batch.most_keys += way == 4 ? 700 : 0;
        for (int lo = 0; lo < n; lo += step)
            attend(g, s, &other, (struct span){lo, min_int(lo + step, n)});
        struct mat got = take_rows(g, s, at);
        assert_same(&got, want);
    }
}

static struct heads draw_heads(struct help *rnd, int dim, int window)
{
    static const int groups[] = {1, 3, 4, 8, 5};
    struct heads h = {.head_dim = dim, .window = window, .scale = 0.37f};
    h.group = groups[help_draw(rnd, COUNT(groups))];
    h.q_first = help_draw(rnd, 8);
    h.kv_first = h.q_first / h.group;
    return h;
}

/* ------------------------------------------------------------------------------- storing */

static void store_is_the_reference_byte_by_byte(void **state)
{
    (void)state;
    static const int dims[] = {16, 64, 20, 2, 128, 33, 1, 200};
    struct gpu g = gpu_help_begin();
    for (size_t i = 0; i < 3 * COUNT(dims); i++) {
        struct help h = help_begin(32, 512);
        struct kv c = {.type = every_type[i % 3], .n_head = 3, .head_dim = dims[i / 3]};
        c.head_bytes = kv_head_bytes(c.type, c.head_dim), c.page_bytes = 3 * c.head_bytes + 64;
        const size_t bytes = 3 * c.page_bytes;
        c.at = help_bytes(&h, bytes);
        fill_nan(c.at, bytes);
        struct gpu_kv there = {
            c.type, 3, c.head_dim, c.page_bytes, c.head_bytes, gpu_put(&g, c.at, bytes)};
        struct mat k = help_mat(&h, 6, 3 * c.head_dim), v = help_mat(&h, 6, 3 * c.head_dim);
        mat_row(&v, 2)[0] = NAN, mat_row(&k, 3)[0] = INFINITY, mat_row(&k, 4)[0] = 0;
        const int slot[] = {KV_PAGE + 5, 0, KV_PAGE - 1, 3 * KV_PAGE - 1, 7, 8};
        dev_store(&h.dev[ISA_REF], &c, &k, &v, slot);
        gpu_ok(gpu_store(g.stream, &there, gpu_put_mat(&g, &k), gpu_put_mat(&g, &v), 6,
                         gpu_put(&g, slot, sizeof(slot))));
        char *got = help_bytes(&h, bytes);
        gpu_take(&g, got, there.at, bytes);
        assert_memory_equal(got, c.at, bytes);
        gpu_drop(&g);
        help_end(&h);
    }
}

/* ------------------------------------------------------------------------------- exact */

static void check_exact(struct gpu *g, struct scene *s)
{
    struct there at = put_scene(g, s);
    struct mat want = help_copy(&s->h, &s->q);
    dev_attend(&s->h.dev[ISA_REF], &want, &s->q, &s->cache, &s->heads, &s->batch);
    check_ways(g, s, &at, &want);
    gpu_drop(g);
    help_end(&s->h);
}

static void attention_over_f32_and_int8_is_the_reference_bit_by_bit(void **state)
{
    (void)state;
    static const int dims[] = {16, 64, 20, 2, 128, 33}, windows[] = {0, 1, 40, 150};
    struct help rnd = help_begin(1, 1);
    struct gpu g = gpu_help_begin();
    for (int i = 0; i < 24; i++) {
        struct heads heads = draw_heads(&rnd, dims[i / 2 % 6], windows[i / 2 % 4]);
        int length[3], asks[3];
        for (int k = 0; k < 3; k++) {
            asks[k] = 1 + help_draw(&rnd, 10);
            length[k] = asks[k] + help_draw(&rnd, 300);
        }
        struct scene s = make(i % 2 ? NUM_F32 : NUM_INT8, heads, 1 + help_draw(&rnd, 7), 3, length,
                              asks, (uint64_t)i);
        check_exact(&g, &s);
    }
    help_end(&rnd);
}

static void heads_too_wide_for_tensor_cores_are_the_reference_too(void **state)
{
    (void)state;
    static const int length[] = {200, 3}, asks[] = {2, 3};
    struct heads heads = {.head_dim = 272, .group = 2, .scale = 0.1f};
    struct gpu g = gpu_help_begin();
    struct scene s = make_wide(NUM_BF16, heads, 3, 2, length, asks, 5, 272);
    check_exact(&g, &s);
}

static void borders_of_blocks_and_segments_change_nothing(void **state)
{
    (void)state;
    static const int length[] = {KV_BLOCK + 5, KV_SEGMENT + 7, 2 * KV_SEGMENT + 2},
                     asks[] = {9, 10, 4}, windows[] = {0, 130, 2047};
    struct gpu g = gpu_help_begin();
    for (size_t i = 0; i < 2 * COUNT(windows); i++) {
        struct heads heads = {.head_dim = 16, .group = 2, .scale = 0.25f, .window = windows[i / 2]};
        struct scene s = make(i % 2 ? NUM_F32 : NUM_INT8, heads, 2, 3, length, asks, i);
        check_exact(&g, &s);
    }
}

/* ------------------------------------------------------------------------------- tensor cores */

/* The same bits in every way, which are those of all rows at once. */
static void check_same(struct gpu *g, struct scene *s)
{
    struct there at = put_scene(g, s);
    attend(g, s, &at, (struct span){0, s->q.n});
    struct mat want = take_rows(g, s, &at);
    for (int i = 0; i < want.n * want.dim; i++)
        assert_true(isfinite(((float *)want.at)[i]));
    check_ways(g, s, &at, &want);
    gpu_drop(g);
    help_end(&s->h);
}

/* Long and short runs beside each other, decoded rows among them. */
static void a_row_has_the_same_bits_alone_in_a_chunk_and_in_a_prompt(void **state)
{
    (void)state;
    static const int dims[] = {16, 64, 80, 96, 128, 256, 20, 8},
                     windows[] = {0, 1, 40, 150, 700, 0};
    struct help rnd = help_begin(1, 1);
    struct gpu g = gpu_help_begin();
    for (int i = 0; i < 24; i++) {
        struct heads heads = draw_heads(&rnd, dims[i % 8], windows[i % 6]);
        int length[4], asks[4] = {1, 1 + help_draw(&rnd, 9), 1, 17 + help_draw(&rnd, 10)};
        for (int k = 0; k < 4; k++)
            length[k] = asks[k] + help_draw(&rnd, k ? 300 : 1200);
        struct scene s =
            make_wide(NUM_BF16, heads, 1 + help_draw(&rnd, 8), 4, length, asks, (uint64_t)i, 256);
        check_same(&g, &s);
    }
    help_end(&rnd);
}

static void long_contexts_have_the_same_bits_however_they_are_split(void **state)
{
    (void)state;
    static const int length[] = {5000, 513, 1024, 600}, asks[] = {1, 2, 1, 40},
                     windows[] = {0, 511, 1025};
    struct gpu g = gpu_help_begin();
    for (size_t i = 0; i < COUNT(windows); i++) {
        struct heads heads = {.head_dim = 64, .group = 4, .scale = 0.125f, .window = windows[i]};
        struct scene s = make(NUM_BF16, heads, 4, 4, length, asks, i);
        check_same(&g, &s);
    }
}

/* Numbers of -1 to 1 that bf16 has, in double: what is left is the rounding of exponentials to
 * bf16, 2^-9 of each, and little else. */
static void attention_over_bf16_is_softmax_of_scores_times_values(void **state)
{
    (void)state;
    static const int dims[] = {24, 64, 128, 256}, length[] = {900, 45, 130}, asks[] = {2, 20, 1};
    struct gpu g = gpu_help_begin();
    double worst = 0;
    for (int i = 0; i < 8; i++) {
        const int dim = dims[i % 4];
        struct heads heads = {.head_dim = dim,
                              .group = 3,
                              .q_first = 2,
                              .window = i < 4 ? 0 : 190,
                              .scale = 2 / sqrtf((float)dim)};
        struct scene s = make_wide(NUM_BF16, heads, 5, 3, length, asks, 11, 256);
        struct mat *all[] = {&s.q, &s.k, &s.v};
        for (size_t m = 0; m < COUNT(all); m++)
            for (int k = 0; k < all[m]->n * all[m]->dim; k++)
                ((float *)all[m]->at)[k] = (float)(help_draw(&s.h, 257) - 128) / 128;
        store_all(&s, length);
        struct there at = put_scene(&g, &s);
        attend(&g, &s, &at, (struct span){0, s.q.n});
        struct mat y = take_rows(&g, &s, &at);
        for (int t = 0; t < y.n; t++)
            for (int head = 0; head < 5; head++) {
                double want[256];
                plain_attention(&s, t, head, want);
                for (int k = 0; k < dim; k++) {
                    double off = fabs((double)mat_row(&y, t)[head * dim + k] - want[k]);
                    assert_true(off < 0x1p-9);
                    worst = fmax(worst, off);
                }
            }
        gpu_drop(&g);
        help_end(&s.h);
    }
    print_message("attention over bf16: off by %.2g at most\n", worst);
    assert_true(worst > 0);
}

/* Slots after a sequence's end, and pages that are not its own, hold NaN in all of these tests. A
 * value of a row's own that is no number gives none. */
static void a_value_that_is_no_number_is_never_a_number(void **state)
{
    (void)state;
    static const int length[] = {140}, asks[] = {1};
    struct gpu g = gpu_help_begin();
    for (int type = 0; type < 3; type++) {
        struct heads heads = {.head_dim = 64, .group = 2, .scale = 0.3f};
        struct scene s = make(every_type[type], heads, 2, 1, length, asks, 3);
        mat_row(&s.v, 100)[7] = NAN;
        store_all(&s, length);
        struct there at = put_scene(&g, &s);
        attend(&g, &s, &at, (struct span){0, 1});
        struct mat y = take_rows(&g, &s, &at);
        assert_true(isnan(mat_row(&y, 0)[7]) && isnan(mat_row(&y, 0)[64 + 7]));
        gpu_drop(&g);
        help_end(&s.h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_is_the_reference_byte_by_byte),
        cmocka_unit_test(attention_over_f32_and_int8_is_the_reference_bit_by_bit),
        cmocka_unit_test(heads_too_wide_for_tensor_cores_are_the_reference_too),
        cmocka_unit_test(borders_of_blocks_and_segments_change_nothing),
        cmocka_unit_test(attention_over_bf16_is_softmax_of_scores_times_values),
        cmocka_unit_test(a_row_has_the_same_bits_alone_in_a_chunk_and_in_a_prompt),
        cmocka_unit_test(long_contexts_have_the_same_bits_however_they_are_split),
        cmocka_unit_test(a_value_that_is_no_number_is_never_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
