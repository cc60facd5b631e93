/* explain_json.c - an answer for machines. See explain.h. Times in seconds. */
#include "predict/explain.h"

static json_t *outlook_json(const struct choice *c)
{
    const struct outlook *o = &c->at;
    json_t *j =
        json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:s}", "ttft_mean", o->ttft_s, "ttft_tail",
                  o->ttft_tail_s, "tpot_mean", o->tpot_s, "tpot_tail", o->tpot_tail_s, "running",
                  o->running, "kv_share", o->kv_share, "rate", o->rate, "output_tokens_per_s",
                  o->output_tok_s, "limit", limit_words(o->limit));
    must(j);
    return j;
}

static json_t *choice_json(const struct answer *a, const struct choice *c)
{
    const struct plan *p = &c->shape->plan;
    char name[96];
    json_t *o =
        json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:b,s:s,s:s,s:i,s:i,s:i,s:f,s:s,s:b}", "name",
                  choice_name(name, a->question, c), "tp", p->tp, "ep", p->ep, "pp", p->pp, "dp",
                  c->dp, "hosts", c->hosts, "sp", p->sp, "weight", num_name(p->weight), "kv",
                  num_name(p->kv), "max_tok", c->max_tok, "max_seq", c->max_seq, "devices", c->paid,
                  "capacity", c->capacity, "wall", limit_words(c->wall), "good", choice_good(c));
    must(o);
    json_object_set_new(o, "replica", outlook_json(c));
    return o;
}

static json_t *flip_json(const struct flip *f)
{
    return f->found ? json_pack("{s:f,s:s,s:s}", "at", f->at, "from", f->from, "to", f->to)
                    : json_null();
}

static json_t *lists(const struct answer *a, json_t *o)
{
    const struct facts *f = a->facts;
    json_t *best = json_array(), *out = json_array(), *front = json_array(), *what = json_array();
    for (int i = 0; i < a->search->n_best; i++)
        json_array_append_new(best, choice_json(a, &a->search->best[i]));
    for (int i = 0; i < a->search->shapes.n; i++) {
        const struct shape *s = &a->search->shapes.at[i];
        if (s->state != SHAPE_FINE)
            json_array_append_new(out, json_pack("{s:i,s:i,s:b,s:s}", "tp", s->plan.tp, "pp",
                                                 s->plan.pp, "sp", s->plan.sp, "why", s->why));
    }
    for (int i = 0; i < f->n_front; i++)
        json_array_append_new(
            front, json_pack("{s:i,s:i,s:i,s:f,s:f,s:f}", "tp", f->front[i].choice->shape->plan.tp,
                             "pp", f->front[i].choice->shape->plan.pp, "batch", f->front[i].batch,
                             "tpot", f->front[i].tpot_s, "tokens_per_s_device", f->front[i].tok_s,
                             "dollars_per_million", f->front[i].dollars));
    for (int i = 0; i < f->n_whatif; i++)
        json_array_append_new(what, json_pack("{s:s,s:i,s:s}", "what", f->whatif[i].what, "devices",
                                              f->whatif[i].devices, "layout", f->whatif[i].name));
    json_object_set_new(o, "layouts", best);
    json_object_set_new(o, "out", out);
    json_object_set_new(o, "front", front);
    json_object_set_new(o, "what_if", what);
    json_object_set_new(o, "experts", explain_experts_json(f));
    return o;
}

static json_t *why_json(const struct answer *a)
{
    const struct facts *f = a->facts;
    json_t *o = json_pack(
        "{s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:i}", "ttft_error", f->ttft_error, "tpot_error",
        f->tpot_error, "capacity_error", f->capacity_error, "probability_good", f->p_good,
        "probability_best", f->p_best, "capacity_replica_lost", f->lost_replica,
        "capacity_cut_anew", f->lost_again, "dollars_hour", f->dollars_hour, "dollars_million",
        f->dollars_million, "kwh_million", f->kwh_million, "devices_pools", f->pools.devices);
    must(o);
    json_object_set_new(o, "by_sequences", flip_json(&f->by_batch));
    json_object_set_new(o, "by_link", flip_json(&f->by_link));
    return o;
}

/* What the virtual clock said of the chosen layout; null when it was not simulated. */
static json_t *simulated_json(const struct answer *a)
{
    const struct facts *f = a->facts;
    for (int i = 0; i < f->n_simulated; i++) {
        const struct simulated *s = &f->simulated[i];
        if (s->choice == a->search->best)
            return json_pack("{s:f,s:f,s:f,s:f,s:f,s:b}", "ttft_mean", s->ttft_s, "ttft_tail",
                             s->ttft_tail_s, "tpot_mean", s->tpot_s, "tpot_tail", s->tpot_tail_s,
                             "output_tokens_per_s", s->output_tok_s, "good", s->good);
    }
    return json_null();
}

json_t *explain_json(const struct answer *a)
{
    json_t *o = json_pack("{s:i,s:s,s:s,s:I,s:I}", "schema", 1, "model", a->model, "hardware",
                          a->question->hardware->name, "tried", (json_int_t)a->search->tried,
                          "fitted", (json_int_t)a->search->fitted);
    json_t *assumed = json_array();
    must(o);
    for (int i = 0; i < a->assumed->n; i++)
        json_array_append_new(assumed, json_string(a->assumed->text[i]));
    json_object_set_new(o, "plan", plan_to_json(&a->facts->plan));
    json_object_set_new(o, "choice", choice_json(a, a->search->best));
    json_object_set_new(o, "simulated", simulated_json(a));
    json_object_set_new(o, "why", why_json(a));
    json_object_set_new(o, "assumed", assumed);
    return lists(a, o);
}
