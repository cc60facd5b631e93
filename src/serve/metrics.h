/* metrics.h - what the server has seen, for Prometheus: under tandem:, and under the vllm: names
 * that dashboards and routers read, with the same meaning. docs/SERVING.md lists them. */
#ifndef TANDEM_METRICS_H
#define TANDEM_METRICS_H

#include "base/metric.h"
#include "engine/fleet.h"
#include "serve/drift.h"

struct metrics {
    char labels[160]; /* model_name="..." */
    struct histogram ttft, itl, tpot, e2e, queue, prefill, decode, step, step_rows;
    struct histogram inference, prompt_tok, new_tok, max_tok, choices;
    double predicted_s; /* of all steps, before they ran */
    bool priced;        /* by a hardware profile: drift tells something */
    struct drift drift;
    uint64_t refused[3]; /* bad requests, too many, shutting down */
    int connections;
};

/* Seconds of CLOCK_MONOTONIC, as the engine's. */
struct metrics_choice { /* one choice of a request, while it is answered */
    double arrived, first, last;
    int n_prompt, n_new;
};

void metrics_init(struct metrics *m, const char *model_name);
/* A request with so many choices of at most max_tok new tokens begins. */
void metrics_request(struct metrics *m, int choices, int max_tok);
/* An event of a choice came at `now`. */
void metrics_event(struct metrics *m, struct metrics_choice *c, const struct engine_event *ev,
                   double now);
/* Take the engine's last steps. */
void metrics_steps(struct metrics *m, struct fleet *f);

/* Everything, with the engine's figures of this moment. */
void metrics_write(FILE *to, const struct metrics *m, struct fleet *f, const struct plan *p);

#endif
