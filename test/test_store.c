/* test_store.c - safetensors files that must be refused in one line, and config.json likewise. */
#include "model/folder.h"
#include "model/store.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* A file with this header and n bytes of data; a wrong length when `length` is not 0. */
static int open_file(const char *header, size_t n, uint64_t length, struct err *e)
{
    char file[4096] = {0};
    struct store *s;
    uint64_t size = length ? length : strlen(header);
    memcpy(file, &size, sizeof(size));
    memcpy(file + 8, header, strlen(header));
    int rc = store_open_bytes(file, 8 + strlen(header) + n, "file", &s, e);
    if (!rc)
        store_close(s);
    return rc;
}

static void expect_refusal(const char *header, size_t n, uint64_t length, const char *word)
{
    struct err e = {""};
    assert_true(open_file(header, n, length, &e) < 0);
    if (!strstr(e.text, word) || strchr(e.text, '\n'))
        fail_msg("\"%s\" does not say \"%s\" in one line", e.text, word);
}

#define T(name, type, shape, lo, hi)                                                               \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":[" shape "],\"data_offsets\":[" #lo "," #hi "]}"

static void a_good_file_opens(void **state)
{
    struct err e;
    (void)state;
    if (open_file("{" T("a", "F32", "2,2", 0, 16) "," T("b", "BF16", "3", 16, 22) "}", 22, 0, &e))
        fail_msg("%s", e.text);
}

static void malformed_files_are_one_clear_line(void **state)
{
    (void)state;
    expect_refusal("{" T("a", "F32", "2,2", 0, 16) "}", 15, 0, "cut short");
    expect_refusal("{}", 0, 1000, "cut short");
    expect_refusal("{}", 0, (uint64_t)1 << 40, "header");
    expect_refusal("{}", 5, 0, "after the last");
    expect_refusal("{" T("a", "F32", "2", 0, 8) "," T("b", "F32", "2", 4, 12) "}", 12, 0,
                   "overlaps");
    expect_refusal("{" T("a", "F32", "1", 0, 4) "," T("b", "F32", "1", 8, 12) "}", 12, 0, "gap");
    expect_refusal("{" T("a", "F32", "2", -8, 0) "}", 8, 0, "ascending");
    expect_refusal("{" T("a", "F32", "2", 8, 0) "}", 8, 0, "ascending");
    expect_refusal("{" T("a", "F32", "3", 0, 8) "}", 8, 0, "numbers");
    expect_refusal("{" T("a", "X7", "2", 0, 8) "}", 8, 0, "X7");
    expect_refusal("{" T("a", "F32", "-2", 0, 8) "}", 8, 0, "size");
    expect_refusal("{" T("a", "F32", "1099511627776,1099511627776", 0, 8) "}", 8, 0, "2^50");
    expect_refusal("{" T("a", "F32", "1", 0, 4) "," T("a", "F32", "1", 4, 8) "}", 8, 0,
                   "duplicate");
    expect_refusal("[1]", 0, 0, "object");
    expect_refusal("{\"a\":7}", 0, 0, "dtype");
}

static void a_missing_or_misshapen_tensor_is_named(void **state)
{
    const char *header = "{" T("a", "F32", "2,3", 0, 24) "," T("i", "I64", "1", 24, 32) "}";
    char file[512] = {0};
    uint64_t size = strlen(header);
    struct store *s;
    struct tensor t;
    struct err e;
    (void)state;
    memcpy(file, &size, 8);
    memcpy(file + 8, header, size);
    assert_int_equal(store_open_bytes(file, 8 + size + 32, "file", &s, &e), 0);
    assert_int_equal(store_find(s, "a", 2, 3, &t, &e), 0);
    assert_int_equal(store_find(s, "a", 3, 2, &t, &e), -EINVAL);
    assert_non_null(strstr(e.text, "[2, 3]"));
    assert_int_equal(store_find(s, "b", 3, 2, &t, &e), -ENOENT);
    assert_non_null(strstr(e.text, "\"b\""));
    assert_int_equal(store_find(s, "i", 1, 1, &t, &e), -EINVAL);
    store_close(s);
}

/* A matrix of e4m3, [rows, 300], and a tensor of scales of so many bytes. */
static int find_fp8(int rows, const char *scales, const char *type, const char *shape, int bytes,
                    struct tensor *t, struct err *e)
{
    static char file[1 << 17];
    char header[1024];
    struct store *s;
    const int n = rows * 300;
    snprintf(header, sizeof(header),
             "{\"m\":{\"dtype\":\"F8_E4M3\",\"shape\":[%d,300],\"data_offsets\":[0,%d]},\"%s\":{"
             "\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%d,%d]}}",
             rows, n, scales, type, shape, n, n + bytes);
    uint64_t size = strlen(header);
    memcpy(file, &size, 8);
    memcpy(file + 8, header, size);
    assert_int_equal(store_open_bytes(file, 8 + size + (size_t)(n + bytes), "file", &s, e), 0);
    int rc = store_find(s, "m", rows, 300, t, e);
    store_close(s);
    return rc;
}

static void e4m3_has_its_scales_in_one_of_three_shapes(void **state)
{
    struct tensor t;
    struct err e;
    (void)state;
    assert_int_equal(find_fp8(200, "m_scale_inv", "BF16", "2,3", 12, &t, &e), 0);
    assert_true(t.scales.rows == 128 && t.scales.cols == 128 && t.scales.stride == 3);
    assert_int_equal(scales_at(&t.scales, 199, 299), 5);
    assert_int_equal(find_fp8(200, "m_scale", "F32", "200,1", 800, &t, &e), 0);
    assert_int_equal(scales_at(&t.scales, 199, 299), 199);
    assert_int_equal(find_fp8(200, "m_scale", "F32", "200", 800, &t, &e), 0);
    assert_int_equal(scales_at(&t.scales, 7, 299), 7);
    assert_int_equal(find_fp8(200, "m_scale", "F32", "", 4, &t, &e), 0);
    assert_int_equal(scales_at(&t.scales, 199, 299), 0);
    assert_int_equal(find_fp8(200, "m_scale", "F32", "1", 4, &t, &e), 0);
}

static void e4m3_without_its_scales_is_refused(void **state)
{
    struct tensor t;
    struct err e;
    (void)state;
    assert_int_equal(find_fp8(200, "other", "F32", "2,3", 24, &t, &e), -ENOENT);
    assert_non_null(strstr(e.text, "scales are missing"));
    assert_int_equal(find_fp8(200, "m_scale", "F32", "3,2", 24, &t, &e), -EINVAL);
    assert_non_null(strstr(e.text, "[200, 300] numbers are [3, 2]"));
    assert_int_equal(find_fp8(200, "m_scale", "I32", "2,3", 24, &t, &e), -EINVAL);
    assert_non_null(strstr(e.text, "m_scale"));
    assert_int_equal(find_fp8(200, "m_scale", "F32", "1,2,3", 24, &t, &e), -EINVAL);
    expect_refusal("{" T("a", "F8_E4M4", "2", 0, 2) "}", 2, 0, "F8_E4M4");
}

static void expect_config(const char *text, const char *word)
{
    struct model m;
    struct generation g;
    struct notes notes;
    struct err e = {""};
    assert_true(model_parse(text, strlen(text), NULL, 0, &m, &g, &notes, &e) < 0);
    if (!strstr(e.text, word) || strchr(e.text, '\n'))
        fail_msg("\"%s\" does not say \"%s\" in one line", e.text, word);
}

#define LLAMA(more)                                                                                \
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,\"num_hidden_layers\":2,"        \
    "\"num_attention_heads\":4,\"intermediate_size\":96,\"vocab_size\":300" more "}"

static void wrong_configs_name_field_and_value(void **state)
{
    (void)state;
    expect_config("{\"architectures\":[\"FooForCausalLM\"]}", "Qwen3ForCausalLM");
    expect_config("{}", "(none named)");
    expect_config("{\"architectures\":[\"LlamaForCausalLM\"]}", "hidden_size is missing");
    expect_config(LLAMA(",\"num_key_value_heads\":0"), "num_key_value_heads");
    expect_config(LLAMA(",\"num_key_value_heads\":3"), "not a multiple");
    expect_config(LLAMA(",\"head_dim\":-4"), "head_dim");
    expect_config(LLAMA(",\"head_dim\":5"), "even");
    expect_config(LLAMA(",\"max_position_embeddings\":1e300"), "max_position_embeddings");
    expect_config(LLAMA(",\"hidden_act\":\"gelu\""), "gelu");
    expect_config(LLAMA(",\"rope_scaling\":{\"type\":\"longrope\",\"factor\":2}"), "longrope");
    expect_config(LLAMA(",\"rope_scaling\":{\"type\":\"linear\"}"), "factor");
    expect_config(LLAMA(",\"quantization_config\":{\"bits\":4}"), "quantised");
    expect_config("{\"architectures\":", "line 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file_opens),
        cmocka_unit_test(malformed_files_are_one_clear_line),
        cmocka_unit_test(e4m3_has_its_scales_in_one_of_three_shapes),
        cmocka_unit_test(e4m3_without_its_scales_is_refused),
        cmocka_unit_test(a_missing_or_misshapen_tensor_is_named),
        cmocka_unit_test(wrong_configs_name_field_and_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
