/* tools.h - tool calls in a model's text, found while it streams.
 *
 * What is not a well-formed call comes out as text, never lost. How a model writes calls follows
 * from its chat template.
 */
#ifndef TANDEM_TOOLS_H
#define TANDEM_TOOLS_H

#include "base/base.h"

enum tools_style {
    TOOLS_NONE,
    TOOLS_HERMES,  /* <tool_call>{"name": .., "arguments": ..}</tool_call>, any number */
    TOOLS_LLAMA,   /* {"name": .., "parameters": ..}, perhaps after <|python_tag|>; more after ; */
    TOOLS_MISTRAL, /* [TOOL_CALLS][{"name": .., "arguments": ..}, ..] */
    TOOLS_ARGS     /* [TOOL_CALLS]name[ARGS]{..}, Mistral from 2025 on */
};

/* The style that a chat template speaks of; TOOLS_NONE when it is none of these. */
enum tools_style tools_style(const char *template_text);
const char *tools_name(enum tools_style style);

/* The special words of the style, which must reach the parser as text though they are special
 * tokens: tools_marker(style, i) is the i-th, NULL past the end. */
const char *tools_marker(enum tools_style style, int i);

enum tools_part {
    TOOLS_TEXT,     /* ordinary text of the answer */
    TOOLS_BEGIN,    /* a call begins; the bytes are the function's name */
    TOOLS_ARGUMENTS /* more of the current call's arguments, JSON text as the model writes it */
};

/* Given to the caller as it becomes certain: bytes that are valid during the call only. */
struct tools_sink {
    void *arg;
    void (*put)(void *arg, enum tools_part part, const char *s, size_t n);
};

struct tools;
struct tools *tools_new(enum tools_style style);
/* Feed n bytes; a TOOLS_BEGIN is followed by the arguments of that call until the next. */
void tools_feed(struct tools *t, const char *s, size_t n, struct tools_sink sink);
/* The text is complete: what was held back goes out, as text where it is no call. */
void tools_end(struct tools *t, struct tools_sink sink);
int tools_calls(const struct tools *t); /* begun so far */
void tools_free(struct tools *t);

#endif
