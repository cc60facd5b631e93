/* watch.h - when ranks that do not get on have done so for too long. Pure: no clock of its own, no
 * process, no memory but its own.
 *
 * What counts is the time in which nothing moves: no rank begins a layer, enters or leaves a call,
 * ends a step. How long that usually is at most is learned by the shape of steps. Whoever looks may
 * itself not have been let run, like everything else here: a gap between two looks counts no more
 * than looks are apart, so a stopped, frozen or suspended group is not suspected.
 */
#ifndef TANDEM_WATCH_H
#define TANDEM_WATCH_H

#include <stdbool.h>
#include <stdint.h>

/* For how long nothing has moved. */
struct stillness {
    uint64_t moves; /* the last seen sum of all that moves */
    double looked_s, still_s;
    double longest_s; /* it may have been */
};

/* Looks are at most so far apart; less when little time is allowed. */
enum { LOOK_US = 100000 };

void still_begin(struct stillness *s, uint64_t moves, double now_s);
/* Returns still_s. */
double still_look(struct stillness *s, uint64_t moves, double now_s);

/* Shapes: tokens of a step, and the last position in it, both to a power of two. */
enum { WATCH_TOKENS = 16, WATCH_CONTEXTS = 24 };

struct watch {
    double floor_s;                              /* allowed at least, and to a shape not met 15 x */
    float usual_s[WATCH_TOKENS][WATCH_CONTEXTS]; /* the longest stillness; 0: not met */
    double patience;  /* 1; twice as much after every uncertain suspicion */
    int calm;         /* steps without one */
    double in_vain_s; /* of suspicions with no step between them */
    int suspicions;   /* of these */
    float *shape;     /* of the step that is waited for */
    struct stillness still;
};

/* A floor of 0: the usual one. */
void watch_open(struct watch *w, double floor_s);

/* A step is waited for; the calls after it are about that one. */
void watch_begin(struct watch *w, int n_tok, int last_pos, uint64_t moves, double now_s);

/* How long nothing may move: 6 times what is usual. */
double watch_allowed(const struct watch *w);

/* What is allowed to a shape that was not met. */
double watch_first(const struct watch *w);

/* How long to sleep until the next look. */
uint64_t watch_sleep_us(const struct watch *w);

/* True: too long. */
bool watch_look(struct watch *w, uint64_t moves, double now_s);

/* Somebody is suspected for it; unless it is certain, the next suspicion needs twice the time. */
void watch_suspect(struct watch *w, bool certain);

/* The step is done. */
void watch_end(struct watch *w, uint64_t moves, double now_s);

/* Several suspicions without a step between them: new ranks on the same memory do not help. */
bool watch_in_vain(const struct watch *w);

#endif
