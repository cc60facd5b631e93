/* test_pack.c - packed weights hold the numbers of the file, whatever the shape and the types. */
#include "dev/weight.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <math.h>

static uint64_t seed = 1;

static uint32_t draw(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33);
}

/* Any finite number of the type: normal, subnormal, zero of both signs. */
static uint32_t any_bits(enum num type)
{
    for (;;) {
        uint32_t u = draw() << 1 ^ draw();
        if (type == NUM_F32 && (u & 0x7f800000) != 0x7f800000)
            return u;
        if (type == NUM_BF16 && (u & 0x7f80) != 0x7f80)
            return u & 0xffff;
        if (type == NUM_F16 && (u & 0x7c00) != 0x7c00)
            return u & 0xffff;
    }
}

static float widen(const char *at, enum num type)
{
    uint16_t half;
    float f;
    if (type == NUM_F32) {
        memcpy(&f, at, sizeof(f));
        return f;
    }
    memcpy(&half, at, sizeof(half));
    return type == NUM_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
}

static float through(float f, enum num type)
{
    return type == NUM_BF16  ? bf16_to_f32(f32_to_bf16(f))
           : type == NUM_F16 ? f16_to_f32(f32_to_f16(f))
                             : f;
}

/* Where weight.h says that element (r, c) is. */
static size_t place(enum num type, int r, int c, int cols)
{
    size_t k = type == NUM_BF16 ? 2 : 1, steps = ((size_t)cols + k - 1) / k;
    return (((size_t)r / 16 * steps + (size_t)c / k) * 16 + (size_t)r % 16) * k + (size_t)c % k;
}

static void check_part(enum num type, enum num from, int rows, int cols, size_t stride)
{
    size_t bytes = part_bytes(type, rows, cols), n = (size_t)rows * stride;
    char *src = malloc(n * num_bytes(from) + 1), *at = aligned_alloc(64, bytes + 64);
    float *row = malloc((size_t)cols * sizeof(float));
    struct part p = {rows, cols, at};
    size_t padding = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t u = any_bits(from);
        memcpy(src + 1 + i * num_bytes(from), &u, num_bytes(from)); /* not aligned */
    }
    memset(at, 0xa5, bytes + 64);
    part_pack(&p, type, &(struct stored){.at = src + 1, .type = from, .stride = stride});

    for (int r = 0; r < rows; r++) {
        part_row(&p, type, r, row);
        for (int c = 0; c < cols; c++) {
            float want = through(
                widen(src + 1 + ((size_t)r * stride + (size_t)c) * num_bytes(from), from), type);
            float got = widen(at + place(type, r, c, cols) * num_bytes(type), type);
            assert_memory_equal(&got, &want, sizeof(got));
            assert_memory_equal(&row[c], &want, sizeof(want));
        }
    }
    for (size_t i = 0; i < bytes; i += num_bytes(type))
        padding += widen(at + i, type) == 0;
    assert_true(padding >= bytes / num_bytes(type) - (size_t)rows * (size_t)cols);
    for (int i = 0; i < 64; i++)
        assert_int_equal((unsigned char)at[bytes + (size_t)i], 0xa5);
    free(src), free(at), free(row);
}

static void every_element_is_where_the_layout_says(void **state)
{
    (void)state;
    for (int type = NUM_F32; type <= NUM_BF16; type++)
        for (int from = NUM_F32; from <= NUM_BF16; from++) {
            check_part((enum num)type, (enum num)from, 16, 64, 64);
            check_part((enum num)type, (enum num)from, 32, 130, 150);
            for (int i = 0; i < 20; i++) {
                int rows = 1 + (int)(draw() % 50), cols = 1 + (int)(draw() % 150);
                check_part((enum num)type, (enum num)from, rows, cols, (size_t)cols + draw() % 3);
            }
        }
}

static void a_share_without_columns_is_no_bytes(void **state)
{
    (void)state;
    char at[64] __attribute__((aligned(64)));
    memset(at, 7, sizeof(at));
    struct part p = {40, 0, at};
    part_pack(&p, NUM_BF16, &(struct stored){.at = at, .type = NUM_F32, .stride = 5});
    assert_int_equal(part_bytes(NUM_BF16, 40, 0), 0);
    for (size_t i = 0; i < sizeof(at); i++)
        assert_int_equal(at[i], 7);
}

static void parts_stand_on_whole_cache_lines(void **state)
{
    (void)state;
    for (int type = NUM_F32; type <= NUM_BF16; type++)
        for (int rows = 1; rows < 40; rows++)
            for (int cols = 1; cols < 9; cols++) {
                size_t bytes = part_bytes((enum num)type, rows, cols);
                assert_int_equal(bytes % 64, 0);
                assert_true(bytes >= (place((enum num)type, rows - 1, cols - 1, cols) + 1) *
                                         num_bytes((enum num)type));
            }
}

static void sums_are_no_format_of_weights(void **state)
{
    (void)state;
    for (int t = 0; t < NUM_COUNT; t++)
        assert_int_equal(num_can_weigh((enum num)t), t != NUM_I32 && t != NUM_I64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_no_format_of_weights),
        cmocka_unit_test(every_element_is_where_the_layout_says),
        cmocka_unit_test(a_share_without_columns_is_no_bytes),
        cmocka_unit_test(parts_stand_on_whole_cache_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
