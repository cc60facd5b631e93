/* terminal.h - messages typed by a person: history, several lines, Ctrl-C, Ctrl-D. */
#ifndef TANDEM_TERMINAL_H
#define TANDEM_TERMINAL_H

#include "base/base.h"

struct terminal;
struct terminal *terminal_open(void);
/* The next message, valid until the next call; NULL at the end (Ctrl-D, or Ctrl-C twice). Empty
 * ones are skipped. */
const char *terminal_message(struct terminal *t);
void terminal_close(struct terminal *t);

/* All of a file, 0-terminated; the caller frees it. */
char *terminal_all(FILE *f);

#endif
