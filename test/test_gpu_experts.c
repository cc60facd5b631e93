/* test_gpu_experts.c - routing and experts on the model of a GPU (cuda_model.h): the reference's
 * bits, whatever they are given.
 */
#include "base/whole.h"
#include "gpu_help.h"

#include <math.h>

/* ------------------------------------------------------------------------------- routing */

/* Equal logits, and none, among others. */
static struct mat draw_logits(struct help *h, int n, int experts, int odd)
{
    struct mat m = help_mat(h, n, experts);
    for (int i = 0; i < n * experts; i++) {
        float *to = (float *)m.at + i;
        *to = help_draw(h, 3) ? (float)help_draw(h, 9) - 4 : *to * 10;
        if (odd && help_draw(h, experts) < odd)
            *to = odd == 1 ? NAN : odd == 2 ? -INFINITY : INFINITY;
    }
    return m;
}

static void check_route(struct gpu *g, struct help *h, const struct mat *logits, int top,
                        bool shared, bool gated, bool renorm)
{
    struct mat gate = help_mat(h, gated ? logits->n : 0, 1), none = {0};
    const int n = logits->n, per_row = top + shared;
    const size_t bytes = (size_t)(n * per_row) * sizeof(int);
    int *want = help_bytes(h, bytes), *got = help_bytes(h, bytes);
    struct mat weight = help_mat(h, n, per_row);
    struct routed to = {.n = n, .top = top, .shared = shared, .expert = want, .weight = weight.at};
    int *expert = gpu_put(g, NULL, bytes);
    float *there = gpu_put(g, NULL, mat_bytes(&weight));
    dev_route(&h->dev[ISA_REF], &to, logits, gated ? &gate : &none, renorm);
    gpu_ok(gpu_route(g->stream, expert, there, gpu_put_mat(g, logits), n, logits->dim, top, shared,
                     gated ? gpu_put_mat(g, &gate) : NULL, renorm, NULL));
    gpu_take(g, got, expert, bytes);
    assert_memory_equal(got, want, bytes);
    struct mat have = help_copy(h, &weight);
    gpu_take(g, have.at, there, mat_bytes(&have));
    for (int i = 0; i < n * per_row; i++) { /* a NaN may be any NaN */
        float a = ((float *)have.at)[i], b = ((float *)weight.at)[i];
        assert_true(memcmp(&a, &b, sizeof(a)) == 0 || (isnan(a) && isnan(b)));
    }
    gpu_drop(g);
}

static void routing_is_the_reference_bit_by_bit(void **state)
{
    (void)state;
    static const int experts[] = {1, 8, 60, 64, 128, 257, 512};
    struct gpu g = gpu_help_begin();
    for (int i = 0; i < 84; i++) {
        struct help h = help_begin(16, 512);
        h.seed = (uint64_t)i;
        int n = experts[i % 7], top = 1 + help_draw(&h, min_int(n, 10));
        struct mat logits = draw_logits(&h, 1 + help_draw(&h, 11), n, i % 4);
        check_route(&g, &h, &logits, top, i & 1, i & 2, i & 4);
        help_end(&h);
    }
}

/* ------------------------------------------------------------------------------- dealing */

enum { DEAL_ROWS = 150, DEAL_TOP = 4, DEAL_EXPERTS = 70 };

/* Choices of rows, low numbers more often than others; the shared expert last. */
static void choose(struct help *h, int *chosen, int n, int experts, bool shared)
{
    for (int i = 0; i < n; i++, chosen += DEAL_TOP + shared) {
        for (int c = 0; c < DEAL_TOP; c++)
            chosen[c] = help_draw(h, 1 + help_draw(h, experts));
        if (shared)
            chosen[DEAL_TOP] = experts;
    }
}

/* Bits of the ranks that compute each choice; which rows each rank needs is the same on all. */
static void deal_to_all(struct gpu *g, const int *chosen, int n, bool shared, struct gpu_deal d,
                        uint32_t *who, uint32_t *need, uint64_t load[2])
{
    const int per_row = DEAL_TOP + shared, size = d.n_run * d.slices;
    const size_t bytes = (size_t)(n * per_row) * sizeof(int);
    uint32_t before[DEAL_ROWS];
    int mine[DEAL_ROWS * (DEAL_TOP + 1)];
    memset(who, 0, bytes);
    load[0] = 1000, load[1] = 2000;
    for (d.rank = 0; d.rank < size; d.rank++) {
        int *there = gpu_put(g, chosen, bytes);
        d.need = need ? gpu_put(g, NULL, (size_t)n * sizeof(*need)) : NULL;
        d.load = d.rank ? NULL : gpu_put(g, load, 2 * sizeof(*load));
        gpu_ok(gpu_deal_rows(g->stream, there, n, DEAL_TOP, shared, &d));
        gpu_take(g, mine, there, bytes);
        if (!d.rank)
            gpu_take(g, load, d.load, 2 * sizeof(*load));
        for (int i = 0; i < n * per_row; i++) {
            assert_true(mine[i] == chosen[i] || mine[i] == -1);
            who[i] |= (uint32_t)(mine[i] >= 0) << d.rank;
        }
        if (!need)
            continue;
        gpu_take(g, need, d.need, (size_t)n * sizeof(*need));
        if (d.rank)
            assert_memory_equal(need, before, (size_t)n * sizeof(*need));
        memcpy(before, need, (size_t)n * sizeof(*need));
    }
    load[0] -= 1000, load[1] -= 2000;
}

/* Every choice is computed by all slices of one run that holds it, or, of the shared expert, by all
 * or by the row's own rank; and a row is needed by who computes something of it. */
static void check_deal(const int *chosen, int n, bool shared, const struct gpu_deal *d,
                       const uint64_t *holders, const uint32_t *who, const uint32_t *need)
{
    const int size = d->n_run * d->slices;
    for (int i = 0; i < n; i++) {
        uint32_t all = 0, own = 0;
        for (int r = 0; r < size; r++)
            own |= (uint32_t)(share(n, size, r).lo <= i && i < share(n, size, r).hi) << r;
        for (int c = 0; c < DEAL_TOP; c++, chosen++, all |= *who++) {
            const int run = __builtin_ctz(*who) / d->slices;
            assert_int_equal(*who, ((1u << d->slices) - 1) << run * d->slices);
            assert_true(holders[*chosen] >> run & 1);
        }
        if (shared) {
            assert_int_equal(*who, need ? own : (uint32_t)((1ull << size) - 1));
            all |= *who++, chosen++;
        }
        if (need)
            assert_int_equal(need[i], all);
    }
}

static void every_choice_is_dealt_to_one_run_that_holds_it(void **state)
{
    (void)state;
    struct gpu g = gpu_help_begin();
    for (int i = 0; i < 48; i++) {
        struct help h = help_begin(16, 512);
        static const int runs[] = {2, 3, 4, 8, 32}, rows[] = {1, 7, 64, DEAL_ROWS};
        int chosen[DEAL_ROWS * (DEAL_TOP + 1)];
        uint32_t who[DEAL_ROWS * (DEAL_TOP + 1)], need[DEAL_ROWS];
        uint64_t holders[DEAL_EXPERTS], load[2];
        const int n = rows[i % 4], experts = i % 3 ? DEAL_EXPERTS : 8;
        const bool shared = i & 1, dispatches = i & 4;
        struct gpu_deal d = {.n_expert = experts,
                             .n_run = runs[i % 5],
                             .slices = i % 5 < 4 ? 1 + i % 3 : 1,
                             .weights = 9,
                             .tile = 4};
        h.seed = (uint64_t)i;
        for (int e = 0; e < experts; e++) {
            holders[e] = 1ull << help_draw(&h, d.n_run);
            for (int k = i % 4; k > 0; k--)
                holders[e] |= 1ull << help_draw(&h, d.n_run);
        }
        choose(&h, chosen, n, experts, shared);
        d.holders = gpu_put(&g, holders, (size_t)experts * sizeof(*holders));
        deal_to_all(&g, chosen, n, shared, d, who, dispatches ? need : NULL, load);
        check_deal(chosen, n, shared, &d, holders, who, dispatches ? need : NULL);
        assert_true(load[1] > (uint64_t)(n * DEAL_TOP) && load[0] <= load[1]);
        assert_true(load[0] * (uint64_t)d.n_run >= load[1]);
        gpu_drop(&g);
        help_end(&h);
    }
}

/* Loads as rows and weights make them. */
static void what_all_hold_is_shared_out_evenly(void **state)
{
    enum { N = 128 };
    (void)state;
    struct gpu g = gpu_help_begin();
    int chosen[N * DEAL_TOP];
    uint32_t who[N * DEAL_TOP];
    uint64_t holders[4] = {15, 15, 15, 15}, load[2];
    struct gpu_deal d = {.n_expert = 4, .n_run = 4, .slices = 1, .weights = 8, .tile = 16};
    for (int i = 0; i < N * DEAL_TOP; i++)
        chosen[i] = i % DEAL_TOP;
    d.holders = gpu_put(&g, holders, sizeof(holders));
    deal_to_all(&g, chosen, N, false, d, who, NULL, load);
    assert_true(load[0] <= N + 4 * 8); /* all weights on each, and the rows evenly */
    holders[3] = 1;                    /* a whole expert on one run: the others share the rest */
    d.holders = gpu_put(&g, holders, sizeof(holders));
    deal_to_all(&g, chosen, N, false, d, who, NULL, load);
    assert_in_range(load[0], N + 8, N + 3 * 8);
    gpu_drop(&g);
}

/* ------------------------------------------------------------------------------- experts */

enum { HIDDEN = 72, EXPERTS = 5, PER_ROW = 3, ROWS_MOST = 70, ROOM = 8 << 20 };

static const enum num types[] = {NUM_F32,      NUM_F16,      NUM_BF16,      NUM_INT8,      NUM_INT4,
                                 NUM_INT8_G32, NUM_INT4_G32, NUM_INT4_G32Z, NUM_INT4_G128, NUM_FP8};

/* Experts of a layer, some rows, and where these go. The last expert is wider than the others. */
struct layer {
    struct help h;
    struct expert expert[EXPERTS];
    int columns;
    struct mat x;
    int chosen[ROWS_MOST * PER_ROW];
    float weight[ROWS_MOST * PER_ROW];
};

static void layer_begin(struct layer *l, enum num type, int n, uint64_t seed)
{
    l->h = help_begin(ROWS_MOST, 600);
    l->h.seed = seed;
    l->columns = 0;
    for (int e = 0; e < EXPERTS; e++) {
        int columns = e == EXPERTS - 1 ? 210 : 150, parts = 1 + help_draw(&l->h, 8);
        struct expert *one = &l->expert[e];
        one->gate = help_weight(&l->h, type, CUT_ROWS, columns, HIDDEN, 0, parts);
        one->up = help_weight(&l->h, type, CUT_ROWS, columns, HIDDEN, 0, parts);
        one->down = help_weight(&l->h, type, CUT_COLS, HIDDEN, columns, 0, parts);
        l->columns = max_int(l->columns, columns);
    }
    l->x = help_mat(&l->h, n, HIDDEN);
    for (int i = 0; i < n * HIDDEN; i++)
        ((float *)l->x.at)[i] = (float)help_draw(&l->h, 2000) * 1e-3f - 1;
    for (int i = 0; i < n * PER_ROW; i++) {
        l->chosen[i] = (i % PER_ROW * 2 + help_draw(&l->h, 2)) % EXPERTS; /* each at most once */
        l->weight[i] = (float)help_draw(&l->h, 1000) * 1e-3f;
    }
    for (int i = 0; i < 3; i++) /* not here */
        l->chosen[help_draw(&l->h, n * PER_ROW)] = i % 2 ? EXPERTS : -1;
}

static void *put_experts(struct gpu *g, const struct layer *l)
{
    struct gpu_weight there[3 * EXPERTS];
    for (int e = 0; e < EXPERTS; e++) {
        there[3 * e] = gpu_put_weight(g, &l->expert[e].gate);
        there[3 * e + 1] = gpu_put_weight(g, &l->expert[e].up);
        there[3 * e + 2] = gpu_put_weight(g, &l->expert[e].down);
    }
    return gpu_put(g, there, sizeof(there));
}

/* Rows of the layer on the GPU, with so much room. */
static void sum_there(struct gpu *g, const struct layer *l, const void *experts, struct span rows,
                      size_t room_bytes, int64_t *sum)
{
    const int n = len(rows), first = rows.lo * PER_ROW;
    const size_t choices = (size_t)(n * PER_ROW) * sizeof(int);
    struct mat x = mat_rows(&l->x, rows);
    struct gpu_room room = {gpu_put(g, NULL, room_bytes), room_bytes, 4, 0};
    int64_t *y = gpu_put(g, NULL, (size_t)(n * HIDDEN) * sizeof(*y));
    gpu_ok(gpu_experts(g->stream, y, gpu_put_mat(g, &x), n, HIDDEN, experts, EXPERTS,
                       l->expert[0].gate.type, l->columns, 8,
                       gpu_put(g, l->chosen + first, choices),
                       gpu_put(g, l->weight + first, choices), PER_ROW, &room));
    gpu_take(g, sum, y, (size_t)(n * HIDDEN) * sizeof(*y));
}

static void sum_here(struct layer *l, int64_t *sum)
{
    struct help *h = &l->h;
    struct mat y = {l->x.n, HIDDEN, NUM_I64, sum};
    const int choices = l->x.n * PER_ROW;
    struct routed r = {.n = l->x.n,
                       .top = PER_ROW,
                       .expert = help_bytes(h, (size_t)choices * sizeof(int)),
                       .weight = help_bytes(h, (size_t)choices * sizeof(float))};
    for (int i = 0; i < choices; i++) { /* the CPU has no choice that is not here: it adds zeros */
        const bool here = 0 <= l->chosen[i] && l->chosen[i] < EXPERTS;
        r.expert[i] = here ? l->chosen[i] : 0;
        r.weight[i] = here ? l->weight[i] : 0;
    }
    struct expert_room room = {.x = help_mat(h, l->x.n, HIDDEN + EXPERT_PAD),
                               .hidden =
                                   help_mat(h, choices + 1, l->columns + EXPERT_PAD * SHARES_MAX),
                               .row = help_bytes(h, (size_t)choices * sizeof(int)),
                               .weight = help_bytes(h, (size_t)choices * sizeof(float))};
    dev_experts(&h->dev[ISA_REF], &y, &l->x, l->expert, EXPERTS, &r, &room);
}

/* One product of the GPU's, its result on the host. */
static void product(struct gpu *g, struct layer *l, const struct mat *x, const struct weight *w,
                    struct mat *y)
{
    struct gpu_room room = {gpu_put(g, NULL, ROOM), ROOM, 4, 0};
    struct gpu_term term = {gpu_put(g, NULL, mat_bytes(y)), gpu_put_weight(g, w), NULL};
    (void)l;
    gpu_ok(gpu_products(g->stream, gpu_put_mat(g, x), x->n, x->dim, &term, 1, &room));
    gpu_take(g, y->at, term.y, mat_bytes(y));
}

/* The sums of experts by the GPU's own products, expert by expert and share by share. */
static void sum_by_products(struct gpu *g, struct layer *l, int64_t *sum)
{
    memset(sum, 0, (size_t)(l->x.n * HIDDEN) * sizeof(*sum));
    for (int e = 0; e < EXPERTS; e++) {
        const struct expert *one = &l->expert[e];
        struct mat gate = help_mat(&l->h, l->x.n, one->gate.rows), up = help_copy(&l->h, &gate);
        product(g, l, &l->x, &one->gate, &gate);
        product(g, l, &l->x, &one->up, &up);
        dev_swiglu(&l->h.dev[ISA_REF], &gate, &up);
        for (int s = 0, col = 0; s < one->down.n_part; col += one->down.part[s++].cols) {
            const struct part *p = &one->down.part[s];
            struct weight share = {one->down.type, HIDDEN, p->cols, 0, 1, p, NULL};
            struct mat x = help_columns(&l->h, &gate, col, p->cols);
            struct mat leaf = help_mat(&l->h, l->x.n, HIDDEN);
            if (p->cols)
                product(g, l, &x, &share, &leaf);
            for (int i = 0; p->cols && i < l->x.n * PER_ROW; i++)
                for (int k = 0; l->chosen[i] == e && k < HIDDEN; k++) {
                    int64_t *to = &sum[i / PER_ROW * HIDDEN + k];
                    *to = whole_add(*to, whole_of(l->weight[i] * mat_row(&leaf, i / PER_ROW)[k]));
                }
            gpu_drop(g);
        }
    }
}

static void assert_same_sums(const int64_t *got, const int64_t *want, int n)
{
    for (int i = 0; i < n * HIDDEN; i++)
        if (got[i] != want[i]) {
            print_error("row %d, number %d: %lld, not %lld\n", i / HIDDEN, i % HIDDEN,
                        (long long)got[i], (long long)want[i]);
            assert_int_equal(got[i], want[i]);
        }
}

static void experts_are_the_reference_bit_by_bit(void **state)
{
    (void)state;
    static const int rows[] = {1, 2, 9, 40, 70}; /* streamed; in tiles of 32 and of 64 rows */
    struct gpu g = gpu_help_begin();
    for (size_t i = 0; i < COUNT(types) * COUNT(rows); i++) {
        struct layer l;
        const enum num type = types[i % COUNT(types)];
        const int n = rows[i / COUNT(types)];
        int64_t got[ROWS_MOST * HIDDEN], want[ROWS_MOST * HIDDEN];
        layer_begin(&l, type, n, i);
        if (type == NUM_BF16 || type == NUM_FP8)
            sum_by_products(&g, &l, want);
        else
            sum_here(&l, want);
        sum_there(&g, &l, put_experts(&g, &l), (struct span){0, n}, ROOM, got);
        assert_same_sums(got, want, n);
        gpu_drop(&g);
        help_end(&l.h);
    }
}

/* Alone, a few at a time because that is all the room there is, and all at once. */
static void a_rows_sum_depends_on_no_other_row(void **state)
{
    (void)state;
    struct gpu g = gpu_help_begin();
    for (size_t i = 0; i < COUNT(types); i++) {
        struct layer l;
        int64_t all[ROWS_MOST * HIDDEN], some[ROWS_MOST * HIDDEN];
        layer_begin(&l, types[i], ROWS_MOST, 99 + i);
        sum_there(&g, &l, put_experts(&g, &l), (struct span){0, ROWS_MOST}, ROOM, all);
        gpu_drop(&g);
        sum_there(&g, &l, put_experts(&g, &l), (struct span){0, ROWS_MOST}, 100 << 10, some);
        assert_same_sums(some, all, ROWS_MOST);
        gpu_drop(&g);
        for (int row = 0; row < 12; row++) {
            sum_there(&g, &l, put_experts(&g, &l), (struct span){row, row + 1}, ROOM, some);
            assert_same_sums(some, all + row * HIDDEN, 1);
            gpu_drop(&g);
        }
        help_end(&l.h);
    }
}

static void a_row_that_is_out_of_range_is_none_and_no_other(void **state)
{
    (void)state;
    static const float odd[] = {INFINITY, NAN, 1e30f};
    struct gpu g = gpu_help_begin();
    for (size_t i = 0; i < COUNT(odd); i++) {
        struct layer l;
        int64_t got[9 * HIDDEN], want[9 * HIDDEN];
        layer_begin(&l, NUM_F32, 9, 7);
        for (int c = 0; c < 9 * PER_ROW; c++)
            l.chosen[c] = c % EXPERTS;
        mat_row(&l.x, 4)[11] = odd[i];
        sum_here(&l, want);
        sum_there(&g, &l, put_experts(&g, &l), (struct span){0, 9}, ROOM, got);
        assert_same_sums(got, want, 9);
        assert_true(got[4 * HIDDEN] == WHOLE_NONE && got[3 * HIDDEN] != WHOLE_NONE);
        gpu_drop(&g);
        help_end(&l.h);
    }
}

static void too_little_room_for_one_row_is_an_error(void **state)
{
    (void)state;
    struct gpu g = gpu_help_begin();
    struct layer l;
    layer_begin(&l, NUM_F32, 1, 7);
    struct gpu_room room = {gpu_put(&g, NULL, 64), 64, 4, 0};
    assert_int_not_equal(gpu_experts(g.stream, NULL, NULL, 1, HIDDEN, put_experts(&g, &l), EXPERTS,
                                     NUM_F32, l.columns, 8, NULL, NULL, PER_ROW, &room),
                         0);
    gpu_drop(&g);
    help_end(&l.h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routing_is_the_reference_bit_by_bit),
        cmocka_unit_test(every_choice_is_dealt_to_one_run_that_holds_it),
        cmocka_unit_test(what_all_hold_is_shared_out_evenly),
        cmocka_unit_test(experts_are_the_reference_bit_by_bit),
        cmocka_unit_test(a_rows_sum_depends_on_no_other_row),
        cmocka_unit_test(a_row_that_is_out_of_range_is_none_and_no_other),
        cmocka_unit_test(too_little_room_for_one_row_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
