/* dev_help.h - for tests of devices: one device per instruction set of this machine, random numbers
 * of the nasty sort, and comparison by bits. */
#ifndef TANDEM_DEV_HELP_H
#define TANDEM_DEV_HELP_H

#include "dev/dev.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct help {
    struct dev dev[ISA_COUNT]; /* those that isa_here() */
    struct pool pool;          /* lives until help_end() */
    uint64_t seed;
};

/* n bytes aligned as weights and caches are. */
static inline void *help_bytes(struct help *h, size_t n)
{
    char *at = pool_get(&h->pool, n + 64);
    return at + (64 - (uintptr_t)at % 64) % 64;
}

static inline struct help help_begin(int max_tok, int max_dim)
{
    struct help h = {.seed = 7};
    for (int i = 0; i < ISA_COUNT; i++) {
        struct arena a = {0};
        if (!isa_here((enum isa)i))
            continue;
        dev_cpu_init(&h.dev[i], (enum isa)i, max_tok, max_dim, 1, &a);
        a = (struct arena){.base = help_bytes(&h, a.used), .size = a.used};
        memset(a.base, 0xff, a.size); /* NaN: nothing may count on what scratch holds */
        dev_cpu_init(&h.dev[i], (enum isa)i, max_tok, max_dim, 1, &a);
    }
    return h;
}

static inline void help_end(struct help *h) { pool_free(&h->pool); }

/* 0 .. below - 1. */
static inline int help_draw(struct help *h, int below)
{
    h->seed = h->seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((h->seed >> 33) % (unsigned)below);
}

/* Mostly of the order of one; now and then a zero of either sign, tiny, subnormal, or large. */
static inline float help_number(struct help *h)
{
    float f = (float)(help_draw(h, 2000001) - 1000000) * 1e-6f;
    switch (help_draw(h, 40)) {
    case 0: return 0.0f;
    case 1: return -0.0f;
    case 2: return f * 1e-30f;
    case 3: return f * 1e-39f;
    case 4: return f * 100;
    default: return f;
    }
}

static inline struct mat help_mat(struct help *h, int n, int dim)
{
    struct mat m = {n, dim, NUM_F32, NULL};
    m.at = help_bytes(h, mat_bytes(&m));
    for (int i = 0; i < n * dim; i++)
        ((float *)m.at)[i] = help_number(h);
    return m;
}

static inline struct mat help_copy(struct help *h, const struct mat *from)
{
    struct mat m = *from;
    m.at = help_bytes(h, mat_bytes(&m));
    memcpy(m.at, from->at, mat_bytes(&m));
    return m;
}

static inline struct mat help_columns(struct help *h, const struct mat *from, int col, int n)
{
    struct mat m = help_mat(h, from->n, n);
    for (int i = 0; i < from->n; i++)
        memcpy(mat_row(&m, i), mat_row(from, i) + col, (size_t)n * sizeof(float));
    return m;
}

/* Uneven sizes of n parts of `total`; some may be 0. */
static inline void help_sizes(struct help *h, int total, int n, int *size)
{
    for (int i = 0; i < n; total -= size[i++])
        size[i] = i == n - 1 ? total : help_draw(h, 2 * total / (n - i) + 1);
}

/* A matrix cut into n_part parts of these sizes, one after the other in memory. */
static inline struct weight help_cut(struct help *h, enum num type, enum cut cut,
                                     const struct mat *m, int first, int n_part, const int *size)
{
    struct part *part = pool_get(&h->pool, (size_t)n_part * sizeof(*part));
    char *at = help_bytes(h, 64 * (size_t)n_part + sizeof(float) * (size_t)(m->n + 16 * n_part) *
                                                       (size_t)(m->dim + 8 * n_part));
    for (int i = 0, lo = 0; i < n_part; lo += size[i++]) {
        bool cols = cut == CUT_COLS;
        part[i] = cols ? (struct part){m->n, size[i], at} : (struct part){size[i], m->dim, at};
        const float *src = cols ? mat_row(m, 0) + lo : mat_row(m, lo);
        struct stored from = {.at = src, .type = NUM_F32, .stride = (size_t)m->dim};
        must(!part_pack(&part[i], type, &from));
        at += part_bytes(type, part[i].rows, part[i].cols);
    }
    return (struct weight){type, m->n, m->dim, first, n_part, part, NULL};
}

/* A random matrix cut into n_part parts of uneven sizes. */
static inline struct weight help_weight(struct help *h, enum num type, enum cut cut, int rows,
                                        int cols, int first, int n_part)
{
    int size[SHARES_MAX];
    struct mat m = help_mat(h, rows, cols);
    help_sizes(h, cut == CUT_COLS ? cols : rows, n_part, size);
    return help_cut(h, type, cut, &m, first, n_part, size);
}

/* Prints the first number that differs. */
static inline void assert_same(const struct mat *got, const struct mat *want)
{
    assert_int_equal(mat_bytes(got), mat_bytes(want));
    for (int t = 0; t < got->n; t++)
        for (int i = 0; i < got->dim; i++) {
            float a = mat_row(got, t)[i], b = mat_row(want, t)[i];
            if (memcmp(&a, &b, sizeof(a)) != 0)
                print_error("row %d of %d, number %d of %d: %a, not %a\n", t, got->n, i, got->dim,
                            (double)a, (double)b);
            assert_memory_equal(&a, &b, sizeof(a));
        }
}

#endif
