/* timeline.c - see timeline.h. */
#include "predict/timeline.h"

/* The beginning of an event, up to its own fields. */
static void event(struct timeline *t, const char *name, char phase, int replica, int stage,
                  double at)
{
    fprintf(t->to, "%s\n{\"name\":\"%s\",\"ph\":\"%c\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f",
            t->begun ? "," : "[", name, phase, replica, stage, at * 1e6);
    t->begun = true;
}

void timeline_begin(struct timeline *t, int replicas, int stages)
{
    for (int r = 0; t && r < replicas; r++) {
        event(t, "process_name", 'M', r, 0, 0);
        fprintf(t->to, ",\"args\":{\"name\":\"replica %d\"}}", r);
        for (int i = 0; i < stages; i++) {
            event(t, "thread_name", 'M', r, i, 0);
            fprintf(t->to, ",\"args\":{\"name\":\"stage %d\"}}", i);
        }
    }
}

void timeline_step(struct timeline *t, int replica, int stage, double begun, double ends,
                   const struct sched_step *step)
{
    if (!t)
        return;
    event(t, step->decode_rows == step->batch.n_tok ? "decode" : "prompt", 'X', replica, stage,
          begun);
    fprintf(t->to, ",\"dur\":%.3f,\"args\":{\"rows\":%d,\"decode_rows\":%d,\"sequences\":%d}}",
            (ends - begun) * 1e6, step->batch.n_tok, step->decode_rows, step->n_seq);
}

void timeline_queue(struct timeline *t, int replica, double now, const struct sched_figures *f)
{
    if (!t)
        return;
    event(t, "requests", 'C', replica, 0, now);
    fprintf(t->to, ",\"args\":{\"running\":%d,\"waiting\":%d}}", f->running, f->waiting);
    event(t, "pages", 'C', replica, 0, now);
    fprintf(t->to, ",\"args\":{\"used\":%d}}", f->pages_used);
}

void timeline_death(struct timeline *t, int replica, double now, double until)
{
    if (!t)
        return;
    event(t, "restart", 'X', replica, 0, now);
    fprintf(t->to, ",\"dur\":%.3f}", (until - now) * 1e6);
}

void timeline_end(struct timeline *t)
{
    if (t)
        fputs(t->begun ? "\n]\n" : "[]\n", t->to);
}
