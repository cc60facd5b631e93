/* guide.c - see guide.h. */
#include "serve/guide.h"

#include <xxhash.h>

/* ------------------------------------------------------------------------------- descriptions */

static struct grammar_spec spec_of(const struct constraint *c, struct grammar_tag *tag)
{
    static const enum grammar_kind kind[] = {
        [CONSTRAINT_OBJECT] = GRAMMAR_OBJECT, [CONSTRAINT_SCHEMA] = GRAMMAR_SCHEMA,
        [CONSTRAINT_REGEX] = GRAMMAR_REGEX,   [CONSTRAINT_CHOICE] = GRAMMAR_CHOICE,
        [CONSTRAINT_GRAMMAR] = GRAMMAR_EBNF,  [CONSTRAINT_TAGS] = GRAMMAR_TAGS};
    for (int i = 0; i < c->n_tags; i++)
        tag[i] = (struct grammar_tag){c->tag[i].begin, c->tag[i].schema, c->tag[i].end};
    return (struct grammar_spec){.kind = kind[c->kind],
                                 .text = c->text,
                                 .n_text = c->text ? strlen(c->text) : 0,
                                 .choice = c->choice.at,
                                 .n_choices = c->choice.n,
                                 .trigger = c->trigger,
                                 .tag = tag,
                                 .n_tags = c->n_tags,
                                 .at_once = c->at_once,
                                 .at_least_one = c->at_once,
                                 .once = c->once,
                                 .blanks = 1};
}

static void mix(XXH3_state_t *h, const char *text)
{
    size_t n = text ? strlen(text) + 1 : 0;
    XXH3_128bits_update(h, &n, sizeof(n));
    if (text)
        XXH3_128bits_update(h, text, n);
}

static XXH128_hash_t hash_of(const struct constraint *c)
{
    XXH3_state_t *h = XXH3_createState();
    const int numbers[] = {(int)c->kind, c->at_once, c->once, c->choice.n, c->n_tags};
    must(h);
    XXH3_128bits_reset(h);
    XXH3_128bits_update(h, numbers, sizeof(numbers));
    mix(h, c->text);
    mix(h, c->trigger);
    mix(h, c->open);
    mix(h, c->after);
    for (int i = 0; i < c->choice.n; i++)
        mix(h, c->choice.at[i]);
    for (int i = 0; i < c->n_tags; i++) {
        mix(h, c->tag[i].begin);
        mix(h, c->tag[i].schema);
        mix(h, c->tag[i].end);
    }
    XXH128_hash_t sum = XXH3_128bits_digest(h);
    XXH3_freeState(h);
    return sum;
}

static void form_free(struct form *f)
{
    grammar_free(f->plain);
    grammar_free(f->reasoning);
    *f = (struct form){0};
}

/* When the words that open reasoning are no token of the model, it does not reason. */
static int compile(struct guides *g, const struct api_model *m, const struct constraint *c,
                   struct form *to, struct err *e)
{
    struct grammar_tag *tag = calloc((size_t)c->n_tags + 1, sizeof(*tag));
    must(tag);
    if (!g->vocab)
        g->vocab = grammar_vocab_new(m->tok, m->n_vocab, m->eos, m->n_eos);
    struct grammar_spec spec = spec_of(c, tag);
    int rc = 0;
    *to = (struct form){.open = c->open ? tok_id(m->tok, c->open) : -1};
    if (!c->after || c->open)
        rc = grammar_new(&spec, g->vocab, &to->plain, e);
    spec.after = c->after;
    if (!rc && c->after && (!c->open || to->open >= 0))
        rc = grammar_new(&spec, g->vocab, &to->reasoning, e);
    if (rc)
        form_free(to);
    free(tag);
    return rc;
}

const struct form *guides_get(struct guides *g, const struct api_model *m,
                              const struct constraint *c, struct api_error *why)
{
    XXH128_hash_t h = hash_of(c);
    struct err e;
    int oldest = 0;
    for (int i = 0; i < GUIDES_KEPT; i++) {
        if (g->kept[i].used && g->kept[i].lo == h.low64 && g->kept[i].hi == h.high64) {
            g->kept[i].used = ++g->n_used;
            return &g->kept[i].form;
        }
        if (g->kept[i].used < g->kept[oldest].used)
            oldest = i;
    }
    struct form made;
    if (compile(g, m, c, &made, &e)) {
        api_refuse(why, c->field, "%s: %s", c->field, e.text);
        return NULL;
    }
    form_free(&g->kept[oldest].form);
    g->kept[oldest].lo = h.low64, g->kept[oldest].hi = h.high64;
    g->kept[oldest].form = made;
    g->kept[oldest].used = ++g->n_used;
    return &g->kept[oldest].form;
}

void guides_free(struct guides *g)
{
    for (int i = 0; i < GUIDES_KEPT; i++)
        form_free(&g->kept[i].form);
    grammar_vocab_free(g->vocab);
}

/* ------------------------------------------------------------------------------- one answer */

struct guide {
    pthread_mutex_t *lock;
    struct matcher *plain, *reasoning; /* both only before the first token */
    int open;
};

static struct matcher *matcher_of(const struct guide *g)
{
    return g->plain ? g->plain : g->reasoning;
}

/* A grammar that exceeds its limits allows nothing more: the answer fails, as the engine then has
 * nothing to draw from. */
static bool allow(void *ctx, uint64_t *bits)
{
    struct guide *g = ctx;
    pthread_mutex_lock(g->lock);
    int rc = matcher_mask(matcher_of(g), bits);
    pthread_mutex_unlock(g->lock);
    if (!rc && g->plain && g->reasoning)
        bits[g->open / 64] |= 1ull << (g->open % 64);
    return true;
}

static bool take(void *ctx, int token)
{
    struct guide *g = ctx;
    pthread_mutex_lock(g->lock);
    if (g->plain && g->reasoning) {
        struct matcher **other = token == g->open ? &g->plain : &g->reasoning;
        matcher_free(*other);
        *other = NULL;
    }
    matcher_take(matcher_of(g), &token, 1);
    bool complete = matcher_stopped(matcher_of(g));
    pthread_mutex_unlock(g->lock);
    return !complete;
}

static void end(void *ctx)
{
    struct guide *g = ctx;
    matcher_free(g->plain);
    matcher_free(g->reasoning);
    free(g);
}

struct engine_guide guide_new(struct guides *guides, const struct form *form)
{
    struct guide *g = calloc(1, sizeof(*g));
    must(g);
    *g = (struct guide){.lock = &guides->lock,
                        .plain = form->plain ? matcher_new(form->plain) : NULL,
                        .reasoning = form->reasoning ? matcher_new(form->reasoning) : NULL,
                        .open = form->open};
    return (struct engine_guide){.ctx = g, .allow = allow, .take = take, .free = end};
}
