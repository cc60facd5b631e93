/* text.c - how fast a tokenizer loads and encodes: tandem-bench-text FOLDER FILE. The file is
 * encoded whole, and again line by line as many prompts; the best of some turns counts. And what
 * structured output costs: tandem-bench-text FOLDER --schema FILE TEXT, where the text fits the
 * schema: times of compiling, and of the mask before each token of the text. */
#include "base/base.h"
#include "text/grammar.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

enum { TURNS = 5, FILE_MOST = 1 << 30 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static char *read_all(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *s = f ? malloc(FILE_MOST) : NULL;
    *n = s ? fread(s, 1, FILE_MOST, f) : 0;
    if (f)
        fclose(f);
    return s;
}

/* Ids of the text, whole or line by line; their number and a sum, to compare with others. */
static int encode(const struct tok *t, const char *s, size_t n, bool lines, size_t *ids,
                  uint64_t *sum, struct err *e)
{
    *ids = 0, *sum = 0;
    for (size_t at = 0; at < n;) {
        const char *end = lines ? memchr(s + at, '\n', n - at) : NULL;
        size_t k, length = end ? (size_t)(end - s) + 1 - at : n - at;
        int *id;
        int rc = tok_encode(t, s + at, length, TOK_PARSE, &id, &k, e);
        if (rc)
            return rc;
        for (size_t i = 0; i < k; i++)
            *sum = *sum * 31 + (uint64_t)id[i];
        *ids += k;
        free(id);
        at += length;
    }
    return 0;
}

static int measure(const char *folder, const char *s, size_t n, struct err *e)
{
    struct tok *t = NULL;
    double load = INFINITY;
    for (int i = 0; i < TURNS; i++) {
        tok_free(t);
        double start = now();
        int rc = tok_load(folder, &t, e);
        if (rc)
            return rc;
        load = fmin(load, now() - start);
    }
    printf("%-28s load %6.1f ms", folder, 1e3 * load);
    for (int lines = 0; lines < 2; lines++) {
        double best = INFINITY;
        size_t ids = 0;
        uint64_t sum = 0;
        for (int i = 0; i < TURNS; i++) {
            double start = now();
            int rc = encode(t, s, n, lines, &ids, &sum, e);
            if (rc)
                return rc;
            best = fmin(best, now() - start);
        }
        printf("  %s %6.2f MB/s (%zu ids, sum %08x)", lines ? "lines" : "whole",
               1e-6 * (double)n / best, ids, (unsigned)sum);
    }
    printf("\n");
    tok_free(t);
    return 0;
}

/* ------------------------------------------------------------------------------- grammars */

static int by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void print_times(const char *what, double *us, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += us[i];
    qsort(us, (size_t)n, sizeof(*us), by_size);
    printf("%-12s mean %8.1f us  median %8.1f  p90 %8.1f  worst %8.1f\n", what, sum / n, us[n / 2],
           us[n * 9 / 10], us[n - 1]);
}

/* The first turn meets every state for the first time, the last has them all. */
static int measure_masks(struct grammar *g, const struct tok *t, const int *id, int n)
{
    uint64_t *allow = calloc(((size_t)tok_n_vocab(t) + 63) / 64, sizeof(*allow));
    double *us = calloc((size_t)n, sizeof(*us));
    for (int i = 0; i < TURNS; i++) {
        struct matcher *m = matcher_new(g);
        for (int k = 0; k < n; k++) {
            double start = now();
            matcher_mask(m, allow);
            us[k] = 1e6 * (now() - start);
            if (!matcher_take(m, &id[k], 1)) {
                fprintf(stderr, "token %d of the text does not fit the schema\n", k);
                return 1;
            }
        }
        if (i == 0 || i == TURNS - 1)
            print_times(i ? "mask again" : "mask first", us, n);
        matcher_free(m);
    }
    free(us);
    free(allow);
    return 0;
}

static int measure_grammar(const char *folder, const char *schema_path, const char *text_path)
{
    struct err e;
    struct tok *t;
    struct grammar *g = NULL;
    size_t n_schema, n_text, n_id = 0;
    int *id, rc, eos;
    char *schema = read_all(schema_path, &n_schema), *text = read_all(text_path, &n_text);
    if (tok_load(folder, &t, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    eos = tok_eos(t);
    double start = now();
    struct grammar_vocab *v = grammar_vocab_new(t, tok_n_vocab(t), &eos, 1);
    printf("%s, %d tokens: tree in %.1f ms\n", folder, tok_n_vocab(t), 1e3 * (now() - start));
    struct grammar_spec spec = {
        .kind = GRAMMAR_SCHEMA, .text = schema, .n_text = n_schema, .blanks = 1};
    double us[TURNS];
    for (int i = 0; i < TURNS; i++) {
        grammar_free(g);
        start = now();
        rc = grammar_new(&spec, v, &g, &e);
        us[i] = 1e6 * (now() - start);
        if (rc) {
            fprintf(stderr, "%s\n", e.text);
            return 1;
        }
    }
    print_times("compile", us, TURNS);
    rc = tok_encode(t, text, n_text, 0, &id, &n_id, &e);
    rc = rc ? rc : measure_masks(g, t, id, (int)n_id);
    grammar_free(g);
    grammar_vocab_free(v);
    tok_free(t);
    free(schema);
    free(text);
    free(id);
    return rc ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct err e;
    size_t n = 0;
    if (argc == 5 && !strcmp(argv[2], "--schema"))
        return measure_grammar(argv[1], argv[3], argv[4]);
    char *s = argc == 3 ? read_all(argv[2], &n) : NULL;
    if (!n) {
        fprintf(stderr, "usage: tandem-bench-text FOLDER FILE | FOLDER --schema FILE TEXT\n");
        return 2;
    }
    int rc = measure(argv[1], s, n, &e);
    if (rc)
        fprintf(stderr, "%s\n", e.text);
    free(s);
    return rc ? 1 : 0;
}
