/* gguf_files.c - what a Hugging Face folder would hold beside its weights, from a GGUF file. See
 * gguf.h. */
#include "model/gguf_inside.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

char *gguf_json(json_t *o, struct pool *pool)
{
    char *text = json_dumps(o, JSON_COMPACT), *kept = text;
    if (text)
        kept = pool_text(pool, text, strlen(text));
    free(text);
    json_decref(o);
    return kept;
}

int gguf_files_of(const struct gguf *g, struct pool *pool, struct gguf_files *to, struct err *e)
{
    *to = (struct gguf_files){0};
    int rc = gguf_config_of(g, pool, &to->config, e);
    return rc ? rc : gguf_tokenizer_of(g, pool, to, e);
}

int gguf_files(const char *path, struct pool *pool, struct gguf_files *to, struct err *e)
{
    struct stat st;
    struct gguf g;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || !st.st_size) {
        int rc = err_set(e, fd < 0 ? -errno : -EINVAL, "%s: %s", path,
                         fd < 0 ? strerror(errno) : "not a regular file with data");
        if (fd >= 0)
            close(fd);
        return rc;
    }
    void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        return err_set(e, -errno, "%s: cannot map it: %s", path, strerror(errno));
    int rc = gguf_parse(at, (size_t)st.st_size, pool, &g, e);
    if (!rc)
        rc = gguf_files_of(&g, pool, to, e);
    munmap(at, (size_t)st.st_size);
    return rc ? err_add(e, rc, "%s", path) : 0;
}
