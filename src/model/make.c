/* make.c - see make.h. The weights are made in make_weights.c; here is the rest of the folder. */
#include "base/json.h"
#include "model/folder.h"
#include "model/make_weights.h"

#include <dirent.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const size_t shard_bytes = 4000000000;

struct making {
    const struct make *make;
    struct model model;
    struct pool pool;
    struct tensor_list list;
};

static void add_tensor(void *arg, const char *name, int rows, int cols)
{
    struct making *w = arg;
    tensor_add(&w->list, &w->pool, name, rows, cols, num_bytes(w->make->type),
               w->make->shard_bytes ? w->make->shard_bytes : shard_bytes);
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

/* A byte-level tokenizer: 256 bytes, an end token, fillers that text never becomes. */
/* ChatML, whose words are plain text to this tokenizer: so that chats can be measured too. */
static const char tokenizer_config[] =
    "{\"eos_token\": \"<|end|>\",\n"
    " \"chat_template\": \"{% for message in messages %}{{'<|im_start|>' + message['role'] + "
    "'\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if "
    "add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}\"}\n";

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
    return rc ? rc : write_text(folder, "tokenizer_config.json", tokenizer_config, e);
}

/* ------------------------------------------------------------------------------- the whole */

static int read_shape(struct making *w, char **config, struct err *e)
{
    struct generation g;
    struct notes notes;
    const char *known = model_config(w->make->name);
    size_t n;
    if (model_is_mixture(w->make->name))
        return err_set(e, -ENOTSUP,
                       "%s is a mixture of experts of a kind that is not supported yet",
                       w->make->name);
    if (known) {
        *config = strdup(known);
        must(*config);
        n = strlen(known);
    } else if (access(w->make->name, R_OK)) {
        char names[430];
        model_known_names(names, sizeof(names));
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

/* Entries of the folder; weights of before are removed when they are to be replaced. */
static int look_around(const struct make *m, int *entries, struct err *e)
{
    struct dirent *at;
    *entries = -2; /* . and .. */
    DIR *d = opendir(m->folder);
    if (!d)
        return err_set(e, -errno, "%s: %s", m->folder, strerror(errno));
    for (; (at = readdir(d)); ++*entries)
        if (m->replace && (strstr(at->d_name, ".safetensors")))
            unlinkat(dirfd(d), at->d_name, 0);
    closedir(d);
    return 0;
}

static int make_folder(const struct make *m, size_t bytes, struct err *e)
{
    struct statvfs disk;
    int entries;
    bool fresh = !mkdir(m->folder, 0777);
    if (!fresh && errno != EEXIST)
        return err_set(e, -errno, "%s: %s", m->folder, strerror(errno));
    int rc = look_around(m, &entries, e);
    if (rc)
        return rc;
    if (entries && !m->replace)
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
    char generation[64];
    snprintf(generation, sizeof(generation), "{\"eos_token_id\": %d}\n", w->model.n_vocab - 1);
    int rc = make_folder(m, w->list.bytes, e);
    if (!rc)
        rc = weights_write(m, &w->list, e);
    if (!rc)
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
