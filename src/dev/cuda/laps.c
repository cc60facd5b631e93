/* laps.c - what each operation of a step takes on the GPU, for a profile: a mark in the stream
 * after each, and the time between two marks. The host waits for none of it before the step's end,
 * so operations follow each other as they do without a profile, but for steps that would be
 * replayed. Small kernels may take as long as launching the next.
 */
#include "dev/cuda/cuda.h"
#include "dev/cuda/runtime.h"
#include "dev/profile.h"

enum { LAPS = 2048 };

struct laps {
    void *mark[LAPS + 1];
    struct op_time *of[LAPS];
    int n;
    bool open; /* between begin and end of a step */
};

void cuda_laps_open(struct cuda *c) { c->laps = pool_get(&c->pool, sizeof(*c->laps)); }

static void mark(struct dev *d, int i)
{
    struct cuda *c = cuda_of(d);
    if (!c->laps->mark[i])
        cuda_note(d, gpu_mark_new(&c->laps->mark[i]));
    if (!d->err)
        cuda_note(d, gpu_mark(c->laps->mark[i], c->stream));
}

/* All marks are passed: their times are told, and the last is the next one's first. */
static void settle(struct dev *d)
{
    struct cuda *c = cuda_of(d);
    struct laps *l = c->laps;
    cuda_note(d, gpu_wait(c->stream));
    for (int i = 0; !d->err && i < l->n; i++) {
        double seconds = 0;
        cuda_note(d, gpu_mark_seconds(&seconds, l->mark[i], l->mark[i + 1]));
        if (l->of[i])
            atomic_fetch_add(&l->of[i]->ns, (uint64_t)(1e9 * seconds));
    }
    void *last = l->mark[l->n];
    l->mark[l->n] = l->mark[0], l->mark[0] = last;
    l->n = 0;
}

void cuda_laps_begin(struct dev *d)
{
    struct laps *l = cuda_of(d)->laps;
    if (!l)
        return;
    l->n = 0, l->open = true;
    mark(d, 0);
}

void cuda_laps_end(struct dev *d)
{
    if (cuda_of(d)->laps)
        cuda_of(d)->laps->open = false;
}

void cuda_lap(struct dev *d, struct op_time *of)
{
    struct laps *l = cuda_of(d)->laps;
    if (!l || d->err || (!of && !(l->open && cuda_of(d)->grouped)))
        return;
    mark(d, l->n + 1);
    l->of[l->n++] = of;
    if (!l->open || l->n == LAPS)
        settle(d);
}
