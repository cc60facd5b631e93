/* json.h - reading JSON files with errors that name the file and the field.
 *
 * A thin layer over jansson: strict (duplicate keys, bad UTF-8 and deep nesting are refused), and
 * every getter says in one sentence what was wrong and where. Values stay jansson's json_t.
 */
#ifndef TANDEM_JSON_H
#define TANDEM_JSON_H

#include "base/base.h"

#include <jansson.h>

/* Parse n bytes of text; `what` (a file name) begins the error sentence. Returns a new reference,
 * or NULL with e filled. */
json_t *json_parse(const char *text, size_t n, const char *what, struct err *e);

/* The same for a whole file. A missing file gives e and NULL, with *code = -ENOENT when code is
 * not NULL (-EINVAL for bad content, -errno otherwise). Files over `limit` bytes are refused. */
json_t *json_file(const char *path, size_t limit, int *code, struct err *e);

/* Read the whole file into malloc'd memory, 0-terminated; the caller frees *text. */
int file_read(const char *path, size_t limit, char **text, size_t *n, struct err *e);

/* Getters of an object's field. A field that is absent or null leaves *to as it is (the default)
 * and returns 0. A wrong type or a number outside [lo, hi] returns -EINVAL with e filled. */
int json_get_int(const json_t *o, const char *key, long long lo, long long hi, int *to,
                 struct err *e);
int json_get_float(const json_t *o, const char *key, double lo, double hi, float *to,
                   struct err *e);
int json_get_bool(const json_t *o, const char *key, bool *to, struct err *e);

/* The string's bytes belong to the object. */
int json_get_text(const json_t *o, const char *key, const char **to, struct err *e);

#endif
