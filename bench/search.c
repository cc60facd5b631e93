/* search.c - how many layouts a second the planner looks at, all of the search counted: cuts,
 * prices, memory, latencies. Usage: tandem-bench-search [MODEL [HARDWARE [RATE]]] */
#include "predict/search.h"
#include "model/folder.h"

#include <time.h>

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ask(struct question *q, struct hardware *h, int argc, char **argv, struct err *e)
{
    const char *model = argc > 1 ? argv[1] : "llama-3-70b";
    const char *machine = argc > 2 ? argv[2] : "dgx-h100-x2-ib", *config = model_config(model);
    struct generation g;
    struct notes notes;
    if (!config)
        return err_set(e, -ENOENT, "no model is called %.60s", model);
    int rc = model_parse(config, strlen(config), NULL, 0, &q->model, &g, &notes, e);
    if (!rc)
        rc = hardware_load(machine, h, e);
    q->hardware = h;
    q->devices = rc ? 0 : hardware_devices(h);
    q->demand.rate = argc > 3 ? atof(argv[3]) : 4;
    return rc;
}

int main(int argc, char **argv)
{
    static struct hardware h;
    struct question q = {.n_weight = 2,
                         .weight = {NUM_BF16, NUM_INT8},
                         .n_kv = 1,
                         .kv = {NUM_BF16},
                         .isa = ISA_AVX512_BF16,
                         .demand = {.cv2 = 1,
                                    .prompt = {1024, 0, 1024, 1024},
                                    .output = {256, 0, 256, 256},
                                    .ttft_s = 0.5,
                                    .tpot_s = 0.05,
                                    .share = 0.99,
                                    .spare = 0.1}};
    struct search s;
    struct err e;
    if (ask(&q, &h, argc, argv, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    for (int i = 0; i < 5; i++) {
        double begun = seconds();
        int rc = search(&q, &s, &e);
        double took = seconds() - begun;
        if (rc)
            fprintf(stderr, "%s\n", e.text);
        else
            printf("%ld layouts of %d cuts, %ld fit: %.3f s of one core, %.0f a second\n", s.tried,
                   s.shapes.n, s.fitted, took, (double)s.tried / took);
        search_free(&s);
    }
    return 0;
}
