/* plugin.c - see plugin.h. */
#include "dev/plugin.h"
#include "base/place.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_MS = 60000, CHECK_PATIENCE_MS = 15000 };

/* ------------------------------------------------------------------------------- loading */

static int load(const char *path, const struct plugin **to, struct err *e)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return err_set(e, -ELIBACC, "the GPU plugin cannot be loaded: %.400s", dlerror());
    const struct plugin *p = dlsym(library, PLUGIN_SYMBOL);
    if (!p || p->abi != PLUGIN_ABI) {
        dlclose(library);
        return err_set(e, -EPROTO,
                       "%.300s is not the GPU plugin of this version of tandem: install both from "
                       "one build",
                       path);
    }
    *to = p;
    return 0;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

int plugin_open(const struct plugin **to, struct err *e)
{
    char path[PATH_MAX + 96], here[PATH_MAX];
    const char *chosen = getenv("TANDEM_PLUGIN_PATH");
    *to = NULL;
    if (chosen) {
        bool folder = is_folder(chosen);
        snprintf(path, sizeof(path), "%s%s", chosen, folder ? "/" PLUGIN_FILE : "");
        if (!access(path, R_OK))
            return load(path, to, e);
        return err_set(e, -ENOENT, "TANDEM_PLUGIN_PATH is %.200s, but no GPU plugin is there",
                       chosen);
    }
    place_program(here);
    const char *const place[] = {"", "/" TANDEM_PLUGINS_BELOW};
    for (size_t i = 0; i < COUNT(place); i++) {
        snprintf(path, sizeof(path), "%s%s/" PLUGIN_FILE, here, place[i]);
        if (!access(path, R_OK))
            return load(path, to, e);
    }
    return err_set(e, -ENOENT,
                   "the GPU plugin " PLUGIN_FILE
                   " is neither in %.150s nor in " TANDEM_PLUGINS_BELOW
                   " from there: it is built where nvcc is found",
                   here);
}

/* ------------------------------------------------------------------------------- listing */

/* What a process that asks the plugin says. */
struct listed {
    int rc, n;
    struct err err;
    struct gpu gpu[GPUS];
};

static void say(int fd, const struct listed *all)
{
    const char *at = (const char *)all, *end = at + sizeof(*all);
    for (ssize_t n; at < end && (n = write(fd, at, (size_t)(end - at))) > 0;)
        at += n;
}

/* First without what has to be tried, then with one trial more each time; or whether libraries are
 * there. */
static _Noreturn void answer(const struct plugin *p, unsigned libraries, int fd)
{
    static struct listed all; /* of this process alone, which is too large for some stacks */
    all.rc = libraries ? p->libraries(libraries, &all.err) : p->list(all.gpu, &all.n, &all.err);
    say(fd, &all);
    for (int i = 0; i < GPU_TRIALS && !libraries && !all.rc && p->check; i++) {
        p->check(all.gpu, min_int(all.n, GPUS), i);
        say(fd, &all);
    }
    _exit(0);
}

/* All of it within the time, or none. */
static bool hear(int fd, struct listed *to, int patience_ms)
{
    struct pollfd on = {.fd = fd, .events = POLLIN};
    char *at = (char *)to, *end = at + sizeof(*to);
    while (at < end) {
        int ready = poll(&on, 1, patience_ms);
        if (ready < 0 && errno == EINTR)
            continue;
        ssize_t n = ready > 0 ? read(fd, at, (size_t)(end - at)) : 0;
        if (n <= 0)
            return false;
        at += n;
    }
    return true;
}

/* What it had of the GPUs is free again then. A driver that hangs may hold it against any signal:
 * it is left behind. */
static void end(pid_t child, int patience_ms)
{
    kill(child, SIGKILL);
    for (int ms = 0; ms < patience_ms && !waitpid(child, NULL, WNOHANG); ms += 5)
        usleep(5000);
}

/* libraries: which are asked for; 0: which GPUs there are. */
static int ask(const struct plugin *plugin, unsigned libraries, struct listed *all, struct err *e)
{
    struct listed tried;
    int fd[2];
    if (pipe2(fd, O_CLOEXEC))
        return err_set(e, -errno, "cannot make a pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child == 0)
        answer(plugin, libraries, fd[1]);
    close(fd[1]);
    if (child < 0) {
        close(fd[0]);
        return err_set(e, -EAGAIN, "cannot start a process to list the GPUs");
    }
    bool heard = hear(fd[0], all, PATIENCE_MS), tells = heard && !all->rc && plugin->check;
    for (int i = 0; i < GPU_TRIALS && tells && !libraries; i++) {
        tells = hear(fd[0], &tried, CHECK_PATIENCE_MS);
        if (tells)
            *all = tried;
    }
    close(fd[0]);
    end(child, heard ? CHECK_PATIENCE_MS : 1000);
    if (!heard)
        return err_set(e, -ETIMEDOUT,
                       "the NVIDIA driver did not list its GPUs in %d s, or failed at it: look at "
                       "nvidia-smi and dmesg",
                       PATIENCE_MS / 1000);
    return all->rc ? err_set(e, all->rc, "%s", all->err.text) : 0;
}

int plugin_libraries(const struct plugin *plugin, unsigned libraries, struct err *e)
{
    struct listed none;
    return libraries ? ask(plugin, libraries, &none, e) : 0;
}

int plugin_gpus(const struct plugin *plugin, struct gpus *to, struct err *e)
{
    struct listed all;
    memset(to, 0, sizeof(*to));
    int rc = ask(plugin, 0, &all, e);
    if (rc)
        return rc;
    to->plugin = plugin;
    to->n = min_int(all.n, GPUS);
    memcpy(to->gpu, all.gpu, sizeof(to->gpu));
    return 0;
}

bool gpus_reach(const struct gpus *g, int ranks)
{
    bool all = true;
    for (int r = 0; r < ranks; r++)
        for (int other = 0; other < ranks; other++)
            all &= gpus_index(g, r) == gpus_index(g, other) ||
                   g->gpu[gpus_index(g, r)].reaches >> gpus_index(g, other) & 1;
    return all;
}

void gpu_numerics(char to[16], int arch, enum num weight, enum num kv, bool fast)
{
    if (fast)
        snprintf(to, 16, "cuda-sm%u-fast", (unsigned)arch % 1000);
    else if (weight == NUM_BF16 || weight == NUM_FP8 || kv == NUM_BF16)
        snprintf(to, 16, "cuda-sm%d", arch);
    else
        snprintf(to, 16, "f32-fma");
}
