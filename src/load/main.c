/* main.c - tandem-load: the program behind `tandem bench serve`, with the same command line. */
#include "load/bench.h"

int main(int argc, char **argv)
{
    struct options o;
    struct err e = {""};
    int rc = opt_parse(&o, argc, argv, &e) ? LOAD_USAGE : 0;
    if (!rc && (o.verb != VERB_BENCH_SERVE || o.help))
        rc = err_set(&e, LOAD_USAGE, "this program is started by tandem bench serve (see --help)");
    if (!rc)
        rc = bench_serve(&o, &e);
    if (!rc && (fflush(stdout) || ferror(stdout)))
        rc = err_set(&e, -EIO, "cannot write to standard output: %s", strerror(errno));
    if (rc && rc != -EINTR)
        fprintf(stderr, "tandem: %s\n", e.text);
    return rc == -EINTR ? 130 : rc == LOAD_USAGE ? 2 : rc ? 1 : 0;
}
