/* pack.c - `tandem pack`: weights in the form that kernels read, into a folder that only has to be
 * mapped. */
#include "cmd/cmd.h"
#include "cmd/open.h"
#include "run/load.h"
#include "run/packed.h"
#include "run/room.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* What a folder holds beside its weights. */
static const char *const side_files[] = {
    "config.json",         "generation_config.json", "tokenizer.json",
    "tokenizer.model",     "tokenizer_config.json",  "special_tokens_map.json",
    "chat_template.jinja", "chat_template.json",     "vocab.json",
    "merges.txt",
};

static int copy_file(const char *from_folder, const char *to_folder, const char *name,
                     struct err *e)
{
    char from[PATH_MAX + 64], to[PATH_MAX + 64];
    struct stat st;
    snprintf(from, sizeof(from), "%s/%s", from_folder, name);
    snprintf(to, sizeof(to), "%s/%s", to_folder, name);
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return errno == ENOENT ? 0 : err_set(e, -errno, "%s: %s", from, strerror(errno));
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool good = out >= 0 && !fstat(in, &st);
    for (off_t at = 0; good && at < st.st_size;)
        good = sendfile(out, in, &at, (size_t)(st.st_size - at)) > 0;
    int rc = good ? 0 : err_set(e, -errno, "%s: %s", to, strerror(errno));
    close(in);
    if (out >= 0 && close(out) && !rc)
        rc = err_set(e, -errno, "%s: %s", to, strerror(errno));
    return rc;
}

static int copy_side_files(const char *from, const char *to, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; !rc && i < COUNT(side_files); i++)
        rc = copy_file(from, to, side_files[i], e);
    return rc;
}

static int write_file(const char *folder, const char *name, const char *text, size_t n,
                      struct err *e)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "we");
    bool good = f && fwrite(text, 1, n, f) == n;
    if (f)
        good = !fclose(f) && good;
    return good ? 0 : err_set(e, -EIO, "%s: %s", path, strerror(errno));
}

/* What a GGUF file holds of them. */
static int write_side_files(const char *gguf, const char *to, struct err *e)
{
    struct pool pool = {0};
    struct gguf_files f;
    int rc = gguf_files(gguf, &pool, &f, e);
    if (!rc)
        rc = write_file(to, "config.json", f.config, strlen(f.config), e);
    if (!rc)
        rc = write_file(to, "generation_config.json", f.generation, strlen(f.generation), e);
    if (!rc)
        rc = write_file(to, "tokenizer_config.json", f.tokenizer_config, strlen(f.tokenizer_config),
                        e);
    if (!rc)
        rc = write_file(to, f.spm ? "tokenizer.model" : "tokenizer.json", f.tokenizer,
                        f.n_tokenizer, e);
    pool_free(&pool);
    return rc;
}

static int make_folder(const char *folder, size_t bytes, bool *fresh, struct err *e)
{
    struct statvfs disk;
    char path[PATH_MAX + 64];
    *fresh = !mkdir(folder, 0777);
    if (!*fresh && errno != EEXIST)
        return err_set(e, -errno, "%.200s: %s", folder, strerror(errno));
    snprintf(path, sizeof(path), "%s/model.safetensors", folder);
    if (!access(path, F_OK))
        return err_set(e, -EEXIST, "%.200s is a model folder: name another for its packed weights",
                       folder);
    if (!statvfs(folder, &disk) && bytes + (16 << 20) > (size_t)disk.f_bavail * disk.f_frsize) {
        if (*fresh)
            rmdir(folder);
        return err_set(e, -ENOSPC, "%.200s needs %.1f GiB, but the disk has %.1f GiB free", folder,
                       (double)bytes / (1 << 30),
                       (double)disk.f_bavail * (double)disk.f_frsize / (1 << 30));
    }
    return 0;
}

/* Pack all weights into fresh memory. */
static int pack(const struct opened *at, char **data, size_t *bytes, struct err *e)
{
    const struct plan *p = &at->plan;
    struct weights whole;
    struct arena tables = {0}, numbers = {0};
    struct pool pool = {0};
    struct load *list;
    _Atomic uint64_t done = 0;
    weights_lay_out(&whole, p, PLAN_WHOLE, &tables, &numbers);
    *bytes = numbers.used;
    if (*bytes > memory_available())
        return err_set(e, -ENOMEM, "packing takes %zu MiB of memory, but %zu are free",
                       *bytes >> 20, memory_available() >> 20);
    int rc = map_memory(*bytes, false, data, e);
    if (rc)
        return rc;
    char *base = pool_get(&pool, tables.used + ARENA_ALIGN);
    base += (ARENA_ALIGN - (uintptr_t)base % ARENA_ALIGN) % ARENA_ALIGN;
    tables = (struct arena){.base = base, .size = tables.used};
    numbers = (struct arena){.base = *data, .size = *bytes};
    weights_lay_out(&whole, p, PLAN_WHOLE, &tables, &numbers);
    rc = load_list(&list, p, &whole, at->store, &pool, e);
    if (!rc)
        rc = load_all(list, (int)sysconf(_SC_NPROCESSORS_ONLN), &done, e);
    pool_free(&pool);
    return rc;
}

int cmd_pack(const struct options *o, struct err *e)
{
    struct opened at;
    const char *to = o->word[1];
    char *data = NULL;
    size_t bytes = 0;
    bool fresh = false;
    int rc = open_model(&at, o, o->word[0], e);
    if (rc)
        return rc;
    if (!at.store)
        rc = err_set(e, -EINVAL, "%.200s is packed already: name the folder it was packed from",
                     o->word[0]);
    if (!rc)
        rc = make_folder(to, plan_weight_bytes(&at.plan, PLAN_WHOLE), &fresh, e);
    if (!rc)
        rc = pack(&at, &data, &bytes, e);
    if (!rc)
        rc = packed_write(to, &at.plan, data, bytes, e);
    if (!rc)
        rc = gguf_is(at.folder) ? write_side_files(at.folder, to, e)
                                : copy_side_files(at.folder, to, e);
    if (rc && fresh)
        rmdir(to);
    if (!rc && !o->quiet)
        fprintf(stderr, "wrote %s: %.1f MiB as %s; try: tandem run %s 'Hello'\n", to,
                (double)bytes / (1 << 20), num_name(at.plan.weight), to);
    if (data)
        munmap(data, bytes);
    open_close(&at);
    return rc;
}
