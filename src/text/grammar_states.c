/* grammar_states.c - states of the pushdown automaton. See grammar_states.h. */
#include "text/grammar_states.h"
#include "base/buffer.h"

#include <xxhash.h>

enum { LOCAL_DEPTH = GRAMMAR_DEPTH_MAX / 4 }; /* deeper stacks are not cut off */

/* ------------------------------------------------------------------------------- indices */

static uint64_t hash_of(const void *s, size_t n) { return XXH3_64bits(s, n); }

static void index_resize(struct index *x, size_t size)
{
    free(x->slot);
    x->size = size;
    x->slot = calloc(size, sizeof(int));
    must(x->slot);
}

/* Room for one more of n entries; returns whether it was emptied to be filled again. */
static bool index_grow(struct index *x, int n)
{
    if (2 * (size_t)n + 2 < x->size)
        return false;
    index_resize(x, x->size ? 2 * x->size : 1024);
    return true;
}

static void index_put(struct index *x, uint64_t hash, int number)
{
    size_t at = hash & (x->size - 1);
    while (x->slot[at])
        at = (at + 1) & (x->size - 1);
    x->slot[at] = number + 1;
}

/* ------------------------------------------------------------------------------- stacks */

static uint64_t frame_hash(const struct frame *f) { return hash_of(f, sizeof(*f)); }

static int push(struct states *a, int below, int edge, int count)
{
    struct frame f = {below, edge, count, a->frame[below].depth + 1};
    uint64_t hash = frame_hash(&f);
    if (index_grow(&a->by_frame, a->n_frames))
        for (int i = STACK_UNKNOWN + 1; i < a->n_frames; i++)
            index_put(&a->by_frame, frame_hash(&a->frame[i]), i);
    for (size_t at = hash & (a->by_frame.size - 1); a->by_frame.slot[at];
         at = (at + 1) & (a->by_frame.size - 1)) {
        int have = a->by_frame.slot[at] - 1;
        if (!memcmp(&a->frame[have], &f, sizeof(f)))
            return have;
    }
    a->frame = grow(a->frame, &a->frame_room, (size_t)(a->n_frames + 1), sizeof(f));
    a->frame[a->n_frames] = f;
    index_put(&a->by_frame, hash, a->n_frames);
    return a->n_frames++;
}

/* ------------------------------------------------------------------------------- closure */

static uint64_t config_hash(struct config c)
{
    uint64_t x = (uint64_t)(uint32_t)c.node << 32 | (uint32_t)c.stack;
    x *= 0x9E3779B97F4A7C15u;
    return x ^ x >> 29;
}

/* Whether a configuration is new in this closure; those seen are the first n_seen of work. */
static bool unseen(struct states *a, struct config c)
{
    size_t at = config_hash(c) & (a->seen.size - 1);
    for (; a->seen.slot[at]; at = (at + 1) & (a->seen.size - 1)) {
        struct config have = a->work[a->seen.slot[at] - 1];
        if (have.node == c.node && have.stack == c.stack)
            return false;
    }
    a->seen.slot[at] = a->n_work + 1;
    return true;
}

/* A configuration to look at, unless it was, or its end would lie too deep. */
static void reach(struct states *a, int node, int stack)
{
    struct config c = {node, stack};
    if (a->r->need[node] == NEVER || a->frame[stack].depth + a->r->need[node] > GRAMMAR_DEPTH_MAX)
        return;
    if (a->full || !unseen(a, c))
        return;
    if (a->n_work == GRAMMAR_STACKS_MAX) {
        a->full = true;
        return;
    }
    a->work[a->n_work++] = c;
}

/* Whether nothing but the end of the rule follows: then its caller's frame does. */
static bool only_end(const struct rules *r, int node)
{
    return r->is_end[node] && r->first[node] == r->first[node + 1];
}

static void enter(struct states *a, int edge, int below, int count)
{
    const struct edge *e = &a->r->edge[edge];
    int start = a->r->rule[e->rule].start;
    if (a->frame[below].depth + 1 > GRAMMAR_DEPTH_MAX || a->r->need[e->to] == NEVER ||
        a->frame[below].depth + a->r->need[e->to] > GRAMMAR_DEPTH_MAX)
        return;
    bool last = e->max == 1 && only_end(a->r, e->to);
    reach(a, start, last ? below : push(a, below, edge, count));
}

/* The rule on top has been read once more. */
static void leave(struct states *a, int stack)
{
    struct frame f = a->frame[stack];
    const struct edge *e = &a->r->edge[f.edge];
    int count = f.count + 1;
    if (count >= e->min)
        reach(a, e->to, f.below);
    if (e->max == ENDLESS && count > e->min)
        count = e->min; /* enough, and more is no different */
    if (count < e->max)
        enter(a, f.edge, f.below, count);
}

static void look_at(struct states *a, struct config c, struct state *s)
{
    const struct rules *r = a->r;
    bool reads = false;
    if (r->is_end[c.node]) {
        s->accepting |= c.stack == STACK_EMPTY;
        s->leaves |= c.stack == STACK_UNKNOWN;
        if (c.stack > STACK_UNKNOWN)
            leave(a, c.stack);
    }
    for (int i = r->first[c.node]; i < r->first[c.node + 1]; i++) {
        const struct edge *e = &r->edge[i];
        if (e->kind == EDGE_EMPTY || (e->kind == EDGE_CALL && e->min == 0))
            reach(a, e->to, c.stack);
        if (e->kind == EDGE_CALL)
            enter(a, i, c.stack, 0);
        reads |= e->kind == EDGE_BYTES;
    }
    if (reads)
        a->set[a->n_set++] = c;
}

static int by_node_and_stack(const void *p, const void *q)
{
    const struct config *x = p, *y = q;
    return x->node != y->node ? (x->node > y->node) - (x->node < y->node)
                              : (x->stack > y->stack) - (x->stack < y->stack);
}

static uint64_t state_hash(const struct states *a, const struct state *s, const struct config *c)
{
    (void)a;
    return hash_of(c, (size_t)s->n * sizeof(*c)) + s->accepting * 7u + s->leaves * 13u;
}

static int intern(struct states *a, struct state s)
{
    if (!s.n && !s.accepting && !s.leaves)
        return STATE_DEAD;
    uint64_t hash = state_hash(a, &s, a->set);
    if (index_grow(&a->by_set, a->n_states))
        for (int i = STATE_DEAD + 1; i < a->n_states; i++)
            index_put(&a->by_set, state_hash(a, &a->state[i], a->config + a->state[i].first), i);
    for (size_t at = hash & (a->by_set.size - 1); a->by_set.slot[at];
         at = (at + 1) & (a->by_set.size - 1)) {
        int i = a->by_set.slot[at] - 1;
        const struct state *h = &a->state[i];
        if (h->n == s.n && h->accepting == s.accepting && h->leaves == s.leaves &&
            !memcmp(a->config + h->first, a->set, (size_t)s.n * sizeof(*a->set)))
            return i;
    }
    int nc = a->r->n_class;
    a->state = grow(a->state, &a->state_room, (size_t)(a->n_states + 1), sizeof(*a->state));
    a->config = grow(a->config, &a->config_room, (size_t)(a->n_configs + s.n), sizeof(*a->config));
    a->next = grow(a->next, &a->next_room, (size_t)((a->n_states + 1) * nc), sizeof(*a->next));
    memset(a->next + (size_t)a->n_states * (size_t)nc, 0, (size_t)nc * sizeof(*a->next));
    a->effort += nc;
    s.first = a->n_configs;
    memcpy(a->config + s.first, a->set, (size_t)s.n * sizeof(*a->set));
    a->n_configs += s.n;
    a->state[a->n_states] = s;
    index_put(&a->by_set, hash, a->n_states);
    return a->n_states++;
}

static void begin(struct states *a) { a->n_work = a->n_set = 0; }

/* Follow all that needs no byte from what reach() was told; the state of it. */
static int closure(struct states *a)
{
    struct state s = {0};
    for (int i = 0; i < a->n_work && !a->full; i++)
        look_at(a, a->work[i], &s);
    a->effort += a->n_work + 1;
    for (int i = 0; i < a->n_work; i++) { /* empty the index again: every entry of a probe chain */
        size_t at = config_hash(a->work[i]) & (a->seen.size - 1);
        for (; a->seen.slot[at]; at = (at + 1) & (a->seen.size - 1))
            a->seen.slot[at] = 0;
    }
    if (a->full)
        return STATE_DEAD;
    qsort(a->set, (size_t)a->n_set, sizeof(*a->set), by_node_and_stack);
    s.n = a->n_set;
    return intern(a, s);
}

/* ------------------------------------------------------------------------------- states */

void states_init(struct states *a, const struct rules *r)
{
    *a = (struct states){.r = r};
    a->frame = grow(NULL, &a->frame_room, 2, sizeof(*a->frame));
    a->frame[STACK_EMPTY] = (struct frame){-1, -1, 0, 0};
    a->frame[STACK_UNKNOWN] = (struct frame){-1, -1, 0, LOCAL_DEPTH};
    a->n_frames = 2;
    a->state = grow(NULL, &a->state_room, 2, sizeof(*a->state));
    a->config = grow(NULL, &a->config_room, 1, sizeof(*a->config));
    a->next = grow(NULL, &a->next_room, (size_t)(2 * r->n_class), sizeof(*a->next));
    memset(a->state, 0, 2 * sizeof(*a->state));
    for (int i = 0; i < 2 * r->n_class; i++)
        a->next[i] = STATE_DEAD;
    a->n_states = 2;
    a->work = calloc(2 * GRAMMAR_STACKS_MAX, sizeof(*a->work));
    must(a->work);
    a->set = a->work + GRAMMAR_STACKS_MAX;
    index_resize(&a->seen, 4 * GRAMMAR_STACKS_MAX);
    begin(a);
    reach(a, r->rule[r->root].start, STACK_EMPTY);
    a->start = closure(a);
}

void states_free(struct states *a)
{
    free(a->state);
    free(a->config);
    free(a->frame);
    free(a->next);
    free(a->work);
    free(a->by_set.slot);
    free(a->by_frame.slot);
    free(a->seen.slot);
    *a = (struct states){0};
}

size_t states_bytes(const struct states *a)
{
    return a->state_room * sizeof(*a->state) + a->config_room * sizeof(*a->config) +
           a->frame_room * sizeof(*a->frame) + a->next_room * sizeof(*a->next) +
           (a->by_set.size + a->by_frame.size) * sizeof(int);
}

int states_make(struct states *a, int state, int class_of_byte)
{
    const struct rules *r = a->r;
    struct state s = a->state[state];
    begin(a);
    for (int i = s.first; i < s.first + s.n; i++) {
        struct config c = a->config[i];
        for (int k = r->first[c.node]; k < r->first[c.node + 1]; k++) {
            const struct edge *e = &r->edge[k];
            if (e->kind == EDGE_BYTES && r->class_of[e->lo] <= class_of_byte &&
                class_of_byte <= r->class_of[e->hi])
                reach(a, e->to, c.stack);
        }
    }
    int to = closure(a);
    return a->next[state * r->n_class + class_of_byte] = to;
}

/* The part of a stack that is the rule in progress: frames of inner calls. Returns what is below.
 */
static int below_rule(const struct states *a, int stack)
{
    while (stack > STACK_UNKNOWN && a->r->edge[a->frame[stack].edge].inner)
        stack = a->frame[stack].below;
    return stack;
}

/* Two counts that are both out of reach of their limits behave the same for `reach` bytes, for
 * every time round reads one byte at least. */
static int count_alike(const struct edge *e, int count, int near)
{
    if (count < e->min)
        return e->min - count > near ? e->min - near - 1 : count;
    if (e->max != ENDLESS && e->max - count > near)
        return e->max - near - 1;
    return count;
}

/* The same stack from `base` up, on another base. */
static int restack(struct states *a, const struct states *from, int stack, int base, int to,
                   int near)
{
    int chain[GRAMMAR_DEPTH_MAX + 1], n = 0;
    for (; stack != base; stack = from->frame[stack].below)
        chain[n++] = stack;
    while (n--) {
        struct frame f = from->frame[chain[n]];
        to = push(a, to, f.edge,
                  near < 0 ? f.count : count_alike(&a->r->edge[f.edge], f.count, near));
    }
    return to;
}

/* The state of configurations that are closed already. */
static int intern_set(struct states *a, struct state s)
{
    qsort(a->set, (size_t)a->n_set, sizeof(*a->set), by_node_and_stack);
    int n = 0;
    for (int i = 0; i < a->n_set; i++)
        if (!n || by_node_and_stack(&a->set[n - 1], &a->set[i]))
            a->set[n++] = a->set[i];
    s.n = n;
    return intern(a, s);
}

int states_local(struct states *a, int state, int near)
{
    struct state s = a->state[state];
    if (!s.n)
        return STATE_NEW;
    int base = below_rule(a, a->config[s.first].stack);
    if (base <= STACK_UNKNOWN || a->frame[base].depth > LOCAL_DEPTH)
        return STATE_NEW;
    for (int i = s.first; i < s.first + s.n; i++)
        if (below_rule(a, a->config[i].stack) != base)
            return STATE_NEW;
    a->n_set = 0;
    for (int i = s.first; i < s.first + s.n; i++) {
        int stack = restack(a, a, a->config[i].stack, base, STACK_UNKNOWN, near);
        a->set[a->n_set++] = (struct config){a->config[i].node, stack};
    }
    return intern_set(a, (struct state){0});
}

int states_copy(struct states *a, const struct states *from, int state)
{
    struct state s = from->state[state];
    if (state <= STATE_DEAD)
        return state;
    a->n_set = 0;
    for (int i = s.first; i < s.first + s.n; i++) {
        struct config c = from->config[i];
        a->set[a->n_set++] =
            (struct config){c.node, restack(a, from, c.stack, STACK_EMPTY, STACK_EMPTY, -1)};
    }
    return intern_set(a, s);
}
