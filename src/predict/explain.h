/* explain.h - the planner's answer for people and machines: what was chosen, why, what it rests on,
 * what would change it. One set of sections, as text or Markdown; JSON; a picture of the front. */
#ifndef TANDEM_PREDICT_EXPLAIN_H
#define TANDEM_PREDICT_EXPLAIN_H

#include "predict/facts.h"

enum { ASSUMED_MOST = 16 };

/* What nobody said and was taken nevertheless. */
struct assumed {
    int n;
    char text[ASSUMED_MOST][240];
};
PRINTF(2, 3) void assume(struct assumed *a, const char *fmt, ...);

struct answer {
    const char *model; /* as the user called it */
    const struct question *question;
    const struct search *search;
    const struct facts *facts;
    const struct assumed *assumed;
    bool timeline; /* draw the pipeline */
};

/* The sections; markdown: for a file, else for a terminal. */
void explain_write(FILE *to, const struct answer *a, bool markdown);

/* {"plan": as `tandem serve --plan` takes it, "choice", "why", "tried", ...}. The caller owns it.
 */
json_t *explain_json(const struct answer *a);

/* The front of throughput against speed, as an SVG of its own. */
void explain_svg(FILE *to, const struct answer *a);

/* A table whose columns are as wide as they must be, or a Markdown table; the first row is the
 * head. cell[row * columns + column]. */
struct table {
    int columns, n; /* n: rows */
    char (*cell)[96];
    struct pool pool;
};
struct table table_begin(int columns);
PRINTF(2, 3) void table_put(struct table *t, const char *fmt, ...); /* the next cell */
void table_end(struct table *t, FILE *to, bool markdown);           /* prints and frees */

/* Parts, in files of their own. */
void explain_memory(FILE *to, const struct answer *a, bool markdown);
void explain_layouts(FILE *to, const struct answer *a, bool markdown);
void explain_experts(FILE *to, const struct answer *a, bool markdown);
json_t *explain_experts_json(const struct facts *f); /* [] of a model without */
void explain_changes(FILE *to, const struct answer *a, bool markdown);
void explain_timeline(FILE *to, const struct answer *a, bool markdown);
void explain_heading(FILE *to, const char *title, bool markdown);

#endif
