/* test_slots.c - what lies in the slots of a rank, whenever it dies: memory that processes
 * share stands in place of a GPU's, and copying to it dies on demand. */
#include "run/gpu_slots.h"
#include "tiny.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LAYERS = 3, EXPERTS = 7, RUNS = 3, SLOTS = 4, PLACEMENTS = 60 };

struct desk {
    struct plan p;
    struct pool pool;
    struct weights whole;
    struct rank rank;
    struct gpu_slots slots;
    struct dev host;
    size_t bytes;
    char *shared; /* the GPU's, then lies, then how much was copied */
    _Atomic uint64_t *copied;
};

static char *heap(struct pool *pool, size_t bytes)
{
    char *at = pool_get(pool, bytes + ARENA_ALIGN);
    return at + (size_t)(-(uintptr_t)at % ARENA_ALIGN);
}

static struct plan make_plan(void)
{
    struct model m = tiny_llama(LAYERS);
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = RUNS,
                           .ep = RUNS,
                           .slots = SLOTS,
                           .weight = NUM_INT8,
                           .kv = NUM_F32,
                           .numerics = "f32-fma"};
    m.experts = (struct experts){.n = EXPERTS, .top = 2, .ff = 36, .shared_ff = 30};
    m.kind[1].dense = true;
    m.kind_of[1] = 1;
    if (plan_make(&p, &m, &ask, &e))
        fail_msg("%s", e.text);
    return p;
}

/* ------------------------------------------------------------------------------- copying */

static int dies_at; /* of copies, the one that half comes */

static int copy(struct dev *d, int lane, void *to, const void *from, size_t bytes, struct err *e)
{
    (void)d, (void)lane, (void)e;
    memcpy(to, from, dies_at == 1 ? bytes / 2 : bytes);
    if (dies_at && !--dies_at)
        _exit(9);
    return 0;
}

static int moved(struct dev *d, const struct expert *expert, int n, struct err *e)
{
    (void)d, (void)expert, (void)e;
    return n == EXPERTS + 1 ? 0 : -EINVAL;
}

static const struct dev_ops host_ops = {.name = "host"};
static const struct plugin plugin = {.load = copy, .moved = moved};

/* ------------------------------------------------------------------------------- ranks */

static void lay_out(struct weights *w, const struct plan *p, int rank, struct pool *pool,
                    char *memory)
{
    struct arena tables = {0}, data = {0};
    weights_lay_out(w, p, rank, &tables, &data);
    tables = (struct arena){.base = heap(pool, tables.used), .size = tables.used};
    data = (struct arena){.base = memory ? memory : heap(pool, data.used), .size = data.used};
    weights_lay_out(w, p, rank, &tables, &data);
    if (!memory)
        for (size_t i = 0; i < data.used; i++)
            data.base[i] = (char)(i * 2654435761u >> 13);
}

/* A rank that starts knows nothing but what is shared. */
static void new_rank(struct desk *d, int run)
{
    const size_t held = (size_t)LAYERS * EXPERTS * sizeof(uint64_t);
    d->rank = (struct rank){.plan = &d->p, .id = run, .layers = {0, LAYERS}};
    lay_out(&d->rank.weights, &d->p, run, &d->pool, d->shared);
    d->rank.turns.held = (uint64_t *)(void *)heap(&d->pool, held);
    d->slots = (struct gpu_slots){.plugin = &plugin,
                                  .dev = &d->host,
                                  .host = &d->host,
                                  .whole = &d->whole,
                                  .rank = &d->rank,
                                  .lies = (slot_word *)(void *)(d->shared + d->bytes),
                                  .copied = d->copied};
}

static void open_desk(struct desk *d, int run)
{
    enum { MORE = 1 << 16 };
    memset(d, 0, sizeof(*d));
    d->p = make_plan();
    d->host.ops = &host_ops;
    d->bytes = round_up(plan_weight_bytes(&d->p, run), 4096);
    d->shared =
        mmap(NULL, d->bytes + MORE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(d->shared != MAP_FAILED);
    d->copied = (_Atomic uint64_t *)(void *)(d->shared + d->bytes + MORE / 2);
    lay_out(&d->whole, &d->p, PLAN_WHOLE, &d->pool, NULL);
    new_rank(d, run);
}

/* ------------------------------------------------------------------------------- claims */

static void put(void *arg, void *to, const void *from, size_t bytes)
{
    (void)arg;
    memcpy(to, from, bytes);
}

static void same(void *arg, void *to, const void *from, size_t bytes)
{
    int *wrong = arg;
    *wrong += memcmp(to, from, bytes) != 0;
}

static uint32_t draw(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(*seed >> 8) * below >> 24);
}

/* One holder or two of each, as long as there are slots. */
static void any_holders(uint64_t *holders, uint32_t *seed)
{
    for (int l = 0; l < LAYERS; l++) {
        int n[RUNS] = {0};
        for (int i = 0; i < EXPERTS; i++) {
            uint64_t *to = &holders[l * EXPERTS + i];
            int run = (int)draw(seed, RUNS);
            while (n[run] == SLOTS)
                run = (run + 1) % RUNS;
            *to = (uint64_t)1 << run;
            n[run]++;
            run = (int)draw(seed, RUNS);
            if (n[run] < SLOTS - 2 && !(*to >> run & 1))
                *to |= (uint64_t)1 << run, n[run]++;
        }
    }
}

/* All that the run is to hold lies where the rank looks for it. */
static int wrong_experts(const struct desk *d, const uint64_t *holders)
{
    int wrong = 0;
    for (int l = 0; l < LAYERS; l++)
        for (int e = 0; model_sparse(&d->p.model, l) && e < EXPERTS; e++)
            if (holders[l * EXPERTS + e] >> d->rank.id & 1)
                weights_copy_expert(&d->rank.weights.layer[l].expert[e],
                                    &d->whole.layer[l].expert[e], same, &wrong);
    return wrong;
}

static void fill(struct desk *d)
{
    weights_copies(&d->rank.weights, &d->whole, &d->p, d->rank.id, put, NULL);
    gpu_slots_filled(&d->slots);
}

static void close_desk(struct desk *d)
{
    munmap(d->shared, d->bytes + (1 << 16));
    pool_free(&d->pool);
}

static void a_rank_has_what_the_placement_says(void **state)
{
    uint64_t holders[LAYERS * EXPERTS];
    struct desk d;
    uint32_t seed = 1;
    (void)state;
    for (int run = 0; run < RUNS; run++) {
        open_desk(&d, run);
        fill(&d);
        assert_int_equal(gpu_slots_follow(&d.slots, NULL, 0), 0);
        assert_int_equal(*d.copied, 0);
        for (uint64_t turn = 1; turn < PLACEMENTS; turn++) {
            any_holders(holders, &seed);
            assert_int_equal(gpu_slots_follow(&d.slots, holders, turn), 0);
            assert_int_equal(wrong_experts(&d, holders), 0);
            assert_memory_equal(d.rank.turns.held, holders, sizeof(holders));
            const uint64_t before = *d.copied;
            assert_int_equal(gpu_slots_follow(&d.slots, NULL, turn), 0); /* in force already */
            assert_int_equal(*d.copied, before);
        }
        assert_true(*d.copied > 0);
        close_desk(&d);
    }
}

/* In the midst of a copy, of any; the next rank follows the same placement or another one. */
static void a_rank_that_dies_while_it_copies_leaves_nothing_that_is_not_so(void **state)
{
    uint64_t holders[LAYERS * EXPERTS];
    struct desk d;
    uint32_t seed = 1;
    int died = 0;
    (void)state;
    open_desk(&d, 1);
    fill(&d);
    for (uint64_t turn = 1; turn < PLACEMENTS; turn++) {
        any_holders(holders, &seed);
        pid_t pid = fork();
        if (!pid) {
            dies_at = 1 + (int)turn % 7;
            gpu_slots_follow(&d.slots, holders, turn);
            _exit(0);
        }
        int status;
        waitpid(pid, &status, 0);
        died += WIFEXITED(status) && WEXITSTATUS(status) == 9;
        new_rank(&d, 1);
        if (turn % 3 == 0)
            any_holders(holders, &seed);
        assert_int_equal(gpu_slots_follow(&d.slots, holders, turn), 0);
        assert_int_equal(wrong_experts(&d, holders), 0);
    }
    assert_true(died > PLACEMENTS / 4);
    close_desk(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_has_what_the_placement_says),
        cmocka_unit_test(a_rank_that_dies_while_it_copies_leaves_nothing_that_is_not_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
