/* exp.h - the numbers of our exp, for C and CUDA alike: dev/cpu/ref.c says in which order.
 *
 * exp(x) = 2^n e^r, n = round(x / ln 2), r = x - n ln 2 in two steps, e^r = 1 + r + r^2 q(r).
 * q is of degree 4, fitted by us for least relative error of e^r on |r| <= ln 2 / 2 (2^-28). Below
 * EXP_MIN the result is 0, above EXP_MAX infinite; adding EXP_ROUND and taking it away rounds.
 */
#ifndef TANDEM_EXP_H
#define TANDEM_EXP_H

#define EXP_MIN (-104.0f)
#define EXP_MAX 89.0f
#define EXP_ROUND 0x1.8p23f
#define EXP_LOG2E 0x1.715476p+0f
#define EXP_LN2_HI 0x1.62e430p-1f
#define EXP_LN2_LO (-0x1.05c610p-29f)
#define EXP_Q4 0x1.6a2444p-10f
#define EXP_Q3 0x1.1239d4p-7f
#define EXP_Q2 0x1.5558f2p-5f
#define EXP_Q1 0x1.555492p-3f
#define EXP_Q0 0x1.fffffcp-2f

#endif
