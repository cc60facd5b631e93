/* mask.c - which tokens a state allows. See mask.h. */
#include "text/mask.h"
#include "base/buffer.h"

void mask_cache_init(struct mask_cache *c, const struct grammar_vocab *v)
{
    *c = (struct mask_cache){.v = v};
}

void mask_cache_clear(struct mask_cache *c)
{
    for (int i = 0; i < MASK_CACHE; i++)
        c->mask[i].state = STATE_NEW;
    if (c->n_slots)
        memset(c->slot, 0, (size_t)c->n_slots * sizeof(int));
}

void mask_cache_free(struct mask_cache *c)
{
    for (int i = 0; i < MASK_CACHE; i++) {
        free(c->mask[i].bits);
        free(c->mask[i].leave);
    }
    free(c->slot);
}

static struct mask *find(struct mask_cache *c, int state)
{
    struct mask *m = state < c->n_slots && c->slot[state] ? &c->mask[c->slot[state] - 1] : NULL;
    if (m)
        m->used = true;
    return m;
}

/* A mask to fill, one not used since the hand last came by; never `keep`. */
static struct mask *take(struct mask_cache *c, int state, const struct mask *keep)
{
    struct mask *m;
    do {
        m = &c->mask[c->hand];
        c->hand = (c->hand + 1) % MASK_CACHE;
        if (m->state == STATE_NEW || (!m->used && m != keep))
            break;
        m->used = false;
    } while (true);
    if (m->state != STATE_NEW)
        c->slot[m->state] = 0;
    if (state >= c->n_slots) {
        int n = 2 * state + 256;
        c->slot = realloc(c->slot, (size_t)n * sizeof(int));
        must(c->slot);
        memset(c->slot + c->n_slots, 0, (size_t)(n - c->n_slots) * sizeof(int));
        c->n_slots = n;
    }
    if (!m->bits)
        m->bits = malloc((size_t)c->v->n_words * sizeof(uint64_t));
    must(m->bits);
    memset(m->bits, 0, (size_t)c->v->n_words * sizeof(uint64_t));
    m->state = state;
    m->used = true;
    m->n_leave = 0;
    c->slot[state] = (int)(m - c->mask) + 1;
    return m;
}

static void note_leaving(struct mask *m, int node)
{
    m->leave = grow(m->leave, &m->leave_room, (size_t)m->n_leave + 1, sizeof(*m->leave));
    m->leave[m->n_leave++] = node;
}

/* Decide the tokens of nodes lo to hi, all below one that `state` was reached by; depth: of the
 * first. False: too much effort. */
static bool walk(struct mask *m, const struct grammar_vocab *v, struct states *a, int lo, int hi,
                 int depth, int state, bool local, long long effort)
{
    int at[MASK_TOKEN_BYTES + 8];
    at[depth] = state;
    for (int i = lo; i < hi;) {
        const struct trie_node *n = &v->node[i];
        int to = states_step(a, at[n->depth], n->byte);
        if (to == STATE_DEAD) {
            i = n->end;
            continue;
        }
        if (n->token >= 0)
            bit_set(m->bits, n->token);
        if (local && a->state[to].leaves && n->end > i + 1)
            note_leaving(m, i);
        at[n->depth + 1] = to;
        i++;
        if (a->effort > effort)
            return false;
    }
    return !a->full;
}

/* Below the nodes where the rule may have ended, with the real stack. */
static bool walk_leaving(struct mask *m, const struct mask *local, const struct grammar_vocab *v,
                         struct states *a, int state, long long effort)
{
    int done = 0;
    for (int i = 0; i < local->n_leave; i++) {
        int top = local->leave[i], depth = v->node[top].depth, to = state;
        if (top < done)
            continue; /* within a subtree that was walked */
        int way[MASK_TOKEN_BYTES + 8], node = top;
        /* The way down: the last node of each smaller depth before this one. */
        for (int d = depth; d >= 0; d--) {
            while (v->node[node].depth != d)
                node--;
            way[d] = node--;
        }
        for (int d = 0; d <= depth; d++)
            to = states_step(a, to, v->node[way[d]].byte);
        done = v->node[top].end;
        if (to != STATE_DEAD && !walk(m, v, a, top + 1, done, depth + 1, to, false, effort))
            return false;
    }
    return true;
}

const uint64_t *mask_of(struct mask_cache *c, struct states *a, int state, long long effort)
{
    const struct grammar_vocab *v = c->v;
    struct mask *m = find(c, state), *part = NULL;
    if (m)
        return m->bits;
    effort += a->effort;
    int local = states_local(a, state, v->longest);
    bool ok = true;
    if (local != STATE_NEW && !(part = find(c, local))) {
        part = take(c, local, NULL);
        ok = walk(part, v, a, 0, v->n_nodes, 0, local, true, effort);
    }
    m = take(c, state, part);
    if (part)
        memcpy(m->bits, part->bits, (size_t)v->n_words * sizeof(uint64_t));
    ok = ok && (part ? walk_leaving(m, part, v, a, state, effort)
                     : walk(m, v, a, 0, v->n_nodes, 0, state, false, effort));
    return ok ? m->bits : NULL;
}
