/* article.h - the claims of a widely read article on splitting Llama-3-70B, beside what this
 * planner computes. The table itself is article.def. */
#ifndef TANDEM_PREDICT_ARTICLE_H
#define TANDEM_PREDICT_ARTICLE_H

#include "base/base.h"

#include <jansson.h>

enum { ARTICLE_ROWS = 81 };
enum verdict { RIGHT, PARTLY, WRONG, VERDICT_COUNT };
const char *verdict_name(enum verdict v);

struct article_row {
    int number;
    const char *claim, *said; /* in our words; the article's number */
    const char *formula;      /* how ours follows; "" when it is no number */
    enum verdict verdict;
    const char *source; /* "exact", "datasheet", "fitted", "general knowledge" */
    const char *why;
    bool computed; /* there is a number */
    double value;
    char text[96]; /* our number with its unit, or words */
};

/* Compute all rows, in order. Needs the shipped hardware profiles; says which one is missing. */
int article_rows(struct article_row row[ARTICLE_ROWS], struct err *e);

json_t *article_to_json(const struct article_row row[ARTICLE_ROWS]);

#endif
