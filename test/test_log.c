/* test_log.c - one event, one line. */
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <unistd.h>

static PRINTF(3, 4) size_t line(char *to, size_t n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    size_t used = log_line(to, n, LOG_INFO, "team", fmt, ap);
    va_end(ap);
    return used;
}

static void an_event_is_one_line_whatever_it_says(void **state)
{
    (void)state;
    char text[128];
    size_t n = line(text, sizeof(text), "rank %d\nlost\033[2J\177", 3);
    assert_string_equal(text, "info team: rank 3 lost [2J \n");
    assert_int_equal(n, strlen(text));
}

static void a_long_event_is_cut_and_still_ends_its_line(void **state)
{
    (void)state;
    char text[66];
    for (int digits = 51; digits < 56; digits++) { /* 62 characters fit; "info team: " is 11 */
        memset(text, 'x', sizeof(text));
        size_t n = line(text, 64, "%0*d", digits, 0);
        assert_int_equal(n, 63);
        assert_int_equal(strlen(text), 63);
        assert_int_equal(text[62], '\n');
        assert_int_equal(text[64], 'x');
    }
}

static void the_environment_chooses_the_lowest_level(void **state)
{
    (void)state;
    unsetenv("TANDEM_LOG");
    assert_true(log_shown(LOG_WARN) && !log_shown(LOG_INFO));
    setenv("TANDEM_LOG", "debug", 1);
    assert_true(log_shown(LOG_DEBUG));
    setenv("TANDEM_LOG", "error", 1);
    assert_true(log_shown(LOG_ERROR) && !log_shown(LOG_WARN));
    setenv("TANDEM_LOG", "nonsense", 1);
    assert_true(log_shown(LOG_WARN) && !log_shown(LOG_INFO));
    unsetenv("TANDEM_LOG");
}

static void an_event_goes_to_standard_error_with_its_time(void **state)
{
    (void)state;
    char text[256] = "";
    int end[2], kept = dup(STDERR_FILENO);
    assert_int_equal(pipe(end), 0);
    dup2(end[1], STDERR_FILENO);
    log_event(LOG_ERROR, "test", "%s", "words");
    dup2(kept, STDERR_FILENO);
    close(end[1]);
    close(kept);
    assert_true(read(end[0], text, sizeof(text) - 1) > 0);
    close(end[0]);
    int year, month, day, hour, minute, second, ms, used = 0;
    sscanf(text, "%d-%d-%dT%d:%d:%d.%dZ %n", &year, &month, &day, &hour, &minute, &second, &ms,
           &used);
    assert_true(used == 25);
    assert_string_equal(text + used, "error test: words\n");
}

static void an_event_that_cannot_be_written_leaves_errno_alone(void **state)
{
    (void)state;
    int kept = dup(STDERR_FILENO);
    close(STDERR_FILENO);
    errno = 77;
    log_event(LOG_ERROR, "test", "words");
    int after = errno;
    dup2(kept, STDERR_FILENO);
    close(kept);
    assert_int_equal(after, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_is_one_line_whatever_it_says),
        cmocka_unit_test(a_long_event_is_cut_and_still_ends_its_line),
        cmocka_unit_test(the_environment_chooses_the_lowest_level),
        cmocka_unit_test(an_event_goes_to_standard_error_with_its_time),
        cmocka_unit_test(an_event_that_cannot_be_written_leaves_errno_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
