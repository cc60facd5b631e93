/* tools_json.h - scanning JSON text that has not all arrived yet: where a value ends, and what an
 * object that may be a tool call says. Private to text/tools*.c. */
#ifndef TANDEM_TOOLS_JSON_H
#define TANDEM_TOOLS_JSON_H

#include "base/base.h"

enum { SCAN_MORE = 0, SCAN_BAD = -1 };

/* The first byte from `at` on that is no blank; n when there is none. */
size_t scan_blanks(const char *s, size_t n, size_t at);

/* The end (> at) of the value that begins at s[at]; SCAN_MORE when it has not all arrived (a number
 * or word at the end of s may go on), SCAN_BAD when none begins there. Brackets are counted, not
 * matched. */
long scan_value(const char *s, size_t n, size_t at);

/* An object with "name" and "arguments" (or "parameters"), as far as it has arrived. */
struct scan_call {
    enum { CALL_MORE, CALL_BAD, CALL_ARGUMENTS, CALL_WHOLE } what;
    struct span name; /* the string with its quotes */
    struct span
        arguments; /* CALL_ARGUMENTS: its {} begins at lo; CALL_WHOLE: all of it, or empty */
    size_t end;    /* CALL_WHOLE: after the object */
};

/* s[at] is the object's bracket. An object whose first key no call has is CALL_BAD at once. */
struct scan_call scan_call(const char *s, size_t n, size_t at);

/* After the arguments: further members and the bracket. The end, or SCAN_MORE or SCAN_BAD. */
long scan_rest(const char *s, size_t n, size_t at);

#endif
