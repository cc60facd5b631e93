/* bench_serve.c - `tandem bench serve`: becomes the program tandem-load, which is not part of this
 * one so that a server need not carry libcurl and all that comes with it. */
#include "cmd/beside.h"
#include "cmd/cmd.h"

#include <unistd.h>

#define PROGRAM "tandem-load"

int cmd_bench_serve(const struct options *o, struct err *e)
{
    char path[PATH_MAX];
    find_beside(PROGRAM, path);
    execvp(path, o->argv);
    return err_set(e, -errno,
                   "bench serve: cannot start %s, which should be installed beside tandem: %s",
                   PROGRAM, strerror(errno));
}
