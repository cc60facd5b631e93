/* test_gpu_products.c - the GPU's products: bits of the CPU's reference, or, for bf16, of what
 * dev/cuda/product.h defines. */
#include "gpu_help.h"

#include <math.h>

static const enum num TYPES[] = {NUM_F32,      NUM_F16,      NUM_BF16,      NUM_INT8,      NUM_INT4,
                                 NUM_INT8_G32, NUM_INT4_G32, NUM_INT4_G32Z, NUM_INT4_G128, NUM_FP8};
static const int ROWS[] = {1, 7, 8, 9, 16, 33, 130};
enum { MOST_ROWS = 130, MOST_DIM = 1400 };

struct both {
    struct help host;
    struct gpu gpu;
};

static struct both begin(void)
{
    return (struct both){help_begin(MOST_ROWS, MOST_DIM), gpu_help_begin()};
}

static void end(struct both *h)
{
    gpu_drop(&h->gpu);
    help_end(&h->host);
}

static struct gpu_room room_for(struct both *h)
{
    struct gpu_sizes sizes = {
        .max_tok = MOST_ROWS, .max_dim = MOST_DIM, .heads = 1, .head_dim = 16, .ctx = 16, .sm = 4};
    /* the more multiprocessors, the smaller tiles are chosen */
    struct gpu_room room = {NULL, gpu_room_bytes(&sizes), 1 + help_draw(&h->host, 2) * 100, 0};
    room.at = gpu_put(&h->gpu, NULL, room.bytes);
    return room;
}

/* ------------------------------------------------------------------------------- bf16, defined */

/* The same by e4m3. */
static float dot_fp8(const struct part *p, int row, const float *x)
{
    static const int order[] = {0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15};
    float w[MOST_DIM], sum = 0;
    fp8_numbers(p, row, w);
    for (int lo = 0; lo < p->cols; lo += 128) {
        float chain = 0;
        for (int i = lo; i < min_int(lo + 128, (p->cols + 63) / 64 * 64); i++) {
            int c = i / 16 * 16 + order[i % 16];
            chain += c < p->cols ? w[c] * bf16_to_f32(f32_to_bf16(x[c])) : 0.0f;
        }
        sum = fmaf(chain, fp8_scale(p, row, lo / 128), sum);
    }
    return sum;
}

/* Part times x, output `row`. */
static float dot_bf16(const struct part *p, int row, const float *x)
{
    float w[MOST_DIM], sum = 0;
    const int run = (p->cols + 255) / 256 * 32;
    part_row(p, NUM_BF16, row, w);
    for (int lo = 0; lo < p->cols; lo += run) {
        float chain = 0;
        for (int c = lo; c < lo + min_int(run, (p->cols - lo + 31) / 32 * 32); c++)
            chain += c < p->cols ? w[c] * bf16_to_f32(f32_to_bf16(x[c])) : 0.0f;
        sum = lo ? sum + chain : chain;
    }
    return sum;
}

static bool by_pairs(enum num type) { return type == NUM_BF16 || type == NUM_FP8; }

static float dot_pairs(const struct weight *w, int part, int row, const float *x)
{
    return w->type == NUM_FP8 ? dot_fp8(&w->part[part], row, x) : dot_bf16(&w->part[part], row, x);
}

static void bf16_products(const struct mat *y, const struct mat *x, const struct weight *w,
                          const struct mat *bias)
{
    for (int i = 0, at = 0; i < w->n_part; i++)
        for (int r = 0; r < w->part[i].rows; r++, at++)
            for (int t = 0; t < x->n; t++) {
                float s = dot_pairs(w, i, r, mat_row(x, t));
                mat_row(y, t)[at] = bias->n ? s + ((float *)bias->at)[at] : s;
            }
}

static float tree_of(const float *leaf, int lo, int hi)
{
    int mid = lo + (hi - lo) / 2;
    return hi - lo == 1 ? leaf[lo] : tree_of(leaf, lo, mid) + tree_of(leaf, mid, hi);
}

static void bf16_partial(const struct planes *y, const struct mat *x, const struct weight *w)
{
    struct span tree[PLANES];
    int n = tree_split((struct span){w->first, w->first + w->n_part}, tree);
    for (int r = 0; r < w->rows; r++)
        for (int t = 0; t < x->n; t++) {
            float leaf[SHARES_MAX];
            for (int i = 0, c = 0; i < w->n_part; c += w->part[i++].cols)
                leaf[i] = dot_pairs(w, i, r, mat_row(x, t) + c);
            for (int i = 0; i < n; i++)
                mat_row(&y->at[i], t)[r] =
                    tree_of(leaf, tree[i].lo - w->first, tree[i].hi - w->first);
        }
}

static void want_products(struct help *h, struct mat *y, const struct mat *x,
                          const struct weight *w, const struct mat *bias)
{
    if (by_pairs(w->type))
        bf16_products(y, x, w, bias);
    else
        dev_matmul(&h->dev[ISA_REF], y, x, w, bias);
}

static void want_partial(struct help *h, struct planes *y, const struct mat *x,
                         const struct weight *w)
{
    if (by_pairs(w->type))
        bf16_partial(y, x, w);
    else
        dev_partial(&h->dev[ISA_REF], y, x, w);
}

/* ------------------------------------------------------------------------------- on the GPU */

/* Up to three weights times x, at once; returns the products. */
static void products(struct both *h, struct mat *y, const struct mat *x, const struct weight *w,
                     const struct mat *bias, int n_term)
{
    struct gpu_term term[GPU_TERMS];
    struct gpu_room room = room_for(h);
    float *at = gpu_put_mat(&h->gpu, x);
    for (int i = 0; i < n_term; i++) {
        term[i].y = gpu_put(&h->gpu, NULL, mat_bytes(&y[i]));
        term[i].w = gpu_put_weight(&h->gpu, &w[i]);
        term[i].bias = bias[i].n ? gpu_put_mat(&h->gpu, &bias[i]) : NULL;
    }
    gpu_ok(gpu_products(h->gpu.stream, at, x->n, x->dim, term, n_term, &room));
    for (int i = 0; i < n_term; i++)
        gpu_take(&h->gpu, y[i].at, term[i].y, mat_bytes(&y[i]));
    gpu_drop(&h->gpu);
}

static void partial(struct both *h, struct planes *y, const struct mat *x, const struct weight *w)
{
    float *plane[GPU_PLANES];
    struct gpu_weight on = gpu_put_weight(&h->gpu, w);
    struct gpu_room room = room_for(h);
    for (int i = 0; i < y->n; i++)
        plane[i] = gpu_put(&h->gpu, NULL, mat_bytes(&y->at[i]));
    gpu_ok(gpu_partial(h->gpu.stream, plane, y->n, gpu_put_mat(&h->gpu, x), x->n, &on, &room));
    for (int i = 0; i < y->n; i++)
        gpu_take(&h->gpu, y->at[i].at, plane[i], mat_bytes(&y->at[i]));
    gpu_drop(&h->gpu);
}

static struct planes new_planes(struct help *h, int n, const struct weight *w)
{
    struct span tree[PLANES];
    struct planes y = {.n = tree_split((struct span){w->first, w->first + w->n_part}, tree)};
    for (int i = 0; i < y.n; i++)
        y.at[i] = help_mat(h, n, w->rows);
    return y;
}

/* ------------------------------------------------------------------------------- tests */

static void check_products(struct both *h, enum num type, int n, int cols)
{
    static const struct mat none;
    const int n_term = 1 + help_draw(&h->host, 3);
    struct mat x = help_mat(&h->host, n, cols), y[3], want[3], bias[3];
    struct weight w[3];
    for (int i = 0; i < n_term; i++) {
        const int n_part = 1 + help_draw(&h->host, 5), rows = 1 + help_draw(&h->host, 90);
        w[i] = help_weight(&h->host, type, CUT_ROWS, help_draw(&h->host, 3) ? rows : 64, cols, 0,
                           n_part);
        bias[i] = help_draw(&h->host, 2) ? help_mat(&h->host, 1, w[i].rows) : none;
        y[i] = help_mat(&h->host, n, w[i].rows);
        want[i] = help_copy(&h->host, &y[i]);
        want_products(&h->host, &want[i], &x, &w[i], &bias[i]);
    }
    products(h, y, &x, w, bias, n_term);
    for (int i = 0; i < n_term; i++)
        assert_same(&y[i], &want[i]);
}

static void products_have_the_bits_of_their_definition(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(TYPES); i++)
        for (size_t k = 0; k < COUNT(ROWS); k++) {
            struct both h = begin();
            h.host.seed += 100 * i + k;
            int cols = k % 2 ? 1 + help_draw(&h.host, 300) : 16 * (1 + help_draw(&h.host, 40));
            check_products(&h, TYPES[i], ROWS[k], k == 1 ? MOST_DIM - 7 : cols);
            end(&h);
        }
}

/* Parts in runs of outputs, uneven and of any number, and two weights that are cut differently. */
static void check_glu(struct both *h, enum num type, int n, int cols, bool alike)
{
    static const struct mat none;
    const int n_part = 1 + help_draw(&h->host, 20), rows = 16 * help_draw(&h->host, 2) + 24;
    struct mat x = help_mat(&h->host, n, cols), want[2];
    struct weight w[2];
    struct gpu_term term[2];
    struct gpu_room room = room_for(h);
    const uint64_t seed = h->host.seed;
    for (int i = 0; i < 2; i++) {
        if (alike)
            h->host.seed = seed; /* the same cuts */
        w[i] = help_weight(&h->host, type, CUT_ROWS, rows, cols, 0, n_part);
        struct mat bias = i ? help_mat(&h->host, 1, rows) : none;
        want[i] = help_mat(&h->host, n, rows);
        want_products(&h->host, &want[i], &x, &w[i], &bias);
        term[i] = (struct gpu_term){gpu_put(&h->gpu, NULL, mat_bytes(&want[i])),
                                    gpu_put_weight(&h->gpu, &w[i]),
                                    i ? gpu_put_mat(&h->gpu, &bias) : NULL};
    }
    dev_swiglu(&h->host.dev[ISA_REF], &want[0], &want[1]);
    gpu_ok(gpu_glu(h->gpu.stream, gpu_put_mat(&h->gpu, &x), n, cols, term, &room));
    gpu_same(&h->gpu, &h->host, term[0].y, &want[0]);
}

static void gated_products_have_the_bits_of_what_they_consist_of(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(TYPES); i++)
        for (size_t k = 0; k < COUNT(ROWS); k++) {
            struct both h = begin();
            h.host.seed += 100 * i + k;
            check_glu(&h, TYPES[i], ROWS[k], 1 + help_draw(&h.host, 300), k != 1);
            end(&h);
        }
}

static void check_partial(struct both *h, enum num type, int n, int first, int n_part, int cols)
{
    struct mat x = help_mat(&h->host, n, cols);
    struct weight w =
        help_weight(&h->host, type, CUT_COLS, 1 + help_draw(&h->host, 80), cols, first, n_part);
    struct planes y = new_planes(&h->host, n, &w), want = new_planes(&h->host, n, &w);
    want_partial(&h->host, &want, &x, &w);
    partial(h, &y, &x, &w);
    for (int i = 0; i < y.n; i++)
        assert_same(&y.at[i], &want.at[i]);
}

static void partial_sums_are_joined_by_the_tree(void **state)
{
    static const struct span shares[] = {{0, 8}, {3, 8}, {0, 1}, {5, 6}, {1, 15}, {0, 32}, {2, 4}};
    (void)state;
    for (size_t i = 0; i < COUNT(TYPES); i++)
        for (size_t k = 0; k < COUNT(ROWS); k++) {
            struct both h = begin();
            h.host.seed += 100 * i + k;
            check_partial(&h, TYPES[i], ROWS[k], shares[k].lo, len(shares[k]),
                          1 + help_draw(&h.host, k == 4 ? MOST_DIM : 400));
            end(&h);
        }
}

static void a_row_alone_equals_the_row_in_a_batch(void **state)
{
    static const int n[] = {4, 12, 20, 70, 130};
    static const struct mat none;
    (void)state;
    for (size_t i = 0; i < COUNT(TYPES); i++) {
        struct both h = begin();
        struct weight w = help_weight(&h.host, TYPES[i], CUT_ROWS, 75, 500, 0, 2);
        struct mat x = help_mat(&h.host, MOST_ROWS, 500), y = help_mat(&h.host, MOST_ROWS, 75);
        products(&h, &y, &x, &w, &none, 1);
        for (size_t k = 0; k < COUNT(n); k++)
            for (int row = 0; row + n[k] <= MOST_ROWS; row += 1 + n[k] / 2 + 30) {
                struct mat some = mat_rows(&x, (struct span){row, row + n[k]});
                struct mat want = mat_rows(&y, (struct span){row, row + n[k]});
                struct mat got = help_mat(&h.host, n[k], 75);
                products(&h, &got, &some, &w, &none, 1);
                assert_same(&got, &want);
            }
        end(&h);
    }
}

/* Shares of several ranks: joined by the rest of the tree they are the sum of all. */
static void cut_sums_equal_the_whole(void **state)
{
    static const int cut[] = {2, 4, 8};
    (void)state;
    for (size_t i = 0; i < COUNT(TYPES); i++)
        for (size_t k = 0; k < COUNT(cut); k++) {
            struct both h = begin();
            struct mat x = help_mat(&h.host, 5, 700);
            struct weight all = help_weight(&h.host, TYPES[i], CUT_COLS, 40, 700, 0, 8);
            struct planes whole = new_planes(&h.host, 5, &all);
            float leaf[8];
            struct planes part[8];
            partial(&h, &whole, &x, &all);
            for (int r = 0, c = 0; r < cut[k]; r++) {
                int n = 8 / cut[k], cols = 0;
                for (int s = r * n; s < (r + 1) * n; s++)
                    cols += all.part[s].cols;
                struct weight w = {TYPES[i], 40, cols, r * n, n, all.part + r * n, NULL};
                struct mat some = help_columns(&h.host, &x, c, cols);
                part[r] = new_planes(&h.host, 5, &w);
                partial(&h, &part[r], &some, &w);
                c += cols;
            }
            for (int t = 0; t < 5; t++)
                for (int o = 0; o < 40; o++) {
                    for (int r = 0; r < cut[k]; r++)
                        leaf[r] = mat_row(&part[r].at[0], t)[o];
                    float want = mat_row(&whole.at[0], t)[o], got = tree_of(leaf, 0, cut[k]);
                    assert_memory_equal(&got, &want, sizeof(got));
                }
            end(&h);
        }
}

static void bf16_is_as_near_to_the_exact_sum_as_its_roundings_allow(void **state)
{
    static const struct mat none;
    struct both h = begin();
    struct weight w = help_weight(&h.host, NUM_BF16, CUT_ROWS, 64, 1200, 0, 1);
    struct mat x = help_mat(&h.host, 20, 1200), y = help_mat(&h.host, 20, 64);
    (void)state;
    products(&h, &y, &x, &w, &none, 1);
    for (int o = 0; o < 64; o++) {
        float row[1200];
        part_row(&w.part[0], NUM_BF16, o, row);
        for (int t = 0; t < 20; t++) {
            double sum = 0, most = 0;
            for (int c = 0; c < 1200; c++) {
                double term = (double)row[c] * (double)mat_row(&x, t)[c];
                sum += term;
                most += fabs(term);
            }
            /* x is rounded by at most 2^-8 of itself; 160 + 8 sums by 2^-24 each */
            assert_true(fabs((double)mat_row(&y, t)[o] - sum) <=
                        most * (0x1p-8 + 168 * 0x1p-24) + 1e-30);
        }
    }
    end(&h);
}

static void a_number_that_is_none_spoils_its_own_row_alone(void **state)
{
    static const struct mat none;
    (void)state;
    for (size_t i = 0; i < COUNT(TYPES); i++) {
        struct both h = begin();
        struct weight w = help_weight(&h.host, TYPES[i], CUT_ROWS, 33, 100, 0, 1);
        struct mat x = help_mat(&h.host, 3, 100), y = help_mat(&h.host, 3, 33);
        mat_row(&x, 1)[99] = NAN;
        products(&h, &y, &x, &w, &none, 1);
        for (int t = 0; t < 3; t++)
            for (int o = 0; o < 33; o++)
                assert_true(isnan(mat_row(&y, t)[o]) == (t == 1));
        end(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_have_the_bits_of_their_definition),
        cmocka_unit_test(gated_products_have_the_bits_of_what_they_consist_of),
        cmocka_unit_test(partial_sums_are_joined_by_the_tree),
        cmocka_unit_test(a_row_alone_equals_the_row_in_a_batch),
        cmocka_unit_test(cut_sums_equal_the_whole),
        cmocka_unit_test(bf16_is_as_near_to_the_exact_sum_as_its_roundings_allow),
        cmocka_unit_test(a_number_that_is_none_spoils_its_own_row_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
