/* library.c - see library.h. */
#include "comm/nccl/library.h"

#include <dlfcn.h>
#include <stdlib.h>

#define INSTALL "install NCCL 2.18 or later (libnccl2, or pip install nvidia-nccl-cu13)"

/* Functions of these types all fit into one of dlsym()'s. */
static const char *find_all(struct nccl *to, void *library)
{
    *(void **)&to->GetErrorString = dlsym(library, "ncclGetErrorString");
    if (!to->GetErrorString)
        return "ncclGetErrorString";
#define NCCL_CALL(name, arguments)                                                                 \
    *(void **)&to->name = dlsym(library, "nccl" #name);                                            \
    if (!to->name)                                                                                 \
        return "nccl" #name;
#include "comm/nccl/calls.def"
#undef NCCL_CALL
    return NULL;
}

int nccl_open(struct nccl *to, struct err *e)
{
    const char *chosen = getenv("TANDEM_NCCL"), *path = chosen ? chosen : "libnccl.so.2";
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    *to = (struct nccl){0};
    if (!library)
        return err_set(e, -ENOENT,
                       "these GPUs are to add by NCCL, which cannot be loaded (%.200s): " INSTALL
                       ", or name its library by TANDEM_NCCL",
                       dlerror());
    const char *missing = find_all(to, library);
    if (!missing && to->GetVersion(&to->version))
        missing = "a version";
    if (missing)
        return err_set(e, -ENOTSUP, "%.200s has no %s: " INSTALL, path, missing);
    if (to->version < NCCL_LEAST)
        return err_set(e, -ENOTSUP, "%.200s is NCCL %d.%d.%d, which is too old: " INSTALL, path,
                       to->version / (to->version < 10000 ? 1000 : 10000),
                       to->version / 100 % (to->version < 10000 ? 10 : 100), to->version % 100);
    return 0;
}

struct nccl_config nccl_config(void)
{
    return (struct nccl_config){.size = sizeof(struct nccl_config),
                                .magic = (unsigned)NCCL_MAGIC,
                                .version = NCCL_LEAST,
                                .blocking = 0,
                                .cluster = NCCL_UNDEFINED,
                                .least_blocks = NCCL_UNDEFINED,
                                .most_blocks = NCCL_UNDEFINED,
                                .split_share = NCCL_UNDEFINED};
}
