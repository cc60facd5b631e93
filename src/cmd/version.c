/* version.c - `tandem version`: what this program is and what runs on this machine. */
#include "cmd/cmd.h"
#include "dev/dev.h"

int cmd_version(const struct options *o, struct err *e)
{
    (void)o, (void)e;
    printf("tandem %s\ninstruction sets:", TANDEM_VERSION);
    for (int i = 0; i < ISA_COUNT; i++)
        if (isa_here((enum isa)i))
            printf(" %s", isa_name((enum isa)i));
    printf("; auto takes %s\n", isa_name(isa_best()));
    return 0;
}
