/* make.c - see make.h. Every number depends on the seed and its place in the file alone, so the
 * order of writing does not matter. */
#include "model/make.h"
#include "base/arena.h"
#include "base/json.h"
#include "model/folder.h"

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct entry {
    char name[96];
    int rows, cols;
};

struct making {
    const struct make *make;
    struct model model;
    struct pool pool;
    struct entry *t;
    int n, room;
    size_t bytes, done;
};

static void add_tensor(void *arg, const char *name, int rows, int cols)
{
    struct making *w = arg;
    if (w->n == w->room) {
        struct entry *old = w->t;
        w->room = w->room ? 2 * w->room : 256;
        w->t = pool_get(&w->pool, (size_t)w->room * sizeof(*w->t));
        if (old)
            memcpy(w->t, old, (size_t)w->n * sizeof(*old));
    }
    struct entry *t = &w->t[w->n++];
    snprintf(t->name, sizeof(t->name), "%s", name);
    t->rows = rows, t->cols = cols;
    w->bytes += (size_t)rows * (size_t)cols * num_bytes(w->make->type);
}

/* ------------------------------------------------------------------------------- numbers */

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return x ^ x >> 31;
}

/* Two numbers of one draw: the sum of the draw's bytes pairs is near enough to a normal. */
static void fill(const struct making *w, const struct entry *t, uint64_t first, char *to, size_t n)
{
    bool vector = t->cols == 1, norm = strstr(t->name, "norm") != NULL;
    float gain = vector ? 0 : 1.2f / sqrtf((float)t->cols);
    for (size_t i = 0; i < n; i++) {
        uint64_t r = mix((w->make->seed + 1) * 0x9E3779B97F4A7C15 + first + i);
        float u = (float)(int32_t)(r & 0xFFFF) + (float)(int32_t)(r >> 16 & 0xFFFF) +
                  (float)(int32_t)(r >> 32 & 0xFFFF) - 98302.5f;
        float f = norm ? 1 : gain * u / 32768;
        uint16_t half = w->make->type == NUM_F16 ? f32_to_f16(f) : f32_to_bf16(f);
        if (w->make->type == NUM_F32)
            memcpy(to + 4 * i, &f, 4);
        else
            memcpy(to + 2 * i, &half, 2);
    }
}

/* ------------------------------------------------------------------------------- files */

static int write_text(const char *folder, const char *name, const char *text, struct err *e)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "we");
    bool good = f && fputs(text, f) >= 0;
    if (f)
        good = !fclose(f) && good;
    return good ? 0 : err_set(e, -EIO, "%s: %s", path, strerror(errno));
}

static int write_header(struct making *w, FILE *f)
{
    char *text;
    size_t n, at = 0;
    const char *type = w->make->type == NUM_F32 ? "F32" : w->make->type == NUM_F16 ? "F16" : "BF16";
    FILE *h = open_memstream(&text, &n);
    must(h);
    for (int i = 0; i < w->n; i++) {
        const struct entry *t = &w->t[i];
        size_t bytes = (size_t)t->rows * (size_t)t->cols * num_bytes(w->make->type);
        char shape[32];
        snprintf(shape, sizeof(shape), t->cols == 1 ? "%d" : "%d,%d", t->rows, t->cols);
        fprintf(h, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                i ? "," : "{", t->name, type, shape, at, at + bytes);
        at += bytes;
    }
    fputc('}', h);
    fclose(h);
    uint64_t size = round_up(n, 8);
    bool good = fwrite(&size, 8, 1, f) == 1 && fwrite(text, 1, n, f) == n;
    for (; n < size; n++)
        good = good && fputc(' ', f) != EOF;
    free(text);
    return good ? 0 : -EIO;
}

static int write_weights(struct making *w, const char *path, struct err *e)
{
    enum { BLOCK = 1 << 18 };
    size_t size = num_bytes(w->make->type);
    char *block = malloc(BLOCK * size);
    FILE *f = fopen(path, "we");
    uint64_t place = 0;
    int rc = f && block ? write_header(w, f) : -EIO;
    for (int i = 0; !rc && i < w->n; i++) {
        size_t left = (size_t)w->t[i].rows * (size_t)w->t[i].cols;
        while (!rc && left) {
            size_t n = left < BLOCK ? left : BLOCK;
            fill(w, &w->t[i], place, block, n);
            rc = fwrite(block, size, n, f) == n ? 0 : -EIO;
            place += n, left -= n, w->done += n * size;
            if (w->make->progress)
                w->make->progress(w->make->arg, w->done, w->bytes);
        }
    }
    if (f && fclose(f))
        rc = -EIO;
    free(block);
    return rc ? err_set(e, rc, "%s: %s", path, strerror(errno)) : 0;
}

/* A byte-level tokenizer: 256 bytes, an end token, fillers that text never becomes. */
static int write_tokenizer(const struct making *w, struct err *e)
{
    const char *folder = w->make->folder;
    json_t *vocab = json_object(), *added = json_array();
    char name[24];
    int n = w->model.n_vocab;
    unsigned next = 256;
    for (int b = 0; b < 256 && b < n; b++) {
        bool plain = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        unsigned c = plain ? (unsigned)b : next++;
        if (c < 128)
            snprintf(name, sizeof(name), "%c", (char)c);
        else
            snprintf(name, sizeof(name), "%c%c", (char)(0xC0 | c >> 6), (char)(0x80 | (c & 63)));
        json_object_set_new(vocab, name, json_integer(b));
    }
    for (int i = 256; i < n - 1; i++) {
        snprintf(name, sizeof(name), "<filler%d>", i);
        json_object_set_new(vocab, name, json_integer(i));
    }
    json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", n - 1,
                                           "content", "<|end|>", "special", 1, "normalized", 0,
                                           "lstrip", 0, "rstrip", 0, "single_word", 0));
    json_t *o =
        json_pack("{s:s, s:o, s:n, s:{s:s, s:b, s:b}, s:n, s:{s:s}, s:{s:s, s:o, s:[]}}", "version",
                  "1.0", "added_tokens", added, "normalizer", "pre_tokenizer", "type", "ByteLevel",
                  "add_prefix_space", 0, "use_regex", 1, "post_processor", "decoder", "type",
                  "ByteLevel", "model", "type", "BPE", "vocab", vocab, "merges");
    must(o);
    char *text = json_dumps(o, JSON_COMPACT);
    must(text);
    int rc = write_text(folder, "tokenizer.json", text, e);
    free(text);
    json_decref(o);
    return rc ? rc
              : write_text(folder, "tokenizer_config.json", "{\"eos_token\": \"<|end|>\"}\n", e);
}

/* ------------------------------------------------------------------------------- the whole */

static int read_shape(struct making *w, char **config, struct err *e)
{
    struct generation g;
    struct notes notes;
    const char *known = model_config(w->make->name);
    size_t n;
    if (!strncmp(w->make->name, "olmoe", 5) || !strncmp(w->make->name, "mixtral", 7))
        return err_set(e, -ENOTSUP, "%s is a mixture of experts, which is not supported yet",
                       w->make->name);
    if (known) {
        *config = strdup(known);
        must(*config);
        n = strlen(known);
    } else if (access(w->make->name, R_OK)) {
        char names[256] = "";
        for (int i = 0; model_known(i); i++)
            snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i ? ", " : "",
                     model_known(i));
        return err_set(e, -ENOENT,
                       "no shape is called %.60s and no config.json is there; known: %s",
                       w->make->name, names);
    } else if (file_read(w->make->name, 16 << 20, config, &n, e)) {
        return -EINVAL;
    }
    int rc = model_parse(*config, n, NULL, 0, &w->model, &g, &notes, e);
    if (!rc && w->model.n_vocab < 258)
        rc = err_set(e, -EINVAL, "a vocabulary of %d is too small for 256 bytes and an end token",
                     w->model.n_vocab);
    return rc;
}

static int make_folder(const struct make *m, size_t bytes, struct err *e)
{
    struct statvfs disk;
    int entries = 0;
    bool fresh = !mkdir(m->folder, 0777);
    if (!fresh && errno != EEXIST)
        return err_set(e, -errno, "%s: %s", m->folder, strerror(errno));
    DIR *d = opendir(m->folder);
    if (!d)
        return err_set(e, -errno, "%s: %s", m->folder, strerror(errno));
    while (readdir(d))
        entries++;
    closedir(d);
    if (entries > 2 && !m->replace)
        return err_set(e, -EEXIST, "%s exists and is not empty: choose another folder, or --force",
                       m->folder);
    if (!statvfs(m->folder, &disk) && bytes + (16 << 20) > (size_t)disk.f_bavail * disk.f_frsize) {
        if (fresh)
            rmdir(m->folder);
        return err_set(e, -ENOSPC, "%s needs %.1f GiB, but the disk has %.1f GiB free", m->folder,
                       (double)bytes / (1 << 30),
                       (double)disk.f_bavail * (double)disk.f_frsize / (1 << 30));
    }
    return 0;
}

static int write_all(struct making *w, const char *config, struct err *e)
{
    const struct make *m = w->make;
    char generation[64], part[PATH_MAX], whole[PATH_MAX];
    snprintf(part, sizeof(part), "%s/model.safetensors.part", m->folder);
    snprintf(whole, sizeof(whole), "%s/model.safetensors", m->folder);
    snprintf(generation, sizeof(generation), "{\"eos_token_id\": %d}\n", w->model.n_vocab - 1);
    int rc = make_folder(m, w->bytes, e);
    if (!rc)
        rc = write_weights(w, part, e);
    if (!rc && rename(part, whole))
        rc = err_set(e, -errno, "%s: %s", whole, strerror(errno));
    if (rc) {
        unlink(part);
        return rc;
    }
    rc = write_text(m->folder, "config.json", config, e);
    if (!rc)
        rc = write_text(m->folder, "generation_config.json", generation, e);
    return rc ? rc : write_tokenizer(w, e);
}

int make_model(const struct make *make, struct err *e)
{
    struct making w = {.make = make};
    char *config = NULL;
    int rc = read_shape(&w, &config, e);
    if (!rc)
        rc = make->tensors(&w.model, add_tensor, &w, e);
    if (!rc)
        rc = write_all(&w, config, e);
    free(config);
    pool_free(&w.pool);
    return rc;
}
