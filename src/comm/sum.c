/* sum.c - see sum.h. */
#include "comm/sum.h"

enum {
    /* Floats added at a time. Terms on the stack stay in the first-level cache, and runs are long
     * enough that the hardware sees each plane as a stream. */
    STRIP = 512,
    DEPTH = 6, /* terms on the stack at once: log2(SHARES_MAX) + 1 */
};

/* ------------------------------------------------------------------------------- compile */

/* The tree over shares [lo, hi), down to the subtrees that some rank holds. */
static void compile(struct sum_program *p, const struct span *tree, int lo, int hi)
{
    for (int i = 0; i < p->n_plane; i++)
        if (tree[i].lo == lo && tree[i].hi == hi) {
            p->step[p->n_step++] = (int8_t)i;
            return;
        }
    must(hi - lo > 1);
    compile(p, tree, lo, (lo + hi) / 2);
    compile(p, tree, (lo + hi) / 2, hi);
    p->step[p->n_step++] = SUM_ADD;
}

void sum_compile(struct sum_program *p, int size, const int *cut)
{
    struct span tree[SHARES_MAX];
    int shares = cut[size];

    must(0 < size && size <= SHARES_MAX && cut[0] == 0);
    must(0 < shares && shares <= SHARES_MAX && (shares & (shares - 1)) == 0);
    *p = (struct sum_program){.size = size};
    for (int r = 0; r < size; r++) {
        must(cut[r] <= cut[r + 1] && cut[r + 1] <= shares);
        p->planes_of[r] = tree_split((struct span){cut[r], cut[r + 1]}, tree + p->n_plane);
        must(p->planes_of[r] <= PLANES);
        p->n_plane += p->planes_of[r];
    }
    compile(p, tree, 0, shares);
    must(p->n_step == 2 * p->n_plane - 1);
}

void sum_adds(const struct sum_program *p, uint8_t *adds)
{
    int plane = -1;
    for (int i = 0; i < p->n_step; i++) {
        if (p->step[i] == SUM_ADD) {
            adds[plane]++;
            continue;
        }
        must(p->step[i] == plane + 1);
        adds[++plane] = 0;
    }
}

/* ------------------------------------------------------------------------------- run */

/* Eight floats anywhere; the compiler makes of it what the instruction set has. At -O2 gcc leaves
 * the plain loop scalar. */
typedef float float8 __attribute__((vector_size(32), aligned(4), may_alias));

static void add(float *to, const float *a, const float *b, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        float8 *y = (float8 *)(to + i);
        const float8 *u = (const float8 *)(a + i), *v = (const float8 *)(b + i);
        y[0] = u[0] + v[0];
        y[1] = u[1] + v[1];
    }
    for (; i < n; i++)
        to[i] = a[i] + b[i];
}

static void run_strip(const struct sum_program *p, float *to, const float *const *plane, size_t at,
                      size_t n)
{
    _Alignas(64) float room[DEPTH][STRIP];
    const float *stack[DEPTH];
    int top = 0;

    for (int i = 0; i < p->n_step; i++) {
        if (p->step[i] != SUM_ADD) {
            stack[top++] = plane[p->step[i]] + at;
            continue;
        }
        top--;
        float *sum = i + 1 < p->n_step ? room[top - 1] : to;
        add(sum, stack[top - 1], stack[top], n);
        stack[top - 1] = sum;
    }
    if (stack[0] != to) /* one rank holds all shares */
        memcpy(to, stack[0], n * sizeof(*to));
}

void sum_run(const struct sum_program *p, float *to, const float *const *plane, size_t lo,
             size_t hi)
{
    for (size_t at = lo; at < hi; at += STRIP)
        run_strip(p, to + at, plane, at, hi - at < STRIP ? hi - at : STRIP);
}
