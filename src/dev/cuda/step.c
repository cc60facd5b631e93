/* step.c - a step begins and ends: its batch to the GPU, its tokens or logits back, and whether
 * what lies between is enqueued, recorded, or replayed. */
#include "dev/cuda/cuda.h"
#include "dev/cuda/runtime.h"

#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Groups look on while a step is waited for; one that gives up ends what the stream waits for. */
static int look_on(struct cuda *c, uint64_t step, bool *passed)
{
    int rc = gpu_mark_passed(passed, c->step[step % 2].mark, c->stream);
    for (int i = 0; !rc && !*passed && i < c->n_watch; i++)
        c->watch[i].look(c->watch[i].group, c->looked <= step);
    c->looked = step + 1;
    return rc;
}

static int wait_watched(struct cuda *c, uint64_t step)
{
    bool passed = false;
    int rc = look_on(c, step, &passed);
    while (!rc && !passed) {
        sched_yield();
        rc = look_on(c, step, &passed);
    }
    return rc;
}

/* Wait for a step; what failed on the GPU shows here. */
static void wait_step(struct dev *d, uint64_t step)
{
    struct cuda *c = cuda_of(d);
    uint64_t begin = now_ns();
    cuda_note(d, c->n_watch ? wait_watched(c, step)
                            : gpu_mark_wait(c->step[step % 2].mark, c->stream));
    c->waited_ns += now_ns() - begin;
}

/* ------------------------------------------------------------------------------- the batch */

static int pages_of(int keys) { return (keys + KV_PAGE - 1) / KV_PAGE; }

size_t cuda_batch_bytes(const struct gpu_ask *a)
{
    size_t rows = 4 * (size_t)a->max_tok + (size_t)a->max_out;
    size_t pages = (size_t)a->max_seq * (size_t)pages_of(record_keys(a->ctx));
    size_t draws =
        a->draws || a->slices ? draws_bytes(a->max_out, a->max_seq, a->ctx, a->words) : 0;
    return round_up((rows + pages) * sizeof(int), 8) + round_up(draws, 256);
}

size_t cuda_draw_bytes(const struct gpu_ask *a)
{
    if (!a->draws || a->slices)
        return 0;
    return round_up(gpu_draw_bytes(a->max_out, a->words), 256);
}

/* The next n numbers of the batch on its way; they come from `from`, if it is there. */
static int *put(struct cuda *c, size_t *used, const int *from, int n)
{
    int *to = (int *)(void *)(cuda_step(c)->batch_pinned + *used);
    if (from && n)
        memcpy(to, from, (size_t)n * sizeof(int));
    *used += (size_t)n * sizeof(int);
    must(*used <= c->batch_bytes);
    return to;
}

static int *there(struct cuda *c, const int *here)
{
    return (int *)(void *)(c->batch + ((const char *)here - cuda_step(c)->batch_pinned));
}

/* Where things lie follows from the step's shape alone, so that a recording finds them. */
static struct batch put_batch(struct cuda *c, const struct batch *b, int stride, size_t *used)
{
    struct batch to = *b;
    to.tok = there(c, put(c, used, b->tok, b->n_tok));
    to.pos = there(c, put(c, used, b->pos, b->n_tok));
    to.slot = there(c, put(c, used, b->slot, b->n_tok));
    to.seq = there(c, put(c, used, b->seq, b->n_tok));
    to.out = there(c, put(c, used, b->out, b->n_out));
    int *page = put(c, used, NULL, b->n_seq * stride);
    for (int i = 0; i < b->n_seq; i++) {
        int n = min_int(stride, b->stride);
        memcpy(page + (size_t)i * (size_t)stride, b->page + (size_t)i * (size_t)b->stride,
               (size_t)n * sizeof(int));
        memset(page + (size_t)i * (size_t)stride + n, 0, (size_t)(stride - n) * sizeof(int));
    }
    to.page = there(c, page);
    to.stride = stride;
    return to;
}

/* How its tokens are drawn, behind it. */
static void put_draws(struct cuda *c, const struct draw_rows *rows, size_t *used)
{
    c->draws = (struct gpu_draw_rows){0};
    cuda_step(c)->drawn = NULL;
    if (!rows || !(c->ask.draws || c->ask.slices) || c->ask.words > GPU_DRAW_WORDS)
        return;
    *used = round_up(*used, 8);
    *used += draws_put(&c->draws, cuda_step(c)->batch_pinned + *used, c->batch + *used, rows,
                       c->ask.words);
    must(*used <= c->batch_bytes);
}

/* ------------------------------------------------------------------------------- begin, end */

/* A recording takes some MiB of the GPU's memory that no arena has; without, steps are slower, but
 * they are done. */
static bool may_record(const struct cuda *c)
{
    enum { SPARE = 96 << 20 };
    struct gpu_about about;
    return !gpu_about(c->ask.gpu, &about) && about.memory_free >= SPARE;
}

static void look_up(struct dev *d, struct step_key key)
{
    struct cuda *c = cuda_of(d);
    bool again;
    void *old;
    c->record = NULL;
    c->replays = false;
    if (!c->ask.records || key.n_tok > RECORD_ROWS)
        return;
    struct record *r = records_meet(&c->records, key, &again, &old);
    if (old)
        cuda_note(d, gpu_record_free(old));
    if (!again || (!r->recorded && !may_record(c)))
        return;
    c->record = r;
    c->replays = r->recorded != NULL;
    if (!c->replays)
        cuda_note(d, gpu_record_begin(c->stream));
}

void cuda_begin(struct dev *d, struct batch *b)
{
    struct cuda *c = cuda_of(d);
    int most = 0;
    bool fed = false;
    size_t used = 0;
    cuda_laps_begin(d);
    for (int i = 0; i < b->n_tok; i++) {
        most = max_int(most, b->pos[i] + 1);
        fed |= b->tok[i] < 0;
    }
    must(!fed || b->drawn);
    c->keys = record_keys(most);
    int *tok = (int *)(void *)c->batch; /* the first there */
    *b = put_batch(c, b, pages_of(c->keys), &used);
    put_draws(c, b->draws, &used);
    cuda_note(d, gpu_copy_in(c->batch, cuda_step(c)->batch_pinned, used, c->stream));
    const int kind = draws_kind(&c->draws) | fed << DRAWS_KIND_BITS |
                     (b->draws && draw_any_on_host(b->draws)) << (DRAWS_KIND_BITS + 1);
    if (!d->err)
        look_up(d, (struct step_key){b->n_tok, b->n_seq, b->n_out, c->keys, kind});
    if (fed && !d->err && !c->replays)
        cuda_note(d, gpu_feed(c->stream, tok, b->n_tok, b->drawn));
}

/* What was recorded, or recorded now, is run. */
static void run_record(struct dev *d)
{
    struct cuda *c = cuda_of(d);
    if (!c->replays)
        cuda_note(d, gpu_record_end(c->stream, &c->record->recorded));
    if (!d->err)
        cuda_note(d, gpu_replay(c->record->recorded, c->stream));
    c->record = NULL;
    c->replays = false;
}

/* To the host: a step's tokens, and the rows of m whose tokens are drawn there. */
static void bring(struct dev *d, const struct mat *m)
{
    struct cuda *c = cuda_of(d);
    const struct cuda_step *s = cuda_step(c);
    if (!s->drawn) {
        cuda_note(d, gpu_copy_out(c->pinned, m->at, mat_bytes(m), c->stream));
        return;
    }
    cuda_note(d, gpu_copy_out(s->token_pinned, c->token, (size_t)m->n * sizeof(int), c->stream));
    for (int i = 0; i < m->n && !d->err; i++)
        if (draw_on_host(s->drawn, i))
            cuda_note(d, gpu_copy_out(c->pinned + (size_t)i * (size_t)m->dim, mat_row(m, i),
                                      (size_t)m->dim * sizeof(float), c->stream));
}

void cuda_end(struct dev *d, const struct mat *m)
{
    struct cuda *c = cuda_of(d);
    struct cuda_step *s = cuda_step(c);
    if (c->record)
        run_record(d);
    if (m->n && !d->err) {
        must(m->n <= c->ask.max_out && m->dim <= c->ask.words);
        bring(d, m);
    }
    if (!d->err && c->watched_bytes)
        cuda_note(d, gpu_copy_out(c->watched_pinned, c->watched, c->watched_bytes, c->stream));
    if (!s->mark && !d->err)
        cuda_note(d, gpu_mark_new(&s->mark));
    if (!d->err)
        cuda_note(d, gpu_mark(s->mark, c->stream));
    c->ended++;
}

bool cuda_passed(struct dev *d)
{
    struct cuda *c = cuda_of(d);
    bool passed = true;
    cuda_note(d, look_on(c, c->fetched, &passed));
    return passed;
}

static void take_tokens(const struct cuda_step *s)
{
    const struct draw_rows *rows = s->drawn;
    for (int i = 0; i < rows->n; i++)
        if (!draw_on_host(rows, i))
            rows->token[i] = s->token_pinned[i];
}

struct mat cuda_fetch(struct dev *d, const struct mat *m)
{
    struct cuda *c = cuda_of(d);
    struct mat to = *m;
    if (c->ended == c->fetched)
        cuda_end(d, m);
    const uint64_t step = c->fetched++;
    struct cuda_step *s = &c->step[step % 2];
    if (m->n)
        to.at = c->pinned;
    if (!d->err)
        wait_step(d, step);
    if (!d->err && s->drawn)
        take_tokens(s);
    s->drawn = NULL;
    cuda_laps_end(d);
    return to;
}
