/* sched.c - see sched.h. */
#include "sched/sched.h"

/* The arrays behind one step. */
struct step_room {
    struct sched_step step;
    int *tok, *pos, *slot, *seq, *page, *out;
};

struct queue {
    struct seq *first, *last; /* by priority, then age */
    double served;            /* rows this client was given, see wake_client() */
};

struct sched {
    struct sched_limits max;
    struct blocks blocks;
    struct seq **run; /* by priority, then the order of admission */
    int n_run, n_wait, stride;
    struct queue queue[SCHED_CLIENTS];
    struct step_room *room; /* [flight + 1 or, ahead, + 2], taken in turns */
    bool names;             /* pages are given names, and found by them */
    size_t waiting_tok;
    uint64_t n_step, n_age, preempted;
};

/* ------------------------------------------------------------------------------- memory */

static struct step_room step_room(const struct sched_limits *l, size_t stride, struct arena *a)
{
    size_t rows = (size_t)l->max_tok * sizeof(int), run = (size_t)l->max_run;
    struct step_room r = {.step.part = arena_get(a, run * sizeof(*r.step.part))};
    if (l->no_batch)
        return r;
    r.tok = arena_get(a, rows);
    r.pos = arena_get(a, rows);
    r.slot = arena_get(a, rows);
    r.seq = arena_get(a, rows);
    r.page = arena_get(a, run * stride * sizeof(int));
    r.out = arena_get(a, (size_t)l->max_out * sizeof(int));
    return r;
}

struct sched *sched_new(const struct plan *p, const struct sched_limits *l, struct arena *a)
{
    struct sched *s = arena_get(a, sizeof(*s));
    size_t stride = ((size_t)p->ctx + KV_PAGE - 1) / KV_PAGE;
    struct blocks blocks;
    blocks_init(&blocks, p->pages, a);
    struct seq **all = arena_get(a, (size_t)l->max_run * sizeof(struct seq *));
    const int n_room = l->flight + 1 + l->ahead;
    struct step_room *room = arena_get(a, (size_t)n_room * sizeof(*room));
    for (int i = 0; i < n_room; i++) {
        struct step_room r = step_room(l, stride, a);
        if (room)
            room[i] = r;
    }
    if (s)
        *s = (struct sched){.names = !l->no_prefix && !l->none_alike,
                            .max = *l,
                            .blocks = blocks,
                            .run = all,
                            .stride = (int)stride,
                            .room = room};
    return s;
}

static struct seq *new_seq(int n_max, int n_tok)
{
    size_t pages = ((size_t)n_max + KV_PAGE - 1) / KV_PAGE;
    size_t bytes = sizeof(struct seq) + (pages + (size_t)n_tok) * sizeof(int);
    struct seq *q = aligned_alloc(64, round_up(bytes, 64));
    if (!q)
        return NULL;
    memset(q, 0, bytes);
    q->n_max = n_max;
    q->page = (int *)(q + 1);
    q->tok = n_tok ? q->page + pages : NULL;
    return q;
}

struct seq *seq_new(int n_max) { return new_seq(n_max, n_max); }
struct seq *seq_new_blank(int n_max) { return new_seq(n_max, 0); }

void seq_free(struct seq *q) { free(q); }

/* ------------------------------------------------------------------------------- who waits */

/* A client that comes back after a rest does not bring the share it did not use: it starts where
 * the one that was served least stands. */
static void wake_client(struct sched *s, struct queue *one)
{
    double least = -1;
    for (int i = 0; i < SCHED_CLIENTS; i++)
        if (s->queue[i].first && (least < 0 || s->queue[i].served < least))
            least = s->queue[i].served;
    for (int i = 0; i < s->n_run; i++) {
        double served = s->queue[s->run[i]->client].served;
        if (least < 0 || served < least)
            least = served;
    }
    if (one->served < least)
        one->served = least;
}

static bool goes_before(const struct seq *a, const struct seq *b)
{
    return a->priority < b->priority || (a->priority == b->priority && a->age < b->age);
}

static void enqueue(struct sched *s, struct seq *q)
{
    struct queue *to = &s->queue[q->client];
    struct seq *before = to->last;
    while (before && goes_before(q, before))
        before = before->before;
    q->before = before;
    q->next = before ? before->next : to->first;
    *(q->before ? &q->before->next : &to->first) = q;
    *(q->next ? &q->next->before : &to->last) = q;
    s->n_wait++;
    s->waiting_tok += (size_t)q->n_tok;
}

static void dequeue(struct sched *s, struct seq *q)
{
    struct queue *from = &s->queue[q->client];
    *(q->before ? &q->before->next : &from->first) = q->next;
    *(q->next ? &q->next->before : &from->last) = q->before;
    q->before = q->next = NULL;
    s->n_wait--;
    s->waiting_tok -= (size_t)q->n_tok;
}

void sched_add(struct sched *s, struct seq *q)
{
    must(q->n_prompt > 0 && q->n_tok >= q->n_prompt && q->n_tok <= q->n_max);
    must(q->client >= 0 && q->client < SCHED_CLIENTS);
    must((q->n_max + KV_PAGE - 1) / KV_PAGE <= s->blocks.n && q->n_max <= s->stride * KV_PAGE);
    q->age = ++s->n_age;
    q->name = (struct page_name){q->salt, 0};
    if (!s->queue[q->client].first)
        wake_client(s, &s->queue[q->client]);
    enqueue(s, q);
}

static struct seq *next_waiting(const struct sched *s)
{
    struct seq *best = NULL;
    for (int i = 0; i < SCHED_CLIENTS && s->n_wait; i++) {
        struct seq *q = s->queue[i].first;
        if (!q)
            continue;
        double least = best ? s->queue[best->client].served : 0;
        if (!best || q->priority < best->priority ||
            (q->priority == best->priority &&
             (s->queue[i].served < least || (s->queue[i].served == least && q->age < best->age))))
            best = q;
    }
    return best;
}

/* ------------------------------------------------------------------------------- pages */

static int pages_of(int n_tok) { return (n_tok + KV_PAGE - 1) / KV_PAGE; }

/* From the end, so that of what is kept for reuse the beginnings are kept longest. */
static void give_back(struct sched *s, struct seq *q)
{
    while (q->n_page > 0)
        blocks_drop(&s->blocks, q->page[--q->n_page]);
    q->n_done = q->n_now = q->n_named = 0;
    q->name = (struct page_name){q->salt, 0};
}

static void stop_running(struct sched *s, int i)
{
    s->run[i]->running = false;
    s->n_run--;
    memmove(s->run + i, s->run + i + 1, (size_t)(s->n_run - i) * sizeof(*s->run));
}

/* Where the next row of q stands. */
static int position(const struct seq *q) { return q->n_done + q->n_now; }

/* Of the page of q's tokens from `at` on, which follows the last that was named. Where none begin
 * alike, a sequence is known by its age, and needs no tokens. */
static struct page_name next_name(const struct sched *s, const struct seq *q, int at)
{
    int own[] = {(int)q->age, (int)(q->age >> 32)};
    return s->max.none_alike ? page_name(q->name, own, COUNT(own))
                             : page_name(q->name, q->tok + at, KV_PAGE);
}

/* Share the stored pages that q is about to compute. Its last token is always computed, for its
 * logits; so are all whose logits are wanted. */
static void share_prefix(struct sched *s, struct seq *q)
{
    int end = min_int(q->n_tok - 1, q->want);
    if (!s->names || q->n_now || q->n_done % KV_PAGE || q->n_page != q->n_done / KV_PAGE)
        return;
    while (q->n_done + KV_PAGE <= end) {
        struct page_name name = next_name(s, q, q->n_done);
        int page = blocks_share(&s->blocks, name);
        if (page < 0)
            return;
        q->page[q->n_page++] = page;
        q->n_named++;
        q->name = name;
        q->n_done += KV_PAGE;
        if (q->n_tok == q->n_prompt)
            q->n_cached += KV_PAGE;
    }
}

/* Name the pages that are full of known tokens once these rows are stored. */
static void name_pages(struct sched *s, struct seq *q)
{
    int full = min_int(position(q), q->n_tok) / KV_PAGE;
    for (; q->n_named < full && s->names; q->n_named++) {
        q->name = next_name(s, q, q->n_named * KV_PAGE);
        blocks_name(&s->blocks, q->page[q->n_named], q->name);
    }
}

/* Where none begin alike, names are needed from now on: for what is given back, and for the order
 * in which pages are given away again. */
static void begin_names(struct sched *s)
{
    s->names = !s->max.no_prefix;
    for (int i = 0; i < s->n_run; i++)
        name_pages(s, s->run[i]);
}

static void preempt(struct sched *s, int i)
{
    struct seq *q = s->run[i];
    if (!s->names)
        begin_names(s);
    stop_running(s, i);
    give_back(s, q);
    enqueue(s, q);
    s->preempted++;
}

/* ------------------------------------------------------------------------------- one step */

struct filling {
    struct step_room *to;
    int rows, prompt_rows, out; /* left */
};

static bool is_ready(const struct seq *q) { return !q->leaving && position(q) < q->n_tok; }

/* Its next token is being drawn, and may be known by where from; another one comes after it. */
static bool is_fed(const struct seq *q)
{
    return q->follows && !q->leaving && q->flying == 1 && position(q) == q->n_tok &&
           q->n_tok + 1 < q->n_max;
}

/* How many rows of q fit into the step: all it has, or what the rows of logits allow. */
static int rows_for(const struct seq *q, const struct filling *f, int room)
{
    int at = position(q), guesses = min_int(q->n_guess, q->n_max - 1 - q->n_tok);
    if (at == q->n_tok)
        return 1; /* of the token that is being drawn */
    int n = min_int(q->n_tok - at + max_int(guesses, 0), room);
    int quiet = max_int(min_int(q->want, q->n_tok) - at, 0); /* rows without logits */
    return min_int(n, quiet + f->out);
}

/* What the ranks read: the next n rows of q are the batch's from n_tok on, its logits from n_out.
 */
static void fill(const struct sched *s, struct step_room *r, const struct seq *q, int n)
{
    const struct sched_step *step = &r->step;
    int at = position(q), i = step->batch.n_tok, out = step->batch.n_out;
    for (int p = at; p < at + n; p++, i++) {
        r->tok[i] = p < q->n_tok + q->n_guess ? q->tok[p] : ~q->drawn_at;
        r->pos[i] = p;
        r->slot[i] = q->page[p / KV_PAGE] * KV_PAGE + p % KV_PAGE;
        r->seq[i] = step->n_seq;
        if (p >= q->want)
            r->out[out++] = i;
    }
    memcpy(r->page + (size_t)step->n_seq * (size_t)s->stride, q->page,
           (size_t)pages_of(at + n) * sizeof(int));
}

static void put(struct sched *s, struct filling *f, struct seq *q, int n)
{
    struct sched_step *step = &f->to->step;
    struct batch *b = &step->batch;
    int at = position(q), row = b->n_tok, out = b->n_out, last = at + n;
    while (q->n_page < pages_of(last))
        q->page[q->n_page++] = blocks_take(&s->blocks);
    if (!s->max.no_batch)
        fill(s, f->to, q, n);
    b->n_tok += n;
    b->n_out += max_int(last - max_int(at, q->want), 0);
    step->part[step->n_seq++] =
        (struct sched_part){.seq = q,
                            .first = row,
                            .n = n,
                            .pos = at,
                            .out = out,
                            .n_out = b->n_out - out,
                            .n_guess = at < q->n_tok ? max_int(last - q->n_tok, 0) : 0,
                            .draws = last >= q->n_tok};
    q->drawn_at = b->n_out - 1;
    q->n_now += n;
    q->flying++;
    f->rows -= n;
    f->out -= b->n_out - out;
    s->queue[q->client].served += n;
    name_pages(s, q);
}

static int missing(const struct seq *q, int n)
{
    return max_int(pages_of(position(q) + n) - q->n_page, 0);
}

/* Make room for n more rows of run[i] by preempting those behind it. False: there is none now; then
 * run[i] may itself have been preempted. */
static bool make_room(struct sched *s, int i, int n)
{
    struct seq *q = s->run[i];
    for (int last = s->n_run - 1; missing(q, n) > s->blocks.n_spare && last >= i; last--)
        if (!s->run[last]->flying && (last > i || s->n_run > 1))
            preempt(s, last);
    return q->running && missing(q, n) <= s->blocks.n_spare;
}

static bool decodes(const struct seq *q) { return position(q) == q->n_tok - 1 && !q->flying; }

/* It has no further row: it leaves, or the token on its way is its last. */
static bool ends(const struct seq *q)
{
    return q->leaving || (q->follows && position(q) == q->n_tok && q->n_tok + 1 >= q->n_max);
}

bool sched_may_lead(const struct sched *s)
{
    int pages = 0;
    for (int i = 0; i < s->n_run; i++) {
        const struct seq *q = s->run[i];
        if (!(is_ready(q) && q->flying) && !is_fed(q) && !ends(q))
            return false;
        pages += missing(q, 1);
    }
    return pages <= s->blocks.n_spare;
}

/* Those that draw go first; with steps on their way at once, each takes its part of them. */
static void put_decoding(struct sched *s, struct filling *f)
{
    int n = 0, most;
    for (int i = 0; i < s->n_run; i++)
        n += position(s->run[i]) >= s->run[i]->n_tok - 1;
    most = (n + s->max.flight - 1) / s->max.flight;
    for (int i = 0; i < s->n_run && f->rows > 0 && f->out > 0 && most > 0; i++) {
        struct seq *q = s->run[i];
        if (!(is_ready(q) && decodes(q)) && !(s->max.ahead && is_fed(q)))
            continue;
        int rows = rows_for(q, f, f->rows);
        if (!make_room(s, i, rows)) {
            i -= !q->running; /* another stands there now */
            continue;
        }
        put(s, f, q, rows);
        f->to->step.decode_rows += rows;
        most--;
    }
}

static void put_prompt(struct sched *s, struct filling *f, int i)
{
    struct seq *q = s->run[i];
    if (!is_ready(q) || decodes(q))
        return;
    share_prefix(s, q);
    int n = rows_for(q, f, min_int(f->rows, f->prompt_rows));
    if (n <= 0 || !make_room(s, i, n))
        return;
    put(s, f, q, n);
    f->prompt_rows -= n;
}

/* Let the next one in when its tokens find room beside one more page for everybody who runs. */
static bool admit(struct sched *s)
{
    struct seq *q = s->n_run < s->max.max_run ? next_waiting(s) : NULL;
    if (!q)
        return false;
    q->n_cached = q->n_tok == q->n_prompt ? 0 : q->n_cached;
    share_prefix(s, q);
    if (missing(q, q->n_tok - q->n_done) + s->n_run > s->blocks.n_spare && s->n_run) {
        give_back(s, q);
        return false;
    }
    dequeue(s, q);
    int at = s->n_run;
    while (at > 0 && s->run[at - 1]->priority > q->priority)
        at--;
    memmove(s->run + at + 1, s->run + at, (size_t)(s->n_run - at) * sizeof(*s->run));
    s->run[at] = q;
    s->n_run++;
    q->running = true;
    return true;
}

struct sched_step *sched_next(struct sched *s, int prompt_tok)
{
    struct step_room *r = &s->room[s->n_step % (uint64_t)(s->max.flight + 1 + s->max.ahead)];
    struct filling f = {.to = r, .rows = s->max.max_tok, .out = s->max.max_out};
    r->step.n_seq = r->step.decode_rows = 0;
    r->step.batch = (struct batch){.tok = r->tok,
                                   .pos = r->pos,
                                   .slot = r->slot,
                                   .seq = r->seq,
                                   .page = r->page,
                                   .stride = s->stride,
                                   .out = r->out};
    put_decoding(s, &f);
    f.prompt_rows = r->step.decode_rows ? prompt_tok : f.rows;
    for (int i = 0; i < s->n_run && f.rows > 0 && f.prompt_rows > 0; i++)
        put_prompt(s, &f, i);
    while (f.rows > 0 && f.prompt_rows > 0 && f.out > 0 && admit(s)) {
        int before = r->step.n_seq;
        for (int i = 0; i < s->n_run && r->step.n_seq == before; i++)
            put_prompt(s, &f, i);
    }
    r->step.batch.n_seq = r->step.n_seq;
    if (!r->step.batch.n_tok)
        return NULL;
    s->n_step++;
    return &r->step;
}

/* ------------------------------------------------------------------------------- afterwards */

void sched_commit(struct sched *s, struct sched_step *step, const int *keep)
{
    (void)s;
    for (int i = 0; i < step->n_seq; i++) {
        struct seq *q = step->part[i].seq;
        must(keep[i] >= 0 && keep[i] <= step->part[i].n && q->flying > 0);
        q->n_done += keep[i];
        q->n_now -= step->part[i].n;
        q->flying--;
    }
}

bool sched_remove(struct sched *s, struct seq *q)
{
    q->leaving = true;
    if (q->flying)
        return false;
    if (!q->running) {
        dequeue(s, q);
        return true;
    }
    for (int i = 0; i < s->n_run; i++)
        if (s->run[i] == q) {
            stop_running(s, i);
            break;
        }
    give_back(s, q);
    return true;
}

void sched_restart(struct sched *s)
{
    while (s->n_run) {
        struct seq *q = s->run[s->n_run - 1];
        q->flying = 0;
        preempt(s, s->n_run - 1);
    }
    blocks_forget(&s->blocks);
}

void sched_figures(const struct sched *s, struct sched_figures *to)
{
    *to = (struct sched_figures){.running = s->n_run,
                                 .waiting = s->n_wait,
                                 .waiting_tok = s->waiting_tok,
                                 .pages = s->blocks.n,
                                 .pages_used = s->blocks.n - s->blocks.n_spare,
                                 .pages_cached = s->blocks.n_known,
                                 .preempted = s->preempted};
}
