/* sse.h - reading server-sent events (the WHATWG HTML standard, section 9.2) from pieces of any
 * size. Only the data of events is given out; names, ids and retry times are not. */
#ifndef TANDEM_LOAD_SSE_H
#define TANDEM_LOAD_SSE_H

#include "base/base.h"

enum { SSE_MOST = 16 << 20 }; /* bytes of an event */

/* An event's data, without the last line end; not 0-terminated, gone after the call. */
typedef void sse_event(void *arg, const char *data, size_t n);

struct sse_text {
    char *at;
    size_t n, room;
};

/* Zeroed with event and arg set: at the beginning of a stream. sse_free() ends it. */
struct sse {
    sse_event *event;
    void *arg;
    struct sse_text line, data;
    bool had_data; /* a "data" line has come, perhaps empty */
    bool after_cr; /* a line ended in \r; a \n now belongs to it */
};

/* Take the next n bytes. An event over SSE_MOST bytes is -EMSGSIZE: stop reading. */
int sse_feed(struct sse *s, const char *bytes, size_t n);

/* To the beginning of another stream, keeping the memory. */
void sse_restart(struct sse *s);
void sse_free(struct sse *s);

#endif
