/* sched.c - what choosing a step costs: microseconds per step of the scheduler, no ranks.
 *
 * *     tandem-bench-sched [STEPS]
 *
 * 256 sequences that draw, others that wait; each step is chosen and committed as the engine does.
 * The bar is 50 us a step.
 */
#include "sched/sched.h"

#include <stdio.h>
#include <time.h>

enum { CTX = 4096, PROMPT = 1000 };

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}

static void add(struct sched *s, int i)
{
    struct seq *q = seq_new(CTX);
    must(q);
    q->n_prompt = q->n_tok = PROMPT;
    for (int k = 0; k < PROMPT; k++)
        q->tok[k] = (k < 500 ? 7 : i) + k;
    q->want = PROMPT - 1;
    q->client = i % SCHED_CLIENTS;
    sched_add(s, q);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    int steps = argc > 1 ? atoi(argv[1]) : 2000, keep[256];
    double *took = calloc((size_t)steps, sizeof(*took));
    struct plan p = {.ctx = CTX, .pages = 256 * CTX / 16};
    struct sched_limits limits = {.max_tok = 512, .max_run = 256, .max_out = 256, .flight = 1};
    struct arena a = {0};
    must(steps > 0 && took);
    sched_new(&p, &limits, &a);
    a = (struct arena){.base = aligned_alloc(64, a.used), .size = a.used};
    struct sched *s = sched_new(&p, &limits, &a);
    for (int i = 0; i < 1256; i++)
        add(s, i);
    for (int n = 0; n < steps;) {
        double begun = now_us();
        struct sched_step *step = sched_next(s, 64);
        for (int i = 0; i < step->n_seq; i++)
            keep[i] = step->part[i].n;
        sched_commit(s, step, keep);
        double end = now_us();
        for (int i = 0; i < step->n_seq; i++) {
            struct seq *q = step->part[i].seq;
            if (!step->part[i].draws)
                continue;
            q->tok[q->n_tok++] = n;
            q->want = q->n_tok - 1;
            if (q->n_tok == CTX)
                sched_remove(s, q);
        }
        if (step->decode_rows >= 250)
            took[n++] = end - begun;
    }
    qsort(took, (size_t)steps, sizeof(*took), by_size);
    printf("256 sequences drawing, 1000 waiting: median %.1f us a step, 99 %% below %.1f us\n",
           took[steps / 2], took[steps * 99 / 100]);
    return 0;
}
