/* test_gpu_experts.c - routing and experts on the model of a GPU (cuda_model.h): the reference's
 * bits, whatever they are given.
 */
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
                     gated ? gpu_put_mat(g, &gate) : NULL, renorm));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routing_is_the_reference_bit_by_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
