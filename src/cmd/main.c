/* main.c - from argv to a verb, and from its result to an exit status. See cmd.h. */
#include "cmd/cmd.h"
#include "cmd/help.h"

typedef int verb_fn(const struct options *o, struct err *e);

static verb_fn *const verb_fns[VERB_COUNT] = {
#define VERB(ID, id, ...) [VERB_##ID] = cmd_##id,
#include "base/options.def"
};

static int status(int rc, const struct err *e)
{
    if (rc == -EINTR)
        return 130;
    if (rc)
        fprintf(stderr, "tandem: %s\n", e->text);
    return rc == CMD_USAGE ? 2 : rc ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct options o;
    struct err e = {""};
    if (opt_parse(&o, argc, argv, &e))
        return status(CMD_USAGE, &e);
    if (o.help) {
        help_verb(stdout, o.verb);
        return 0;
    }
    int rc = verb_fns[o.verb](&o, &e);
    if ((fflush(stdout) || ferror(stdout)) && !rc) /* a full disk must not look like success */
        rc = err_set(&e, -EIO, "cannot write to standard output: %s", strerror(errno));
    return status(rc, &e);
}
