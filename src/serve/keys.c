/* keys.c - see keys.h. */
#include "serve/keys.h"

#include "base/json.h"

#include <math.h>
#include <strings.h>
#include <xxhash.h>

struct entry {
    struct key key;
    char text[KEY_MOST]; /* 0-padded */
};

struct keys {
    int n;
    struct entry **at;
};

static int bad_line(struct err *e, const char *what, int line, const char *why)
{
    return err_set(e, -EINVAL, "%.200s line %d: %s", what, line, why);
}

/* A limit as a whole number; absent: 0. */
static bool limit(char **at, double *to)
{
    char *word = strsep(at, " \t"), *end;
    *to = 0;
    if (!word || !*word)
        return true;
    *to = strtod(word, &end);
    return !*end && *to >= 0 && *to <= 1e9 && isfinite(*to);
}

static int parse_line(struct entry *to, char *line, const char *what, int number, struct err *e)
{
    char *word = strsep(&line, " \t"), *name = strsep(&line, " \t");
    double requests, tokens;
    if (strlen(word) >= KEY_MOST || strlen(word) < 4)
        return bad_line(e, what, number, "a key has 4 to 255 characters");
    if (name && strlen(name) >= KEY_NAME)
        return bad_line(e, what, number, "a name has at most 63 characters");
    if (!limit(&line, &requests) || !limit(&line, &tokens) || (line && *line))
        return bad_line(e, what, number,
                        "after KEY and NAME come requests at once and tokens a minute, as numbers");
    memcpy(to->text, word, strlen(word));
    to->key.hash = XXH3_64bits(word, strlen(word));
    snprintf(to->key.name, sizeof(to->key.name), "%s", name && *name ? name : "key");
    to->key.max_requests = (int)requests;
    to->key.tok_per_min = to->key.tok_left = tokens;
    return 0;
}

static int parse(struct keys *k, char *text, const char *what, struct err *e)
{
    int rc = 0, number = 0;
    for (char *line; !rc && (line = strsep(&text, "\n"));) {
        number++;
        line[strcspn(line, "\r")] = 0;
        line += strspn(line, " \t");
        if (!*line || *line == '#')
            continue;
        k->at = realloc(k->at, ((size_t)k->n + 1) * sizeof(*k->at));
        must(k->at);
        struct entry *one = k->at[k->n++] = calloc(1, sizeof(*one));
        must(one);
        rc = parse_line(one, line, what, number, e);
    }
    if (!rc && !k->n)
        rc = err_set(e, -EINVAL, "%.200s names no key", what);
    return rc;
}

/* Running requests hold on to their keys: a key that stays is the same struct with new limits. */
static void keep_standing(struct keys *now, struct keys *old)
{
    for (int i = 0; i < now->n; i++)
        for (int j = 0; old && j < old->n; j++) {
            struct entry *a = now->at[i], *b = old->at[j];
            if (memcmp(a->text, b->text, KEY_MOST))
                continue;
            a->key.requests = b->key.requests;
            b->key = a->key;
            now->at[i] = b;
            old->at[j] = a;
            a->key.requests = 0;
        }
}

int keys_parse(struct keys **keys, const char *text, size_t n, const char *what, struct err *e)
{
    struct keys *k = calloc(1, sizeof(*k));
    char *copy = calloc(1, n + 1);
    must(k && copy);
    memcpy(copy, text, n);
    int rc = memchr(text, 0, n) ? err_set(e, -EINVAL, "%.200s is not a text file", what)
                                : parse(k, copy, what, e);
    free(copy);
    if (rc) {
        keys_free(k);
        return rc;
    }
    keep_standing(k, *keys);
    keys_free(*keys);
    *keys = k;
    return 0;
}

int keys_load(struct keys **keys, const char *path, struct err *e)
{
    char *text;
    size_t n;
    int rc = file_read(path, 1 << 20, &text, &n, e);
    if (rc)
        return rc;
    rc = keys_parse(keys, text, n, path, e);
    free(text);
    return rc;
}

void keys_free(struct keys *keys)
{
    if (!keys)
        return;
    for (int i = 0; i < keys->n; i++) {
        struct entry *one = keys->at[i];
        one->key.removed = true;
        if (!one->key.requests)
            free(one);
    }
    free(keys->at);
    free(keys);
}

/* All bytes of all keys are looked at, whatever differs where. */
struct key *keys_find(struct keys *keys, const char *header, int *number)
{
    char given[KEY_MOST] = {0};
    struct key *found = NULL;
    if (!header || strncasecmp(header, "Bearer ", 7))
        return NULL;
    header += 7;
    header += strspn(header, " ");
    bool fits = strlen(header) < KEY_MOST;
    memcpy(given, header, fits ? strlen(header) : KEY_MOST - 1);
    for (int i = 0; i < keys->n; i++) {
        unsigned differ = !fits;
        for (int b = 0; b < KEY_MOST; b++)
            differ |= (unsigned)(keys->at[i]->text[b] ^ given[b]);
        if (!differ) {
            found = &keys->at[i]->key;
            *number = i;
        }
    }
    return found;
}

double keys_begin(struct key *k, double tokens, double now)
{
    if (k->max_requests && k->requests >= k->max_requests)
        return 1;
    if (k->tok_per_min > 0) {
        double rate = k->tok_per_min / 60;
        if (k->filled_s > 0)
            k->tok_left = fmin(k->tok_per_min, k->tok_left + (now - k->filled_s) * rate);
        k->filled_s = now;
        if (k->tok_left < fmin(tokens, k->tok_per_min))
            return (fmin(tokens, k->tok_per_min) - k->tok_left) / rate;
        k->tok_left -= tokens; /* below nothing for a request larger than a minute's worth */
    }
    k->requests++;
    return 0;
}

void keys_end(struct key *k)
{
    if (--k->requests == 0 && k->removed)
        free(k);
}
