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
                                 .after = c->after,
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

static int compile(struct guides *g, const struct api_model *m, const struct constraint *c,
                   struct grammar **to, struct err *e)
{
    struct grammar_tag *tag = calloc((size_t)c->n_tags + 1, sizeof(*tag));
    must(tag);
    if (!g->vocab)
        g->vocab = grammar_vocab_new(m->tok, m->n_vocab, m->eos, m->n_eos);
    struct grammar_spec spec = spec_of(c, tag);
    int rc = grammar_new(&spec, g->vocab, to, e);
    free(tag);
    return rc;
}

struct grammar *guides_get(struct guides *g, const struct api_model *m, const struct constraint *c,
                           struct api_error *why)
{
    XXH128_hash_t h = hash_of(c);
    struct err e;
    int oldest = 0;
    for (int i = 0; i < GUIDES_KEPT; i++) {
        if (g->kept[i].grammar && g->kept[i].lo == h.low64 && g->kept[i].hi == h.high64) {
            g->kept[i].used = ++g->n_used;
            return g->kept[i].grammar;
        }
        if (g->kept[i].used < g->kept[oldest].used)
            oldest = i;
    }
    struct grammar *made;
    if (compile(g, m, c, &made, &e)) {
        why->status = 400;
        api_refuse(why, c->kind == CONSTRAINT_TAGS ? "tools" : "response_format", "%s", e.text);
        return NULL;
    }
    if (g->kept[oldest].grammar)
        grammar_free(g->kept[oldest].grammar);
    g->kept[oldest].lo = h.low64, g->kept[oldest].hi = h.high64;
    g->kept[oldest].grammar = made;
    g->kept[oldest].used = ++g->n_used;
    return made;
}

void guides_free(struct guides *g)
{
    for (int i = 0; i < GUIDES_KEPT; i++)
        if (g->kept[i].grammar)
            grammar_free(g->kept[i].grammar);
    grammar_vocab_free(g->vocab);
}

/* ------------------------------------------------------------------------------- one answer */

/* A grammar that exceeds its limits allows nothing more: the answer fails, as the engine then has
 * nothing to draw from. */
static bool allow(void *ctx, uint64_t *bits)
{
    matcher_mask(ctx, bits);
    return true;
}

static bool take(void *ctx, int token)
{
    matcher_take(ctx, &token, 1);
    return !matcher_stopped(ctx);
}

static void end(void *ctx) { matcher_free(ctx); }

struct engine_guide guide_new(struct grammar *grammar)
{
    return (struct engine_guide){
        .ctx = matcher_new(grammar), .allow = allow, .take = take, .free = end};
}
