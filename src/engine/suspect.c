/* suspect.c - see suspect.h. */
#include "engine/suspect.h"
#include "base/pulse.h"

#include <stdio.h>

static char state_of(int pid)
{
    char path[64], state = '?';
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *f = pid > 0 ? fopen(path, "re") : NULL;
    if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
        state = '?';
    if (f)
        fclose(f);
    return state;
}

static bool behind(const struct mailbox *m, int rank, uint64_t step)
{
    return atomic_load(&m->rank[rank].done) < step;
}

static bool is_over(char state) { return state == 'T' || state == 'Z'; }

static uint64_t pulse_of(const struct mailbox *m, int rank)
{
    return atomic_load(&m->rank[rank].pulse);
}

/* A later stage waits for one before it. */
static int least_far(const struct plan *p, const struct mailbox *m, uint64_t step)
{
    int least = -1;
    for (int r = 0; r < plan_ranks(p); r++) {
        if (!behind(m, r, step))
            continue;
        if (least < 0 ||
            (plan_stage(p, r) == plan_stage(p, least) && pulse_of(m, r) < pulse_of(m, least)))
            least = r;
    }
    return least;
}

void suspects_find(struct suspects *s, const struct plan *p, const struct mailbox *m,
                   const _Atomic int pid[], uint64_t step)
{
    s->n = 0;
    for (int r = 0; r < plan_ranks(p); r++)
        s->state[r] = state_of(pid[r]);
    for (int r = 0; r < plan_ranks(p); r++)
        if (behind(m, r, step) && is_over(s->state[r]))
            s->rank[s->n++] = r;
    for (int r = 0, stopped = s->n; !stopped && r < plan_ranks(p); r++)
        if (behind(m, r, step) && !pulse_in_call(pulse_of(m, r)))
            s->rank[s->n++] = r;
    if (!s->n && least_far(p, m, step) >= 0)
        s->rank[s->n++] = least_far(p, m, step);
}

bool suspects_certain(const struct suspects *s) { return s->n && is_over(s->state[s->rank[0]]); }

bool suspects_debugged(const struct suspects *s, const struct plan *p)
{
    for (int r = 0; r < plan_ranks(p); r++)
        if (s->state[r] == 't')
            return true;
    return false;
}

/* ------------------------------------------------------------------------------- words */

void suspects_name(char *to, size_t room, int rank, int pid, const struct gpus *gpus)
{
    const int gpu = gpus ? gpus_index(gpus, rank) : 0;
    if (gpus)
        snprintf(to, room, "rank %d (process %d on GPU %d, %s at %s)", rank, pid, gpu,
                 gpus->gpu[gpu].name, gpus->gpu[gpu].bus);
    else
        snprintf(to, room, "rank %d (process %d)", rank, pid);
}

static const char *doing(char state)
{
    return state == 'T'   ? "stopped by a signal"
           : state == 'Z' ? "it has died, and its keeper does not say so"
           : state == 'D' ? "held in the kernel by a device or a disk"
           : state == 'R' ? "it runs"
                          : "it waits";
}

int suspects_say(const struct suspects *s, const struct mailbox *m, const _Atomic int pid[],
                 const struct gpus *gpus, uint64_t step, double still_s, struct err *e)
{
    char name[256], others[48] = "", layer[32] = "";
    const int r = s->n ? s->rank[0] : 0, at = pulse_in_layer(pulse_of(m, r));
    suspects_name(name, sizeof(name), r, pid[r], gpus);
    if (s->n > 1)
        snprintf(others, sizeof(others), s->n == 2 ? " or another one" : " or one of %d others",
                 s->n - 1);
    if (at >= 0 && !gpus) /* on a GPU the host is ahead */
        snprintf(layer, sizeof(layer), "layer %d of ", at);
    return err_set(e, -ETIMEDOUT, "%s%s hangs in %sstep %llu: nothing has moved for %.3g s (%s)",
                   name, others, layer, (unsigned long long)step, still_s, doing(s->state[r]));
}
