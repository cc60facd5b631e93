/* text.c - how fast a tokenizer loads and encodes: tandem-bench-text FOLDER FILE. The file is
 * encoded whole, and again line by line as many prompts; the best of some turns counts. */
#include "base/base.h"
#include "text/tok.h"

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

int main(int argc, char **argv)
{
    struct err e;
    size_t n = 0;
    char *s = argc == 3 ? read_all(argv[2], &n) : NULL;
    if (!n) {
        fprintf(stderr, "usage: tandem-bench-text FOLDER FILE\n");
        return 2;
    }
    int rc = measure(argv[1], s, n, &e);
    if (rc)
        fprintf(stderr, "%s\n", e.text);
    free(s);
    return rc ? 1 : 0;
}
