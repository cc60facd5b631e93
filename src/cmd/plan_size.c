/* plan_size.c - `tandem plan --size` and `--check`: what a layout takes, and whether it will do. */
#include "cmd/device.h"
#include "cmd/open.h"
#include "cmd/plan.h"

/* ------------------------------------------------------------------------------- sizes */

static bool same_but(struct plan *p, const struct plan *like, int tp, int pp)
{
    struct err ignored;
    struct plan_ask ask = plan_like(like);
    ask.tp = tp, ask.pp = pp, ask.threads = 1, ask.shares = 0;
    return !plan_make(p, &like->model, &ask, &ignored);
}

static void size_row(struct table *t, const struct plan *p, const struct hardware *h)
{
    struct size s = size_of(p, 0);
    const double gb = 1e9;
    table_put(t, p->pp > 1 ? "tp %d, pp %d" : "tp %d", p->tp, p->pp);
    table_put(t, "%.3f", (double)s.weights / gb);
    table_put(t, "%.0f", (double)s.page / 16);
    table_put(t, "%.3f", (double)s.kv / gb);
    table_put(t, "%.3f", (double)s.scratch / gb);
    table_put(t, "%.3f", (double)size_all(&s) / gb);
    if (!h)
        return;
    struct fit f = size_fit(p, h);
    table_put(t, "%s", f.spare >= 0 ? "fits" : "no");
    table_put(t, "%lld", (long long)f.kv_tok);
}

static json_t *size_json(const struct plan *p, const struct hardware *h)
{
    struct size s = size_of(p, 0);
    json_t *o = json_pack("{s:i,s:i,s:I,s:I,s:I,s:I}", "tp", p->tp, "pp", p->pp, "weights",
                          (json_int_t)s.weights, "kv_token", (json_int_t)s.page / 16, "kv",
                          (json_int_t)s.kv, "scratch", (json_int_t)s.scratch);
    if (!h)
        return o;
    struct fit f = size_fit(p, h);
    json_object_set_new(o, "fits", json_boolean(f.spare >= 0));
    json_object_set_new(o, "kv_tokens_that_fit", json_integer(f.kv_tok));
    return o;
}

static void size_rows(const struct plan *like, const struct hardware *h, int devices, bool json)
{
    static const char *const head[] = {"rank 0 of",  "weights GB", "B/token", "cache GB",
                                       "scratch GB", "all GB",     "fits",    "tokens that fit"};
    struct table t = table_begin(h ? 8 : 6);
    json_t *list = json_array();
    for (int i = 0; i < t.columns; i++)
        table_put(&t, "%s", head[i]);
    for (int tp = 1; tp <= devices; tp *= 2)
        for (int pp = 1; tp * pp <= devices; pp *= 2) {
            struct plan p;
            if (!same_but(&p, like, tp, pp) || (!h && pp > 1))
                continue;
            size_row(&t, &p, h);
            json_array_append_new(list, size_json(&p, h));
        }
    if (json) {
        json_dumpf(list, stdout, JSON_INDENT(2));
        putchar('\n');
        t.n = 0;
    }
    table_end(&t, stdout, false);
    json_decref(list);
}

int plan_size(const struct options *o, struct err *e)
{
    struct opened at;
    struct hardware *h = NULL;
    bool has = o->given.plan_hardware || device_numbers(o);
    int rc = open_shape(&at, o, o->n_word ? o->word[0] : NULL, e);
    if (rc)
        return rc;
    if (has) {
        h = calloc(1, sizeof(*h));
        must(h);
        rc = plan_hardware(o, h, e);
    }
    if (!rc) {
        int devices = h ? hardware_devices(h) : min_int(16, at.plan.model.n_head);
        if (!o->json)
            printf(
                "%.200s: %llu parameters, %.3f GB in %s; %d sequences of %d tokens, cache in %s.\n"
                "GB are 1e9 bytes. Exact: from the layout itself.\n\n",
                o->n_word ? o->word[0] : "the demo model",
                (unsigned long long)plan_parameters(&at.plan),
                (double)plan_weight_bytes(&at.plan, PLAN_WHOLE) / 1e9, num_name(at.plan.weight),
                at.plan.max_seq, at.plan.ctx, num_name(at.plan.kv));
        size_rows(&at.plan, h, min_int(devices, 32), o->json);
    }
    free(h);
    open_close(&at);
    return rc;
}

/* ------------------------------------------------------------------------------- the checklist */

static bool item(bool good, const char *text)
{
    printf("[%s] %s\n", good ? "ok" : "NO", text);
    return good;
}

static bool check_memory(const struct plan *p, const struct hardware *h)
{
    char text[256];
    struct fit f = size_fit(p, h);
    snprintf(text, sizeof(text),
             "memory: weights %.2f GB, cache %.2f GB, scratch %.2f GB of %.2f GB: %.2f GB left "
             "(exact)",
             (double)f.size.weights / 1e9, (double)f.size.kv / 1e9, (double)f.size.scratch / 1e9,
             f.have / 1e9, f.spare / 1e9);
    return item(f.spare >= 0, text);
}

/* Large sums should reach half of what a send does; small ones count by their latency below. */
static bool check_sums(const struct plan *p, const struct hardware *h)
{
    char text[256];
    struct gang ranks = {.ranks = p->tp, .stride = 1}, pair = {.ranks = 2, .stride = 1};
    const double large = 1 << 26, token = 2.0 * p->model.n_embd;
    if (p->tp == 1)
        return item(true, "sums: none with one slice");
    double bus =
        2 * (p->tp - 1.0) / p->tp * large / hardware_collective(h, COLLECTIVE_SUM, &ranks, large);
    double link = large / hardware_collective(h, COLLECTIVE_SEND, &pair, large);
    snprintf(
        text, sizeof(text),
        "sums over %d ranks: %.1f GB/s at 64 MiB (floor: half of a send's %.1f), %.1f us for a "
        "token's %.0f bytes (%s)",
        p->tp, bus / 1e9, link / 1e9, 1e6 * hardware_collective(h, COLLECTIVE_SUM, &ranks, token),
        token,
        h->level[0].n_collective ? source_name(h->level[0].collective[0].latency_s.source)
                                 : "none");
    return item(bus >= link / 2, text);
}

static bool check_steps(const struct plan *p, const struct hardware *h, struct err *e)
{
    char text[256];
    struct step_price one, many, prompt;
    int half = max_int(p->ctx / 2, 1), rows = min_int(p->max_tok, max_int(half, 1));
    struct pricer *x = pricer_new(p, h, e);
    if (!x)
        return item(false, e->text);
    struct work w = work_of(&p->model, 1, 1, half), all = work_of(&p->model, p->max_seq, 1, half);
    struct work part = work_of(&p->model, 1, rows, rows - 1);
    pricer_step(x, &w, &one);
    pricer_step(x, &all, &many);
    pricer_step(x, &part, &prompt);
    pricer_free(x);
    snprintf(
        text, sizeof(text),
        "a token at context %d: %.1f ms for one sequence, %.1f ms for %d; %d tokens of a prompt: "
        "%.1f ms",
        half, one.all_s * 1e3, many.all_s * 1e3, p->max_seq, rows, prompt.all_s * 1e3);
    bool good = item(true, text);
    snprintf(text, sizeof(text), "sums are %.1f %% of such a step (at most 25 %%)",
             100 * one.comm_s / one.all_s);
    return item(one.comm_s <= 0.25 * one.all_s, text) && good;
}

int plan_check_deployment(const struct options *o, struct err *e)
{
    struct opened at;
    struct hardware *h = calloc(1, sizeof(*h));
    must(h);
    int rc = plan_hardware(o, h, e);
    if (!rc)
        rc = open_shape(&at, o, o->n_word ? o->word[0] : NULL, e);
    if (rc) {
        free(h);
        return rc;
    }
    struct plan p = at.plan;
    if (o->plan || same_but(&p, &at.plan, max_int(o->tp, 1), o->pp)) {
        int ranks = p.dp * plan_ranks(&p), devices = hardware_devices(h);
        char text[128];
        snprintf(text, sizeof(text), "devices: %d ranks on %d of %s", ranks, devices, h->name);
        bool good = item(ranks <= devices, text);
        good &= check_memory(&p, h);
        good &= check_sums(&p, h);
        good &= check_steps(&p, h, e);
        rc = good ? 0 : err_set(e, -ENOSPC, "plan: this deployment does not pass every check");
    }
    open_close(&at);
    free(h);
    return rc;
}
