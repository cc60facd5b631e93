/* test_price.c - the priced group (comm/price.h): its counts are those of a group over shared
 * memory, its seconds those of the formulas. */
#include "comm/price.h"
#include "comm_help.h"

enum { ROWS = 13, COLS = 37 };

struct shape {
    int rows, dim;
};

/* Every collective once, on any group; then a message between ranks 0 and 1. */
static void every_call(struct comm *c, struct mat *to, struct planes *from, struct mat *words,
                       struct mat *whole)
{
    uint32_t need[200];
    int col[SHARES_MAX + 1];
    memset(need, 0xff, sizeof(need)); /* all need all rows */
    must(to->n <= (int)COUNT(need));
    for (int t = 0; t < to->n; t++)
        need[t] >>= 32 - c->size;
    for (int r = 0; r <= c->size; r++)
        col[r] = r == c->size ? to->dim : r;
    struct mat slice = {to->n, col[c->rank + 1] - col[c->rank], NUM_F32, words->at};
    comm_sum(c, to, from);
    comm_scatter_sum(c, to, from);
    comm_gather(c, to);
    comm_merge(c, to, words);
    comm_dispatch(c, to, need);
    comm_combine(c, &whole[0], &whole[1], need);
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
    struct mat whole[2] = {{to.n, to.dim, NUM_I64, NULL}, {to.n, to.dim, NUM_I64, NULL}};
    for (int i = 0; i < 2; i++)
        whole[i].at = arena_get(&s->peer, mat_bytes(&whole[i]));
    every_call(&s->c, &to, &from, &words, whole);
    return s->c.err != 0;
}

static struct comm priced(struct comm_price *p, const struct job *j, const struct shape *shape)
{
    struct comm c;
    struct mat mat = {shape->rows, shape->dim, NUM_F32, NULL}, words = mat;
    struct planes from = {1, {mat}};
    comm_price_open(&c, p, 1, j->size, j->cut);
    struct mat whole[2] = {{mat.n, mat.dim, NUM_I64, NULL}, {mat.n, mat.dim, NUM_I64, NULL}};
    every_call(&c, &mat, &from, &words, whole);
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
            struct comm_price p = {.gang.stride = 1, .hit = 1};
            struct comm c = priced(&p, &j, &one);
            assert_int_equal(c.calls, real.calls);
            assert_int_equal(c.bytes, real.bytes);
        }
}

static void add(struct level *l, enum collective_op op, enum collective_way way, int ranks,
                double latency_s, double byte_s)
{
    l->collective[l->n_collective++] = (struct collective){.op = op,
                                                           .way = way,
                                                           .ranks = ranks,
                                                           .latency_s = {.value = latency_s},
                                                           .byte_s = {.value = byte_s}};
}

/* One-shot sums: 1/8 s and 1 s per KiB; two-shot 1/2 s and 1 s per KiB; other calls and messages
 * 1/4 s and 2 s per KiB. */
static struct hardware eight(void)
{
    struct hardware h = {.n_level = 1};
    struct level *l = &h.level[0];
    l->size = 8;
    for (int ranks = 2; ranks <= 8; ranks *= 2) {
        add(l, COLLECTIVE_SUM, WAY_ONE_SHOT, ranks, 0.125, 1.0 / 1024);
        add(l, COLLECTIVE_SUM, WAY_TWO_SHOT, ranks, 0.5, 1.0 / 1024);
        add(l, COLLECTIVE_GATHER, WAY_ONE_SHOT, ranks, 0.25, 2.0 / 1024);
    }
    add(l, COLLECTIVE_SEND, WAY_ONE_SHOT, 2, 0.25, 2.0 / 1024);
    return h;
}

/* Seconds of one sum of `bytes` over `size` ranks. */
static double sum_seconds(const struct hardware *h, int size, int bytes)
{
    struct comm c;
    struct comm_price p = {.hardware = h, .gang.stride = 1};
    int cut[SHARES_MAX + 1];
    struct mat to = {1, bytes / 4, NUM_F32, NULL};
    struct planes from = {1, {to}};
    for (int r = 0; r <= size; r++)
        cut[r] = r * 8 / size;
    comm_price_open(&c, &p, 0, size, cut);
    comm_sum(&c, &to, &from);
    return p.seconds;
}

static void a_sum_takes_the_cheaper_algorithm(void **state)
{
    const struct hardware h = eight();
    (void)state;
    for (int P = 2; P <= 8; P *= 2) {
        assert_true(sum_seconds(&h, P, 64) == 0.125 + (P - 1) / 16.0);
        double one = 0.125 + (P - 1) * 4.0, two = 0.5 + 2 * (P - 1) * 4.0 / P;
        assert_true(sum_seconds(&h, P, 4096) == (one < two ? one : two));
    }
}

/* Without its own collective, a scattered sum passes rows around: half of a sum's ring. */
static void rows_take_what_is_listed_for_them(void **state)
{
    const struct hardware h = eight();
    struct comm c;
    struct comm_price p = {.hardware = &h, .gang.stride = 1};
    struct mat to = {4, 64, NUM_F32, NULL};
    struct planes from = {1, {to}};
    (void)state;
    comm_price_open(&c, &p, 0, 4, (const int[]){0, 2, 4, 6, 8});
    comm_gather(&c, &to);
    assert_true(p.seconds == 0.25 + 2 * 0.75);
    comm_scatter_sum(&c, &to, &from);
    assert_true(p.seconds == 0.25 + 2 * 0.75 + 3 * (0.25 + 2 * 0.25));
}

static void a_message_takes_its_latency_and_bytes(void **state)
{
    const struct hardware h = eight();
    struct comm c;
    struct comm_price p = {.hardware = &h, .gang.stride = 2};
    struct mat m = {1, 256, NUM_F32, NULL};
    (void)state;
    comm_price_open(&c, &p, 1, 3, NULL);
    comm_send(&c, 2, &m);
    assert_true(p.seconds == 0);
    comm_recv(&c, 0, &m);
    assert_true(p.seconds == 0.25 + 2);
}

/* A rank with two planes makes the others read both. */
static void planes_cost_what_is_read_of_them(void **state)
{
    const struct hardware h = eight();
    struct comm c;
    struct comm_price p = {.hardware = &h, .gang.stride = 1};
    struct mat to = {1, 16, NUM_F32, NULL};
    struct planes from = {1, {to, to}};
    (void)state;
    comm_price_open(&c, &p, 0, 2, (const int[]){0, 2, 8}); /* the other: 2..4 and 4..8 */
    comm_sum(&c, &to, &from);
    assert_int_equal(c.bytes, 2 * 64);
    assert_true(p.seconds == 0.125 + 2 * 64 / 1024.0);
    comm_price_open(&c, &p, 1, 2, (const int[]){0, 2, 8});
    comm_sum(&c, &to, &from);
    assert_int_equal(c.bytes, 64);
    assert_true(p.seconds == 0.125 + 64 / 1024.0);
}

static void a_group_of_one_costs_nothing(void **state)
{
    const struct hardware h = eight();
    float x = 0;
    struct comm c;
    struct comm_price p = {.hardware = &h, .gang.stride = 1};
    struct mat to = {1, 1, NUM_F32, &x};
    struct planes from = {1, {to}};
    (void)state;
    comm_price_open(&c, &p, 0, 1, (const int[]){0, 8});
    comm_sum(&c, &to, &from);
    comm_gather(&c, &to);
    assert_true(p.seconds == 0 && c.calls == 0 && c.bytes == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_those_of_shared_memory),
        cmocka_unit_test(a_sum_takes_the_cheaper_algorithm),
        cmocka_unit_test(rows_take_what_is_listed_for_them),
        cmocka_unit_test(a_message_takes_its_latency_and_bytes),
        cmocka_unit_test(planes_cost_what_is_read_of_them),
        cmocka_unit_test(a_group_of_one_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
