/* test_attend.c - attention over the paged cache: the reference's bits on every instruction set,
 * whatever shares the step, whatever lies in slots that were never written; and it is attention.
 */
#include "attend_help.h"

#include "dev/cpu/cpu.h"

static void check(struct scene *s)
{
    struct mat want = help_copy(&s->h, &s->q), got = help_copy(&s->h, &s->q);
    dev_attend(&s->h.dev[ISA_REF], &want, &s->q, &s->cache, &s->heads, &s->batch);
    for (int i = 0; i < want.n * want.dim; i++)
        assert_true(isfinite(((float *)want.at)[i]));
    for (int k = ISA_AVX2; k < ISA_COUNT; k++) {
        if (!isa_here((enum isa)k))
            continue;
        dev_attend(&s->h.dev[k], &got, &s->q, &s->cache, &s->heads, &s->batch);
        assert_same(&got, &want);
        for (int t = 0; t < s->q.n; t++) { /* alone */
            struct mat q = mat_rows(&s->q, (struct span){t, t + 1});
            struct mat y = mat_rows(&got, (struct span){t, t + 1});
            struct batch b = s->batch;
            b.n_tok = 1, b.pos += t, b.seq += t;
            memset(y.at, 0, mat_bytes(&y));
            dev_attend(&s->h.dev[k], &y, &q, &s->cache, &s->heads, &b);
        }
        assert_same(&got, &want);
    }
    help_end(&s->h);
}

static void attention_is_the_reference_bit_by_bit(void **state)
{
    (void)state;
    static const int dims[] = {16, 64, 20, 2, 128, 33}, windows[] = {0, 1, 40, 150};
    struct help rnd = help_begin(1, 1);
    for (int i = 0; i < 72; i++) {
        int group = 1 + help_draw(&rnd, 5), n_head = 1 + help_draw(&rnd, 7), length[3], asks[3];
        struct heads heads = {.head_dim = dims[i / 3 % 6],
                              .group = group,
                              .q_first = help_draw(&rnd, 8),
                              .window = windows[i / 3 % 4],
                              .scale = 0.37f};
        heads.kv_first = heads.q_first / group;
        for (int k = 0; k < 3; k++) {
            asks[k] = 1 + help_draw(&rnd, 18);
            length[k] = asks[k] + help_draw(&rnd, 300);
        }
        struct scene s = make(every_type[i % 3], heads, n_head, 3, length, asks, (uint64_t)i);
        check(&s);
    }
    help_end(&rnd);
}

/* Tokens on both sides of the ends of a page, a block and a segment. */
static void borders_of_blocks_and_segments_change_nothing(void **state)
{
    (void)state;
    static const struct heads heads[] = {
        {.head_dim = 16, .group = 2, .scale = 0.25f},
        {.head_dim = 16, .group = 2, .scale = 0.25f, .window = 130},
        {.head_dim = 16, .group = 2, .scale = 0.25f, .window = 2047},
    };
    static const int length[] = {KV_BLOCK + 5, KV_SEGMENT + 7, 2 * KV_SEGMENT + 2},
                     asks[] = {20, 12, 4};
    for (size_t i = 0; i < COUNT(heads); i++) {
        for (size_t k = 0; k < COUNT(every_type); k++) {
            struct scene s = make(every_type[k], heads[i], 2, 3, length, asks, i);
            check(&s);
        }
    }
}

static void attention_is_softmax_of_scores_times_values(void **state)
{
    (void)state;
    static const int length[] = {300, 45}, asks[] = {3, 20};
    for (int window = 0; window < 200; window += 190) {
        struct heads heads = {.head_dim = 24,
                              .group = 3,
                              .q_first = 2,
                              .kv_first = 0,
                              .window = window,
                              .scale = 0.01f};
        struct scene s = make(NUM_F32, heads, 5, 2, length, asks, 11);
        struct mat y = help_copy(&s.h, &s.q);
        dev_attend(&s.h.dev[ISA_REF], &y, &s.q, &s.cache, &s.heads, &s.batch);
        for (int t = 0; t < y.n; t++)
            for (int head = 0; head < 5; head++) {
                double want[24];
                plain_attention(&s, t, head, want);
                for (int i = 0; i < 24; i++) {
                    double got = (double)mat_row(&y, t)[head * 24 + i];
                    assert_true(fabs(got - want[i]) < 1e-3 * (1 + fabs(want[i])));
                }
            }
        help_end(&s.h);
    }
}

static void store_rounds_to_the_cache_and_touches_nothing_else(void **state)
{
    (void)state;
    for (int type = NUM_F32; type <= NUM_BF16; type += NUM_BF16) {
        struct help h = help_begin(4, 64);
        struct kv c = {.type = (enum num)type, .n_head = 2, .head_dim = 20};
        c.head_bytes = kv_head_bytes(c.type, c.head_dim), c.page_bytes = 2 * c.head_bytes;
        c.at = help_bytes(&h, 3 * c.page_bytes);
        fill_nan(c.at, 3 * c.page_bytes);
        struct mat k = help_mat(&h, 1, 40), v = help_mat(&h, 1, 40);
        dev_store(&h.dev[ISA_REF], &c, &k, &v, (const int[]){KV_PAGE + 5});
        size_t b = num_bytes(c.type), written = 0;
        for (size_t i = 0; i < 3 * c.page_bytes; i += b)
            written += memcmp(c.at + i, "\377\377\377\377", b) != 0;
        assert_int_equal(written, 2 * (20 + 32)); /* the padding of a value is written too */
        for (int j = 0; j < 2; j++)
            for (int i = 0; i < 20; i++) {
                const char *key = c.at + c.page_bytes + (size_t)j * c.head_bytes;
                const char *value = key + kv_key_bytes(c.type, 20);
                float want_k = mat_row(&k, 0)[j * 20 + i], want_v = mat_row(&v, 0)[j * 20 + i];
                uint16_t round_k = f32_to_bf16(want_k), round_v = f32_to_bf16(want_v);
                const void *from_k = type == NUM_F32 ? (void *)&want_k : (void *)&round_k;
                const void *from_v = type == NUM_F32 ? (void *)&want_v : (void *)&round_v;
                assert_memory_equal(key + (size_t)(i * KV_PAGE + 5) * b, from_k, b);
                assert_memory_equal(value + (size_t)(5 * 32 + i) * b, from_v, b);
            }
        help_end(&h);
    }
}

/* A row that the cache holds, as numbers. */
static void stored_row(const struct kv *c, int slot, int head, bool value, float *to)
{
    const char *page =
        c->at + (size_t)(slot / KV_PAGE) * c->page_bytes + (size_t)head * c->head_bytes;
    int lane = slot % KV_PAGE, wide = (int)round_up((size_t)c->head_dim, 16);
    float scale = bf16_to_f32(((const uint16_t *)page)[value * KV_PAGE + lane]);
    const uint8_t *byte = (const uint8_t *)page + KV_SCALES;
    if (value)
        byte += kv_key_bytes(NUM_INT8, c->head_dim);
    for (int i = 0; i < c->head_dim; i++) {
        int at = value ? (lane / 4 * wide + i) * 4 + kv_byte(lane % 4)
                       : (i / 4 * KV_PAGE + lane) * 4 + kv_byte(i % 4);
        to[i] = scale * (float)(byte[at] - 128);
    }
}

static void int8_rows_are_off_by_half_a_step_at_most(void **state)
{
    (void)state;
    static const int length[] = {50}, asks[] = {1};
    struct heads heads = {.head_dim = 20, .group = 1, .scale = 1};
    struct scene s = make(NUM_INT8, heads, 2, 1, length, asks, 3);
    for (int p = 0; p < length[0]; p++)
        for (int j = 0; j < 4; j++) {
            const float *from = mat_row(j % 2 ? &s.v : &s.k, p) + j / 2 * 20;
            float got[20], top = 0;
            stored_row(&s.cache, slot_of(&s, 0, p), j / 2, j % 2, got);
            for (int i = 0; i < 20; i++)
                top = fabsf(from[i]) > top ? fabsf(from[i]) : top;
            for (int i = 0; i < 20; i++) /* a step is top / 127, rounded up to eight bits */
                assert_true(fabsf(got[i] - from[i]) <= top / 127 * 0.505f);
        }
    help_end(&s.h);
}

/* Softmax over the rows as stored, numbers up to 100, in double: what is left is the rounding of
 * queries and weights to 16 bits. */
static void int8_attention_adds_little_to_the_error_of_its_rows(void **state)
{
    (void)state;
    static const int length[] = {2300}, asks[] = {2};
    struct heads heads = {.head_dim = 24, .group = 2, .scale = 0.5f};
    struct scene s = make(NUM_INT8, heads, 4, 1, length, asks, 5);
    struct mat y = help_copy(&s.h, &s.q);
    for (int p = 0; p < length[0]; p++)
        for (int j = 0; j < 2; j++) {
            stored_row(&s.cache, slot_of(&s, 0, p), j, false, mat_row(&s.k, p) + j * 24);
            stored_row(&s.cache, slot_of(&s, 0, p), j, true, mat_row(&s.v, p) + j * 24);
        }
    for (int i = 0; i < y.n * y.dim; i++) /* queries up to 1 */
        ((float *)s.q.at)[i] = (float)(help_draw(&s.h, 2001) - 1000) * 1e-3f;
    dev_attend(&s.h.dev[ISA_REF], &y, &s.q, &s.cache, &s.heads, &s.batch);
    for (int t = 0; t < y.n; t++)
        for (int head = 0; head < 4; head++) {
            double want[24];
            plain_attention(&s, t, head, want);
            for (int i = 0; i < 24; i++)
                assert_true(fabs((double)mat_row(&y, t)[head * 24 + i] - want[i]) < 2e-2);
        }
    help_end(&s.h);
}

/* Not a wrong number: NaN for every query that sees the row, and for no other. */
static void rows_that_are_not_finite_give_nan_to_who_sees_them(void **state)
{
    (void)state;
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    static const int length[] = {140}, asks[] = {10};
    for (int i = 0; i < 6; i++) {
        struct heads heads = {.head_dim = 20, .group = 2, .scale = 0.3f};
        struct scene s = make(NUM_INT8, heads, 2, 1, length, asks, 3);
        int row = 134, slot = slot_of(&s, 0, row);
        struct mat k = mat_rows(&s.k, (struct span){row, row + 1});
        struct mat v = mat_rows(&s.v, (struct span){row, row + 1}), y = help_copy(&s.h, &s.q);
        mat_row(i < 3 ? &k : &v, 0)[7] = bad[i % 3];
        dev_store(&s.h.dev[ISA_REF], &s.cache, &k, &v, &slot);
        for (int isa = 0; isa < ISA_COUNT; isa++) {
            if (!isa_here((enum isa)isa))
                continue;
            dev_attend(&s.h.dev[isa], &y, &s.q, &s.cache, &s.heads, &s.batch);
            for (int t = 0; t < y.n; t++)
                for (int c = 0; c < y.dim; c++)
                    assert_int_equal(isnan(mat_row(&y, t)[c]), s.batch.pos[t] >= row);
        }
        help_end(&s.h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_the_reference_bit_by_bit),
        cmocka_unit_test(borders_of_blocks_and_segments_change_nothing),
        cmocka_unit_test(attention_is_softmax_of_scores_times_values),
        cmocka_unit_test(int8_rows_are_off_by_half_a_step_at_most),
        cmocka_unit_test(int8_attention_adds_little_to_the_error_of_its_rows),
        cmocka_unit_test(rows_that_are_not_finite_give_nan_to_who_sees_them),
        cmocka_unit_test(store_rounds_to_the_cache_and_touches_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
