/* place.h - where the files are that come with the program: the demo model, hardware profiles. */
#ifndef TANDEM_PLACE_H
#define TANDEM_PLACE_H

#include <limits.h>
#include <stdbool.h>

/* The folder of the running program, without the last '/'. */
void place_program(char to[PATH_MAX]);

/* The folder share/tandem/BELOW as installed (below: "models/demo"). Looked for, in this order, as
 * the environment's variable `env` says, alone when it is set; beside the program; BELOW above the
 * program, as in a build folder; `installed`; `source`. It must hold the file `probe`. False when
 * there is none; `to` is then empty. */
bool place_find(char to[PATH_MAX], const char *env, const char *below, const char *installed,
                const char *source, const char *probe);

#endif
