/* store.c - see store.h: mapping the files of a folder and finding tensors by name. */
#include "model/store.h"
#include "base/json.h"
#include "model/gguf.h"
#include "model/safetensors.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct mapping {
    struct mapping *next;
    void *at;
    size_t bytes;
};

struct store {
    struct pool pool;
    struct mapping *map;
    struct tensor *t; /* sorted by name */
    int n;
    size_t bytes;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

const struct tensor *store_named(const struct store *s, const char *name)
{
    struct tensor key = {.name = name};
    return s->n ? bsearch(&key, s->t, (size_t)s->n, sizeof(*s->t), by_name) : NULL;
}

/* Sort, and refuse a name that two files hold. */
static int index_names(struct store *s, const char *what, struct err *e)
{
    if (s->n)
        qsort(s->t, (size_t)s->n, sizeof(*s->t), by_name);
    for (int i = 1; i < s->n; i++)
        if (!strcmp(s->t[i - 1].name, s->t[i].name))
            return err_set(e, -EINVAL, "%s: tensor \"%.80s\" stands in two files", what,
                           s->t[i].name);
    return 0;
}

static int add_file(struct store *s, const char *path, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size == 0) {
        close(fd);
        return err_set(e, -EINVAL, "%s: not a regular file with data", path);
    }
    void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        return err_set(e, -errno, "%s: cannot map %lld bytes: %s", path, (long long)st.st_size,
                       strerror(errno));
    struct mapping *m = pool_get(&s->pool, sizeof(*m));
    *m = (struct mapping){s->map, at, (size_t)st.st_size};
    s->map = m;
    s->bytes += m->bytes;
    if (!gguf_is(path))
        return safetensors_parse(at, m->bytes, path, &s->pool, &s->t, &s->n, e);
    struct gguf g;
    int rc = gguf_parse(at, m->bytes, &s->pool, &g, e);
    s->t = g.t, s->n = g.n;
    return rc ? err_add(e, rc, "%s", path) : 0;
}

/* Has this shard been named before? The index names it once for every tensor. */
static bool seen(const char *const *names, int n, const char *name)
{
    for (int i = n - 1; i >= 0; i--)
        if (!strcmp(names[i], name))
            return true;
    return false;
}

static int add_shards(struct store *s, const char *folder, const json_t *map, struct err *e)
{
    enum { SHARDS = 1024 };
    const char *shard[SHARDS], *name;
    char path[PATH_MAX];
    int n = 0, rc = 0;
    json_t *v;
    if (!json_is_object(map))
        return err_set(e, -EINVAL, "weight_map is missing");
    json_object_foreach((json_t *)map, name, v)
    {
        const char *file = json_string_value(v);
        if (!file || strchr(file, '/') || file[0] == '.' || strlen(file) > 255)
            return err_set(e, -EINVAL, "weight_map: \"%.80s\" names no file of the folder", name);
        if (seen(shard, n, file))
            continue;
        if (n == SHARDS)
            return err_set(e, -EINVAL, "weight_map: more than %d shards", SHARDS);
        shard[n++] = file;
        snprintf(path, sizeof(path), "%s/%s", folder, file);
        rc = add_file(s, path, e);
        if (rc == -ENOENT)
            return err_set(e, rc, "shard %s is missing: download it again", path);
        if (rc)
            return rc;
    }
    return 0;
}

static int check_index(const struct store *s, const json_t *map, struct err *e)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)map, name, v)
    {
        if (!store_named(s, name))
            return err_set(e, -EINVAL, "the index promises tensor \"%.80s\", but no shard has it",
                           name);
    }
    return 0;
}

static int open_folder(struct store *s, const char *folder, struct err *e)
{
    char path[PATH_MAX];
    int rc;
    if (gguf_is(folder)) {
        rc = add_file(s, folder, e);
        return rc ? rc : index_names(s, folder, e);
    }
    snprintf(path, sizeof(path), "%s/model.safetensors.index.json", folder);
    json_t *index = json_file(path, 1 << 28, &rc, e);
    if (index) {
        const json_t *map = json_object_get(index, "weight_map");
        rc = add_shards(s, folder, map, e);
        if (!rc)
            rc = index_names(s, folder, e);
        if (!rc)
            rc = check_index(s, map, e);
        json_decref(index);
        return rc;
    }
    if (rc != -ENOENT)
        return rc;
    snprintf(path, sizeof(path), "%s/model.safetensors", folder);
    rc = add_file(s, path, e);
    if (rc == -ENOENT)
        return err_set(e, rc,
                       "%s has neither model.safetensors nor model.safetensors.index.json: only "
                       "safetensors weights are read",
                       folder);
    return rc ? rc : index_names(s, folder, e);
}

int store_open(const char *folder, struct store **out, struct err *e)
{
    struct store *s = calloc(1, sizeof(*s));
    *out = NULL;
    if (!s)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = open_folder(s, folder, e);
    if (rc)
        store_close(s);
    else
        *out = s;
    return rc;
}

int store_open_bytes(const void *bytes, size_t n, const char *what, struct store **out,
                     struct err *e)
{
    struct store *s = calloc(1, sizeof(*s));
    *out = NULL;
    if (!s)
        return err_set(e, -ENOMEM, "out of memory");
    s->bytes = n;
    int rc = safetensors_parse(bytes, n, what, &s->pool, &s->t, &s->n, e);
    if (!rc)
        rc = index_names(s, what, e);
    if (rc)
        store_close(s);
    else
        *out = s;
    return rc;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    for (struct mapping *m = s->map; m; m = m->next)
        munmap(m->at, m->bytes);
    pool_free(&s->pool);
    free(s);
}

static bool shape_fits(const struct tensor *t, int rows, int cols)
{
    if (t->n_dim == 2)
        return t->dim[0] == rows && t->dim[1] == cols;
    return t->n_dim == 1 && cols == 1 && t->dim[0] == rows;
}

static const struct tensor *scales_of(const struct store *s, const char *name)
{
    static const char *const suffix[] = {"_scale_inv", "_scale"};
    char text[512];
    const struct tensor *t = NULL;
    for (size_t i = 0; i < COUNT(suffix) && !t; i++)
        if (snprintf(text, sizeof(text), "%s%s", name, suffix[i]) < (int)sizeof(text))
            t = store_named(s, text);
    return t;
}

/* Which numbers of [rows, cols] a scale is for; false: the shape fits none of the ways. */
static bool place_scales(const struct tensor *t, int rows, int cols, struct scales *to)
{
    enum { BLOCK = 128 };
    const int64_t r = t->n_dim ? t->dim[0] : 1, c = t->n_dim > 1 ? t->dim[1] : 1;
    *to = (struct scales){t->data, t->type, INT_MAX, INT_MAX, 0};
    if (t->n_dim > 2)
        return false;
    if (r == 1 && c == 1)
        return true;
    to->stride = (size_t)c;
    to->rows = r == rows && c == 1 ? 1 : BLOCK;
    to->cols = r == rows && c == 1 ? INT_MAX : BLOCK;
    return to->rows == 1 || (r == (rows + BLOCK - 1) / BLOCK && c == (cols + BLOCK - 1) / BLOCK);
}

static int find_scales(const struct store *s, int rows, int cols, struct tensor *to, struct err *e)
{
    const struct tensor *t = scales_of(s, to->name);
    if (!t)
        return err_set(
            e, -ENOENT,
            "tensor \"%.80s\" is F8_E4M3, but its scales are missing (a tensor called as "
            "it is, with _scale_inv or _scale behind)",
            to->name);
    if (!num_is_float(t->type))
        return err_set(e, -EINVAL, "the scales \"%.80s\" are neither F32, F16 nor BF16", t->name);
    if (!place_scales(t, rows, cols, &to->scales))
        return err_set(
            e, -EINVAL,
            "the scales \"%.80s\" of [%d, %d] numbers are [%lld, %lld]: one for all, one "
            "for each row and one for each 128 x 128 are read",
            t->name, rows, cols, (long long)t->dim[0], (long long)(t->n_dim > 1 ? t->dim[1] : 1));
    return 0;
}

int store_find(const struct store *s, const char *name, int rows, int cols, struct tensor *to,
               struct err *e)
{
    const struct tensor *t = store_named(s, name);
    if (!t)
        return err_set(e, -ENOENT, "tensor \"%.80s\" is missing from the model's files", name);
    if (t->format && t->type == NUM_I32)
        return err_set(e, -ENOTSUP,
                       "tensor \"%.80s\" is %s, which is not read; F32, F16, BF16, Q8_0, Q4_0 and "
                       "Q4_1 are",
                       name, t->format);
    if (t->type >= NUM_COUNT || !num_can_weigh(t->type))
        return err_set(e, -EINVAL,
                       "tensor \"%.80s\" is neither F32, F16, BF16 nor F8_E4M3: other safetensors "
                       "are not read",
                       name);
    if (!shape_fits(t, rows, cols))
        return err_set(e, -EINVAL,
                       "tensor \"%.80s\" is [%lld%s%lld], but config.json asks for [%d, %d]", name,
                       (long long)t->dim[0], t->n_dim > 1 ? ", " : "] of rank ",
                       (long long)(t->n_dim > 1 ? t->dim[1] : t->n_dim), rows, cols);
    *to = *t;
    return t->type == NUM_FP8 ? find_scales(s, rows, cols, to, e) : 0;
}

int store_count(const struct store *s) { return s->n; }
const struct tensor *store_at(const struct store *s, int i) { return &s->t[i]; }
size_t store_bytes(const struct store *s) { return s->bytes; }
