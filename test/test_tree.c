/* test_tree.c - the tree of base/tree.h: runs fall into complete subtrees, and the program compiled
 * by comm/sum.c is the balanced tree, whoever holds what. */
#include "comm/sum.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void a_run_falls_into_complete_subtrees_in_order(void **state)
{
    (void)state;
    for (int lo = 0; lo <= SHARES_MAX; lo++)
        for (int hi = lo; hi <= SHARES_MAX; hi++) {
            struct span tree[2 * SHARES_MAX];
            int n = tree_split((struct span){lo, hi}, tree), at = lo;
            assert_in_range(n, 0, PLANES);
            for (int i = 0; i < n; i++) {
                int size = len(tree[i]);
                assert_int_equal(tree[i].lo, at);
                assert_true(size > 0 && (size & (size - 1)) == 0 && tree[i].lo % size == 0);
                at = tree[i].hi;
            }
            assert_int_equal(at, hi);
        }
}

/* Two neighbours that are the halves of one subtree would be one plane too many. */
static void no_run_falls_into_more_subtrees_than_it_must(void **state)
{
    (void)state;
    for (int lo = 0; lo <= SHARES_MAX; lo++)
        for (int hi = lo; hi <= SHARES_MAX; hi++) {
            struct span tree[2 * SHARES_MAX];
            int n = tree_split((struct span){lo, hi}, tree);
            for (int i = 0; i + 1 < n; i++)
                assert_false(len(tree[i]) == len(tree[i + 1]) &&
                             tree[i].lo % (2 * len(tree[i])) == 0);
        }
}

/* Leaves of very different size, so that every other order of adding shows in the bits. */
static float leaf(int share, int i)
{
    uint32_t x = (uint32_t)(share * 977 + i * 131 + 7) * 2654435761u;
    return (float)(int32_t)x * 0x1p-31f * (float)(1 << (x >> 5 & 15));
}

static float tree_sum(int lo, int hi, int i)
{
    int mid = (lo + hi) / 2;
    return hi - lo == 1 ? leaf(lo, i) : tree_sum(lo, mid, i) + tree_sum(mid, hi, i);
}

enum { NUMBERS = 1100 }; /* more than two strips, and a tail */

static void check(int size, const int *cut)
{
    static float plane[SHARES_MAX][NUMBERS], to[NUMBERS];
    const float *at[SHARES_MAX];
    struct sum_program p;
    int n = 0;

    sum_compile(&p, size, cut);
    for (int r = 0; r < size; r++) {
        struct span tree[PLANES];
        int planes = tree_split((struct span){cut[r], cut[r + 1]}, tree);
        assert_int_equal(p.planes_of[r], planes);
        for (int k = 0; k < planes; k++, n++)
            for (int i = 0; i < NUMBERS; i++)
                plane[n][i] = tree_sum(tree[k].lo, tree[k].hi, i);
    }
    assert_int_equal(p.n_plane, n);
    for (int k = 0; k < n; k++)
        at[k] = plane[k];
    memset(to, 0x55, sizeof(to));
    sum_run(&p, to, at, 3, NUMBERS - 5);
    for (int i = 0; i < NUMBERS; i++) {
        float want = tree_sum(0, cut[size], i);
        if (i < 3 || i >= NUMBERS - 5)
            memset(&want, 0x55, sizeof(want)); /* outside [lo, hi) nothing is written */
        assert_memory_equal(&to[i], &want, sizeof(want));
    }
}

static void even_and_uneven_cuts_add_up_to_the_balanced_tree(void **state)
{
    (void)state;
    for (int shares = 1; shares <= SHARES_MAX; shares *= 2)
        for (int size = 1; size <= 9; size++) {
            int even[10], steep[10];
            for (int r = 0; r <= size; r++) {
                even[r] = r * shares / size;
                steep[r] = r * r * shares / (size * size);
            }
            check(size, even);
            check(size, steep);
        }
}

/* All ways to cut 8 shares in 4 runs, empty ones too. */
static void every_cut_of_eight_shares_adds_up_to_the_balanced_tree(void **state)
{
    (void)state;
    for (int a = 0; a <= 8; a++)
        for (int b = a; b <= 8; b++)
            for (int c = b; c <= 8; c++)
                check(4, (int[]){0, a, b, c, 8});
}

static void the_order_of_adding_shows_in_the_test_data(void **state)
{
    int differ = 0;
    (void)state;
    for (int i = 0; i < NUMBERS; i++) {
        float ascending = 0;
        for (int s = 0; s < 8; s++)
            ascending += leaf(s, i);
        differ += ascending != tree_sum(0, 8, i);
    }
    assert_true(differ > NUMBERS / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_falls_into_complete_subtrees_in_order),
        cmocka_unit_test(no_run_falls_into_more_subtrees_than_it_must),
        cmocka_unit_test(even_and_uneven_cuts_add_up_to_the_balanced_tree),
        cmocka_unit_test(every_cut_of_eight_shares_adds_up_to_the_balanced_tree),
        cmocka_unit_test(the_order_of_adding_shows_in_the_test_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
