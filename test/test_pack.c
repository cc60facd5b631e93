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

/* ------------------------------------------------------------------------------- e4m3 */

static void every_e4m3_is_its_formula_and_comes_back(void **state)
{
    (void)state;
    for (int b = 0; b < 256; b++) {
        const int e = b >> 3 & 15, m = b & 7;
        const float size = e ? ldexpf(1 + (float)m / 8, e - 7) : ldexpf((float)m, -9);
        const float f = fp8_to_f32((uint8_t)b);
        if ((b & 127) == 127) {
            assert_true(isnan(f));
            continue;
        }
        assert_true(f == (b & 128 ? -size : size) && !signbit(f) == !(b & 128));
        assert_int_equal(f32_to_fp8(f), b);
    }
}

static void rounding_to_e4m3_takes_the_nearest_and_of_two_the_even(void **state)
{
    (void)state;
    for (int b = 0; b < 126; b++) {
        const float lo = fp8_to_f32((uint8_t)b), hi = fp8_to_f32((uint8_t)(b + 1)),
                    mid = (lo + hi) / 2;
        assert_int_equal(f32_to_fp8(mid), b + b % 2);
        assert_int_equal(f32_to_fp8(nextafterf(mid, 0)), b);
        assert_int_equal(f32_to_fp8(-nextafterf(mid, 1e9f)), 128 + b + 1);
    }
    assert_int_equal(f32_to_fp8(1e9f), 126);
    assert_int_equal(f32_to_fp8(-INFINITY), 254);
    assert_int_equal(f32_to_fp8(NAN) & 127, 127);
}

struct fp8_file {
    uint8_t number[300 * 400];
    float scale[300 * 400];
};

/* Rows 3.. and columns 128.. of a matrix of 300 x 400, packed; its scales for so many rows and
 * columns each. */
static int pack_fp8(struct fp8_file *f, const struct part *to, int rows, int cols)
{
    const struct scales s = {f->scale, NUM_F32, rows, cols, (size_t)((400 + cols - 1) / cols)};
    return part_pack(
        to, NUM_FP8,
        &(struct stored){
            .at = f->number, .type = NUM_FP8, .stride = 400, .row = 3, .col = 128, .scales = s});
}

static void e4m3_of_a_file_stays_number_by_number(void **state)
{
    static const int ways[][2] = {{128, 128}, {1, 400}, {300, 400}};
    struct fp8_file *f = calloc(1, sizeof(*f));
    char *at = aligned_alloc(64, part_bytes(NUM_FP8, 290, 200));
    struct part p = {290, 200, at};
    float row[400];
    (void)state;
    for (int i = 0; i < 300 * 400; i++) {
        f->number[i] = (uint8_t)draw();
        f->number[i] ^= (f->number[i] & 127) == 127;
        f->scale[i] = (float)(1 + draw() % 1000) * 0.37f;
    }
    for (size_t w = 0; w < COUNT(ways); w++) {
        const int per_row = ways[w][0], per_col = ways[w][1],
                  across = (400 + per_col - 1) / per_col;
        assert_int_equal(pack_fp8(f, &p, per_row, per_col), 0);
        for (int r = 0; r < 290; r++) {
            part_row(&p, NUM_FP8, r, row);
            for (int c = 0; c < 200; c++)
                assert_true(row[c] ==
                            fp8_to_f32(f->number[(r + 3) * 400 + c + 128]) *
                                f->scale[(r + 3) / per_row * across + (c + 128) / per_col]);
        }
    }
    f->number[(3 + 17) * 400 + 128 + 5] = 0x7f;
    assert_int_equal(pack_fp8(f, &p, 128, 128), -EDOM);
    f->number[(3 + 17) * 400 + 128 + 5] = 0;
    f->scale[0 * 4 + 1] = NAN;
    assert_int_equal(pack_fp8(f, &p, 128, 128), -EDOM);
    free(f), free(at);
}

/* Of a group that two scales of the file cover, numbers are rounded anew: by half a step, or by
 * half of the least number. */
static void a_group_of_two_scales_is_rounded_anew(void **state)
{
    struct fp8_file *f = calloc(1, sizeof(*f));
    char *at = aligned_alloc(64, part_bytes(NUM_FP8, 290, 200));
    struct part p = {290, 200, at};
    float row[400];
    (void)state;
    for (int i = 0; i < 300 * 400; i++) {
        f->number[i] = (uint8_t)(draw() % 120);
        f->scale[i] = (float)(1 + draw() % 100) * 0.01f;
    }
    assert_int_equal(pack_fp8(f, &p, 128, 100), 0);
    for (int r = 0; r < 290; r++) {
        part_row(&p, NUM_FP8, r, row);
        for (int c = 0; c < 200; c++) {
            const float want = fp8_to_f32(f->number[(r + 3) * 400 + c + 128]) *
                               f->scale[(r + 3) / 128 * 4 + (c + 128) / 100];
            assert_true(fabsf(row[c] - want) <= want * 0x1p-4f + 1e-3f);
        }
    }
    free(f), free(at);
}

static void numbers_of_other_formats_become_e4m3_by_their_groups_largest(void **state)
{
    float x[16 * 200], row[200];
    char at[6400] __attribute__((aligned(64)));
    struct part p = {16, 200, at};
    (void)state;
    assert_true(part_bytes(NUM_FP8, 16, 200) <= sizeof(at));
    for (int i = 0; i < 16 * 200; i++)
        x[i] = ((float)(draw() % 2001) - 1000) * 1e-3f * (i % 200 < 128 ? 1 : 50);
    assert_int_equal(
        part_pack(&p, NUM_FP8, &(struct stored){.at = x, .type = NUM_F32, .stride = 200}), 0);
    for (int r = 0; r < 16; r++) {
        part_row(&p, NUM_FP8, r, row);
        for (int c = 0; c < 200; c++)
            assert_true(fabsf(row[c] - x[r * 200 + c]) <=
                        fabsf(x[r * 200 + c]) * 0x1.001p-4f + (c < 128 ? 1 : 50) * 0x1p-18f);
    }
    x[77] = INFINITY;
    assert_int_equal(
        part_pack(&p, NUM_FP8, &(struct stored){.at = x, .type = NUM_F32, .stride = 200}), -EDOM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_e4m3_is_its_formula_and_comes_back),
        cmocka_unit_test(rounding_to_e4m3_takes_the_nearest_and_of_two_the_even),
        cmocka_unit_test(e4m3_of_a_file_stays_number_by_number),
        cmocka_unit_test(a_group_of_two_scales_is_rounded_anew),
        cmocka_unit_test(numbers_of_other_formats_become_e4m3_by_their_groups_largest),
        cmocka_unit_test(sums_are_no_format_of_weights),
        cmocka_unit_test(every_element_is_where_the_layout_says),
        cmocka_unit_test(a_share_without_columns_is_no_bytes),
        cmocka_unit_test(parts_stand_on_whole_cache_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
