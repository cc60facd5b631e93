/* record.c - see record.h. Pure. */
#include "dev/cuda/record.h"

#include <stddef.h>
#include <string.h>

int record_keys(int most_keys)
{
    int n = RECORD_KEYS;
    while (n < most_keys)
        n *= 2;
    return n;
}

struct record *records_meet(struct records *r, struct step_key key, bool *again, void **old)
{
    struct record *oldest = &r->at[0];
    *old = NULL;
    for (int i = 0; i < RECORDS; i++) {
        struct record *at = &r->at[i];
        if (at->met && !memcmp(&at->key, &key, sizeof(key))) {
            at->met = ++r->now;
            *again = true;
            return at;
        }
        if (at->met < oldest->met)
            oldest = at;
    }
    *old = oldest->recorded;
    *oldest = (struct record){.key = key, .met = ++r->now};
    *again = false;
    return oldest;
}
