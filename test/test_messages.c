/* test_messages.c - send and recv over shared memory, and what a raised stop word does to every
 * call. */
#include "comm_help.h"

enum { SPINS = 50, DIM = 211, MESSAGES = 2000 };

static struct mat message(struct seat *s)
{
    (void)s;
    struct mat m = {1, DIM, NUM_F32, calloc(DIM, sizeof(float))}; /* need not lie in the arena */
    must(m.at);
    return m;
}

static void write_message(const struct mat *m, int from, int to, int number)
{
    for (int i = 0; i < m->dim; i++)
        ((float *)m->at)[i] = (float)((from * 64 + to) * 4096 + number * 7 + i);
}

static int wrong_message(const struct mat *m, int from, int to, int number)
{
    int wrong = 0;
    for (int i = 0; i < m->dim; i++)
        wrong += ((float *)m->at)[i] != (float)((from * 64 + to) * 4096 + number * 7 + i);
    return wrong;
}

static void run_both(int (*run)(struct seat *), int size, const char *what)
{
    struct job j = {.run = run, .size = size, .outbox_bytes = DIM * sizeof(float), .spins = SPINS};
    run_job(&j, THREADS, what);
    run_job(&j, PROCESSES, what);
}

/* ------------------------------------------------------------------------------- order */

/* As a pipeline does: every stage passes on what it got, with its own delays. */
static int stage(struct seat *s)
{
    struct mat m = message(s);
    int wrong = 0;
    for (int k = 0; k < MESSAGES; k++) {
        if (s->rank > 0) {
            comm_recv(&s->c, s->rank - 1, &m);
            wrong += wrong_message(&m, s->rank - 1, s->rank, k);
        }
        seat_dawdle(s);
        write_message(&m, s->rank, s->rank + 1, k);
        if (s->rank + 1 < s->c.size)
            comm_send(&s->c, s->rank + 1, &m);
        memset(m.at, 0xff, mat_bytes(&m)); /* send is done with it */
    }
    free(m.at);
    return wrong + (s->c.err != 0);
}

static void messages_arrive_whole_and_in_order(void **state)
{
    (void)state;
    for (int size = 2; size <= 5; size++)
        run_both(stage, size, "pipeline");
}

/* Rank 0 draws who gets the next message; the receivers take theirs in their own time. */
static int deal(struct seat *s)
{
    struct mat m = message(s);
    int wrong = 0, n_peer = s->c.size - 1, number[SHARES_MAX] = {0};
    s->random = 5; /* all know the same draws */
    for (int k = 0; k < MESSAGES; k++) {
        int to = 1 + (int)(seat_random(s) % (uint64_t)n_peer);
        if (s->rank == 0) {
            write_message(&m, 0, to, number[to]++);
            comm_send(&s->c, to, &m);
        } else if (s->rank == to) {
            comm_recv(&s->c, 0, &m);
            wrong += wrong_message(&m, 0, to, number[to]++);
        }
        if (s->rank == to && k % 31 == 0)
            usleep(10);
    }
    free(m.at);
    return wrong + (s->c.err != 0);
}

static void one_outbox_serves_any_number_of_peers(void **state)
{
    (void)state;
    run_both(deal, 3, "deal");
    run_both(deal, 6, "deal");
}

/* All send to the next and the one after, around the ring, then receive: two fit without a taker.
 */
static int send_two_then_receive(struct seat *s)
{
    struct mat m = message(s);
    int n = s->c.size, wrong = 0;
    for (int k = 0; k < 200; k++) {
        for (int hop = 1; hop <= 2; hop++) {
            int to = (s->rank + hop) % n;
            write_message(&m, s->rank, to, k);
            comm_send(&s->c, to, &m);
        }
        for (int hop = 2; hop >= 1; hop--) {
            int from = (s->rank + n - hop) % n;
            comm_recv(&s->c, from, &m);
            wrong += wrong_message(&m, from, s->rank, k);
        }
    }
    free(m.at);
    return wrong + (s->c.err != 0);
}

static void two_messages_wait_without_a_taker(void **state)
{
    (void)state;
    run_both(send_two_then_receive, 3, "ring");
    run_both(send_two_then_receive, 5, "ring");
}

/* ------------------------------------------------------------------------------- stop */

enum call { SUM, SCATTER_SUM, GATHER, MERGE, JOIN, SEND, RECV, CALLS };

static void make_call(struct seat *s, enum call call, struct mat *to, struct planes *from)
{
    int col[] = {0, 32, 64};
    struct mat slice = {1, 32, NUM_F32, from->at[0].at};
    switch (call) {
    case SUM: comm_sum(&s->c, to, from); break;
    case SCATTER_SUM: comm_scatter_sum(&s->c, to, from); break;
    case GATHER: comm_gather(&s->c, to); break;
    case MERGE: comm_merge(&s->c, to, &from->at[0]); break;
    case JOIN: comm_join(&s->c, to, &slice, col); break;
    case SEND: comm_send(&s->c, 0, to); break;
    case RECV: comm_recv(&s->c, 0, to); break;
    case CALLS: break;
    }
}

/* Rank 0 never comes, and raises the stop word when rank 1 is about to wait for it. */
static int stopped(struct seat *s)
{
    enum call call = *(const enum call *)s->job->arg;
    struct mat to = seat_mat(s, 1, 64);
    struct planes from = seat_planes(s, 1, 64);
    uint32_t before[64];
    if (s->rank == 0) {
        while (!atomic_load(&s->table->flag))
            sched_yield();
        usleep(200);
        atomic_store(&s->table->stop, 1);
        return 0;
    }
    memset(to.at, 0x55, mat_bytes(&to));
    if (call == SEND) { /* two find room */
        make_call(s, call, &to, &from);
        make_call(s, call, &to, &from);
    }
    uint64_t calls = s->c.calls;
    memset(before, 0x55, sizeof(before));
    atomic_store(&s->table->flag, 1);
    make_call(s, call, &to, &from);
    int wrong = s->c.err != -ECANCELED;
    for (int k = 0; k < CALLS; k++) /* later calls return at once and touch nothing */
        make_call(s, (enum call)k, &to, &from);
    return wrong + (s->c.err != -ECANCELED) + (s->c.calls != calls) +
           (memcmp(to.at, before, sizeof(before)) != 0);
}

static void a_raised_stop_word_ends_every_wait(void **state)
{
    (void)state;
    for (enum call call = SUM; call < CALLS; call++)
        for (int as = THREADS; as <= PROCESSES; as++) {
            struct job j = {.run = stopped,
                            .size = 2,
                            .cut = {0, 4, 8},
                            .peer_bytes = 1 << 16,
                            .outbox_bytes = 256,
                            .spins = SPINS,
                            .arg = &call};
            run_job(&j, (enum as)as, "stop");
        }
}

/* A stop that nobody waits for changes nothing: the step still ends. */
static int ready(struct seat *s)
{
    struct mat m = message(s);
    if (s->rank == 0) {
        write_message(&m, 0, 1, 1);
        comm_send(&s->c, 1, &m);
        atomic_store(&s->table->stop, 1);
    } else {
        while (!atomic_load(&s->table->stop))
            sched_yield();
        comm_recv(&s->c, 0, &m);
    }
    int wrong = s->rank ? wrong_message(&m, 0, 1, 1) : 0;
    free(m.at);
    return wrong + (s->c.err != 0);
}

static void what_is_already_there_is_taken_in_spite_of_stop(void **state)
{
    (void)state;
    run_both(ready, 2, "ready");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_arrive_whole_and_in_order),
        cmocka_unit_test(one_outbox_serves_any_number_of_peers),
        cmocka_unit_test(two_messages_wait_without_a_taker),
        cmocka_unit_test(a_raised_stop_word_ends_every_wait),
        cmocka_unit_test(what_is_already_there_is_taken_in_spite_of_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
