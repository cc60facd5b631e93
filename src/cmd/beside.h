/* beside.h - programs of ours that stand beside this one. */
#ifndef TANDEM_BESIDE_H
#define TANDEM_BESIDE_H

#include <limits.h>

/* The path of a program in this one's folder; when it is not there just its name, to be looked for
 * in PATH. */
void find_beside(const char *name, char to[PATH_MAX]);

#endif
