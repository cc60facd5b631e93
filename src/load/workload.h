/* workload.h - what request i of a load asks for. Pure: the same seed and i give the same bytes. */
#ifndef TANDEM_LOAD_WORKLOAD_H
#define TANDEM_LOAD_WORKLOAD_H

#include "load/spread.h"
#include "load/trace.h"
#include "load/words.h"

#include <jansson.h>

/* Prompts come from `prompts` when it has any, else their lengths from `trace` when it has rows,
 * else from `prompt`. Owns nothing. */
struct workload {
    uint64_t seed;
    const char *model;
    bool chat; /* a message of the user, else a prompt of completions */
    bool ignore_eos;
    double temperature; /* below 0: the server's */
    struct spread prompt, output;
    int shared_prefix_tok; /* before every prompt, beyond its length */
    struct prompts prompts;
    struct trace trace;
    struct words_rate rate;
    json_t *extra; /* fields for every body; NULL: none */
};

struct request_shape {
    int prompt_tok; /* 0: that of a prompt from a file */
    int output_tok;
};

struct request_shape workload_shape(const struct workload *w, uint64_t i);

/* The prompt's text; the caller frees it. */
char *workload_prompt(const struct workload *w, uint64_t i);

/* The body to post, 0-terminated; the caller frees it. */
char *workload_body(const struct workload *w, uint64_t i);

/* A body that asks for one token and no stream. */
char *workload_probe(const struct workload *w, const char *prompt);

#endif
