/* report.h - what an answer cost: a few lines for people, an object for machines. */
#ifndef TANDEM_REPORT_H
#define TANDEM_REPORT_H

#include "cmd/open.h"
#include "engine/session.h"

#include <jansson.h>

/* Speed of the answer, then what each rank held and did since the last report. */
void report_text(FILE *to, const struct opened *at, struct team *t, const struct session_stats *s);

/* The same as an object; the caller owns it. */
json_t *report_json(const struct plan *p, struct team *t, const struct session_stats *s);

#endif
