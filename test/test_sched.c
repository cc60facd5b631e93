/* test_sched.c - the scheduler and its pages, against a model whose KV cache is a hash per slot.
 *
 * The fake ranks store in every slot the hash of all tokens up to it, and read a sequence's whole
 * past through its page table before they draw. So a page given away too early, shared wrongly or
 * never filled shows as a wrong past, and every answer must be what one sequence alone would say.
 */
#include "sched/sched.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { VOCAB = 50, MAX_SEQ = 64 };

/* ------------------------------------------------------------------------------- the fake ranks */

static uint64_t mix(uint64_t past, int tok)
{
    uint64_t h = (past ^ ((uint64_t)tok + 1)) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

static int drawn(uint64_t past) { return (int)((past >> 20) % VOCAB); }

/* What one sequence alone would hold after its prompt and n new tokens. */
static void answer_alone(const int *prompt, int n_prompt, int *tok, int n)
{
    uint64_t past = 0;
    memcpy(tok, prompt, (size_t)n_prompt * sizeof(int));
    for (int i = 0; i < n; i++) {
        past = mix(past, tok[i]);
        if (i + 1 >= n_prompt && i + 1 < n)
            tok[i + 1] = drawn(past);
    }
}

struct world {
    struct plan plan;
    struct sched *sched;
    void *memory;
    uint64_t *kv; /* [pages * KV_PAGE] */
    uint64_t seed;
    struct seq *live[MAX_SEQ];
    struct sched_step *flying[8];
    int token[8][1024];
    int n_flying, flight, finished, cancelled, guess;
    bool ahead;
    uint64_t rows, steps, led; /* led: with a step before it on its way */
};

static int pick(struct world *w, int n)
{
    w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((w->seed >> 33) % (uint64_t)n);
}

static void open_world(struct world *w, int ctx, int pages, struct sched_limits limits)
{
    memset(w, 0, sizeof(*w));
    w->plan.ctx = ctx;
    w->plan.pages = pages;
    w->seed = 1;
    w->flight = limits.flight;
    w->ahead = limits.ahead;
    struct arena measure = {0};
    sched_new(&w->plan, &limits, &measure);
    w->memory = aligned_alloc(64, measure.used);
    struct arena a = {.base = w->memory, .size = measure.used};
    w->sched = sched_new(&w->plan, &limits, &a);
    assert_int_equal(a.used, measure.used);
    w->kv = calloc((size_t)pages * KV_PAGE, sizeof(*w->kv));
}

static void close_world(struct world *w)
{
    struct sched_figures f;
    sched_figures(w->sched, &f);
    assert_int_equal(f.pages_used, 0);
    assert_int_equal(f.running + f.waiting, 0);
    free(w->memory);
    free(w->kv);
}

static uint64_t *cell(struct world *w, const struct batch *b, int seq, int pos)
{
    int page = b->page[seq * b->stride + pos / KV_PAGE];
    assert_in_range(page, 0, w->plan.pages - 1);
    return &w->kv[page * KV_PAGE + pos % KV_PAGE];
}

/* A token, or what was drawn in the step before. */
static int tok_of(const struct batch *b, int i, const int *before)
{
    return b->tok[i] < 0 ? before[~b->tok[i]] : b->tok[i];
}

/* All rows store before any reads, as in a layer. */
static void compute(struct world *w, const struct sched_step *s, const int *before, int *token)
{
    const struct batch *b = &s->batch;
    assert_in_range(b->n_tok, 1, 1 << 20);
    for (int i = 0; i < b->n_tok; i++) {
        uint64_t past = b->pos[i] ? *cell(w, b, b->seq[i], b->pos[i] - 1) : 0;
        assert_ptr_equal(cell(w, b, b->seq[i], b->pos[i]), &w->kv[b->slot[i]]);
        w->kv[b->slot[i]] = mix(past, tok_of(b, i, before));
    }
    for (int i = 0; i < b->n_tok; i++) { /* the whole past, not only the last key */
        const struct seq *q = s->part[b->seq[i]].seq;
        uint64_t past = 0;
        for (int p = 0; p <= b->pos[i]; p++) {
            past = mix(past, p < b->pos[i] ? q->tok[p] : tok_of(b, i, before));
            assert_true(*cell(w, b, b->seq[i], p) == past);
        }
    }
    for (int i = 0; i < b->n_out; i++)
        token[i] = drawn(w->kv[b->slot[b->out[i]]]);
    w->rows += (uint64_t)b->n_tok;
    w->steps++;
}

/* ------------------------------------------------------------------------------- the owner */

static struct seq *add(struct world *w, const int *prompt, int n_prompt, int n_new, int client,
                       int priority)
{
    struct seq *q = seq_new(n_prompt + n_new);
    memcpy(q->tok, prompt, (size_t)n_prompt * sizeof(int));
    q->n_prompt = q->n_tok = n_prompt;
    q->want = n_prompt - 1;
    q->client = client;
    q->priority = priority;
    q->follows = w->ahead && pick(w, 20);
    for (int i = 0; i < MAX_SEQ; i++)
        if (!w->live[i]) {
            w->live[i] = q;
            sched_add(w->sched, q);
            return q;
        }
    fail();
    return NULL;
}

static void end(struct world *w, struct seq *q)
{
    for (int i = 0; i < MAX_SEQ; i++)
        if (w->live[i] == q)
            w->live[i] = NULL;
    seq_free(q);
}

/* Guesses: mostly right ones, so that some are accepted. */
static void guess(struct world *w, struct seq *q)
{
    int tok[4096], n = min_int(w->guess ? pick(w, w->guess + 1) : 0, q->n_max - q->n_tok - 1);
    if (n <= 0)
        return;
    answer_alone(q->tok, q->n_prompt, tok, q->n_tok + n);
    for (int i = 0; i < n; i++)
        q->tok[q->n_tok + i] = pick(w, 4) ? tok[q->n_tok + i] : VOCAB;
    q->n_guess = n;
}

static void take_part(struct world *w, struct sched_part *part, const int *token)
{
    struct seq *q = part->seq;
    if (part->draws && !q->leaving) {
        for (int i = 0; i <= part->n_guess; i++) {
            int t = token[part->out + part->n_out - 1 - part->n_guess + i];
            bool right = i < part->n_guess && q->tok[q->n_tok] == t;
            q->tok[q->n_tok++] = t;
            if (!right || q->n_tok == q->n_max)
                break;
        }
        q->want = q->n_tok - 1;
        q->n_guess = 0;
        guess(w, q);
    }
    if (q->n_tok == q->n_max || q->leaving) {
        int want[4096];
        bool whole = !q->leaving;
        answer_alone(q->tok, q->n_prompt, want, q->n_tok);
        assert_memory_equal(q->tok, want, (size_t)q->n_tok * sizeof(int));
        if (sched_remove(w->sched, q)) {
            w->finished += whole;
            w->cancelled += !whole;
            end(w, q);
        }
    }
}

static void finish_oldest(struct world *w)
{
    struct sched_step *s = w->flying[0];
    int keep[1024];
    for (int i = 0; i < s->n_seq; i++) {
        struct sched_part *p = &s->part[i];
        const int *t = w->token[0] + p->out + p->n_out - 1 - p->n_guess;
        int right = 0;
        while (right < p->n_guess && p->seq->tok[p->seq->n_tok + right] == t[right])
            right++;
        keep[i] = p->n - p->n_guess + right;
    }
    sched_commit(w->sched, s, keep);
    for (int i = 0; i < s->n_seq; i++)
        take_part(w, &s->part[i], w->token[0]);
    w->n_flying--;
    memmove(w->flying, w->flying + 1, (size_t)w->n_flying * sizeof(*w->flying));
    memmove(w->token, w->token + 1, (size_t)w->n_flying * sizeof(*w->token));
}

/* One more step on its way, or one less. False: nothing is left. */
static bool turn(struct world *w, int prompt_tok)
{
    if (w->n_flying < w->flight ||
        (w->ahead && w->n_flying == w->flight && sched_may_lead(w->sched))) {
        struct sched_step *s = sched_next(w->sched, prompt_tok);
        if (s) {
            const int at = w->n_flying++;
            w->led += at >= w->flight;
            w->flying[at] = s;
            compute(w, s, at ? w->token[at - 1] : NULL, w->token[at]);
            return true;
        }
    }
    if (!w->n_flying)
        return false;
    finish_oldest(w);
    return true;
}

static void run_all(struct world *w, int prompt_tok)
{
    while (turn(w, prompt_tok))
        ;
}

/* ------------------------------------------------------------------------------- claims */

static const struct sched_limits small = {.max_tok = 64, .max_run = 16, .max_out = 64, .flight = 1};

static void fill(int *tok, int n, int from)
{
    for (int i = 0; i < n; i++)
        tok[i] = (from + 7 * i) % VOCAB;
}

static void random_loads_end_with_the_answers_of_one_alone(void **state)
{
    (void)state;
    for (int kind = 0; kind < 24; kind++) {
        struct world w;
        struct sched_limits l = small;
        l.flight = 1 + kind % 3;
        l.ahead = l.flight == 1 && kind > 5;
        l.no_prefix = kind % 4 == 3;
        l.max_out = kind % 5 ? 64 : 5;
        open_world(&w, 320, kind % 2 ? 24 : 200, l); /* 24 pages: somebody is always preempted */
        w.seed = (uint64_t)kind + 1;
        w.guess = kind % 3 == 2 ? 3 : 0;
        int begun = 0;
        while (begun < 150 || w.n_flying || w.finished + w.cancelled < begun) {
            int n_live = 0, tok[300];
            for (int i = 0; i < MAX_SEQ; i++)
                n_live += w.live[i] != NULL;
            if (begun < 150 && n_live < 40 && !pick(&w, 2)) {
                fill(tok, 300, pick(&w, 3)); /* three families that share prefixes */
                int n = 1 + pick(&w, 200), cut = pick(&w, n);
                tok[cut] = pick(&w, VOCAB);
                add(&w, tok, n, 1 + pick(&w, 100), pick(&w, 3), pick(&w, 2));
                begun++;
            }
            struct seq *q = w.live[pick(&w, MAX_SEQ)];
            if (q && !pick(&w, 300) && !q->leaving && sched_remove(w.sched, q)) {
                w.cancelled++;
                end(&w, q);
            }
            if ((kind % 6 == 5 || kind == 18) && !pick(&w, 60)) { /* the ranks died */
                w.n_flying = 0;
                memset(w.kv, 0xFF, (size_t)w.plan.pages * KV_PAGE * sizeof(*w.kv));
                sched_restart(w.sched);
                for (int i = 0; i < MAX_SEQ; i++)
                    if (w.live[i] && w.live[i]->leaving && sched_remove(w.sched, w.live[i])) {
                        w.cancelled++;
                        end(&w, w.live[i]);
                    }
            }
            turn(&w, 8 + pick(&w, 60));
        }
        assert_int_equal(begun, w.finished + w.cancelled);
        assert_true(w.finished > 75);
        assert_int_equal(w.led > 100, l.ahead);
        close_world(&w);
    }
}

static void a_shared_prompt_is_computed_once_even_when_all_come_together(void **state)
{
    struct world w;
    int tok[1016];
    (void)state;
    open_world(&w, 2048, 1000,
               (struct sched_limits){.max_tok = 256, .max_run = 64, .max_out = 64, .flight = 1});
    fill(tok, 1016, 0);
    for (int i = 0; i < 32; i++) {
        tok[1000] = i;
        add(&w, tok, 1016, 1, 0, 0);
    }
    run_all(&w, 256);
    assert_int_equal(w.finished, 32);
    assert_in_range(w.rows, 1016, 992 + 32 * 24);
    /* and a later one finds it still there */
    tok[1000] = 40;
    struct seq *q = add(&w, tok, 1016, 2, 0, 0);
    turn(&w, 256);
    assert_int_equal(q->n_cached, 992);
    run_all(&w, 256);
    close_world(&w);
}

static void another_salt_shares_nothing(void **state)
{
    struct world w;
    int tok[64];
    (void)state;
    open_world(&w, 128, 100, small);
    fill(tok, 64, 0);
    add(&w, tok, 64, 2, 0, 0);
    run_all(&w, 64);
    struct seq *q = seq_new(66);
    memcpy(q->tok, tok, sizeof(tok));
    q->n_prompt = q->n_tok = 64, q->want = 63, q->salt = 5;
    w.live[0] = q;
    sched_add(w.sched, q);
    turn(&w, 64);
    assert_int_equal(q->n_cached, 0);
    run_all(&w, 64);
    close_world(&w);
}

static void a_long_prompt_takes_no_more_than_its_part_of_a_step(void **state)
{
    struct world w;
    int tok[1500];
    (void)state;
    open_world(&w, 2048, 1000,
               (struct sched_limits){.max_tok = 256, .max_run = 64, .max_out = 64, .flight = 1});
    fill(tok, 1500, 0);
    for (int i = 0; i < 4; i++)
        add(&w, tok + i, 8, 200, 0, 0);
    turn(&w, 32);
    turn(&w, 32);
    struct seq *q = add(&w, tok, 1500, 9, 0, 0);
    int steps = 0;
    while (q->n_done + q->n_now < 1500) {
        struct sched_step *s = sched_next(w.sched, 32);
        assert_int_equal(s->decode_rows, 4);
        assert_in_range(s->batch.n_tok, 5, 36);
        w.flying[w.n_flying++] = s;
        compute(&w, s, NULL, w.token[0]);
        finish_oldest(&w);
        steps++;
    }
    assert_in_range(steps, 1500 / 32, 1500 / 32 + 1);
    run_all(&w, 32);
    close_world(&w);
}

/* One client with many requests does not starve another with one; a smaller priority goes first. */
static void clients_share_and_priority_goes_first(void **state)
{
    struct world w;
    int tok[64];
    (void)state;
    struct sched_limits one = small;
    one.max_run = 1;
    open_world(&w, 128, 100, one);
    for (int i = 0; i < 20; i++) {
        fill(tok, 64, i);
        add(&w, tok, 40, 4, 0, 0);
    }
    turn(&w, 64);
    fill(tok, 64, 33);
    struct seq *other = add(&w, tok, 40, 4, 1, 0), *urgent = add(&w, tok + 1, 40, 4, 0, -1);
    while (!urgent->running)
        turn(&w, 64);
    assert_in_range(w.finished, 1, 1);
    while (!other->running)
        turn(&w, 64);
    assert_in_range(w.finished, 2, 3);
    run_all(&w, 64);
    close_world(&w);
}

static void the_logits_of_a_whole_prompt_can_be_wanted(void **state)
{
    struct world w;
    int tok[100], n_out = 0;
    (void)state;
    struct sched_limits l = small;
    l.max_out = 24;
    open_world(&w, 128, 100, l);
    fill(tok, 100, 0);
    add(&w, tok, 100, 1, 0, 0); /* its pages are stored, yet all must be computed again */
    run_all(&w, 64);
    struct seq *q = add(&w, tok, 100, 1, 0, 0);
    q->want = 0;
    for (struct sched_step *s; n_out < 100; n_out += s->batch.n_out) {
        int keep[1];
        s = sched_next(w.sched, 64);
        assert_int_equal(s->batch.n_out, s->batch.n_tok);
        assert_in_range(s->batch.n_out, 1, 24);
        compute(&w, s, NULL, w.token[0]);
        keep[0] = s->part[0].n;
        sched_commit(w.sched, s, keep);
    }
    assert_int_equal(n_out, 100);
    assert_true(sched_remove(w.sched, q));
    end(&w, q);
    close_world(&w);
}

static void pipeline_steps_share_out_those_that_draw(void **state)
{
    struct world w;
    int tok[64];
    (void)state;
    struct sched_limits l = small;
    l.flight = 4;
    open_world(&w, 128, 200, l);
    for (int i = 0; i < 8; i++) {
        fill(tok, 64, i);
        add(&w, tok, 6, 60, 0, 0);
    }
    for (int i = 0; i < 24; i++)
        turn(&w, 64);
    while (w.n_flying < 4)
        turn(&w, 64);
    for (int i = 0; i < 4; i++)
        assert_int_equal(w.flying[i]->decode_rows, 2);
    run_all(&w, 64);
    assert_int_equal(w.finished, 8);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_loads_end_with_the_answers_of_one_alone),
        cmocka_unit_test(a_shared_prompt_is_computed_once_even_when_all_come_together),
        cmocka_unit_test(another_salt_shares_nothing),
        cmocka_unit_test(a_long_prompt_takes_no_more_than_its_part_of_a_step),
        cmocka_unit_test(clients_share_and_priority_goes_first),
        cmocka_unit_test(the_logits_of_a_whole_prompt_can_be_wanted),
        cmocka_unit_test(pipeline_steps_share_out_those_that_draw),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
