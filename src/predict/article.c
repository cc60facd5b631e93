/* article.c - see article.h: what the expressions of article.def are made of. */
#include "predict/article.h"
#include "model/folder.h"
#include "predict/count.h"
#include "predict/price.h"
#include "predict/size.h"

#include <math.h>

/* The model that the article splits, and the machines that it names. */
struct audit {
    struct model model;
    struct hardware a100, a100_40, h200, l40s;
    double bytes; /* of all weights in bf16 */
    double kv;    /* of a token in the cache */
    double ar;    /* of a token that ranks add up */
};

static double gb(double bytes) { return bytes / 1e9; }

static struct plan split(const struct audit *a, int tp, int pp, int max_tok)
{
    struct plan p;
    struct err e;
    struct plan_ask ask = {.tp = tp,
                           .pp = pp,
                           .max_tok = max_tok,
                           .max_seq = min_int(max_tok, 256),
                           .weight = NUM_BF16,
                           .kv = NUM_BF16,
                           .numerics = "f32-fma"};
    must(!plan_make(&p, &a->model, &ask, &e));
    return p;
}

/* ------------------------------------------------------------------------------- bytes */

static void count_numbers(void *arg, const struct piece *pc)
{
    *(double *)arg += (double)len(pc->row) * len(pc->col);
}

/* Numbers that a rank holds in two bytes each: as the article counts, which our norms in f32
 * exceed by 2.6 MB. */
static double rank_bytes(const struct plan *p, int rank)
{
    double numbers = 0;
    plan_pieces(p, rank, count_numbers, &numbers);
    return 2 * numbers;
}

/* The same on the mean of the ranks: they differ by a run of 64 words where 2004 do not divide. */
static double held(const struct audit *a, int tp)
{
    struct plan p = split(a, tp, 1, 256);
    double sum = 0;
    for (int r = 0; r < tp; r++)
        sum += rank_bytes(&p, r);
    return sum / tp;
}

static double stage(const struct audit *a, int at)
{
    struct plan p = split(a, 1, 4, 256);
    for (int i = 0; i < 4; i++)
        p.stage[i] = (struct span){20 * i, 20 * i + 20};
    return rank_bytes(&p, at);
}

static double kv_of(const struct audit *a, int tp)
{
    struct plan p = split(a, tp, 1, 256);
    p.pages = 1;
    return (double)plan_kv_bytes(&p, 0) / 16;
}

static double cache(const struct audit *a, int tp, int seqs, int tok)
{
    return kv_of(a, tp) * seqs * tok;
}

static double scratch(const struct audit *a, int tp, int rows)
{
    struct plan p = split(a, tp, 1, rows);
    return (double)size_of(&p, 0).scratch;
}

static double columns_of(const struct audit *a, int tp, enum what what)
{
    struct plan p = split(a, tp, 1, 256);
    return (double)len(plan_share(&p, 0, what)) * a->model.head_dim;
}

static double feed_forward_share(const struct audit *a)
{
    const struct model *m = &a->model;
    double ff = 3.0 * m->n_embd * m->n_ff, heads = 2.0 * (m->n_head + m->n_kv) * m->head_dim;
    return ff / (ff + heads * m->n_embd + 2.0 * m->n_embd);
}

/* Mixtral-8x7B with so many experts of each layer: 8 are all, 2 are active. */
static double mixtral(int experts)
{
    const double h = 4096, layer = h * (2 * 32 + 2 * 8) * 128 + experts * 3 * h * 14336;
    return 32 * (layer + 8 * h + 2 * h) + 2 * 32000 * h + h;
}

/* ------------------------------------------------------------------------------- traffic */

/* Of each of t ranks in a ring, in payloads. */
static double wire(double t) { return 2 * (t - 1) / t; }

/* Bytes that a rank sends to others when n rows stand on e ranks and each goes to k experts. */
static double all_to_all(double n, double h, double k, double e)
{
    return n / e * k * h * 2 * (e - 1) / e;
}

/* Sums of a pass that the forward pass itself makes, those of the layers: without the one behind
 * an embedding cut by words, which Tandem copies. */
static double sums_of(const struct audit *a, int tp)
{
    struct plan p = split(a, tp, 1, 256);
    return 2.0 * len(p.stage[0]);
}

static double sums_ms(const struct audit *a, const struct hardware *h, int tp, int rows)
{
    struct gang gang = {.ranks = tp, .stride = 1};
    return 1e3 * sums_of(a, tp) * hardware_collective(h, COLLECTIVE_SUM, &gang, a->ar * rows);
}

/* ------------------------------------------------------------------------------- work and time */

static double flop(const struct audit *a, int n_new, int last)
{
    struct plan p = split(a, 1, 1, 4096);
    struct step_cost cost;
    count_step(&p, 0, (struct step_shape){1, n_new, last}, &cost);
    return (double)cost.flops;
}

static double prompt_flop(const struct audit *a, int tok) { return flop(a, tok, tok - 1); }

static double attention_share(const struct audit *a, int n_new, int ctx)
{
    double all = flop(a, n_new, ctx - 1);
    return (all - flop(a, n_new, n_new - 1)) / all;
}

static double prompt_devices(const struct audit *a)
{
    return ceil(100 * prompt_flop(a, 1024) / (0.55 * a->a100.math_rate[NUM_BF16].value));
}

/* Rows from which on a product computes longer than it reads its weights of two bytes. */
static double ridge(const struct hardware *h)
{
    return h->math_rate[NUM_BF16].value * 2 / (2 * h->memory_rate.value);
}

/* A step without the host's work, which the article leaves out. */
static double priced_ms(const struct audit *a, const struct hardware *h, int tp, int pp,
                        struct work w)
{
    struct plan p = split(a, tp, pp, 4096);
    struct step_price s;
    struct err e;
    struct pricer *x = pricer_new(&p, h, &e);
    if (!x)
        return NAN;
    pricer_step(x, &w, &s);
    pricer_free(x);
    return 1e3 * (s.all_s - s.host_s);
}

static double step_ms(const struct audit *a, const struct hardware *h, int tp, int seqs, int ctx)
{
    return priced_ms(a, h, tp, 1, work_of(&a->model, seqs, 1, ctx - 1));
}

static double prompt_ms(const struct audit *a, const struct hardware *h, int tp, int tok)
{
    return priced_ms(a, h, tp, 1, work_of(&a->model, 1, tok, tok - 1));
}

static double stages_ms(const struct audit *a, const struct hardware *h, int tp, int pp)
{
    return priced_ms(a, h, tp, pp, work_of(&a->model, 1, 1, 1023));
}

/* ------------------------------------------------------------------------------- the table */

const char *verdict_name(enum verdict v)
{
    static const char *const name[VERDICT_COUNT] = {"right", "partly", "wrong"};
    return name[v];
}

static int open_audit(struct audit *a, struct err *e)
{
    const struct {
        const char *name;
        struct hardware *to;
    } box[] = {{"dgx-a100-80", &a->a100},
               {"dgx-a100-40", &a->a100_40},
               {"dgx-h200", &a->h200},
               {"8x-l40s-pcie", &a->l40s}};
    const char *config = model_config("llama-3-70b");
    struct generation g;
    struct notes notes;
    int rc = model_parse(config, strlen(config), NULL, 0, &a->model, &g, &notes, e);
    for (size_t i = 0; !rc && i < COUNT(box); i++)
        rc = hardware_load(box[i].name, box[i].to, e);
    if (rc)
        return rc;
    struct plan p = split(a, 1, 1, 256);
    a->bytes = 2 * (double)plan_parameters(&p);
    a->kv = kv_of(a, 1);
    a->ar = 2.0 * a->model.n_embd;
    return 0;
}

#define EXACT "exact"
#define DATASHEET "datasheet"
#define FITTED "fitted"
#define KNOWN "general knowledge"
#define NOTHING NAN

/* Formats without a number are words; the number is then not printed. */
static void say(struct article_row *r, const char *format)
{
    r->computed = !isnan(r->value);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (r->computed)
        snprintf(r->text, sizeof(r->text), format, r->value);
    else
        snprintf(r->text, sizeof(r->text), "%s", format);
#pragma GCC diagnostic pop
}

int article_rows(struct article_row row[ARTICLE_ROWS], struct err *e)
{
    struct audit audit, *a = &audit;
    struct article_row *at = row;
    int rc = open_audit(a, e);
    if (rc)
        return rc;
#define ROW(n, what, article, number_of, format, by, is, from, because)                            \
    *at = (struct article_row){.number = n,                                                        \
                               .claim = what,                                                      \
                               .said = article,                                                    \
                               .formula = by,                                                      \
                               .verdict = is,                                                      \
                               .source = from,                                                     \
                               .why = because,                                                     \
                               .value = number_of};                                                \
    say(at++, format);
#include "predict/article.def"
#undef ROW
    must(at == row + ARTICLE_ROWS);
    return 0;
}

json_t *article_to_json(const struct article_row row[ARTICLE_ROWS])
{
    json_t *list = json_array();
    for (int i = 0; i < ARTICLE_ROWS; i++) {
        const struct article_row *r = &row[i];
        json_t *o =
            json_pack("{s:i,s:s,s:s,s:s,s:s,s:s,s:s,s:s}", "row", r->number, "claim", r->claim,
                      "article", r->said, "tandem", r->text, "formula", r->formula, "verdict",
                      verdict_name(r->verdict), "source", r->source, "why", r->why);
        json_object_set_new(o, "value", r->computed ? json_real(r->value) : json_null());
        json_array_append_new(list, o);
    }
    return list;
}
