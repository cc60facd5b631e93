/* test_gpu_wgmma.c - products and attention by warpgroups have the bits of those without, on the
 * model of a GPU, and the check of a GPU says so. */
#include "gpu_scene.h"

enum { MOST_ROWS = 420, MOST_DIM = 1400 };

struct both {
    struct help host;
    struct gpu gpu;
    struct gpu_room room;
};

/* Many multiprocessors make a product one of a batch, few one of a prompt. */
static struct both begin(int seed, int sm)
{
    const struct gpu_sizes sizes = {
        .max_tok = MOST_ROWS, .max_dim = MOST_DIM, .heads = 1, .head_dim = 16, .ctx = 16, .sm = 8};
    struct both b = {help_begin(MOST_ROWS, MOST_DIM), gpu_help_begin(), {0}};
    b.host.seed += (uint64_t)seed;
    b.room = (struct gpu_room){NULL, gpu_room_bytes(&sizes), sm, 0};
    return b;
}

static void end(struct both *b)
{
    gpu_drop(&b->gpu);
    help_end(&b->host);
}

static struct mat product(struct both *b, const struct mat *x, const struct weight *w,
                          const struct mat *bias, bool warpgroups)
{
    struct mat y = help_mat(&b->host, x->n, w->rows);
    struct gpu_term term = {.y = gpu_put(&b->gpu, NULL, mat_bytes(&y)),
                            .w = gpu_put_weight(&b->gpu, w),
                            .bias = bias ? gpu_put_mat(&b->gpu, bias) : NULL};
    b->room.at = gpu_put(&b->gpu, NULL, b->room.bytes);
    b->room.warpgroups = warpgroups ? WARPGROUP_PRODUCTS : 0;
    gpu_ok(gpu_products(b->gpu.stream, gpu_put_mat(&b->gpu, x), x->n, x->dim, &term, 1, &b->room));
    gpu_take(&b->gpu, y.at, term.y, mat_bytes(&y));
    gpu_drop(&b->gpu);
    return y;
}

static struct planes planes(struct both *b, const struct mat *x, const struct weight *w,
                            bool warpgroups)
{
    struct span tree[PLANES];
    struct planes y = {.n = tree_split((struct span){w->first, w->first + w->n_part}, tree)};
    const struct gpu_weight on = gpu_put_weight(&b->gpu, w);
    float *plane[GPU_PLANES];
    for (int i = 0; i < y.n; i++) {
        y.at[i] = help_mat(&b->host, x->n, w->rows);
        plane[i] = gpu_put(&b->gpu, NULL, mat_bytes(&y.at[i]));
    }
    b->room.at = gpu_put(&b->gpu, NULL, b->room.bytes);
    b->room.warpgroups = warpgroups ? WARPGROUP_PRODUCTS : 0;
    gpu_ok(gpu_partial(b->gpu.stream, plane, y.n, gpu_put_mat(&b->gpu, x), x->n, &on, &b->room));
    for (int i = 0; i < y.n; i++)
        gpu_take(&b->gpu, y.at[i].at, plane[i], mat_bytes(&y.at[i]));
    gpu_drop(&b->gpu);
    return y;
}

static const struct shape {
    int rows, cols, outputs, parts, sm;
} SHAPES[] = {
    {17, 64, 32, 1, 1000},  {33, 300, 200, 3, 1000}, {64, 1056, 130, 1, 1000},
    {70, 31, 257, 2, 1000}, {140, 514, 48, 1, 1000}, {20, 96, 300, 1, 2},
    {200, 257, 140, 1, 2},  {100, 1399, 40, 2, 2},   {400, 320, 520, 3, 2},
};

static void products_by_warpgroups_have_the_bits_of_products_without(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(SHAPES); i++) {
        const struct shape s = SHAPES[i];
        struct both b = begin((int)i, s.sm);
        const struct mat x = help_mat(&b.host, s.rows, s.cols);
        const struct weight w =
            help_weight(&b.host, NUM_BF16, CUT_ROWS, s.outputs, s.cols, 0, s.parts);
        const struct mat bias = help_mat(&b.host, 1, w.rows);
        const struct mat want = product(&b, &x, &w, i % 2 ? &bias : NULL, false);
        const struct mat got = product(&b, &x, &w, i % 2 ? &bias : NULL, true);
        assert_same(&got, &want);
        end(&b);
    }
}

static void shares_summed_by_warpgroups_are_joined_by_the_tree(void **state)
{
    static const struct span shares[] = {{0, 8}, {3, 8}, {5, 6}, {1, 15}, {0, 32}, {2, 4}};
    (void)state;
    for (size_t i = 0; i < COUNT(shares); i++)
        for (int few = 0; few < 2; few++) {
            struct both b = begin((int)i, few ? 2 : 1000);
            const struct mat x = help_mat(&b.host, few ? 210 : 20 + 30 * (int)i, 1 + 150 * (int)i);
            const struct weight w = help_weight(&b.host, NUM_BF16, CUT_COLS, few ? 150 : 40, x.dim,
                                                shares[i].lo, len(shares[i]));
            const struct planes want = planes(&b, &x, &w, false), got = planes(&b, &x, &w, true);
            for (int k = 0; k < got.n; k++)
                assert_same(&got.at[k], &want.at[k]);
            end(&b);
        }
}

static const struct prompt {
    int head_dim, group, q_first, window, n_head, n_seq, length[3], asks[3];
} PROMPTS[] = {
    {128, 4, 0, 0, 8, 1, {300}, {180}},
    {128, 1, 0, 0, 2, 2, {700, 130}, {150, 1}},
    {64, 4, 4, 0, 7, 3, {600, 45, 260}, {20, 45, 66}},
    {60, 3, 2, 190, 5, 2, {900, 130}, {40, 30}},
    {116, 8, 0, 40, 8, 2, {200, 70}, {9, 70}},
};

static void attention_by_warpgroups_has_the_bits_of_attention_without(void **state)
{
    struct gpu g = gpu_help_begin();
    (void)state;
    for (size_t i = 0; i < COUNT(PROMPTS); i++) {
        const struct prompt p = PROMPTS[i];
        const struct heads heads = {.head_dim = p.head_dim,
                                    .group = p.group,
                                    .q_first = p.q_first,
                                    .kv_first = p.q_first / p.group,
                                    .window = p.window,
                                    .scale = 0.17f};
        struct scene s = make_wide(NUM_BF16, heads, p.n_head, p.n_seq, p.length, p.asks, i, 256);
        struct there at = put_scene(&g, &s);
        attend(&g, &s, &at, (struct span){0, s.q.n});
        const struct mat want = take_rows(&g, &s, &at);
        at.room.warpgroups = WARPGROUP_ATTENTION;
        attend(&g, &s, &at, (struct span){0, s.q.n});
        const struct mat got = take_rows(&g, &s, &at);
        assert_same(&got, &want);
        gpu_drop(&g);
        help_end(&s.h);
    }
}

static void the_check_finds_that_bits_are_the_same(void **state)
{
    bool products = false, attention = false;
    (void)state;
    gpu_ok(gpu_check_products(&products));
    gpu_ok(gpu_check_attention(&attention));
    assert_true(products && attention);
}

int main(void)
{
    struct gpu_about about;
    if (!gpu_about(0, &about) && about.arch != 90) {
        printf("skipped: the GPU is not of compute capability 9.0\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_by_warpgroups_have_the_bits_of_products_without),
        cmocka_unit_test(shares_summed_by_warpgroups_are_joined_by_the_tree),
        cmocka_unit_test(attention_by_warpgroups_has_the_bits_of_attention_without),
        cmocka_unit_test(the_check_finds_that_bits_are_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
