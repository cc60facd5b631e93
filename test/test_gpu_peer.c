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

int main(void)
{
    const struct CMUnitTest tests[] = {
        GPU_GROUP_TESTS cmocka_unit_test(a_raised_stop_word_ends_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
