/* sample.c - see sample.h. */
#include "run/sample.h"
#include "dev/weigh.h"

#include <math.h>

const struct sampling sampling_greedy = {.top_p = 1, .repetition = 1};

/* ------------------------------------------------------------------------------- choosing */

struct word {
    float logit;
    int id;
};

struct scratch {
    struct word *word;
    float *weight;
    double *sum;
};

static struct scratch scratch_of(void *at, int n)
{
    struct scratch s = {.sum = at};
    s.word = (struct word *)(s.sum + (n + WEIGH_BLOCK - 1) / WEIGH_BLOCK);
    s.weight = (float *)(s.word + n);
    return s;
}

size_t sample_scratch(int n)
{
    size_t blocks = ((size_t)n + WEIGH_BLOCK - 1) / WEIGH_BLOCK;
    return round_up(blocks * sizeof(double) + (size_t)n * (sizeof(struct word) + sizeof(float)),
                    64);
}

int sampling_check(const struct sampling *s, struct err *e)
{
    if (!(s->temperature >= 0 && s->temperature <= 100))
        return err_set(e, -EINVAL, "temperature %g: 0 (greedy) to 100", (double)s->temperature);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return err_set(e, -EINVAL, "top-p %g: above 0, at most 1 (off)", (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return err_set(e, -EINVAL, "min-p %g: 0 (off) to 1", (double)s->min_p);
    if (s->top_k < 0)
        return err_set(e, -EINVAL, "top-k %d: 0 (off) or more", s->top_k);
    if (!(s->repetition > 0 && s->repetition <= 10))
        return err_set(e, -EINVAL, "repetition penalty %g: above 0, at most 10; 1 is off",
                       (double)s->repetition);
    if (!(fabsf(s->presence) <= 10 && fabsf(s->frequency) <= 10))
        return err_set(e, -EINVAL, "presence and frequency penalties: -10 to 10; 0 is off");
    return 0;
}

/* Presence counts once a token, frequency every time: so the first sight of a generated token
 * subtracts both. Sorting would be needed to find firsts; instead counts live in scratch. */
static void penalise(float *logits, int n, const struct sampling *s, const int *seen, int n_seen,
                     int n_prompt, int *times)
{
    if (!n_seen || (s->repetition == 1 && s->presence == 0 && s->frequency == 0))
        return;
    memset(times, 0, (size_t)n * sizeof(*times)); /* 2 * generated, + 1 when in the prompt only */
    for (int i = 0; i < n_seen; i++)
        if (seen[i] >= 0 && seen[i] < n)
            times[seen[i]] = i < n_prompt ? times[seen[i]] | 1 : times[seen[i]] + 2;
    for (int i = 0; i < n; i++) {
        if (!times[i])
            continue;
        logits[i] = logits[i] > 0 ? logits[i] / s->repetition : logits[i] * s->repetition;
        if (times[i] >= 2)
            logits[i] -= s->presence + s->frequency * (float)(times[i] / 2);
    }
}

static bool before(struct word a, struct word b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static int by_rank(const void *a, const void *b)
{
    const struct word *x = a, *y = b;
    return before(*x, *y) ? -1 : before(*y, *x);
}

/* Move the k words that come first to the front, in any order (Hoare's selection). */
static void select_first(struct word *w, int n, int k)
{
    int lo = 0, hi = n - 1;
    while (lo < hi) {
        struct word pivot = w[lo + (hi - lo) / 2];
        int i = lo, j = hi;
        while (i <= j) {
            while (before(w[i], pivot))
                i++;
            while (before(pivot, w[j]))
                j--;
            if (i <= j) {
                struct word swap = w[i];
                w[i++] = w[j];
                w[j--] = swap;
            }
        }
        if (k - 1 <= j)
            hi = j;
        else if (k - 1 >= i)
            lo = i;
        else
            return;
    }
}

/* Words that may be drawn: few of a whole vocabulary carry all of the probability that counts. */
struct choice {
    const float *logits, *weight; /* [n]; weight: e^((logit - most) / temperature) */
    int n;
    double total; /* of all weights; sums of weights are exact (dev/weigh.h) */
    struct word *word;
    int n_word;  /* chosen so far */
    double mass; /* of their weights */
};

/* Choose the words of at least that weight. */
static void choose_above(struct choice *c, float least)
{
    c->n_word = 0, c->mass = 0;
    for (int from = 0; from < c->n; from += 16) {
        int end = min_int(from + 16, c->n), any = 0;
        for (int i = from; i < end; i++)
            any |= c->weight[i] >= least;
        for (int i = from; any && i < end; i++)
            if (c->weight[i] >= least) {
                c->word[c->n_word++] = (struct word){c->logits[i], i};
                c->mass += (double)c->weight[i];
            }
    }
}

/* Choose so many of the likeliest that they are `count` at least and weigh `mass`, or all that
 * weigh anything. */
static void choose_head(struct choice *c, int count, double mass)
{
    const float smallest = WEIGHT_UNIT;
    for (float least = 1e-2f;; least *= 1e-3f) {
        bool all = least <= smallest;
        choose_above(c, all ? smallest : least);
        if (all || (c->n_word >= count && c->mass >= mass))
            return;
    }
}

static void keep_first(struct choice *c, int n)
{
    c->n_word = n, c->mass = 0;
    for (int i = 0; i < n; i++)
        c->mass += (double)c->weight[c->word[i].id];
}

/* Keep the k first, in order. */
static void cut_top_k(struct choice *c, int k)
{
    k = min_int(k, c->n_word);
    select_first(c->word, c->n_word, k);
    qsort(c->word, (size_t)k, sizeof(*c->word), by_rank);
    keep_first(c, k);
}

/* Keep the fewest first words that weigh `enough`, in order; at least one. */
static void cut_top_p(struct choice *c, double enough)
{
    int n = c->n_word;
    for (int k = min_int(n, 64);; k = min_int(n, 8 * k)) {
        double sum = 0;
        select_first(c->word, n, k);
        qsort(c->word, (size_t)k, sizeof(*c->word), by_rank);
        for (int i = 0; i < k; i++) {
            sum += (double)c->weight[c->word[i].id];
            if (sum >= enough) {
                keep_first(c, i + 1);
                return;
            }
        }
        if (k == n)
            return;
    }
}

/* Keep the words at least min_p times as likely as the first; their order stays. */
static void cut_min_p(struct choice *c, float min_p)
{
    int kept = 0;
    for (int i = 0; i < c->n_word; i++)
        if (c->weight[c->word[i].id] >= min_p)
            c->word[kept++] = c->word[i];
    keep_first(c, kept);
}

/* The word under u of the mass. */
static int draw_among(const struct choice *c, double u)
{
    double sum = 0;
    for (int i = 0; i < c->n_word; i++) {
        sum += (double)c->weight[c->word[i].id];
        if (sum > u * c->mass)
            return c->word[i].id;
    }
    return c->word[c->n_word - 1].id;
}

/* The same of all words, in the order of their ids. */
static int draw_of_all(const struct choice *c, const double *sum, double u)
{
    double before = 0, want = u * c->total;
    int block = 0, last = -1;
    for (; (block + 1) * WEIGH_BLOCK < c->n && before + sum[block] <= want; block++)
        before += sum[block];
    for (int i = block * WEIGH_BLOCK; i < c->n; i++) {
        if (c->weight[i] <= 0)
            continue;
        last = i;
        before += (double)c->weight[i];
        if (before > want)
            return i;
    }
    while (last < 0 && block-- > 0) /* rounding: nothing is left behind the last block */
        for (int i = block * WEIGH_BLOCK; i < (block + 1) * WEIGH_BLOCK; i++)
            last = c->weight[i] > 0 ? i : last;
    return last;
}

static int first_of(const float *logits, int n, float most)
{
    for (int from = 0; from < n; from += 64) {
        int end = min_int(from + 64, n), any = 0;
        for (int i = from; i < end; i++)
            any |= logits[i] == most;
        for (int i = from; any && i < end; i++)
            if (logits[i] == most)
                return i;
    }
    return -1;
}

static void restrict_to(float *logits, int n, const struct sample_rules *rules)
{
    for (int i = 0; i < rules->n_bias; i++)
        if (rules->bias[i].token >= 0 && rules->bias[i].token < n)
            logits[rules->bias[i].token] += rules->bias[i].value;
    for (int w = 0; rules->allow && w * 64 < n; w++) {
        uint64_t allow = rules->allow[w];
        for (int i = w * 64; allow != UINT64_MAX && i < min_int(n, w * 64 + 64); i++)
            if (!(allow >> (i % 64) & 1))
                logits[i] = -INFINITY;
    }
}

int sample(float *logits, int n, const struct sampling *s, const struct sample_rules *rules,
           uint64_t position, void *scratch)
{
    penalise(logits, n, s, rules->seen, rules->n_seen, rules->n_prompt, scratch);
    restrict_to(logits, n, rules);
    float most = weigh_most(logits, n);
    if (!isfinite(most))
        return -1;
    if (s->temperature < SAMPLE_COLDEST)
        return first_of(logits, n, most);

    struct scratch at = scratch_of(scratch, n);
    struct choice c = {.logits = logits, .weight = at.weight, .n = n, .word = at.word};
    weigh(logits, n, most, 1 / s->temperature, at.weight, at.sum);
    for (int b = 0; b * WEIGH_BLOCK < n; b++)
        c.total += at.sum[b];

    double u = sample_draw(s->seed, position);
    bool top_k = s->top_k > 0 && s->top_k < n, top_p = s->top_p<1, min_p = s->min_p> 0;
    if (!top_k && !top_p && !min_p)
        return draw_of_all(&c, at.sum, u);
    if (top_k || top_p)
        choose_head(&c, top_k ? s->top_k : 1, top_k ? 0 : (double)s->top_p * c.total);
    else
        choose_above(&c, s->min_p);
    if (top_k)
        cut_top_k(&c, s->top_k);
    if (top_p)
        cut_top_p(&c, (double)s->top_p * (top_k ? c.mass : c.total));
    if (min_p)
        cut_min_p(&c, s->min_p);
    return draw_among(&c, u);
}

/* ------------------------------------------------------------------------------- logprobs */

double sample_top(const float *logits, int n, int n_top, struct logprobs *to)
{
    int have = 0;
    must(n_top >= 0 && n_top <= SAMPLE_TOP && n > 0);
    float most = logits[0];
    for (int i = 0; i < n; i++) {
        struct word at = {logits[i], i};
        most = logits[i] > most ? logits[i] : most;
        if (have == n_top && (!n_top || logits[i] <= to->top[have - 1].logprob))
            continue;
        int k = have < n_top ? have++ : n_top - 1;
        for (; k > 0 && before(at, (struct word){to->top[k - 1].logprob, to->top[k - 1].token});
             k--)
            to->top[k] = to->top[k - 1];
        to->top[k] = (struct token_logprob){.token = i, .logprob = logits[i]};
    }
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += exp((double)(logits[i] - most));
    double log_sum = (double)most + log(sum);
    to->n_top = have;
    for (int k = 0; k < have; k++) {
        to->top[k].rank = k + 1;
        to->top[k].logprob = (float)((double)to->top[k].logprob - log_sum);
    }
    return log_sum;
}

void sample_chosen(const float *logits, int n, int token, double log_sum, struct logprobs *to)
{
    int rank = 1;
    must(token >= 0 && token < n);
    for (int i = 0; i < n; i++)
        rank += before((struct word){logits[i], i}, (struct word){logits[token], token});
    to->chosen = (struct token_logprob){
        .token = token, .logprob = (float)((double)logits[token] - log_sum), .rank = rank};
}
