/* cmd.h - the verbs. One file per verb; the table of names and options is base/options.def.
 *
 * A verb returns 0, or a negative code with one sentence in e, which main() prints. Results go to
 * standard output, all else to standard error. The exit status follows from the code:
 *     0 -> 0,  CMD_USAGE -> 2,  -EINTR -> 130 (Ctrl-C, nothing printed),  any other -> 1.
 */
#ifndef TANDEM_CMD_H
#define TANDEM_CMD_H

#include "base/opt.h"

/* Options that are each fine but not together: return err_set(e, CMD_USAGE, "..."). */
enum { CMD_USAGE = -10000 };

#define VERB(ID, id, ...) int cmd_##id(const struct options *o, struct err *e);
#include "base/options.def"

#endif
