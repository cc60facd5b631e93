/* keys.h - who may ask: API keys from a file, and what each may do at once.
 *
 * One key a line: KEY [NAME [REQUESTS [TOKENS_PER_MINUTE]]]; 0 or nothing: no limit. Blank lines
 * and lines that begin with # do not count. Comparing takes the same time for every wrong key.
 */
#ifndef TANDEM_KEYS_H
#define TANDEM_KEYS_H

#include "base/base.h"

enum { KEY_MOST = 256, KEY_NAME = 64 };

struct key {
    char name[KEY_NAME];
    int max_requests;   /* at once; 0: no limit */
    double tok_per_min; /* of prompts and answers; 0: no limit */
    uint64_t hash;      /* of its text */
    /* how it stands */
    int requests;
    bool removed;              /* from the file; freed with its last request */
    double tok_left, filled_s; /* of the bucket of one minute; when it was last filled */
};

struct keys;

/* Read the file, or text as if it were one (what: its name in errors). Replaces *keys, in which
 * keys that remain keep how they stand. -EINVAL: one sentence with the line; *keys stays. */
int keys_load(struct keys **keys, const char *path, struct err *e);
int keys_parse(struct keys **keys, const char *text, size_t n, const char *what, struct err *e);
void keys_free(struct keys *keys);

/* The key that an Authorization header ("Bearer ...") names; its number in *number, for fair
 * sharing. NULL: none. */
struct key *keys_find(struct keys *keys, const char *header, int *number);

/* May it begin one more request of so many tokens at this time (seconds, monotonic)? 0, or seconds
 * after which it may try again. keys_end() when the request has ended. */
double keys_begin(struct key *k, double tokens, double now);
void keys_end(struct key *k);

#endif
