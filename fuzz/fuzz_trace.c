/* fuzz_trace.c - any bytes as a file of recorded requests; what is read is in order and in bounds,
 * and prompts are made of it. */
#include "load/workload.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void check_row(const struct trace *t, size_t i)
{
    const struct trace_row *r = &t->row[i];
    must(r->prompt_tok > 0 && r->prompt_tok <= TRACE_TOKENS_MOST);
    must(r->output_tok > 0 && r->output_tok <= TRACE_TOKENS_MOST);
    must(i ? r->at >= t->row[i - 1].at : r->at >= 0);
    must(r->n_block >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct trace t;
    struct err e = {""};
    int rc = trace_parse(&t, (const char *)bytes, n, "trace", &e);
    must(rc ? strlen(e.text) > 0 && !strchr(e.text, '\n') : t.n > 0);
    for (size_t i = 0; !rc && i < t.n; i++)
        check_row(&t, i);
    if (!rc && t.row[0].prompt_tok < 1 << 14) {
        struct workload w = {.model = "m", .rate = {1.3, 5}, .trace = t};
        free(workload_body(&w, 0));
    }
    trace_free(&t);
    return 0;
}
