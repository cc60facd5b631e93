/* think.h - reasoning that a model writes before its answer, split off while it streams. */
#ifndef TANDEM_THINK_H
#define TANDEM_THINK_H

#include "base/buffer.h"

/* What stands around reasoning; NULL: the model marks none. */
struct think_words {
    const char *open, *close;
};

/* The words a chat template speaks of: <think> </think>, [THINK] [/THINK], or none. */
struct think_words think_words(const char *template_text);

/* Does the prompt end inside reasoning, so that the answer begins there? */
bool think_opened(struct think_words w, const char *prompt);

/* Has the prompt closed it, so that the answer has none? */
bool think_closed(struct think_words w, const char *prompt);

/* Reasoning can only be at the beginning, after blanks. Blanks at its ends and before the answer
 * belong to neither. Words of the marks later in the answer are ordinary text. */
struct think {
    struct think_words words;
    enum { THINK_START, THINK_INSIDE, THINK_BLANKS, THINK_ANSWER } state;
    bool begun;         /* something of the reasoning was given out */
    struct buffer held; /* undecided bytes: part of a mark, or blanks */
};

/* Given out as it becomes certain: a piece of the reasoning, or of the answer. */
struct think_sink {
    void *arg;
    void (*put)(void *arg, bool reasoning, const char *s, size_t n);
};

void think_begin(struct think *t, struct think_words w, bool opened);
void think_feed(struct think *t, const char *s, size_t n, struct think_sink sink);
void think_end(struct think *t, struct think_sink sink); /* what was held back goes out */
void think_free(struct think *t);

#endif
