/* draws.c - see draws.h. */
#include "dev/cuda/draws.h"

static size_t most_seen(int max_seq, int ctx)
{
    return min_size((size_t)max_seq * (size_t)ctx, DRAW_SEEN);
}

static size_t words_of_bits(int words) { return ((size_t)words + 63) / 64; }

size_t draws_bytes(int max_out, int max_seq, int ctx, int words)
{
    const size_t rows = (size_t)max_out;
    return rows * sizeof(struct gpu_draw_row) + round_up(most_seen(max_seq, ctx) * sizeof(int), 8) +
           (size_t)max_seq * SAMPLE_BIAS * sizeof(struct gpu_bias) +
           rows * words_of_bits(words) * sizeof(uint64_t);
}

static bool penalises(const struct sampling *s)
{
    return s->repetition != 1 || s->presence != 0 || s->frequency != 0;
}

static struct gpu_draw_row put_row(const struct draw_row *r, int words)
{
    const struct sampling *s = &r->sampling;
    const bool warm = s->temperature >= SAMPLE_COLDEST;
    return (struct gpu_draw_row){.u = warm ? sample_draw(s->seed, r->position) : 0,
                                 .scale = warm ? 1 / s->temperature : 0,
                                 .top_p = s->top_p,
                                 .min_p = s->min_p,
                                 .repetition = s->repetition,
                                 .presence = s->presence,
                                 .frequency = s->frequency,
                                 .top_k = s->top_k < words ? s->top_k : 0,
                                 .seen = r->seen,
                                 .n_seen = penalises(s) ? r->n_seen : 0,
                                 .n_prompt = r->n_prompt,
                                 .bias = r->bias,
                                 .n_bias = r->n_bias,
                                 .allow = -1};
}

/* So much of the arrays is used by rows that are drawn here. */
static void arrays_used(const struct draw_rows *d, int *seen, int *bias)
{
    *seen = *bias = 0;
    for (int i = 0; i < d->n; i++) {
        const struct draw_row *r = &d->row[i];
        if (draw_on_host(d, i))
            continue;
        if (penalises(&r->sampling) && r->n_seen)
            *seen = max_int(*seen, r->seen + r->n_seen);
        if (r->n_bias)
            *bias = max_int(*bias, r->bias + r->n_bias);
    }
}

size_t draws_put(struct gpu_draw_rows *out, char *to, const char *there, const struct draw_rows *d,
                 int words)
{
    const size_t rows = (size_t)d->n * sizeof(struct gpu_draw_row);
    struct gpu_draw_row *row = (struct gpu_draw_row *)(void *)to;
    const char *arrays = there + rows;
    char *at = to + rows;
    int seen, bias;
    arrays_used(d, &seen, &bias);
    const size_t before = ((size_t)seen + 1) / 2, bits = words_of_bits(words);
    size_t used = before + (size_t)bias;
    *out = (struct gpu_draw_rows){.row = (const void *)there,
                                  .seen = (const void *)arrays,
                                  .bias = (const void *)arrays,
                                  .allow = (const void *)arrays};
    if (seen)
        memcpy(at, d->seen, (size_t)seen * sizeof(int));
    if (bias)
        memcpy(at + before * 8, d->bias, (size_t)bias * sizeof(*d->bias));
    for (int i = 0; i < d->n; i++) {
        row[i] = put_row(&d->row[i], words);
        row[i].bias += (int)before;
        row[i].skip = draw_on_host(d, i);
        if (row[i].skip)
            continue;
        if (d->row[i].restricted) {
            memcpy(at + used * 8, d->allow + (size_t)i * d->allow_words, bits * 8);
            row[i].allow = (int)used;
            used += bits;
        }
        out->any = true;
        out->rules |= row[i].n_seen || row[i].n_bias;
        out->warm |= row[i].scale > 0;
        out->ranked |= row[i].scale > 0 && (row[i].top_k > 0 || row[i].top_p < 1);
    }
    return rows + used * 8;
}
