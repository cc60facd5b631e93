/* grammar_states.h - the pushdown automaton of some rules, its states built when first met. Private
 * to text/.
 *
 * A configuration is a node and a stack of frames (where to go on when a rule ends, and how often
 * it was read); equal stacks are one stack. A state is the set of configurations that some bytes
 * lead to, so states and bytes make a deterministic automaton with a table of what follows, like
 * that of a regular expression but for its size, which grows with what is met.
 *
 * The stack may be cut off below the rule in progress (STACK_UNKNOWN): what such a state allows
 * holds in every place from where the rule was called, and only texts that leave the rule
 * (state.leaves) need the real stack. Masks are shared that way.
 */
#ifndef TANDEM_GRAMMAR_STATES_H
#define TANDEM_GRAMMAR_STATES_H

#include "text/grammar_rules.h"

enum { STATE_NEW, STATE_DEAD, STACK_EMPTY = 0, STACK_UNKNOWN = 1 };

struct config {
    int node, stack;
};

struct frame { /* the top of a stack */
    int below, edge, count, depth;
};

struct state {
    int first, n;   /* config[first .. first + n), sorted */
    bool accepting; /* the whole may end here */
    bool leaves;    /* a stack of unknown bottom ran empty */
};

struct index { /* open addressing: number + 1, 0 is free */
    int *slot;
    size_t size;
};

struct states {
    const struct rules *r;
    struct state *state;
    struct config *config;
    struct frame *frame;
    int *next; /* [n_states * n_class]: STATE_NEW where nobody has been */
    int n_states, n_configs, n_frames;
    size_t state_room, config_room, frame_room, next_room;
    struct index by_set, by_frame, seen;
    struct config *work, *set; /* of a closure: to do, and found */
    int n_work, n_set, n_seen, work_room;
    long long effort; /* configurations visited, counted up */
    int start;
    bool full; /* more ways than GRAMMAR_STACKS_MAX: all that follows is wrong */
};

void states_init(struct states *a, const struct rules *r);
void states_free(struct states *a);
size_t states_bytes(const struct states *a); /* how much memory it has grown to */

/* The state that a byte leads to. */
int states_make(struct states *a, int state, int class_of_byte);
static inline int states_step(struct states *a, int state, unsigned char byte)
{
    int c = a->r->class_of[byte], to = a->next[state * a->r->n_class + c];
    return to != STATE_NEW ? to : states_make(a, state, c);
}

/* The state with its stacks cut off below the rules in progress, and counts that are more than
 * `reach` bytes from their limits made alike; STATE_NEW where stacks differ below. */
int states_local(struct states *a, int state, int reach);

/* Copy a state of another automaton of the same rules into this one. */
int states_copy(struct states *a, const struct states *from, int state);

#endif
