/* place.c - see place.h. */
#include "base/place.h"
#include "base/base.h"

#include <unistd.h>

void place_program(char to[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", to, PATH_MAX - 1);
    to[n > 0 ? n : 0] = 0;
    char *slash = strrchr(to, '/');
    if (slash)
        *slash = 0;
}

static bool holds(const char *folder, const char *probe)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof(path), "%s/%s", folder, probe);
    return strlen(folder) < PATH_MAX && !access(path, R_OK);
}

bool place_find(char to[PATH_MAX], const char *env, const char *below, const char *installed,
                const char *source, const char *probe)
{
    char here[PATH_MAX], beside[PATH_MAX + 64], above[PATH_MAX + 64];
    const char *chosen = getenv(env);
    place_program(here);
    snprintf(beside, sizeof(beside), "%s/../share/tandem/%s", here, below);
    snprintf(above, sizeof(above), "%s/../%s", here, below);
    const char *place[] = {chosen ? chosen : beside, above, installed, source};
    for (size_t i = 0; i < (chosen ? 1 : COUNT(place)); i++)
        if (holds(place[i], probe)) {
            snprintf(to, PATH_MAX, "%s", place[i]);
            return true;
        }
    *to = 0;
    return false;
}
