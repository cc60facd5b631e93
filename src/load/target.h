/* target.h - the server under load: where it is, what it is called, and single questions to it. */
#ifndef TANDEM_LOAD_TARGET_H
#define TANDEM_LOAD_TARGET_H

#include "load/workload.h"

#include <curl/curl.h>

struct target {
    char base[512];             /* "http://127.0.0.1:8000/v1" */
    char socket[108];           /* a Unix socket's path; "": none */
    struct curl_slist *headers; /* content type, key */
    long timeout_ms;            /* of a whole request */
};

/* url: "http://HOST:PORT", perhaps with a path that ends in /v1, or "unix:/PATH". key_file: its
 * first word that is not in a comment (#) is the API key; NULL: none. End with target_close(),
 * after an error too. */
int target_open(struct target *t, const char *url, const char *key_file, double timeout_s,
                struct err *e);
void target_close(struct target *t);

/* Set everything about an easy handle but what is done with the reply. path: "/models". body:
 * NULL for GET; it is not copied. */
void target_prepare(const struct target *t, CURL *easy, const char *path, const char *body);

/* Ask and wait; a status other than 200 is an error with the server's message. NULL: e is filled.
 */
json_t *target_ask(const struct target *t, const char *path, const char *body, struct err *e);

/* The first of the server's models, into name[256]. */
int target_model(const struct target *t, char *name, struct err *e);

/* "/chat/completions" or "/completions". */
const char *target_path(bool chat);

/* How many tokens words are, by two short requests; fills w->rate. */
int target_probe(const struct target *t, struct workload *w, struct err *e);

#endif
