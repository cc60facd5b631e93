/* grammar.c - compiling what an answer may be, and matching answers against it. See grammar.h. */
#include "text/mask.h"

#include <stdatomic.h>

enum {
    STATES_BYTES = 16 << 20, /* then states are forgotten, but for those in use */
    EFFORT = 1 << 23 /* for one mask: configurations looked at, and transitions of new states */
};

struct grammar {
    struct rules rules;
    struct states states;
    struct mask_cache masks;
    const struct grammar_vocab *v;
    atomic_int users;
    uint64_t epoch; /* how often the states were forgotten */
    bool ready;     /* the states are begun */
    bool failed;
};

struct matcher {
    struct grammar *g;
    uint64_t epoch;
    int *token, *state; /* [n], [n + 1]: tokens taken, and the state before each and behind all */
    int n, room;
    int known; /* state[i] is of this epoch for i >= known */
    bool ended;
};

/* ------------------------------------------------------------------------------- compiling */

static int choice_emit(struct rules *r, int from, const struct grammar_spec *spec)
{
    int to = rules_node(r);
    if (spec->n_choices < 1)
        rules_fail(r, "choice: the list is empty");
    for (int i = 0; i < spec->n_choices && !r->rc; i++) {
        if (!*spec->choice[i])
            rules_fail(r, "choice[%d] is empty", i);
        rules_empty(r, rules_text(r, from, spec->choice[i], strlen(spec->choice[i])), to);
    }
    return to;
}

static int body_emit(struct rules *r, int from, const struct grammar_spec *spec,
                     const struct grammar_vocab *v)
{
    struct json_rules j = json_rules_of(r, spec->blanks);
    switch (spec->kind) {
    case GRAMMAR_OBJECT: return rules_call(r, from, object_rule(&j));
    case GRAMMAR_SCHEMA:
        return rules_call(r, from,
                          schema_emit(r, spec->text, spec->n_text, spec->blanks, "the schema"));
    case GRAMMAR_REGEX: return regex_emit(r, from, spec->text, spec->n_text, false, "regex");
    case GRAMMAR_CHOICE: return choice_emit(r, from, spec);
    case GRAMMAR_EBNF: return rules_call(r, from, ebnf_emit(r, spec->text, spec->n_text));
    case GRAMMAR_TAGS: return rules_call(r, from, tags_emit(r, spec, v));
    }
    must(!"a kind of grammar");
    return from;
}

static int compile(struct rules *r, const struct grammar_spec *spec, const struct grammar_vocab *v,
                   struct err *e)
{
    bool text =
        spec->kind == GRAMMAR_SCHEMA || spec->kind == GRAMMAR_REGEX || spec->kind == GRAMMAR_EBNF;
    if (text && spec->n_text > GRAMMAR_TEXT_MAX)
        return err_set(e, -EINVAL, "the grammar has %zu bytes, more than the %d allowed",
                       spec->n_text, GRAMMAR_TEXT_MAX);
    if (spec->blanks < 0 || spec->blanks > GRAMMAR_BLANKS_MAX)
        return err_set(e, -EINVAL, "%d blanks between the tokens of JSON: 0 to %d are possible",
                       spec->blanks, GRAMMAR_BLANKS_MAX);
    int root = rules_new(r), at = r->rule[root].start;
    if (v->strips) { /* models write a blank there, and readers never see it */
        int blank = rules_text(r, at, " ", 1);
        rules_empty(r, at, blank);
        at = blank;
    }
    if (spec->after)
        at = tags_until(r, at, spec->after, v, -1);
    rules_empty(r, body_emit(r, at, spec, v), r->rule[root].end);
    return rules_finish(r, root, e);
}

int grammar_new(const struct grammar_spec *spec, const struct grammar_vocab *v,
                struct grammar **out, struct err *e)
{
    struct grammar *g = calloc(1, sizeof(*g));
    must(g);
    *out = NULL;
    int rc = compile(&g->rules, spec, v, e);
    if (rc) {
        rules_free(&g->rules);
        free(g);
        return rc;
    }
    g->v = v;
    g->users = 1;
    states_init(&g->states, &g->rules);
    mask_cache_init(&g->masks, v);
    if (g->states.full) {
        grammar_free(g);
        return err_set(e, -EINVAL, "an answer could begin in more than %d ways: make it simpler",
                       GRAMMAR_STACKS_MAX);
    }
    *out = g;
    return 0;
}

void grammar_free(struct grammar *g)
{
    if (!g || atomic_fetch_sub(&g->users, 1) > 1)
        return;
    mask_cache_free(&g->masks);
    states_free(&g->states);
    rules_free(&g->rules);
    free(g);
}

/* ------------------------------------------------------------------------------- matchers */

struct matcher *matcher_new(struct grammar *g)
{
    struct matcher *m = calloc(1, sizeof(*m));
    must(m);
    atomic_fetch_add(&g->users, 1);
    m->g = g;
    m->room = 64;
    m->token = malloc((size_t)m->room * sizeof(int));
    m->state = malloc(((size_t)m->room + 1) * sizeof(int));
    must(m->token && m->state);
    m->epoch = UINT64_MAX; /* the start is not known yet either */
    return m;
}

struct matcher *matcher_clone(const struct matcher *from)
{
    struct matcher *m = matcher_new(from->g);
    int *token = realloc(m->token, (size_t)from->room * sizeof(int));
    int *state = realloc(m->state, ((size_t)from->room + 1) * sizeof(int));
    must(token && state);
    memcpy(token, from->token, (size_t)from->n * sizeof(int));
    memcpy(state, from->state, ((size_t)from->n + 1) * sizeof(int));
    *m = *from;
    m->token = token;
    m->state = state;
    return m;
}

void matcher_free(struct matcher *m)
{
    if (!m)
        return;
    grammar_free(m->g);
    free(m->token);
    free(m->state);
    free(m);
}

const char *matcher_error(const struct matcher *m)
{
    return m->g->failed ? "the grammar can be read in too many ways at once: make it less ambiguous"
                        : NULL;
}

static bool is_end(const struct grammar_vocab *v, int tok)
{
    return tok >= 0 && tok < v->n_vocab && bit_of(v->eos_mask, tok);
}

/* Whether v->text[tok] leads on from a state; *state is where to. */
static bool step(struct grammar *g, int tok, int *state)
{
    struct text t = tok >= 0 && tok < g->v->n_vocab ? g->v->text[tok] : (struct text){NULL, 0};
    int at = t.n ? *state : STATE_DEAD;
    for (size_t i = 0; i < t.n && at != STATE_DEAD; i++)
        at = states_step(&g->states, at, (unsigned char)t.s[i]);
    g->failed |= g->states.full;
    *state = at;
    return at != STATE_DEAD;
}

/* Make state[n] a state of now: all of them are forgotten when they fill their memory. */
static void refresh(struct matcher *m)
{
    struct grammar *g = m->g;
    if (m->epoch != g->epoch) {
        m->state[0] = g->states.start;
        for (int i = 0; i < m->n; i++) {
            m->state[i + 1] = m->state[i];
            if (!is_end(g->v, m->token[i]))
                step(g, m->token[i], &m->state[i + 1]);
        }
        m->epoch = g->epoch;
        m->known = 0;
    }
    if (states_bytes(&g->states) <= STATES_BYTES)
        return;
    struct states fresh;
    states_init(&fresh, &g->rules);
    int now = states_copy(&fresh, &g->states, m->state[m->n]);
    states_free(&g->states);
    g->states = fresh;
    mask_cache_clear(&g->masks);
    m->epoch = ++g->epoch;
    m->state[m->n] = now;
    m->known = m->n;
}

static int state_now(struct matcher *m)
{
    refresh(m);
    return m->g->failed ? STATE_DEAD : m->state[m->n];
}

bool matcher_accepting(struct matcher *m)
{
    int s = state_now(m);
    return s != STATE_DEAD && m->g->states.state[s].accepting;
}

bool matcher_stopped(struct matcher *m)
{
    int s = state_now(m);
    return m->ended || s == STATE_DEAD || !m->g->states.state[s].n;
}

int matcher_mask(struct matcher *m, uint64_t *allow)
{
    struct grammar *g = m->g;
    int n = g->v->n_words, s = state_now(m);
    memset(allow, 0, (size_t)n * sizeof(*allow));
    if (g->failed)
        return -E2BIG;
    if (m->ended)
        return 0;
    const uint64_t *bits = mask_of(&g->masks, &g->states, s, EFFORT);
    if (!bits) {
        g->failed = true;
        return -E2BIG;
    }
    bool end = g->states.state[s].accepting;
    for (int i = 0; i < n; i++)
        allow[i] = bits[i] | (end ? g->v->eos_mask[i] : 0);
    return 0;
}

static bool take_one(struct matcher *m, int tok)
{
    int to = state_now(m);
    if (m->ended || to == STATE_DEAD)
        return false;
    bool end = is_end(m->g->v, tok);
    if (end ? !m->g->states.state[to].accepting : !step(m->g, tok, &to))
        return false;
    if (m->n == m->room) {
        m->room *= 2;
        m->token = realloc(m->token, (size_t)m->room * sizeof(int));
        m->state = realloc(m->state, ((size_t)m->room + 1) * sizeof(int));
        must(m->token && m->state);
    }
    m->ended = end;
    m->token[m->n++] = tok;
    m->state[m->n] = to;
    return true;
}

int matcher_take(struct matcher *m, const int *tok, int n)
{
    for (int i = 0; i < n; i++)
        if (!take_one(m, tok[i]))
            return i;
    return n;
}

void matcher_rollback(struct matcher *m, int n)
{
    must(n >= 0 && n <= m->n);
    m->n -= n;
    m->ended = m->ended && n == 0;
    if (m->n < m->known)
        m->epoch = UINT64_MAX; /* that state was forgotten: find it again from the tokens */
}

/* ------------------------------------------------------------------------------- what is forced */

/* The one byte that may come next, or -1. */
static int only_byte(struct states *a, int state)
{
    int found = -1;
    if (a->state[state].accepting)
        return -1;
    for (int b = 0; b < 256; b++) {
        if (states_step(a, state, (unsigned char)b) == STATE_DEAD)
            continue;
        if (found >= 0 || b >= BYTE_SPECIAL)
            return -1; /* two, or perhaps an added token */
        found = b;
    }
    return found;
}

int matcher_forced(struct matcher *m, int *tok, int room)
{
    enum { FORCED = 512 };
    struct grammar *g = m->g;
    char text[FORCED];
    int n = 0, state = state_now(m), b, *id, taken = 0;
    size_t n_id, at = 0;
    struct err e;
    for (; n < FORCED && state != STATE_DEAD && (b = only_byte(&g->states, state)) >= 0; n++) {
        text[n] = (char)b;
        state = states_step(&g->states, state, (unsigned char)b);
    }
    if (m->ended || !n || tok_encode(g->v->tok, text, (size_t)n, 0, &id, &n_id, &e))
        return 0;
    /* The last token might have been a longer one. */
    for (size_t i = 0; i + 1 < n_id && taken < room; i++) {
        struct text t = g->v->text[id[i]];
        if (!t.n || (size_t)n - at < t.n || memcmp(text + at, t.s, t.n))
            break;
        at += t.n;
        tok[taken++] = id[i];
    }
    free(id);
    return taken;
}
