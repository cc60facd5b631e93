/* sample.c - see sample.h. */
#include "run/sample.h"

#include <math.h>

const struct sampling sampling_greedy = {.top_p = 1, .repetition = 1};

/* ------------------------------------------------------------------------------- the draw */

/* One block of Philox4x32-10. */
static void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]}, k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53 * c[0], b = (uint64_t)0xCD9E8D57 * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b,
                            (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a};
        memcpy(c, next, sizeof(c));
        k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    memcpy(out, c, sizeof(c));
}

double sample_draw(uint64_t seed, uint64_t position)
{
    uint32_t counter[4] = {(uint32_t)position, (uint32_t)(position >> 32), 0, 0}, out[4];
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    philox(counter, key, out);
    uint64_t bits = (uint64_t)out[0] << 21 ^ out[1] >> 11; /* 53 bits */
    return (double)(bits & ((1ull << 53) - 1)) * 0x1p-53;
}

/* ------------------------------------------------------------------------------- choosing */

struct word {
    float logit;
    int id;
};

size_t sample_scratch(int n) { return (size_t)n * sizeof(struct word); }

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

static int greedy(const float *logits, int n)
{
    int best = -1;
    for (int i = 0; i < n; i++) {
        if (isnan(logits[i]))
            return -1;
        if (best < 0 || logits[i] > logits[best])
            best = i;
    }
    return best >= 0 && isfinite(logits[best]) ? best : -1;
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

/* Sort so many of the first words that `enough` of the probability is among them; all when that
 * takes many. Returns how many are sorted. */
static int sort_head(struct word *w, int n, double total, float top, double enough)
{
    int k = min_int(n, 64);
    for (;; k = min_int(n, 8 * k)) {
        select_first(w, n, k);
        qsort(w, (size_t)k, sizeof(*w), by_rank);
        double sum = 0;
        for (int i = 0; i < k && k < n; i++)
            sum += exp((double)(w[i].logit - top));
        if (k == n || sum >= enough * total)
            return k;
    }
}

/* Keep the fewest first words whose probability reaches top_p; at least one. */
static int cut_top_p(const struct word *w, int n, double total, float top, float top_p)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += exp((double)(w[i].logit - top));
        if (sum >= (double)top_p * total)
            return i + 1;
    }
    return n;
}

static double total_of(const struct word *w, int n, float top)
{
    double total = 0;
    for (int i = 0; i < n; i++)
        total += exp((double)(w[i].logit - top));
    return total;
}

/* Keep the words at least min_p times as likely as the first; their order stays. */
static int cut_min_p(struct word *w, int n, float top, float min_p)
{
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (exp((double)(w[i].logit - top)) >= (double)min_p)
            w[kept++] = w[i];
    return kept;
}

/* The word under u of the total; only as much of the order as u can reach is worked out. */
static int draw(struct word *w, int n, float top, double u)
{
    double total = total_of(w, n, top), sum = 0;
    int sorted = sort_head(w, n, total, top, u);
    for (int i = 0; i < sorted; i++) {
        sum += exp((double)(w[i].logit - top));
        if (sum > u * total)
            return w[i].id;
    }
    return w[sorted - 1].id;
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
    int best = greedy(logits, n);
    if (s->temperature == 0 || best < 0)
        return best;

    struct word *w = scratch;
    float top = logits[best] / s->temperature;
    for (int i = 0; i < n; i++)
        w[i] = (struct word){logits[i] / s->temperature, i};

    if (s->top_k > 0 && s->top_k < n) {
        select_first(w, n, s->top_k);
        n = s->top_k;
    }
    if (s->top_p < 1) {
        double total = total_of(w, n, top);
        n = cut_top_p(w, sort_head(w, n, total, top, (double)s->top_p), total, top, s->top_p);
    }
    if (s->min_p > 0)
        n = cut_min_p(w, n, top, s->min_p);
    return draw(w, n, top, sample_draw(s->seed, position));
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
