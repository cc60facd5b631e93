/* test_price.c - the priced group (comm/price.h): its counts are those of a group over shared
 * memory, its seconds those of the formulas. */
#include "comm/price.h"
#include "comm_help.h"

enum { ROWS = 13, COLS = 37 };

struct shape {
    int rows, dim;
};

/* Every collective once, on any group; then a message between ranks 0 and 1. */
static void every_call(struct comm *c, struct mat *to, struct planes *from, struct mat *words)
{
    int col[SHARES_MAX + 1];
    for (int r = 0; r <= c->size; r++)
        col[r] = r == c->size ? to->dim : r;
    struct mat slice = {to->n, col[c->rank + 1] - col[c->rank], NUM_F32, words->at};
    comm_sum(c, to, from);
    comm_scatter_sum(c, to, from);
    comm_gather(c, to);
    comm_merge(c, to, words);
    comm_join(c, to, &slice, col);
    if (c->rank == 0)
        comm_send(c, 1, words);
    if (c->rank == 1)
        comm_recv(c, 0, words);
}

static int run_every_call(struct seat *s)
{
    const struct shape *shape = s->job->arg;
    struct mat to = seat_mat(s, shape->rows, shape->dim);
    struct mat words = seat_mat(s, shape->rows, shape->dim);
    struct planes from = seat_planes(s, shape->rows, shape->dim);
    every_call(&s->c, &to, &from, &words);
    return s->c.err != 0;
}

static struct comm priced(struct comm_price *p, const struct job *j, const struct shape *shape)
{
    struct comm c;
    struct mat mat = {shape->rows, shape->dim, NUM_F32, NULL}, words = mat;
    struct planes from = {1, {mat}};
    comm_price_open(&c, p, 1, j->size, j->cut);
    every_call(&c, &mat, &from, &words);
    return c;
}

static void counts_are_those_of_shared_memory(void **state)
{
    const struct shape shape[] = {{ROWS, COLS}, {200, 700}, {1, 1}};
    (void)state;
    for (int size = 2; size <= 7; size++)
        for (size_t k = 0; k < COUNT(shape); k++) {
            struct job j = {.run = run_every_call,
                            .size = size,
                            .peer_bytes = 10 << 20,
                            .outbox_bytes = 1 << 20,
                            .spins = 50};
            struct shape one = {shape[k].rows, max_int(shape[k].dim, size)}; /* a column each */
            for (int r = 0; r <= size; r++)
                j.cut[r] = r * 8 / size;
            j.arg = &one;
            struct table real = run_job(&j, THREADS, "count");
            double clock = 0;
            struct comm_price p = {.latency_s = 1, .bytes_s = 1, .clock = &clock};
            struct comm c = priced(&p, &j, &one);
            assert_int_equal(c.calls, real.calls);
            assert_int_equal(c.bytes, real.bytes);
        }
}

/* Seconds of one sum of `bytes` over `size` ranks, latency 1/8 s, 1024 bytes a second. */
static double sum_seconds(enum price_as as, int size, int bytes)
{
    double clock = 1;
    struct comm c;
    struct comm_price p = {.as = as, .latency_s = 0.125, .bytes_s = 1024, .clock = &clock};
    int cut[SHARES_MAX + 1];
    struct mat to = {1, bytes / 4, NUM_F32, NULL};
    struct planes from = {1, {to}};
    for (int r = 0; r <= size; r++)
        cut[r] = r * 8 / size;
    comm_price_open(&c, &p, 0, size, cut);
    comm_sum(&c, &to, &from);
    return clock - 1;
}

static void a_sum_costs_latency_and_bytes_of_its_algorithm(void **state)
{
    double N = 4096.0 / 1024, a = 0.125;
    (void)state;
    for (int P = 2; P <= 8; P *= 2) {
        double two = 2 * a + 2 * (P - 1) * N / P;
        assert_true(sum_seconds(PRICE_ONE_SHOT, P, 4096) == a + (P - 1) * N);
        assert_true(sum_seconds(PRICE_TWO_SHOT, P, 4096) == two);
        assert_true(sum_seconds(PRICE_RING, P, 4096) == two + 2 * (P - 2) * a);
    }
}

static void as_shm_takes_the_algorithm_that_shm_takes(void **state)
{
    (void)state;
    for (int P = 2; P <= 8; P *= 2)
        for (int bytes = 4096; bytes <= 1 << 20; bytes *= 2) {
            enum price_as as =
                comm_shm_two_shot(P, (size_t)bytes) ? PRICE_TWO_SHOT : PRICE_ONE_SHOT;
            assert_true(sum_seconds(PRICE_AS_SHM, P, bytes) == sum_seconds(as, P, bytes));
        }
}

/* A rank with two planes makes the others read both. */
static void planes_cost_what_is_read_of_them(void **state)
{
    double clock = 0;
    struct comm c;
    struct comm_price p = {.as = PRICE_ONE_SHOT, .latency_s = 0, .bytes_s = 1, .clock = &clock};
    struct mat to = {1, 100, NUM_F32, NULL};
    struct planes from = {1, {to, to}};
    (void)state;
    comm_price_open(&c, &p, 0, 2, (const int[]){0, 2, 8}); /* the other: 2..4 and 4..8 */
    comm_sum(&c, &to, &from);
    assert_int_equal(c.bytes, 2 * 400);
    comm_price_open(&c, &p, 1, 2, (const int[]){0, 2, 8});
    comm_sum(&c, &to, &from);
    assert_int_equal(c.bytes, 400);
    assert_true(clock == 1200);
}

static void a_group_of_one_costs_nothing(void **state)
{
    double clock = 0;
    float x = 0;
    struct comm c;
    struct comm_price p = {.latency_s = 1, .bytes_s = 1, .clock = &clock};
    struct mat to = {1, 1, NUM_F32, &x};
    struct planes from = {1, {to}};
    (void)state;
    comm_price_open(&c, &p, 0, 1, (const int[]){0, 8});
    comm_sum(&c, &to, &from);
    comm_gather(&c, &to);
    assert_true(clock == 0 && c.calls == 0 && c.bytes == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_those_of_shared_memory),
        cmocka_unit_test(a_sum_costs_latency_and_bytes_of_its_algorithm),
        cmocka_unit_test(as_shm_takes_the_algorithm_that_shm_takes),
        cmocka_unit_test(planes_cost_what_is_read_of_them),
        cmocka_unit_test(a_group_of_one_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
