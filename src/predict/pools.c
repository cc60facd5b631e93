/* pools.c - prompts and answers on devices of their own: see search_pools(). */
#include "predict/search.h"

#include <math.h>

/* What one replica of the shape can take of a demand, over the limits of rows. */
static struct choice best_of(const struct question *q, const struct shape *s)
{
    struct choice best = {0};
    for (int tok = 256; tok <= SHAPE_TOK_MOST; tok *= 2) {
        struct choice c = {.shape = s, .max_tok = tok, .dp = 1, .hosts = 1};
        struct plan p;
        c.max_seq = min_int(tok, SHAPE_SEQ_MOST);
        while (c.max_seq >= SHAPE_SEQ && !shape_plan(q, s, tok, c.max_seq, 1, &p))
            c.max_seq /= 2;
        if (c.max_seq < SHAPE_SEQ)
            continue;
        choice_capacity(q, &c);
        if (c.capacity > best.capacity)
            best = c;
    }
    return best;
}

/* The shape that takes most for its devices. */
static struct choice best_pool(const struct question *q, const struct search *s)
{
    struct choice best = {0};
    for (int i = 0; i < s->n_best; i++) {
        struct choice c = best_of(q, s->best[i].shape);
        int n = shape_devices(q, s->best[i].shape);
        if (c.capacity > 0 && (!best.shape || c.capacity / n > best.capacity / best.devices)) {
            best = c;
            best.devices = n;
        }
    }
    return best;
}

/* Keys and values of a mean prompt over the outermost link. */
static double send_s(const struct question *q, const struct shape *s)
{
    const struct hardware *h = q->hardware;
    struct plan p = s->plan;
    p.pages = (int)ceil(q->demand.prompt.mean / KV_PAGE);
    struct gang pair = {.ranks = 2, .stride = max_int(hardware_devices(h) / 2, 1)};
    return hardware_devices(h) < 2 ? 0
                                   : hardware_collective(h, COLLECTIVE_SEND, &pair,
                                                         (double)plan_kv_bytes(&p, PLAN_WHOLE));
}

struct pools search_pools(const struct question *q, const struct search *s)
{
    struct question prompts = *q, draws = *q;
    struct pools to = {0};
    if (q->demand.rate <= 0 || q->hardware->kind == DEVICE_CPU)
        return to;
    prompts.demand.output = (struct lengths){1, 0, 1, 1};
    prompts.demand.tpot_s = 0;
    prompts.ctx = draws.ctx = question_ctx(q);
    draws.demand.no_prompts = true;
    draws.demand.ttft_s = 0;
    to.send_s = send_s(q, s->best[0].shape);
    if (prompts.demand.ttft_s > 0)
        prompts.demand.ttft_s = fmax(prompts.demand.ttft_s - to.send_s, 1e-9);
    to.prompt = best_pool(&prompts, s);
    to.draw = best_pool(&draws, s);
    if (!to.prompt.shape || !to.draw.shape)
        return to;
    to.n_prompt = (int)ceil(q->demand.rate / to.prompt.capacity);
    to.n_draw = (int)ceil(q->demand.rate / to.draw.capacity);
    to.devices = to.n_prompt * to.prompt.devices + to.n_draw * to.draw.devices;
    return to;
}
