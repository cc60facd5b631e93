/* guess.h - what may come next, from the sequence's own past (prompt look-up). Pure.
 *
 * Answers repeat their prompts: code being edited, documents being quoted. Guesses cost rows of a
 * step and never a bit of the answer: a guess counts only when the model draws the same token.
 */
#ifndef TANDEM_GUESS_H
#define TANDEM_GUESS_H

/* Find the latest earlier place where the last 3 (else 2) tokens of tok[n] stand, and copy the up
 * to `most` tokens that followed it to `to`. Returns how many; 0: no such place. */
int guess_from_past(const int *tok, int n, int *to, int most);

#endif
