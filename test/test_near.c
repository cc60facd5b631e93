/* test_near.c - memory near its ranks: which bytes are a rank's, and what the kernel was told. Two
 * nodes are pretended here, both of which are the kernel's node 0. */
#include "engine/near.h"
#include "run/room.h"
#include "topo/bind.h"

#include <linux/mempolicy.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "model_help.h"

static struct host host_of(int nodes)
{
    struct host h = {.n_core = 8, .n_node = nodes};
    for (int i = 0; i < h.n_core; i++)
        h.core[i] = (struct host_core){.cpu = i, .at = i * nodes / h.n_core};
    return h;
}

/* The weights of a host, in memory that nobody touches. */
struct laid_out {
    struct weights whole;
    struct pool pool;
    char *base;
    size_t bytes;
};

static struct arena arena_of(struct pool *pool, size_t bytes)
{
    char *at = pool_get(pool, bytes + ARENA_ALIGN);
    return (struct arena){.base = at + (size_t)(-(uintptr_t)at % ARENA_ALIGN), .size = bytes};
}

static struct laid_out lay_out(const struct plan *p)
{
    struct laid_out l = {.pool = {NULL}};
    struct arena tables = {0}, data = {0};
    struct err e;
    weights_lay_out(&l.whole, p, PLAN_WHOLE, &tables, &data);
    l.bytes = data.used;
    assert_int_equal(map_memory(l.bytes, false, &l.base, &e), 0);
    struct arena host = arena_of(&l.pool, tables.used);
    data = (struct arena){.base = l.base, .size = l.bytes};
    weights_lay_out(&l.whole, p, PLAN_WHOLE, &host, &data);
    return l;
}

static struct weights view_of(struct laid_out *l, const struct plan *p, int rank)
{
    struct weights view;
    struct arena host = arena_of(&l->pool, (size_t)p->model.n_layer * sizeof(struct layer) + 256);
    weights_view(&view, &l->whole, p, rank, &host);
    return view;
}

static void close_layout(struct laid_out *l)
{
    munmap(l->base, l->bytes);
    pool_free(&l->pool);
}

/* ------------------------------------------------------------------------------- runs */

struct tally {
    const char *base, *end;
    size_t bytes, longest;
};

static void count_run(void *arg, const char *at, size_t bytes)
{
    struct tally *c = arg;
    assert_true(at >= c->base && at + bytes <= c->end);
    c->bytes += bytes;
    c->longest = bytes > c->longest ? bytes : c->longest;
}

static void add_vector(void *arg, const struct piece *pc)
{
    if (!pc->matrix)
        *(size_t *)arg += round_up((size_t)len(pc->col) * sizeof(float), ARENA_ALIGN);
}

/* What a rank reads of matrices, and no byte more, in runs: whatever the cut. */
static void the_runs_of_a_rank_are_its_matrices_to_the_byte(void **state)
{
    (void)state;
    for (int tp = 1; tp <= 8; tp++) {
        struct plan p =
            plan_of("llama-3.2-1b", (struct plan_ask){.threads = 1, .tp = tp, .pp = tp % 3 + 1});
        struct laid_out l = lay_out(&p);
        for (int r = 0; r < plan_ranks(&p); r++) {
            struct weights view = view_of(&l, &p, r);
            struct tally c = {.base = l.base, .end = l.base + l.bytes};
            size_t vectors = 0;
            weights_runs(&view, &p, r, count_run, &c);
            plan_pieces(&p, r, add_vector, &vectors);
            assert_int_equal(c.bytes + vectors, weights_bytes(&view, &p, r));
        }
        close_layout(&l);
    }
}

/* ------------------------------------------------------------------------------- the kernel's word
 */

/* The policy of the page at `at`, or of this thread; -1: the kernel does not tell. */
static int policy(const void *at)
{
    int mode = -1;
    if (syscall(SYS_get_mempolicy, &mode, NULL, 0, at, at ? MPOL_F_ADDR : 0))
        return -1;
    return mode;
}

static bool kernel_binds(void)
{
    const struct host h = host_of(2);
    struct node_set zero = {.n = 0};
    nodes_add(&zero, &h, 0, 8);
    assert_int_equal(zero.n, 1); /* a node counts once */
    bind_thread(&zero);
    bool bound = policy(NULL) == MPOL_PREFERRED;
    bind_thread(NULL);
    return bound;
}

#define NEEDS_BINDING()                                                                            \
    if (!kernel_binds()) {                                                                         \
        print_message("the kernel refuses to bind memory here: skipped\n");                        \
        skip();                                                                                    \
    }

static void expect_preferred(void *arg, const char *at, size_t bytes)
{
    (void)arg;
    if (bytes >= 3 * BIND_PAGE)
        assert_int_equal(policy(at + bytes / 2), MPOL_PREFERRED);
}

static void weights_are_bound_run_by_run(void **state)
{
    NEEDS_BINDING()
    const struct host h = host_of(2);
    struct plan p = plan_of("llama-3.2-1b", (struct plan_ask){.threads = 1, .tp = 2, .host = &h});
    struct laid_out l = lay_out(&p);
    (void)state;
    assert_int_equal(p.core[1], 4);
    struct weights first = view_of(&l, &p, 0), second = view_of(&l, &p, 1);
    near_weights(&h, &p, 0, &first);
    const struct weight *o = &second.layer[0].o;
    assert_int_equal(policy((char *)o->part[0].at + 2 * BIND_PAGE), MPOL_DEFAULT);
    near_weights(&h, &p, 1, &second);
    weights_runs(&first, &p, 0, expect_preferred, NULL);
    weights_runs(&second, &p, 1, expect_preferred, NULL);
    close_layout(&l);
}

static void on_one_node_nothing_is_bound(void **state)
{
    NEEDS_BINDING()
    const struct host h = host_of(1), two = host_of(2);
    struct plan p = plan_of("llama-3.2-1b", (struct plan_ask){.threads = 1, .tp = 2, .host = &h});
    struct laid_out l = lay_out(&p);
    struct weights view = view_of(&l, &p, 0);
    (void)state;
    assert_int_equal(p.core[1], 1);
    near_begin(&h, &p);
    near_weights(&h, &p, 0, &view);
    near_weights(NULL, &p, 0, &view);
    assert_int_equal(policy(NULL), MPOL_DEFAULT);
    assert_int_equal(policy(view.layer[0].q.part[0].at), MPOL_DEFAULT);
    p.core[0] = p.core[1] = -1;
    near_weights(&two, &p, 0, &view);
    assert_int_equal(policy(view.layer[0].q.part[0].at), MPOL_DEFAULT);
    close_layout(&l);
}

static void a_thread_is_bound_from_begin_to_end(void **state)
{
    NEEDS_BINDING()
    const struct host h = host_of(2);
    struct plan p = plan_of("llama-3.2-1b", (struct plan_ask){.threads = 1, .tp = 2, .host = &h});
    (void)state;
    near_begin(&h, &p);
    assert_int_equal(policy(NULL), MPOL_PREFERRED);
    near_end(&h, &p);
    assert_int_equal(policy(NULL), MPOL_DEFAULT);
}

/* ------------------------------------------------------------------------------- the cache */

/* Make two of four pages of a pool real; every page of memory in them is then there, and none
 * outside; and this thread is bound no more. */
static void touch_two_of_four(const struct plan *p, const struct host *h)
{
    const size_t page = rank_page_bytes(p), all = 4 * page;
    unsigned char *there = malloc(all / BIND_PAGE);
    char *kv;
    struct err e;
    assert_int_equal(page % BIND_PAGE, 0);
    assert_int_equal(map_memory(all, true, &kv, &e), 0);
    near_cache_open(h, p, kv);
    assert_int_equal(near_cache(h, p, kv, 1, 2, &e), 0);
    assert_int_equal(mincore(kv, all, there), 0);
    for (size_t i = 0; i < all / BIND_PAGE; i++) {
        bool want = i * BIND_PAGE >= page && i * BIND_PAGE < 3 * page;
        if ((there[i] & 1) != want)
            fail_msg("page %zu of %zu", i, all / BIND_PAGE);
    }
    munmap(kv, all);
    free(there);
    if (policy(NULL) >= 0)
        assert_int_equal(policy(NULL), MPOL_DEFAULT);
}

static void pages_of_the_cache_become_real_and_no_others(void **state)
{
    static const struct {
        const char *model;
        int nodes;
        struct plan_ask ask;
    } with[] = {{"llama-3-8b", 2, {.tp = 2}},
                {"llama-3-8b", 2, {.pp = 2}},
                {"llama-3-8b", 2, {.tp = 2, .pp = 2}},
                {"llama-3-8b", 2, {.tp = 2, .kv = NUM_INT8}}, /* heads that begin inside of pages */
                {"llama-3.2-1b", 2, {.tp = 8, .kv = NUM_INT8}}, /* smaller than pages */
                {"llama-3-8b", 1, {.tp = 2}}};
    (void)state;
    for (size_t i = 0; i < COUNT(with); i++) {
        const struct host h = host_of(with[i].nodes);
        struct plan_ask ask = with[i].ask;
        ask.ctx = 64, ask.host = &h, ask.threads = 1;
        struct plan p = plan_of(with[i].model, ask);
        assert_int_equal(p.pages, 4);
        assert_true(p.core[0] >= 0);
        touch_two_of_four(&p, &h);
    }
}

static void the_pool_begins_with_a_page(void **state)
{
    struct plan p =
        plan_of("llama-3.2-1b", (struct plan_ask){.threads = 1, .tp = 2, .ctx = 64, .max_tok = 33});
    struct room room;
    struct err e;
    (void)state;
    if (room_open(&room, &p, ISA_REF, false, false, 0, &e))
        fail_msg("%s", e.text);
    assert_int_equal((uintptr_t)room.kv % BIND_PAGE, 0);
    room_close(&room);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_runs_of_a_rank_are_its_matrices_to_the_byte),
        cmocka_unit_test(weights_are_bound_run_by_run),
        cmocka_unit_test(on_one_node_nothing_is_bound),
        cmocka_unit_test(a_thread_is_bound_from_begin_to_end),
        cmocka_unit_test(pages_of_the_cache_become_real_and_no_others),
        cmocka_unit_test(the_pool_begins_with_a_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
