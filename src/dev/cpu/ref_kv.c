/* ref_kv.c - the definition of the operations on the KV cache, storing and attention, in plain C.
 *
 * As ref.c: nothing is contracted, operands of max and signs of zeros are chosen such that all
 * instruction sets agree.
 */
#include "dev/cpu/cpu.h"

#include <math.h>

/* ------------------------------------------------------------------------------- the cache */

static float kv_at(const struct kv *c, const void *at, size_t i)
{
    return c->type == NUM_F32 ? ((const float *)at)[i] : bf16_to_f32(((const uint16_t *)at)[i]);
}

static void kv_put(const struct kv *c, void *at, size_t i, float f)
{
    if (c->type == NUM_F32)
        ((float *)at)[i] = f;
    else
        ((uint16_t *)at)[i] = f32_to_bf16(f);
}

/* The value's padding is written too, so that a whole vector of it may be read. */
static void store_floats(const struct kv *c, char *page, int lane, const float *k, const float *v)
{
    int dim = c->head_dim, wide = (int)round_up((size_t)dim, 16);
    char *value = page + kv_key_bytes(c->type, dim);
    for (int i = 0; i < dim; i++)
        kv_put(c, page, (size_t)i * KV_PAGE + (size_t)lane, k[i]);
    for (int i = 0; i < wide; i++)
        kv_put(c, value, (size_t)lane * (size_t)wide + (size_t)i, i < dim ? v[i] : 0.0f);
}

/* The byte of number i of the key at a lane of the page, and of the value. */
static uint8_t *key_byte(char *page, int lane, int i)
{
    return (uint8_t *)page + KV_SCALES + (i / 4 * KV_PAGE + lane) * 4 + kv_byte(i % 4);
}

static uint8_t *value_byte(const struct kv *c, char *page, int lane, int i)
{
    int wide = (int)round_up((size_t)c->head_dim, 16);
    uint8_t *values = (uint8_t *)page + KV_SCALES + kv_key_bytes(NUM_INT8, c->head_dim);
    return values + (lane / 4 * wide + i) * 4 + kv_byte(lane % 4);
}

/* Ranks that share a head store it at the same time: nothing but final bytes may be written. */
static void store_bytes(const struct kv *c, char *page, int lane, const float *k, const float *v)
{
    uint16_t *scale = (uint16_t *)page, key_scale, value_scale;
    uint8_t key[KV_INT8_DIM], value[KV_INT8_DIM];
    kv_round(k, c->head_dim, key, &key_scale);
    kv_round(v, c->head_dim, value, &value_scale);
    scale[lane] = key_scale, scale[KV_PAGE + lane] = value_scale;
    for (int i = 0; i < c->head_dim; i++) {
        *key_byte(page, lane, i) = key[i];
        *value_byte(c, page, lane, i) = value[i];
    }
}

struct storing {
    const struct kv *cache;
    const struct mat *k, *v;
    const int *slot;
};

static void store_share(void *arg, int thread, int n)
{
    const struct storing *s = arg;
    const struct kv *c = s->cache;
    struct span mine = share(s->k->n, n, thread);
    for (int t = mine.lo; t < mine.hi; t++)
        for (int j = 0; j < c->n_head; j++) {
            int slot = s->slot[t];
            char *page =
                c->at + (size_t)(slot / KV_PAGE) * c->page_bytes + (size_t)j * c->head_bytes;
            const float *key = mat_row(s->k, t) + j * c->head_dim;
            const float *value = mat_row(s->v, t) + j * c->head_dim;
            if (c->type == NUM_INT8)
                store_bytes(c, page, slot % KV_PAGE, key, value);
            else
                store_floats(c, page, slot % KV_PAGE, key, value);
        }
}

/* Few rows are not worth waking the other threads. */
void cpu_store(struct dev *d, const struct kv *c, const struct mat *k, const struct mat *v,
               const int *slot)
{
    struct storing s = {c, k, v, slot};
    crew_run(k->n < 16 ? NULL : cpu_of(d)->crew, store_share, &s);
}

/* ------------------------------------------------------------------------------- attention */

/* What is known of softmax(scores) * values after some of the keys. */
struct soft {
    float max, sum;
    float *out; /* [head_dim] */
};

static void soft_clear(struct soft *s, int dim)
{
    s->max = -INFINITY, s->sum = 0;
    memset(s->out, 0, (size_t)dim * sizeof(float));
}

/* One row of queries, the keys it reads. */
struct row {
    const struct kv *cache;
    const struct batch *batch;
    const float *query;
    int seq, head;
    float scale;
    int16_t whole[KV_INT8_DIM]; /* for an int8 cache: the query and its scale */
    float unit;
};

static float score_bytes(const struct row *r, char *page, int lane)
{
    const uint16_t *scale = (const uint16_t *)page;
    int32_t s = 0;
    for (int i = 0; i < r->cache->head_dim; i++)
        s += (*key_byte(page, lane, i) - 128) * r->whole[i];
    return (float)s * (bf16_to_f32(scale[lane]) * (r->unit * r->scale));
}

static float score(const struct row *r, int pos)
{
    char *key = kv_page(r->cache, r->batch, r->seq, pos, r->head);
    float s = 0;
    if (r->cache->type == NUM_INT8)
        return score_bytes(r, key, pos % KV_PAGE);
    for (int i = 0; i < r->cache->head_dim; i++)
        s = fmaf(kv_at(r->cache, key, (size_t)(i * KV_PAGE + pos % KV_PAGE)), r->query[i], s);
    return s * r->scale;
}

/* out += the values at `keys`, of one block, times p, in ascending order. */
static void add_floats(const struct row *r, struct span keys, const float *p, float *out)
{
    int dim = r->cache->head_dim, wide = (int)round_up((size_t)dim, 16);
    for (int i = 0; i < len(keys); i++) {
        int pos = keys.lo + i, lane = pos % KV_PAGE;
        const char *value =
            kv_page(r->cache, r->batch, r->seq, pos, r->head) + kv_key_bytes(r->cache->type, dim);
        for (int k = 0; k < dim; k++)
            out[k] = fmaf(kv_at(r->cache, value, (size_t)(lane * wide + k)), p[i], out[k]);
    }
}

static void add_bytes(const struct row *r, struct span keys, const float *p, float *out)
{
    float weight[KV_BLOCK], unit;
    int16_t whole[KV_BLOCK];
    char *page[KV_BLOCK];
    for (int i = 0; i < len(keys); i++) {
        int pos = keys.lo + i;
        page[i] = kv_page(r->cache, r->batch, r->seq, pos, r->head);
        weight[i] = p[i] * bf16_to_f32(((const uint16_t *)page[i])[KV_PAGE + pos % KV_PAGE]);
    }
    kv_round_factor(weight, len(keys), whole, &unit);
    for (int k = 0; k < r->cache->head_dim; k++) {
        int32_t sum = 0;
        for (int i = 0; i < len(keys); i++)
            sum += (*value_byte(r->cache, page[i], (keys.lo + i) % KV_PAGE, k) - 128) * whole[i];
        out[k] = fmaf((float)sum, unit, out[k]);
    }
}

/* Positions [keys.lo, keys.hi) of one block of KV_BLOCK. */
static void block(struct soft *s, const struct row *r, struct span keys)
{
    float p[KV_BLOCK], max = s->max, sum[16] = {0};
    for (int i = 0; i < len(keys); i++) {
        p[i] = score(r, keys.lo + i);
        max = p[i] > max ? p[i] : max;
    }
    float keep = cpu_exp(s->max - max);
    for (int i = 0; i < r->cache->head_dim; i++)
        s->out[i] *= keep;
    for (int i = 0; i < len(keys); i++) {
        p[i] = cpu_exp(p[i] - max);
        sum[(keys.lo + i) % KV_PAGE] += p[i];
    }
    if (r->cache->type == NUM_INT8)
        add_bytes(r, keys, p, s->out);
    else
        add_floats(r, keys, p, s->out);
    s->sum = fmaf(s->sum, keep, cpu_join(sum));
    s->max = max;
}

/* all = all joined by s, which holds later keys. */
static void merge(struct soft *all, const struct soft *s, int dim)
{
    float max = all->max > s->max ? all->max : s->max;
    float a = cpu_exp(all->max - max), b = cpu_exp(s->max - max);
    for (int i = 0; i < dim; i++)
        all->out[i] = fmaf(all->out[i], a, s->out[i] * b);
    all->sum = fmaf(all->sum, a, s->sum * b);
    all->max = max;
}

static void attend_row(const struct row *r, struct span keys, struct soft *all, struct soft *s)
{
    int dim = r->cache->head_dim;
    soft_clear(all, dim);
    for (int at = keys.lo; at < keys.hi;) {
        int end = min_int(keys.hi, (at / KV_SEGMENT + 1) * KV_SEGMENT);
        soft_clear(s, dim);
        while (at < end) {
            int next = min_int(end, (at / KV_BLOCK + 1) * KV_BLOCK);
            block(s, r, (struct span){at, next});
            at = next;
        }
        merge(all, s, dim);
    }
    float one = 1 / all->sum;
    for (int i = 0; i < dim; i++)
        all->out[i] *= one;
}

void cpu_attend(struct dev *d, struct mat *y, const struct mat *q, const struct kv *c,
                const struct heads *h, const struct batch *b)
{
    must(h->head_dim == c->head_dim && h->head_dim <= cpu_of(d)->max_dim);
    for (int t = 0; t < q->n; t++)
        for (int i = 0; i * h->head_dim < q->dim; i++) {
            int at = i * h->head_dim;
            struct row r = {.cache = c,
                            .batch = b,
                            .query = mat_row(q, t) + at,
                            .seq = b->seq[t],
                            .head = (h->q_first + i) / h->group - h->kv_first,
                            .scale = h->scale};
            if (c->type == NUM_INT8)
                kv_round_factor(r.query, h->head_dim, r.whole, &r.unit);
            struct soft all = {.out = mat_row(y, t) + at}, s = {.out = cpu_of(d)->x};
            attend_row(&r, (struct span){window_begin(h, b->pos[t]), b->pos[t] + 1}, &all, &s);
        }
}
