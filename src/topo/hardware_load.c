/* hardware_load.c - finding a hardware profile: a file, or one of those that are shipped.
 * See hardware.h. */
#include "base/json.h"
#include "base/place.h"
#include "topo/hardware.h"

#include <dirent.h>
#include <unistd.h>

static bool has_suffix(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);
    return n > k && !strcmp(name + n - k, end);
}

static int is_profile(const struct dirent *d)
{
    return d->d_name[0] != '.' && has_suffix(d->d_name, ".json");
}

/* "a, b, c": the profiles of the folder; as many as fit. */
static void list_profiles(const char *folder, char *to, size_t n)
{
    struct dirent **entry = NULL;
    int count = scandir(folder, &entry, is_profile, alphasort);
    size_t used = 0;
    *to = 0;
    for (int i = 0; i < count; i++) {
        int name = (int)strlen(entry[i]->d_name) - 5;
        if (used + (size_t)name + 3 < n)
            used += (size_t)snprintf(to + used, n - used, "%s%.*s", used ? ", " : "", name,
                                     entry[i]->d_name);
        free(entry[i]);
    }
    free(entry);
}

static int load_file(const char *path, struct hardware *h, struct err *e)
{
    int rc = 0;
    json_t *o = json_file(path, 1 << 22, &rc, e);
    if (!o)
        return rc;
    rc = hardware_from_json(o, h, e);
    json_decref(o);
    return rc ? err_add(e, rc, "%s", path) : 0;
}

int hardware_load(const char *name, struct hardware *h, struct err *e)
{
    char folder[PATH_MAX], path[PATH_MAX + 128], names[320];
    if (strchr(name, '/') || has_suffix(name, ".json"))
        return load_file(name, h, e);
    bool found = place_find(folder, "TANDEM_PROFILES", "profiles", TANDEM_PROFILES_INSTALLED,
                            TANDEM_PROFILES_SOURCE, ".");
    snprintf(path, sizeof(path), "%s/%.100s.json", folder, name);
    if (found && *name && !access(path, F_OK))
        return load_file(path, h, e);
    list_profiles(folder, names, sizeof(names));
    return err_set(e, -ENOENT,
                   "no hardware profile \"%.40s\": take %s; or give its memory, bytes a second and "
                   "operations a second; or measure it with `tandem topo`",
                   name, *names ? names : "the path of a file");
}
