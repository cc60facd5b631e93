/* test_make_model.c - made models: the same numbers however they are written, and folders that
 * load. */
#include "tiny.h"

#include "base/json.h"
#include "model/folder.h"
#include "model/make.h"
#include "text/tok.h"

#include <dirent.h>
#include <sys/stat.h>

static void relay(void *arg, const struct piece *pc)
{
    void **to = arg;
    ((make_tensor_fn *)to[0])(to[1], pc->name, pc->matrix ? pc->rows : pc->cols,
                              pc->matrix ? pc->cols : 1);
}

static int tensors(const struct model *m, make_tensor_fn *fn, void *arg, struct err *e)
{
    struct plan whole;
    struct plan_ask ask = {.weight = NUM_F32, .kv = NUM_F32, .numerics = "f32-fma"};
    void *to[2] = {(void *)fn, arg};
    int rc = plan_make(&whole, m, &ask, e);
    if (!rc)
        plan_pieces(&whole, PLAN_WHOLE, relay, to);
    return rc;
}

static char *new_folder(void)
{
    static char path[64];
    snprintf(path, sizeof(path), "/tmp/tandem-make-XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

static void remove_folder(const char *path)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -r '%s'", path);
    assert_int_equal(system(command), 0);
}

struct sum {
    const struct store *s;
    uint64_t hash;
    int n;
};

static void add_tensor(void *arg, const char *name, int rows, int cols)
{
    struct sum *sum = arg;
    struct tensor t;
    struct err e;
    if (store_find(sum->s, name, rows, cols, &t, &e))
        fail_msg("%s", e.text);
    const unsigned char *at = t.data;
    for (size_t i = 0; i < t.bytes; i++)
        sum->hash = (sum->hash ^ at[i]) * 0x100000001b3;
    sum->n++;
}

/* A hash of all tensors of the model in the folder, read as any other model is. */
static uint64_t read_back(const char *folder, int *n)
{
    struct model m;
    struct generation g;
    struct notes notes;
    struct err e;
    struct store *s;
    assert_int_equal(model_load(folder, &m, &g, &notes, &e), 0);
    if (store_open(folder, &s, &e))
        fail_msg("%s", e.text);
    struct sum sum = {.s = s, .hash = 0xcbf29ce484222325};
    assert_int_equal(tensors(&m, add_tensor, &sum, &e), 0);
    store_close(s);
    *n = sum.n;
    return sum.hash;
}

static uint64_t make(const char *folder, enum num type, int threads, size_t shard_bytes,
                     uint64_t seed)
{
    struct err e;
    int n;
    struct make m = {.name = "tiny",
                     .folder = folder,
                     .seed = seed,
                     .type = type,
                     .replace = true,
                     .threads = threads,
                     .shard_bytes = shard_bytes,
                     .tensors = tensors};
    if (make_model(&m, &e))
        fail_msg("%s", e.text);
    uint64_t hash = read_back(folder, &n);
    assert_int_equal(n, 4 * 9 + 2); /* layers of the shape "tiny", the embedding, the last norm */
    return hash;
}

static int count_shards(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *at; (at = readdir(d));)
        n += strstr(at->d_name, ".safetensors") && !strstr(at->d_name, "index");
    closedir(d);
    return n;
}

static void threads_and_shards_change_no_number(void **state)
{
    (void)state;
    char *folder = new_folder();
    for (int type = NUM_F32; type <= NUM_BF16; type++) {
        uint64_t one = make(folder, (enum num)type, 1, 0, 7);
        assert_int_equal(count_shards(folder), 1);
        assert_true(one == make(folder, (enum num)type, 3, 0, 7));
        assert_true(one == make(folder, (enum num)type, 3, 200000, 7));
        assert_true(count_shards(folder) > 2);
        assert_true(one != make(folder, (enum num)type, 3, 0, 8));
        assert_int_equal(count_shards(folder), 1);
    }
    remove_folder(folder);
}

static void the_tokenizer_of_a_made_model_is_whole(void **state)
{
    static const char text[] = "Grüße, 世界 \x01\n";
    struct tok *t;
    struct err e;
    int *ids;
    size_t n;
    (void)state;
    char *folder = new_folder();
    make(folder, NUM_BF16, 1, 0, 1);
    assert_int_equal(tok_load(folder, &t, &e), 0);
    assert_int_equal(tok_n_vocab(t), 512);
    assert_int_equal(tok_encode(t, text, strlen(text), 0, &ids, &n, &e), 0);
    assert_int_equal(n, strlen(text)); /* a token per byte */
    char *back = tok_decode(t, ids, n, true);
    assert_string_equal(back, text);
    free(back);
    free(ids);
    tok_free(t);
    remove_folder(folder);
}

static void expect_refusal(const char *name, const char *folder, const char *words)
{
    struct err e = {""};
    struct make m = {.name = name, .folder = folder, .type = NUM_BF16, .tensors = tensors};
    assert_true(make_model(&m, &e) < 0);
    if (!strstr(e.text, words))
        fail_msg("\"%s\" does not say \"%s\"", e.text, words);
}

static void what_cannot_be_made_is_refused_in_one_sentence(void **state)
{
    char path[256];
    struct stat st;
    (void)state;
    char *folder = new_folder();
    snprintf(path, sizeof(path), "%s/big", folder);
    /* 70 billion parameters: no test machine has 5 TB */
    struct make m = {.name = "llama-3-70b", .folder = path, .type = NUM_F32, .tensors = tensors};
    struct err e;
    int rc = make_model(&m, &e);
    if (rc != -ENOSPC) {
        print_message("skipped: this disk has room for 260 GiB\n");
        remove_folder(folder);
        skip();
    }
    assert_non_null(strstr(e.text, "262.8 GiB"));
    assert_int_equal(stat(path, &st), -1); /* nothing is left */
    expect_refusal("nonsense", path, "llama-3.2-1b");
    expect_refusal("gpt-oss-20b", path, "mixture of experts");
    expect_refusal("tiny", "/proc/none", "/proc/none");
    make(folder, NUM_BF16, 1, 0, 1);
    expect_refusal("tiny", folder, "--force");
    remove_folder(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_and_shards_change_no_number),
        cmocka_unit_test(the_tokenizer_of_a_made_model_is_whole),
        cmocka_unit_test(what_cannot_be_made_is_refused_in_one_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
