/* pace.h - how long a step takes, learnt from the last ones, and so how many rows of prompts fit.
 *
 * seconds = fixed + per_row * rows, fitted by least squares in which older steps fade (each new one
 * weighs 1, all before it 0.98 of what they did). Pure: the engine brings the clock.
 */
#ifndef TANDEM_PACE_H
#define TANDEM_PACE_H

struct pace {
    double w, x, y, xx, xy; /* faded sums of 1, rows, seconds, rows^2, rows * seconds */
};

void pace_learn(struct pace *p, int rows, double seconds);

/* Seconds of a step of so many rows; 0 until steps were learnt. */
double pace_step(const struct pace *p, int rows);

/* Rows of prompts that a step with `decode_rows` rows of running answers may have beside them,
 * between 16 and most: so that it takes at most target_s. 0: PACE_LONGER times what it would take
 * without them, or PACE_FLUENT_S where that is longer, as nobody reads faster; and where more,
 * `waiting`, wait for their first token than have answers running, up to as long again. */
#define PACE_FLUENT_S 0.07
#define PACE_LONGER 1.6 /* below 2, for steps vary: nobody shall wait twice as long as usual */
int pace_prompt_rows(const struct pace *p, int decode_rows, int waiting, double target_s, int most);

#endif
