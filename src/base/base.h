/* base.h - the few things every file may use: must(), errors, spans.
 *
 * Control-plane functions return 0 or -errno and fill a struct err with one sentence for the
 * user. Broken promises of our own code abort through must(), which is always compiled in.
 */
#ifndef TANDEM_BASE_H
#define TANDEM_BASE_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* A broken promise of our own code: a wrong token is worse than a crash. */
#define must(cond) ((cond) ? (void)0 : must_failed(#cond, __FILE__, __LINE__))
_Noreturn void must_failed(const char *cond, const char *file, int line);

/* Why a control-plane call failed, in one sentence: what, the numbers, what to do. Lives on the
 * caller's stack; owns nothing. */
struct err {
    char text[512];
};

/* Fill e and return code (a -errno), so that a function can say: return err_set(e, -EINVAL, ...).
 */
PRINTF(3, 4) int err_set(struct err *e, int code, const char *fmt, ...);

/* Put "prefix: " before the sentence in e and return code; for callers on the way up. */
PRINTF(3, 4) int err_add(struct err *e, int code, const char *fmt, ...);

/* A half-open range of anything that can be divided: heads, rows, layers, words, tokens. */
struct span {
    int lo, hi;
};

static inline int len(struct span s) { return s.hi - s.lo; }

/* The i-th of n nearly equal shares of [0, total); the larger ones come first. */
static inline struct span share(int total, int n, int i)
{
    int q = total / n, r = total % n;
    int lo = i * q + (i < r ? i : r);
    return (struct span){lo, lo + q + (i < r)};
}

static inline int min_int(int a, int b) { return a < b ? a : b; }
static inline size_t min_size(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t max_size(size_t a, size_t b) { return a > b ? a : b; }
static inline int max_int(int a, int b) { return a > b ? a : b; }
static inline size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

#endif
