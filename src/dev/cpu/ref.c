/* ref.c - the definition of every operation, in plain C; of those on the KV cache, in ref_kv.c.
 * Slow; kern.inc gives the same bits faster.
 *
 * Every multiplication that is added to something is written as fmaf() or as two roundings on
 * purpose: the compiler contracts nothing (-ffp-contract=off). The operands of max and the signs
 * of zeros are chosen such that all instruction sets agree; only the payload of a NaN may differ.
 */
#include "dev/cpu/cpu.h"

#include <math.h>

/* ------------------------------------------------------------------------------- helpers */

static float power_of_2(float n) /* n whole, -126 .. 127 */
{
    uint32_t u = (uint32_t)((int32_t)n + 127) << 23;
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

float cpu_exp(float x)
{
    x = EXP_MIN > x ? EXP_MIN : x;
    x = EXP_MAX < x ? EXP_MAX : x;
    if (x != x)
        return x;
    float n = fmaf(x, EXP_LOG2E, EXP_ROUND) - EXP_ROUND;
    float r = fmaf(n, -EXP_LN2_LO, fmaf(n, -EXP_LN2_HI, x));
    float q = fmaf(fmaf(fmaf(fmaf(EXP_Q4, r, EXP_Q3), r, EXP_Q2), r, EXP_Q1), r, EXP_Q0);
    float e = fmaf(r * r, q, r) + 1;
    float half = (n * 0.5f + EXP_ROUND) - EXP_ROUND; /* in two steps: 2^n may be subnormal */
    return e * power_of_2(half) * power_of_2(n - half);
}

float cpu_join(float s[16])
{
    for (int h = 8; h; h /= 2)
        for (int l = 0; l < h; l++)
            s[l] += s[l + h];
    return s[0];
}

/* ------------------------------------------------------------------------------- copies */

static const struct part *part_of_row(const struct weight *w, int *row)
{
    for (int i = 0; i < w->n_part; i++) {
        if (*row < w->part[i].rows)
            return &w->part[i];
        *row -= w->part[i].rows;
    }
    must(!"a row outside all parts");
}

void cpu_embed(struct dev *d, struct mat *y, const struct weight *w, int first, const int *tok)
{
    (void)d;
    for (int t = 0; t < y->n; t++) {
        int row = tok[t] - first;
        if (row < 0 || row >= w->rows) {
            memset(mat_row(y, t), 0, (size_t)y->dim * sizeof(float));
            continue;
        }
        const struct part *p = part_of_row(w, &row);
        part_row(p, w->type, row, mat_row(y, t));
    }
}

void cpu_pick(struct dev *d, struct mat *y, const struct mat *x, const int *row)
{
    (void)d;
    for (int i = 0; i < y->n; i++)
        memmove(mat_row(y, i), mat_row(x, row[i]), (size_t)y->dim * sizeof(float));
}

/* ------------------------------------------------------------------------------- by element */

static float squares(const float *x, int n)
{
    float s[16] = {0};
    for (int i = 0; i < n; i++)
        s[i % 16] = fmaf(x[i], x[i], s[i % 16]);
    return cpu_join(s);
}

static void norm_run(float *to, const float *from, const float *scale, int n, float mean, float eps)
{
    float r = 1 / sqrtf(mean + eps);
    for (int i = 0; i < n; i++)
        to[i] = from[i] * r * scale[i];
}

static void ref_norm(struct dev *d, struct mat *y, const struct mat *x, const struct mat *w,
                     float eps)
{
    (void)d;
    for (int t = 0; t < x->n; t++)
        for (int at = 0; at < x->dim; at += w->dim) {
            const float *from = mat_row(x, t) + at;
            norm_run(mat_row(y, t) + at, from, w->at, w->dim, squares(from, w->dim) / (float)w->dim,
                     eps);
        }
}

float cpu_tree_sum(const float *leaf, int lo, int hi)
{
    int mid = lo + (hi - lo) / 2;
    return hi - lo == 1 ? leaf[lo] : cpu_tree_sum(leaf, lo, mid) + cpu_tree_sum(leaf, mid, hi);
}

static void ref_squares(struct dev *d, struct planes *y, int column, const struct mat *x,
                        const struct runs *runs)
{
    float leaf[SHARES_MAX];
    struct span tree[PLANES];
    (void)d;
    must(tree_split((struct span){runs->first, runs->first + runs->n}, tree) == y->n);
    for (int t = 0; t < x->n; t++) {
        for (int i = 0; i < runs->n; i++)
            leaf[i] = squares(mat_row(x, t) + runs->begin[i], runs->begin[i + 1] - runs->begin[i]);
        for (int i = 0; i < y->n; i++)
            mat_row(&y->at[i], t)[column] =
                cpu_tree_sum(leaf, tree[i].lo - runs->first, tree[i].hi - runs->first);
    }
}

static void ref_norm_by(struct dev *d, struct mat *x, const struct mat *sum, int column,
                        const struct mat *w, int dim, float eps)
{
    (void)d;
    for (int t = 0; t < x->n; t++)
        norm_run(mat_row(x, t), mat_row(x, t), w->at, x->dim, mat_row(sum, t)[column] / (float)dim,
                 eps);
}

static void ref_clip(struct dev *d, struct mat *x, float limit)
{
    (void)d;
    for (int t = 0; t < x->n; t++)
        for (int i = 0; i < x->dim; i++) {
            float *at = mat_row(x, t) + i;
            *at = -limit > *at ? -limit : *at;
            *at = limit < *at ? limit : *at;
        }
}

static void ref_add(struct dev *d, struct mat *x, const struct mat *y, const struct mat *bias)
{
    (void)d;
    for (int t = 0; t < x->n; t++) {
        float *to = mat_row(x, t);
        const float *from = mat_row(y, t), *more = bias->n ? bias->at : NULL;
        for (int i = 0; i < x->dim; i++) {
            to[i] += from[i];
            if (more)
                to[i] += more[i];
        }
    }
}

static void ref_rope(struct dev *d, struct mat *x, int head_dim, const struct mat *angle)
{
    int half = head_dim / 2;
    (void)d;
    for (int t = 0; t < x->n; t++)
        for (int at = 0; at < x->dim; at += head_dim) {
            float *lo = mat_row(x, t) + at, *hi = lo + half;
            const float *cosine = mat_row(angle, t), *sine = cosine + half;
            for (int i = 0; i < half; i++) {
                float a = lo[i], b = hi[i];
                lo[i] = fmaf(a, cosine[i], -(b * sine[i]));
                hi[i] = fmaf(b, cosine[i], a * sine[i]);
            }
        }
}

static void ref_swiglu(struct dev *d, struct mat *gate, const struct mat *up)
{
    (void)d;
    for (int t = 0; t < gate->n; t++) {
        float *g = mat_row(gate, t);
        const float *u = mat_row(up, t);
        for (int i = 0; i < gate->dim; i++)
            g[i] = g[i] / (1 + cpu_exp(-g[i])) * u[i];
    }
}

/* ------------------------------------------------------------------------------- products */

/* One chain of fused multiply-adds, ascending. A part that was padded to whole pairs counts the
 * missing column as 0 * 0: that turns a sum of -0 into +0. */
static float dot(const float *w, const float *x, int cols, bool padded)
{
    float s = 0;
    for (int k = 0; k < cols; k++)
        s = fmaf(w[k], x[k], s);
    return padded ? fmaf(0, 0, s) : s;
}

/* Whole numbers: the products of a group are added exactly, the groups ascending in f32. */
static float dot_quant(const struct part *p, enum num type, int row, const float *x)
{
    struct quant q = num_quant(type);
    const uint8_t *block =
        (const uint8_t *)p->at + (size_t)(row / PACK_ROWS) * pack_block_bytes(type, p->cols);
    const uint16_t *scale = (const uint16_t *)block;
    const uint16_t *least = scale + pack_scale_bytes(type, p->cols) / sizeof(*least);
    const uint8_t *number = block + pack_head_bytes(type, p->cols);
    float s = 0;
    for (int lo = 0, i = row % PACK_ROWS; lo < p->cols; lo += q.group, i += PACK_ROWS) {
        int n = min_int(q.group, p->cols - lo);
        int8_t xq[128];
        float x_scale;
        int32_t total, sum = 0;
        quant_x(x + lo, n, xq, &x_scale, &total);
        for (int c = lo; c < lo + n; c++) {
            int word = q.bits == 4 ? c / 8 : c / 4, shift = q.bits == 4 && c % 8 >= 4 ? 4 : 0;
            int w = number[(word * PACK_ROWS + row % PACK_ROWS) * 4 + c % 4] >> shift;
            sum += (w & ((1 << q.bits) - 1)) * xq[c - lo];
        }
        sum -= q.zero * total;
        s = fmaf((float)sum, f16_to_f32(scale[i]) * x_scale, s);
        if (q.least)
            s = fmaf(f16_to_f32(least[i]), x_scale * (float)total, s);
    }
    return s;
}

/* e4m3: a chain for every group, times its scale; groups ascending. */
static float dot_fp8(const struct part *p, int row, const float *x, float *w)
{
    const int group = num_quant(NUM_FP8).group;
    float s = 0;
    fp8_numbers(p, row, w);
    for (int lo = 0; lo < p->cols; lo += group) {
        int n = min_int(group, p->cols - lo);
        s = fmaf(dot(w + lo, x + lo, n, n % 8), fp8_scale(p, row, lo / group), s);
    }
    return s;
}

/* Row `row` of a part times x; `scratch` holds a row. */
static float dot_part(const struct part *p, enum num type, int row, const float *x, float *scratch)
{
    if (type == NUM_FP8)
        return dot_fp8(p, row, x, scratch);
    if (num_quant(type).bits)
        return dot_quant(p, type, row, x);
    part_row(p, type, row, scratch);
    return dot(scratch, x, p->cols, p->cols % pack_k(type));
}

static void ref_term(struct dev *d, const struct mat *x, const struct term *term)
{
    const struct weight *w = term->w;
    struct mat *y = term->y;
    float *row = cpu_of(d)->x;
    const float *more = term->bias->n ? term->bias->at : NULL;
    int at = 0;

    must(w->cols <= cpu_of(d)->max_dim);
    for (int i = 0; i < w->n_part; i++)
        for (int r = 0; r < w->part[i].rows; r++, at++)
            for (int t = 0; t < x->n; t++) {
                float s = dot_part(&w->part[i], w->type, r, mat_row(x, t), row);
                mat_row(y, t)[at] = more ? s + more[at] : s;
            }
}

static void ref_matmul(struct dev *d, const struct mat *x, const struct term *term, int n)
{
    for (int i = 0; i < n; i++)
        ref_term(d, x, &term[i]);
}

static void ref_partial(struct dev *d, struct planes *y, const struct mat *x,
                        const struct weight *w)
{
    float *row = cpu_of(d)->x, leaf[SHARES_MAX];
    struct span tree[PLANES];
    int n = tree_split((struct span){w->first, w->first + w->n_part}, tree);

    must(n == y->n && w->cols <= cpu_of(d)->max_dim);
    for (int r = 0; r < w->rows; r++)
        for (int t = 0; t < x->n; t++) {
            const float *from = mat_row(x, t);
            for (int i = 0; i < w->n_part; i++) {
                const struct part *p = &w->part[i];
                leaf[i] = dot_part(p, w->type, r, from, row);
                from += p->cols;
            }
            for (int i = 0; i < n; i++)
                mat_row(&y->at[i], t)[r] =
                    cpu_tree_sum(leaf, tree[i].lo - w->first, tree[i].hi - w->first);
        }
}

const struct dev_ops cpu_ref = {
    .name = "ref",
    .embed = cpu_embed,
    .norm = ref_norm,
    .squares = ref_squares,
    .norm_by = ref_norm_by,
    .clip = ref_clip,
    .matmul = ref_matmul,
    .partial = ref_partial,
    .add = ref_add,
    .rope = ref_rope,
    .store = cpu_store,
    .attend = cpu_attend,
    .swiglu = ref_swiglu,
    .route = cpu_route,
    .experts = cpu_experts,
    .settle = cpu_settle,
    .pick = cpu_pick,
    .together = cpu_together,
    .waited_ns = cpu_waited_ns,
};
