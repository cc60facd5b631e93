/* reply_json.h - JSON text written into a buffer that grows.
 *
 * Commas and quotes are the writer's: out_key() inside an object, out_item() inside an array
 * come before each value. Bytes that are not UTF-8 are written as U+FFFD, so that the text is
 * always valid JSON. */
#ifndef TANDEM_REPLY_JSON_H
#define TANDEM_REPLY_JSON_H

#include "base/base.h"

/* Zero is an empty buffer. Reuse it with n = 0; end it with out_free(). */
struct out {
    char *at; /* not terminated by 0 */
    size_t n, room;
};

void out_bytes(struct out *o, const char *s, size_t n);
void out_str(struct out *o, const char *s); /* as it is */
PRINTF(2, 3) void out_fmt(struct out *o, const char *fmt, ...);
void out_free(struct out *o);

void out_key(struct out *o, const char *key);          /* "key":, with a comma where needed */
void out_item(struct out *o);                          /* a comma where needed */
void out_text(struct out *o, const char *s, size_t n); /* a quoted string */
void out_string(struct out *o, const char *s);         /* the same of a C string; NULL: null */
void out_int(struct out *o, long long v);
void out_real(struct out *o, double v); /* -inf as OpenAI has it, -9999; else not finite: null */

/* Are the bytes whole UTF-8 characters? */
bool out_is_text(const char *s, size_t n);

#endif
