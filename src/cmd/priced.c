/* priced.c - see priced.h. */
#include "cmd/priced.h"

#include <pthread.h>

struct priced {
    struct pricer *pricer;
    struct model model;
    int pp;
    pthread_mutex_t lock;
};

int priced_open(struct priced **out, const struct plan *p, const char *hardware, struct err *e)
{
    struct hardware *h = malloc(sizeof(*h));
    struct priced *x = calloc(1, sizeof(*x));
    must(h && x);
    int rc = hardware_load(hardware, h, e);
    if (!rc) {
        x->pricer = pricer_new(p, h, e);
        rc = x->pricer ? 0 : -EINVAL;
    }
    free(h);
    if (rc) {
        free(x);
        return err_add(e, rc, "--hardware %s", hardware);
    }
    x->model = p->model;
    x->pp = p->pp;
    pthread_mutex_init(&x->lock, NULL);
    *out = x;
    return 0;
}

void priced_close(struct priced *x)
{
    if (!x)
        return;
    pricer_free(x->pricer);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

static double price_step(void *arg, const struct sched_step *step, int flight)
{
    struct priced *x = arg;
    struct work w = {.flight = flight};
    struct step_price price;
    for (int i = 0; i < step->n_seq; i++) {
        const struct sched_part *part = &step->part[i];
        work_add(&w, &x->model, part->pos, part->n, part->n_out);
    }
    pthread_mutex_lock(&x->lock);
    pricer_step(x->pricer, &w, &price);
    pthread_mutex_unlock(&x->lock);
    /* Of a step chosen ahead the host's part is over when the one before ends. */
    return price.all_s - (flight > x->pp ? price.host_s : 0);
}

struct engine_price priced_for(struct priced *x)
{
    return x ? (struct engine_price){price_step, x} : (struct engine_price){NULL, NULL};
}
