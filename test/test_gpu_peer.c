/* test_gpu_peer.c - groups of ranks that map each other's memory. */
#include "comm/peer/peer.h"
#include "comm/shots.h"

struct group {
    struct comm_peer ctx;
};
struct cards {
    struct peer_card card[PEER_RANKS];
};

#include "gpu_groups.h"

static int open_group(struct desk *d)
{
    const struct task *t = d->task;
    size_t head = comm_peer_bytes(t->outbox_bytes);
    void *at = NULL;
    struct err e;
    if (gpu_alloc(&at, head + t->peer_bytes + 1))
        return 1;
    d->memory = at;
    d->peer = (struct arena){.base = d->memory + head, .size = t->peer_bytes};
    const struct comm_peer_opts o = {.rank = d->rank,
                                     .size = t->size,
                                     .cut = t->cut[t->size] ? t->cut : NULL,
                                     .card = d->cards->card,
                                     .memory = d->memory,
                                     .peer_bytes = t->peer_bytes,
                                     .outbox_bytes = t->outbox_bytes,
                                     .wait = {d->stop, SPINS},
                                     .stream = d->stream,
                                     .replays = &d->replays};
    return comm_peer_open(&d->c, &d->group.ctx, &o, &e) != 0;
}

static void close_group(struct desk *d) { comm_peer_close(&d->group.ctx); }
static int wait_group(struct desk *d) { return gpu_wait(d->stream); }
static bool two_shots(int size, size_t bytes) { return comm_peer_two_shot(size, bytes); }
static bool brings_all(void) { return false; }

static void a_raised_stop_word_ends_the_start(void **state)
{
    static struct cards cards;
    _Atomic uint32_t stop = 1;
    struct task t = {.size = 2, .peer_bytes = 4096};
    struct desk d = {.task = &t, .cards = &cards, .stop = &stop};
    (void)state;
    cut_task(&t, 8, 0);
    assert_int_equal(open_desk(&d), 1); /* and does not wait for rank 1 */
    assert_int_equal(cards.card[0].told, 1);
    close_desk(&d);
}

/* Between two meetings all read what one of them wrote before the first. */
static int meet_often(struct desk *d)
{
    struct mat mine = get(d, NUM_F32, 3, 1000), copy = get(d, NUM_F32, 3, 1000);
    const size_t at = (size_t)((char *)mine.at - d->memory);
    const float *got[LAYERS];
    int wrong = 0;
    for (int call = 0; call < LAYERS; call++) {
        float *here = host(d, &mine);
        for (size_t i = 0; i < numbers(&mine); i++)
            here[i] = cell(call, d->rank, (int)i);
        wrong += put(d, &mine, here);
        wrong += comm_peer_meet(&d->group.ctx) != 0;
        wrong += gpu_copy(copy.at, d->group.ctx.memory[call % d->c.size] + at, mat_bytes(&copy),
                          d->stream) != 0;
        wrong += comm_peer_meet(&d->group.ctx) != 0;
        got[call] = fetch(d, &copy);
    }
    wrong += done(d);
    for (int call = 0; call < LAYERS; call++)
        for (size_t i = 0; i < numbers(&copy); i++)
            wrong += got[call][i] != cell(call, call % d->c.size, (int)i);
    return wrong;
}

static void what_was_written_before_a_meeting_is_read_after_it(void **state)
{
    (void)state;
    for (int size = 2; size <= 5; size++) {
        struct task t = {.run = meet_often, .size = size, .peer_bytes = 1 << 16};
        run_task(&t, "meet");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        GPU_GROUP_TESTS cmocka_unit_test(a_raised_stop_word_ends_the_start),
        cmocka_unit_test(what_was_written_before_a_meeting_is_read_after_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
