/* price.c - what the steps of a layout should take, and how quickly that is told.
 *
 *     tandem-bench-price MODEL HARDWARE DTYPE TP PP [SEQUENCES NEW LAST]...
 *
 * MODEL is a known shape or a config.json. Of every triple, SEQUENCES sequences that add
 * NEW tokens up to position LAST: milliseconds of the step, and of its parts. Then the microseconds
 * of making a pricer and the nanoseconds of a step whose rows it knows.
 */
#include "predict/price.h"
#include "dev/dev.h"
#include "model/folder.h"

#include <stdio.h>
#include <time.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int shape_of(const char *name, struct model *m, struct err *e)
{
    struct generation g;
    struct notes notes = {0};
    const char *config = model_config(name);
    return config ? model_parse(config, strlen(config), NULL, 0, m, &g, &notes, e)
                  : model_load(name, m, &g, &notes, e);
}

static void print_step(struct pricer *x, const struct model *m, char *const *triple)
{
    struct step_price p;
    struct work w = work_of(m, atoi(triple[0]), atoi(triple[1]), atoi(triple[2]));
    pricer_step(x, &w, &p);
    printf(
        "%s x %s to %s: %.3f ms = products %.3f + attention %.3f + rest %.3f + ranks %.3f + host "
        "%.3f\n",
        triple[0], triple[1], triple[2], 1e3 * p.all_s, 1e3 * p.product_s, 1e3 * p.attend_s,
        1e3 * p.other_s, 1e3 * p.comm_s, 1e3 * p.host_s);
}

static void print_speed(const struct plan *p, const struct hardware *h)
{
    enum { MAKE = 1000, ASK = 1000000, ROWS = 64 };
    struct err e;
    struct step_price to;
    struct work w[ROWS];
    double begin = now_s();
    for (int i = 0; i < MAKE; i++)
        pricer_free(pricer_new(p, h, &e));
    double made = now_s();
    struct pricer *x = pricer_new(p, h, &e);
    for (int i = 0; i < ROWS; i++) {
        w[i] = work_of(&p->model, i + 1, 1, 500 + i);
        work_add(&w[i], &p->model, 0, 100, 1);
        pricer_step(x, &w[i], &to);
    }
    double known = now_s();
    for (int i = 0; i < ASK; i++)
        pricer_step(x, &w[i % ROWS], &to);
    printf("a pricer %.1f us, a step %.0f ns\n", 1e6 * (made - begin) / MAKE,
           1e9 * (now_s() - known) / ASK);
    pricer_free(x);
}

static enum num num_of(const char *name)
{
    int t = 0;
    while (t < NUM_COUNT - 1 && strcmp(name, num_name((enum num)t)))
        t++;
    return (enum num)t;
}

static int run(int argc, char **argv, struct err *e)
{
    struct model m;
    struct plan p;
    static struct hardware h;
    struct plan_ask ask = {.tp = atoi(argv[4]),
                           .pp = atoi(argv[5]),
                           .max_tok = 65536,
                           .max_seq = 256,
                           .weight = num_of(argv[3]),
                           .kv = NUM_BF16,
                           .numerics = isa_numerics(ISA_AVX512_BF16, num_of(argv[3]))};
    int rc = shape_of(argv[1], &m, e);
    ask.ctx = rc ? 0 : min_int(m.n_ctx, 16384);
    if (!rc)
        rc = hardware_load(argv[2], &h, e);
    if (!rc)
        rc = plan_make(&p, &m, &ask, e);
    struct pricer *x = rc ? NULL : pricer_new(&p, &h, e);
    if (!x)
        return -1;
    for (int i = 6; i + 2 < argc; i += 3)
        print_step(x, &m, argv + i);
    pricer_free(x);
    print_speed(&p, &h);
    return 0;
}

int main(int argc, char **argv)
{
    struct err e = {""};
    if (argc < 6) {
        fprintf(stderr, "tandem-bench-price MODEL HARDWARE DTYPE TP PP [SEQUENCES NEW LAST]...\n");
        return 2;
    }
    if (run(argc, argv, &e)) {
        fprintf(stderr, "tandem-bench-price: %s\n", e.text);
        return 1;
    }
    return 0;
}
