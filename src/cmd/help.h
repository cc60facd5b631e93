/* help.h - the option table as text: help, manual page, completion. */
#ifndef TANDEM_CMD_HELP_H
#define TANDEM_CMD_HELP_H

#include "base/opt.h"

void help_overview(FILE *to);
void help_verb(FILE *to, enum verb verb);
void help_man(FILE *to);        /* tandem(1) as roff */
void help_completion(FILE *to); /* a bash script */

#endif
