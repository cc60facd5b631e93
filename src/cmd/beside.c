/* beside.c - see beside.h. */
#include "cmd/beside.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LONGEST_NAME = 64 };

void find_beside(const char *name, char to[PATH_MAX])
{
    char here[PATH_MAX - LONGEST_NAME];
    ssize_t n = readlink("/proc/self/exe", here, sizeof(here) - 1);
    here[n > 0 ? n : 0] = 0;
    char *slash = strrchr(here, '/');
    if (slash)
        *slash = 0;
    snprintf(to, PATH_MAX, "%s/%.*s", here, LONGEST_NAME - 2, name);
    if (!slash || access(to, X_OK))
        snprintf(to, PATH_MAX, "%s", name);
}
