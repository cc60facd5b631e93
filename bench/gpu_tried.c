/* gpu_tried.c - see gpu_tried.h. */
#include "gpu_tried.h"
#include "dev/cuda/kernels.h"
#include "dev/cuda/runtime.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_S = 20 };
enum tried { SAME, OTHER, NONE, FAILED };

static enum tried try_them(bool attention)
{
    struct gpu_about about;
    bool same = false;
    int error = gpu_use(0);
    error = error ? error : gpu_about(0, &about);
    if (!error && about.arch != 90)
        return NONE;
    error = error ? error : attention ? gpu_check_attention(&same) : gpu_check_products(&same);
    if (error)
        fprintf(stderr, "%s by warpgroups: %s\n", attention ? "attention" : "products",
                gpu_error(error));
    return error ? FAILED : same ? SAME : OTHER;
}

const char *warpgroups_tried(bool attention)
{
    static const char *const said[] = {"the same bits", "other bits", "none", "failed"};
    int status = 0;
    const pid_t child = fork();
    if (!child) {
        alarm(PATIENCE_S);
        _exit(try_them(attention));
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return "crashed or hung";
    return said[WEXITSTATUS(status) & 3];
}
