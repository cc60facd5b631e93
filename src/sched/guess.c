/* guess.c - see guess.h. */
#include "sched/guess.h"

#include "base/base.h"

int guess_from_past(const int *tok, int n, int *to, int most)
{
    for (int length = 3; length >= 2; length--)
        for (int at = n - 1 - length; at >= 0; at--) {
            if (memcmp(tok + at, tok + n - length, (size_t)length * sizeof(int)))
                continue;
            int follow = min_int(most, n - at - length);
            memcpy(to, tok + at + length, (size_t)follow * sizeof(int));
            return follow;
        }
    return 0;
}
