/* test_calibrate.c - processes that measure together: they meet, agree on times, and say why one
 * failed; groups that are measured make a level of a profile. No time is asserted. */
#include "predict/calibrate_inside.h"
#include "predict/fit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

enum { MEMBERS = 3 };

struct noted {
    double took[MEMBERS];
    int calls[MEMBERS];
};

static struct members members(const struct host *host, const struct calibrate_opts *opts, int n)
{
    return (struct members){.n = n, .host = host, .stride = 1, .opts = opts, .all = 1};
}

static void count_call(void *arg, int i)
{
    int *calls = arg;
    must(i == *calls % 5);
    ++*calls;
}

static int timing_member(struct member *m, void *arg, struct err *e)
{
    struct noted *s = (void *)m->shared;
    (void)arg, (void)e;
    s->took[m->rank] = member_time(m, count_call, &s->calls[m->rank], 5);
    member_meet(m);
    return 0;
}

static void all_members_get_the_same_time(void **state)
{
    struct host host;
    struct calibrate_opts opts = {.isa = ISA_REF};
    struct err e = {""};
    (void)state;
    host_read(&host, NULL);
    struct members g = members(&host, &opts, MEMBERS);
    assert_int_equal(members_share(sizeof(struct noted), &g.shared, &e), 0);
    if (members_run(&g, timing_member, NULL, &e))
        fail_msg("%s", e.text);
    const struct noted *s = (void *)g.shared;
    for (int r = 0; r < MEMBERS; r++) {
        assert_int_equal(s->calls[r], 5);
        assert_true(s->took[r] == s->took[0] && s->took[r] > 0);
    }
    members_unshare(g.shared, sizeof(struct noted));
}

static int failing_member(struct member *m, void *arg, struct err *e)
{
    (void)arg;
    if (m->rank == 1)
        return err_set(e, -ENOMEM, "no room for two");
    member_meet(m); /* would wait for ever */
    return 0;
}

static void a_member_that_fails_stops_the_others_and_says_why(void **state)
{
    struct host host;
    struct calibrate_opts opts = {.isa = ISA_REF};
    struct err e = {""};
    (void)state;
    host_read(&host, NULL);
    struct members g = members(&host, &opts, MEMBERS);
    assert_int_equal(members_run(&g, failing_member, NULL, &e), -EIO);
    assert_non_null(strstr(e.text, "no room for two"));
}

static int dying_member(struct member *m, void *arg, struct err *e)
{
    (void)arg, (void)e;
    if (m->rank == 0)
        _exit(3);
    member_meet(m);
    return 0;
}

static void a_member_that_dies_is_an_error(void **state)
{
    struct host host;
    struct calibrate_opts opts = {.isa = ISA_REF};
    struct err e = {""};
    (void)state;
    host_read(&host, NULL);
    struct members g = members(&host, &opts, 2);
    assert_int_equal(members_run(&g, dying_member, NULL, &e), -EIO);
}

static void measured_groups_make_a_level(void **state)
{
    struct host host;
    struct calibrate_opts opts = {.isa = ISA_REF};
    struct level l = {.name = "test", .size = 2, .same_host = true};
    struct err e = {""};
    bool has[COLLECTIVE_COUNT] = {false};
    (void)state;
    host_read(&host, NULL);
    struct members g = members(&host, &opts, 2);
    if (calibrate_sums(&g, &l, &e))
        fail_msg("%s", e.text);
    assert_int_equal(l.n_collective, 6);
    for (int i = 0; i < l.n_collective; i++) {
        const struct collective *c = &l.collective[i];
        has[c->op] = true;
        assert_int_equal(c->ranks, 2);
        assert_int_equal(c->byte_s.source, SOURCE_MEASURED);
        assert_true(c->latency_s.value >= 0 && c->latency_s.value < 10);
    }
    assert_true(has[COLLECTIVE_SUM] && has[COLLECTIVE_SCATTER_SUM] && has[COLLECTIVE_GATHER] &&
                has[COLLECTIVE_ALL_TO_ALL] && has[COLLECTIVE_SEND]);
    assert_int_equal(g.done, SUMS_STEPS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_members_get_the_same_time),
        cmocka_unit_test(a_member_that_fails_stops_the_others_and_says_why),
        cmocka_unit_test(a_member_that_dies_is_an_error),
        cmocka_unit_test(measured_groups_make_a_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
