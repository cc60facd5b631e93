/* test_keys.c - API keys: found, limited, reloaded under running requests, refused when malformed.
 */
#include "serve/keys.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static int parse(struct keys **k, const char *text, struct err *e)
{
    return keys_parse(k, text, strlen(text), "keys", e);
}

static const char some[] = "# comment\n\nsk-one alice 2 600\nsk-two\r\n  sk-three bob 0 0\n";

static void only_the_whole_key_opens(void **state)
{
    struct keys *k = NULL;
    struct err e;
    int n = -1;
    char long_key[600] = "Bearer ";
    (void)state;
    assert_int_equal(parse(&k, some, &e), 0);
    assert_string_equal(keys_find(k, "Bearer sk-one", &n)->name, "alice");
    assert_int_equal(n, 0);
    assert_non_null(keys_find(k, "bearer  sk-three", &n));
    assert_int_equal(n, 2);
    memset(long_key + 7, 's', 500);
    static const char *const wrong[] = {"Bearer sk-on", "Bearer sk-onee", "sk-one", "Bearer ", "",
                                        "Basic sk-one"};
    for (size_t i = 0; i < COUNT(wrong); i++)
        assert_null(keys_find(k, wrong[i], &n));
    assert_null(keys_find(k, long_key, &n));
    assert_null(keys_find(k, NULL, &n));
    keys_free(k);
}

static void requests_at_once_and_tokens_a_minute_are_limited(void **state)
{
    struct keys *k = NULL;
    struct err e;
    int n;
    (void)state;
    assert_int_equal(parse(&k, some, &e), 0);
    struct key *one = keys_find(k, "Bearer sk-one", &n), *two = keys_find(k, "Bearer sk-two", &n);
    assert_true(keys_begin(one, 100, 1000) == 0);
    assert_true(keys_begin(one, 100, 1000) == 0);
    assert_true(keys_begin(one, 1, 1000) > 0);
    keys_end(one);
    assert_true(keys_begin(one, 400, 1000) == 0);
    keys_end(one);
    double wait = keys_begin(one, 50, 1000); /* 10 a second, nothing left */
    assert_true(wait > 4.9 && wait < 5.1);
    assert_true(keys_begin(one, 50, 1006) == 0);
    keys_end(one);
    keys_end(one);
    assert_true(keys_begin(one, 1e9, 2000) ==
                0); /* more than a minute's worth goes when all is there */
    keys_end(one);
    assert_true(keys_begin(one, 1, 2001) > 60);
    for (int i = 0; i < 1000; i++)
        assert_true(keys_begin(two, 1e6, 1) == 0);
    for (int i = 0; i < 1000; i++)
        keys_end(two);
    keys_free(k);
}

static void a_reload_keeps_running_requests_and_a_bad_one_changes_nothing(void **state)
{
    struct keys *k = NULL;
    struct err e;
    int n;
    (void)state;
    assert_int_equal(parse(&k, some, &e), 0);
    struct key *one = keys_find(k, "Bearer sk-one", &n), *two = keys_find(k, "Bearer sk-two", &n);
    assert_true(keys_begin(one, 1, 1) == 0 && keys_begin(two, 1, 1) == 0);
    assert_true(parse(&k, "sk-one a b c\n", &e) < 0);
    assert_ptr_equal(keys_find(k, "Bearer sk-two", &n), two);
    assert_int_equal(parse(&k, "sk-new\nsk-one anna 1\n", &e), 0);
    assert_ptr_equal(keys_find(k, "Bearer sk-one", &n), one);
    assert_string_equal(one->name, "anna");
    assert_true(keys_begin(one, 1, 1) > 0); /* the one from before counts */
    assert_null(keys_find(k, "Bearer sk-two", &n));
    keys_end(two); /* frees it */
    keys_end(one);
    assert_true(keys_begin(one, 1, 1) == 0);
    keys_end(one);
    keys_free(k);
}

static void malformed_files_name_their_line(void **state)
{
    static const char *const bad[] = {"abc\n",
                                      "sk-good\nsk-bad name x\n",
                                      "sk-bad name 1 2 3\n",
                                      "sk-bad name -1\n",
                                      "sk-bad name nan\n",
                                      "",
                                      "# only\n"};
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct keys *k = NULL;
        struct err e;
        assert_int_equal(parse(&k, bad[i], &e), -EINVAL);
        assert_null(k);
    }
    struct keys *k = NULL;
    struct err e;
    parse(&k, bad[1], &e);
    assert_non_null(strstr(e.text, "line 2"));
    assert_int_equal(keys_parse(&k, "sk\0x", 4, "keys", &e), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_whole_key_opens),
        cmocka_unit_test(requests_at_once_and_tokens_a_minute_are_limited),
        cmocka_unit_test(a_reload_keeps_running_requests_and_a_bad_one_changes_nothing),
        cmocka_unit_test(malformed_files_name_their_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
