/* grammar_rules.c - building rules, and what must hold of them all. See grammar_rules.h. */
#include "text/grammar_rules.h"

void rules_fail(struct rules *r, const char *fmt, ...)
{
    va_list ap;
    if (r->rc)
        return;
    r->rc = -EINVAL;
    va_start(ap, fmt);
    vsnprintf(r->err.text, sizeof(r->err.text), fmt, ap);
    va_end(ap);
}

static void *grown(struct rules *r, void *old, int n, int *room, size_t size)
{
    if (n < *room)
        return old;
    *room = *room ? 2 * *room : 256;
    void *more = pool_get(&r->pool, (size_t)*room * size);
    if (n)
        memcpy(more, old, (size_t)n * size);
    return more;
}

int rules_node(struct rules *r)
{
    if (r->n_nodes >= GRAMMAR_NODES_MAX) {
        rules_fail(r, "the grammar needs more than %d nodes: make it smaller", GRAMMAR_NODES_MAX);
        return 0;
    }
    return r->n_nodes++;
}

int rules_between(struct rules *r, int start, int end)
{
    if (r->n_rules >= GRAMMAR_RULES_MAX) {
        rules_fail(r, "the grammar has more than %d rules: make it smaller", GRAMMAR_RULES_MAX);
        return 0;
    }
    r->rule = grown(r, r->rule, r->n_rules, &r->rule_room, sizeof(*r->rule));
    r->rule[r->n_rules] = (struct rule){start, end};
    return r->n_rules++;
}

int rules_new(struct rules *r)
{
    int start = rules_node(r);
    return rules_between(r, start, rules_node(r));
}

static void add_edge(struct rules *r, struct edge e)
{
    if (r->rc)
        return;
    if (r->n_edges >= 4 * GRAMMAR_NODES_MAX) {
        rules_fail(r, "the grammar needs more than %d edges: make it smaller",
                   4 * GRAMMAR_NODES_MAX);
        return;
    }
    r->edge = grown(r, r->edge, r->n_edges, &r->edge_room, sizeof(*r->edge));
    r->edge[r->n_edges++] = e;
}

void rules_empty(struct rules *r, int from, int to)
{
    add_edge(r, (struct edge){.kind = EDGE_EMPTY, .from = from, .to = to});
}

void rules_bytes(struct rules *r, int from, int lo, int hi, int to)
{
    add_edge(r, (struct edge){.kind = EDGE_BYTES,
                              .lo = (unsigned char)lo,
                              .hi = (unsigned char)hi,
                              .from = from,
                              .to = to});
}

int rules_text(struct rules *r, int from, const char *s, size_t n)
{
    for (size_t i = 0; i < n && !r->rc; i++) {
        int to = rules_node(r);
        rules_bytes(r, from, (unsigned char)s[i], (unsigned char)s[i], to);
        from = to;
    }
    return from;
}

int rules_repeat(struct rules *r, int from, int rule, int min, int max, bool inner)
{
    int to = rules_node(r);
    if (max == 0)
        rules_empty(r, from, to);
    else
        add_edge(r, (struct edge){EDGE_CALL, 0, 0, inner, from, to, rule, min, max});
    return to;
}

int rules_call(struct rules *r, int from, int rule)
{
    return rules_repeat(r, from, rule, 1, 1, false);
}

void rules_free(struct rules *r) { pool_free(&r->pool); }

/* ------------------------------------------------------------------------------- finishing */

/* Edges in the order of their nodes; a counting sort, which keeps the order within a node. */
static void sort_edges(struct rules *r)
{
    int *first = pool_get(&r->pool, ((size_t)r->n_nodes + 2) * sizeof(int));
    struct edge *sorted = pool_get(&r->pool, ((size_t)r->n_edges + 1) * sizeof(*sorted));
    for (int i = 0; i < r->n_edges; i++)
        first[r->edge[i].from + 2]++;
    for (int v = 0; v < r->n_nodes; v++)
        first[v + 2] += first[v + 1];
    for (int i = 0; i < r->n_edges; i++)
        sorted[first[r->edge[i].from + 1]++] = r->edge[i];
    r->first = first;
    r->edge = sorted;
}

static void classify(struct rules *r)
{
    bool cut[257] = {true};
    for (int i = 0; i < r->n_edges; i++)
        if (r->edge[i].kind == EDGE_BYTES)
            cut[r->edge[i].lo] = cut[r->edge[i].hi + 1] = true;
    r->n_class = 0;
    for (int b = 0; b < 256; b++) {
        r->n_class += cut[b];
        r->class_of[b] = (unsigned char)(r->n_class - 1);
    }
}

/* Lists of the edges that lead to a node, and of those that call a rule. */
struct reverse {
    int *into, *next_into, *calls, *next_call; /* edge number + 1 */
};

static struct reverse reverse_of(struct rules *r, struct pool *p)
{
    struct reverse v = {pool_get(p, (size_t)r->n_nodes * sizeof(int)),
                        pool_get(p, (size_t)(r->n_edges + 1) * sizeof(int)),
                        pool_get(p, (size_t)(r->n_rules + 1) * sizeof(int)),
                        pool_get(p, (size_t)(r->n_edges + 1) * sizeof(int))};
    for (int i = 0; i < r->n_edges; i++) {
        const struct edge *e = &r->edge[i];
        v.next_into[i] = v.into[e->to];
        v.into[e->to] = i + 1;
        if (e->kind == EDGE_CALL) {
            v.next_call[i] = v.calls[e->rule];
            v.calls[e->rule] = i + 1;
        }
    }
    return v;
}

/* How deep calls must go from each node to the end of its rule: the least, over all ways, of the
 * deepest call on the way. Found level by level, as breadth first search from the ends. Without
 * bytes it tells which nodes reach the end without reading anything. NEVER: none does. */
static int *depth_needed(struct rules *r, bool bytes, struct pool *p)
{
    struct reverse v = reverse_of(r, p);
    size_t n = (size_t)r->n_nodes;
    int *need = pool_get(&r->pool, (n + 1) * sizeof(int));
    int *rule_need = pool_get(p, (size_t)(r->n_rules + 1) * sizeof(int));
    int *queue = pool_get(p, (n + 1) * sizeof(int)), head = 0, tail = 0;
    int *start_of = pool_get(p, (n + 1) * sizeof(int)); /* rule + 1; the first of a shared start */
    int *next_rule = pool_get(p, (size_t)(r->n_rules + 1) * sizeof(int));
    for (int i = 0; i < r->n_nodes; i++)
        need[i] = NEVER;
    for (int i = 0; i < r->n_rules; i++) {
        rule_need[i] = NEVER;
        next_rule[i] = start_of[r->rule[i].start];
        start_of[r->rule[i].start] = i + 1;
        if (need[r->rule[i].end] == NEVER)
            need[r->rule[i].end] = 0, queue[tail++] = r->rule[i].end;
    }
    for (int level = 0; head < tail; level++) {
        for (int found = head; found < tail; found++)
            for (int i = v.into[queue[found]]; i; i = v.next_into[i - 1]) {
                const struct edge *e = &r->edge[i - 1];
                bool way = e->kind == EDGE_EMPTY || (e->kind == EDGE_BYTES && bytes) ||
                           (e->kind == EDGE_CALL && (e->min == 0 || rule_need[e->rule] < level));
                if (way && need[e->from] == NEVER)
                    need[e->from] = level, queue[tail++] = e->from;
            }
        int settled = tail; /* rules whose start was found serve the next level */
        for (; head < settled; head++)
            for (int k = start_of[queue[head]]; k; k = next_rule[k - 1]) {
                rule_need[k - 1] = level;
                for (int i = v.calls[k - 1]; i; i = v.next_call[i - 1]) {
                    const struct edge *e = &r->edge[i - 1];
                    if (need[e->to] != NEVER && need[e->from] == NEVER)
                        need[e->from] = level + 1, queue[tail++] = e->from;
                }
            }
    }
    return need;
}

/* Whether a rule comes back to itself before a byte is read. Depth first over the rules that each
 * may call first; a node belongs to one rule only, so all walks together are linear. */
struct left {
    struct rules *r;
    const int *empty;         /* depth_needed() without bytes */
    int *seen;                /* [n_nodes]: rule + 1 that walked here */
    int *colour;              /* [n_rules]: 0 new, 1 open, 2 done */
    int *call, n_calls, room; /* first calls of the open rules, as stack */
};

static void first_calls(struct left *l, struct pool *p, int rule)
{
    struct rules *r = l->r;
    int *stack = pool_get(p, 16), n = 0, room = 4;
    stack[n++] = r->rule[rule].start;
    while (n) {
        int v = stack[--n];
        if (l->seen[v] == rule + 1)
            continue;
        l->seen[v] = rule + 1;
        for (int i = r->first[v]; i < r->first[v + 1]; i++) {
            const struct edge *e = &r->edge[i];
            bool skip = e->kind == EDGE_EMPTY;
            if (e->kind == EDGE_CALL) {
                l->call = grown(r, l->call, l->n_calls, &l->room, sizeof(int));
                l->call[l->n_calls++] = e->rule;
                skip = e->min == 0 || l->empty[r->rule[e->rule].start] != NEVER;
            }
            if (!skip)
                continue;
            stack = grown(r, stack, n, &room, sizeof(int));
            stack[n++] = e->to;
        }
    }
}

static bool left_recursive(struct rules *r, const int *empty, struct pool *p)
{
    struct left l = {.r = r, .empty = empty};
    l.seen = pool_get(p, (size_t)r->n_nodes * sizeof(int));
    l.colour = pool_get(p, (size_t)(r->n_rules + 1) * sizeof(int));
    struct open {
        int rule, calls;
    } *open = pool_get(p, (size_t)(r->n_rules + 1) * sizeof(*open));
    for (int root = 0; root < r->n_rules; root++) {
        int n = 0;
        if (l.colour[root])
            continue;
        open[n++] = (struct open){root, l.n_calls};
        l.colour[root] = 1;
        first_calls(&l, p, root);
        while (n) {
            if (l.n_calls == open[n - 1].calls) {
                l.colour[open[--n].rule] = 2;
                continue;
            }
            int to = l.call[--l.n_calls];
            if (l.colour[to] == 1)
                return true;
            if (l.colour[to] == 2)
                continue;
            open[n++] = (struct open){to, l.n_calls};
            l.colour[to] = 1;
            first_calls(&l, p, to);
        }
    }
    return false;
}

/* Times over nothing cannot be counted: endless is as good as any number, but not a bound. */
static void check_repeats(struct rules *r, const int *empty)
{
    for (int i = 0; i < r->n_edges; i++) {
        struct edge *e = &r->edge[i];
        if (e->kind != EDGE_CALL || empty[r->rule[e->rule].start] == NEVER)
            continue;
        if (e->max != ENDLESS && e->max > 1)
            rules_fail(r,
                       "a part that may be empty is repeated at most %d times: write it so that "
                       "it reads something",
                       e->max);
        e->min = e->max == 1 ? e->min : 0;
    }
}

int rules_finish(struct rules *r, int root, struct err *e)
{
    struct pool p = {0};
    r->root = root;
    if (!r->rc) {
        sort_edges(r);
        classify(r);
        r->is_end = pool_get(&r->pool, (size_t)r->n_nodes + 1);
        for (int i = 0; i < r->n_rules; i++)
            r->is_end[r->rule[i].end] = true;
        int *empty = depth_needed(r, false, &p);
        check_repeats(r, empty);
        r->need = depth_needed(r, true, &p);
        if (left_recursive(r, empty, &p))
            rules_fail(r, "a rule (or $ref) leads back to itself before it reads anything");
        if (r->need[r->rule[root].start] > GRAMMAR_DEPTH_MAX / 4)
            rules_fail(r, r->need[r->rule[root].start] == NEVER
                              ? "nothing can fulfil it: a part contradicts itself or never ends"
                              : "every answer would nest too deeply");
    }
    pool_free(&p);
    if (r->rc)
        *e = r->err;
    return r->rc;
}
