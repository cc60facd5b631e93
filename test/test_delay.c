/* test_delay.c - a group over a slower link (comm/delay.h): the same bits and counts, later. */
#include "comm/delay.h"
#include "comm_help.h"

#include <errno.h>

enum { ROWS = 13, COLS = 40 };

static const struct link slow = {.latency_s = 2e-5, .byte_s = 1e-9};

/* What one rank gets of every call. */
struct got {
    float sum[ROWS * COLS], rows[ROWS * COLS], words[ROWS * COLS], all[ROWS * COLS];
    float message[ROWS * COLS], there[ROWS * COLS];
    int64_t back[ROWS * COLS];
};

static void copy(float *to, const struct mat *from) { memcpy(to, from->at, mat_bytes(from)); }

/* Every third row is needed by both, the others by their owner alone; and back. */
static void exchange(struct seat *s, struct comm *c, struct got *got)
{
    struct mat x = seat_mat(s, ROWS, COLS), from = {ROWS, COLS, NUM_I64, NULL}, to = from;
    uint32_t need[ROWS];
    from.at = arena_get(&s->peer, mat_bytes(&from));
    to.at = arena_get(&s->peer, mat_bytes(&to));
    memset(to.at, 0, mat_bytes(&to));
    for (int t = 0; t < ROWS; t++)
        need[t] = t % 3 == 0 ? 3 : 1u << (t >= share(ROWS, 2, 1).lo);
    for (int i = 0; i < ROWS * COLS; i++) {
        ((float *)x.at)[i] = (float)(c->rank * 1000 + i);
        ((int64_t *)from.at)[i] = c->rank * 7 + i;
    }
    comm_dispatch(c, &x, need), copy(got->there, &x);
    comm_combine(c, &to, &from, need);
    memcpy(got->back, to.at, mat_bytes(&to));
    comm_gather(c, &x); /* the mats are free again */
}

static void every_call(struct seat *s, struct comm *c, struct got *got)
{
    struct arena begin = s->peer;
    struct mat to = seat_mat(s, ROWS, COLS), words = seat_mat(s, ROWS, COLS);
    struct planes from = seat_planes(s, ROWS, COLS);
    const int col[] = {0, 7, COLS};
    struct mat slice = {ROWS, col[c->rank + 1] - col[c->rank], NUM_F32, words.at};
    fill_planes(s, &from, 3);
    memset(words.at, c->rank ? 0 : 0x41, mat_bytes(&words));
    comm_sum(c, &to, &from), copy(got->sum, &to);
    comm_scatter_sum(c, &to, &from);
    comm_gather(c, &to), copy(got->rows, &to);
    comm_merge(c, &to, &words), copy(got->words, &to);
    comm_join(c, &to, &slice, col), copy(got->all, &to);
    if (c->rank == 0)
        comm_send(c, 1, &to);
    else
        comm_recv(c, 0, &to);
    copy(got->message, &to);
    exchange(s, c, got);
    s->peer = begin;
}

static int compare(struct seat *s)
{
    static const struct got none;
    struct got plain = none, late = none;
    struct comm inner, c;
    struct comm_delay ctx;
    every_call(s, &s->c, &plain);
    inner = s->c;
    comm_delay_open(&c, &ctx, &inner, slow);
    every_call(s, &c, &late);
    s->c = inner;
    /* three of sums and rows, two of merge and join, there, back and a gather, a message */
    int latencies = c.rank ? 11 : 10;
    return (memcmp(&plain, &late, sizeof(late)) != 0) + (2 * c.calls != inner.calls) +
           (2 * c.bytes != inner.bytes) + c.err +
           (c.wait_ns < (uint64_t)(1e9 * latencies * slow.latency_s));
}

static void a_slower_link_changes_no_bit_and_no_count(void **state)
{
    struct job j = {.run = compare,
                    .size = 2,
                    .cut = {0, 3, 8},
                    .peer_bytes = 1 << 20,
                    .outbox_bytes = 1 << 16,
                    .spins = 50};
    (void)state;
    run_job(&j, THREADS, "delay");
    run_job(&j, PROCESSES, "delay");
}

/* The stop word ends the inner group's waiting; what comes after does nothing. */
static int cancelled(struct seat *s)
{
    struct comm c;
    struct comm_delay ctx;
    struct mat m = seat_mat(s, 1, 1);
    if (s->rank == 1)
        return 0;
    atomic_store(&s->table->stop, 1);
    comm_delay_open(&c, &ctx, &s->c, (struct link){3600, 0});
    comm_gather(&c, &m); /* alone: never over, and an hour's latency */
    return c.err != -ECANCELED;
}

static void an_error_is_passed_on_at_once(void **state)
{
    struct job j = {.run = cancelled, .size = 2, .cut = {0, 4, 8}, .peer_bytes = 4096, .spins = 1};
    (void)state;
    run_job(&j, THREADS, "delay");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slower_link_changes_no_bit_and_no_count),
        cmocka_unit_test(an_error_is_passed_on_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
